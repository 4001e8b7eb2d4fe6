//! bore: plain TCP through a server that gives each tunnel a port.

use super::{Local, Running};
use crate::config::Bore as Config;
use crate::defaults as d;
use crate::program::{Program, Seen, Start};
use crate::{Backend, Change, Check, Tunnel, TunnelError, TunnelHealth, TunnelInfo, TunnelStatus, find};
use std::sync::Arc;

/// A tunnel through a bore server.
pub struct Bore {
    config: Config,
    local: Arc<Local>,
    running: Running,
}

impl Bore {
    pub(super) fn new(config: Config, local: Arc<Local>) -> Self {
        Self {
            config,
            local,
            running: Running::default(),
        }
    }

    async fn bring_up(&mut self) -> Result<TunnelInfo, TunnelError> {
        let program = find::program(Backend::Bore, "bore", self.config.bin.as_deref())?;
        let front = self.local.front;
        let mut args = vec![
            "local".into(),
            front.port().to_string(),
            "--local-host".into(),
            front.ip().to_string(),
            "--to".into(),
            self.config.server.clone(),
        ];
        if let Some(port) = self.config.port {
            args.extend(["--port".into(), port.to_string()]);
        }
        let mut start = Start::new(Backend::Bore, program, args, &self.local.run_dir, Box::new(read));
        start.without = vec!["BORE_"];
        if let Some(secret) = &self.config.secret {
            start.env.push(("BORE_SECRET", secret.expose().into()));
        }
        let program = Program::start(&self.local.launcher, start, &self.local.log).await?;
        let program = self.running.program.insert(program);
        let url = program
            .until(d::START, "get a port", |seen| seen.url.clone())
            .await?;
        let mut info = TunnelInfo::new(Backend::Bore, url, self.local.local_port);
        info.note = Some("bore has no TLS: whoever is on the way can read everything".into());
        Ok(info)
    }
}

impl Tunnel for Bore {
    fn backend(&self) -> Backend {
        Backend::Bore
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
        self.running.running()?;
        let backend = Check::Unknown("bore tells nothing of itself".into());
        Ok(TunnelHealth::of(self.running.process(), backend))
    }

    fn status(&self) -> TunnelStatus {
        self.running.status.clone()
    }

    async fn changed(&mut self) -> Change {
        self.running.changed().await
    }
}

/// Takes what a line of bore's log tells.
fn read(seen: &mut Seen, line: &str) {
    if let Some((_, rest)) = line.split_once("listening at ") {
        let address = rest.split_whitespace().next().unwrap_or_default();
        if address
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        {
            seen.url = Some(format!("http://{address}"));
        }
    } else if line.contains("invalid secret")
        || line.contains("server requires authentication")
        || line.contains("server requires secret")
        || line.contains("no secret was required")
    {
        seen.fatal = Some(TunnelError::fatal(
            "the bore server does not accept the secret",
            "set BORE_SECRET, or secret in [tunnel.bore], to the server's",
        ));
    } else if line.contains("not in allowed range") || line.contains("permission denied") {
        seen.fatal = Some(TunnelError::fatal(
            "the bore server does not give that port to anybody",
            "choose another port in [tunnel.bore], or none",
        ));
    } else if line.contains("port already in use") {
        // Perhaps by the tunnel that has just ended: the server notices that a little later.
        seen.complaint = Some(
            TunnelError::passing("somebody else has that port of the bore server")
                .with_fix("choose another port in [tunnel.bore], or none"),
        );
    } else if let Some((_, why)) = line.split_once("could not connect to ") {
        seen.complaint = Some(
            TunnelError::passing(format!("the bore server cannot be reached: {why}"))
                .with_fix("check server in [tunnel.bore]; its port 7835 must be open"),
        );
    } else if let Some(why) = line.strip_prefix("Error: ")
        && seen.complaint.is_none()
    {
        seen.complaint = Some(TunnelError::passing(format!("bore: {why}")));
    }
}

/// What must be there before it can be started.
pub(super) fn available(config: &Config) -> Result<String, TunnelError> {
    find::program(Backend::Bore, "bore", config.bin.as_deref())?;
    Ok(format!("bore is installed; its server is {}", config.server))
}

#[cfg(test)]
mod tests {
    use super::super::seen_in;
    use super::*;

    #[test]
    fn the_address_is_found_among_colours() {
        let seen = seen_in(read, include_str!("../../fixtures/bore-local.txt"));
        assert_eq!(seen.url.as_deref(), Some("http://bore.pub:44431"));
        assert_eq!(seen_in(read, "listening at nowhere\nlistening at :80").url, None);
    }

    #[test]
    fn a_wrong_secret_is_the_end() {
        let seen = seen_in(read, "Error: server error: invalid secret");
        assert!(seen.fatal.is_some());
    }
}
