//! Finding the session files in an agent's home, and opening them.
//!
//! Symbolic links below a home are never followed, and nothing but a regular file is opened: a home that an
//! agent has been writing to is not trusted.

use crate::defaults::{MAX_FILES, MAX_SIDE_FILE};
use crate::format::Format;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A session file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Path below the home, with `/`.
    pub(crate) rel: String,
    /// The agent's name of the project; empty for Codex.
    pub(crate) dir: String,
    /// The session's id, where the file's name is the id.
    pub(crate) id: Option<String>,
    pub(crate) archived: bool,
    pub(crate) stamp: Stamp,
}

/// What tells whether a file changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) size: u64,
    /// Nanoseconds since 1970.
    pub(crate) mtime: i64,
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let since = |t: std::time::SystemTime| t.duration_since(std::time::UNIX_EPOCH).ok();
        let mtime = metadata
            .modified()
            .ok()
            .and_then(since)
            .and_then(|d| i64::try_from(d.as_nanos()).ok());
        let (dev, ino) = identity(metadata);
        Self {
            dev,
            ino,
            size: metadata.len(),
            mtime: mtime.unwrap_or(0),
        }
    }
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// Elsewhere a replaced file is noticed by its size, time, beginning and end.
#[cfg(not(unix))]
fn identity(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

/// All session files of an agent. A directory that cannot be read is as one that is empty.
pub(crate) fn find(format: &dyn Format, home: &Path) -> Vec<Found> {
    let mut files = Files::default();
    format.find(home, &mut files);
    if files.0.len() == MAX_FILES {
        tracing::warn!(agent = %format.agent(), "more than {MAX_FILES} session files; the rest is left out");
    }
    files.0
}

/// Session files that were found, so many at most.
#[derive(Debug, Default)]
pub(crate) struct Files(Vec<Found>);

impl Files {
    pub(crate) fn add(&mut self, file: Found) {
        if self.0.len() < MAX_FILES {
            self.0.push(file);
        }
    }
}

/// May this id be part of a file's name? (Ids come from file names and file contents, and other names are
/// made with them.)
pub(crate) fn is_safe_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Opens a session file, if it is a regular file now.
pub(crate) fn open(path: &Path) -> io::Result<(File, Stamp)> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        // Not through a link, and without waiting for the other end of a pipe.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits().cast_signed());
    }
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok((file, Stamp::of(&metadata)))
}

/// Reads a small file that belongs to a session, project or process; `None` if it is not there or not small.
pub(crate) fn read_side_file(path: &Path) -> Option<Vec<u8>> {
    let (file, stamp) = open(path).ok()?;
    if stamp.size > MAX_SIDE_FILE {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIDE_FILE).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Each real subdirectory whose name is text.
pub(crate) fn each_dir(path: &Path, mut f: impl FnMut(&str, PathBuf)) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir())
            && let Some(name) = entry.file_name().to_str()
        {
            f(name, entry.path());
        }
    }
}

/// Each regular file whose name is text.
pub(crate) fn each_file(path: &Path, mut f: impl FnMut(&str, Stamp)) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_file())
            && let Some(name) = entry.file_name().to_str()
            && let Ok(metadata) = entry.metadata()
        {
            f(name, Stamp::of(&metadata));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{Claude, Codex, Gemini};

    #[test]
    fn ids_that_could_be_a_path_are_no_ids() {
        for good in ["268d0348-cd2c-42d4-b319-da0c273ed738", "a", "A_b-1"] {
            assert!(is_safe_id(good));
        }
        for bad in ["", ".", "..", "a/b", "a\\b", "a.b", "a b", "é", &"a".repeat(129)] {
            assert!(!is_safe_id(bad), "{bad}");
        }
    }

    #[test]
    fn only_session_files_are_found() {
        let temp = tempfile::tempdir().unwrap();
        let put = |rel: &str| {
            let path = temp.path().join(rel);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        for rel in [
            "projects/p/a.jsonl",
            "projects/p/agent-1.jsonl",
            "projects/p/...jsonl",
            "projects/p/a/x.jsonl",
            "projects/loose.jsonl",
            "projects/p/memory",
            "tmp/g/chats/session-1.jsonl",
            "tmp/g/chats/other.jsonl",
        ] {
            put(rel);
        }
        let id = "01a1fa21-c7a6-7af1-96d7-fbce3238070c";
        put(&format!(
            "sessions/2026/11/20/rollout-2026-11-20T18-04-40-{id}.jsonl"
        ));
        put("sessions/2026/11/20/notes.jsonl");
        put(&format!(
            "archived_sessions/rollout-2026-11-20T18-04-40-{id}.jsonl"
        ));
        let names = |format: &dyn Format| {
            find(format, temp.path())
                .into_iter()
                .map(|f| f.rel)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&Claude), ["projects/p/a.jsonl"]);
        assert_eq!(names(&Codex::default()).len(), 2);
        assert_eq!(names(&Gemini), ["tmp/g/chats/session-1.jsonl"]);
        assert!(find(&Claude, Path::new("/nowhere")).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn links_and_pipes_are_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("projects/p");
        fs::create_dir_all(&dir).unwrap();
        fs::write(temp.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(temp.path().join("secret"), dir.join("link.jsonl")).unwrap();
        std::os::unix::fs::symlink("/etc", temp.path().join("projects/etc")).unwrap();
        let fifo = dir.join("pipe.jsonl");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        assert!(find(&Claude, temp.path()).is_empty());
        assert!(open(&dir.join("link.jsonl")).is_err());
        assert!(open(&fifo).is_err());
    }
}
