//! A relay of our own kind: the edge agent itself, as one more program, in front of the same local port.

use super::{Local, Running};
use crate::config::Arp as Config;
use crate::defaults as d;
use crate::program::{Program, Seen, Start};
use crate::{Backend, Change, Check, Tunnel, TunnelError, TunnelHealth, TunnelInfo, TunnelStatus};
use std::sync::Arc;
use std::time::Duration;

/// The agent itself tries the first connection for ten seconds before it gives up.
const START: Duration = Duration::from_secs(d::START.as_secs() + 10);

/// A tunnel through a relay.
pub struct Arp {
    config: Config,
    local: Arc<Local>,
    running: Running,
}

impl Arp {
    pub(super) fn new(config: Config, local: Arc<Local>) -> Self {
        Self {
            config,
            local,
            running: Running::default(),
        }
    }

    async fn bring_up(&mut self) -> Result<TunnelInfo, TunnelError> {
        let Local { front, agent, .. } = &*self.local;
        let id = self.config.client_id.as_ref().unwrap_or(&agent.client_id);
        let pairs = [
            ("--server-addr", self.config.server.clone()),
            ("--local-addr", front.ip().to_string()),
            ("--local-port", front.port().to_string()),
            ("--client-id", id.clone()),
            ("--data-dir", agent.data_dir.to_string_lossy().into_owned()),
        ];
        let mut args: Vec<String> = pairs
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect();
        args.push("--no-qr".into());
        for (flag, port) in [
            ("--control-port", self.config.control_port),
            ("--proxy-port", self.config.proxy_port),
        ] {
            if let Some(port) = port {
                args.extend([flag.to_owned(), port.to_string()]);
            }
        }
        if let Some(key) = &self.config.fingerprint {
            args.extend(["--server-fingerprint".into(), key.clone()]);
        }
        if self.config.plaintext {
            args.push("--plaintext".into());
        }
        let run_dir = &self.local.run_dir;
        let mut start = Start::new(Backend::Arp, agent.program.clone(), args, run_dir, Box::new(read));
        if let Some(key) = &self.config.join_key {
            start.env.push(("ARPC_JOIN_KEY", key.expose().into()));
        }
        let program = Program::start(&self.local.launcher, start, &self.local.log).await?;
        let program = self.running.program.insert(program);
        let url = program
            .until(START, "register with the relay", |seen| seen.url.clone())
            .await?;
        Ok(TunnelInfo::new(Backend::Arp, url, self.local.local_port))
    }
}

impl Tunnel for Arp {
    fn backend(&self) -> Backend {
        Backend::Arp
    }

    async fn start(&mut self) -> Result<TunnelInfo, TunnelError> {
        self.running.begin().await?;
        let started = self.bring_up().await;
        self.running.came_up(started).await
    }

    async fn stop(&mut self) -> Result<(), TunnelError> {
        self.running.end().await
    }

    async fn health_check(&self) -> Result<TunnelHealth, TunnelError> {
        let backend = match self.running.running()?.seen().connections {
            0 => Check::Bad("not connected to the relay now".into()),
            _ => Check::Good("registered with the relay".into()),
        };
        Ok(TunnelHealth::of(self.running.process(), backend))
    }

    fn status(&self) -> TunnelStatus {
        self.running.status.clone()
    }

    async fn changed(&mut self) -> Change {
        self.running.changed().await
    }
}

/// Takes what a line of the agent tells.
fn read(seen: &mut Seen, line: &str) {
    if let Some(url) = line.strip_prefix("Public URL: ") {
        seen.url = Some(url.trim().to_owned());
        seen.connections = 1;
    } else if line.contains("registered again with the relay") {
        seen.connections = 1;
    } else if line.contains("connecting again in") {
        seen.connections = 0;
    } else if let Some(why) = line.strip_prefix("arpc: ") {
        let why = why.to_owned();
        let final_word = [
            "refused to register",
            "SHOWS ANOTHER KEY",
            "same client id",
            "is not the one that",
        ];
        let fatal = final_word.iter().any(|word| why.contains(word));
        let error = if fatal {
            TunnelError::fatal(
                why,
                "see what is said above; the relay's settings are in [tunnel.arp]",
            )
        } else {
            TunnelError::passing(why)
        };
        // Its last word; it ends now.
        seen.complaint = Some(error);
    }
}

/// What must be there before it can be started.
pub(super) fn available(config: Option<&Config>) -> Result<String, TunnelError> {
    match config {
        Some(config) => Ok(format!("the relay is {}", config.server)),
        None => Err(TunnelError::fatal(
            "no relay is named",
            "give its address: server_addr in [tunnel.arp]",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::seen_in;
    use super::*;
    use crate::Retry;

    #[test]
    fn what_the_agent_says_is_understood() {
        let said = "arpc 0.1.0\nRegistered with the relay at r.\nPublic URL: http://r:17003/?token=x\n";
        let seen = seen_in(read, said);
        assert_eq!(
            (seen.url.as_deref(), seen.connections),
            (Some("http://r:17003/?token=x"), 1)
        );
        let lost = " WARN lost the relay: gone; connecting again in 0.3 s";
        assert_eq!(seen_in(read, &format!("{said}{lost}")).connections, 0);
        let back = " INFO registered again with the relay";
        assert_eq!(seen_in(read, &format!("{said}{lost}\n{back}")).connections, 1);
        let refused = seen_in(read, "arpc: the relay refused to register this edge agent: taken");
        assert_eq!(refused.complaint.unwrap().retry, Retry::Never);
    }
}
