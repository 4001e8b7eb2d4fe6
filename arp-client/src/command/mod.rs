//! The state of command mode: its settings, the agents of this machine and their histories, the sessions.
//!
//! A leaf: [`crate::api`] and [`crate::mcp`] stand on it, [`crate::serving`] makes it and serves them.

mod agents;
mod config;
mod edge_id;
mod past;

pub use config::{CommandConfig, McpConfig};

pub(crate) use agents::{AgentState, Agents};

use arp_history::History;
use arp_sessions::error::SessionError;
use arp_sessions::{PastSessions, Sessions};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// What all that serves command mode shares.
pub(crate) struct State {
    pub(crate) sessions: Sessions,
    pub(crate) agents: Arc<Agents>,
    pub(crate) history: Arc<History>,
    pub(crate) config: CommandConfig,
    /// The public name of this edge; see [`edge_id`].
    pub(crate) edge_id: String,
    pub(crate) started: Instant,
    /// Cancelled when everything stops: streams end then.
    pub(crate) stop: CancellationToken,
}

impl State {
    /// Opens the sessions and histories, and looks for agents.
    pub(crate) fn open(config: CommandConfig, stop: CancellationToken) -> Result<Self, CommandError> {
        config.check().map_err(CommandError::Config)?;
        let agents = Arc::new(Agents::new(&config)?);
        let history = past::open(&config).map_err(|error| CommandError::Config(error.to_string()))?;
        let past: Arc<dyn PastSessions> = Arc::new(past::Past(Arc::clone(&history)));
        let edge_id =
            edge_id::open(&config.data_dir).map_err(|error| CommandError::Config(error.to_string()))?;
        let sessions = Sessions::open(config.sessions()?, agents.clone(), past)?;
        Ok(Self {
            sessions,
            agents,
            history,
            config,
            edge_id,
            started: Instant::now(),
            stop,
        })
    }
}

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
