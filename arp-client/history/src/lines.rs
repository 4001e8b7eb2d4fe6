//! A file of lines, read in chunks: every complete line once, long ones without holding them.

use crate::defaults::{CHUNK, MAX_LINE_BYTES};
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};

/// A complete line of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// Where it begins in the file.
    pub(crate) offset: u64,
    /// Its length in bytes without the newline.
    pub(crate) len: u64,
    /// Its bytes; `None` when it is longer than [`MAX_LINE_BYTES`].
    pub(crate) bytes: Option<&'a [u8]>,
}

/// How far a file was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Where the first line begins that was not read to its end.
    pub(crate) line: u64,
    /// How far was read. Beyond `line` only within a line that is too long already: its beginning need not be
    /// read again.
    pub(crate) read: u64,
}

impl Position {
    /// The beginning of a line.
    pub(crate) fn at(line: u64) -> Self {
        Self { line, read: line }
    }
}

/// Reads the complete lines of a file from a position to an end.
pub(crate) struct Lines<'c, R> {
    file: R,
    /// Bytes read are added here.
    counter: &'c AtomicU64,
    /// Where to stop reading: the file's size when it was looked at.
    end: u64,
    /// How far was read.
    read: u64,
    buffer: Vec<u8>,
    /// Where in the buffer the current line begins, and how far it was searched for a newline.
    start: usize,
    searched: usize,
    /// Where in the file the current line begins.
    line: u64,
    /// How many bytes of the current line are no longer in the buffer, because it is too long.
    dropped: u64,
}

impl<'c, R: Read + Seek> Lines<'c, R> {
    pub(crate) fn new(mut file: R, counter: &'c AtomicU64, from: Position, end: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(from.read))?;
        Ok(Self {
            file,
            counter,
            end,
            read: from.read,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            line: from.line,
            dropped: from.read - from.line,
        })
    }

    /// The next complete line; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            if let Some(found) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                let (from, to) = (self.start, self.searched + found);
                let offset = self.line;
                let dropped = std::mem::take(&mut self.dropped);
                let len = dropped + (to - from) as u64;
                (self.start, self.searched) = (to + 1, to + 1);
                self.line = offset + len + 1;
                let whole = dropped == 0 && len <= MAX_LINE_BYTES;
                return Ok(Some(Line {
                    offset,
                    len,
                    bytes: whole.then(|| &self.buffer[from..to]),
                }));
            }
            self.make_room();
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// How far was read; to go on from there later.
    pub(crate) fn position(&self) -> Position {
        match self.dropped {
            0 => Position::at(self.line),
            _ => Position {
                line: self.line,
                read: self.read,
            },
        }
    }

    /// Moves the beginning of the current line to the beginning of the buffer, or lets it go if it is too long.
    fn make_room(&mut self) {
        let kept = self.buffer.len() - self.start;
        if self.dropped > 0 || kept as u64 > MAX_LINE_BYTES {
            self.dropped += kept as u64;
            self.buffer = Vec::new();
        } else {
            self.buffer.drain(..self.start);
            if kept < CHUNK && self.buffer.capacity() > 8 * CHUNK {
                self.buffer.shrink_to(CHUNK);
            }
        }
        self.start = 0;
        self.searched = self.buffer.len();
    }

    fn fill(&mut self) -> io::Result<bool> {
        let want = self.end.saturating_sub(self.read).min(CHUNK as u64);
        let had = self.buffer.len();
        let got = self.file.by_ref().take(want).read_to_end(&mut self.buffer)?;
        debug_assert_eq!(self.buffer.len(), had + got);
        self.read += got as u64;
        self.counter.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    type Seen = Vec<(u64, u64, Option<Vec<u8>>)>;

    fn read(data: &[u8], from: Position, end: u64) -> (Seen, Position) {
        let counter = AtomicU64::new(0);
        let mut lines = Lines::new(Cursor::new(data), &counter, from, end).unwrap();
        let mut seen = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            seen.push((line.offset, line.len, line.bytes.map(<[u8]>::to_vec)));
        }
        assert!(counter.load(Ordering::Relaxed) <= end - from.read);
        (seen, lines.position())
    }

    #[test]
    fn a_partial_last_line_waits_for_its_newline() {
        let data = b"one\n\nthree\npart";
        let (seen, position) = read(data, Position::default(), data.len() as u64);
        let offsets: Vec<_> = seen.iter().map(|(offset, len, _)| (*offset, *len)).collect();
        assert_eq!(
            (offsets, position),
            (vec![(0, 3), (4, 0), (5, 5)], Position::at(11))
        );
        let (seen, position) = read(b"one\n\nthree\npartial\n", position, 19);
        assert_eq!(
            (seen, position),
            (vec![(11, 7, Some(b"partial".to_vec()))], Position::at(19))
        );
    }

    #[test]
    fn a_line_over_the_limit_is_counted_and_not_held() {
        let limit = usize::try_from(MAX_LINE_BYTES).unwrap();
        let mut data = vec![b'x'; limit];
        data.push(b'\n');
        data.extend(vec![b'y'; limit + 1]);
        data.extend(b"\nafter\n");
        let (seen, position) = read(&data, Position::default(), data.len() as u64);
        assert_eq!(position, Position::at(data.len() as u64));
        assert_eq!(seen[0].2.as_ref().map(Vec::len), Some(limit));
        assert_eq!((seen[1].1, &seen[1].2), (MAX_LINE_BYTES + 1, &None));
        assert_eq!(seen[2], (2 * MAX_LINE_BYTES + 3, 5, Some(b"after".to_vec())));
    }

    #[test]
    fn a_line_that_is_too_long_already_is_not_read_twice() {
        let mut data = b"first\n".to_vec();
        data.extend(vec![b'x'; usize::try_from(2 * MAX_LINE_BYTES).unwrap()]);
        let (seen, position) = read(&data, Position::default(), data.len() as u64);
        assert_eq!(
            (seen.len(), position),
            (
                1,
                Position {
                    line: 6,
                    read: data.len() as u64
                }
            )
        );
        let whole = data.len() as u64 - 6 + 3;
        data.extend(b"end\nnext\n");
        let (seen, position) = read(&data, position, data.len() as u64);
        assert_eq!(position, Position::at(data.len() as u64));
        assert_eq!(seen[0], (6, whole, None));
        assert_eq!(seen[1].2, Some(b"next".to_vec()));
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_often_reading_was_interrupted(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2_000), 0..60),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut data = Vec::new();
            for line in &lines {
                data.extend(line.iter().map(|b| if *b == b'\n' { b' ' } else { *b }));
                data.push(b'\n');
            }
            let (whole, _) = read(&data, Position::default(), data.len() as u64);
            prop_assert_eq!(whole.len(), lines.len());
            let mut ends: Vec<u64> = cuts.iter().map(|c| c.index(data.len() + 1) as u64).collect();
            ends.push(data.len() as u64);
            ends.sort_unstable();
            let (mut pieces, mut position) = (Vec::new(), Position::default());
            for end in ends {
                let (seen, next) = read(&data, position, end);
                pieces.extend(seen);
                position = next;
            }
            prop_assert_eq!(pieces, whole);
        }
    }
}
