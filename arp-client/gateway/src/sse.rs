//! Server-sent events, cut at their borders and passed on as they came.

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memchr_iter};
use std::borrow::Cow;

/// Collects bytes and gives them back an event at a time, each with the blank line that ends it, to the byte.
///
/// Events can be looked at before they are taken ([`Self::look`]), so that those that came together go on together.
#[derive(Debug, Default)]
pub struct Splitter {
    buf: BytesMut,
    /// Up to here no border was found.
    looked: usize,
    /// Where the event begins that was looked at last, and where it ends.
    last: (usize, usize),
}

impl Splitter {
    /// Takes bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// The next whole event behind those that were looked at; all of them stay until they are taken.
    pub fn look(&mut self) -> Option<&[u8]> {
        let begin = self.last.1;
        // A border may begin in what was looked at before: up to "\r\n\r".
        let from = self.looked.saturating_sub(3).max(begin);
        let end = memchr_iter(b'\n', &self.buf[from..])
            .map(|at| from + at)
            .find_map(|at| {
                let line = &self.buf[begin..at];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                (line.is_empty() || line.ends_with(b"\n")).then_some(at + 1)
            });
        let Some(end) = end else {
            self.looked = self.buf.len();
            return None;
        };
        self.looked = end;
        self.last = (begin, end);
        Some(&self.buf[begin..end])
    }

    /// All events that were looked at, in one piece.
    pub fn take(&mut self) -> Bytes {
        self.split(self.last.1)
    }

    /// All events that were looked at but for the last one.
    pub fn take_before(&mut self) -> Bytes {
        self.split(self.last.0)
    }

    fn split(&mut self, end: usize) -> Bytes {
        self.looked -= end;
        self.last = (0, self.last.1 - end);
        self.buf.split_to(end).freeze()
    }

    /// Looks from the begin again at what was not taken.
    pub const fn again(&mut self) {
        self.looked = 0;
        self.last = (0, 0);
    }

    /// The next whole event.
    pub fn next_event(&mut self) -> Option<Bytes> {
        self.look()?;
        Some(self.take())
    }

    /// What has come of an event that is not complete.
    pub fn rest(&mut self) -> Bytes {
        self.again();
        self.buf.split().freeze()
    }

    /// How much that is.
    #[must_use]
    pub fn held(&self) -> usize {
        self.buf.len()
    }
}

/// The data of an event: its `data` lines, joined. `None` if it has none (a comment, an empty line).
#[must_use]
pub fn data(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut all: Option<Cow<'_, [u8]>> = None;
    let mut rest = event;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(value) = line.strip_prefix(b"data") else {
            continue;
        };
        let value = match value {
            [] => value,
            [b':', b' ', value @ ..] | [b':', value @ ..] => value,
            _ => continue,
        };
        match &mut all {
            Some(all) => {
                let all = all.to_mut();
                all.push(b'\n');
                all.extend_from_slice(value);
            }
            // Nearly all have one line: nothing is copied.
            None => all = Some(Cow::Borrowed(value)),
        }
    }
    all
}

/// The `type` of an event whose data is a JSON object with that name in front, as those of the model APIs have it;
/// `None` where it stands elsewhere, or has escapes. What tells most events apart without parsing them.
#[must_use]
pub fn kind(data: &[u8]) -> Option<&[u8]> {
    let mut rest = data.trim_ascii_start();
    for part in [&b"{"[..], b"\"type\"", b":", b"\""] {
        rest = rest.strip_prefix(part)?;
        if part != b"\"" {
            rest = rest.trim_ascii_start();
        }
    }
    let end = memchr::memchr2(b'"', b'\\', rest)?;
    (rest[end] == b'"').then(|| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(text: &[u8], at: &[usize]) -> (Vec<Bytes>, Bytes) {
        let mut splitter = Splitter::default();
        let mut events = Vec::new();
        let mut from = 0;
        for cut in at.iter().copied().chain([text.len()]) {
            let cut = cut.clamp(from, text.len());
            splitter.push(&text[from..cut]);
            from = cut;
            while let Some(event) = splitter.next_event() {
                events.push(event);
            }
        }
        (events, splitter.rest())
    }

    #[test]
    fn events_end_at_blank_lines_of_either_kind() {
        let (events, rest) = split(b"data: a\n\nevent: x\r\ndata: b\r\n\r\n\n: c\n\nda", &[]);
        let events: Vec<&[u8]> = events.iter().map(|e| &e[..]).collect();
        assert_eq!(
            events,
            [
                &b"data: a\n\n"[..],
                b"event: x\r\ndata: b\r\n\r\n",
                b"\n",
                b": c\n\n"
            ]
        );
        assert_eq!(&rest[..], b"da");
        assert_eq!(&*data(b"event: x\ndata: a\r\ndata:b\n\n").unwrap(), b"a\nb");
        assert_eq!(data(b": ping\n\n"), None);
        assert_eq!(&*data(b"data\n\n").unwrap(), b"");
        assert_eq!(data(b"database: x\n\n"), None);
    }

    #[test]
    fn what_came_together_is_taken_together() {
        let mut splitter = Splitter::default();
        splitter.push(b"data: a\n\ndata: b\n\ndata: c\n\ndata");
        assert_eq!(splitter.look(), Some(&b"data: a\n\n"[..]));
        splitter.again();
        assert_eq!(splitter.look(), Some(&b"data: a\n\n"[..]));
        assert_eq!(splitter.look(), Some(&b"data: b\n\n"[..]));
        assert_eq!(&splitter.take_before()[..], b"data: a\n\n");
        assert_eq!(&splitter.take()[..], b"data: b\n\n");
        assert_eq!(splitter.look(), Some(&b"data: c\n\n"[..]));
        assert_eq!(splitter.look(), None);
        splitter.push(b": d\n");
        assert_eq!(splitter.look(), None);
        splitter.push(b"\n");
        assert_eq!(splitter.look(), Some(&b"data: d\n\n"[..]));
        assert_eq!(&splitter.take()[..], b"data: c\n\ndata: d\n\n");
        assert!(splitter.take().is_empty() && splitter.held() == 0);
    }

    #[test]
    fn the_kind_of_an_event_is_seen_without_parsing_it() {
        assert_eq!(kind(br#"{"type":"a.delta","x":1}"#), Some(&b"a.delta"[..]));
        assert_eq!(kind(br#" { "type" : "ping" }"#), Some(&b"ping"[..]));
        for text in [
            &br#"{"x":1,"type":"a"}"#[..],
            br#"{"type":"a\u0062"}"#,
            br#"{"type":1}"#,
            b"[DONE]",
            b"",
            br#"{"type":" a"#,
        ] {
            assert_eq!(kind(text), None);
        }
    }

    proptest! {
        #[test]
        fn looking_and_taking_in_any_order_loses_nothing(text in "(data: x|\n|\r\n|: y){0,30}", cuts in proptest::collection::vec((0usize..90, 0u8..4), 0..12)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (wanted, rest) = split(text.as_bytes(), &[]);
            let wanted: Vec<u8> = wanted.iter().flat_map(|e| e.to_vec()).collect();
            let (mut splitter, mut out, mut from) = (Splitter::default(), Vec::new(), 0);
            for (cut, what) in cuts.into_iter().chain([(text.len(), 0)]) {
                let cut = cut.clamp(from, text.len());
                splitter.push(&text.as_bytes()[from..cut]);
                from = cut;
                while splitter.look().is_some() {
                    match what {
                        0 => out.extend_from_slice(&splitter.take()),
                        1 => out.extend_from_slice(&splitter.take_before()),
                        _ => {}
                    }
                }
                if what == 2 {
                    splitter.again();
                }
            }
            while splitter.look().is_some() {}
            out.extend_from_slice(&splitter.take());
            prop_assert_eq!(out, wanted);
            prop_assert_eq!(splitter.rest(), rest);
        }

        #[test]
        fn any_split_gives_the_same_events(text in "(data: x|\r|\n|\r\n|: y){0,30}", cuts in proptest::collection::vec(0usize..90, 0..12)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let whole = split(text.as_bytes(), &[]);
            let parts = split(text.as_bytes(), &cuts);
            prop_assert_eq!(&whole, &parts);
            let joined: Vec<u8> = parts.0.iter().flat_map(|e| e.to_vec()).chain(parts.1.to_vec()).collect();
            prop_assert_eq!(joined, text.into_bytes());
        }
    }
}
