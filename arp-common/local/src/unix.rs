//! Unix sockets.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};

/// A stream to another process.
pub type Stream = UnixStream;

/// The same for a program without a runtime.
pub type BlockingStream = std::os::unix::net::UnixStream;

/// Accepts streams. Its socket is removed with it.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Listens at this path, in the place of what is there: whether somebody lives who made that, is asked before
    /// ([`connect`]).
    ///
    /// # Errors
    /// When the socket cannot be made; its path may be too long (108 bytes on Linux).
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let bound = Self {
            listener,
            path: path.to_owned(),
        };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(bound)
    }

    /// The next stream. May be dropped and called again.
    ///
    /// # Errors
    /// When the system is out of something; try again a little later.
    pub async fn accept(&self) -> io::Result<Stream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Connects to what listens at this path.
///
/// # Errors
/// When nothing does (`NotFound`, `ConnectionRefused`), or it is not ours to enter (`PermissionDenied`).
pub async fn connect(path: &Path) -> io::Result<Stream> {
    UnixStream::connect(path).await
}

/// [`connect`] for a program without a runtime.
///
/// # Errors
/// As [`connect`].
pub fn connect_blocking(path: &Path) -> io::Result<BlockingStream> {
    BlockingStream::connect(path)
}
