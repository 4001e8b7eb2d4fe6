//! An edge agent for a test.

use super::process::Daemon;
use super::relay::Relay;
use std::net::SocketAddr;
use tempfile::TempDir;

/// A running `arpc` with a home of its own.
#[derive(Debug)]
pub struct Edge {
    /// The process.
    pub daemon: Daemon,
    /// Its home directory.
    pub home: TempDir,
}

/// How an edge agent is to be started.
#[derive(Debug, Default)]
pub struct EdgeBuilder {
    args: Vec<String>,
    vars: Vec<(String, String)>,
    home: Option<TempDir>,
}

impl EdgeBuilder {
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

    /// Uses the home directory of an earlier one.
    #[must_use]
    pub fn home(mut self, home: TempDir) -> Self {
        self.home = Some(home);
        self
    }

    /// With the flags that reach these two ports.
    #[must_use]
    pub fn relay_at(self, control: SocketAddr, proxy: SocketAddr) -> Self {
        let (c, p) = (control.port().to_string(), proxy.port().to_string());
        self.args([
            "--server-addr",
            "127.0.0.1",
            "--control-port",
            &c,
            "--proxy-port",
            &p,
        ])
    }

    /// Starts it and does not wait for anything.
    pub fn spawn(self) -> Edge {
        let home = self
            .home
            .unwrap_or_else(|| tempfile::tempdir().expect("a temporary directory"));
        let path = home.path().to_str().expect("UTF-8").to_owned();
        let mut vars = vec![
            ("HOME".to_owned(), path.clone()),
            ("XDG_DATA_HOME".to_owned(), format!("{path}/data")),
        ];
        vars.extend(self.vars);
        Edge {
            daemon: Daemon::start("arpc", &self.args, &vars),
            home,
        }
    }

    /// Starts it and waits until it is registered.
    pub async fn start(self) -> Edge {
        let mut edge = self.spawn();
        edge.daemon
            .line("that it is registered", |l| {
                l.starts_with("Registered").then_some(())
            })
            .await;
        edge
    }
}

impl Edge {
    /// An edge agent with flags to be given.
    pub fn builder() -> EdgeBuilder {
        EdgeBuilder::default()
    }

    /// An edge agent `id` of `relay` in front of a local service.
    pub async fn tcp(relay: &Relay, id: &str, local: SocketAddr) -> Self {
        Self::tcp_builder(relay, id, local).start().await
    }

    /// The same with further flags to be given.
    pub fn tcp_builder(relay: &Relay, id: &str, local: SocketAddr) -> EdgeBuilder {
        let port = local.port().to_string();
        Self::builder()
            .relay_at(relay.control, relay.proxy)
            .args(["--client-id", id, "--local-port", &port])
    }
}
