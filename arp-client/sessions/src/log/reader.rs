//! A reader of a log, also while it is written.

use super::record::{Header, Kind, Record};
use super::{HEADER, LogError, index_path, io_error};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Read ahead by this much.
const CHUNK: usize = 64 * 1024;

/// A place in a log: just after the record with these numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Bytes before it.
    pub offset: u64,
    /// `seq` of the record before it, 0 at the start.
    pub seq: u64,
    /// `line` of the record before it.
    pub line: u64,
}

/// How much of an index is good.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Indexed {
    pub(super) entries: u64,
    pub(super) last_offset: u64,
}

/// What an index entry tells: the record that begins at `offset`.
#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: u64,
    seq: u64,
    line: u64,
}

/// Reads records one after the other. At the end it answers `None` and may be asked again later.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: File,
    /// Bytes of the file from `start` on.
    buffer: Vec<u8>,
    start: u64,
    /// Next byte to look at, as an index into `buffer`.
    at: usize,
}

impl LogReader {
    /// Opens a log at its beginning.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let file = File::open(path).map_err(io_error(path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            buffer: Vec::new(),
            start: 0,
            at: 0,
        })
    }

    /// Byte offset of the next record.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.start + u64::try_from(self.at).unwrap_or_default()
    }

    /// The next record, or `None` if it is not (wholly) there yet.
    ///
    /// # Errors
    /// [`LogError::Io`], or [`LogError::Damaged`] for a record that is there but broken.
    pub fn next_record(&mut self) -> Result<Option<Record>, LogError> {
        let Some(header) = self.peek()? else {
            return Ok(None);
        };
        let total = header.total();
        if !self.fill(total)? {
            return Ok(None);
        }
        let record = self
            .buffer
            .get(self.at..self.at + total)
            .and_then(|bytes| header.record(bytes));
        let Some(record) = record else {
            return Err(self.damaged());
        };
        self.at += total;
        Ok(Some(record))
    }

    /// Goes to the first record whose `seq` is at least this.
    ///
    /// # Errors
    /// As [`LogReader::next_record`].
    pub fn seek_seq(&mut self, seq: u64) -> Result<(), LogError> {
        self.seek_by(|entry| entry.seq <= seq, |header| header.seq < seq)
    }

    /// Goes to the record in which `line` reaches this number (of a raw log: the line of that number).
    ///
    /// # Errors
    /// As [`LogReader::next_record`].
    pub fn seek_line(&mut self, line: u64) -> Result<(), LogError> {
        // An entry's own record may be a later one of the same line, so the entry must lie before the line.
        self.seek_by(|entry| entry.line < line, |header| header.line < line)
    }

    /// The end of the log as far as it is whole, and how much of the index is right.
    pub(super) fn find_end(&mut self, whole_batches: bool) -> Result<(Position, Indexed), LogError> {
        let mut indexed = Indexed::default();
        let mut start = Position::default();
        let entries = self.entries()?;
        for (number, entry) in entries.iter().enumerate().rev() {
            if self.check(entry)? {
                indexed.entries = u64::try_from(number).unwrap_or_default() + 1;
                indexed.last_offset = entry.offset;
                start = Position {
                    offset: entry.offset,
                    seq: entry.seq - 1,
                    line: 0,
                };
                break;
            }
        }
        self.jump(start.offset);
        let (mut end, mut batch_end) = (start, None);
        loop {
            match self.next_record() {
                Ok(Some(record)) if record.seq == end.seq + 1 => {
                    end = Position {
                        offset: self.offset(),
                        seq: record.seq,
                        line: record.line,
                    };
                    if record.ends_batch {
                        batch_end = Some(end);
                    }
                }
                // Not the next one: what follows is not of this log.
                Ok(_) | Err(LogError::Damaged { .. } | LogError::TooLong(_)) => break,
                Err(error) => return Err(error),
            }
        }
        if !whole_batches || batch_end == Some(end) || end == Position::default() {
            return Ok((end, indexed));
        }
        if let Some(end) = batch_end {
            return Ok((end, indexed));
        }
        // A batch longer than an index step: look from the start.
        self.jump(0);
        let mut whole = Position::default();
        while self.offset() < end.offset {
            let Some(record) = self.next_record()? else { break };
            if record.ends_batch {
                whole = Position {
                    offset: self.offset(),
                    seq: record.seq,
                    line: record.line,
                };
            }
        }
        let kept = entries
            .iter()
            .take_while(|entry| entry.offset < whole.offset)
            .count();
        indexed.entries = u64::try_from(kept).unwrap_or_default();
        indexed.last_offset = kept.checked_sub(1).map_or(0, |last| entries[last].offset);
        Ok((whole, indexed))
    }

    fn seek_by(
        &mut self,
        entry_is_before: impl Fn(&Entry) -> bool,
        header_is_before: impl Fn(&Header) -> bool,
    ) -> Result<(), LogError> {
        let entries = self.entries()?;
        let mut candidate = entries.partition_point(entry_is_before);
        self.jump(0);
        while candidate > 0 {
            candidate -= 1;
            let entry = entries[candidate];
            if self.check(&entry)? {
                self.jump(entry.offset);
                break;
            }
            self.jump(0);
        }
        while let Some(header) = self.peek()? {
            if !header_is_before(&header) || !self.fill(header.total())? {
                break;
            }
            self.at += header.total();
        }
        Ok(())
    }

    fn entries(&self) -> Result<Vec<Entry>, LogError> {
        let path = index_path(&self.path);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io_error(&path)(error)),
        };
        let number = |entry: &[u8], at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&entry[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let size = self.file.metadata().map_err(io_error(&self.path))?.len();
        let mut entries: Vec<Entry> = Vec::with_capacity(bytes.len() / 24);
        for entry in bytes.chunks_exact(24) {
            let entry = Entry {
                offset: number(entry, 0),
                seq: number(entry, 8),
                line: number(entry, 16),
            };
            // What does not rise, or points past the end, was not written by us; nor is what follows.
            let rises = entries.last().is_none_or(|last| {
                entry.offset > last.offset && entry.seq > last.seq && entry.line >= last.line
            });
            if !rises || entry.offset >= size {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// Is there a whole record of these numbers?
    fn check(&mut self, entry: &Entry) -> Result<bool, LogError> {
        self.jump(entry.offset);
        match self.next_record() {
            Ok(Some(record)) => Ok(record.seq == entry.seq && record.line == entry.line && entry.seq > 0),
            Ok(None) | Err(LogError::Damaged { .. } | LogError::TooLong(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn jump(&mut self, offset: u64) {
        self.buffer.clear();
        self.start = offset;
        self.at = 0;
    }

    fn peek(&mut self) -> Result<Option<Header>, LogError> {
        if !self.fill(HEADER)? {
            return Ok(None);
        }
        let mut bytes = [0; HEADER];
        bytes.copy_from_slice(&self.buffer[self.at..self.at + HEADER]);
        Header::parse(&bytes).map(Some).ok_or_else(|| self.damaged())
    }

    /// Sees to it that `wanted` bytes are in the buffer; `false` if the file ends before.
    fn fill(&mut self, wanted: usize) -> Result<bool, LogError> {
        if self.buffer.len() - self.at >= wanted {
            return Ok(true);
        }
        self.start = self.offset();
        self.buffer.drain(..self.at);
        self.at = 0;
        if self.buffer.capacity() > 1 << 20 && wanted < CHUNK {
            self.buffer.shrink_to(CHUNK);
        }
        let have = self.buffer.len();
        let from = self.start + u64::try_from(have).unwrap_or_default();
        self.file
            .seek(SeekFrom::Start(from))
            .map_err(io_error(&self.path))?;
        let missing = u64::try_from(wanted.max(CHUNK) - have).unwrap_or_default();
        // `take` bounds the read; a file that grows meanwhile is read on at the next call.
        (&self.file)
            .take(missing)
            .read_to_end(&mut self.buffer)
            .map_err(io_error(&self.path))?;
        Ok(self.buffer.len() >= wanted)
    }

    fn damaged(&self) -> LogError {
        LogError::Damaged {
            path: self.path.clone(),
            offset: self.offset(),
        }
    }
}

impl Record {
    /// Is this a line of the agent's standard output?
    #[must_use]
    pub fn is_line(&self) -> bool {
        self.kind == Kind::Out
    }
}
