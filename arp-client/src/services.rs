//! Local services that have names of their own: from flags and file to what is whole.

use crate::settings::Settings;
use arp_common::ids::{ClientId, Token};
use arp_common::protocol::Protocol;
use arp_common::proxy_header::Version;
use serde::Deserialize;

/// One local service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The token by which visitors reach it.
    pub token: Token,
    /// Host name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What it speaks, if that is known.
    pub protocol: Option<Protocol>,
    /// The user that a visitor becomes who gives none.
    pub default_user: Option<String>,
    /// The port of the relay that it wants for itself; 0 for any.
    pub remote_port: Option<u16>,
    /// Is it told who its visitors are?
    pub proxy_protocol: Option<Version>,
    /// Where the TLS of its visitors ends.
    pub ends_tls: EndsTls,
}

/// Where the TLS ends that visitors speak by a host name of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EndsTls {
    /// At the relay, if it has a certificate.
    #[default]
    Relay,
    /// Here, by our own certificate.
    Edge,
    /// At the local service.
    Service,
}

impl EndsTls {
    /// Is the relay to pass it on unread?
    pub fn passes(self) -> bool {
        self != Self::Relay
    }

    /// As a setting says, or else the certificate that there is.
    pub(crate) fn of(passthrough: Option<bool>, certificate: bool) -> Self {
        match passthrough {
            Some(true) => Self::Service,
            None if certificate => Self::Edge,
            _ => Self::Relay,
        }
    }
}

/// A table of the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServiceTable {
    port: u16,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    default_user: Option<String>,
    #[serde(default)]
    remote_port: Option<toml::Value>,
    #[serde(default)]
    proxy_protocol: Option<String>,
    #[serde(default)]
    tls_passthrough: Option<bool>,
}

/// Reads `--service` and `[services]`.
pub(crate) fn read(s: &Settings, id: Option<&ClientId>, faults: &mut Vec<String>) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    let flags = s.service.iter().flatten().map(|text| {
        let (name, at) = text.split_once('=').unwrap_or((text, ""));
        let (host, port) = at
            .rsplit_once(':')
            .map_or((None, at), |(host, port)| (Some(host), port));
        let table = ServiceTable {
            port: port.parse().unwrap_or(0),
            host: host.map(str::to_owned),
            protocol: None,
            default_user: None,
            remote_port: None,
            proxy_protocol: None,
            tls_passthrough: None,
        };
        (name.to_owned(), table, format!("--service {text}"))
    });
    let tables = s.services.iter().flatten();
    let tables = tables.map(|(name, table)| (name.clone(), table.clone(), format!("[services.{name}]")));
    for (name, table, place) in flags.chain(tables) {
        let token = match name.parse::<Token>() {
            Ok(token) => token,
            Err(e) => {
                faults.push(format!("{place}: the name {e}"));
                continue;
            }
        };
        let same = |other: &str| other.eq_ignore_ascii_case(token.as_str());
        if id.is_some_and(|id| same(id.as_str())) {
            faults.push(format!(
                "{place}: that is the client id, which leads to --local-port"
            ));
        } else if services.iter().any(|s| same(s.token.as_str())) || s.token.iter().flatten().any(|t| same(t))
        {
            faults.push(format!("{place}: the name is given twice"));
        }
        if table.port == 0 {
            faults.push(format!(
                "{place}: give it as NAME=PORT or NAME=HOST:PORT, as in db=5432"
            ));
        }
        let host = table.host.unwrap_or_else(|| "127.0.0.1".to_owned());
        let remote_port = table.remote_port.map(|port| port.to_string());
        services.push(Service {
            token,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: table.port,
            protocol: protocol(table.protocol.as_deref(), &place, faults).or_else(|| usual(table.port)),
            default_user: user(table.default_user.as_deref(), &place, faults),
            remote_port: remote_port
                .and_then(|port| self::remote_port(port.trim_matches('"'), &place, faults)),
            proxy_protocol: proxy_protocol(table.proxy_protocol.as_deref(), &place, faults),
            ends_tls: EndsTls::of(table.tls_passthrough, s.tls_cert.is_some()),
        });
    }
    services
}

/// What a service on this port speaks, if nobody says otherwise: visitors of MySQL have to be greeted, so the relay must
/// know of it before they come.
pub(crate) fn usual(port: u16) -> Option<Protocol> {
    (port == 3306).then_some(Protocol::Mysql)
}

/// Reads the name of a protocol.
pub(crate) fn protocol(name: Option<&str>, place: &str, faults: &mut Vec<String>) -> Option<Protocol> {
    match name?.parse() {
        Ok(protocol) => Some(protocol),
        Err(e) => {
            faults.push(format!("{place}: the protocol {e}"));
            None
        }
    }
}

/// Reads a port of the relay: a number, or `auto`.
pub(crate) fn remote_port(text: &str, place: &str, faults: &mut Vec<String>) -> Option<u16> {
    match (text, text.parse::<u16>()) {
        ("auto", _) => Some(0),
        (_, Ok(port)) if port > 0 => Some(port),
        _ => {
            faults.push(format!(
                "{place}: the port of the relay must be a number, or auto"
            ));
            None
        }
    }
}

/// Reads a version of the PROXY protocol.
pub(crate) fn proxy_protocol(text: Option<&str>, place: &str, faults: &mut Vec<String>) -> Option<Version> {
    match text?.parse() {
        Ok(version) => Some(version),
        Err(e) => {
            faults.push(format!("{place}: the version of the PROXY protocol {e}"));
            None
        }
    }
}

/// The user of those who give none: as set, else the one that runs us.
pub(crate) fn user(name: Option<&str>, place: &str, faults: &mut Vec<String>) -> Option<String> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => ["USER", "LOGNAME", "USERNAME"]
            .iter()
            .find_map(|variable| std::env::var(variable).ok())?,
    };
    if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
        faults.push(format!("{place}: the default user must have 1 to 128 characters"));
        return None;
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(text: &str) -> (Vec<Service>, Vec<String>) {
        let settings = Settings::from_toml(text, "test").unwrap();
        let mut faults = Vec::new();
        let id = "demo".parse().ok();
        let services = read(&settings, id.as_ref(), &mut faults);
        (services, faults)
    }

    #[test]
    fn flags_and_tables_are_one_list() {
        let (services, faults) = read_from(
            "service = [\"db=5432\", \"far=[::1]:80\"]\n[services.cache]\nport = 6379\nhost = \"10.0.0.1\"\n\
             protocol = \"redis\"\ndefault-user = \"bob\"\n",
        );
        assert!(faults.is_empty(), "{faults:?}");
        let short: Vec<_> = services
            .iter()
            .map(|s| (s.token.as_str(), s.host.as_str(), s.port, s.protocol))
            .collect();
        assert_eq!(
            short,
            [
                ("db", "127.0.0.1", 5432, None),
                ("far", "::1", 80, None),
                ("cache", "10.0.0.1", 6379, Some(Protocol::Redis)),
            ]
        );
        assert_eq!(services[2].default_user.as_deref(), Some("bob"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, told) in [
            ("service = [\"db\"]", "NAME=PORT"),
            ("service = [\"db=x\"]", "NAME=PORT"),
            ("service = [\"d/b=1\"]", "the name"),
            ("service = [\"demo=1\"]", "client id"),
            ("service = [\"a=1\", \"A=2\"]", "twice"),
            ("token = [\"a\"]\nservice = [\"a=2\"]", "twice"),
            (
                "[services.a]\nport = 1\nprotocol = \"gopher\"",
                "protocol must be",
            ),
        ] {
            let (_, faults) = read_from(text);
            assert!(
                faults.len() == 1 && faults[0].contains(told),
                "{text}: {faults:?}"
            );
        }
    }
}
