//! Files that only their owner may read: keys, pins, key bindings.
//!
//! Every file here appears whole or not at all: it is written beside its place and then put there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Creates a directory, with those above it, that only its owner may enter. One that is there stays as it is.
///
/// # Errors
/// As the operating system says, with the path.
pub fn create_dir(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|e| named(e, path))
}

/// Creates a file with this content, unless there is one: `false` then, and it is left alone.
///
/// # Errors
/// As the operating system says, with the path.
pub fn create(path: &Path, content: &[u8]) -> io::Result<bool> {
    // On a full disk what is there is good enough.
    if path.symlink_metadata().is_ok() {
        return Ok(false);
    }
    let beside = write_beside(path, content)?;
    // A link never replaces anything, so of two processes that start at once exactly one creates the file.
    let linked = std::fs::hard_link(&beside, path);
    let _ = std::fs::remove_file(&beside);
    match linked {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // File systems without links (some network and container mounts).
        Err(_) => create_in_place(path, content).map_err(|e| named(e, path)),
    }
}

fn create_in_place(path: &Path, content: &[u8]) -> io::Result<bool> {
    match options().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            file.write_all(content)?;
            file.sync_all()?;
            Ok(true)
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(e),
    }
}

/// Writes a file with this content in place of the one that may be there.
///
/// # Errors
/// As the operating system says, with the path.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = write_beside(path, content)?;
    std::fs::rename(&beside, path).map_err(|e| {
        let _ = std::fs::remove_file(&beside);
        named(e, path)
    })
}

/// Adds a line to a file, which is created if need be. One call, one write: lines of two processes do not mix.
///
/// # Errors
/// As the operating system says, with the path.
pub fn append_line(path: &Path, line: &str) -> io::Result<()> {
    let mut options = options();
    options.append(true).create(true);
    let write = || {
        let mut file = options.open(path)?;
        let before = file.metadata()?.len();
        file.write_all(format!("{line}\n").as_bytes())
            .and_then(|()| file.sync_all())
            .inspect_err(|_| {
                // Half a line (a full disk) would spoil the next one.
                let _ = file.set_len(before);
            })
    };
    write().map_err(|e| named(e, path))
}

/// Reads a file of at most `max` bytes.
///
/// # Errors
/// As the operating system says, with the path; `InvalidData` when it is longer.
pub fn read(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let read = || {
        let mut content = Vec::new();
        File::open(path)?.take(max as u64 + 1).read_to_end(&mut content)?;
        if content.len() > max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("longer than {max} bytes"),
            ));
        }
        Ok(content)
    };
    read().map_err(|e| named(e, path))
}

/// Can files be made in this directory, or can it be made? Leaves nothing behind.
///
/// # Errors
/// Why not, with the path.
pub fn usable_dir(path: &Path) -> io::Result<()> {
    let there = path.ancestors().find(|p| p.exists() || p.as_os_str().is_empty());
    let there = match there {
        Some(there) if !there.as_os_str().is_empty() => there,
        _ => Path::new("."),
    };
    if !there.is_dir() {
        return Err(named(io::ErrorKind::NotADirectory.into(), there));
    }
    let beside = write_beside(&there.join("check"), b"")?;
    std::fs::remove_file(&beside).map_err(|e| named(e, &beside))
}

/// Takes the rights of everybody but the owner away from a file, if there are any. True if there were.
///
/// # Errors
/// As the operating system says, with the path.
pub fn close_to_others(path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let close = || {
            let mode = std::fs::metadata(path)?.permissions().mode();
            if mode & 0o077 == 0 {
                return Ok(false);
            }
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o700))?;
            Ok(true)
        };
        close().map_err(|e| named(e, path))
    }
    // Elsewhere the profile directory of the user carries the rights.
    #[cfg(not(unix))]
    {
        let _ = path;
        Ok(false)
    }
}

fn options() -> OpenOptions {
    #[allow(unused_mut)]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn write_beside(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{:016x}", rand::random::<u64>()));
    let write = || {
        let mut file = options().write(true).create_new(true).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|e| {
        let _ = std::fs::remove_file(&beside);
        named(e, path)
    })?;
    Ok(beside)
}

fn named(e: io::Error, path: &Path) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_created_once_and_only_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/key");
        create_dir(path.parent().unwrap()).unwrap();
        assert!(create(&path, b"one").unwrap());
        assert!(!create(&path, b"two").unwrap());
        assert_eq!(read(&path, 3).unwrap(), b"one");
        assert!(read(&path, 2).is_err());
        append_line(&path, "!").unwrap();
        assert_eq!(read(&path, 9).unwrap(), b"one!\n");
        replace(&path, b"three").unwrap();
        assert_eq!(read(&path, 9).unwrap(), b"three");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            assert!(close_to_others(&path).unwrap());
            assert_eq!(mode(&path), 0o600);
        }
    }
}
