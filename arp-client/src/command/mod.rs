//! Command mode: the sessions of this machine, served over HTTP to whoever holds the token.
//!
//! [`CommandMode::start`] makes everything, [`CommandMode::serve`] serves one connection (a tunnel of the relay,
//! a connection of the loopback listener, the local socket), [`CommandMode::shutdown`] ends it all.

mod agents;
mod config;
mod listen;
mod past;

pub use config::{CommandConfig, McpConfig};

pub(crate) use agents::{AgentState, Agents};

use crate::api;
use arp_sessions::error::SessionError;
use arp_sessions::{Leaving, PastSessions, Sessions};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// On connections that come straight from visitors a head has to arrive within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// After a shutdown began connections have this long to finish.
const GRACE: Duration = Duration::from_secs(3);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerInfo {
    /// The way it came.
    pub via: Via,
    /// The visitor's address, where it is known.
    pub addr: Option<SocketAddr>,
}

/// The way a connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// Through the relay, which has asked for the token.
    Relay,
    /// Over the loopback listener, where we ask for the token.
    Loopback,
    /// Over the local socket, which only this user can open.
    Local,
}

/// Why command mode cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Sessions cannot be kept.
    #[error("cannot open the sessions: {0}")]
    Sessions(#[from] SessionError),
    /// An agent is configured that cannot be.
    #[error("{0}")]
    Agents(#[from] arp_agents::catalog::CatalogError),
    /// A port or a socket cannot be opened.
    #[error("cannot listen on {at}: {source}")]
    Listen {
        /// Where.
        at: String,
        /// Why.
        source: std::io::Error,
    },
    /// A setting is wrong.
    #[error("{0}")]
    Config(String),
}

/// Command mode, running. Clones are the same one.
#[derive(Clone)]
pub struct CommandMode {
    state: Arc<api::State>,
    tasks: TaskTracker,
    stop: CancellationToken,
    listening: Option<SocketAddr>,
    mcp: Option<SocketAddr>,
}

impl CommandMode {
    /// Opens the sessions, looks for agents, and listens where the configuration says.
    ///
    /// # Errors
    /// [`CommandError`], whose text says what to do.
    pub async fn start(config: CommandConfig) -> Result<Self, CommandError> {
        config.check().map_err(CommandError::Config)?;
        let agents = Arc::new(Agents::new(&config)?);
        let history = past::open(&config).map_err(|error| CommandError::Config(error.to_string()))?;
        let past: Arc<dyn PastSessions> = Arc::new(past::Past(Arc::clone(&history)));
        let sessions = Sessions::open(config.sessions()?, agents.clone(), past)?;
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let state = Arc::new(api::State {
            sessions,
            agents,
            history,
            config,
            started: Instant::now(),
            stop: stop.clone(),
            leaving: tokio::sync::watch::Sender::new(None),
        });
        let mut mode = Self {
            state,
            tasks,
            stop,
            listening: None,
            mcp: None,
        };
        mode.listen().await?;
        // Versions are asked for before the first visitor wants to know them.
        let agents = Arc::clone(&mode.state.agents);
        let history = Arc::clone(&mode.state.history);
        mode.tasks.spawn(async move {
            for state in agents.all().await {
                if let ("codex", Ok(found)) = (state.agent.id(), state.found) {
                    history.found_codex(found.path);
                }
            }
        });
        let history = Arc::clone(&mode.state.history);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = history.scan() {
                tracing::warn!(%error, "cannot read the agents' histories");
            }
        });
        Ok(mode)
    }

    /// Serves one connection until it is closed, or `cancel` (then what runs is finished, within limits).
    pub async fn serve<S>(&self, stream: S, peer: PeerInfo, cancel: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let state = Arc::clone(&self.state);
        let service = service_fn(move |request| {
            let state = Arc::clone(&state);
            async move { Ok::<_, std::convert::Infallible>(api::handle(state, peer, request).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).max_buf_size(MAX_HEAD);
        // A tunnel of the relay may be idle for hours before a request comes.
        builder.header_read_timeout((peer.via == Via::Loopback).then_some(HEAD_TIMEOUT));
        let connection = builder
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = async { tokio::select! { () = cancel.cancelled() => {}, () = self.stop.cancelled() => {} } } => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(GRACE, connection).await {
                    Ok(ended) => ended,
                    Err(_) => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Where the loopback listener listens, if there is one.
    #[must_use]
    pub fn listening(&self) -> Option<SocketAddr> {
        self.listening
    }

    /// Where the MCP server listens, if there is one.
    #[must_use]
    pub fn mcp(&self) -> Option<SocketAddr> {
        self.mcp
    }

    /// Waits until somebody on this machine asks `arpc` to stop, and says what is to become of its sessions.
    pub async fn asked_to_stop(&self) -> Leaving {
        let mut leaving = self.state.leaving.subscribe();
        let asked = leaving.wait_for(Option::is_some).await;
        // The sender lives as long as we do.
        asked.ok().and_then(|leaving| *leaving).unwrap_or(Leaving::RunOn)
    }

    /// Stops: sessions are parked, or run on without us; then all connections end.
    pub async fn shutdown(&self, leaving: Leaving) {
        self.state.sessions.shutdown(leaving).await;
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(2 * GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}
