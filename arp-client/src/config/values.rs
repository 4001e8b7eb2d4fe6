//! Single values of the configuration, read from what the settings say and checked.

use super::Mode;
use crate::command_settings;
use crate::gate::Gate;
use crate::settings::Settings;
use crate::trust::{self, Policy};
use arp_common::ids::ClientId;
use arp_common::private;
use arp_common::protocol::Secret;
use arp_common::tls::Files;

/// Largest file that holds a join key, in bytes.
const MAX_SECRET_FILE: usize = 4096;

pub(super) fn trust(s: &Settings, faults: &mut Vec<String>) -> Policy {
    let given = s.server_fingerprint.is_some() || s.server_ca.is_some();
    if given && s.plaintext == Some(true) {
        faults.push("--plaintext does not go with --server-fingerprint or --server-ca: without TLS nobody proves anything".into());
    }
    match (&s.server_fingerprint, &s.server_ca) {
        (Some(_), Some(_)) => faults.push("--server-fingerprint and --server-ca: give one of the two".into()),
        (Some(text), None) => match text.parse() {
            Ok(key) => return Policy::Fingerprint(key),
            Err(e) => faults.push(format!("--server-fingerprint {e}")),
        },
        (None, Some(from)) => match trust::authorities(from) {
            Ok(roots) => return Policy::Authorities(roots),
            Err(e) => faults.push(format!("--server-ca {e}")),
        },
        (None, None) => {}
    }
    Policy::FirstUse
}

/// The files of the certificate for TLS that ends here.
pub(super) fn certificate(s: &Settings, faults: &mut Vec<String>) -> Option<Files> {
    match (s.tls_cert.clone(), s.tls_key.clone()) {
        (Some(cert), Some(key)) => Some(Files { cert, key }),
        (None, None) => None,
        _ => {
            faults.push("--tls-cert and --tls-key go together: give both or none".into());
            None
        }
    }
}

/// Can it stand in front of a domain?
pub(crate) fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    name.split('.').all(label)
}

/// The port of a URL.
pub(super) fn port_of(url: &str) -> Option<u16> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    match authority.rsplit_once(':') {
        Some((_, port)) if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok(),
        _ => Some(if scheme.eq_ignore_ascii_case("https") {
            443
        } else {
            80
        }),
    }
}

pub(super) fn join_key(s: &Settings, faults: &mut Vec<String>) -> Option<Secret> {
    match (&s.join_key, &s.join_key_file) {
        (Some(_), Some(_)) => faults.push("--join-key and --join-key-file: give one of the two".into()),
        (Some(key), None) => return Some(Secret::new(key.clone())),
        (None, Some(path)) => match private::read(path, MAX_SECRET_FILE) {
            Ok(key) => return Some(Secret::new(String::from_utf8_lossy(&key).trim())),
            Err(e) => faults.push(format!("--join-key-file {e}")),
        },
        (None, None) => {}
    }
    None
}

pub(super) fn gate(s: &Settings, faults: &mut Vec<String>) -> Option<Gate> {
    let secrets = |given: &Option<Vec<String>>| given.iter().flatten().map(Secret::new).collect::<Vec<_>>();
    let gate = Gate {
        auth: secrets(&s.require_auth),
        keys: secrets(&s.require_key),
    };
    if gate
        .auth
        .iter()
        .any(|a| a.expose().split_once(':').is_none_or(|(_, p)| p.is_empty()))
    {
        faults.push("--require-auth must be user:password".into());
    }
    if gate.keys.iter().any(|k| k.expose().is_empty()) {
        faults.push("--require-key must not be empty".into());
    }
    (!gate.auth.is_empty() || !gate.keys.is_empty()).then_some(gate)
}

/// The rules of the two modes.
pub(super) fn mode_of(
    s: &Settings,
    id: Option<&ClientId>,
    services: bool,
    faults: &mut Vec<String>,
) -> Option<Mode> {
    let command = s.command_mode.unwrap_or(false);
    if command {
        if s.local_port.is_some() || s.local_addr.is_some() {
            faults.push(
                "--local-addr and --local-port do not go with --command-mode: choose one of the two modes"
                    .into(),
            );
            return None;
        }
        return Some(Mode::Command(Box::new(command_settings::read(s, id?, faults)?)));
    }
    for name in command_settings::given(s) {
        faults.push(format!("--{name} only goes with --command-mode"));
    }
    let host = unbracketed(s.local_addr.as_deref().unwrap_or("127.0.0.1"));
    match s.local_port {
        Some(port) if port != 0 => Some(Mode::Tcp { host, port }),
        None if services => Some(Mode::Services),
        _ => {
            let hint = "e.g. --local-port 3000; or give --command-mode for the AI agents of this machine";
            faults.push(format!(
                "--local-port is missing: the port of the local service, {hint}"
            ));
            None
        }
    }
}

pub(super) fn unbracketed(host: &str) -> String {
    host.strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host)
        .to_owned()
}
