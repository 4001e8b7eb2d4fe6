//! The state of command mode: its settings, the agents of this machine and their histories, the sessions.
//!
//! A leaf: [`crate::api`] and [`crate::mcp`] stand on it, [`crate::serving`] makes it and serves them.

mod agents;
mod config;
mod edge_id;
pub(crate) mod gateway;
mod guesses;
mod logins;
mod past;
mod roots;

pub use config::{CommandConfig, McpConfig};

pub(crate) use agents::{AgentState, Agents};
pub(crate) use guesses::{Guesses, TooMany, WINDOW as GUESS_WINDOW};
pub(crate) use logins::{LOGIN, Logins};
pub(crate) use roots::{ReadableRoots, Starter};

use crate::tokens::Names;
use arp_common::ids::ClientId;
use arp_common::origin::origin_of;
use arp_history::History;
use arp_sessions::error::SessionError;
use arp_sessions::store::Filter;
use arp_sessions::{Created, Leaving, NewSession, PastSessions, Sessions};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Instant;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What all that serves command mode shares.
pub(crate) struct State {
    pub(crate) sessions: Sessions,
    pub(crate) agents: Arc<Agents>,
    pub(crate) history: Arc<History>,
    pub(crate) roots: Arc<ReadableRoots>,
    pub(crate) config: CommandConfig,
    /// By which tokens visitors come in now.
    pub(crate) names: Arc<Names>,
    /// The public name of this edge; see [`edge_id`].
    pub(crate) edge_id: String,
    pub(crate) guesses: Guesses,
    pub(crate) logins: Logins,
    /// Our id, by which the cookies of this machine are told from others'.
    pub(crate) client: ClientId,
    /// The origin of the URL that the relay is visited by, where it has told it.
    pub(crate) public_origin: RwLock<Option<String>>,
    pub(crate) started: Instant,
    /// Cancelled when everything stops: streams end then.
    pub(crate) stop: CancellationToken,
    /// Somebody on this machine asked `arpc` to stop, and what is to become of its sessions.
    pub(crate) leaving: tokio::sync::watch::Sender<Option<Leaving>>,
    /// The tunnel of this very process, if there is one.
    pub(crate) tunnel: OnceLock<watch::Receiver<arp_tunnels::Snapshot>>,
    /// The model gateway that agents are sent through, if they are.
    pub(crate) gateway: Option<Arc<gateway::Gateway>>,
}

impl State {
    /// Opens the sessions and histories, and looks for agents.
    pub(crate) fn open(
        config: CommandConfig,
        names: Arc<Names>,
        stop: CancellationToken,
    ) -> Result<Self, CommandError> {
        config.check().map_err(CommandError::Config)?;
        let client: ClientId = config
            .client_id
            .parse()
            .map_err(|_| CommandError::Config("the client id is not one".to_owned()))?;
        let gateway = if config.gateway {
            let gateway =
                gateway::Gateway::of_user().map_err(|error| CommandError::Config(error.to_string()))?;
            Some(Arc::new(gateway))
        } else {
            None
        };
        let agents = Arc::new(Agents::new(&config, gateway.clone())?);
        let history = past::open(&config).map_err(|error| CommandError::Config(error.to_string()))?;
        let past: Arc<dyn PastSessions> = Arc::new(past::Past(Arc::clone(&history)));
        let edge_id =
            edge_id::open(&config.data_dir).map_err(|error| CommandError::Config(error.to_string()))?;
        let sessions = Sessions::open(config.sessions()?, agents.clone(), past)?;
        let roots = ReadableRoots::open(&config.fs_roots, &config.data_dir, Arc::clone(&history))
            .map_err(|error| CommandError::Config(error.to_string()))?;
        let logins = Logins::open(&config.data_dir, &client, config.edge_key.as_deref());
        Ok(Self {
            logins,
            client,
            public_origin: RwLock::default(),
            sessions,
            agents,
            history,
            roots: Arc::new(roots),
            config,
            names,
            edge_id,
            guesses: Guesses::default(),
            started: Instant::now(),
            stop,
            leaving: tokio::sync::watch::Sender::new(None),
            tunnel: OnceLock::new(),
            gateway,
        })
    }

    /// The relay has said by which URL it is visited.
    pub(crate) fn told_public_url(&self, url: Option<&str>) {
        let origin = url.and_then(origin_of);
        *self.public_origin.write().unwrap_or_else(PoisonError::into_inner) = origin;
    }

    /// Is this the origin that visitors know us by?
    pub(crate) fn is_public_origin(&self, origin: &str) -> bool {
        let known = self.public_origin.read().unwrap_or_else(PoisonError::into_inner);
        known
            .as_deref()
            .is_some_and(|known| known.eq_ignore_ascii_case(origin))
    }

    /// Starts a session, and writes down what that opens to visitors. Goes on when the caller does not wait for it.
    pub(crate) async fn start_session(
        &self,
        wanted: NewSession,
        starter: Starter,
    ) -> Result<Created, SessionError> {
        let (sessions, roots) = (self.sessions.clone(), Arc::clone(&self.roots));
        let started = tokio::spawn(async move {
            let expected = wanted
                .project_path
                .clone()
                .unwrap_or_else(|| wanted.default_path.clone());
            let known = Arc::clone(&roots);
            let before = blocking(move || {
                let before = known.current();
                // First: the agent's own word of this directory must never be there without ours.
                if starter == Starter::Visitor {
                    known.starts(starter, &expected, &before);
                }
                before
            })
            .await?;
            let created = sessions.create(wanted).await?;
            let directory = created.session.project_path.clone();
            blocking(move || roots.starts(starter, &directory, &before)).await?;
            Ok(created)
        });
        started
            .await
            .map_err(|error| SessionError::Internal(error.to_string()))?
    }

    /// Reads what the agents have on disk, and sorts which of it is the owner's.
    pub(crate) fn scan(&self) {
        if let Err(error) = self.history.scan() {
            tracing::warn!(%error, "cannot read the agents' histories");
        }
        let all = Filter {
            limit: u64::from(u32::MAX),
            ..Filter::default()
        };
        match self.sessions.list(&all) {
            Ok((sessions, _)) => self.roots.settle(&sessions),
            Err(error) => tracing::warn!(%error, "cannot tell which directories are the owner's"),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SessionError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| SessionError::Internal(error.to_string()))
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
    /// The same by TLS that the relay could not read: what it takes out of requests is still in them.
    Sealed,
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
