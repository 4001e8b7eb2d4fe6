//! A relay for a test.

use super::process::Daemon;
use std::net::SocketAddr;

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
}

/// How a relay is to be started.
#[derive(Debug, Clone, Default)]
pub struct RelayBuilder {
    args: Vec<String>,
    at: Option<[u16; 3]>,
}

impl RelayBuilder {
    /// Adds flags.
    #[must_use]
    pub fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.extend(args.into_iter().map(str::to_owned));
        self
    }

    /// On the ports of a relay that was there before.
    #[must_use]
    pub fn at(mut self, old: &Relay) -> Self {
        self.at = Some([old.control.port(), old.proxy.port(), old.public.port()]);
        self
    }

    /// Starts it and waits until it is up.
    pub async fn start(self) -> Relay {
        let [control, proxy, public] = self.at.unwrap_or_default();
        let mut args: Vec<String> = ["--bind", "127.0.0.1", "--allow-plaintext"]
            .map(str::to_owned)
            .into();
        for (flag, port) in [
            ("--control-port", control),
            ("--proxy-port", proxy),
            ("--public-port", public),
        ] {
            args.extend([flag.to_owned(), port.to_string()]);
        }
        args.extend(self.args);
        let mut daemon = Daemon::start("arps", &args, &[]);
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
        Relay {
            daemon,
            control,
            proxy,
            public,
        }
    }
}

impl Relay {
    /// A relay with the default flags.
    pub async fn start() -> Self {
        Self::builder().start().await
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
