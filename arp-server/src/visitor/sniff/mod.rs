//! What the first bytes of a connection to the public port are.
//!
//! Each protocol has a file with one pure function, which looks at the bytes so far. To add one: write the file, and
//! its line in [`KNOWN`].

mod http1;
mod http2;
pub(crate) mod postgres;
mod preamble;
mod redis;
mod ssh;
mod tls;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Anything, behind a line of ours that says whom it is for.
    Preamble,
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
    /// SSH.
    Ssh,
    /// TLS, whatever is in it.
    Tls,
}

/// What one recogniser says of the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    /// It is mine.
    Yes,
    /// It may be mine; more bytes will tell.
    Maybe,
    /// It is not mine, whatever follows.
    No,
}

/// What is known of a connection by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sniffed {
    /// It speaks this, or nothing that we know.
    Is(Speaks),
    /// More bytes will tell.
    Unclear,
    /// Nothing that we know.
    Unknown,
}

/// Looks at the first bytes of a connection.
type Look = fn(&[u8]) -> Match;

/// What we understand. HTTP/1 stands last: hardly any bytes could not be a method that somebody invents.
const KNOWN: &[(Speaks, Look)] = &[
    (Speaks::Http2, http2::look),
    (Speaks::Preamble, preamble::look),
    (Speaks::Postgres, postgres::look),
    (Speaks::Redis, redis::look),
    (Speaks::Ssh, ssh::look),
    (Speaks::Tls, tls::look),
    (Speaks::Http1, http1::look),
];

/// Told to whoever speaks something else.
pub(crate) const UNDERSTOOD: &str = "this port understands HTTP, PostgreSQL, MySQL, Redis, and any other protocol behind a \
    line ?token=NAME or an HTTP CONNECT to NAME (arpc connect NAME does that)";

/// Looks at the first bytes. A protocol is told as soon as no other can be meant; that its bytes are right is for
/// those to say who speak it.
pub(crate) fn sniff(first: &[u8]) -> Sniffed {
    if first.is_empty() {
        return Sniffed::Unclear;
    }
    if http1::is_usual(first) {
        return Sniffed::Is(Speaks::Http1);
    }
    let mut left = None;
    for (speaks, look) in KNOWN {
        match (look(first), left) {
            (Match::No, _) => {}
            (Match::Yes, None) => return Sniffed::Is(*speaks),
            (Match::Maybe, None) => left = Some(*speaks),
            (Match::Yes | Match::Maybe, Some(_)) => return Sniffed::Unclear,
        }
    }
    left.map_or(Sniffed::Unknown, Sniffed::Is)
}

/// Compares with bytes that a protocol always begins with.
fn begins(first: &[u8], with: &[u8]) -> Match {
    if first.starts_with(with) {
        Match::Yes
    } else if with.starts_with(first) {
        Match::Maybe
    } else {
        Match::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PG: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];

    /// First packets, and what they are.
    const SAMPLES: &[(&[u8], Sniffed)] = &[
        (b"GET / HTTP/1.1\r\n", Sniffed::Is(Speaks::Http1)),
        (b"POST /?token=x HTTP/1.1\r\n", Sniffed::Is(Speaks::Http1)),
        (b"PROPFIND / HTTP/1.1\r\n", Sniffed::Is(Speaks::Http1)),
        (b"PRI / HTTP/1.1\r\n", Sniffed::Is(Speaks::Http1)),
        (b"SEARCH / HTTP/1.1\r\n", Sniffed::Is(Speaks::Http1)),
        (b"SSH / HTTP/1.1\r\n", Sniffed::Is(Speaks::Http1)),
        (b"CONNECT demo:22 HTTP/1.1\r\n", Sniffed::Is(Speaks::Http1)),
        (b"*X / HTTP/1.1\r\n", Sniffed::Is(Speaks::Http1)),
        (b"\r\nGET / HTTP/1.1\r\n", Sniffed::Is(Speaks::Http1)),
        (b"\r\n\r\n\r\n", Sniffed::Is(Speaks::Http1)),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Sniffed::Is(Speaks::Http2)),
        (b"?token=demo\r\n", Sniffed::Is(Speaks::Preamble)),
        (b"?tokem=demo\r\n", Sniffed::Unknown),
        (PG, Sniffed::Is(Speaks::Postgres)),
        (&[0, 0, 0, 50, 0, 3, 0, 0, b'u'], Sniffed::Is(Speaks::Postgres)),
        (&[0, 0, 0, 50, 0, 2, 0, 0, b'u'], Sniffed::Is(Speaks::Postgres)),
        (
            &[0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1],
            Sniffed::Is(Speaks::Postgres),
        ),
        (&[0, 9, 0, 0, 0, 3, 0, 0], Sniffed::Unknown),
        (&[0, 0, 0, 8, 9, 9, 9, 9], Sniffed::Unknown),
        (b"*2\r\n$4\r\nAUTH\r\n", Sniffed::Is(Speaks::Redis)),
        (b"*12\r\n$5\r\nHELLO\r\n", Sniffed::Is(Speaks::Redis)),
        (b"*2222222222", Sniffed::Is(Speaks::Http1)),
        (b"*\r\n", Sniffed::Unknown),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", Sniffed::Is(Speaks::Ssh)),
        (&[0x16, 3, 1, 2, 0, 1], Sniffed::Is(Speaks::Tls)),
        (&[0x16, 2, 1, 2, 0, 1], Sniffed::Unknown),
        (&[0xff, 0xfb, 0x1f], Sniffed::Unknown),
        (b"{\"a\":1}\n", Sniffed::Unknown),
        (b"\x03\x00\x00\x13", Sniffed::Unknown),
    ];

    #[test]
    fn every_prefix_is_unclear_or_right() {
        for (bytes, want) in SAMPLES {
            assert_eq!(sniff(bytes), *want, "{:?}", String::from_utf8_lossy(bytes));
            let mut told = Sniffed::Unclear;
            for cut in 0..=bytes.len() {
                let now = sniff(&bytes[..cut]);
                assert!(
                    told == Sniffed::Unclear || now == told || *want == Sniffed::Unknown,
                    "{:?} was {told:?} and is {now:?}",
                    String::from_utf8_lossy(&bytes[..cut])
                );
                told = now;
            }
        }
    }

    #[test]
    fn the_first_byte_of_most_requests_is_enough() {
        for method in [
            "GET ", "HEAD ", "DELETE ", "OPTIONS ", "CONNECT ", "TRACE ", "G", "D", "get ",
        ] {
            assert_eq!(sniff(method.as_bytes()), Sniffed::Is(Speaks::Http1), "{method}");
        }
    }

    proptest! {
        /// What was told once stays, whatever comes behind it; and a bounded number of bytes tells.
        #[test]
        fn more_bytes_change_nothing(
            sample in proptest::sample::select(SAMPLES),
            cut in 0usize..40,
            rest in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let mut bytes = sample.0[..cut.min(sample.0.len())].to_vec();
            bytes.extend(rest);
            let mut told = Sniffed::Unclear;
            for n in 0..=bytes.len() {
                let now = sniff(&bytes[..n]);
                // Who is handed a connection gets it for good, so only the first answer counts.
                if told == Sniffed::Unclear {
                    told = now;
                }
            }
            prop_assert!(told != Sniffed::Unclear || bytes.len() < 32);
        }
    }
}
