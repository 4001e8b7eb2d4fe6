//! Tailscale Funnel (for everybody) and Serve (for the tailnet). The mapping lives in Tailscale's own daemon: we add
//! one, and take exactly that one away again, also when we are killed. Nothing is ever reset.

use super::{Local, Running, front_url, write_private};
use crate::config::Tailscale as Config;
use crate::defaults as d;
use crate::guard::{ARM, CommandLine, DISARM};
use crate::program::{Program, Start, run};
use crate::{Backend, Change, Check, Tunnel, TunnelError, TunnelHealth, TunnelInfo, TunnelStatus, find};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Remembers what we mapped, in the run directory: should the machine lose power, the next start clears it up.
const RECORD: &str = "tailscale.json";

/// A mapping of Tailscale Funnel or Serve.
pub struct Tailscale {
    config: Config,
    local: Arc<Local>,
    running: Running,
}

impl Tailscale {
    pub(super) fn new(config: Config, local: Arc<Local>) -> Self {
        Self {
            config,
            local,
            running: Running::default(),
        }
    }

    fn program(&self) -> Result<PathBuf, TunnelError> {
        find::program(Backend::Tailscale, "tailscale", self.config.bin.as_deref())
    }

    fn verb(&self) -> &'static str {
        if self.config.funnel { "funnel" } else { "serve" }
    }

    fn https(&self) -> String {
        format!("--https={}", self.config.port)
    }

    async fn bring_up(&mut self) -> Result<TunnelInfo, TunnelError> {
        let program = self.program()?;
        let state = state(&program).await?;
        let name = logged_in(&state)?;
        self.clear_up(&program, &name).await?;
        let target = front_url(&self.local);
        let record = serde_json::json!({"target": target, "port": self.config.port, "verb": self.verb()});
        write_private(&self.local, RECORD, &record.to_string())?;

        // The guard first: from the moment the mapping is there somebody takes it away.
        let off = CommandLine {
            program: program.clone(),
            args: vec![self.verb().into(), self.https(), "off".into()],
        };
        let run_dir = self.local.run_dir.clone();
        let mut start = Start::new(
            Backend::Tailscale,
            program.clone(),
            Vec::new(),
            &run_dir,
            Box::new(|_, _| {}),
        );
        start.run = None;
        start.finally = Some(off);
        let https = self.https();
        let guard = Program::start(&self.local.launcher, start, &self.local.log).await?;
        self.running.program = Some(guard);
        let args = [self.verb(), "--bg", "--yes", &https, &target];
        let (code, said, complained) = match run(&program, &args, d::SHORT_COMMAND).await {
            Ok(ended) => ended,
            Err(error) => return Err(waits_for_consent(&error, self.config.funnel).unwrap_or(error)),
        };
        for line in said.lines().chain(complained.lines()) {
            self.local.log.push(line);
        }
        if code != Some(0) {
            return Err(refused(
                &format!("{said}\n{complained}"),
                self.config.funnel,
                self.config.port,
            ));
        }
        if let Some(guard) = &mut self.running.program {
            guard.tell_guard(ARM).await?;
        }
        let url = printed_url(&said).unwrap_or_else(|| url(&name, self.config.port));
        let mut info = TunnelInfo::new(Backend::Tailscale, url, self.local.local_port);
        if !self.config.funnel {
            info.note = Some("only members of your tailnet can reach it".into());
        }
        Ok(info)
    }

    /// Makes sure that the port is free: takes away what an earlier run of ours left, and nothing else.
    async fn clear_up(&self, program: &Path, name: &str) -> Result<(), TunnelError> {
        let Some(there) = self.mapped(program, name).await? else {
            return Ok(());
        };
        if self.recorded().as_deref() == Some(there.as_str()) {
            tracing::info!(target: "tunnel", "taking away what an earlier run left at Tailscale's port {}", self.config.port);
            run(program, &[self.verb(), &self.https(), "off"], d::SHORT_COMMAND).await?;
            return Ok(());
        }
        Err(taken(self.config.funnel, self.config.port, &there))
    }

    /// What the port serves now.
    async fn mapped(&self, program: &Path, name: &str) -> Result<Option<String>, TunnelError> {
        let (_, said, _) = run(program, &[self.verb(), "status", "--json"], d::SHORT_COMMAND).await?;
        let told: Value = serde_json::from_str(&said).unwrap_or_default();
        Ok(mapping(&told, name, self.config.port))
    }

    fn recorded(&self) -> Option<String> {
        let text = arp_common::private::read(&self.local.run_dir.join(RECORD), d::ANSWER).ok()?;
        let record: Value = serde_json::from_slice(&text).ok()?;
        (record["port"] == self.config.port)
            .then(|| record["target"].as_str().map(str::to_owned))
            .flatten()
    }
}

impl Tunnel for Tailscale {
    fn backend(&self) -> Backend {
        Backend::Tailscale
    }

    async fn start(&mut self) -> Result<TunnelInfo, TunnelError> {
        self.running.begin().await?;
        let started = self.bring_up().await;
        self.running.came_up(started).await
    }

    async fn stop(&mut self) -> Result<(), TunnelError> {
        // If somebody mapped the port to something else meanwhile, that is not ours to take away.
        if self.running.program.is_some()
            && let Ok(program) = self.program()
            && let Ok(state) = state(&program).await
            && let Ok(name) = logged_in(&state)
            && let Ok(Some(there)) = self.mapped(&program, &name).await
            && there != front_url(&self.local)
            && let Some(guard) = &mut self.running.program
        {
            guard.tell_guard(DISARM).await?;
        }
        self.running.end().await?;
        let _ = std::fs::remove_file(self.local.run_dir.join(RECORD));
        Ok(())
    }

    async fn health_check(&self) -> Result<TunnelHealth, TunnelError> {
        self.running.running()?;
        let program = self.program()?;
        let state = state(&program).await?;
        let process = match logged_in(&state) {
            Ok(_) => Check::Good("Tailscale runs and is online".into()),
            Err(error) => Check::Bad(error.message),
        };
        let name = name(&state).unwrap_or_default();
        let backend = match self.mapped(&program, &name).await? {
            Some(there) if there == front_url(&self.local) => Check::Good("Tailscale has our mapping".into()),
            Some(there) => Check::Bad(format!("Tailscale sends visitors to {there}")),
            None => Check::Bad("Tailscale has our mapping no more".into()),
        };
        Ok(TunnelHealth::of(process, backend))
    }

    fn status(&self) -> TunnelStatus {
        self.running.status.clone()
    }

    async fn changed(&mut self) -> Change {
        self.running.changed().await
    }
}

/// `tailscale status --json`; its exit code says nothing.
async fn state(program: &Path) -> Result<Value, TunnelError> {
    let (_, said, complained) = run(program, &["status", "--json"], d::SHORT_COMMAND).await?;
    serde_json::from_str(&said).map_err(|_| {
        TunnelError::passing(format!(
            "Tailscale's daemon does not answer: {}",
            complained.trim()
        ))
        .with_fix(if cfg!(target_os = "linux") {
            "start it: sudo systemctl enable --now tailscaled"
        } else {
            "start Tailscale"
        })
    })
}

fn name(state: &Value) -> Option<String> {
    let name = state["Self"]["DNSName"].as_str()?.trim_end_matches('.');
    (!name.is_empty()).then(|| name.to_owned())
}

/// The machine's name in the tailnet, if it is logged in and online.
fn logged_in(state: &Value) -> Result<String, TunnelError> {
    let backend = state["BackendState"].as_str().unwrap_or("unknown");
    match backend {
        "Running" => {}
        "NeedsLogin" | "NoState" => {
            return Err(TunnelError::fatal("Tailscale is not logged in", "tailscale up"));
        }
        "NeedsMachineAuth" => {
            let fix = "approve it: https://login.tailscale.com/admin/machines";
            return Err(TunnelError::fatal(
                "this machine waits for approval in your tailnet",
                fix,
            ));
        }
        "Stopped" => return Err(TunnelError::fatal("Tailscale is stopped", "tailscale up")),
        other => return Err(TunnelError::passing(format!("Tailscale is {other}"))),
    }
    if state["Self"]["Online"] != true {
        return Err(TunnelError::passing(
            "Tailscale runs, but this machine is offline",
        ));
    }
    name(state).ok_or_else(|| {
        TunnelError::fatal(
            "this machine has no name in the tailnet",
            "turn MagicDNS on: https://login.tailscale.com/admin/dns",
        )
    })
}

/// What a port serves, in `tailscale funnel status --json`.
fn mapping(told: &Value, name: &str, port: u16) -> Option<String> {
    let wanted = format!("{name}:{port}");
    let ending = format!(":{port}");
    let find = |config: &Value| {
        let web = config["Web"].as_object()?;
        let entry = web.get(&wanted).or_else(|| {
            web.iter()
                .find(|(key, _)| key.ends_with(&ending))
                .map(|(_, entry)| entry)
        })?;
        let handler = entry["Handlers"].as_object()?.values().next()?;
        let told = ["Proxy", "Path", "Text"]
            .iter()
            .find_map(|kind| handler[*kind].as_str());
        Some(told.unwrap_or("something else").to_owned())
    };
    let foreground = || told["Foreground"].as_object()?.values().find_map(find);
    // A raw TCP port is taken too.
    let raw = || {
        let tcp = told["TCP"].get(port.to_string())?;
        let forward = tcp["TCPForward"].as_str()?;
        Some(format!("tcp://{forward}"))
    };
    find(told).or_else(foreground).or_else(raw)
}

fn url(name: &str, port: u16) -> String {
    match port {
        443 => format!("https://{name}"),
        port => format!("https://{name}:{port}"),
    }
}

/// The address that it prints when the mapping is there.
fn printed_url(said: &str) -> Option<String> {
    let mut lines = said.lines().skip_while(|line| !line.starts_with("Available "));
    lines.next()?;
    let line = lines.find(|line| line.trim_start().starts_with("https://"))?;
    Some(line.split_whitespace().next()?.trim_end_matches('/').to_owned())
}

fn taken(funnel: bool, port: u16, there: &str) -> TunnelError {
    let verb = if funnel { "funnel" } else { "serve" };
    let other = if port == 443 { 8443 } else { 443 };
    TunnelError::fatal(
        format!("Tailscale's port {port} serves something else already: {there}"),
        format!(
            "give funnel_port = {other} in [tunnel.tailscale], or take that away: tailscale {verb} --https={port} off"
        ),
    )
}

/// It printed an address where the tailnet's admin has to agree, and waited.
fn waits_for_consent(error: &TunnelError, funnel: bool) -> Option<TunnelError> {
    let link = error
        .message
        .split_whitespace()
        .find(|word| word.starts_with("https://login.tailscale.com/"))?;
    let what = if funnel { "Funnel" } else { "Serve" };
    Some(TunnelError::fatal(
        format!("{what} is not enabled on your tailnet"),
        format!("enable it at {link}, then start again"),
    ))
}

/// Why it did not set the mapping.
fn refused(said: &str, funnel: bool, port: u16) -> TunnelError {
    let consent = TunnelError::passing(said);
    if let Some(error) = waits_for_consent(&consent, funnel) {
        return error;
    }
    let lower = said.to_lowercase();
    if lower.contains("foreground already exists")
        || lower.contains("background configuration already exists")
    {
        return taken(funnel, port, "another serve or funnel");
    }
    if lower.contains("access denied") || lower.contains("permission denied") || lower.contains("--operator")
    {
        return TunnelError::fatal(
            "this user may not change Tailscale's configuration",
            "sudo tailscale set --operator=$USER",
        );
    }
    if lower.contains("funnel")
        && (lower.contains("nodeattr") || lower.contains("not available") || lower.contains("acl"))
    {
        return TunnelError::fatal(
            "your tailnet's policy does not let this machine use Funnel",
            "add the nodeAttr \"funnel\": https://tailscale.com/kb/1223/funnel",
        );
    }
    if lower.contains("https") && lower.contains("certificate") {
        return TunnelError::fatal(
            "HTTPS certificates are off in your tailnet",
            "turn them on: https://login.tailscale.com/admin/dns",
        );
    }
    let last = said
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty())
        .unwrap_or("nothing was said");
    TunnelError::passing(format!("Tailscale refuses: {last}"))
}

/// What must be there before it can be started.
pub(super) async fn available(config: &Config) -> Result<String, TunnelError> {
    let program = find::program(Backend::Tailscale, "tailscale", config.bin.as_deref())?;
    let name = logged_in(&state(&program).await?)?;
    Ok(format!("Tailscale is online as {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Retry;
    use serde_json::json;

    #[test]
    fn only_a_machine_that_is_online_will_do() {
        let state = |backend: &str, online: bool| json!({"BackendState": backend, "Self": {"DNSName": "box.tail1234.ts.net.", "Online": online}});
        assert_eq!(logged_in(&state("Running", true)).unwrap(), "box.tail1234.ts.net");
        assert_eq!(
            logged_in(&state("Running", false)).unwrap_err().retry,
            Retry::Soon
        );
        assert_eq!(
            logged_in(&state("Starting", true)).unwrap_err().retry,
            Retry::Soon
        );
        for needs in ["NeedsLogin", "NeedsMachineAuth", "Stopped", "NoState"] {
            assert_eq!(
                logged_in(&state(needs, true)).unwrap_err().retry,
                Retry::Never,
                "{needs}"
            );
        }
    }

    #[test]
    fn the_printed_address_is_taken() {
        let said = include_str!("../../fixtures/tailscale-funnel.txt");
        assert_eq!(printed_url(said).as_deref(), Some("https://box.tail1234.ts.net"));
        assert_eq!(printed_url("https://login.tailscale.com/f/funnel"), None);
        assert_eq!(url("a.ts.net", 8443), "https://a.ts.net:8443");
    }

    #[test]
    fn what_others_mapped_is_seen() {
        let status = include_str!("../../fixtures/tailscale-funnel-status.json");
        let told: Value = serde_json::from_str(status).unwrap();
        assert_eq!(
            mapping(&told, "box.tail1234.ts.net", 443).as_deref(),
            Some("http://127.0.0.1:3000")
        );
        assert_eq!(
            mapping(&told, "box.tail1234.ts.net", 8443).as_deref(),
            Some("http://127.0.0.1:8080")
        );
        assert_eq!(mapping(&told, "box.tail1234.ts.net", 10000), None);
        assert_eq!(mapping(&Value::Null, "x", 443), None);
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        for (said, fix) in [
            ("error: foreground already exists under this port", "8443"),
            (
                "background configuration already exists, use `tailscale funnel --https=443 off`",
                "8443",
            ),
            (
                "Access denied: serve config denied\nUse 'sudo tailscale set --operator=$USER'",
                "--operator",
            ),
            (
                "Funnel not available; \"funnel\" node attribute not set.",
                "nodeAttr",
            ),
            (
                "Funnel is not enabled on your tailnet.\nTo enable, visit:\n\n    https://login.tailscale.com/f/funnel?node=n1\n",
                "f/funnel?node=n1",
            ),
        ] {
            let error = refused(said, true, 443);
            assert!(
                error.retry == Retry::Never && error.fix.as_ref().unwrap().contains(fix),
                "{error}"
            );
        }
        assert_eq!(refused("boom", true, 443).retry, Retry::Soon);
    }
}
