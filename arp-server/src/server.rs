//! The relay as a whole: three listeners, one registry, one way to stop.

use crate::config::Config;
use crate::control::{self, Welcome};
use crate::defaults as d;
use crate::public::Public;
use crate::public::limits::Census;
use crate::registry::Registry;
use crate::tunnel;
use arp_common::net::{accept_loop, listen};
use arp_common::transport::Stream;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A relay that has its ports and serves nobody yet.
#[derive(Debug)]
pub struct Relay {
    config: Config,
    control: TcpListener,
    proxy: TcpListener,
    public: TcpListener,
}

/// Where a relay listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// For edges to register.
    pub control: SocketAddr,
    /// For tunnels.
    pub proxy: SocketAddr,
    /// For visitors.
    pub public: SocketAddr,
}

impl Relay {
    /// Takes the ports.
    ///
    /// # Errors
    /// If one cannot be had; the text says which and what to do. Call inside a tokio runtime.
    pub fn bind(config: Config) -> io::Result<Self> {
        let control = listen(config.bind, config.control_port)?;
        let proxy = listen(config.bind, config.proxy_port)?;
        let public = listen(config.bind, config.public_port)?;
        Ok(Self {
            config,
            control,
            proxy,
            public,
        })
    }

    /// The ports that were taken.
    ///
    /// # Errors
    /// If the operating system does not tell.
    pub fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses {
            control: self.control.local_addr()?,
            proxy: self.proxy.local_addr()?,
            public: self.public.local_addr()?,
        })
    }

    /// Serves until `stop` is cancelled, then lets exchanges finish within the grace period.
    ///
    /// # Errors
    /// If a listener does not tell its address.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let public_port = self.addresses()?.public.port();
        let Self {
            config,
            control,
            proxy,
            public,
        } = self;
        let registry = Arc::new(Registry::new(config.pool.clone(), config.max_clients));
        let welcome = Arc::new(Welcome {
            public_url: config.public_url.clone(),
            public_port,
            heartbeat: config.heartbeat,
        });
        let shared = Arc::new(Public {
            registry: registry.clone(),
            limits: config.public.clone(),
            census: Census::new(config.max_conns_per_ip, config.max_conns),
        });
        let tasks = Tasks {
            tracker: TaskTracker::new(),
            stop,
            kill: CancellationToken::new(),
            handshakes: Arc::new(Semaphore::new(d::MAX_HANDSHAKES)),
        };
        let expire = tokio::spawn(tunnel::expire(registry.clone()));
        tokio::join!(
            tasks.accept_control(control, registry.clone(), welcome),
            tasks.accept_tunnels(proxy, registry),
            tasks.accept_visitors(public, shared),
        );
        tasks.finish(config.grace).await;
        expire.abort();
        Ok(())
    }
}

/// Every task of a relay, and what stops it.
struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    kill: CancellationToken,
    /// Connections that have not yet said who they are.
    handshakes: Arc<Semaphore>,
}

impl Tasks {
    async fn accept_control(&self, listener: TcpListener, registry: Arc<Registry>, welcome: Arc<Welcome>) {
        accept_loop(listener, "control", self.stop.clone(), |stream, peer| {
            let (registry, welcome, stop) = (registry.clone(), welcome.clone(), self.stop.clone());
            self.spawn(async move {
                let served = control::serve(Stream::Plain(stream), peer, &registry, &welcome, &stop);
                if let Err(e) = served.await {
                    tracing::debug!(%peer, "control channel ended: {e}");
                }
            });
        })
        .await;
    }

    async fn accept_tunnels(&self, listener: TcpListener, registry: Arc<Registry>) {
        accept_loop(listener, "proxy", self.stop.clone(), |stream, peer| {
            let Ok(permit) = self.handshakes.clone().try_acquire_owned() else {
                return;
            };
            let registry = registry.clone();
            self.spawn(async move {
                if let Err(e) = tunnel::take(Stream::Plain(stream), peer, &registry).await {
                    tracing::debug!(%peer, "tunnel refused: {e}");
                }
                drop(permit);
            });
        })
        .await;
    }

    async fn accept_visitors(&self, listener: TcpListener, public: Arc<Public>) {
        accept_loop(listener, "public", self.stop.clone(), |stream, peer| {
            let Some(place) = public.admit(peer.ip()) else {
                return turn_away(&stream);
            };
            let stop = self.stop.clone();
            self.spawn(public.clone().serve(Stream::Plain(stream), peer, place, stop));
        })
        .await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let kill = self.kill.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = task => {}
                () = kill.cancelled() => {}
            }
        });
    }

    /// Waits for what is under way, for as long as the grace period lasts.
    async fn finish(self, grace: std::time::Duration) {
        self.tracker.close();
        if !self.tracker.is_empty() {
            tracing::info!(
                "waiting up to {} s for {} connections",
                grace.as_secs(),
                self.tracker.len()
            );
        }
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_err() {
            tracing::warn!("grace period over; closing {} connections", self.tracker.len());
        }
        self.kill.cancel();
        self.tracker.wait().await;
    }
}

/// Tells a visitor that there are too many connections, if that can be done without waiting.
fn turn_away(stream: &TcpStream) {
    const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\n\
        content-type: application/json\r\ncontent-length: 96\r\n\r\n\
        {\"type\":\"error\",\"code\":\"too_many_connections\",\"message\":\"too many connections; try again soon\"}\n";
    let _ = stream.try_write(BUSY);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_canned_answer_tells_its_length() {
        let source = include_str!("server.rs");
        let body = "{\"type\":\"error\",\"code\":\"too_many_connections\",\"message\":\"too many connections; try again soon\"}\n";
        assert!(
            source.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
    }
}
