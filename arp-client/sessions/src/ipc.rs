//! Talking to another process of the same user on the same machine: JSON lines over a Unix socket, or,
//! where there is none, over a port on loopback that asks for a key (`arp_local`).
//!
//! The socket's path must be short (108 bytes on Linux); a directory whose path is long gets its socket in
//! a private directory of the temporary directory. Where the socket is, is written to a file beside.

use crate::defaults::MAX_FRAME;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use std::path::Path;
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

#[cfg(unix)]
pub use unix::{Listener, Stream, connect};

#[cfg(not(unix))]
pub use portable::{Listener, Stream, connect};

/// Frames over a stream: one JSON object a line.
#[derive(Debug)]
pub struct Frames(Framed<Stream, LinesCodec>);

impl Frames {
    /// Frames over this stream.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self(Framed::new(stream, LinesCodec::new_with_max_length(MAX_FRAME)))
    }

    /// Sends one.
    ///
    /// # Errors
    /// When the other side is gone.
    pub async fn send<T: Serialize + Sync>(&mut self, frame: &T) -> io::Result<()> {
        self.0
            .send(serde_json::to_string(frame)?)
            .await
            .map_err(codec_error)
    }

    /// Takes the two directions apart.
    #[must_use]
    pub fn split(self) -> (FrameSender, FrameReceiver) {
        let (sender, receiver) = self.0.split();
        (FrameSender(sender), FrameReceiver(receiver))
    }

    /// Receives one; `None` when the other side is done.
    ///
    /// # Errors
    /// When the other side is gone or does not speak this.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        match self.0.next().await {
            None => Ok(None),
            Some(line) => Ok(Some(serde_json::from_str(&line.map_err(codec_error)?)?)),
        }
    }
}

/// The sending half of [`Frames`].
#[derive(Debug)]
pub struct FrameSender(SplitSink<Framed<Stream, LinesCodec>, String>);

impl FrameSender {
    /// Sends one.
    ///
    /// # Errors
    /// When the other side is gone.
    pub async fn send<T: Serialize + Sync>(&mut self, frame: &T) -> io::Result<()> {
        self.0
            .send(serde_json::to_string(frame)?)
            .await
            .map_err(codec_error)
    }
}

/// The receiving half of [`Frames`].
#[derive(Debug)]
pub struct FrameReceiver(SplitStream<Framed<Stream, LinesCodec>>);

impl FrameReceiver {
    /// Receives one; `None` when the other side is done.
    ///
    /// # Errors
    /// When the other side is gone or does not speak this.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        match self.0.next().await {
            None => Ok(None),
            Some(line) => Ok(Some(serde_json::from_str(&line.map_err(codec_error)?)?)),
        }
    }
}

fn codec_error(error: LinesCodecError) -> io::Error {
    match error {
        LinesCodecError::Io(error) => error,
        LinesCodecError::MaxLineLengthExceeded => {
            io::Error::new(io::ErrorKind::InvalidData, "frame too long")
        }
    }
}

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// When the disk says no.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let temporary = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.create(true).write(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(&temporary)?.write_all(content)?;
    std::fs::rename(&temporary, path)
}

/// Makes a directory that only its owner may enter.
///
/// # Errors
/// When it cannot be made, or is somebody else's.
pub fn private_dir(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let owner = std::fs::metadata(path)?.uid();
        if owner != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{} belongs to another user", path.display()),
            ));
        }
    }
    Ok(())
}

#[cfg(unix)]
mod unix {
    use super::{private_dir, write_private};
    use std::io;
    use std::path::{Path, PathBuf};
    use tokio::net::{UnixListener, UnixStream};

    /// A stream to another process.
    pub type Stream = UnixStream;

    /// Longest path that fits in every system's `sockaddr_un`.
    const MAX_PATH: usize = 100;

    /// Accepts streams. The socket is removed when it is dropped.
    #[derive(Debug)]
    pub struct Listener {
        listener: UnixListener,
        socket: PathBuf,
    }

    impl Listener {
        /// Listens; `at` is a file name without ending, where `connect` finds it.
        ///
        /// # Errors
        /// When the socket cannot be made.
        pub fn bind(at: &Path) -> io::Result<Self> {
            let direct = at.with_extension("sock");
            let socket = if direct.as_os_str().len() <= MAX_PATH {
                direct
            } else {
                let uid = rustix::process::geteuid().as_raw();
                let dir = std::env::temp_dir().join(format!("arpc-{uid}"));
                private_dir(&dir)?;
                dir.join(format!("{:032x}.sock", rand::random::<u128>()))
            };
            match std::fs::remove_file(&socket) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&socket)?;
            {
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
            }
            write_private(&at.with_extension("where"), socket.as_os_str().as_encoded_bytes())?;
            Ok(Self { listener, socket })
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
            let _ = std::fs::remove_file(&self.socket);
        }
    }

    /// Connects to what listens at `at`.
    ///
    /// # Errors
    /// When nothing does.
    pub async fn connect(at: &Path) -> io::Result<Stream> {
        let socket = std::fs::read_to_string(at.with_extension("where"))?;
        UnixStream::connect(socket).await
    }
}

/// The process at the other end of a stream, where the system tells.
#[cfg(unix)]
#[must_use]
pub fn peer(stream: &Stream) -> Option<u32> {
    let pid = stream.peer_cred().ok()?.pid()?;
    u32::try_from(pid).ok()
}

/// Nobody tells.
#[cfg(not(unix))]
#[must_use]
pub fn peer(_stream: &Stream) -> Option<u32> {
    None
}

/// Without Unix sockets: a port, found by the file that says where.
#[cfg(not(unix))]
mod portable {
    use std::io;
    use std::path::Path;

    pub use arp_local::Stream;

    /// Accepts streams. The file that says where is removed when it is dropped.
    #[derive(Debug)]
    pub struct Listener(arp_local::Listener);

    impl Listener {
        /// Listens; `at` is a file name without ending, where `connect` finds it.
        ///
        /// # Errors
        /// When the socket cannot be made.
        pub fn bind(at: &Path) -> io::Result<Self> {
            arp_local::Listener::bind(&at.with_extension("where")).map(Self)
        }

        /// The next stream. May be dropped and called again.
        ///
        /// # Errors
        /// When the system is out of something; try again a little later.
        pub async fn accept(&self) -> io::Result<Stream> {
            self.0.accept().await
        }
    }

    /// Connects to what listens at `at`.
    ///
    /// # Errors
    /// When nothing does.
    pub async fn connect(at: &Path) -> io::Result<Stream> {
        arp_local::connect(&at.with_extension("where")).await
    }
}
