//! Logs written anew: without records that later ones made needless, with records that were damaged and are known.

use super::index::Entry;
use super::reader::LogReader;
use super::record::{END_OF_BATCH, Record, encode};
use super::writer::private;
use super::{INDEX_EVERY, LogError, index_path, io_error};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::path::Path;

/// A set of numbers, kept as spans: fragments come in long rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spans(Vec<(u64, u64)>);

impl Spans {
    /// Adds a number that is higher than all before.
    pub fn push(&mut self, number: u64) {
        match self.0.last_mut() {
            Some((_, last)) if number <= *last => {}
            Some((_, last)) if number == *last + 1 => *last = number,
            _ => self.0.push((number, number)),
        }
    }

    /// Is it in?
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < number);
        self.0.get(at).is_some_and(|(first, _)| *first <= number)
    }

    /// Is nothing in?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Writes the log anew without the records of some numbers, and with some that it lacks, which are in the order of their
/// numbers. `false`: this system cannot.
pub(super) fn rewrite(path: &Path, drop: &Spans, add: Vec<Record>) -> Result<bool, LogError> {
    if cfg!(not(unix)) {
        return Ok(false);
    }
    let temporary = path.with_extension("fold");
    let failed = io_error(&temporary);
    let file = private(OpenOptions::new().create(true).write(true).truncate(true)).open(&temporary);
    let mut out = BufWriter::with_capacity(256 * 1024, file.map_err(failed)?);
    let mut reader = LogReader::open(path)?;
    let (mut index, mut offset, mut last_indexed) = (Vec::new(), 0_u64, 0_u64);
    let mut bytes = Vec::new();
    // The end of a batch that is dropped ends with the record before it.
    let mut held: Option<Record> = None;
    let mut add = add.into_iter().peekable();
    let mut put = |record: &Record| -> Result<(), LogError> {
        if offset == 0 || offset - last_indexed >= INDEX_EVERY {
            let (seq, line) = (record.seq, record.line);
            Entry { offset, seq, line }.encode(&mut index);
            last_indexed = offset;
        }
        bytes.clear();
        let flags = if record.ends_batch { END_OF_BATCH } else { 0 };
        let numbers = (record.seq, record.line, record.time_ms);
        encode(&mut bytes, record.kind, flags, numbers, &record.payload);
        offset += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        out.write_all(&bytes).map_err(io_error(&temporary))
    };
    while let Some(record) = reader.next_record()? {
        if drop.contains(record.seq) {
            if let Some(held) = held.as_mut().filter(|_| record.ends_batch) {
                held.ends_batch = true;
            }
            continue;
        }
        while let Some(missing) = add.next_if(|missing| missing.seq < record.seq) {
            if let Some(before) = held.replace(missing) {
                put(&before)?;
            }
        }
        if let Some(before) = held.replace(record) {
            put(&before)?;
        }
    }
    if let Some(last) = held {
        put(&last)?;
    }
    let file = out
        .into_inner()
        .map_err(|error| io_error(&temporary)(error.into_error()))?;
    file.sync_data().map_err(io_error(&temporary))?;
    // First the log, whose index then is wrong and says so itself, then the new index.
    std::fs::rename(&temporary, path).map_err(io_error(path))?;
    let index_file = index_path(path);
    let index_new = index_file.with_extension("idx-new");
    let written = private(OpenOptions::new().create(true).write(true).truncate(true))
        .open(&index_new)
        .and_then(|mut file| file.write_all(&index))
        .and_then(|()| std::fs::rename(&index_new, &index_file));
    if let Err(error) = written {
        tracing::warn!(log = %path.display(), %error, "cannot write the index of a folded log");
    }
    Ok(true)
}
