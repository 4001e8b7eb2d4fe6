//! The index of a log: a hint that is checked when it is used, and made again when it is missing.

use super::{LogError, index_path, io_error};
use std::fs::File;
use std::path::Path;

/// Bytes of an entry.
pub(super) const ENTRY: usize = 24;

/// How much of an index is good.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Indexed {
    pub(super) entries: u64,
    pub(super) last_offset: u64,
}

/// What an entry tells: the record that begins at `offset`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) seq: u64,
    pub(super) line: u64,
}

impl Entry {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        for number in [self.offset, self.seq, self.line] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// The entries of a log's index, as far as they make sense.
pub(super) fn entries(log: &Path, file: &File) -> Result<Vec<Entry>, LogError> {
    let path = index_path(log);
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
    let size = file.metadata().map_err(io_error(log))?.len();
    let mut entries: Vec<Entry> = Vec::with_capacity(bytes.len() / ENTRY);
    for entry in bytes.chunks_exact(ENTRY) {
        let entry = Entry {
            offset: number(entry, 0),
            seq: number(entry, 8),
            line: number(entry, 16),
        };
        // What does not rise, or points past the end, was not written by us; nor is what follows.
        let rises = entries
            .last()
            .is_none_or(|last| entry.offset > last.offset && entry.seq > last.seq && entry.line >= last.line);
        if !rises || entry.offset >= size {
            break;
        }
        entries.push(entry);
    }
    Ok(entries)
}
