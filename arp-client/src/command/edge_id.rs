//! The public name of this edge: random, made once, kept in the data directory. It is no token and opens nothing.
//!
//! A console that keeps a machine keeps this name with it, and so notices when a token or an address has come to
//! lead to another machine.

use arp_common::private;
use std::io;
use std::path::Path;

/// Hex digits of the name.
const LENGTH: usize = 32;
const FILE: &str = "edge-id";

/// Reads the name, or makes one. A file that holds something else is an error: a new name would look like
/// another machine to everybody who knows this one.
///
/// # Errors
/// As the operating system says; `InvalidData` for a file that holds no name.
pub(crate) fn open(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join(FILE);
    private::create_dir(data_dir)?;
    if !path.exists() {
        let fresh = uuid::Uuid::new_v4().simple().to_string();
        // Of two that start at once, one makes it and both read it.
        private::create(&path, format!("{fresh}\n").as_bytes())?;
    }
    let kept = private::read(&path, 4096)?;
    let name = String::from_utf8_lossy(&kept).trim().to_owned();
    if name.len() == LENGTH && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(name);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "{} holds no name of an edge (32 hex digits); remove the file to get a new one",
            path.display()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_made_once_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let name = open(dir.path()).unwrap();
        assert_eq!(name.len(), LENGTH);
        assert_eq!(open(dir.path()).unwrap(), name);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(open(other.path()).unwrap(), name);
    }

    #[test]
    fn a_damaged_file_is_told_and_never_replaced_by_another_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "nonsense\n").unwrap();
        let error = open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().contains("remove the file"), "{error}");
    }
}
