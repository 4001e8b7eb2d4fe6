//! Reading a file or a range of it, whatever lies under the name.

use crate::list::mtime;
use crate::{ByteRange, Encoding, FileContent, FilesError, MAX_FILE_BYTES, RelPath, Root};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cap_std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Seek, SeekFrom};

pub(crate) fn read(root: &Root, path: &RelPath, range: Option<ByteRange>) -> Result<FileContent, FilesError> {
    let (mut file, metadata) = open_regular(root, path)?;
    let size = metadata.len();
    let (offset, wanted) = range
        .unwrap_or(ByteRange::From { start: 0, len: None })
        .resolve(size)?;

    file.seek(SeekFrom::Start(offset)).map_err(FilesError::Io)?;
    let mut bytes = Vec::new();
    // A file that grows meanwhile is not followed beyond what it was when it was opened.
    file.take(wanted.min(MAX_FILE_BYTES))
        .read_to_end(&mut bytes)
        .map_err(FilesError::Io)?;
    let cut = bytes.len() as u64 == MAX_FILE_BYTES && wanted > MAX_FILE_BYTES;
    if cut {
        drop_partial_character(&mut bytes);
    }

    let given = bytes.len() as u64;
    let (encoding, content) = encode(bytes);
    Ok(FileContent {
        session_id: None,
        project_path: root.shown(),
        path: path.display(),
        size,
        mtime: mtime(&metadata),
        offset,
        bytes: given,
        encoding,
        truncated: cut,
        content,
    })
}

/// Opens a regular file. Nothing else is opened for longer than it takes to see what it is, and a pipe
/// without a writer does not block.
pub(crate) fn open_regular(root: &Root, path: &RelPath) -> Result<(File, Metadata), FilesError> {
    // The look before the opening spares devices the side effects of being opened; the one after it counts.
    let seen = root
        .dir
        .metadata(path.to_open())
        .map_err(FilesError::from_lookup)?;
    check_regular(&seen)?;
    let file = root
        .dir
        .open_with(path.to_open(), &options())
        .map_err(FilesError::from_lookup)?;
    let metadata = file.metadata().map_err(FilesError::from_lookup)?;
    check_regular(&metadata)?;
    Ok((file, metadata))
}

fn check_regular(metadata: &Metadata) -> Result<(), FilesError> {
    if metadata.is_dir() {
        return Err(FilesError::IsADirectory);
    }
    if !metadata.is_file() {
        return Err(FilesError::SpecialFile);
    }
    Ok(())
}

#[cfg(unix)]
fn options() -> OpenOptions {
    use cap_std::fs::OpenOptionsExt;
    use rustix::fs::OFlags;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(flags.bits().cast_signed());
    options
}

#[cfg(not(unix))]
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true);
    options
}

/// Cuts a UTF-8 character that the size limit went through, so that text stays text.
fn drop_partial_character(bytes: &mut Vec<u8>) {
    if let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
}

fn encode(bytes: Vec<u8>) -> (Encoding, String) {
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => (Encoding::Utf8, text),
        Ok(text) => (Encoding::Base64, STANDARD.encode(text)),
        Err(error) => (Encoding::Base64, STANDARD.encode(error.as_bytes())),
    }
}
