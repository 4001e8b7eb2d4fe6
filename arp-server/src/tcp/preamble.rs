//! The line `?token=NAME` (and `&key=KEY` for the edge's gate), after which every byte belongs to the service.

use super::carry::carry;
use super::line::Line;
use crate::answer::{Refusal, Who};
use crate::defaults as d;
use crate::registry::Spelling;
use arp_common::protocol::Secret;
use arp_common::stop::Stop;
use bytes::BytesMut;

/// What the line says.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    name: String,
    key: Option<Secret>,
}

/// Serves a connection that begins with the line.
pub(super) async fn serve(mut line: Line, stop: &Stop) {
    line.hurry();
    let asked = loop {
        match parse(&line.buf) {
            Ok(Some((asked, length))) => {
                let _ = line.buf.split_to(length);
                break asked;
            }
            Ok(None) if stop.is_given() => return,
            Ok(None) => {
                if !line.more(d::MAX_PREAMBLE).await {
                    return line.refuse(&malformed()).await;
                }
            }
            Err(()) => return line.refuse(&malformed()).await,
        }
    };
    let (ip, peer) = (line.visitor.ip, line.peer);
    let reached = match line.public.reach(&asked.name, Spelling::Exact, ip, peer).await {
        Ok(reached) => reached,
        Err(refusal) => return line.refuse(&refusal).await,
    };
    match reached.open(&asked.key.into()).await {
        Ok(opened) => {
            carry(
                line,
                reached,
                opened,
                "preamble",
                BytesMut::new(),
                BytesMut::new(),
            )
            .await
        }
        Err(refusal) => line.refuse(&refusal).await,
    }
}

fn malformed() -> Refusal {
    let text = "the first line must be ?token=NAME, or ?token=NAME&key=KEY, and a line break";
    Refusal::new(Who::Visitor, 400, "bad_request", text)
}

/// Reads the line, if it is complete, and tells its length with the line break.
fn parse(buf: &[u8]) -> Result<Option<(Asked, usize)>, ()> {
    let end = buf.iter().position(|b| *b == b'\n');
    let Some(end) = end.filter(|end| *end < d::MAX_PREAMBLE) else {
        return if end.is_some() || buf.len() >= d::MAX_PREAMBLE {
            Err(())
        } else {
            Ok(None)
        };
    };
    let line = buf[..end].strip_suffix(b"\r").unwrap_or(&buf[..end]);
    let text = std::str::from_utf8(line).map_err(|_| ())?;
    let (mut name, mut key) = (None, None);
    for field in text.strip_prefix('?').ok_or(())?.split('&') {
        match field.split_once('=') {
            Some(("token", value)) if name.is_none() && !value.is_empty() => name = Some(value.to_owned()),
            Some(("key", value)) if key.is_none() => key = Some(Secret::new(value)),
            _ => return Err(()),
        }
    }
    let name = name.ok_or(())?;
    Ok(Some((Asked { name, key }, end + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asked(name: &str, key: Option<&str>) -> Asked {
        Asked {
            name: name.to_owned(),
            key: key.map(Secret::new),
        }
    }

    #[test]
    fn the_line_is_read_at_every_split() {
        for (bytes, want) in [
            (&b"?token=demo\r\nSSH-2.0"[..], Some((asked("demo", None), 13))),
            (b"?token=demo\n", Some((asked("demo", None), 12))),
            (b"?token=demo&key=k-1\r\n", Some((asked("demo", Some("k-1")), 21))),
        ] {
            assert_eq!(parse(bytes), Ok(want.map(|w| (w.0, w.1))));
            let end = bytes.iter().position(|b| *b == b'\n').unwrap();
            for cut in 0..=end {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut}");
            }
        }
        for bad in [
            "?token=\n",
            "?token=a&token=b\n",
            "?token=a&x=1\n",
            "?token\n",
            "x\n",
            "?\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(()), "{bad}");
        }
        assert_eq!(parse(&[b'?'; d::MAX_PREAMBLE]), Err(()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_line_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((asked, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len() && !asked.name.is_empty());
            }
        }
    }
}
