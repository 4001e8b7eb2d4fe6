//! The control port: an edge registers here, is asked for tunnels, and shows that it lives.

use crate::defaults as d;
use crate::registry::{Client, Registry};
use arp_common::defaults::{HANDSHAKE, HEARTBEATS_MISSED};
use arp_common::protocol::{
    Command, FrameError, FrameReader, GoAwayReason, Register, RegisterResult, VERSION, write_frame,
};
use arp_common::transport::{ReadHalf, Stream, WriteHalf};
use bytes::BytesMut;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
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
    /// Where visitors find the relay, if the operator said so.
    pub public_url: Option<String>,
    /// Port of the public side, for an edge that has to make up the URL.
    pub public_port: u16,
    /// Time between signs of life.
    pub heartbeat: Duration,
}

/// Serves one control channel until it ends.
///
/// # Errors
/// Why it ended, if not by the edge's or our own wish.
pub async fn serve(
    stream: Stream,
    peer: SocketAddr,
    registry: &Arc<Registry>,
    welcome: &Welcome,
    stop: &CancellationToken,
) -> Result<(), ControlError> {
    let (rd, mut wr) = stream.into_split();
    let mut frames = FrameReader::new(rd);
    let first = timeout(HANDSHAKE, frames.next())
        .await
        .map_err(|_| ControlError::Silent)??;
    let Some(Command::Register(register)) = first else {
        return Err(ControlError::NotRegister);
    };
    let version = register.version.unwrap_or(1).min(VERSION);
    let (tx, rx) = mpsc::channel(d::CONTROL_QUEUE);
    let Register {
        client_id,
        tokens,
        mode,
        agent,
        ..
    } = register;
    let registered = registry.register(&client_id, tokens, version, mode, tx);
    let answer = match &registered {
        Ok(_) => welcome_of(version, welcome),
        Err(e) => RegisterResult {
            error: Some(e.to_string()),
            ..RegisterResult::default()
        },
    };
    let sent = timeout(
        d::CONTROL_WRITE,
        write_frame(&mut wr, &Command::RegisterResult(answer)),
    )
    .await;
    let (client, generation) = registered.map_err(|e| ControlError::Refused(e.to_string()))?;
    let agent = agent.unwrap_or_else(|| "version 1".into());
    tracing::info!(client = %client.id, %peer, agent = agent.escape_debug().to_string(), "registered");
    let result = match sent {
        Ok(Ok(())) => {
            Channel {
                frames,
                wr,
                rx,
                version,
                heartbeat: welcome.heartbeat,
                client: client.clone(),
            }
            .run(stop)
            .await
        }
        Ok(Err(e)) => Err(e.into()),
        Err(_) => Err(ControlError::Stuck),
    };
    registry.unregister(&client, generation, result.is_ok());
    match &result {
        Ok(()) => tracing::info!(client = %client.id, "left"),
        Err(e) => tracing::info!(client = %client.id, "offline: {e}"),
    }
    result
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
        answer.heartbeat_secs = u32::try_from(welcome.heartbeat.as_secs()).ok();
    }
    answer
}

/// A registered control channel.
struct Channel {
    frames: FrameReader<ReadHalf>,
    wr: WriteHalf,
    rx: mpsc::Receiver<Command>,
    version: u32,
    heartbeat: Duration,
    client: Arc<Client>,
}

impl Channel {
    async fn run(mut self, stop: &CancellationToken) -> Result<(), ControlError> {
        let v2 = self.version >= 2;
        let mut heartbeat = interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut repair = interval_at(Instant::now() + d::POOL_REPAIR, d::POOL_REPAIR);
        repair.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut batch = Vec::new();
        loop {
            batch.clear();
            tokio::select! {
                () = stop.cancelled() => {
                    batch.push(Command::GoAway { reason: GoAwayReason::Shutdown });
                }
                n = self.rx.recv_many(&mut batch, 256) => if n == 0 { return Ok(()) },
                frame = self.frames.next() => {
                    heard = Instant::now();
                    match frame? {
                        Some(Command::Deregister {}) => return Ok(()),
                        None => return Err(ControlError::Closed),
                        Some(Command::Ping {}) => batch.push(Command::Pong {}),
                        Some(Command::Pong {}) => {}
                        Some(_) => return Err(ControlError::OutOfPlace),
                    }
                }
                () = self.client.pool.stirred() => self.client.pool.tend(false),
                _ = repair.tick() => self.client.pool.tend(true),
                _ = heartbeat.tick(), if v2 => {
                    if heard.elapsed() > self.heartbeat * HEARTBEATS_MISSED {
                        return Err(ControlError::Dead(heard.elapsed().as_secs()));
                    }
                    batch.push(Command::Ping {});
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
