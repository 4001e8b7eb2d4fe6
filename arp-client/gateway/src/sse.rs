//! Server-sent events, cut at their borders and passed on as they came.

use bytes::{Bytes, BytesMut};
use memchr::memchr_iter;

/// Collects bytes and gives them back an event at a time, each with the blank line that ends it, to the byte.
#[derive(Debug, Default)]
pub struct Splitter {
    buf: BytesMut,
    /// Up to here no border was found.
    looked: usize,
}

impl Splitter {
    /// Takes bytes as they come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// The next whole event.
    pub fn next_event(&mut self) -> Option<Bytes> {
        // A border may begin in what was looked at before: up to "\r\n\r".
        let from = self.looked.saturating_sub(3);
        let end = memchr_iter(b'\n', &self.buf[from..])
            .map(|at| from + at)
            .find_map(|at| {
                let line = &self.buf[..at];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                (line.is_empty() || line.ends_with(b"\n")).then_some(at + 1)
            });
        match end {
            Some(end) => {
                self.looked = 0;
                Some(self.buf.split_to(end).freeze())
            }
            None => {
                self.looked = self.buf.len();
                None
            }
        }
    }

    /// What has come of an event that is not complete.
    pub fn rest(&mut self) -> Bytes {
        self.looked = 0;
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
pub fn data(event: &[u8]) -> Option<Vec<u8>> {
    let mut all: Option<Vec<u8>> = None;
    for line in event.split(|b| *b == b'\n') {
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
                all.push(b'\n');
                all.extend_from_slice(value);
            }
            None => all = Some(value.to_vec()),
        }
    }
    all
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
        assert_eq!(data(b"event: x\ndata: a\r\ndata:b\n\n").unwrap(), b"a\nb");
        assert_eq!(data(b": ping\n\n"), None);
        assert_eq!(data(b"data\n\n").unwrap(), b"");
        assert_eq!(data(b"database: x\n\n"), None);
    }

    proptest! {
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
