//! `permessage-deflate` (RFC 7692): what a WebSocket sends, compressed.
//!
//! The WebSocket library speaks no extensions. What goes out is compressed here and handed to it as a ready frame; what
//! comes in passes [`super::inflate`].
//!
//! Both sides compress with what they sent before in mind, which is what makes JSON events small: each looks like the one
//! before.

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};
use http::header::{HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS};
use std::io;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

const NAME: &str = "permessage-deflate";
/// Between speed and size: a level more costs twice the time for some hundredths.
const LEVEL: u32 = 4;
/// How far back our side looks, as a power of two: 8 KiB hold some dozens of events.
const WINDOW: u8 = 13;
/// Smaller messages gain nothing.
const SMALLEST: usize = 64;
/// Larger ones would hold up others on their thread; they are sent as they are.
const LARGEST: usize = 256 * 1024;
/// Each compressed socket keeps some 250 KiB; beyond so many the others are not compressed.
static PLACES: Semaphore = Semaphore::const_new(64);
/// Ends each message, and is not sent (RFC 7692 §7.2.1).
pub(super) const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// What both sides agreed on.
pub(super) struct Agreed {
    /// For `Sec-WebSocket-Extensions` of the answer.
    pub(super) header: HeaderValue,
    pub(super) deflater: Deflater,
}

/// Takes the first offer of the client that can be met; `None`: the socket is not compressed.
pub(super) fn agree(headers: &HeaderMap) -> Option<Agreed> {
    let offer = headers
        .get_all(SEC_WEBSOCKET_EXTENSIONS)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(Offer::read)?;
    let place = PLACES.try_acquire().ok()?;
    let header = HeaderValue::try_from(offer.answer()).ok()?;
    let window = offer.window.map_or(WINDOW, |window| window.min(WINDOW));
    let compress = Compress::new_with_window_bits(Compression::new(LEVEL), false, window);
    let deflater = Deflater {
        compress,
        forgets: offer.forgets,
        _place: place,
    };
    Some(Agreed { header, deflater })
}

/// One offer (RFC 7692 §7.1).
#[derive(Debug, PartialEq, Eq)]
struct Offer {
    /// Our side must not look back to earlier messages.
    forgets: bool,
    /// Nor further than this.
    window: Option<u8>,
}

impl Offer {
    /// Reads one; `None` if it is another extension, or asks for what we do not know or cannot do.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        if parts.next()? != NAME {
            return None;
        }
        let (mut offer, mut seen) = (
            Self {
                forgets: false,
                window: None,
            },
            Vec::new(),
        );
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(value.trim().trim_matches('"'))),
                None => (part, None),
            };
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
            let bits = value.and_then(|bits| bits.parse::<u8>().ok());
            match (name, value, bits) {
                ("server_no_context_takeover", None, _) => offer.forgets = true,
                // The least that our library can do is 9.
                ("server_max_window_bits", _, Some(bits @ 9..=15)) => offer.window = Some(bits),
                // Whatever the client's side does can be read.
                ("client_no_context_takeover" | "client_max_window_bits", None, _)
                | ("client_max_window_bits", _, Some(8..=15)) => {}
                _ => return None,
            }
        }
        Some(offer)
    }

    fn answer(&self) -> String {
        let mut answer = NAME.to_owned();
        if self.forgets {
            answer.push_str("; server_no_context_takeover");
        }
        if let Some(bits) = self.window {
            answer.push_str(&format!("; server_max_window_bits={bits}"));
        }
        answer
    }
}

/// Compresses what our side sends on one socket.
pub(super) struct Deflater {
    compress: Compress,
    forgets: bool,
    _place: SemaphorePermit<'static>,
}

impl Deflater {
    /// A text as a compressed frame; `None`: it is better sent as it is.
    ///
    /// # Errors
    /// When that fails; the other side could not read what comes after, so the socket is over.
    pub(super) fn frame(&mut self, text: &str) -> io::Result<Option<Frame>> {
        if !(SMALLEST..=LARGEST).contains(&text.len()) {
            return Ok(None);
        }
        let mut out = Vec::with_capacity(text.len() / 4 + 64);
        let mut rest = text.as_bytes();
        loop {
            let before = self.compress.total_in();
            self.compress
                .compress_vec(rest, &mut out, FlushCompress::Sync)
                .map_err(io::Error::other)?;
            let taken = usize::try_from(self.compress.total_in() - before).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            // Room that is left says that all is flushed.
            if rest.is_empty() && out.len() < out.capacity() {
                break;
            }
            out.reserve(out.capacity());
        }
        if self.forgets {
            self.compress.reset();
        }
        let Some(payload) = out.strip_suffix(&TAIL) else {
            return Err(io::Error::other("a compressed message has no end"));
        };
        let payload = payload.len();
        out.truncate(payload);
        let mut frame = Frame::message(Bytes::from(out), OpCode::Data(Data::Text), true);
        frame.header_mut().rsv1 = true;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Decompress, FlushDecompress};

    fn offered(value: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(value));
        agree(&headers).map(|agreed| agreed.header.to_str().unwrap().to_owned())
    }

    #[test]
    fn offers_are_met_as_far_as_they_are_understood() {
        let plain = "permessage-deflate";
        // As browsers offer it.
        assert_eq!(
            offered("permessage-deflate; client_max_window_bits").as_deref(),
            Some(plain)
        );
        assert_eq!(offered("x-other, permessage-deflate").as_deref(), Some(plain));
        assert_eq!(
            offered("permessage-deflate; server_max_window_bits=\"10\"; server_no_context_takeover")
                .as_deref(),
            Some("permessage-deflate; server_no_context_takeover; server_max_window_bits=10")
        );
        // The first that can be met.
        assert_eq!(
            offered("permessage-deflate; server_max_window_bits=8, permessage-deflate").as_deref(),
            Some(plain)
        );
        for refused in [
            "permessage-bzip2",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; unknown",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        ] {
            assert_eq!(offered(refused), None, "{refused}");
        }
    }

    fn deflater(offer: &'static str) -> Deflater {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(offer));
        agree(&headers).unwrap().deflater
    }

    #[test]
    fn what_is_sent_can_be_read_and_is_small() {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_max_window_bits=9",
        ] {
            let mut ours = deflater(offer);
            let mut theirs = Decompress::new(false);
            let (mut sent, mut said) = (0, 0);
            for number in 0..2_000 {
                let mut text = format!(
                    r#"{{"type":"event","event":{{"seq":{number},"at":"2026-11-20T10:00:{:02}.{:03}Z","type":"text","delta":true,"text":"word {} "}}}}"#,
                    number % 60,
                    number % 1000,
                    number * 7919 % 1013
                );
                if number % 500 == 7 {
                    // Larger than any buffer, and with nothing to find in it.
                    text.extend(
                        (0..40_000_u64).map(|at| {
                            char::from(b'!' + u8::try_from((at * at * 31 + at) % 89 % 90).unwrap())
                        }),
                    );
                }
                let frame = ours.frame(&text).unwrap().unwrap();
                assert!(frame.header().rsv1 && frame.header().is_final);
                let mut data = frame.into_payload().to_vec();
                (sent, said) = (sent + data.len(), said + text.len());
                data.extend_from_slice(&TAIL);
                if ours.forgets {
                    theirs.reset(false);
                }
                let (mut plain, mut rest) = (Vec::with_capacity(64), data.as_slice());
                while !rest.is_empty() {
                    let before = theirs.total_in();
                    theirs
                        .decompress_vec(rest, &mut plain, FlushDecompress::Sync)
                        .unwrap();
                    rest = &rest[usize::try_from(theirs.total_in() - before).unwrap()..];
                    plain.reserve(1024);
                }
                theirs.decompress_vec(&[], &mut plain, FlushDecompress::Sync).ok();
                assert_eq!(String::from_utf8(plain).unwrap(), text, "{offer}: {number}");
            }
            println!("{offer}: {said} bytes became {sent}");
            assert!(sent * 10 < said * 8, "{offer}: {said} bytes became {sent}");
        }
        let mut ours = deflater("permessage-deflate");
        for other in ["{}".to_owned(), "x".repeat(LARGEST + 1)] {
            assert!(ours.frame(&other).unwrap().is_none());
        }
    }
}
