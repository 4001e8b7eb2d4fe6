//! Lines of what an agent prints.

use crate::defaults::MAX_LINE;
use std::io;

/// Cuts a stream of bytes into lines.
#[derive(Default)]
pub(super) struct Splitter {
    rest: Vec<u8>,
}

impl Splitter {
    /// Gives `line` each line that is whole now; with `ends` what is left too.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        ends: bool,
        mut line: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            let (head, tail) = bytes.split_at(at);
            bytes = &tail[1..];
            if self.rest.is_empty() {
                line(strip(head))?;
            } else {
                self.rest.extend_from_slice(head);
                line(strip(&self.rest))?;
                self.rest.clear();
                self.rest.shrink_to(64 * 1024);
            }
        }
        self.rest.extend_from_slice(bytes);
        if self.rest.len() >= MAX_LINE || (ends && !self.rest.is_empty()) {
            line(&self.rest)?;
            self.rest = Vec::new();
        }
        Ok(())
    }
}

/// Takes off the carriage return that Windows programs print.
fn strip(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&str]) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        let mut add = |line: &[u8]| {
            lines.push(String::from_utf8_lossy(line).into_owned());
            Ok(())
        };
        for chunk in chunks {
            splitter.feed(chunk.as_bytes(), false, &mut add).unwrap();
        }
        splitter.feed(b"", true, &mut add).unwrap();
        lines
    }

    #[test]
    fn lines_are_whole_wherever_the_chunks_are_cut() {
        let text = "one\r\ntwo\n\nthree";
        for cut in 0..text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(lines(&[a, b]), ["one", "two", "", "three"], "cut at {cut}");
        }
    }
}
