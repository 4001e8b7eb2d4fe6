//! A path below a root, as a visitor may name it.

use crate::{FilesError, MAX_PATH_BYTES};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A checked relative path: no `..`, no NUL, not absolute. Empty means the root itself.
///
/// The check keeps nonsense from the file system and gives plain errors. That nothing leaves the root is not
/// its work: the lookup guarantees that whatever the path says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelPath(PathBuf);

impl RelPath {
    /// Takes a path that was percent-decoded exactly once. `/` separates; empty parts and `.` are dropped.
    ///
    /// # Errors
    /// [`FilesError::OutsideRoot`] for `..` and absolute paths, [`FilesError::InvalidPath`] for NUL bytes,
    /// paths over [`MAX_PATH_BYTES`] and, on Windows, characters that have a meaning of their own there.
    pub fn parse(path: &str) -> Result<Self, FilesError> {
        Self::parse_bytes(path.as_bytes())
    }

    /// The same for a path that need not be UTF-8 (on systems where file names are bytes).
    ///
    /// # Errors
    /// As [`RelPath::parse`]; on Windows also when the path is not UTF-8.
    pub fn parse_bytes(path: &[u8]) -> Result<Self, FilesError> {
        if path.len() > MAX_PATH_BYTES {
            return Err(FilesError::InvalidPath("it is too long"));
        }
        if path.contains(&0) {
            return Err(FilesError::InvalidPath("it holds a NUL byte"));
        }
        if path.first() == Some(&b'/') {
            return Err(FilesError::OutsideRoot);
        }
        let mut out = PathBuf::new();
        for part in path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".") {
            if part == b".." {
                return Err(FilesError::OutsideRoot);
            }
            out.push(component(part)?);
        }
        Ok(Self(out))
    }

    /// The path, relative, without `.` and `..`.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// What to open: the path, or `.` for the root itself.
    pub(crate) fn to_open(&self) -> &Path {
        if self.0.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &self.0
        }
    }

    /// The path as text with `/` between the parts; bytes that are not UTF-8 become U+FFFD.
    pub fn display(&self) -> String {
        let parts: Vec<_> = self.0.iter().map(|p| p.to_string_lossy()).collect();
        parts.join("/")
    }
}

#[cfg(unix)]
fn component(part: &[u8]) -> Result<OsString, FilesError> {
    use std::os::unix::ffi::OsStringExt;
    Ok(OsString::from_vec(part.to_vec()))
}

#[cfg(not(unix))]
fn component(part: &[u8]) -> Result<OsString, FilesError> {
    // Backslashes separate, colons name drives and alternate streams: neither belongs in a name here.
    if part
        .iter()
        .any(|b| matches!(b, b'\\' | b':' | b'<' | b'>' | b'"' | b'|' | b'?' | b'*'))
    {
        return Err(FilesError::InvalidPath(
            "it holds a character that no file name has here",
        ));
    }
    match std::str::from_utf8(part) {
        Ok(part) => Ok(OsString::from(part)),
        Err(_) => Err(FilesError::InvalidPath("it is not UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_normalized() {
        for (given, shown) in [
            ("", ""),
            (".", ""),
            ("a/./b//c/", "a/b/c"),
            ("...", "..."),
            ("..a", "..a"),
        ] {
            assert_eq!(RelPath::parse(given).unwrap().display(), shown);
        }
        assert_eq!(RelPath::parse("").unwrap().to_open(), Path::new("."));
    }

    #[test]
    fn climbing_and_absolute_paths_are_refused() {
        for bad in [
            "..",
            "../x",
            "a/..",
            "a/../../b",
            "/",
            "/etc/passwd",
            "//etc",
            "a//../../b",
        ] {
            assert!(
                matches!(RelPath::parse(bad), Err(FilesError::OutsideRoot)),
                "{bad}"
            );
        }
    }

    #[test]
    fn nul_and_overlong_paths_are_refused() {
        assert!(matches!(RelPath::parse("a\0b"), Err(FilesError::InvalidPath(_))));
        assert!(matches!(
            RelPath::parse(&"a/".repeat(3_000)),
            Err(FilesError::InvalidPath(_))
        ));
    }

    #[test]
    fn dots_still_encoded_after_one_decoding_are_a_name_like_any_other() {
        assert_eq!(RelPath::parse("%2e%2e/x").unwrap().display(), "%2e%2e/x");
        assert_eq!(RelPath::parse("..%2fetc").unwrap().display(), "..%2fetc");
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_not_utf8_are_kept() {
        let path = RelPath::parse_bytes(b"a/\xff").unwrap();
        assert_eq!(path.as_path().as_os_str().as_encoded_bytes(), b"a/\xff");
        assert_eq!(path.display(), "a/\u{fffd}");
    }
}
