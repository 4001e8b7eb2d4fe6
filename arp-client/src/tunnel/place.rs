//! The place of one instance: a directory with a lock, so that there is one of each name, and a note of who has it,
//! so that a crashed one is noticed.

use super::report::About;
use super::{OpenError, dir};
use arp_common::private;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Largest note that is read, in bytes.
const MAX_NOTE: usize = 64 * 1024;
/// A lock that is held is tried again so often …
const TRIES: u32 = 5;
/// … after pauses of this.
const PAUSE: Duration = Duration::from_millis(30);

/// A place that is ours until this is dropped.
pub(crate) struct Place {
    dir: PathBuf,
    _lock: File,
}

/// Who has a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The process.
    pub(crate) pid: u32,
    /// What it goes through.
    pub(crate) backend: String,
    /// What it exposes.
    pub(crate) local_port: u16,
}

impl Place {
    /// Takes a place.
    pub(crate) async fn take(data_dir: &Path, name: &str) -> Result<Self, OpenError> {
        let dir = std::path::absolute(dir(data_dir, name))?;
        private::create_dir(&dir)?;
        let lock = lock_file(&dir)?;
        let mut tries = TRIES;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                // Whoever asks whether it is taken has it for a moment.
                Err(TryLockError::WouldBlock) if tries > 0 => {
                    tries -= 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(OpenError::Running(note(&dir).map_or(0, |note| note.pid)));
                }
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
        let place = Self { dir, _lock: lock };
        if let Some(note) = note(&place.dir) {
            tracing::info!(target: "tunnel", "an earlier tunnel (process {}) ended without a word; clearing up", note.pid);
            place.forget();
        }
        Ok(place)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Notes who has it.
    pub(crate) fn remember(&self, about: &About) -> io::Result<()> {
        let note = Note {
            pid: about.pid,
            backend: about.backend.to_string(),
            local_port: about.local_port,
        };
        private::replace(&note_file(&self.dir), &serde_json::to_vec(&note)?)
    }

    /// Takes the note away, at a good end.
    pub(crate) fn forget(&self) {
        let _ = std::fs::remove_file(note_file(&self.dir));
    }
}

/// Is somebody there?
pub(crate) fn is_taken(dir: &Path) -> bool {
    if !dir.is_dir() {
        return false;
    }
    match lock_file(dir).map(|lock| lock.try_lock()) {
        Ok(Err(TryLockError::WouldBlock)) => true,
        Ok(_) | Err(_) => false,
    }
}

/// One that ended without a word, if there is one: told once, then forgotten.
pub(crate) fn crashed(dir: &Path) -> Option<Note> {
    if is_taken(dir) {
        return None;
    }
    let note = note(dir)?;
    let _ = std::fs::remove_file(note_file(dir));
    let _ = std::fs::remove_file(dir.join("control.sock"));
    let _ = std::fs::remove_file(dir.join("control.where"));
    Some(note)
}

/// Names of all instances that ever were.
pub(crate) fn names(data_dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(data_dir.join("tunnels")).into_iter().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_name(name))
        .collect();
    names.sort();
    names
}

/// May an instance be called this?
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=32).contains(&name.len()) && name.bytes().all(plain)
}

fn lock_file(dir: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(dir.join("lock"))
}

fn note_file(dir: &Path) -> PathBuf {
    dir.join("running.json")
}

fn note(dir: &Path) -> Option<Note> {
    let text = private::read(&note_file(dir), MAX_NOTE).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_has_one_owner_and_a_crash_is_noticed_once() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::take(data.path(), "default").await.unwrap();
        let at = dir(data.path(), "default");
        assert!(is_taken(&at));
        assert!(matches!(
            Place::take(data.path(), "default").await,
            Err(OpenError::Running(_))
        ));
        assert!(Place::take(data.path(), "other").await.is_ok());
        let left = Note {
            pid: 7,
            backend: "bore".into(),
            local_port: 1,
        };
        std::fs::write(note_file(&at), serde_json::to_vec(&left).unwrap()).unwrap();
        assert_eq!(crashed(&at), None, "it lives");
        drop(place);
        assert_eq!(crashed(&at), Some(left));
        assert_eq!(crashed(&at), None);
        assert_eq!(names(data.path()), ["default", "other"]);
        assert!(!is_name("../x") && !is_name("") && is_name("a-b_1"));
    }
}
