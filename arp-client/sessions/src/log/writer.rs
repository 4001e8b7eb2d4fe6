//! The one writer of a log.

use super::fold::{self, Spans};
use super::index::{ENTRY, Entry};
use super::reader::{LogReader, Position};
use super::record::{END_OF_BATCH, Kind, Record, encode};
use super::{INDEX_EVERY, LogError, MAX_PAYLOAD, index_path, io_error};
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Appends records. Dropping it loses what was not flushed.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: File,
    index: File,
    /// Bytes on disk, and the newest record's numbers.
    end: Position,
    last_indexed: u64,
    /// Encoded records that are not on disk yet, and the numbers after them.
    buffer: Vec<u8>,
    buffered: Position,
    index_buffer: Vec<u8>,
}

impl LogWriter {
    /// Opens or makes a log for appending. A torn record at the end is cut off; with `whole_batches` so are
    /// the records before it back to the last end of a batch.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn open(path: &Path, whole_batches: bool) -> Result<Self, LogError> {
        let mut file = private(OpenOptions::new().create(true).append(true).read(true))
            .open(path)
            .map_err(io_error(path))?;
        let index_file = index_path(path);
        let mut index = private(
            OpenOptions::new()
                .create(true)
                .read(true)
                .write(true)
                .truncate(false),
        )
        .open(&index_file)
        .map_err(io_error(&index_file))?;

        let (end, indexed) = LogReader::open(path)?.find_end(whole_batches)?;
        let size = file.seek(SeekFrom::End(0)).map_err(io_error(path))?;
        if size != end.offset {
            tracing::warn!(log = %path.display(), from = size, to = end.offset, "cut a torn record off the log");
            file.set_len(end.offset).map_err(io_error(path))?;
        }
        index
            .set_len(indexed.entries * u64::try_from(ENTRY).unwrap_or(24))
            .map_err(io_error(&index_file))?;
        index.seek(SeekFrom::End(0)).map_err(io_error(&index_file))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            index,
            end,
            last_indexed: indexed.last_offset,
            buffer: Vec::new(),
            buffered: end,
            index_buffer: Vec::new(),
        })
    }

    /// Numbers of the newest record on disk, and the size of the log.
    #[must_use]
    pub fn end(&self) -> Position {
        self.end
    }

    /// Goes on with higher numbers than these: after a power cut the log may have lost records that somebody has
    /// seen, and no number is given twice.
    pub fn raise(&mut self, seq: u64, line: u64) {
        for end in [&mut self.end, &mut self.buffered] {
            end.seq = end.seq.max(seq);
            end.line = end.line.max(line);
        }
    }

    /// Sees to it that what was flushed survives a power cut.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn sync(&self) -> Result<(), LogError> {
        self.file.sync_data().map_err(io_error(&self.path))
    }

    /// The file, to be synced elsewhere than on this thread.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn handle(&self) -> Result<File, LogError> {
        self.file.try_clone().map_err(io_error(&self.path))
    }

    /// Drops the records of these numbers: the log is written anew without them, and takes the old one's place at
    /// once. Readers notice. What waits for a flush is flushed before. Numbers stay as they are.
    ///
    /// # Errors
    /// [`LogError::Io`]; the log is then as it was.
    pub fn fold(&mut self, drop: &Spans) -> Result<(), LogError> {
        self.flush()?;
        let numbers = self.end;
        if !fold::rewrite(&self.path, drop, Vec::new())? {
            return Ok(());
        }
        let mut folded = Self::open(&self.path, false)?;
        folded.raise(numbers.seq, numbers.line);
        *self = folded;
        Ok(())
    }

    /// Puts records back that were damaged, in the order of their numbers, which nothing else has. As
    /// [`LogWriter::fold`] does.
    ///
    /// # Errors
    /// As [`LogWriter::fold`].
    pub fn restore(&mut self, records: Vec<Record>) -> Result<(), LogError> {
        self.flush()?;
        let numbers = self.end;
        if fold::rewrite(&self.path, &Spans::default(), records)? {
            let mut restored = Self::open(&self.path, false)?;
            restored.raise(numbers.seq, numbers.line);
            *self = restored;
        }
        Ok(())
    }

    /// Bytes waiting for [`LogWriter::flush`].
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Adds a record to the buffer and gives its `seq`. `line` is for [`super::Record::line`].
    ///
    /// # Errors
    /// [`LogError::TooLong`].
    pub fn append(
        &mut self,
        kind: Kind,
        line: u64,
        ends_batch: bool,
        time_ms: u64,
        payload: &[u8],
    ) -> Result<u64, LogError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(LogError::TooLong(payload.len()));
        }
        let seq = self.buffered.seq + 1;
        let offset = self.buffered.offset;
        if offset == 0 || offset - self.last_indexed >= INDEX_EVERY {
            Entry { offset, seq, line }.encode(&mut self.index_buffer);
            self.last_indexed = offset;
        }
        let before = self.buffer.len();
        let flags = if ends_batch { END_OF_BATCH } else { 0 };
        encode(&mut self.buffer, kind, flags, (seq, line, time_ms), payload);
        let grown = u64::try_from(self.buffer.len() - before).unwrap_or(u64::MAX);
        self.buffered = Position {
            offset: offset + grown,
            seq,
            line,
        };
        Ok(seq)
    }

    /// Puts the buffer on disk in one write. After an error the log is as it was before, and the buffer is kept for
    /// another try.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn flush(&mut self) -> Result<(), LogError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if let Err(source) = self.file.write_all(&self.buffer) {
            // What was half written must not stand before the next record. If this fails too, the next
            // opening cuts it.
            let _ = self.file.set_len(self.end.offset);
            return Err(LogError::Io {
                path: self.path.clone(),
                source,
            });
        }
        if self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        } else {
            self.buffer.clear();
        }
        self.end = self.buffered;
        if !self.index_buffer.is_empty() {
            // A hole in the index costs a longer scan, no more.
            if let Err(error) = self.index.write_all(&self.index_buffer) {
                tracing::warn!(log = %self.path.display(), %error, "cannot write the index of a log");
            }
            self.index_buffer.clear();
        }
        Ok(())
    }
}

/// Files that only their owner may read: agents print what is private.
pub(super) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}
