//! Command mode: the sessions of this machine, served over HTTP to whoever holds the token.
//!
//! [`CommandMode::start`] makes everything, [`CommandMode::serve`] serves one connection (a tunnel of the relay,
//! a connection of the loopback listener, the local socket), [`CommandMode::shutdown`] ends it all.

mod listen;
mod visitors;

use crate::api;
use crate::command::{AgentState, CommandConfig, CommandError, PeerInfo, State, Via};
use crate::tokens::Names;
use arp_sessions::Leaving;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// On connections that come straight from visitors a head has to arrive within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// After a shutdown began connections have this long to finish.
const GRACE: Duration = Duration::from_secs(3);

/// Command mode, running. Clones are the same one.
#[derive(Clone)]
pub struct CommandMode {
    state: Arc<State>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl CommandMode {
    /// Opens the sessions, looks for agents, and listens where the configuration says. `names` are the tokens that the
    /// loopback listener asks for.
    ///
    /// # Errors
    /// [`CommandError`], whose text says what to do.
    pub async fn start(config: CommandConfig, names: Arc<Names>) -> Result<Self, CommandError> {
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let state = Arc::new(State::open(config, names, stop.clone())?);
        let mode = Self { state, tasks, stop };
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
        if let Some(gateway) = &mode.state.gateway {
            mode.tasks.spawn(Arc::clone(gateway).follow(mode.stop.clone()));
        }
        let state = Arc::clone(&mode.state);
        tokio::task::spawn_blocking(move || state.scan());
        Ok(mode)
    }

    /// The relay has said by which URL it is visited: pages of that origin are our own.
    pub fn told_public_url(&self, url: Option<&str>) {
        self.state.told_public_url(url);
    }

    /// Serves one connection until it is closed, or `cancel` (then what runs is finished, within limits).
    pub async fn serve<S>(&self, stream: S, peer: PeerInfo, cancel: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let state = Arc::clone(&self.state);
        let service = service_fn(move |mut request| {
            let state = Arc::clone(&state);
            let mut peer = peer;
            if peer.via == Via::Sealed {
                visitors::say_how_it_came(&mut request, peer.addr);
                peer.via = Via::Relay;
            }
            async move {
                let answer = match peer.via {
                    Via::Tunnel => visitors::answer(state, peer.addr, request).await,
                    _ => api::handle(state, peer, request).await,
                };
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).max_buf_size(MAX_HEAD);
        // A tunnel of the relay may be idle for hours before a request comes.
        builder.header_read_timeout(matches!(peer.via, Via::Loopback).then_some(HEAD_TIMEOUT));
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

    /// The agents of this machine in words: name, version and place of those that can be used, and what to do about
    /// the others. Those that are asked for their version for the first time take seconds.
    pub async fn agents(&self) -> Vec<Result<String, String>> {
        let in_words = |state: AgentState| match state.found {
            Ok(found) => {
                let name = state.agent.display_name();
                let version = found.version.map(|v| format!(" {v}")).unwrap_or_default();
                Ok(format!("{name}{version}  ({})", found.path.display()))
            }
            Err(error) => Err(error.to_string()),
        };
        self.state.agents.all().await.into_iter().map(in_words).collect()
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
