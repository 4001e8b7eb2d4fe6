//! Where connections come from besides the relay: the loopback listener and the local socket.

use super::CommandMode;
use crate::command::{CommandError, PeerInfo, Via};
use arp_common::net;
use arp_sessions::ipc;
use std::future::Future;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// After a failed accept (out of file descriptors) this long passes before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl CommandMode {
    pub(super) async fn listen(&self) -> Result<(), CommandError> {
        if let Some(at) = self.state.config.listen {
            let failed = |source| CommandError::Listen {
                at: at.to_string(),
                source,
            };
            let listener = net::listen_at(at).map_err(failed)?;
            let at = listener.local_addr().map_err(failed)?;
            tracing::info!("API and console listen on http://{at}/");
            let mode = self.clone();
            self.spawn(async move { mode.accept_tcp(listener).await });
        }
        let socket = self.state.config.data_dir.join("local");
        let listener = ipc::Listener::bind(&socket).map_err(|source| CommandError::Listen {
            at: socket.display().to_string(),
            source,
        })?;
        let mode = self.clone();
        self.spawn(async move { mode.accept_local(listener).await });
        let socket = crate::tunnel::agent::socket(&self.state.config.data_dir);
        let listener = ipc::Listener::bind(&socket).map_err(|source| CommandError::Listen {
            at: socket.display().to_string(),
            source,
        })?;
        let mode = self.clone();
        self.spawn(async move { mode.accept_visitors(listener).await });
        if let Some(mcp) = self.state.config.mcp {
            let socket = crate::mcp::socket(&self.state.config.data_dir);
            let listener = ipc::Listener::bind(&socket).map_err(|source| CommandError::Listen {
                at: socket.display().to_string(),
                source,
            })?;
            let mode = self.clone();
            self.spawn(async move { mode.accept_mcp(listener).await });
            let at = crate::mcp::listen(&self.state, mcp, &self.tasks, &self.stop).await?;
            tracing::info!("MCP server listens on http://{at}/mcp");
        }
        Ok(())
    }

    /// Runs a task until it ends or everything stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // On the heap: an async block holds twice what it is given and waits for.
        let (stop, task) = (self.stop.clone(), Box::pin(task));
        self.tasks
            .spawn(async move { stop.run_until_cancelled(task).await });
    }

    async fn accept_tcp(&self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, addr)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "cannot set TCP_NODELAY");
                    }
                    self.serve_in_task(
                        stream,
                        PeerInfo {
                            via: Via::Loopback,
                            addr: Some(addr),
                        },
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept_local(&self, listener: ipc::Listener) {
        loop {
            match listener.accept().await {
                Ok(stream) => self.serve_in_task(
                    stream,
                    PeerInfo {
                        via: Via::Local,
                        addr: None,
                    },
                ),
                Err(error) => {
                    tracing::warn!(%error, "cannot take a local connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Visitors through a tunnel that another process of this user holds.
    async fn accept_visitors(&self, listener: ipc::Listener) {
        loop {
            match listener.accept().await {
                Ok(stream) => self.serve_in_task(
                    stream,
                    PeerInfo {
                        via: Via::Tunnel,
                        addr: None,
                    },
                ),
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection of a tunnel");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept_mcp(&self, listener: ipc::Listener) {
        loop {
            match listener.accept().await {
                Ok(stream) => {
                    let state = self.state.clone();
                    self.spawn(crate::mcp::serve_local(state, stream));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take a local connection for MCP");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn serve_in_task<S>(&self, stream: S, peer: PeerInfo)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let mode = self.clone();
        self.tasks
            .spawn(async move { mode.serve(stream, peer, CancellationToken::new()).await });
    }
}
