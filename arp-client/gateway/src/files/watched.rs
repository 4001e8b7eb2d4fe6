//! A file whose newest good content counts, from the moment it is saved.
//!
//! Each look costs one `stat`; the file is read only when that shows a change. A file that does not parse leaves the
//! last good content in force, and the fault is told once for each version of the file.

use super::{FileError, read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// A change within this time of the last write may not show in the file's time.
const SETTLE: Duration = Duration::from_secs(2);

/// See the module.
pub struct Watched<T> {
    path: PathBuf,
    parse: fn(&Path, &str) -> Result<T, FileError>,
    state: Mutex<State<T>>,
}

struct State<T> {
    seen: Option<Stamp>,
    good: Arc<T>,
    fault: Option<FileError>,
}

/// What tells one version of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&meta);
    #[cfg(not(unix))]
    let inode = 0;
    Some(Stamp {
        modified: meta.modified().ok(),
        len: meta.len(),
        inode,
    })
}

impl<T: Default> Watched<T> {
    /// The content of `path`, as `parse` understands it; the default while there is no such file.
    pub fn new(path: PathBuf, parse: fn(&Path, &str) -> Result<T, FileError>) -> Self {
        Self {
            path,
            parse,
            state: Mutex::new(State {
                seen: None,
                good: Arc::default(),
                fault: None,
            }),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The newest good content.
    pub fn get(&self) -> Arc<T> {
        let now = stamp(&self.path);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |s: &Stamp| {
            s.modified
                .and_then(|m| m.elapsed().ok())
                .is_none_or(|age| age < SETTLE)
        };
        // A file that was written a moment ago may have changed again within the same tick of its clock.
        if state.seen == now && !now.as_ref().is_some_and(fresh) {
            return state.good.clone();
        }
        match read(&self.path).and_then(|text| match text {
            Some(text) => (self.parse)(&self.path, &text).map(Some),
            None => Ok(None),
        }) {
            Ok(value) => {
                state.good = Arc::new(value.unwrap_or_default());
                state.fault = None;
            }
            Err(fault) => {
                if state.fault.as_ref() != Some(&fault) {
                    tracing::error!("{fault}; what was read before goes on");
                }
                state.fault = Some(fault);
            }
        }
        state.seen = now;
        state.good.clone()
    }

    /// The newest good content, and what is wrong with the file now.
    pub fn get_with_fault(&self) -> (Arc<T>, Option<FileError>) {
        self.get();
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.good.clone(), state.fault.clone())
    }

    /// What is wrong with the file now.
    pub fn fault(&self) -> Option<FileError> {
        self.get();
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fault
            .clone()
    }
}

impl<T> std::fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::object::Object;

    #[test]
    fn an_edit_counts_at_once_and_a_bad_one_leaves_the_last_good_state() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let parse = |p: &Path, t: &str| Object::parse(t).map_err(|e| FileError::json(p, &e));
        let watched = Watched::new(path.clone(), parse);
        assert!(watched.get().get("a").is_none() && watched.fault().is_none());
        for n in 1..5 {
            std::fs::write(&path, format!("{{\"a\":{n}}}")).unwrap();
            assert_eq!(watched.get().get_as::<u8>("a"), Some(n));
        }
        std::fs::write(&path, "{\n  \"a\": 9,\n}").unwrap();
        assert_eq!(watched.get().get_as::<u8>("a"), Some(4));
        let fault = watched.fault().unwrap().to_string();
        assert!(fault.contains("x.json:3:1: trailing comma"), "{fault}");
        std::fs::remove_file(&path).unwrap();
        assert!(watched.get().get("a").is_none() && watched.fault().is_none());
    }
}
