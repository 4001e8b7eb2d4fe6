//! From TOML, environment and flags to a [`TunnelConfig`]; all faults at once.

use super::backends;
use super::fields::{Fields, Variables};
use super::{Backend, Reconnect, TunnelConfig};
use crate::defaults as d;
use toml::{Table, Value};

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
    let cloudflare = backends::cloudflare(table, mode, variables);
    let tailscale = backends::tailscale(Fields::new(
        "tunnel.tailscale",
        tailscale,
        is(Backend::Tailscale),
        variables,
        faults,
    ));
    let (ngrok, ngrok_auth) = backends::ngrok(
        Fields::new("tunnel.ngrok", ngrok, is(Backend::Ngrok), variables, faults),
        variables,
    );
    let bore = backends::bore(
        Fields::new("tunnel.bore", bore, is(Backend::Bore), variables, faults),
        variables,
    );
    let given = custom.is_some();
    let custom = backends::custom(
        Fields::new("tunnel.custom", custom, is(Backend::Custom), variables, faults),
        given || is(Backend::Custom),
    );
    let given = arp.is_some();
    let arp = backends::arp(
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

/// A name or address that can stand in a URL and on a command line.
pub(super) fn is_host(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':'))
}

#[cfg(test)]
mod tests {
    use super::super::{CloudflareMode, UrlSource};
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
