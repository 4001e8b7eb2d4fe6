//! A tunnel of this machine, running in this process: its place on disk (one instance each), its front, its
//! supervisor, and the socket by which `arpc tunnel status | stop | health` find it.
//!
//! `arpc tunnel start` runs one for a local port, `arpc --tunnel` one for itself; both are this.

pub(crate) mod agent;
pub(crate) mod control;
pub mod daemon;
pub(crate) mod place;
pub(crate) mod report;

use arp_tunnels::{
    Agent, Backend, Front, FrontConfig, Handle, Launcher, Local, Log, Nonces, Plan, Prober, Supervisor,
    Target, Tunnel, TunnelConfig, TunnelError, TunnelStatus, choose,
};
use place::Place;
use report::About;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The hidden subcommand that guards a backend's program.
pub(crate) const GUARD: &str = "tunnel-guard";
/// Instance that is meant where none is named.
pub(crate) const DEFAULT: &str = "default";

/// What is to be opened.
pub struct Open {
    /// Settings.
    pub config: TunnelConfig,
    /// What visitors reach.
    pub target: Target,
    /// Does `target` ask visitors for the token, so that no service may be told to go past it?
    pub guarded: bool,
    /// How visitors' URLs carry the token.
    pub query: Option<String>,
    /// Name of the instance.
    pub name: String,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The client id.
    pub client_id: String,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// One of this name runs.
    #[error("a tunnel runs already (process {0}); `arpc tunnel status` shows it, `arpc tunnel stop` ends it")]
    Running(u32),
    /// Its files cannot be kept.
    #[error("{0}")]
    Files(#[from] io::Error),
    /// Nothing to open.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
}

/// A tunnel that runs in this process.
pub struct Instance {
    handle: Handle,
    about: Arc<About>,
    ended: JoinHandle<Result<(), TunnelError>>,
}

impl Instance {
    /// Opens one. It runs until `stop`, until somebody stops it by its socket, or until it has to be given up.
    ///
    /// # Errors
    /// [`OpenError`], whose text says what to do.
    pub async fn open(open: Open, stop: CancellationToken) -> Result<Self, OpenError> {
        let place = Place::take(&open.data_dir, &open.name).await?;
        let config = open.config;
        let log = Arc::new(Log::default());
        for secret in config.secrets() {
            log.hide(secret);
        }
        let nonces = Nonces::new();
        let port = if open.guarded {
            config.front_port.or(config.local_port)
        } else {
            config.front_port
        };
        let front_config = FrontConfig {
            target: open.target,
            port,
            basic_auth: config.basic_auth.clone(),
        };
        let front_stop = CancellationToken::new();
        // However this goes on, the front ends with it.
        let front_guard = front_stop.clone().drop_guard();
        let front = Front::start(front_config, nonces.clone(), front_stop.clone())
            .await
            .map_err(|error| front_taken(port, &error))?;
        let local_port = if open.guarded {
            front.address().port()
        } else {
            config.port()
        };
        let local = Local {
            front: front.address(),
            local_port,
            direct_possible: !open.guarded,
            run_dir: place.dir().to_owned(),
            launcher: Launcher::this_executable(GUARD)?,
            agent: Agent {
                program: std::env::current_exe()?,
                data_dir: open.data_dir.clone(),
                client_id: relay_name(&open.client_id),
            },
            log: Arc::clone(&log),
        };
        let tunnel = choose(&config, local).await?;
        let backend = tunnel.backend();
        front.carried_by(&config, backend, assumed_url(backend));
        let (supervisor, handle) =
            Supervisor::new(tunnel, Prober::new(nonces, config.probe), Plan::from(&config));
        let about = Arc::new(About {
            name: open.name,
            pid: std::process::id(),
            backend,
            local_host: config.local_host.clone(),
            local_port,
            guarded: open.guarded,
            query: open.query,
            front: front.clone(),
            log,
        });
        place.remember(&about)?;
        let (done, is_done) = watch::channel(false);
        let own = stop.child_token();
        let socket = control::Server {
            about: Arc::clone(&about),
            handle: handle.clone(),
            stop: own.clone(),
            done: is_done,
        };
        let listener = socket.bind(place.dir())?;
        let seen = handle.watch();
        let ended = tokio::spawn(async move {
            let mut run = std::pin::pin!(supervisor.run(own));
            let answering = socket.serve(&listener);
            let following = follow(seen, front.clone(), config, backend);
            let ended = tokio::select! {
                ended = &mut run => ended,
                () = async { tokio::join!(answering, following); } => unreachable_end(),
            };
            drop(front_guard);
            front.ended().await;
            // The socket goes before the place: the next owner of the place has one of its own.
            let waiting = listener.close();
            place.forget();
            drop(place);
            // Whoever asked for the end hears of it when nothing is left.
            let _ = done.send(true);
            waiting.answered().await;
            ended
        });
        Ok(Self { handle, about, ended })
    }

    /// How it stands, now and whenever that changes.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What is known of it besides.
    pub(crate) fn about(&self) -> &Arc<About> {
        &self.about
    }

    /// Waits for its end. May be dropped and called again.
    ///
    /// # Errors
    /// Why it was given up.
    pub async fn ended(&mut self) -> Result<(), TunnelError> {
        match (&mut self.ended).await {
            Ok(ended) => ended,
            Err(error) => Err(TunnelError::passing(format!(
                "the tunnel's task broke off: {error}"
            ))),
        }
    }
}

/// Both of these run for ever.
fn unreachable_end() -> Result<(), TunnelError> {
    Err(TunnelError::passing("the tunnel's socket broke off"))
}

/// Tells the front who carries its requests, whenever that changes.
async fn follow(
    mut seen: watch::Receiver<arp_tunnels::Snapshot>,
    front: Front,
    config: TunnelConfig,
    backend: Backend,
) {
    loop {
        let url = match &seen.borrow_and_update().status {
            TunnelStatus::Connected(info) => Some(info.public_url.clone()),
            _ => None,
        };
        if let Some(url) = url {
            front.carried_by(&config, backend, &url);
        }
        if seen.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Until the address is known: which scheme these services have.
fn assumed_url(backend: Backend) -> &'static str {
    match backend {
        Backend::Cloudflare | Backend::Tailscale | Backend::Ngrok => "https://",
        _ => "http://",
    }
}

/// The name for a tunnel through a relay: the running daemon may have the plain one.
fn relay_name(client_id: &str) -> String {
    format!("{client_id}-tunnel")
}

fn front_taken(port: Option<u16>, error: &io::Error) -> TunnelError {
    match port {
        Some(port) => TunnelError::fatal(
            format!("port {port}, which the tunnel's front is to have, cannot be had: {error}"),
            "choose another front_port in [tunnel] (with --command-mode also local_port means the front), or stop \
             what has it",
        ),
        None => TunnelError::passing(format!("no port for the tunnel's front: {error}")),
    }
}

/// Where an instance has its files.
pub(crate) fn dir(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join("tunnels").join(name)
}
