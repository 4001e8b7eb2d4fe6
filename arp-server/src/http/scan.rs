//! Finding the end of a head in bytes that arrive piece by piece, looking at each byte once.

/// What was found so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// The head is this many bytes, its empty line included.
    Complete(usize),
    /// More bytes are needed.
    Partial,
    /// A line ends with LF alone, which only a message made for confusing two parsers does.
    BareLf,
}

/// The state of a search.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scanner {
    seen: usize,
    line_start: usize,
}

impl Scanner {
    /// Looks at what is new in `buf`, which must begin with what earlier calls saw. With `strict` lines
    /// must end with CRLF.
    pub fn scan(&mut self, buf: &[u8], strict: bool) -> Scan {
        while let Some(at) = buf.get(self.seen..).and_then(|new| memchr::memchr(b'\n', new)) {
            let lf = self.seen + at;
            let line = &buf[self.line_start..lf];
            let line = match line.strip_suffix(b"\r") {
                Some(line) => line,
                None if strict => return Scan::BareLf,
                None => line,
            };
            self.seen = lf + 1;
            if line.is_empty() {
                return Scan::Complete(lf + 1);
            }
            self.line_start = lf + 1;
        }
        self.seen = buf.len();
        Scan::Partial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_however_the_bytes_come() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\r\n\r\n";
        for step in 1..head.len() {
            let mut scanner = Scanner::default();
            let mut have = 0;
            let found = loop {
                have = (have + step).min(head.len());
                match scanner.scan(&head[..have], true) {
                    Scan::Partial => assert!(have < head.len()),
                    other => break other,
                }
            };
            assert_eq!(found, Scan::Complete(27));
        }
    }

    #[test]
    fn bare_lf_is_told_when_strict_and_taken_when_not() {
        let head = b"HTTP/1.1 200 OK\nA: b\n\n";
        assert_eq!(Scanner::default().scan(head, true), Scan::BareLf);
        assert_eq!(Scanner::default().scan(head, false), Scan::Complete(head.len()));
    }
}
