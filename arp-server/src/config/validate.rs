//! From what was set to what makes sense: defaults are filled in, and all faults told at once.

use super::{AdminConfig, Config, Settings, data_dir};
use crate::admission::EdgeLimits;
use crate::defaults as d;
use crate::shared::PublicLimits;
use crate::store::Limits;
use crate::tcp::RawLimits;
use crate::tcp::ports::{self, PortLimits};
use crate::tunnels::limits::PoolLimits;
use arp_common::defaults::{CONTROL_PORT, HEARTBEAT, PROXY_PORT, PUBLIC_PORT};
use arp_common::origin::origin_of;
use arp_common::private;
use arp_common::protocol::Secret;
use arp_common::settings::ConfigError;
use arp_common::tls::Files;
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

impl Config {
    /// Validates settings and fills in defaults.
    ///
    /// # Errors
    /// All faults at once.
    pub fn new(settings: Settings) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let s = settings;
        let secs = |value: Option<u64>, default: Duration| value.map_or(default, Duration::from_secs);
        let limit = |value: Option<u64>| value.filter(|secs| *secs > 0).map(Duration::from_secs);
        let listens = [
            ("control-port", s.control_port.unwrap_or(CONTROL_PORT)),
            ("proxy-port", s.proxy_port.unwrap_or(PROXY_PORT)),
            ("public-port", s.public_port.unwrap_or(PUBLIC_PORT)),
            ("admin-port", s.admin_port.unwrap_or(d::ADMIN_PORT)),
        ];
        let with_admin = s.admin.unwrap_or(true);
        let used = &listens[..if with_admin { 4 } else { 3 }];
        for (i, (name, port)) in used.iter().enumerate() {
            if let Some((other, _)) = listens[..i].iter().find(|(_, p)| p == port && *p != 0) {
                faults.push(format!(
                    "--{name} and --{other} are both {port}: give each port of its own"
                ));
            }
        }
        for (name, value) in [
            ("max-tunnels", s.max_tunnels),
            ("max-conns", s.max_conns),
            ("max-conns-per-ip", s.max_conns_per_ip),
            ("max-clients", s.max_clients),
            ("max-edges-per-ip", s.max_edges_per_ip),
        ] {
            if value == Some(0) {
                faults.push(format!("--{name} must be at least 1"));
            }
        }
        for (name, value) in [
            ("tunnel-wait", s.tunnel_wait),
            ("head-timeout", s.head_timeout),
            ("keep-alive", s.keep_alive),
            ("response-timeout", s.response_timeout),
        ] {
            if value.is_some_and(|v| v == 0 || v > 7 * 24 * 3600) {
                faults.push(format!("--{name} must be between 1 and 604800 seconds"));
            }
        }
        if s.heartbeat.is_some_and(|h| h == 0 || h > HEARTBEAT.as_secs()) {
            faults.push(format!(
                "--heartbeat must be between 1 and {} seconds",
                HEARTBEAT.as_secs()
            ));
        }
        let target = s.pool_size.unwrap_or(d::POOL_SIZE);
        let max_tunnels = s.max_tunnels.unwrap_or(d::MAX_TUNNELS.max(target));
        if target > max_tunnels {
            faults.push(format!(
                "--pool-size {target} is above --max-tunnels {max_tunnels}"
            ));
        }
        let trusted_proxies = networks("trusted-proxy", s.trusted_proxy.as_deref(), &mut faults);
        let balancers = networks(
            "proxy-protocol-from",
            s.proxy_protocol_from.as_deref(),
            &mut faults,
        );
        if let Some(domain) = &s.domain
            && !is_domain(domain)
        {
            faults.push(format!(
                "--domain {domain}: not a host name such as arp.example.com"
            ));
        }
        let public_url = s.public_url.as_deref().map(PublicUrl::read);
        if let (Some(None), Some(url)) = (&public_url, &s.public_url) {
            faults.push(format!(
                "--public-url {url}: not a URL such as https://arp.example.com"
            ));
        }
        let public_url = public_url.flatten();
        let mut bans = Vec::new();
        for text in s.ban.iter().flatten() {
            match text.parse() {
                Ok(ban) => bans.push(ban),
                Err(e) => faults.push(format!("--ban {text}: {e}")),
            }
        }
        let join_key = secret("join-key", s.join_key, s.join_key_file, JOIN_KEY_MIN, &mut faults);
        let admin_key = secret(
            "admin-key",
            s.admin_key,
            s.admin_key_file,
            d::ADMIN_KEY_MIN,
            &mut faults,
        );
        let admin_bind = s.admin_bind.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let admin = with_admin.then_some(AdminConfig {
            bind: admin_bind,
            port: listens[3].1,
            named: s.admin_port.is_some(),
            key: admin_key,
        });
        let tls = match (s.tls_cert, s.tls_key) {
            (Some(cert), Some(key)) => Some(Files { cert, key }),
            (None, None) => None,
            _ => {
                faults.push("--tls-cert and --tls-key go together: give both or none".into());
                None
            }
        };
        let range = s.remote_ports.as_deref().map(ports::range).transpose();
        let range = range.unwrap_or_else(|e| {
            faults.push(format!("--remote-ports {e}"));
            None
        });
        if let Some(range) = &range {
            for (name, port) in listens.iter().filter(|(_, port)| range.contains(port)) {
                faults.push(format!(
                    "--remote-ports holds the port of --{name}, {port}: choose another range"
                ));
            }
        }
        if !faults.is_empty() {
            return Err(ConfigError(faults));
        }
        let max_clients = s.max_clients.unwrap_or(d::MAX_CLIENTS);
        Ok(Self {
            bind: s.bind,
            ports: PortLimits {
                range,
                per_client: s.remote_ports_per_client.unwrap_or(d::PORTS_PER_CLIENT),
                keep: secs(s.remote_port_keep, d::PORT_KEEP),
                bind: s.bind,
            },
            control_port: listens[0].1,
            proxy_port: listens[1].1,
            public_port: listens[2].1,
            pool: PoolLimits {
                target,
                max_tunnels,
                max_waiting: s.max_waiting.unwrap_or(d::MAX_WAITING),
                wait: secs(s.tunnel_wait, d::TUNNEL_WAIT),
            },
            public: PublicLimits {
                head_timeout: secs(s.head_timeout, d::HEAD_TIMEOUT),
                keep_alive: secs(s.keep_alive, d::KEEP_ALIVE),
                response_timeout: secs(s.response_timeout, d::RESPONSE_TIMEOUT),
                domain: s.domain.map(|d| d.to_ascii_lowercase()),
                trusted_proxies,
                balancers,
                public_host: public_url.as_ref().map(|url| url.host.clone()),
                hsts: s.hsts.filter(|secs| *secs > 0),
                raw: RawLimits {
                    idle: limit(Some(s.raw_idle.unwrap_or(d::RAW_IDLE.as_secs()))),
                    total: limit(s.raw_total),
                },
            },
            max_conns: s.max_conns.unwrap_or(d::MAX_CONNS),
            max_conns_per_ip: s.max_conns_per_ip.unwrap_or(d::MAX_CONNS_PER_IP),
            max_clients,
            edges: EdgeLimits {
                per_ip: s.max_edges_per_ip.unwrap_or(d::MAX_EDGES_PER_IP),
                new_names_per_ip: Some(s.max_new_names_per_ip.unwrap_or(d::NEW_NAMES_PER_IP))
                    .filter(|n| *n > 0),
                names: Limits {
                    names: d::MAX_BOUND_NAMES.max(max_clients.saturating_mul(4)),
                    per_key: d::MAX_NAMES_PER_KEY,
                },
            },
            public_url: public_url.map(|url| url.whole),
            allow_plaintext: s.allow_plaintext.unwrap_or(false),
            data_dir: data_dir(s.data_dir),
            join_key,
            bans,
            admin,
            tls,
            heartbeat: secs(s.heartbeat, HEARTBEAT),
            grace: secs(s.grace, d::GRACE),
            log_format: s.log_format.unwrap_or_default(),
        })
    }
}

/// A shorter join key could be guessed.
const JOIN_KEY_MIN: usize = 8;

/// A secret that is given itself or in a file; `flag` is the one for itself.
fn secret(
    flag: &str,
    given: Option<String>,
    file: Option<PathBuf>,
    min: usize,
    faults: &mut Vec<String>,
) -> Option<Secret> {
    let key = match (given, file) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            faults.push(format!("--{flag} and --{flag}-file: give one of the two"));
            return None;
        }
        (Some(key), None) => key,
        (None, Some(path)) => match private::read(&path, d::MAX_SECRET_FILE) {
            Ok(key) => String::from_utf8_lossy(&key).trim().to_owned(),
            Err(e) => {
                faults.push(format!("--{flag}-file {e}"));
                return None;
            }
        },
    };
    if key.len() < min {
        faults.push(format!(
            "the {} must have at least {min} characters; `openssl rand -hex 16` makes a good one",
            flag.replace('-', " ")
        ));
    }
    Some(Secret::new(key))
}

/// A URL by which visitors come, as browsers write it.
struct PublicUrl {
    /// All of it, without a slash at its end.
    whole: String,
    /// Its host, and its port unless that goes without saying.
    host: String,
}

impl PublicUrl {
    fn read(url: &str) -> Option<Self> {
        let origin = origin_of(url)?;
        let (_, rest) = url.split_once("://")?;
        let path = rest.find(['/', '?', '#']).map_or("", |at| &rest[at..]);
        let (_, host) = origin.split_once("://")?;
        Some(Self {
            host: host.to_owned(),
            whole: format!("{origin}{}", path.trim_end_matches('/')),
        })
    }
}

fn is_domain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

/// Reads networks, and single addresses.
fn networks(flag: &str, given: Option<&[String]>, faults: &mut Vec<String>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for text in given.unwrap_or_default() {
        match text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        {
            Ok(net) => networks.push(net),
            Err(_) => faults.push(format!("--{flag} {text}: not a network such as 10.0.0.0/8")),
        }
    }
    networks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_faults_are_told_at_once() {
        let settings = Settings {
            control_port: Some(1),
            proxy_port: Some(1),
            max_tunnels: Some(0),
            pool_size: Some(9),
            head_timeout: Some(0),
            trusted_proxy: Some(vec!["10.0.0.0/8".into(), "me".into()]),
            domain: Some("no spaces".into()),
            public_url: Some("ftp://x".into()),
            ..Settings::default()
        };
        assert_eq!(Config::new(settings).unwrap_err().0.len(), 7);
    }

    #[test]
    fn a_public_url_is_what_browsers_make_of_it() {
        let read = |url: &str| {
            let settings = Settings {
                public_url: Some(url.into()),
                ..Settings::default()
            };
            let config = Config::new(settings).unwrap();
            (config.public_url.unwrap(), config.public.public_host.unwrap())
        };
        let both = |url: &str, host: &str| (url.to_owned(), host.to_owned());
        assert_eq!(
            read("https://Arp.test:443/"),
            both("https://arp.test", "arp.test")
        );
        assert_eq!(
            read("http://arp.test:8080/x/"),
            both("http://arp.test:8080/x", "arp.test:8080")
        );
    }
}
