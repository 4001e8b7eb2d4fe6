//! Reads the tables of the backends, `[tunnel.cloudflare]` and its kin.

use super::fields::{Fields, Variables};
use super::read::is_host;
use super::{Access, Arp, Bore, Cloudflare, CloudflareMode, Custom, Ngrok, Protocol, Tailscale, UrlSource};
use crate::defaults as d;
use arp_common::protocol::Secret;
use regex_lite::Regex;
use std::path::PathBuf;
use toml::Value;

/// Ports that Tailscale Funnel may use.
const FUNNEL_PORTS: [u16; 3] = [443, 8443, 10000];

pub(super) fn cloudflare(
    mut table: Fields<'_>,
    mode: Option<String>,
    variables: Variables<'_>,
) -> Cloudflare {
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

pub(super) fn tailscale(mut table: Fields<'_>) -> Tailscale {
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

pub(super) fn ngrok(mut table: Fields<'_>, variables: Variables<'_>) -> (Ngrok, Option<Secret>) {
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

pub(super) fn bore(mut table: Fields<'_>, variables: Variables<'_>) -> Bore {
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

pub(super) fn custom(mut table: Fields<'_>, wanted: bool) -> Option<Custom> {
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

pub(super) fn arp(mut table: Fields<'_>, wanted: bool, variables: Variables<'_>) -> Option<Arp> {
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
