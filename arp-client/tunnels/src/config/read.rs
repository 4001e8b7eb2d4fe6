//! From TOML, environment and flags to a [`TunnelConfig`]; all faults at once.

use super::fields::{Fields, Variables};
use super::{
    Access, Arp, Backend, Bore, Cloudflare, CloudflareMode, Custom, Ngrok, Protocol, Reconnect, Tailscale,
    TunnelConfig, UrlSource,
};
use crate::defaults as d;
use arp_common::protocol::Secret;
use regex_lite::Regex;
use std::path::PathBuf;
use toml::{Table, Value};

/// Ports that Tailscale Funnel may use.
const FUNNEL_PORTS: [u16; 3] = [443, 8443, 10000];

/// What flags say; it counts more than file and environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Through what.
    pub backend: Option<String>,
    /// Host of the local service.
    pub local_host: Option<String>,
    /// Its port.
    pub local_port: Option<u16>,
}

impl TunnelConfig {
    /// Reads the table `tunnel` of a file.
    ///
    /// # Errors
    /// All faults, each naming the setting and what it should be.
    pub fn read(table: Table, overrides: &Overrides, variables: Variables<'_>) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let config = read(table, overrides, variables, &mut faults);
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(faults),
        }
    }
}

fn read(
    table: Table,
    overrides: &Overrides,
    variables: Variables<'_>,
    faults: &mut Vec<String>,
) -> Option<TunnelConfig> {
    let mut own = Vec::new();
    let mut top = Fields::new("tunnel", Some(Value::Table(table)), true, variables, &mut own);
    let named = top.verbatim(&["backend", "provider"]);
    let backend = overrides
        .backend
        .clone()
        .or(named)
        .or_else(|| variables("PRX_TUNNEL_BACKEND").filter(|name| !name.is_empty()));
    let backend = match backend.as_deref().map_or(Ok(Backend::Auto), str::parse) {
        Ok(backend) => backend,
        Err(fault) => {
            top.fault("backend", &fault);
            Backend::Auto
        }
    };
    let (local_host, local_port) = local(&mut top, overrides, variables);
    let front_port = top.port(&["front_port"]);
    if front_port.is_some() && front_port == local_port {
        top.fault("front_port", "must be another port than local_port");
    }
    let mode = top.verbatim(&["mode"]);
    let auto_start = top.flag(&["auto_start"]).unwrap_or(true);
    let health_interval = top.seconds(&["health_check_interval", "health_check_interval_secs"]);
    let max_failures = top.number(&["max_failures"], 1, 1000);
    let probe = top.flag(&["probe"]).unwrap_or(true);
    if variables("PRX_TUNNEL_URL").is_some_and(|url| !url.is_empty()) {
        let way = "an address that something else serves needs no tunnel from here: unset it, or say in \
                   [tunnel.custom] which command serves it, with url = \"…\"";
        top.fault("PRX_TUNNEL_URL", way);
    }
    let tables = [
        "reconnect",
        "cloudflare",
        "tailscale",
        "ngrok",
        "bore",
        "custom",
        "arp",
    ];
    let [reconnect, cloudflare, tailscale, ngrok, bore, custom, arp] = tables.map(|name| top.table(name));
    let basic_auth = top.secret(&["basic_auth"]);
    top.finish();
    faults.append(&mut own);

    let is = |this: Backend| backend == this;
    let reconnect = self::reconnect(Fields::new(
        "tunnel.reconnect",
        reconnect,
        true,
        variables,
        faults,
    ));
    let table = Fields::new(
        "tunnel.cloudflare",
        cloudflare,
        is(Backend::Cloudflare),
        variables,
        faults,
    );
    let cloudflare = self::cloudflare(table, mode, variables);
    let tailscale = self::tailscale(Fields::new(
        "tunnel.tailscale",
        tailscale,
        is(Backend::Tailscale),
        variables,
        faults,
    ));
    let (ngrok, ngrok_auth) = self::ngrok(
        Fields::new("tunnel.ngrok", ngrok, is(Backend::Ngrok), variables, faults),
        variables,
    );
    let bore = self::bore(
        Fields::new("tunnel.bore", bore, is(Backend::Bore), variables, faults),
        variables,
    );
    let given = custom.is_some();
    let custom = self::custom(
        Fields::new("tunnel.custom", custom, is(Backend::Custom), variables, faults),
        given || is(Backend::Custom),
    );
    let given = arp.is_some();
    let arp = self::arp(
        Fields::new("tunnel.arp", arp, is(Backend::Arp), variables, faults),
        given || is(Backend::Arp),
        variables,
    );
    let basic_auth = basic_auth.or(ngrok_auth.filter(|_| is(Backend::Ngrok)));
    if basic_auth
        .as_ref()
        .is_some_and(|auth| !auth.expose().contains(':'))
    {
        faults.push("[tunnel] basic_auth: must be user:password".into());
    }
    Some(TunnelConfig {
        backend,
        local_host,
        local_port,
        front_port,
        auto_start,
        health_interval: health_interval.unwrap_or(d::HEALTH_INTERVAL),
        max_failures: max_failures
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(d::MAX_FAILURES),
        probe,
        reconnect,
        basic_auth,
        cloudflare,
        tailscale,
        ngrok,
        bore,
        custom,
        arp,
    })
}

/// Host and port of the local service.
fn local(top: &mut Fields<'_>, overrides: &Overrides, variables: Variables<'_>) -> (String, Option<u16>) {
    let told = top
        .text(&["local_addr"])
        .or_else(|| variables("PRX_TUNNEL_LOCAL_ADDR").filter(|addr| !addr.is_empty()));
    let (mut host, mut port) = (None, None);
    if let Some(told) = told {
        match host_and_port(&told) {
            Some(parts) => (host, port) = parts,
            None => top.fault("local_addr", "must be HOST:PORT, such as 127.0.0.1:3000"),
        }
    }
    let port = overrides.local_port.or(top.port(&["local_port"])).or(port);
    let host = overrides.local_host.clone().or(host);
    (host.unwrap_or_else(|| "127.0.0.1".into()), port)
}

/// `HOST:PORT`, `HOST`, `:PORT` or `PORT`, perhaps as an address of the web.
fn host_and_port(text: &str) -> Option<(Option<String>, Option<u16>)> {
    let text = text.trim().trim_start_matches("http://").trim_end_matches('/');
    if text.is_empty() || text.contains(['/', ' ', '@']) {
        return None;
    }
    if let Ok(port) = text.parse::<u16>() {
        return Some((None, Some(port).filter(|port| *port != 0)));
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => (host, Some(port)),
            _ => (text, None),
        },
    };
    let port = match port {
        Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port != 0)?),
        None => None,
    };
    Some((Some(host.to_owned()).filter(|host| !host.is_empty()), port))
}

fn reconnect(mut table: Fields<'_>) -> Reconnect {
    let enabled = table.flag(&["enabled"]).unwrap_or(true);
    let max_attempts = table.number(&["max_attempts"], 0, 1_000_000);
    let base = table.millis(&["backoff_base_ms"]).unwrap_or(d::BACKOFF_BASE);
    let max = table.millis(&["backoff_max_ms"]);
    if max.is_some_and(|max| max < base) {
        table.fault("backoff_max_ms", "must not be less than backoff_base_ms");
    }
    table.finish();
    Reconnect {
        enabled,
        max_attempts: max_attempts
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(d::MAX_ATTEMPTS),
        base,
        max: max.unwrap_or(d::BACKOFF_MAX).max(base),
    }
}

fn cloudflare(mut table: Fields<'_>, mode: Option<String>, variables: Variables<'_>) -> Cloudflare {
    let mode = table.verbatim(&["mode"]).or(mode);
    let token = table.secret(&["token"]);
    let tunnel_id = table.text(&["tunnel_id"]);
    let file = table.text(&["credentials_file"]).map(|path| of_home(&path));
    let hostname = table.text(&["hostname"]).map(|name| {
        name.trim_start_matches("https://")
            .trim_end_matches('/')
            .to_owned()
    });
    if hostname.as_deref().is_some_and(|name| !is_host(name)) {
        table.fault("hostname", "must be a host name alone, such as agent.example.com");
    }
    let protocol = match table.verbatim(&["protocol"]).as_deref() {
        None | Some("auto") => Protocol::Auto,
        Some("quic") => Protocol::Quic,
        Some("http2") => Protocol::Http2,
        Some(_) => {
            table.fault("protocol", "must be auto, quic or http2");
            Protocol::Auto
        }
    };
    let metrics_port = table.port(&["metrics_port"]);
    let bin = table.text(&["bin", "cloudflared_bin"]).map(PathBuf::from);
    let access = table.table("access");
    let quick = match mode.as_deref() {
        None => None,
        Some("quick") => Some(true),
        Some("named") => Some(false),
        Some(_) => {
            table.fault("mode", "must be quick or named");
            None
        }
    };
    let own = token.is_some() || tunnel_id.is_some();
    if quick == Some(true) && own {
        table.fault(
            "mode",
            "quick tunnels have no token and no tunnel_id: take these away, or say named",
        );
    }
    if token.is_some() && tunnel_id.is_some() {
        table.fault(
            "token",
            "does not go with tunnel_id: a token names its tunnel itself",
        );
    }
    let found = || {
        variables("CLOUDFLARE_TUNNEL_TOKEN")
            .filter(|token| !token.trim().is_empty())
            .map(|token| Secret::new(token.trim()))
    };
    let token = token.or_else(|| (quick != Some(true) && tunnel_id.is_none()).then(found).flatten());
    let kind = match (token, tunnel_id) {
        (Some(token), _) => CloudflareMode::Token { token, hostname },
        (None, Some(tunnel_id)) => {
            if hostname.is_none() {
                table.fault(
                    "hostname",
                    "is missing: the public name that is routed to this tunnel (`cloudflared tunnel route dns`)",
                );
            }
            let home = std::env::home_dir().unwrap_or_default();
            let file = file.unwrap_or_else(|| home.join(".cloudflared").join(format!("{tunnel_id}.json")));
            CloudflareMode::Credentials {
                tunnel_id,
                file,
                hostname: hostname.unwrap_or_default(),
            }
        }
        (None, None) => {
            if quick == Some(false) {
                let what = "named tunnels need a token, or tunnel_id with credentials_file";
                table.fault("mode", what);
            }
            if hostname.is_some() && quick.is_none() {
                let what =
                    "quick tunnels have a random name; a name of your own needs a token or a tunnel_id";
                table.fault("hostname", what);
            }
            CloudflareMode::Quick
        }
    };
    let access = self::access(&mut table, access, &kind);
    table.finish();
    Cloudflare {
        mode: kind,
        protocol,
        metrics_port,
        access,
        bin,
    }
}

fn access(table: &mut Fields<'_>, access: Option<Value>, kind: &CloudflareMode) -> Option<Access> {
    let access = access?;
    let Value::Table(mut access) = access else {
        table.fault("access", "must be a table");
        return None;
    };
    let enabled = match access.remove("enabled") {
        None => true,
        Some(Value::Boolean(enabled)) => enabled,
        Some(_) => {
            table.fault("access.enabled", "must be true or false");
            false
        }
    };
    let team = match access.remove("team_domain") {
        Some(Value::String(team)) => team
            .trim_start_matches("https://")
            .trim_end_matches('/')
            .trim_end_matches(".cloudflareaccess.com")
            .to_owned(),
        None => String::new(),
        Some(_) => {
            table.fault("access.team_domain", "must be a text in quotes");
            String::new()
        }
    };
    let aud = match access.remove("aud") {
        None => Vec::new(),
        Some(Value::String(aud)) => vec![aud],
        Some(Value::Array(all)) => all
            .iter()
            .filter_map(|aud| aud.as_str().map(str::to_owned))
            .collect(),
        Some(_) => {
            table.fault("access.aud", "must be a text in quotes, or a list of such");
            Vec::new()
        }
    };
    // Who may come with a service token is decided by the policy at Cloudflare.
    access.remove("allow_service_tokens");
    for key in access.keys() {
        table.fault(
            &format!("access.{key}"),
            "no such setting; there are enabled, team_domain, aud, allow_service_tokens",
        );
    }
    if !enabled {
        return None;
    }
    match kind {
        CloudflareMode::Quick => {
            table.fault(
                "access",
                "quick tunnels have no Access: it needs a tunnel of your own",
            );
        }
        // There the dashboard says it.
        CloudflareMode::Token { .. } => {}
        CloudflareMode::Credentials { .. } if team.is_empty() || aud.is_empty() => {
            table.fault("access", "needs team_domain and aud");
        }
        CloudflareMode::Credentials { .. } => {}
    }
    Some(Access { team, aud })
}

fn tailscale(mut table: Fields<'_>) -> Tailscale {
    let funnel = table.flag(&["funnel"]).unwrap_or(true);
    let port = table.port(&["funnel_port", "port"]).unwrap_or(443);
    if funnel && !FUNNEL_PORTS.contains(&port) {
        table.fault("funnel_port", "must be 443, 8443 or 10000: Funnel has no others");
    }
    let bin = table.text(&["tailscale_bin", "bin"]).map(PathBuf::from);
    // The name comes from the tailnet itself.
    let _ = table.text(&["hostname"]);
    table.finish();
    Tailscale { funnel, port, bin }
}

fn ngrok(mut table: Fields<'_>, variables: Variables<'_>) -> (Ngrok, Option<Secret>) {
    let authtoken = table.secret(&["authtoken", "auth_token"]);
    let authtoken = authtoken.or_else(|| {
        variables("NGROK_AUTHTOKEN")
            .filter(|token| !token.trim().is_empty())
            .map(|token| Secret::new(token.trim()))
    });
    let domain = table.text(&["domain", "url"]).map(|name| {
        name.trim_start_matches("https://")
            .trim_end_matches('/')
            .to_owned()
    });
    if domain.as_deref().is_some_and(|name| !is_host(name)) {
        table.fault(
            "domain",
            "must be a host name alone, such as my-agent.ngrok-free.app",
        );
    }
    // Agents of version 3 choose the nearest region themselves.
    let _ = table.text(&["region"]);
    let ngrok = Ngrok {
        authtoken,
        domain,
        inspect: table.flag(&["inspect"]).unwrap_or(true),
        inspect_port: table.port(&["inspect_port"]),
        bin: table.text(&["bin", "ngrok_bin"]).map(PathBuf::from),
    };
    let auth = table.secret(&["basic_auth"]);
    table.finish();
    (ngrok, auth)
}

fn bore(mut table: Fields<'_>, variables: Variables<'_>) -> Bore {
    let from = |name: &str| variables(name).filter(|value| !value.trim().is_empty());
    let server = table.text(&["server", "to"]).or_else(|| from("BORE_SERVER"));
    if server.as_deref().is_some_and(|name| !is_host(name)) {
        table.fault("server", "must be a host name or address alone, such as bore.pub");
    }
    let bore = Bore {
        server_given: server.is_some(),
        server: server.unwrap_or_else(|| "bore.pub".into()),
        port: table.port(&["port"]),
        secret: table
            .secret(&["secret"])
            .or_else(|| from("BORE_SECRET").map(Secret::new)),
        bin: table.text(&["bin", "bore_bin"]).map(PathBuf::from),
    };
    table.finish();
    bore
}

fn custom(mut table: Fields<'_>, wanted: bool) -> Option<Custom> {
    let command = table.verbatim(&["command", "start_command"]);
    let args = table.texts(&["args"]);
    let pattern = table.verbatim(&["url_pattern", "url_regex"]);
    let fixed = table.text(&["url", "public_url"]);
    let start = table.seconds(&["startup_timeout", "startup_timeout_secs"]);
    let health_url = table.text(&["health_url"]);
    if health_url
        .as_deref()
        .is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://"))
    {
        table.fault("health_url", "must begin with http:// or https://");
    }
    let command = match command.as_deref().map(shlex::split) {
        Some(Some(words)) if !words.is_empty() => Some([words, args].concat()),
        Some(_) => {
            table.fault("command", "has a quote that is not closed");
            None
        }
        None => {
            if wanted {
                let what = "is missing: the program that makes the tunnel, such as \"bore local {port} --to bore.pub\"";
                table.fault("command", what);
            }
            None
        }
    };
    let url = match (fixed, pattern) {
        (Some(_), Some(_)) => {
            table.fault("url", "does not go with url_pattern: give one of the two");
            None
        }
        (Some(url), None) => Some(UrlSource::Fixed(url)),
        (None, None) => Some(UrlSource::First),
        (None, Some(pattern)) => match self::pattern(&pattern) {
            Ok(source) => Some(source),
            Err(why) => {
                table.fault("url_pattern", &why);
                None
            }
        },
    };
    table.finish();
    Some(Custom {
        command: command?,
        url: url?,
        start: start.unwrap_or(d::CUSTOM_START),
        health_url,
    })
}

/// What looks like a host name is a piece of text; what has the signs of a pattern is one.
fn pattern(text: &str) -> Result<UrlSource, String> {
    let plain = !text.contains(['\\', '(', '[', '*', '+', '?', '^', '$', '|', '{']);
    if plain {
        return Ok(UrlSource::Around(text.to_owned()));
    }
    Regex::new(text)
        .map(UrlSource::Pattern)
        .map_err(|error| format!("is not a pattern: {error}"))
}

fn arp(mut table: Fields<'_>, wanted: bool, variables: Variables<'_>) -> Option<Arp> {
    let server = table.text(&["server_addr", "server"]);
    if server.is_none() && wanted {
        table.fault(
            "server_addr",
            "is missing: the address of the relay, such as relay.example.com",
        );
    }
    let client_id = table.text(&["client_id"]);
    if let Some(Err(why)) = client_id
        .as_ref()
        .map(|id| id.parse::<arp_common::ids::ClientId>())
    {
        table.fault("client_id", &why.to_string());
    }
    let control_port = table.port(&["control_port"]);
    let proxy_port = table.port(&["proxy_port"]);
    let join_key = table
        .secret(&["join_key"])
        .or_else(|| variables("ARPC_JOIN_KEY").map(Secret::new));
    let fingerprint = table.text(&["server_fingerprint"]);
    let plaintext = table.flag(&["plaintext"]).unwrap_or(false);
    table.finish();
    Some(Arp {
        server: server?,
        control_port,
        proxy_port,
        client_id,
        join_key,
        fingerprint,
        plaintext,
    })
}

/// A path that may begin with `~/`, made absolute: programs run in a directory of their own.
fn of_home(path: &str) -> PathBuf {
    let path = match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    };
    std::path::absolute(&path).unwrap_or(path)
}

/// A name or address that can stand in a URL and on a command line.
fn is_host(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TunnelConfig, Vec<String>> {
        read_with(text, &Overrides::default())
    }

    fn read_with(text: &str, overrides: &Overrides) -> Result<TunnelConfig, Vec<String>> {
        let variables = |name: &str| match name {
            "CLOUDFLARE_TUNNEL_TOKEN" => Some("eyJhIjoi".to_owned()),
            "NGROK_AUTHTOKEN" => Some("2abc_def".to_owned()),
            _ => None,
        };
        let file: Table = toml::from_str(text).unwrap();
        let tunnel = file.get("tunnel").cloned().unwrap_or(Value::Table(Table::new()));
        TunnelConfig::read(tunnel.as_table().unwrap().clone(), overrides, &variables)
    }

    /// The example that users of other agents bring along.
    const EXAMPLE: &str = r#"
        [tunnel]
        backend = "cloudflare"
        local_port = 3000
        auto_start = true
        health_check_interval = 30
        [tunnel.reconnect]
        enabled = true
        max_attempts = 10
        backoff_base_ms = 1000
        backoff_max_ms = 60000
        [tunnel.cloudflare]
        token = "${CLOUDFLARE_TUNNEL_TOKEN}"
        hostname = "agent.example.com"
        [tunnel.tailscale]
        funnel_port = 443
        [tunnel.ngrok]
        authtoken = "${NGROK_AUTHTOKEN}"
        domain = "my-agent.ngrok-free.app"
        [tunnel.custom]
        command = "bore local 3000 --to bore.pub"
        url_pattern = "bore.pub"
    "#;

    #[test]
    fn the_example_is_read_as_it_stands() {
        let config = read(EXAMPLE).unwrap();
        assert_eq!(
            (config.backend, config.port(), config.auto_start),
            (Backend::Cloudflare, 3000, true)
        );
        assert!(
            matches!(&config.cloudflare.mode, CloudflareMode::Token { token, hostname: Some(host) }
                if token.expose() == "eyJhIjoi" && host == "agent.example.com")
        );
        assert_eq!(config.ngrok.authtoken.as_ref().unwrap().expose(), "2abc_def");
        let custom = config.custom.as_ref().unwrap();
        assert_eq!(custom.command, ["bore", "local", "3000", "--to", "bore.pub"]);
        assert!(matches!(&custom.url, UrlSource::Around(text) if text == "bore.pub"));
        assert_eq!(config.secrets().count(), 2);
        let debug = format!("{config:?}");
        assert!(
            !debug.contains("eyJhIjoi") && !debug.contains("2abc_def"),
            "{debug}"
        );
    }

    #[test]
    fn other_spellings_mean_the_same() {
        let config = read(
            r#"
            tunnel.provider = "ngrok"
            tunnel.health-check-interval-secs = 5
            tunnel.local_addr = "localhost:8080"
            tunnel.ngrok.auth_token = "secret-token"
            tunnel.custom.start_command = "ssh -R '80:{host}:{port}' serveo.net"
            tunnel.custom.args = ["-N"]
            tunnel.custom.url_pattern = "from (https://\\S+)"
            tunnel.custom.startup_timeout_secs = 3
        "#,
        )
        .unwrap();
        assert_eq!(config.backend, Backend::Ngrok);
        assert_eq!(config.health_interval.as_secs(), 5);
        assert_eq!(
            (config.local_host.as_str(), config.local_port),
            ("localhost", Some(8080))
        );
        assert_eq!(config.ngrok.authtoken.as_ref().unwrap().expose(), "secret-token");
        let custom = config.custom.unwrap();
        assert_eq!(custom.command[2], "80:{host}:{port}");
        assert_eq!((custom.command.len(), custom.start.as_secs()), (5, 3));
        assert!(matches!(custom.url, UrlSource::Pattern(_)));
    }

    #[test]
    fn nothing_at_all_is_enough() {
        let config = read("").unwrap();
        assert_eq!(
            (config.backend, config.port(), config.max_failures),
            (Backend::Auto, 3000, 3)
        );
        assert_eq!(config.reconnect.max_attempts, 10);
    }

    #[test]
    fn flags_count_more_than_the_file() {
        let overrides = Overrides {
            backend: Some("bore".into()),
            local_host: None,
            local_port: Some(81),
        };
        let config = read_with(EXAMPLE, &overrides).unwrap();
        assert_eq!((config.backend, config.port()), (Backend::Bore, 81));
        assert_eq!(config.bore.server, "bore.pub");
    }

    #[test]
    fn all_faults_are_told_at_once_and_name_their_setting() {
        let faults = read(
            r#"
            [tunnel]
            backend = "ngork"
            local_port = 70000
            health_check_interval = 0
            bakend = 1
            [tunnel.reconnect]
            backoff_base_ms = 5000
            backoff_max_ms = 1000
            [tunnel.cloudflare]
            protocol = "udp"
            hostname = "a b"
            [tunnel.tailscale]
            funnel_port = 444
            [tunnel.ngrok]
            authtoken = "a"
            auth_token = "b"
            [tunnel.custom]
            url_pattern = "("
        "#,
        )
        .unwrap_err();
        for part in [
            "backend: there is no tunnel backend called ngork",
            "local_port: must be a whole number from 1 to 65535",
            "health_check_interval",
            "bakend: no such setting",
            "backoff_max_ms",
            "protocol",
            "hostname",
            "443, 8443 or 10000",
            "given as authtoken too",
            "command: is missing",
            "is not a pattern",
        ] {
            assert!(
                faults.iter().any(|fault| fault.contains(part)),
                "{part} in {faults:#?}"
            );
        }
    }

    #[test]
    fn a_missing_variable_is_named_where_it_is_needed_and_only_there() {
        let text = "tunnel.backend = \"B\"\n[tunnel.ngrok]\nauthtoken = \"${MY_NGROK}\"";
        let faults = read(&text.replace('B', "ngrok")).unwrap_err();
        assert!(faults[0].contains("MY_NGROK"), "{faults:?}");
        assert!(read(&text.replace('B', "bore")).is_ok());
    }

    #[test]
    fn kinds_of_cloudflare_tunnels() {
        let quick = read("tunnel.backend = \"cloudflare\"\ntunnel.mode = \"quick\"").unwrap();
        assert!(matches!(quick.cloudflare.mode, CloudflareMode::Quick));
        let own = "[tunnel.cloudflare]\ntunnel_id = \"t\"\ncredentials_file = \"/c.json\"";
        assert!(read(own).unwrap_err()[0].contains("hostname"));
        let own = read(&format!("{own}\nhostname = \"https://a.example/\"")).unwrap();
        assert!(
            matches!(&own.cloudflare.mode, CloudflareMode::Credentials { hostname, .. } if hostname == "a.example")
        );
        assert!(read("[tunnel.cloudflare]\nmode = \"quick\"\ntoken = \"x\"").is_err());
    }

    #[test]
    fn addresses_of_the_local_service() {
        for (text, host, port) in [
            ("127.0.0.1:3000", Some("127.0.0.1"), Some(3000)),
            ("http://localhost:80/", Some("localhost"), Some(80)),
            (":81", None, Some(81)),
            ("81", None, Some(81)),
            ("[::1]:82", Some("::1"), Some(82)),
            ("::1", Some("::1"), None),
            ("box", Some("box"), None),
        ] {
            let (told_host, told_port) = host_and_port(text).unwrap();
            assert_eq!((told_host.as_deref(), told_port), (host, port), "{text}");
        }
        for text in ["", "a/b", "a:b", "a:70000", "user@host"] {
            assert_eq!(host_and_port(text), None, "{text}");
        }
    }
}
