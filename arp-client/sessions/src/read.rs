//! Reading a session's lines and events from disk, a page at a time, also while they are written.

use crate::defaults::PAGE_BYTES;
use crate::error::SessionError;
use crate::log::{Kind, LogError, LogReader};
use std::path::PathBuf;

/// A line or an event as it was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number: line or seq.
    pub number: u64,
    /// When it was written, in milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// The line, or the event as a JSON object without `seq` and `at`.
    pub text: String,
}

impl Entry {
    /// An event as JSON object with its `seq` and `at`.
    #[must_use]
    pub fn event_json(&self) -> String {
        let at = crate::clock::rfc3339(self.time_ms);
        let fields = self.text.strip_prefix('{').unwrap_or("}");
        let comma = if fields.starts_with('}') { "" } else { "," };
        format!("{{\"seq\":{},\"at\":\"{at}\"{comma}{fields}", self.number)
    }
}

/// Which of the two sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sequence {
    /// What the agent printed.
    Lines,
    /// Events.
    Events,
}

/// Reads one sequence of one session, onwards from a number.
#[derive(Debug)]
pub struct Cursor {
    path: PathBuf,
    sequence: Sequence,
    reader: Option<LogReader>,
    /// The number wanted next.
    next: u64,
}

impl Cursor {
    pub(crate) fn new(path: PathBuf, sequence: Sequence, next: u64) -> Self {
        Self {
            path,
            sequence,
            reader: None,
            next: next.max(1),
        }
    }

    /// The number that comes next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The next entries that are there: at most so many, and about so many bytes, but at least one if there is
    /// one. Empty: there is nothing new yet.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn page(mut self, most: usize, bytes: usize) -> (Self, Result<Vec<Entry>, SessionError>) {
        // Files are read off the runtime: a slow disk stops nobody else.
        let (path, sequence, next) = (self.path.clone(), self.sequence, self.next);
        let read = tokio::task::spawn_blocking(move || {
            let entries = self.read(most, bytes);
            (self, entries)
        });
        match read.await {
            Ok((cursor, entries)) => (cursor, entries.map_err(SessionError::from)),
            Err(error) => (
                Self::new(path, sequence, next),
                Err(SessionError::Internal(format!("a read failed: {error}"))),
            ),
        }
    }

    /// [`Cursor::page`] with the size that streams use.
    pub async fn batch(self) -> (Self, Result<Vec<Entry>, SessionError>) {
        self.page(usize::MAX, PAGE_BYTES).await
    }

    fn read(&mut self, most: usize, bytes: usize) -> Result<Vec<Entry>, LogError> {
        if self.reader.is_none() {
            let mut reader = match LogReader::open(&self.path) {
                Ok(reader) => reader,
                Err(LogError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(Vec::new());
                }
                Err(error) => return Err(error),
            };
            match self.sequence {
                Sequence::Lines => reader.seek_line(self.next)?,
                Sequence::Events => reader.seek_seq(self.next)?,
            }
            self.reader = Some(reader);
        }
        let Some(reader) = &mut self.reader else {
            return Ok(Vec::new());
        };
        let mut entries = Vec::new();
        let mut read = 0;
        while entries.len() < most && read < bytes {
            let Some(record) = reader.next_record()? else {
                break;
            };
            let number = match (self.sequence, record.kind) {
                (Sequence::Lines, Kind::Out) => record.line,
                (Sequence::Events, Kind::Event) => record.seq,
                _ => continue,
            };
            if number < self.next {
                continue;
            }
            self.next = number + 1;
            read += record.payload.len();
            let text = String::from_utf8(record.payload)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
            entries.push(Entry {
                number,
                time_ms: record.time_ms,
                text,
            });
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_gets_its_number_and_time() {
        let entry = Entry {
            number: 7,
            time_ms: 0,
            text: r#"{"type":"text"}"#.into(),
        };
        assert_eq!(
            entry.event_json(),
            r#"{"seq":7,"at":"1970-01-01T00:00:00.000Z","type":"text"}"#
        );
    }
}
