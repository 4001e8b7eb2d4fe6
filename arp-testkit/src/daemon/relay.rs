//! A relay for a test.

use super::process::Daemon;
use crate::ports;
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;

/// A running `arps` on ports of its own.
#[derive(Debug)]
pub struct Relay {
    /// The process.
    pub daemon: Daemon,
    /// Where edges register.
    pub control: SocketAddr,
    /// Where tunnels arrive.
    pub proxy: SocketAddr,
    /// Where visitors come.
    pub public: SocketAddr,
    /// The fingerprint of its key.
    pub fingerprint: String,
    /// Its data directory.
    pub data: Arc<TempDir>,
}

/// How a relay is to be started.
#[derive(Debug, Clone, Default)]
pub struct RelayBuilder {
    args: Vec<String>,
    at: Option<[u16; 3]>,
    data: Option<Arc<TempDir>>,
    small_disk: Option<bool>,
    managed: bool,
    vars: Vec<(String, String)>,
}

impl RelayBuilder {
    /// Adds flags.
    #[must_use]
    pub fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.extend(args.into_iter().map(str::to_owned));
        self
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn var(mut self, key: &str, value: &str) -> Self {
        self.vars.push((key.to_owned(), value.to_owned()));
        self
    }

    /// On the ports, and with the data, of a relay that was there before.
    #[must_use]
    pub fn at(mut self, old: &Relay) -> Self {
        self.data = Some(old.data.clone());
        self.ports_of(old)
    }

    /// On the ports of a relay that was there before, and with a new key.
    #[must_use]
    pub fn ports_of(mut self, old: &Relay) -> Self {
        self.at = Some([old.control.port(), old.proxy.port(), old.public.port()]);
        self
    }

    /// Under a service manager, which keeps its ports open over a restart. SIGHUP to its process restarts the relay.
    #[must_use]
    pub fn managed(mut self) -> Self {
        self.managed = true;
        self
    }

    /// On a disk that can be full ([`Daemon::disk`]), and is from the first where `full` says it.
    #[must_use]
    pub fn on_small_disk(mut self, full: bool) -> Self {
        self.small_disk = Some(full);
        self
    }

    /// Starts it and does not wait for anything.
    pub fn spawn(self) -> (Daemon, Arc<TempDir>) {
        let [control, proxy, public] = self.at.unwrap_or_else(|| std::array::from_fn(|_| ports::free()));
        let mut args: Vec<String> = ["--bind", "127.0.0.1", "--data-dir"].map(str::to_owned).into();
        let data = self
            .data
            .unwrap_or_else(|| Arc::new(tempfile::tempdir().expect("a temporary directory")));
        args.push(data.path().to_str().expect("UTF-8").to_owned());
        for (flag, port) in [
            ("--control-port", control),
            ("--proxy-port", proxy),
            ("--public-port", public),
        ] {
            args.extend([flag.to_owned(), port.to_string()]);
        }
        if !self.args.iter().any(|a| a == "--admin-port") {
            // Relays of tests that run at the same time would take it from each other.
            args.extend(["--admin-port", "0"].map(str::to_owned));
        }
        args.extend(self.args);
        let daemon = match self.small_disk {
            Some(full) => Daemon::start_on_small_disk("arps", &args, full),
            None if self.managed => Daemon::start_managed("arps", &args, &self.vars),
            None => Daemon::start("arps", &args, &self.vars),
        };
        (daemon, data)
    }

    /// Starts it and waits until it is up.
    pub async fn start(self) -> Relay {
        let (mut daemon, data) = self.spawn();
        let [control, proxy, public] = daemon
            .line("that it is up", |line| {
                line.contains("is up").then_some(())?;
                let port = |name: &str| {
                    let rest = &line[line.find(name)? + name.len()..];
                    rest.split([',', ' ']).next()?.parse::<SocketAddr>().ok()
                };
                Some([port("control ")?, port("proxy ")?, port("public ")?])
            })
            .await;
        let told = "Fingerprint of this relay's key: ";
        let fingerprint = daemon
            .line("its fingerprint", |l| l.strip_prefix(told).map(str::to_owned))
            .await;
        Relay {
            daemon,
            fingerprint,
            data,
            control,
            proxy,
            public,
        }
    }
}

impl Relay {
    /// Where the operator comes.
    pub async fn admin(&mut self) -> SocketAddr {
        let port = |line: &str| {
            let rest = line.strip_prefix("Admin page: http://")?;
            rest.split('/').next()?.parse().ok()
        };
        self.daemon.line("where the admin page is", port).await
    }

    /// A relay with the default flags.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    /// A relay that also takes edges without TLS.
    pub async fn start_plain() -> Self {
        Self::builder().args(["--allow-plaintext"]).start().await
    }

    /// A relay with flags to be given.
    pub fn builder() -> RelayBuilder {
        RelayBuilder::default()
    }

    /// A URL on the public port.
    pub fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.public)
    }
}
