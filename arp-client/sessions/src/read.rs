//! Reading a session's lines and events from disk, a page at a time, also while they are written.

use crate::defaults::PAGE_BYTES;
use crate::error::SessionError;
use crate::log::{Kind, Large, LogError, LogReader, Next};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

/// A line or an event as it was kept.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number: line or seq.
    pub number: u64,
    /// When it was written, in milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// The line, or the event as a JSON object without `seq` and `at`.
    pub text: String,
    /// Where it is instead, if it is large and the reader takes it in pieces.
    pub large: Option<Large>,
}

impl Entry {
    /// An event as JSON object with its `seq` and `at`.
    #[must_use]
    pub fn event_json(&self) -> String {
        let fields = self.text.strip_prefix('{').unwrap_or("}");
        let comma = if fields.starts_with('}') { "" } else { "," };
        format!("{}{comma}{fields}", self.event_head())
    }

    /// How that begins, up to its first own field.
    #[must_use]
    pub fn event_head(&self) -> String {
        let at = crate::clock::rfc3339(self.time_ms);
        format!("{{\"seq\":{},\"at\":\"{at}\"", self.number)
    }

    /// The same with its text here, wherever that was. Blocks.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn loaded(mut self) -> Result<Self, SessionError> {
        if let Some(large) = self.large.take() {
            self.text = text_of(large.piece(0, large.len())?);
        }
        Ok(self)
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

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At this number, or at what comes next if there is none of that number yet.
    At(u64),
    /// At so many before the end.
    Last(u64),
}

/// Sees to it that what is damaged is made again, as far as that can be.
pub(crate) type Mend = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Reads one sequence of one session, onwards from somewhere.
pub struct Cursor {
    path: PathBuf,
    sequence: Sequence,
    reader: Option<LogReader>,
    start: Start,
    /// Larger ones stay on disk.
    within: usize,
    /// The number wanted next, once it was read.
    next: u64,
    /// What to do about damage, until it was done.
    mend: Option<Mend>,
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, next, .. } = self;
        f.debug_struct("Cursor")
            .field("path", path)
            .field("next", next)
            .finish_non_exhaustive()
    }
}

/// What was read in one go.
#[derive(Default)]
struct Part {
    entries: Vec<Entry>,
    /// Did it stop before something that is damaged?
    damaged: bool,
}

impl Cursor {
    pub(crate) fn new(path: PathBuf, sequence: Sequence, start: Start) -> Self {
        let next = match start {
            Start::At(number) => number.max(1),
            Start::Last(_) => 1,
        };
        Self {
            path,
            sequence,
            reader: None,
            start,
            within: usize::MAX,
            next,
            mend: None,
        }
    }

    /// Does this about damage, once, before it goes on behind it.
    pub(crate) fn mending(mut self, mend: Mend) -> Self {
        self.mend = Some(mend);
        self
    }

    /// Entries over this many bytes stay on disk, for a reader that takes them in pieces ([`Entry::large`]).
    #[must_use]
    pub fn within(mut self, bytes: usize) -> Self {
        self.within = bytes;
        self
    }

    /// The number that comes next, as far as that is known before the first page was read.
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
        let (mut all, mut left) = (Vec::new(), bytes);
        loop {
            let (cursor, part) = self.part(most - all.len(), left).await;
            self = cursor;
            let part = match part {
                Ok(part) => part,
                Err(error) => return (self, Err(error)),
            };
            let size = |entry: &Entry| entry.text.len() + entry.large.as_ref().map_or(0, Large::len);
            left = left.saturating_sub(part.entries.iter().map(size).sum()).max(1);
            all.extend(part.entries);
            match self.mend.take_if(|_| part.damaged) {
                Some(mend) => mend().await,
                None => return (self, Ok(all)),
            }
        }
    }

    async fn part(mut self, most: usize, bytes: usize) -> (Self, Result<Part, SessionError>) {
        // Files are read off the runtime: a slow disk stops nobody else.
        let within = self.within;
        let (path, sequence, next) = (self.path.clone(), self.sequence, Start::At(self.next));
        let mend = self.mend.clone();
        let read = tokio::task::spawn_blocking(move || {
            let entries = self.read(most, bytes);
            (self, entries)
        });
        match read.await {
            Ok((cursor, part)) => (cursor, part.map_err(SessionError::from)),
            Err(error) => (
                Self {
                    mend,
                    ..Self::new(path, sequence, next).within(within)
                },
                Err(SessionError::Internal(format!("a read failed: {error}"))),
            ),
        }
    }

    /// [`Cursor::page`] with the size that streams use.
    pub async fn batch(self) -> (Self, Result<Vec<Entry>, SessionError>) {
        self.page(usize::MAX, PAGE_BYTES).await
    }

    fn read(&mut self, most: usize, bytes: usize) -> Result<Part, LogError> {
        if self.reader.is_none() {
            let mut reader = match LogReader::open(&self.path) {
                Ok(reader) => reader,
                Err(LogError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(Part::default());
                }
                Err(error) => return Err(error),
            };
            // By what is there and not by what somebody counted a while ago. Nobody has seen what is not there yet:
            // a higher number is one of another session, or a mistake.
            let end = LogReader::end_of(&self.path)?;
            let newest = match self.sequence {
                Sequence::Lines => end.line,
                Sequence::Events => end.seq,
            };
            self.next = match self.start {
                Start::At(number) => number.clamp(1, newest + 1),
                Start::Last(count) => (newest + 1).saturating_sub(count).max(1),
            };
            match self.sequence {
                Sequence::Lines => reader.seek_line(self.next)?,
                Sequence::Events => reader.seek_seq(self.next)?,
            }
            self.reader = Some(reader);
        }
        let Some(reader) = &mut self.reader else {
            return Ok(Part::default());
        };
        let mut entries = Vec::new();
        let mut read = 0;
        // Damage that is not new was seen to.
        let damaged = if self.mend.is_some() { 0 } else { u64::MAX };
        while entries.len() < most && read < bytes {
            let (record, large) = match reader.next_within(self.within)? {
                Some(Next::Whole(record)) => (record, None),
                Some(Next::Large(record, large)) => (record, Some(large)),
                None => break,
            };
            let number = match (self.sequence, record.kind) {
                (Sequence::Lines, Kind::Out) => record.line,
                (Sequence::Events, Kind::Event) => record.seq,
                _ => continue,
            };
            if number < self.next {
                continue;
            }
            if number > self.next && reader.damaged() > damaged {
                // It is met again when it was seen to.
                self.start = Start::At(self.next);
                self.reader = None;
                return Ok(Part {
                    entries,
                    damaged: true,
                });
            }
            self.next = number + 1;
            read += record.payload.len() + large.as_ref().map_or(0, Large::len);
            entries.push(Entry {
                number,
                time_ms: record.time_ms,
                text: text_of(record.payload),
                large,
            });
        }
        Ok(Part {
            entries,
            damaged: false,
        })
    }
}

fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
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
            large: None,
        };
        assert_eq!(
            entry.event_json(),
            r#"{"seq":7,"at":"1970-01-01T00:00:00.000Z","type":"text"}"#
        );
    }
}
