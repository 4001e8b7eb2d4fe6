//! A ClientHello before anybody answers it: put together from records and reads however it is cut, and asked for the
//! name that it is for (RFC 8446 §4.1.2, RFC 6066 §3).

use rustls::server::Acceptor;

/// Longest ClientHello, in bytes with the headers of its records: what browsers send is about 2 KiB, and keys that
/// quantum computers do not break add some.
pub(super) const LONGEST: usize = 16 * 1024;

/// Alerts that we send ourselves (RFC 8446 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Alert {
    /// The visitor has no right to it.
    AccessDenied = 49,
    /// That is no ClientHello, or too long for one.
    DecodeError = 50,
    /// It cannot be done now, and that is not the visitor's fault.
    InternalError = 80,
    /// Nobody here has a certificate for that name.
    UnrecognizedName = 112,
}

impl Alert {
    /// As a record: fatal, as all of ours.
    pub(super) fn record(self) -> [u8; 7] {
        [21, 3, 3, 0, 2, 2, self as u8]
    }
}

/// What is known of a ClientHello by the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is not complete.
    Part,
    /// It is complete, and for this name; for none that we can see if there is none.
    Whole(Option<String>),
    /// It is none; what is to be answered.
    Bad(Vec<u8>),
}

/// Reads one ClientHello.
#[derive(Default)]
pub(super) struct Listener {
    acceptor: Acceptor,
    /// Bytes that it was given.
    given: usize,
}

impl Listener {
    /// Looks at all that was read so far, of which the beginning is as it was the last time.
    pub(super) fn look(&mut self, all: &[u8]) -> Heard {
        let bad = || Heard::Bad(Alert::DecodeError.record().to_vec());
        let mut new = all.get(self.given..).unwrap_or_default();
        while !new.is_empty() {
            match self.acceptor.read_tls(&mut new) {
                Ok(n) if n > 0 => self.given += n,
                _ => return bad(),
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(hello)) => {
                    return Heard::Whole(hello.client_hello().server_name().map(str::to_owned));
                }
                Err((_, mut alert)) => {
                    let mut record = Vec::new();
                    return match alert.write_all(&mut record) {
                        Ok(()) if !record.is_empty() => Heard::Bad(record),
                        _ => bad(),
                    };
                }
            }
        }
        if all.len() < LONGEST { Heard::Part } else { bad() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arp_common::tls::provider;
    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use std::sync::Arc;

    /// What a client says first: one record.
    fn hello(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let mut client =
            ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of so many bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let records = hello[5..].chunks(size);
        let put = |part: &[u8]| [&[22, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
        records.flat_map(put).collect()
    }

    fn whole(name: &str) -> Heard {
        Heard::Whole(Some(name.to_owned()))
    }

    fn alert(heard: &Heard) -> Option<u8> {
        match heard {
            Heard::Bad(record) => record.last().copied(),
            _ => None,
        }
    }

    #[test]
    fn the_name_is_found_at_every_split() {
        let hello = hello("Demo.arp.test", &[b"h2", b"postgresql"]);
        for records in [hello.clone(), in_records(&hello, 1), in_records(&hello, 60)] {
            for cut in 0..records.len() {
                let mut listener = Listener::default();
                assert_eq!(listener.look(&records[..cut]), Heard::Part, "{cut}");
                assert_eq!(listener.look(&records), whole("demo.arp.test"), "{cut}");
            }
            let mut listener = Listener::default();
            for n in 1..records.len() {
                assert_eq!(listener.look(&records[..n]), Heard::Part, "{n}");
            }
            // Early data comes right behind it.
            let more = [&records[..], &[23, 3, 3, 0, 1, 0]].concat();
            assert_eq!(listener.look(&more), whole("demo.arp.test"));
        }
    }

    #[test]
    fn names_that_are_none_and_what_is_no_hello() {
        assert_eq!(
            Listener::default().look(&hello("192.0.2.1", &[])),
            Heard::Whole(None)
        );
        let good = hello("demo.arp.test", &[]);
        let mut finished = good.clone();
        finished[5] = 20;
        let mut empty = vec![22, 3, 1, 0, 0];
        empty.extend(&good);
        let mut inner = good.clone();
        // The list of names says that it is longer than it is.
        let at = good.windows(13).position(|w| w == b"demo.arp.test").unwrap();
        inner[at - 4] = 0xff;
        for (bytes, why) in [
            (&finished[..], "another message"),
            (&empty, "a record with nothing in it"),
            (&inner, "a length that is wrong"),
            (&[22, 3, 1, 0xff, 0xff], "a record that is too long"),
            (
                &[22, 3, 1, 0, 5, 1, 0xff, 0xff, 0xff, 0],
                "a message that is too long",
            ),
            (&[21, 3, 1, 0, 2, 1, 0], "an alert"),
            (&[23, 3, 3, 0, 1, 0], "data"),
        ] {
            let heard = Listener::default().look(bytes);
            assert!(alert(&heard).is_some(), "{why}: {heard:?}");
        }
    }

    #[test]
    fn a_hello_is_read_up_to_its_limit() {
        // It says that it has 60,000 bytes, and sends them in pieces.
        let mut message = vec![1, 0, 0xea, 0x60];
        message.resize(60_000, 0);
        let sent = in_records(&[&[0; 5], &message[..]].concat(), 1000);
        let mut listener = Listener::default();
        for n in 1..LONGEST {
            assert_eq!(listener.look(&sent[..n]), Heard::Part, "{n}");
        }
        assert_eq!(
            alert(&listener.look(&sent[..LONGEST])),
            Some(Alert::DecodeError as u8)
        );
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_name(size in 1usize..400, cuts in proptest::collection::vec(0usize..3000, 0..6)) {
            let records = in_records(&hello("a-b.c_d.arp.test", &[b"http/1.1"]), size);
            let mut cuts: Vec<_> = cuts.into_iter().filter(|c| *c < records.len()).collect();
            cuts.sort_unstable();
            let mut listener = Listener::default();
            for cut in cuts {
                prop_assert_eq!(listener.look(&records[..cut]), Heard::Part);
            }
            prop_assert_eq!(listener.look(&records), whole("a-b.c_d.arp.test"));
        }

        #[test]
        fn any_bytes_are_heard(at in 0usize..300, with in proptest::collection::vec(any::<u8>(), 0..20), cut in 0usize..300) {
            let mut bytes = hello("demo.arp.test", &[]);
            let end = (at + with.len()).min(bytes.len());
            if let Some(place) = bytes.get_mut(at..end) {
                place.copy_from_slice(&with[..end - at]);
            }
            let mut listener = Listener::default();
            let cut = cut.min(bytes.len());
            if listener.look(&bytes[..cut]) == Heard::Part {
                let _ = listener.look(&bytes);
            }
        }
    }
}
