//! What can go wrong, in words that a visitor may read and codes that a program may match.

use std::io;

/// Why a file or directory was not given.
///
/// The texts never tell whether something outside the root exists.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The configured root cannot be used.
    #[error("the file root {path} cannot be used: {source}; name an existing directory by its absolute path")]
    BadRoot {
        /// The root as it was configured.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The named directory is neither a root nor below one (or does not exist).
    #[error(
        "this directory is not below any allowed root; the owner of the machine allows one with --fs-root"
    )]
    NotAllowed,
    /// The path is not one that can name a file here.
    #[error("the path is not valid: {0}")]
    InvalidPath(&'static str),
    /// The path, or a symbolic link on it, leads out of the root.
    #[error("the path leads out of the root; only files below it can be read")]
    OutsideRoot,
    /// It lies in a directory that is kept from being read.
    #[error("arpc keeps its keys and tokens here; they cannot be read by visitors")]
    Hidden,
    /// There is no such file or directory.
    #[error("there is no such file or directory")]
    NotFound,
    /// A directory was asked for and something else is there.
    #[error("this is not a directory; read it as a file")]
    NotADirectory,
    /// A file was asked for and a directory is there.
    #[error("this is a directory; list it instead")]
    IsADirectory,
    /// A pipe, socket or device.
    #[error("this is a pipe, socket or device; only regular files can be read")]
    SpecialFile,
    /// The operating system refuses it to the user that runs `arpc`.
    #[error("the user that runs arpc may not read this")]
    PermissionDenied,
    /// The range begins beyond the end of the file, or cannot be understood.
    #[error("the range cannot be served; the file has {size} bytes")]
    BadRange {
        /// Size of the file in bytes.
        size: u64,
    },
    /// Anything else that reading may run into.
    #[error("reading failed: {0}")]
    Io(io::Error),
}

impl FilesError {
    /// A stable code for the `code` field of the HTTP error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadRoot { .. } => "bad_root",
            Self::NotAllowed => "root_not_allowed",
            Self::InvalidPath(_) => "invalid_path",
            Self::OutsideRoot => "outside_root",
            Self::Hidden => "hidden",
            Self::NotFound => "not_found",
            Self::NotADirectory => "not_a_directory",
            Self::IsADirectory => "is_a_directory",
            Self::SpecialFile => "special_file",
            Self::PermissionDenied => "permission_denied",
            Self::BadRange { .. } => "bad_range",
            Self::Io(_) => "io_error",
        }
    }

    /// The HTTP status that fits.
    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidPath(_) | Self::NotADirectory | Self::IsADirectory => 400,
            Self::NotAllowed
            | Self::OutsideRoot
            | Self::Hidden
            | Self::SpecialFile
            | Self::PermissionDenied => 403,
            Self::NotFound => 404,
            Self::BadRange { .. } => 416,
            Self::BadRoot { .. } | Self::Io(_) => 500,
        }
    }

    /// Sorts an error of a lookup below a root.
    pub(crate) fn from_lookup(error: io::Error) -> Self {
        // cap-std tells an escape by an error of its own: PermissionDenied without an OS code.
        if error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none() {
            return Self::OutsideRoot;
        }
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied => Self::PermissionDenied,
            io::ErrorKind::NotADirectory => Self::NotADirectory,
            io::ErrorKind::IsADirectory => Self::IsADirectory,
            io::ErrorKind::InvalidFilename => Self::InvalidPath("a part of it is too long"),
            io::ErrorKind::InvalidInput => {
                Self::InvalidPath("it holds characters that no file name has here")
            }
            _ if is_loop(&error) => Self::InvalidPath("its symbolic links go in a circle"),
            _ => Self::Io(error),
        }
    }
}

#[cfg(unix)]
fn is_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(not(unix))]
fn is_loop(_: &io::Error) -> bool {
    false
}
