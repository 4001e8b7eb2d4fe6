//! The control port: an edge registers here, is asked for tunnels, and shows that it lives.

use crate::admission::{Admission, Admitted};
use crate::defaults as d;
use crate::metrics::{self, Counter};
use crate::registry::{About, Client, RegisterError};
use crate::tcp::ports::Ports;
use arp_common::defaults::{HANDSHAKE, HEARTBEATS_MISSED};
use arp_common::ids::Token;
use arp_common::protocol::{
    Command, FrameError, FrameReader, GoAwayReason, RegisterResult, VERSION, write_frame,
};
use arp_common::tls::{AcceptError, Accepted, Acceptor, Fingerprint};
use arp_common::transport::{ReadHalf, Stream, WriteHalf};
use bytes::BytesMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Why a control channel ended.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Not our protocol, or broken off.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// No TLS.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// It came in plain, which is not allowed; it was told.
    #[error("it speaks without TLS, which this relay does not take (--allow-plaintext)")]
    Plaintext,
    /// It said nothing in time.
    #[error("no Register within {} s", HANDSHAKE.as_secs())]
    Silent,
    /// It spoke of something else first.
    #[error("the first frame is not Register")]
    NotRegister,
    /// It closed without a word.
    #[error("the edge agent closed the connection")]
    Closed,
    /// No sign of life.
    #[error("silent for {0} s")]
    Dead(u64),
    /// It does not take what we write.
    #[error("it does not read what it is sent")]
    Stuck,
    /// It sent what only a relay sends.
    #[error("it sent a command that only a relay sends")]
    OutOfPlace,
    /// The registration was refused; the edge was told.
    #[error("refused: {0}")]
    Refused(String),
}

/// What the control port tells every edge.
#[derive(Debug, Clone)]
pub struct Welcome {
    /// Ports that services may have for themselves.
    pub ports: Arc<Ports>,
    /// Where visitors find the relay, if the operator said so.
    pub public_url: Option<String>,
    /// Port of the public side, for an edge that has to make up the URL.
    pub public_port: u16,
    /// Does the public side take HTTPS?
    pub public_tls: bool,
    /// Domain below which names are host names.
    pub domain: Option<String>,
    /// Time between signs of life.
    pub heartbeat: Duration,
}

/// What an edge is told that speaks in plain to a relay that does not.
const PLAINTEXT: &str = "this relay takes only TLS: use a newer arpc without --plaintext, or ask the relay's \
    operator for --allow-plaintext";
/// Bytes and time that a refused edge is read for, so that it sees the refusal.
const LINGER_BYTES: u64 = 64 * 1024;
/// Commands that are written at once.
const AT_ONCE: usize = 256;

/// An edge that has said who it is, and was registered or refused; it waits for its answer.
pub struct Greeted {
    frames: FrameReader<ReadHalf>,
    wr: WriteHalf,
    peer: SocketAddr,
    version: u32,
    agent: Option<String>,
    key: Option<Fingerprint>,
    registered: Result<Registered, RegisterError>,
}

struct Registered {
    edge: Admitted,
    rx: mpsc::Receiver<Box<Command>>,
}

/// Finds out who comes to the control port, and registers it. Dropping this before it is ready leaves
/// nothing behind.
///
/// # Errors
/// Why it is not an edge; see [`ControlError`].
pub async fn greet(
    tcp: TcpStream,
    peer: SocketAddr,
    acceptor: &Acceptor,
    admission: &Admission,
) -> Result<Greeted, ControlError> {
    let accepted = timeout(HANDSHAKE, acceptor.accept(tcp))
        .await
        .map_err(|_| ControlError::Silent)??;
    let (stream, key) = match accepted {
        Accepted::Secure(stream, key) => (stream, Some(key)),
        Accepted::Plain(stream) => (stream, None),
        Accepted::PlainRefused(stream) => {
            let _ = timeout(HANDSHAKE, refuse_plain(stream)).await;
            return Err(ControlError::Plaintext);
        }
    };
    let (rd, wr) = stream.into_split();
    let mut frames = FrameReader::new(rd);
    let first = timeout(HANDSHAKE, frames.next())
        .await
        .map_err(|_| ControlError::Silent)??;
    let Some(Command::Register(mut register)) = first else {
        return Err(ControlError::NotRegister);
    };
    let version = register.version.unwrap_or(1).min(VERSION);
    let agent = register.agent.take();
    let about = About {
        peer,
        agent: agent.clone(),
        version,
        mode: register.mode,
    };
    let (tx, rx) = mpsc::channel(d::CONTROL_QUEUE);
    let registered = admission.register(register, about, key, tx).await;
    let registered = registered.map(|edge| Registered { edge, rx });
    Ok(Greeted {
        frames,
        wr,
        peer,
        version,
        agent,
        key,
        registered,
    })
}

/// Tells an edge in its own words why it is not taken.
async fn refuse_plain(stream: Stream) -> Result<(), FrameError> {
    let mut frames = FrameReader::new(stream);
    let Some(Command::Register(register)) = frames.next().await? else {
        return Ok(());
    };
    let (mut stream, _) = frames.into_parts();
    let answer = RegisterResult {
        error: Some(PLAINTEXT.to_owned()),
        fatal: register.version.map(|_| true),
        ..RegisterResult::default()
    };
    write_frame(&mut stream, &Command::RegisterResult(answer)).await?;
    linger(stream).await;
    Ok(())
}

/// Closes so that what was written last is seen.
async fn linger(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) {
    let _ = stream.shutdown().await;
    let _ = tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await;
}

impl Greeted {
    /// Answers, and serves the control channel until it ends.
    ///
    /// # Errors
    /// Why it ended, if not by the edge's or our own wish.
    pub async fn serve(
        self,
        admission: &Admission,
        welcome: &Welcome,
        stop: &CancellationToken,
    ) -> Result<(), ControlError> {
        let Self {
            frames,
            mut wr,
            peer,
            version,
            agent,
            key,
            registered,
        } = self;
        let key = key.map_or_else(|| "none (plaintext)".to_owned(), |k| k.to_string());
        let mut held = None;
        let answer = match &registered {
            Ok(registered) if version >= 3 => {
                let client = &registered.edge.client;
                let (open, told) = Box::pin(welcome.ports.open(client, &client.services.all())).await;
                held = Some(open);
                let mut answer = welcome_of(version, welcome);
                answer.remote_ports = told;
                answer.domain = welcome.domain.clone();
                answer
            }
            Ok(_) => welcome_of(version, welcome),
            Err(e) => RegisterResult {
                error: Some(e.told()),
                fatal: (version >= 2).then_some(e.is_final()),
                ..RegisterResult::default()
            },
        };
        let sent = timeout(
            d::CONTROL_WRITE,
            write_frame(&mut wr, &Command::RegisterResult(answer)),
        )
        .await;
        let Registered { edge, rx } = match registered {
            Ok(registered) => registered,
            Err(e) => {
                metrics::refused("edge", e.code());
                tracing::warn!(%peer, key, "refused an edge agent: {e}");
                let rd = frames.into_parts().0;
                let joined = arp_common::transport::Joined { rd, wr };
                let _ = timeout(d::CONTROL_WRITE, linger(joined)).await;
                return Err(ControlError::Refused(e.to_string()));
            }
        };
        let (client, generation) = (edge.client.clone(), edge.generation);
        metrics::add(Counter::Registered, 1);
        let agent = agent.unwrap_or_else(|| "version 1".into());
        tracing::info!(client = %client.id, %peer, key, agent = agent.escape_debug().to_string(), "registered");
        let result = match sent {
            Ok(Ok(())) => {
                Channel {
                    frames,
                    wr,
                    rx,
                    version,
                    heartbeat: welcome.heartbeat,
                    client: client.clone(),
                    generation,
                    peer,
                    admission,
                }
                .run(stop)
                .await
            }
            Ok(Err(e)) => Err(e.into()),
            Err(_) => Err(ControlError::Stuck),
        };
        admission
            .registry()
            .unregister(&client, generation, result.is_ok());
        drop(held);
        drop(edge);
        admission.seen(&client);
        match &result {
            Ok(()) => tracing::info!(client = %client.id, "left"),
            Err(e) => tracing::info!(client = %client.id, "offline: {e}"),
        }
        result
    }
}

fn welcome_of(version: u32, welcome: &Welcome) -> RegisterResult {
    let mut answer = RegisterResult {
        success: true,
        ..RegisterResult::default()
    };
    if version >= 2 {
        answer.version = Some(version);
        answer.public_url = welcome.public_url.clone();
        answer.public_port = Some(welcome.public_port);
        answer.public_tls = Some(welcome.public_tls);
        answer.heartbeat_secs = u32::try_from(welcome.heartbeat.as_secs()).ok();
    }
    answer
}

/// A registered control channel.
struct Channel<'a> {
    frames: FrameReader<ReadHalf>,
    wr: WriteHalf,
    rx: mpsc::Receiver<Box<Command>>,
    version: u32,
    heartbeat: Duration,
    client: Arc<Client>,
    generation: u64,
    peer: SocketAddr,
    admission: &'a Admission,
}

impl Channel<'_> {
    async fn run(mut self, stop: &CancellationToken) -> Result<(), ControlError> {
        let v2 = self.version >= 2;
        let mut heartbeat = interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut repair = interval_at(Instant::now() + d::POOL_REPAIR, d::POOL_REPAIR);
        repair.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = interval_at(Instant::now() + d::SEEN, d::SEEN);
        let mut noted_use = self.client.is_used();
        let mut heard = Instant::now();
        loop {
            // Dropped each time: an edge is idle most of its life.
            let mut batch = Vec::new();
            tokio::select! {
                () = stop.cancelled() => {
                    batch.push(Command::GoAway { reason: GoAwayReason::Shutdown });
                }
                command = self.rx.recv() => match command {
                    None => return Ok(()),
                    Some(first) => {
                        batch.push(*first);
                        while batch.len() < AT_ONCE && let Ok(next) = self.rx.try_recv() {
                            batch.push(*next);
                        }
                    }
                },
                frame = self.frames.next() => {
                    heard = Instant::now();
                    match frame? {
                        Some(Command::Deregister {}) => return Ok(()),
                        None => return Err(ControlError::Closed),
                        Some(Command::Ping {}) => batch.push(Command::Pong {}),
                        Some(Command::Pong {}) => {}
                        Some(Command::SetTokens { tokens, id_token }) => {
                            batch.push(Box::pin(self.set_tokens(tokens, id_token)).await);
                        }
                        Some(_) => return Err(ControlError::OutOfPlace),
                    }
                }
                () = self.client.pool.stirred() => self.client.pool.tend(false),
                _ = repair.tick() => {
                    self.client.pool.tend(true);
                    if !noted_use && self.client.is_used() {
                        noted_use = true;
                        self.admission.seen(&self.client);
                    }
                }
                _ = seen.tick() => self.admission.seen(&self.client),
                _ = heartbeat.tick(), if v2 => batch.push(Command::Ping {}),
                () = sleep_until(heard + self.heartbeat * HEARTBEATS_MISSED), if v2 => {
                    return Err(ControlError::Dead(heard.elapsed().as_secs()));
                }
            }
            let leaving = batch.iter().any(|c| matches!(c, Command::GoAway { .. }));
            if !v2 {
                batch.retain(|c| matches!(c, Command::RequestNewProxyConn { .. }));
            }
            self.send(&batch).await?;
            if leaving {
                let _ = timeout(d::CONTROL_WRITE, self.wr.shutdown()).await;
                return Ok(());
            }
        }
    }

    async fn set_tokens(&self, tokens: Vec<Token>, id_token: bool) -> Command {
        let set = self
            .admission
            .set_tokens(&self.client, self.generation, tokens, id_token, self.peer.ip())
            .await;
        if let Err(e) = &set {
            tracing::warn!(client = %self.client.id, "refused tokens: {e}");
        }
        Command::TokensSet {
            error: set.err().map(|e| e.told()),
        }
    }

    /// Writes all commands at once.
    async fn send(&mut self, commands: &[Command]) -> Result<(), ControlError> {
        if commands.is_empty() {
            return Ok(());
        }
        let mut bytes = BytesMut::new();
        for command in commands {
            bytes.extend_from_slice(&command.encode()?);
        }
        let write = async {
            self.wr.write_all(&bytes).await?;
            self.wr.flush().await
        };
        timeout(d::CONTROL_WRITE, write)
            .await
            .map_err(|_| ControlError::Stuck)??;
        Ok(())
    }
}
