//! A reader of a log, also while it is written.
//!
//! Damage costs what is damaged: a reader goes on with the next whole record after it. What is not whole at the end
//! of the file may still be being written, so there it waits. A log that was folded (see [`super::LogWriter::fold`])
//! is another file under the same name; a reader notices at the end of the old one and goes on in the new one.

use super::index::{Entry, Indexed, entries};
use super::large::{Large, read_exact_at};
use super::record::{Header, Kind, Record};
use super::{HEADER, LogError, io_error};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// Reads records one after the other. At the end it answers `None` and may be asked again later.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: Arc<File>,
    /// Bytes of the file from `start` on.
    buffer: Vec<u8>,
    start: u64,
    /// Next byte to look at, as an index into `buffer`.
    at: usize,
    /// `seq` of the record before; what comes next has a higher one.
    last: u64,
    /// Bytes that were damaged and left out.
    damaged: u64,
}

/// A record as it was read: whole, or with its payload left on disk.
#[derive(Debug)]
pub enum Next {
    /// All of it.
    Whole(Record),
    /// Its payload is large: the record without it, and where it is.
    Large(Record, Large),
}

/// What is at a place.
enum Found {
    Record(Record, usize),
    /// Not (wholly) there.
    Short,
    Damaged,
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
            file: Arc::new(file),
            buffer: Vec::new(),
            start: 0,
            at: 0,
            last: 0,
            damaged: 0,
        })
    }

    /// Byte offset of the next record.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.start + as_u64(self.at)
    }

    /// Bytes that were damaged and left out so far.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The next record, or `None` if it is not (wholly) there yet.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn next_record(&mut self) -> Result<Option<Record>, LogError> {
        loop {
            match self.look()? {
                Found::Record(record, total) => {
                    self.at += total;
                    // One that was given before, or belongs to an older file whose bytes came back, is none.
                    if record.seq > self.last {
                        self.last = record.seq;
                        return Ok(Some(record));
                    }
                }
                Found::Short | Found::Damaged => {
                    let something = self.at < self.buffer.len();
                    // A writer may have cut a torn record off and written another in its place since it was read.
                    self.jump(self.offset(), self.last);
                    if something && matches!(self.look()?, Found::Record(..)) {
                        continue;
                    }
                    let again = (something && self.resync()?) || self.follow_folded()?;
                    if !again {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// As [`LogReader::next_record`], but payloads over this many bytes stay on disk.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn next_within(&mut self, bytes: usize) -> Result<Option<Next>, LogError> {
        if let Some(large) = self.large(bytes)? {
            return Ok(Some(large));
        }
        Ok(self.next_record()?.map(Next::Whole))
    }

    /// The record here, if its payload is large and all is well with it.
    fn large(&mut self, bytes: usize) -> Result<Option<Next>, LogError> {
        if !self.fill(HEADER)? {
            return Ok(None);
        }
        let Some(header) = self.header_at(self.at).filter(|header| header.len > bytes) else {
            return Ok(None);
        };
        let size = self.file.metadata().map_err(io_error(&self.path))?.len();
        let begin = self.offset() + as_u64(HEADER);
        if header.seq <= self.last || begin + as_u64(header.len) + 1 > size {
            return Ok(None);
        }
        let mut bytes = [0; HEADER];
        bytes.copy_from_slice(&self.buffer[self.at..self.at + HEADER]);
        let mut at = begin;
        let whole = header.is_whole(&bytes, |piece| {
            read_exact_at(&self.file, piece, at)?;
            at += as_u64(piece.len());
            Ok(())
        });
        if !whole.map_err(io_error(&self.path))? {
            return Ok(None);
        }
        self.jump(begin + as_u64(header.len) + 1, header.seq);
        let record = Record {
            kind: header.kind,
            ends_batch: true,
            seq: header.seq,
            line: header.line,
            time_ms: header.time_ms,
            payload: Vec::new(),
        };
        let large = Large::new(Arc::clone(&self.file), begin, header.len);
        Ok(Some(Next::Large(record, large)))
    }

    /// Goes to the first record whose `seq` is at least this.
    ///
    /// # Errors
    /// As [`LogReader::next_record`].
    pub fn seek_seq(&mut self, seq: u64) -> Result<(), LogError> {
        self.seek_by(|entry| entry.seq <= seq, |record| record.seq < seq)
    }

    /// Goes to the record in which `line` reaches this number (of a raw log: the line of that number).
    ///
    /// # Errors
    /// As [`LogReader::next_record`].
    pub fn seek_line(&mut self, line: u64) -> Result<(), LogError> {
        // An entry's own record may be a later one of the same line, so the entry must lie before the line.
        self.seek_by(|entry| entry.line < line, |record| record.line < line)
    }

    /// The numbers of a log's newest record.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn end_of(path: &Path) -> Result<Position, LogError> {
        Ok(Self::open(path)?.find_end(false)?.0)
    }

    /// The end of the log as far as it is whole, and how much of the index is right.
    pub(super) fn find_end(&mut self, whole_batches: bool) -> Result<(Position, Indexed), LogError> {
        let entries = entries(&self.path, &self.file)?;
        let mut indexed = Indexed::default();
        let mut start = Position::default();
        for (number, entry) in entries.iter().enumerate().rev() {
            if self.check(entry)? {
                indexed.entries = as_u64(number) + 1;
                indexed.last_offset = entry.offset;
                start = Position {
                    offset: entry.offset,
                    seq: entry.seq - 1,
                    line: 0,
                };
                break;
            }
        }
        let (mut end, batch_end) = self.walk_to_end(start)?;
        if end == start {
            end = Position::default();
        }
        if !whole_batches || batch_end == Some(end) || end == Position::default() {
            return Ok((end, indexed));
        }
        if let Some(end) = batch_end {
            return Ok((end, indexed));
        }
        // A batch longer than an index step: look from the start.
        let whole = self.walk_to_end(Position::default())?.1.unwrap_or_default();
        let kept = entries
            .iter()
            .take_while(|entry| entry.offset < whole.offset)
            .count();
        indexed.entries = as_u64(kept);
        indexed.last_offset = kept.checked_sub(1).map_or(0, |last| entries[last].offset);
        Ok((whole, indexed))
    }

    /// The last whole record from here on, and the last that ends a batch.
    fn walk_to_end(&mut self, from: Position) -> Result<(Position, Option<Position>), LogError> {
        self.jump(from.offset, from.seq);
        let (mut end, mut batch_end) = (from, None);
        while let Some(record) = self.next_record()? {
            end = Position {
                offset: self.offset(),
                seq: record.seq,
                line: record.line,
            };
            if record.ends_batch {
                batch_end = Some(end);
            }
        }
        Ok((end, batch_end))
    }

    fn seek_by(
        &mut self,
        entry_is_before: impl Fn(&Entry) -> bool,
        record_is_before: impl Fn(&Record) -> bool,
    ) -> Result<(), LogError> {
        let entries = entries(&self.path, &self.file)?;
        let mut candidate = entries.partition_point(entry_is_before);
        self.jump(0, 0);
        while candidate > 0 {
            candidate -= 1;
            let entry = entries[candidate];
            if self.check(&entry)? {
                self.jump(entry.offset, entry.seq - 1);
                break;
            }
            self.jump(0, 0);
        }
        loop {
            let before = self.last;
            match self.next_record()? {
                Some(record) if record_is_before(&record) => {}
                Some(record) => {
                    // One step back: its bytes are still in the buffer.
                    self.at -= HEADER + record.payload.len() + 1;
                    self.last = before;
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
    }

    /// Is there a whole record of these numbers?
    fn check(&mut self, entry: &Entry) -> Result<bool, LogError> {
        self.jump(entry.offset, 0);
        Ok(matches!(self.look()?, Found::Record(record, _)
            if record.seq == entry.seq && record.line == entry.line && entry.seq > 0))
    }

    fn jump(&mut self, offset: u64, last: u64) {
        self.buffer.clear();
        self.start = offset;
        self.at = 0;
        self.last = last;
    }

    /// What is here, without going on.
    fn look(&mut self) -> Result<Found, LogError> {
        if !self.fill(HEADER)? {
            return Ok(Found::Short);
        }
        let Some(header) = self.header_at(self.at) else {
            return Ok(Found::Damaged);
        };
        let total = header.total();
        if !self.fill(total)? {
            return Ok(Found::Short);
        }
        let record = self
            .buffer
            .get(self.at..self.at + total)
            .and_then(|bytes| header.record(bytes));
        Ok(record.map_or(Found::Damaged, |record| Found::Record(record, total)))
    }

    fn header_at(&self, at: usize) -> Option<Header> {
        let bytes: &[u8; HEADER] = self.buffer.get(at..at + HEADER)?.try_into().ok()?;
        Header::parse(bytes)
    }

    /// Looks for the next whole record behind what is damaged (or not yet whole) here, and goes there. A record begins after a
    /// newline; what agents print cannot look like one, because lines hold no newline.
    fn resync(&mut self) -> Result<bool, LogError> {
        let here = self.offset();
        // Where its own header says that the next one begins: then only its content is damaged.
        let behind = self
            .header_at(self.at)
            .map(|header| here + as_u64(header.total()));
        let (buffer, start, at) = (std::mem::take(&mut self.buffer), self.start, self.at);
        let before = self.last;
        let mut found = None;
        if let Some(place) = behind {
            self.jump(place, before);
            if matches!(self.look()?, Found::Record(record, _) if record.seq > before) {
                found = Some(place);
            }
        }
        self.jump(here + 1, before);
        while found.is_none() {
            // A newline, and then a header, so the byte before counts too.
            if !self.fill(HEADER + 1)? {
                break;
            }
            let Some(newline) = memchr::memchr(b'\n', &self.buffer[self.at..]) else {
                self.at = self.buffer.len();
                continue;
            };
            self.at += newline + 1;
            let place = self.offset();
            if let Found::Record(record, _) = self.look()?
                && record.seq > before
            {
                found = Some(place);
            }
        }
        let Some(place) = found else {
            (self.buffer, self.start, self.at, self.last) = (buffer, start, at, before);
            return Ok(false);
        };
        self.damaged += place - here;
        tracing::warn!(log = %self.path.display(), from = here, to = place, "a log is damaged; going on behind");
        self.jump(place, before);
        Ok(true)
    }

    /// Was the log folded? Then goes to the same place in the new file.
    fn follow_folded(&mut self) -> Result<bool, LogError> {
        let Ok(now) = std::fs::metadata(&self.path) else {
            return Ok(false);
        };
        let ours = self.file.metadata().map_err(io_error(&self.path))?;
        if same_file(&now, &ours) {
            return Ok(false);
        }
        let last = self.last;
        self.file = Arc::new(File::open(&self.path).map_err(io_error(&self.path))?);
        self.seek_seq(last + 1)?;
        self.last = last;
        Ok(true)
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
        let from = self.start + as_u64(have);
        (&*self.file)
            .seek(SeekFrom::Start(from))
            .map_err(io_error(&self.path))?;
        let missing = as_u64(wanted.max(CHUNK) - have);
        // `take` bounds the read; a file that grows meanwhile is read on at the next call.
        (&*self.file)
            .take(missing)
            .read_to_end(&mut self.buffer)
            .map_err(io_error(&self.path))?;
        Ok(self.buffer.len() >= wanted)
    }
}

fn as_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(unix)]
fn same_file(one: &std::fs::Metadata, other: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Logs are only folded where this can be told.
#[cfg(not(unix))]
fn same_file(_one: &std::fs::Metadata, _other: &std::fs::Metadata) -> bool {
    true
}

impl Record {
    /// Is this a line of the agent's standard output?
    #[must_use]
    pub fn is_line(&self) -> bool {
        self.kind == Kind::Out
    }
}
