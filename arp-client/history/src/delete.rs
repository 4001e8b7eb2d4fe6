//! Removing a session with all that belongs to it.
//!
//! Only names that were found on disk, or are made from an id that cannot be a path (see `is_safe_id`), are
//! removed; links are removed, never followed.

use crate::HistoryError;
use crate::format::Format;
use crate::homes::is_safe_id;
use crate::query::FileRow;
use std::fs;
use std::io;
use std::path::Path;

/// Removes a session's files; returns what is gone, relative to the home. `program` is the agent's own, where it
/// removes its sessions itself.
pub(crate) fn delete(
    format: &dyn Format,
    program: Option<&Path>,
    home: &Path,
    id: &str,
    files: &[FileRow],
) -> Result<Vec<String>, HistoryError> {
    let is_there = |file: &&FileRow| home.join(&file.rel).symlink_metadata().is_ok();
    let there: Vec<&FileRow> = files.iter().filter(is_there).collect();
    format.delete_by_itself(program, home, id);
    let gone = there.into_iter().filter(|file| !is_there(file));
    let mut removed: Vec<String> = gone.map(|file| file.rel.clone()).collect();
    // Its own files last: as long as one is there, the session can be found and its deletion tried again.
    let own = files.iter().map(|file| file.rel.clone());
    let beside = if is_safe_id(id) {
        format.beside(home, id, files)
    } else {
        Vec::new()
    };
    for rel in beside.into_iter().chain(own) {
        if remove(&home.join(&rel)).map_err(HistoryError::io("removing a session's file"))? {
            removed.push(rel);
        }
    }
    Ok(removed)
}

/// Names of a directory, so many at most.
pub(crate) fn names_in(dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| wanted(name)).take(10_000).collect()
}

/// Removes a file, a link, or a directory with all that is in it. Returns whether there was one.
fn remove(path: &Path) -> io::Result<bool> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
