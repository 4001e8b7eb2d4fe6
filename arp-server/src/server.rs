//! The relay as a whole: three listeners, one registry, one way to stop.

use crate::admin::{self, Admin, Guard};
use crate::admission::{Admission, Rules};
use crate::bans::Bans;
use crate::config::Config;
use crate::control::{self, Welcome};
use crate::data::{self, Data, DataError};
use crate::defaults as d;
use crate::handshakes::Handshakes;
use crate::live::Live;
use crate::metrics::{self, Counter};
use crate::registry::Registry;
use crate::reload::{Load, Reloader};
use crate::shared::Public;
use crate::store::Store;
use crate::tcp::ports::Ports;
use crate::tunnels::accept;
use crate::tunnels::pending::Pending;
use crate::visitor::census::Census;
use arp_common::kept::Kept;
use arp_common::net::{accept_loop, let_pause};
use arp_common::service::{self, Pulses};
use arp_common::stop::Stop;
use arp_common::tls::{Acceptor, Certificate, CertificateError, Fingerprint};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A relay that has its ports and serves nobody yet.
#[derive(Debug)]
pub struct Relay {
    config: Config,
    control: TcpListener,
    proxy: TcpListener,
    public: TcpListener,
    admin: Option<(TcpListener, Arc<Guard>)>,
    load: Option<Load>,
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

/// What visitors can speak inside the relay's own TLS.
const PUBLIC_ALPN: &[&[u8]] = &[b"h2", b"http/1.1", b"postgresql"];

/// Where a relay listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// For edges to register.
    pub control: SocketAddr,
    /// For tunnels.
    pub proxy: SocketAddr,
    /// For visitors.
    pub public: SocketAddr,
    /// For the operator, if it is open.
    pub admin: Option<SocketAddr>,
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
        let mut kept = Kept::from_env();
        let control = kept.listen("control", config.bind, config.control_port, "--control-port")?;
        let proxy = kept.listen("proxy", config.bind, config.proxy_port, "--proxy-port")?;
        let public = kept.listen("public", config.bind, config.public_port, "--public-port")?;
        let admin = match &config.admin {
            Some(wanted) => {
                let key = match &wanted.key {
                    Some(key) => key.clone(),
                    None => admin::key(&config.data_dir)?,
                };
                let listener = admin::listen(wanted.bind, wanted.port, wanted.named)?;
                listener.map(|listener| (listener, Arc::new(Guard::new(key))))
            }
            None => None,
        };
        Ok(Self {
            config,
            control,
            proxy,
            public,
            admin,
            load: None,
            data,
            acceptor,
            certificate,
        })
    }

    /// With a way to read the settings again.
    #[must_use]
    pub fn reloading_with(mut self, load: Load) -> Self {
        self.load = Some(load);
        self
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
            admin: self
                .admin
                .as_ref()
                .map(|(listener, _)| listener.local_addr())
                .transpose()?,
        })
    }

    /// Serves until `stop` is cancelled, then lets exchanges finish within the grace period.
    ///
    /// # Errors
    /// If a listener does not tell its address.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StartError> {
        let addresses = self.addresses()?;
        let public_port = addresses.public.port();
        let fingerprint = self.fingerprint().to_string();
        let Self {
            config,
            control,
            proxy,
            public,
            admin: admin_port,
            load,
            data,
            acceptor,
            certificate,
        } = self;
        let registry = Arc::new(Registry::new(
            config.pool.clone(),
            config.max_clients,
            data.names_key,
        ));
        registry.restore(data.known, data.bound);
        let online = {
            let registry = registry.clone();
            Box::new(move |id: &str| registry.is_present(id))
        };
        let path = data::store_file(&config.data_dir);
        let store = Store::start(data.db, path, config.edges.names, online).map_err(DataError::from)?;
        let admission = Arc::new(Admission::new(
            registry.clone(),
            store,
            Rules {
                join_key: config.join_key.clone(),
                limits: config.edges,
            },
            Arc::new(Bans::new(config.bans.clone(), data.bans)),
        ));
        let census = Census::new(config.max_conns_per_ip, config.max_conns);
        let shared = Arc::new(Live::new(Public {
            registry: registry.clone(),
            limits: config.public.clone(),
            census: census.clone(),
            guesses: Arc::default(),
            tls: certificate
                .as_ref()
                .map(|c| c.acceptor(PUBLIC_ALPN))
                .transpose()?,
            cancels: Arc::default(),
        }));
        let tasks = Tasks {
            visitors: TaskTracker::new(),
            edges: TaskTracker::new(),
            stop,
            no_more: Stop::default(),
            leave: CancellationToken::new(),
            kill: Stop::default(),
            acceptor,
        };
        let ports = Ports::load(
            config.ports.clone(),
            data::ports_file(&config.data_dir),
            shared.clone(),
            tasks.visitors.clone(),
            tasks.stop.clone(),
            tasks.kill.clone(),
        )?;
        let welcome = Arc::new(Live::new(Welcome {
            ports,
            public_url: config.public_url.clone(),
            public_port,
            public_tls: certificate.is_some(),
            domain: config.public.domain.clone(),
            heartbeat: config.heartbeat,
        }));
        let expire = tokio::spawn(accept::expire(registry.pending().clone()));
        let about = admin::About {
            addresses,
            fingerprint,
            version: crate::VERSION,
        };
        let (reload, asked) = mpsc::channel(1);
        let admin = Admin::new(
            admission.clone(),
            census,
            about,
            data.days,
            reload,
            tasks.stop.clone(),
        );
        let current = Arc::new(Live::new(config.clone()));
        let reloader = load.map(|load| Reloader {
            load,
            current: current.clone(),
            public: shared.clone(),
            welcome: welcome.clone(),
            admission: admission.clone(),
            certificate: certificate.clone(),
            guard: admin_port.as_ref().map(|(_, guard)| guard.clone()),
            admin: admin.clone(),
        });
        // They go on while exchanges finish: that is when an operator wants to know.
        let over = CancellationToken::new();
        let mut seeing = tokio::task::JoinSet::new();
        seeing.spawn(admin.clone().keep_history(over.clone()));
        if let Some(reloader) = reloader {
            seeing.spawn(reloader.serve(asked, tasks.stop.clone()));
        }
        if let Some((listener, guard)) = admin_port {
            seeing.spawn(admin::serve_port(admin.clone(), listener, guard, over.clone()));
        }
        {
            let (admin, dir, over) = (admin.clone(), config.data_dir.clone(), over.clone());
            seeing.spawn(async move { admin::serve_socket(admin, &dir, over).await });
        }
        let reload = certificate.map(|c| tokio::spawn(c.watch()));
        let mut pulses = Pulses::default();
        let accepting = pulses.add("the relay's ports");
        let answering = {
            // Takes the locks that visitors' requests and registrations take.
            let (pulse, registry) = (pulses.add("the relay's registry"), registry.clone());
            tokio::spawn(pulse.by(move || drop(registry.present())))
        };
        let watchdog = tokio::spawn(pulses.watch(over.clone()));
        service::ready("serving");
        accepting
            .along(async {
                tokio::join!(
                    tasks.accept_control(control, admission, welcome),
                    tasks.accept_tunnels(proxy, registry.pending().clone()),
                    tasks.pass_on_stop(),
                    async {
                        tasks.accept_visitors(public, shared).await;
                        tasks.drain(current.get().grace).await;
                    },
                )
            })
            .await;
        tasks.finish().await;
        expire.abort();
        answering.abort();
        over.cancel();
        let _ = watchdog.await;
        while seeing.join_next().await.is_some() {}
        if let Some(reload) = reload {
            reload.abort();
        }
        Ok(())
    }
}

/// Every task of a relay, and what stops it.
struct Tasks {
    visitors: TaskTracker,
    /// Control channels, and tunnels that arrive.
    edges: TaskTracker,
    /// No more visitors are taken.
    stop: CancellationToken,
    /// The same as `stop`, for visitors' connections.
    no_more: Stop,
    /// Edges are told to go, and no more are taken: once the visitors that they are needed for are served.
    leave: CancellationToken,
    kill: Stop,
    acceptor: Acceptor,
}

impl Tasks {
    async fn accept_control(
        &self,
        listener: TcpListener,
        admission: Arc<Admission>,
        welcome: Arc<Live<Welcome>>,
    ) {
        let handshakes = Handshakes::new(d::MAX_HANDSHAKES);
        accept_loop(listener, "control", self.leave.clone(), |stream, peer| {
            let (permit, acceptor, leave) = (handshakes.enter(), self.acceptor.clone(), self.leave.clone());
            let (admission, welcome) = (admission.clone(), welcome.get());
            self.spawn(&self.edges, async move {
                // On the heap, as is what else is done once: an edge is idle most of its life.
                let greeting = Box::pin(control::greet(stream, peer, &acceptor, &admission));
                let greeted = permit.hold(greeting).await;
                drop(permit);
                let served = match greeted {
                    Some(Ok(greeted)) => greeted.serve(&admission, &welcome, &leave).await,
                    Some(Err(e)) => {
                        metrics::add(Counter::FailedControl, 1);
                        Err(e)
                    }
                    None => return metrics::add(Counter::FailedControl, 1),
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
        accept_loop(listener, "proxy", self.leave.clone(), |stream, peer| {
            let (permit, acceptor) = (handshakes.enter(), self.acceptor.clone());
            let pending = pending.clone();
            self.spawn(&self.edges, async move {
                let taken = permit
                    .hold(Box::pin(accept::take(stream, &acceptor, &pending)))
                    .await;
                if !matches!(taken, Some(Ok(()))) {
                    metrics::add(Counter::FailedProxy, 1);
                }
                if let Some(Err(e)) = taken {
                    tracing::debug!(%peer, "tunnel refused: {e}");
                }
            });
        })
        .await;
    }

    async fn accept_visitors(&self, listener: TcpListener, public: Arc<Live<Public>>) {
        accept_loop(listener, "public", self.stop.clone(), |stream, peer| {
            metrics::add(Counter::Visitors, 1);
            let public = public.get();
            let Some(permit) = public.admit(peer.ip()) else {
                metrics::refused("connection", "too_many_connections");
                return turn_away(&stream);
            };
            let_pause(&stream, true);
            let stop = self.no_more.clone();
            self.spawn(&self.visitors, public.welcome(stream, peer, permit, stop));
        })
        .await;
    }

    async fn pass_on_stop(&self) {
        self.stop.cancelled().await;
        self.no_more.give();
    }

    fn spawn(&self, of: &TaskTracker, task: impl Future<Output = ()> + Send + 'static) {
        of.spawn(self.kill.ends(task));
    }

    /// Lets visitors' exchanges end, for as long as the grace period lasts, and then sends the edges away: until then
    /// their tunnels are needed.
    async fn drain(&self, grace: Duration) {
        self.visitors.close();
        // Whoever only waited goes at once: what is left then is under way.
        let at_once = timeout(d::AT_ONCE.min(grace), self.visitors.wait()).await;
        if at_once.is_err() {
            tracing::info!(
                "waiting up to {} s for {} exchanges that are under way",
                grace.as_secs(),
                self.visitors.len()
            );
        }
        if timeout(grace, self.visitors.wait()).await.is_err() {
            tracing::warn!("grace period over; closing {} connections", self.visitors.len());
        }
        self.leave.cancel();
    }

    /// Ends everything.
    async fn finish(self) {
        self.edges.close();
        // Each edge has to be told before its channel is cut.
        let _ = timeout(d::CONTROL_WRITE, self.edges.wait()).await;
        self.kill.give();
        self.visitors.wait().await;
        self.edges.wait().await;
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
