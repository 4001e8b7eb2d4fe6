//! Cloudflare Tunnel, by `cloudflared`: quick tunnels with a random name, and named ones by token or credentials.

use super::{Local, Running, free_port, front_url, write_private};
use crate::config::{Cloudflare as Config, CloudflareMode, Protocol};
use crate::defaults as d;
use crate::program::{Program, Seen, Start};
use crate::{Backend, Change, Check, Tunnel, TunnelError, TunnelHealth, TunnelInfo, TunnelStatus, find, get};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Pause between two questions to its readiness endpoint while it comes up.
const POLL: Duration = Duration::from_millis(500);

/// A Cloudflare tunnel.
pub struct Cloudflare {
    config: Config,
    local: Arc<Local>,
    running: Running,
    metrics: u16,
    /// HTTP/2 worked where QUIC did not: it is not tried again.
    only_http2: bool,
}

impl Cloudflare {
    pub(super) fn new(config: Config, local: Arc<Local>) -> Self {
        Self {
            config,
            local,
            running: Running::default(),
            metrics: 0,
            only_http2: false,
        }
    }

    async fn bring_up(&mut self) -> Result<TunnelInfo, TunnelError> {
        let program = find::program(Backend::Cloudflare, "cloudflared", self.config.bin.as_deref())?;
        let quick = matches!(self.config.mode, CloudflareMode::Quick);
        // A quick tunnel takes QUIC and never anything else, unless told: the way back is ours to find.
        let try_quic_first = quick && self.config.protocol == Protocol::Auto && !self.only_http2;
        let protocol = match self.config.protocol {
            Protocol::Auto if quick => Some(if try_quic_first { "quic" } else { "http2" }),
            Protocol::Auto => None,
            Protocol::Quic => Some("quic"),
            Protocol::Http2 => Some("http2"),
        };
        let time = if try_quic_first { d::QUIC } else { d::START };
        match self.try_protocol(&program, protocol, time).await {
            Err(error) if try_quic_first && error.retry == crate::Retry::Soon && self.has_address() => {
                tracing::info!(target: "tunnel", "no connection to Cloudflare over QUIC (UDP 7844); trying HTTP/2");
                self.running.begin().await?;
                let info = self.try_protocol(&program, Some("http2"), d::START).await?;
                self.only_http2 = true;
                Ok(info)
            }
            other => other,
        }
    }

    /// Did it get as far as an address?
    fn has_address(&self) -> bool {
        self.running
            .program
            .as_ref()
            .is_some_and(|program| program.seen().url.is_some())
    }

    async fn try_protocol(
        &mut self,
        program: &Path,
        protocol: Option<&str>,
        time: Duration,
    ) -> Result<TunnelInfo, TunnelError> {
        self.metrics = match self.config.metrics_port {
            Some(port) => port,
            None => free_port()?,
        };
        // Our own file, always: rules in the user's would take the place of our address.
        let config = write_private(&self.local, "cloudflared.yml", &self.file()?)?;
        let mut args: Vec<String> = ["tunnel", "--config", &config.to_string_lossy(), "--no-autoupdate"]
            .map(str::to_owned)
            .into();
        args.extend(["--metrics".into(), format!("127.0.0.1:{}", self.metrics)]);
        if let Some(protocol) = protocol {
            args.extend(["--protocol".into(), protocol.into()]);
        }
        match &self.config.mode {
            CloudflareMode::Quick => args.extend(["--url".into(), front_url(&self.local)]),
            CloudflareMode::Token { .. } => args.push("run".into()),
            CloudflareMode::Credentials { tunnel_id, .. } => args.extend(["run".into(), tunnel_id.clone()]),
        }
        let run_dir = &self.local.run_dir;
        let mut start = Start::new(
            Backend::Cloudflare,
            program.to_owned(),
            args,
            run_dir,
            Box::new(read),
        );
        // Its own variables would change what we ask of it.
        start.without = vec!["TUNNEL_", "CLOUDFLARE_TUNNEL_"];
        if let CloudflareMode::Token { token, .. } = &self.config.mode {
            start.env.push(("TUNNEL_TOKEN", token.expose().into()));
        }
        let running = Program::start(&self.local.launcher, start, &self.local.log).await?;
        let program = self.running.program.insert(running);
        let metrics = self.metrics;
        let quick = match self.config.mode {
            CloudflareMode::Quick => Some(tokio::select! {
                url = program.until(d::START, "show its address", |seen| seen.url.clone()) => url?,
                url = quick_name(metrics) => url,
            }),
            CloudflareMode::Token { .. } | CloudflareMode::Credentials { .. } => None,
        };
        tokio::select! {
            up = program.until(time, "connect to Cloudflare", |seen| (seen.connections > 0).then_some(())) => up?,
            () = ready(metrics) => {}
        }
        self.info(quick).await
    }

    /// Where visitors go, and by which way.
    async fn info(&self, quick: Option<String>) -> Result<TunnelInfo, TunnelError> {
        let port = self.local.local_port;
        let named = |host: &str| TunnelInfo::new(Backend::Cloudflare, format!("https://{host}"), port);
        match &self.config.mode {
            CloudflareMode::Quick => Ok(TunnelInfo::new(
                Backend::Cloudflare,
                quick.unwrap_or_default(),
                port,
            )),
            CloudflareMode::Credentials { hostname, .. } => Ok(named(hostname)),
            CloudflareMode::Token { hostname, .. } => {
                let ask = format!("http://127.0.0.1:{}/config", self.metrics);
                let answer = get::get(&ask, &[], d::READINESS).await.ok();
                let told = answer.and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
                let rules = told.as_ref().map(rules).unwrap_or_default();
                let way = way(&rules, hostname.as_deref(), self.local.front.port(), &self.local)?;
                let mut info = named(&way.host);
                info.through_front = way.through_front;
                info.note = way.note;
                Ok(info)
            }
        }
    }

    /// Our configuration for it.
    fn file(&self) -> Result<String, TunnelError> {
        let CloudflareMode::Credentials {
            tunnel_id,
            file,
            hostname,
        } = &self.config.mode
        else {
            return Ok("no-autoupdate: true\n".into());
        };
        if !file.is_file() {
            return Err(TunnelError::fatal(
                format!("there are no credentials at {}", file.display()),
                "make the tunnel with `cloudflared tunnel create NAME`, and give its credentials_file",
            ));
        }
        // JSON texts are YAML texts.
        let text = |text: &str| Value::from(text).to_string();
        let mut out = format!(
            "no-autoupdate: true\ntunnel: {}\ncredentials-file: {}\n",
            text(tunnel_id),
            text(&file.to_string_lossy())
        );
        if let Some(access) = &self.config.access {
            out.push_str(&format!(
                "originRequest:\n  access:\n    required: true\n    teamName: {}\n    audTag: {}\n",
                text(&access.team),
                serde_json::to_string(&access.aud).unwrap_or_default()
            ));
        }
        out.push_str(&format!(
            "ingress:\n  - hostname: {}\n    service: {}\n  - service: http_status:404\n",
            text(hostname),
            front_url(&self.local)
        ));
        Ok(out)
    }
}

impl Tunnel for Cloudflare {
    fn backend(&self) -> Backend {
        Backend::Cloudflare
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
        let ask = format!("http://127.0.0.1:{}/ready", self.metrics);
        let backend = match get::get(&ask, &[], d::READINESS).await {
            Ok(answer) => {
                let told: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let connections = told["readyConnections"].as_u64().unwrap_or(0);
                let words = format!("cloudflared has {connections} connections to Cloudflare");
                if answer.status == 200 {
                    Check::Good(words)
                } else {
                    Check::Bad(words)
                }
            }
            Err(why) => Check::Bad(format!("cloudflared does not answer: {why}")),
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

/// Waits until it is ready.
async fn ready(metrics: u16) {
    let ask = format!("http://127.0.0.1:{metrics}/ready");
    loop {
        if get::get(&ask, &[], d::READINESS)
            .await
            .is_ok_and(|answer| answer.status == 200)
        {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until it tells the name of a quick tunnel.
async fn quick_name(metrics: u16) -> String {
    let ask = format!("http://127.0.0.1:{metrics}/quicktunnel");
    loop {
        if let Ok(answer) = get::get(&ask, &[], d::READINESS).await
            && let Ok(told) = serde_json::from_slice::<Value>(&answer.body)
            && let Some(name) = told["hostname"].as_str().filter(|name| !name.is_empty())
        {
            return format!("https://{name}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Takes what a line of cloudflared's log tells.
fn read(seen: &mut Seen, line: &str) {
    if let Some(url) = quick_url(line) {
        seen.url = Some(url);
    }
    if line.contains("Unregistered tunnel connection") {
        seen.connections = seen.connections.saturating_sub(1);
    } else if line.contains("Registered tunnel connection") {
        seen.connections = seen.connections.saturating_add(1);
    } else if line.contains("Provided Tunnel token is not valid") {
        seen.fatal = Some(TunnelError::fatal(
            "Cloudflare does not accept the tunnel's token",
            "copy it again from the dashboard (Zero Trust > Networks > Tunnels) into CLOUDFLARE_TUNNEL_TOKEN",
        ));
    } else if line.contains("failed to unmarshal quick Tunnel") || line.contains("429 Too Many Requests") {
        seen.complaint = Some(
            TunnelError::passing("Cloudflare gives no quick tunnel now: it was asked too often")
                .with_fix("wait a few minutes, or use a tunnel of your own (token, hostname)")
                .after(d::RATE_LIMITED),
        );
    } else if line.contains("failed to request quick Tunnel") {
        seen.complaint = Some(
            TunnelError::passing(format!(
                "Cloudflare cannot be asked for a quick tunnel: {}",
                message(line)
            ))
            .with_fix("is outbound port 443 open from this machine?"),
        );
    } else if line.contains(" ERR ") && seen.complaint.is_none() {
        seen.complaint = Some(TunnelError::passing(format!("cloudflared: {}", message(line))));
    }
}

/// A line without its time and level.
fn message(line: &str) -> &str {
    let after = [" ERR ", " INF ", " WRN "]
        .iter()
        .find_map(|level| line.split_once(level));
    after.map_or(line, |(_, message)| message).trim()
}

/// The name of a quick tunnel. Other addresses stand in the log before it.
fn quick_url(line: &str) -> Option<String> {
    const END: &str = ".trycloudflare.com";
    line.match_indices("https://").find_map(|(at, scheme)| {
        let rest = &line[at + scheme.len()..];
        let name = &rest[..rest.find(END)?];
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let whole = !name.is_empty() && name != "api" && name.bytes().all(plain);
        whole.then(|| format!("https://{name}{END}"))
    })
}

/// A rule of the dashboard: host name and service.
type Rule = (Option<String>, String);

fn rules(told: &Value) -> Vec<Rule> {
    let list = told["config"]["ingress"]
        .as_array()
        .or_else(|| told["ingress"].as_array());
    let rule = |rule: &Value| {
        let host = rule["hostname"].as_str().filter(|host| !host.is_empty());
        Some((host.map(str::to_owned), rule["service"].as_str()?.to_owned()))
    };
    list.into_iter().flatten().filter_map(rule).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Way {
    host: String,
    through_front: bool,
    note: Option<String>,
}

/// Where the dashboard sends visitors: only there can it be changed.
fn way(rules: &[Rule], hostname: Option<&str>, front: u16, local: &Local) -> Result<Way, TunnelError> {
    let rule = match hostname {
        Some(name) => rules.iter().find(|(host, _)| {
            host.as_deref()
                .is_some_and(|host| host.eq_ignore_ascii_case(name))
        }),
        None => rules.iter().find(|(host, _)| host.is_some()),
    };
    let host = hostname
        .map(str::to_owned)
        .or_else(|| rule.and_then(|(host, _)| host.clone()));
    let Some(host) = host else {
        return Err(TunnelError::fatal(
            "the tunnel is up, but nothing says by which name visitors reach it",
            "give it a public host name in the dashboard, and that as hostname in [tunnel.cloudflare]",
        ));
    };
    let Some((_, service)) = rule else {
        return Ok(Way {
            host,
            through_front: true,
            note: None,
        });
    };
    let port = port_of(service);
    if port == Some(front) {
        return Ok(Way {
            host,
            through_front: true,
            note: None,
        });
    }
    if local.direct_possible && port == Some(local.local_port) {
        let note = format!(
            "the dashboard sends visitors straight to {service}, past arpc: they are not counted, and whether they \
             arrive cannot be proven. To change that set front_port in [tunnel], and the service to that port"
        );
        return Ok(Way {
            host,
            through_front: false,
            note: Some(note),
        });
    }
    let local_port = local.local_port;
    Err(TunnelError::fatal(
        format!(
            "the dashboard sends visitors of {host} to {service}, which is not the local port {local_port}"
        ),
        format!(
            "set the service there to http://127.0.0.1:{front} and front_port = {front} in [tunnel], or correct local_port"
        ),
    ))
}

fn port_of(service: &str) -> Option<u16> {
    let uri: http::Uri = service.parse().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let here = matches!(host, "localhost" | "::1") || host.starts_with("127.");
    let usual = match uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    };
    here.then(|| uri.port_u16().unwrap_or(usual))
}

/// What must be there before it can be started.
pub(super) fn available(config: &Config) -> Result<String, TunnelError> {
    find::program(Backend::Cloudflare, "cloudflared", config.bin.as_deref())?;
    Ok(match &config.mode {
        CloudflareMode::Quick => "cloudflared is installed; a quick tunnel needs no account".into(),
        CloudflareMode::Token { .. } => "cloudflared is installed, and there is a token".into(),
        CloudflareMode::Credentials { .. } => "cloudflared is installed, and there are credentials".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::seen_in;
    use super::*;
    use crate::Retry;
    use crate::backend::tests::local;

    const QUICK: &str = include_str!("../../fixtures/cloudflared-quick.txt");

    #[test]
    fn the_address_is_found_behind_all_the_other_links() {
        let seen = seen_in(read, QUICK);
        assert_eq!(
            seen.url.as_deref(),
            Some("https://quiet-lamp-blue-river.trycloudflare.com")
        );
        assert_eq!((seen.connections, seen.fatal), (1, None));
        for line in [
            "https://api.trycloudflare.com/tunnel",
            "on trycloudflare.com...",
            "https://evil.example/.trycloudflare.com",
            "https://.trycloudflare.com",
        ] {
            assert_eq!(quick_url(line), None, "{line}");
        }
    }

    #[test]
    fn a_bad_token_is_the_end_and_too_many_questions_a_long_pause() {
        let seen = seen_in(read, include_str!("../../fixtures/cloudflared-bad-token.txt"));
        assert_eq!(seen.fatal.unwrap().retry, Retry::Never);
        let seen = seen_in(read, include_str!("../../fixtures/cloudflared-rate-limited.txt"));
        assert_eq!(seen.complaint.unwrap().retry, Retry::After(d::RATE_LIMITED));
    }

    #[test]
    fn connections_are_counted_up_and_down() {
        let seen = seen_in(
            read,
            "INF Registered tunnel connection connIndex=0\nINF Registered tunnel connection connIndex=1\n\
             INF Unregistered tunnel connection connIndex=0\n",
        );
        assert_eq!(seen.connections, 1);
    }

    #[test]
    fn what_the_dashboard_says_is_found_and_judged() {
        let told = |service: &str| -> Vec<Rule> {
            rules(&serde_json::json!({"version": 3, "config": {"ingress": [
                {"hostname": "agent.example.com", "service": service}, {"service": "http_status:404"}]}}))
        };
        let local = local();
        let front = local.front.port();
        let through = way(&told(&format!("http://localhost:{front}")), None, front, &local).unwrap();
        assert_eq!(
            (through.host.as_str(), through.through_front),
            ("agent.example.com", true)
        );
        let direct = way(
            &told("http://localhost:3000"),
            Some("agent.example.com"),
            front,
            &local,
        )
        .unwrap();
        assert!(!direct.through_front && direct.note.is_some());
        let error = way(&told("http://localhost:9999"), None, front, &local).unwrap_err();
        assert!(error.message.contains("9999") && error.retry == Retry::Never);
        assert!(way(&[], None, front, &local).is_err());
        assert_eq!(port_of("http://192.0.2.1:3000"), None);
    }
}
