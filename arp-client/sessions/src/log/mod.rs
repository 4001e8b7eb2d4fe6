//! An append-only log of records on disk, with an index, that survives a torn write.
//!
//! Used twice for each session: the raw log (everything that went to and came from the agent's process;
//! written by the session host) and the event log (what readers of `?format=events` get; written by `arpc`).
//! One process writes, any number read at the same time. This module touches files and nothing else.
//!
//! A record is a header of [`HEADER`] bytes, the payload, and a newline (so that `strings` and `grep` work):
//!
//! ```text
//! 0  u32 length of the payload        12 u64 seq: rising; a gap is where records were folded or lost
//! 4  u32 CRC-32 of all that follows   20 u64 line: see [`Record::line`]
//!        but the newline, and length  28 u64 time, milliseconds since 1970 (UTC)
//! 8  u8  kind, u8 flags, u16 zero     36 payload
//! ```
//!
//! All numbers are little-endian. The index holds `(offset, seq, line)` of a record every [`INDEX_EVERY`]
//! bytes; it is a hint that is checked when used and made again when it is missing.

mod fold;
mod index;
mod large;
mod reader;
mod record;
mod writer;

pub use fold::Spans;
pub use large::Large;
pub use reader::{LogReader, Next, Position};
pub use record::{Kind, Record};
pub use writer::LogWriter;

use std::path::{Path, PathBuf};

/// Size of a record's header in bytes.
pub const HEADER: usize = 36;
/// Longest payload in bytes; a reader takes a longer one for damage. The host cuts lines before that.
pub const MAX_PAYLOAD: usize = 64 * 1024 * 1024;
/// An index entry is written whenever this many bytes went by.
pub const INDEX_EVERY: u64 = 64 * 1024;

impl LogError {
    /// Is there no room left on the disk?
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_full(source))
    }
}

/// Does this say that there is no room left on the disk?
#[must_use]
pub fn is_full(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
    )
}

/// What is wrong with a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk said no.
    #[error("the log {path} cannot be used: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A payload over [`MAX_PAYLOAD`].
    #[error("a record of {0} bytes is too long for the log")]
    TooLong(usize),
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> LogError + '_ {
    move |source| LogError::Io {
        path: path.to_owned(),
        source,
    }
}

/// The index file that belongs to a log.
fn index_path(log: &Path) -> PathBuf {
    log.with_extension("idx")
}

#[cfg(test)]
mod tests;
