//! The files that a person has: read as they are, written back whole.
//!
//! What a file holds that is not ours to change stays as it was written, in its order. A file that does not parse
//! is never replaced; the error says where it is wrong.

pub mod balance;
pub mod filters;
pub(crate) mod notices;
pub mod object;
pub mod routes;
pub mod upstreams;
pub mod watched;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// No file of the gateway is longer.
const MAX_FILE: u64 = 16 << 20;

/// A file that cannot be used as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is not what it should be, at this place (both from 1).
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// Where in the line.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// It cannot be read or written.
    #[error("{}: {message}", path.display())]
    Access {
        /// Which file.
        path: PathBuf,
        /// As the operating system says.
        message: String,
    },
}

impl FileError {
    /// From a JSON error in the text of `path`.
    #[must_use]
    pub fn json(path: &Path, error: &serde_json::Error) -> Self {
        let told = error.to_string();
        let message = told.split(" at line ").next().unwrap_or_default().to_owned();
        Self::Syntax {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
            message,
        }
    }

    fn access(path: &Path, error: &io::Error) -> Self {
        Self::Access {
            path: path.to_owned(),
            message: error.to_string(),
        }
    }
}

/// The text of a file, or `None` if there is none.
///
/// # Errors
/// When it cannot be read, is longer than 16 MiB or is not UTF-8.
pub fn read(path: &Path) -> Result<Option<String>, FileError> {
    let access = |e: &io::Error| FileError::access(path, e);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(access(&e)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| access(&e))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(access(&io::Error::other("longer than 16 MiB")));
    }
    // Editors on Windows put a mark in front.
    let bytes = bytes
        .strip_prefix(b"\xef\xbb\xbf")
        .map(<[u8]>::to_vec)
        .unwrap_or(bytes);
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(e) => Err(access(&io::Error::new(io::ErrorKind::InvalidData, e))),
    }
}

/// Writes a file whole, for its owner alone. Where the path is a link (as people with dotfiles have), what it leads
/// to is written.
///
/// # Errors
/// As the operating system says.
pub fn write(path: &Path, text: &str) -> Result<(), FileError> {
    let access = |e: &io::Error| FileError::access(path, e);
    let place = match std::fs::canonicalize(path) {
        Ok(place) => place,
        Err(e) if e.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(e) => return Err(access(&e)),
    };
    if let Some(parent) = place.parent() {
        arp_common::private::create_dir(parent).map_err(|e| access(&e))?;
    }
    arp_common::private::replace(&place, text.as_bytes()).map_err(|e| access(&e))
}
