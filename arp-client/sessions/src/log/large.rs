//! Payloads too large to be held for each reader: they stay on disk and are read in pieces.

use std::fs::File;
use std::io;
use std::sync::Arc;

/// A payload on disk, whole and checked. It stays readable when its log is folded or removed.
#[derive(Debug, Clone)]
pub struct Large {
    file: Arc<File>,
    offset: u64,
    len: usize,
}

impl Large {
    pub(super) fn new(file: Arc<File>, offset: u64, len: usize) -> Self {
        Self { file, offset, len }
    }

    /// Its size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Is there nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// So many bytes from a place in it on, or what is left. Blocks.
    ///
    /// # Errors
    /// When the disk says no.
    pub fn piece(&self, from: usize, bytes: usize) -> io::Result<Vec<u8>> {
        let mut piece = vec![0; bytes.min(self.len.saturating_sub(from))];
        let at = self.offset + u64::try_from(from).unwrap_or(u64::MAX);
        read_exact_at(&self.file, &mut piece, at)?;
        Ok(piece)
    }
}

#[cfg(unix)]
pub(super) fn read_exact_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, at)
}

#[cfg(windows)]
pub(super) fn read_exact_at(file: &File, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, buffer, at)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[read..];
        at += u64::try_from(read).unwrap_or(u64::MAX);
    }
    Ok(())
}
