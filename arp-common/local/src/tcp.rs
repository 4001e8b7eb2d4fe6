//! A port on loopback. Anybody on the machine can connect to it, and anybody could have taken the port of a listener
//! that was killed: so each side says first what only a reader of the file knows.
//!
//! ```text
//! file:      PORT ' ' KEY ' ' PROOF            (KEY and PROOF: 32 hexadecimal digits)
//! connected: KEY  ->                           or the stream is closed after a second
//!            <- PROOF                          then the stream is what was asked for
//! ```

#![cfg_attr(
    unix,
    allow(
        dead_code,
        unreachable_pub,
        reason = "tested here, used where there are no Unix sockets"
    )
)]

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinHandle, JoinSet};

/// A stream to another process.
pub type Stream = TcpStream;

/// The same for a program without a runtime.
pub type BlockingStream = std::net::TcpStream;

/// Length of the key and of the proof, in bytes.
const SECRET: usize = 32;
/// Longest file, in bytes.
const MAX_FILE: u64 = 128;
/// Time in which the key has to be given: it is sent at once.
const TIME: Duration = Duration::from_secs(1);
/// Time for the proof: the listener's program may be busy.
const PATIENCE: Duration = Duration::from_secs(5);
/// Streams that have not given the key yet, at most; more wait to be accepted.
const STRANGERS: usize = 64;
/// Streams that gave the key and wait to be taken.
const WAITING: usize = 16;
/// Pause after the system could not accept.
const PAUSE: Duration = Duration::from_millis(50);

/// What stands in the file.
struct Place {
    port: u16,
    key: [u8; SECRET],
    proof: [u8; SECRET],
}

impl Place {
    fn new(port: u16) -> Self {
        Self {
            port,
            key: secret(),
            proof: secret(),
        }
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let (key, proof) = (self.key.escape_ascii(), self.proof.escape_ascii());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = path.with_file_name(format!(".{name}.{:016x}", rand::random::<u64>()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options
            .open(&beside)
            .and_then(|mut file| write!(file, "{} {key} {proof}", self.port))
            .and_then(|()| std::fs::rename(&beside, path));
        written.inspect_err(|_| drop(std::fs::remove_file(&beside)))
    }

    fn read(path: &Path) -> io::Result<Self> {
        let mut text = String::new();
        OpenOptions::new()
            .read(true)
            .open(path)?
            .take(MAX_FILE)
            .read_to_string(&mut text)?;
        let mut parts = text.split(' ');
        let mut next = || parts.next();
        let place = (|| {
            Some(Self {
                port: next()?.parse().ok()?,
                key: next()?.as_bytes().try_into().ok()?,
                proof: next()?.as_bytes().try_into().ok()?,
            })
        })();
        place.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a port, a key and a proof"))
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Is it what was made by the listener of this file?
    fn proves(&self, given: &[u8; SECRET]) -> io::Result<()> {
        if bool::from(given.ct_eq(&self.proof)) {
            return Ok(());
        }
        // Another program has the port of one that is gone.
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

fn secret() -> [u8; SECRET] {
    let mut text = [0; SECRET];
    text.copy_from_slice(format!("{:032x}", rand::random::<u128>()).as_bytes());
    text
}

/// Accepts streams that know the key. Its file is removed with it.
#[derive(Debug)]
pub struct Listener {
    streams: Mutex<mpsc::Receiver<io::Result<Stream>>>,
    task: JoinHandle<()>,
    path: PathBuf,
}

impl Listener {
    /// Listens, and says where in a file at this path, in the place of what is there. Needs the runtime.
    ///
    /// # Errors
    /// When there is no port, or the file cannot be written.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let place = Place::new(listener.local_addr()?.port());
        let listener = TcpListener::from_std(listener)?;
        place.write(path)?;
        let (known, streams) = mpsc::channel(WAITING);
        Ok(Self {
            streams: Mutex::new(streams),
            task: tokio::spawn(greet_all(listener, place, known)),
            path: path.to_owned(),
        })
    }

    /// The next stream that knows the key. May be dropped and called again: one that is being greeted is not lost.
    ///
    /// # Errors
    /// When the system is out of something; try again a little later.
    pub async fn accept(&self) -> io::Result<Stream> {
        let gone = || io::Error::other("the listener has ended");
        self.streams
            .lock()
            .await
            .recv()
            .await
            .unwrap_or_else(|| Err(gone()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Who says nothing keeps nobody waiting.
async fn greet_all(listener: TcpListener, place: Place, known: mpsc::Sender<io::Result<Stream>>) {
    let mut strangers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if strangers.len() < STRANGERS => match accepted {
                Ok((stream, _)) => {
                    let (key, proof, known) = (place.key, place.proof, known.clone());
                    strangers.spawn(async move {
                        let greeted = tokio::time::timeout(TIME, greet(stream, key, proof)).await;
                        if let Ok(Ok(stream)) = greeted {
                            // The listener may be gone by now.
                            let _ = known.send(Ok(stream)).await;
                        }
                    });
                }
                Err(error) => {
                    if known.send(Err(error)).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = strangers.join_next() => {}
        }
    }
}

async fn greet(mut stream: Stream, key: [u8; SECRET], proof: [u8; SECRET]) -> io::Result<Stream> {
    let mut given = [0; SECRET];
    stream.read_exact(&mut given).await?;
    if !bool::from(given.ct_eq(&key)) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    stream.set_nodelay(true)?;
    stream.write_all(&proof).await?;
    Ok(stream)
}

/// Connects to what listens at this path.
///
/// # Errors
/// When nothing does (`NotFound`, `ConnectionRefused`), or it is not ours to enter (`PermissionDenied`).
pub async fn connect(path: &Path) -> io::Result<Stream> {
    let place = Place::read(path)?;
    let talk = async {
        let mut stream = TcpStream::connect(place.address()).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&place.key).await.map_err(refused)?;
        let mut given = [0; SECRET];
        stream.read_exact(&mut given).await.map_err(refused)?;
        place.proves(&given)?;
        Ok(stream)
    };
    tokio::time::timeout(PATIENCE, talk)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::ConnectionRefused.into()))
}

/// [`connect`] for a program without a runtime.
///
/// # Errors
/// As [`connect`].
pub fn connect_blocking(path: &Path) -> io::Result<BlockingStream> {
    let place = Place::read(path)?;
    let mut stream = BlockingStream::connect(place.address())?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&place.key).map_err(refused)?;
    let mut given = [0; SECRET];
    stream.read_exact(&mut given).map_err(refused)?;
    place.proves(&given)?;
    stream.set_read_timeout(None)?;
    Ok(stream)
}

/// Who closes, or says nothing, instead of the proof is not the listener of the file.
fn refused(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::WouldBlock
        | io::ErrorKind::TimedOut => io::ErrorKind::ConnectionRefused.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door");
        (dir, path)
    }

    async fn echo(mut stream: Stream) {
        let mut four = [0; 4];
        stream.read_exact(&mut four).await.unwrap();
        stream.write_all(&four).await.unwrap();
    }

    #[tokio::test]
    async fn who_reads_the_file_enters_and_nobody_else() {
        let (dir, path) = place();
        let listener = Listener::bind(&path).unwrap();
        let place = Place::read(&path).unwrap();
        let serve = tokio::spawn(async move {
            loop {
                tokio::spawn(echo(listener.accept().await.unwrap()));
            }
        });
        // One that says nothing, and goes on to say nothing, keeps nobody waiting; a wrong key is answered by the end.
        let mut silent = TcpStream::connect(place.address()).await.unwrap();
        let mut wrong = TcpStream::connect(place.address()).await.unwrap();
        wrong.write_all(&place.proof).await.unwrap();
        let mut stream = connect(&path).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut four = [0; 4];
        stream.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"ping");
        let blocking = path.clone();
        tokio::task::spawn_blocking(move || {
            let mut stream = connect_blocking(&blocking).unwrap();
            stream.write_all(b"pong").unwrap();
            let mut four = [0; 4];
            stream.read_exact(&mut four).unwrap();
            assert_eq!(&four, b"pong");
        })
        .await
        .unwrap();
        assert_eq!(wrong.read(&mut four).await.unwrap_or(0), 0);
        assert_eq!(silent.read(&mut four).await.unwrap_or(0), 0);
        // With the listener its file goes.
        serve.abort();
        assert!(serve.await.unwrap_err().is_cancelled());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(connect(&path).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_wait_for_the_next_stream_that_is_given_up_loses_none() {
        let (_dir, path) = place();
        let listener = Listener::bind(&path).unwrap();
        let place = Place::read(&path).unwrap();
        let mut stream = TcpStream::connect(place.address()).await.unwrap();
        let (half, rest) = place.key.split_at(16);
        stream.write_all(half).await.unwrap();
        for _ in 0..20 {
            let wait = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
            assert!(wait.is_err());
        }
        stream.write_all(rest).await.unwrap();
        let mut given = [0; SECRET];
        stream.read_exact(&mut given).await.unwrap();
        assert_eq!(given, place.proof);
        stream.write_all(b"ping").await.unwrap();
        echo(listener.accept().await.unwrap()).await;
    }

    #[tokio::test]
    async fn a_port_that_another_program_has_now_is_as_one_that_nobody_has() {
        let (_dir, path) = place();
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Place::new(other.local_addr().unwrap().port())
            .write(&path)
            .unwrap();
        let serve = tokio::spawn(async move {
            // It says something of its own; it says nothing and ends; it says nothing.
            let (mut stream, _) = other.accept().await.unwrap();
            stream.write_all(&[b'x'; SECRET]).await.unwrap();
            drop(other.accept().await.unwrap());
            let kept = (stream, other.accept().await.unwrap());
            let last = other.accept().await.unwrap();
            drop(other);
            (kept, last)
        });
        for _ in 0..3 {
            assert_eq!(
                connect(&path).await.unwrap_err().kind(),
                io::ErrorKind::ConnectionRefused
            );
        }
        let blocking = path.clone();
        let asked = tokio::task::spawn_blocking(move || connect_blocking(&blocking).unwrap_err().kind());
        assert_eq!(asked.await.unwrap(), io::ErrorKind::ConnectionRefused);
        drop(serve.await.unwrap());
        assert_eq!(
            connect(&path).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        for text in ["", "1", "1 2 3", "99999 a b", &"9".repeat(500)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(
                connect(&path).await.err().map(|e| e.kind()),
                Some(io::ErrorKind::InvalidData),
                "{text}"
            );
        }
    }
}
