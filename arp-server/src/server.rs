//! The relay as a whole: three listeners, one registry, one way to stop.

use crate::admission::Admission;
use crate::certificate::{Certificate, CertificateError};
use crate::config::Config;
use crate::control::{self, Welcome};
use crate::data::{self, Data, DataError};
use crate::defaults as d;
use crate::handshakes::Handshakes;
use crate::registry::Registry;
use crate::routing::guesses::Guesses;
use crate::shared::Public;
use crate::status;
use crate::store::Store;
use crate::tcp::RawCount;
use crate::tcp::ports::Ports;
use crate::tunnels::accept;
use crate::tunnels::pending::Pending;
use crate::visitor::census::Census;
use arp_common::net::{accept_loop, let_pause, listen};
use arp_common::tls::{Acceptor, Fingerprint};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A relay that has its ports and serves nobody yet.
#[derive(Debug)]
pub struct Relay {
    config: Config,
    control: TcpListener,
    proxy: TcpListener,
    public: TcpListener,
    data: Data,
    acceptor: Acceptor,
    certificate: Option<Arc<Certificate>>,
}

/// Why a relay cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The data directory.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The certificate of the public port.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
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
    /// Takes the ports and the data directory.
    ///
    /// # Errors
    /// If one cannot be had; the text says which and what to do. Call inside a tokio runtime.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        let data = Data::open(&config.data_dir)?;
        let certificate = match &config.tls {
            Some(files) => Some(Arc::new(Certificate::load(files.clone())?)),
            None => None,
        };
        let resolver = certificate
            .clone()
            .map(|c| c as Arc<dyn rustls::server::ResolvesServerCert>);
        let acceptor = Acceptor::new(&data.identity, resolver, config.allow_plaintext)?;
        let control = listen(config.bind, config.control_port, "--control-port")?;
        let proxy = listen(config.bind, config.proxy_port, "--proxy-port")?;
        let public = listen(config.bind, config.public_port, "--public-port")?;
        Ok(Self {
            config,
            control,
            proxy,
            public,
            data,
            acceptor,
            certificate,
        })
    }

    /// The key by which edges know this relay.
    pub fn fingerprint(&self) -> Fingerprint {
        self.data.identity.fingerprint()
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
    pub async fn run(self, stop: CancellationToken) -> Result<(), StartError> {
        let public_port = self.addresses()?.public.port();
        let Self {
            config,
            control,
            proxy,
            public,
            data,
            acceptor,
            certificate,
        } = self;
        let registry = Arc::new(Registry::new(
            config.pool.clone(),
            config.max_clients,
            data.names_key,
        ));
        registry.restore(data.known);
        let online = {
            let registry = registry.clone();
            Box::new(move |id: &str| registry.is_present(id))
        };
        let path = data::store_file(&config.data_dir);
        let store = Store::start(data.db, path, config.edges.names, online).map_err(DataError::from)?;
        let admission = Arc::new(Admission::new(
            registry.clone(),
            store,
            config.join_key.clone(),
            config.edges,
        ));
        let shared = Arc::new(Public {
            registry: registry.clone(),
            limits: config.public.clone(),
            census: Census::new(config.max_conns_per_ip, config.max_conns),
            guesses: Guesses::default(),
            tls: certificate.as_ref().map(|c| c.public_acceptor()).transpose()?,
            raw: RawCount::default(),
            cancels: Arc::default(),
        });
        let tasks = Tasks {
            tracker: TaskTracker::new(),
            stop,
            kill: CancellationToken::new(),
            acceptor,
        };
        let ports = Ports::load(
            config.ports.clone(),
            data::ports_file(&config.data_dir),
            shared.clone(),
            tasks.tracker.clone(),
            tasks.stop.clone(),
            tasks.kill.clone(),
        )?;
        let welcome = Arc::new(Welcome {
            ports,
            public_url: config.public_url.clone(),
            public_port,
            public_tls: certificate.is_some(),
            heartbeat: config.heartbeat,
        });
        let expire = tokio::spawn(accept::expire(registry.pending().clone()));
        let status = {
            let (dir, registry, stop) = (config.data_dir.clone(), registry.clone(), tasks.stop.clone());
            tokio::spawn(async move { status::serve(&dir, registry, stop).await })
        };
        let reload = certificate.map(|c| tokio::spawn(c.watch()));
        tokio::join!(
            tasks.accept_control(control, admission, welcome),
            tasks.accept_tunnels(proxy, registry.pending().clone()),
            tasks.accept_visitors(public, shared),
        );
        tasks.finish(config.grace).await;
        expire.abort();
        let _ = status.await;
        if let Some(reload) = reload {
            reload.abort();
        }
        Ok(())
    }
}

/// Every task of a relay, and what stops it.
struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    kill: CancellationToken,
    acceptor: Acceptor,
}

impl Tasks {
    async fn accept_control(&self, listener: TcpListener, admission: Arc<Admission>, welcome: Arc<Welcome>) {
        let handshakes = Handshakes::new(d::MAX_HANDSHAKES);
        accept_loop(listener, "control", self.stop.clone(), |stream, peer| {
            let (permit, acceptor, stop) = (handshakes.enter(), self.acceptor.clone(), self.stop.clone());
            let (admission, welcome) = (admission.clone(), welcome.clone());
            self.spawn(async move {
                let greeted = permit
                    .hold(control::greet(stream, peer, &acceptor, &admission))
                    .await;
                drop(permit);
                let served = match greeted {
                    Some(Ok(greeted)) => greeted.serve(&admission, &welcome, &stop).await,
                    Some(Err(e)) => Err(e),
                    None => return,
                };
                if let Err(e) = served {
                    tracing::debug!(%peer, "control channel ended: {e}");
                }
            });
        })
        .await;
    }

    async fn accept_tunnels(&self, listener: TcpListener, pending: Arc<Pending>) {
        let handshakes = Handshakes::new(d::MAX_HANDSHAKES);
        accept_loop(listener, "proxy", self.stop.clone(), |stream, peer| {
            let (permit, acceptor) = (handshakes.enter(), self.acceptor.clone());
            let pending = pending.clone();
            self.spawn(async move {
                if let Some(Err(e)) = permit.hold(accept::take(stream, &acceptor, &pending)).await {
                    tracing::debug!(%peer, "tunnel refused: {e}");
                }
            });
        })
        .await;
    }

    async fn accept_visitors(&self, listener: TcpListener, public: Arc<Public>) {
        accept_loop(listener, "public", self.stop.clone(), |stream, peer| {
            let Some(permit) = public.admit(peer.ip()) else {
                return turn_away(&stream);
            };
            let_pause(&stream, true);
            let stop = self.stop.clone();
            self.spawn(public.clone().welcome(stream, peer, permit, stop));
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
        // Whoever only waited goes at once: what is left then is under way.
        let at_once = tokio::time::timeout(d::AT_ONCE.min(grace), self.tracker.wait()).await;
        if at_once.is_err() {
            tracing::info!(
                "waiting up to {} s for {} exchanges that are under way",
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
