//! Listing a directory: names first, then a `stat` for the asked page only.

use crate::{Directory, Entry, EntryType, FilesError, MAX_ENTRIES, MAX_PAGE, RelPath, Root};
use cap_std::fs::{FileType, Metadata};
use std::ffi::OsString;

/// Which part of a directory is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListPage {
    /// Entries to skip.
    pub offset: usize,
    /// Entries to give, at most [`MAX_PAGE`].
    pub limit: usize,
}

impl Default for ListPage {
    fn default() -> Self {
        Self {
            offset: 0,
            limit: MAX_PAGE,
        }
    }
}

pub(crate) fn list(root: &Root, path: &RelPath, page: ListPage) -> Result<Directory, FilesError> {
    // Opening "." and opening a directory are both lookups below the root; a directory that is swapped for
    // something else afterwards changes nothing, since the open one is read.
    let metadata = root
        .dir
        .metadata(path.to_open())
        .map_err(FilesError::from_lookup)?;
    if !metadata.is_dir() {
        return Err(FilesError::NotADirectory);
    }
    let dir = root
        .dir
        .open_dir(path.to_open())
        .map_err(FilesError::from_lookup)?;

    let mut names: Vec<(bool, OsString)> = Vec::new();
    let mut truncated = false;
    for entry in dir.entries().map_err(FilesError::from_lookup)? {
        let entry = entry.map_err(FilesError::from_lookup)?;
        if names.len() == MAX_ENTRIES {
            truncated = true;
            break;
        }
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        names.push((is_dir, entry.file_name()));
    }
    names.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));

    let total = names.len();
    let limit = page.limit.min(MAX_PAGE);
    let entries = names
        .into_iter()
        .skip(page.offset)
        .take(limit)
        .filter_map(|(_, name)| {
            // An entry that vanished since it was read is not an error of the listing.
            let own = dir.symlink_metadata(&name).ok()?;
            let is_link = own.is_symlink();
            // Through the root's handle, not the directory's: a link to elsewhere in the root is a good link.
            let target = match is_link {
                true => root.dir.metadata(path.as_path().join(&name)).ok(),
                false => None,
            };
            Some(entry(name, &own, target.as_ref()))
        });
    Ok(Directory {
        session_id: None,
        project_path: root.shown(),
        path: path.display(),
        entries: entries.collect(),
        total,
        offset: page.offset,
        truncated,
    })
}

fn entry(name: OsString, own: &Metadata, target: Option<&Metadata>) -> Entry {
    let kind = entry_type(own.file_type());
    let seen = if kind == EntryType::Symlink {
        target
    } else {
        Some(own)
    };
    let lossy = name.to_string_lossy().into_owned();
    let raw_name = name.to_str().is_none().then(|| {
        let bytes = name.as_encoded_bytes();
        percent_encoding::percent_encode(bytes, percent_encoding::NON_ALPHANUMERIC).to_string()
    });
    Entry {
        name: lossy,
        raw_name,
        kind,
        target: target
            .map(|t| entry_type(t.file_type()))
            .filter(|t| *t != EntryType::Other),
        size: seen.filter(|m| m.is_file()).map(Metadata::len),
        mtime: seen.and_then(mtime),
    }
}

fn entry_type(kind: FileType) -> EntryType {
    if kind.is_dir() {
        EntryType::Directory
    } else if kind.is_file() {
        EntryType::File
    } else if kind.is_symlink() {
        EntryType::Symlink
    } else {
        EntryType::Other
    }
}

/// Last change in Unix seconds.
pub(crate) fn mtime(metadata: &Metadata) -> Option<i64> {
    let time = metadata.modified().ok()?.into_std();
    match time.duration_since(std::time::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).ok(),
        Err(before) => i64::try_from(before.duration().as_secs()).ok().map(|s| -s),
    }
}
