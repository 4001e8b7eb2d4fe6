//! The state of command mode: its settings, the agents of this machine and their histories, the sessions.
//!
//! A leaf: [`crate::api`] and [`crate::mcp`] stand on it, [`crate::serving`] makes it and serves them.

mod agents;
mod config;
mod past;

pub use config::{CommandConfig, McpConfig};

pub(crate) use agents::{AgentState, Agents};

use crate::tokens::Names;
use arp_history::History;
use arp_sessions::error::SessionError;
use arp_sessions::{PastSessions, Sessions};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What all that serves command mode shares.
pub(crate) struct State {
    pub(crate) sessions: Sessions,
    pub(crate) agents: Arc<Agents>,
    pub(crate) history: Arc<History>,
    pub(crate) config: CommandConfig,
    pub(crate) started: Instant,
    /// Cancelled when everything stops: streams end then.
    pub(crate) stop: CancellationToken,
    /// The tokens that are valid now; those of the settings until they are told.
    pub(crate) names: OnceLock<Arc<Names>>,
    /// The tunnel of this very process, if there is one.
    pub(crate) tunnel: OnceLock<watch::Receiver<arp_tunnels::Snapshot>>,
}

impl State {
    /// Is this a token of ours, now? Takes as long whatever it is.
    pub(crate) fn is_token(&self, given: &str, same: impl Fn(&str, &str) -> bool) -> bool {
        match self.names.get() {
            Some(names) => {
                let (tokens, id) = names.current();
                let id = id.then_some(self.config.client_id.as_str());
                let all = tokens.iter().map(arp_common::ids::Token::as_str).chain(id);
                all.fold(false, |found, token| found | same(given, token))
            }
            None => self
                .config
                .all_tokens()
                .fold(false, |found, token| found | same(given, token)),
        }
    }

    /// Opens the sessions and histories, and looks for agents.
    pub(crate) fn open(config: CommandConfig, stop: CancellationToken) -> Result<Self, CommandError> {
        config.check().map_err(CommandError::Config)?;
        let agents = Arc::new(Agents::new(&config)?);
        let history = past::open(&config).map_err(|error| CommandError::Config(error.to_string()))?;
        let past: Arc<dyn PastSessions> = Arc::new(past::Past(Arc::clone(&history)));
        let sessions = Sessions::open(config.sessions()?, agents.clone(), past)?;
        Ok(Self {
            sessions,
            agents,
            history,
            config,
            started: Instant::now(),
            stop,
            names: OnceLock::new(),
            tunnel: OnceLock::new(),
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
    /// Through a tunnel of somebody else's service, which has asked for nothing: we ask for the token.
    Tunnel,
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
