//! The backends: one file each, and what they have in common.

mod arp;
mod bore;
mod choose;
mod cloudflare;
mod custom;
mod ngrok;
mod tailscale;

pub use choose::{Availability, availability, choose};

use crate::Backend;
use crate::program::{Launcher, Program};
use crate::{Change, Check, Log, Tunnel, TunnelError, TunnelHealth, TunnelInfo, TunnelStatus};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// This machine, as all backends need to know it.
#[derive(Debug, Clone)]
pub struct Local {
    /// Where they send requests to.
    pub front: SocketAddr,
    /// What is behind it, for people.
    pub local_port: u16,
    /// Can visitors reach `local_port` without the front, if a service is told to send them there?
    pub direct_possible: bool,
    /// A private directory for files that programs need.
    pub run_dir: PathBuf,
    /// How guards are started.
    pub launcher: Launcher,
    /// The edge agent itself, for a tunnel through a relay: program, data directory, client id.
    pub agent: Agent,
    /// What programs print.
    pub log: Arc<Log>,
}

/// The edge agent, as a program for a tunnel through a relay.
#[derive(Debug, Clone)]
pub struct Agent {
    /// The executable.
    pub program: PathBuf,
    /// Where its key and the keys of relays are.
    pub data_dir: PathBuf,
    /// Its name, if the configuration has none.
    pub client_id: String,
}

macro_rules! any_tunnel {
    ($($variant:ident($module:ident),)+) => {
        /// Any of the backends.
        #[allow(missing_docs, reason = "each is its module's")]
        pub enum AnyTunnel {
            $($variant($module::$variant),)+
        }

        impl Tunnel for AnyTunnel {
            fn backend(&self) -> Backend {
                match self { $(Self::$variant(it) => it.backend(),)+ }
            }
            async fn start(&mut self) -> Result<TunnelInfo, TunnelError> {
                match self { $(Self::$variant(it) => it.start().await,)+ }
            }
            async fn stop(&mut self) -> Result<(), TunnelError> {
                match self { $(Self::$variant(it) => it.stop().await,)+ }
            }
            async fn health_check(&self) -> Result<TunnelHealth, TunnelError> {
                match self { $(Self::$variant(it) => it.health_check().await,)+ }
            }
            fn status(&self) -> TunnelStatus {
                match self { $(Self::$variant(it) => it.status(),)+ }
            }
            async fn changed(&mut self) -> Change {
                match self { $(Self::$variant(it) => it.changed().await,)+ }
            }
        }
    };
}

any_tunnel! {
    Cloudflare(cloudflare),
    Tailscale(tailscale),
    Ngrok(ngrok),
    Bore(bore),
    Custom(custom),
    Arp(arp),
}

/// A backend's program and what became of it: what all backends that are a program have in common.
#[derive(Default)]
struct Running {
    program: Option<Program>,
    status: TunnelStatus,
}

impl Running {
    /// Before a start: whatever still runs is ended first.
    async fn begin(&mut self) -> Result<(), TunnelError> {
        self.end().await?;
        self.status = TunnelStatus::Connecting;
        Ok(())
    }

    /// After a start.
    async fn came_up(&mut self, started: Result<TunnelInfo, TunnelError>) -> Result<TunnelInfo, TunnelError> {
        match &started {
            Ok(info) => self.status = TunnelStatus::Connected(info.clone()),
            Err(error) => {
                // What went wrong is the news, not how its program ended.
                let _ = self.end().await;
                self.status = TunnelStatus::Error {
                    message: error.to_string(),
                };
            }
        }
        started
    }

    async fn end(&mut self) -> Result<(), TunnelError> {
        self.status = TunnelStatus::Stopped;
        match self.program.take() {
            Some(program) => program.stop().await,
            None => Ok(()),
        }
    }

    fn running(&self) -> Result<&Program, TunnelError> {
        let none = || TunnelError::passing("it does not run");
        self.program.as_ref().ok_or_else(none)
    }

    fn process(&self) -> Check {
        match &self.program {
            Some(program) => program.process(),
            None => Check::Bad("it does not run".into()),
        }
    }

    /// Waits for its end, or for another address.
    async fn changed(&mut self) -> Change {
        let (Some(program), TunnelStatus::Connected(info)) = (&mut self.program, &mut self.status) else {
            return std::future::pending().await;
        };
        loop {
            match program.news().await {
                Err(error) => return Change::Ended(error),
                Ok(seen) => {
                    if let Some(url) = seen.url.filter(|url| *url != info.public_url) {
                        info.public_url.clone_from(&url);
                        return Change::Url(url);
                    }
                }
            }
        }
    }
}

/// A port on loopback that is free now.
fn free_port() -> Result<u16, TunnelError> {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| TunnelError::passing(format!("no free port on this machine: {error}")))
}

/// Writes a file into the run directory that only this user may read.
fn write_private(local: &Local, name: &str, content: &str) -> Result<PathBuf, TunnelError> {
    let path = local.run_dir.join(name);
    arp_common::private::replace(&path, content.as_bytes())
        .map_err(|error| TunnelError::passing(format!("cannot write what the program needs: {error}")))?;
    Ok(path)
}

/// `http://127.0.0.1:PORT` of the front.
fn front_url(local: &Local) -> String {
    format!("http://{}", local.front)
}

/// Feeds captured output to a reader, for tests.
#[cfg(test)]
fn seen_in(reader: impl Fn(&mut crate::program::Seen, &str), output: &str) -> crate::program::Seen {
    let mut seen = crate::program::Seen::default();
    for line in output.lines() {
        reader(&mut seen, &crate::log::plain(line));
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine for tests that start nothing.
    pub(super) fn local() -> Local {
        Local {
            front: SocketAddr::from(([127, 0, 0, 1], 40_000)),
            local_port: 3000,
            direct_possible: true,
            run_dir: std::env::temp_dir(),
            launcher: Launcher {
                program: "/bin/false".into(),
                args: Vec::new(),
            },
            agent: Agent {
                program: "/bin/false".into(),
                data_dir: std::env::temp_dir(),
                client_id: "test".into(),
            },
            log: Arc::default(),
        }
    }
}
