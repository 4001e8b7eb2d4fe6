//! The command line, and [`Settings`] made into a [`Config`] that is whole and makes sense.

use crate::command::CommandConfig;
use crate::command_settings;
use crate::defaults as d;
use crate::gate::Gate;
use crate::identity;
pub use crate::settings::{Settings, data_dir};
use crate::trust::{self, Policy};
use crate::tunnel_settings;
use arp_common::defaults::{CONTROL_PORT, PROXY_PORT, PUBLIC_PORT};
use arp_common::ids::{ClientId, Token};
use arp_common::private;
use arp_common::protocol::Secret;
use arp_common::settings::ConfigError;
use arp_tunnels::TunnelConfig;
use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

/// arpc, the edge agent of arp: makes a local service, or the AI agents of this machine, reachable
/// through a relay.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None, after_help = "Every flag can be set as ARPC_<FLAG> in the environment (ARPC_SERVER_ADDR=relay.example), or as <flag> in\nthe TOML file given with --config (server-addr = \"relay.example\"). Flags win over the environment, and it\nover the file.\n\nExamples:\n  arpc --server-addr relay.example --local-port 3000              a web service on port 3000\n  arpc --server-addr relay.example --command-mode                 the AI agents of this machine\n  arpc --command-mode --tunnel cloudflare                         the same without a relay of your own\n  arpc tunnel start --local-port 3000                             a web service, likewise")]
pub struct Cli {
    /// Read settings from this TOML file.
    #[arg(long, value_name = "FILE", env = "ARPC_CONFIG")]
    pub config: Option<PathBuf>,
    /// Check all settings, say what is wrong with them, and exit.
    #[arg(long)]
    pub check_config: bool,
    /// Do not draw the QR code of the public URL.
    #[arg(long)]
    pub no_qr: bool,
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,
    /// What to do besides running as a daemon.
    #[command(subcommand)]
    pub command: Option<crate::cli::Command>,
}

/// A relay's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Host name or address, without brackets.
    pub host: String,
    /// For the control channel.
    pub control_port: u16,
    /// For tunnels.
    pub proxy_port: u16,
}

/// What visitors reach.
#[derive(Debug, Clone)]
pub enum Mode {
    /// A local TCP service.
    Tcp {
        /// Host name or address, without brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// The AI agents of this machine.
    Command(Box<CommandConfig>),
}

/// Settings that are whole and make sense.
#[derive(Debug, Clone)]
pub struct Config {
    /// Our name.
    pub client_id: ClientId,
    /// Further names.
    pub tokens: Vec<Token>,
    /// The relay.
    pub server: Server,
    /// What visitors reach.
    pub mode: Mode,
    /// Connect again when the relay is lost.
    pub auto_reconnect: bool,
    /// Longest pause before that.
    pub reconnect_interval: Duration,
    /// Speak with the relay without TLS.
    pub plaintext: bool,
    /// Where key, pins and tokens are.
    pub data_dir: PathBuf,
    /// Which relay is the right one.
    pub trust: Policy,
    /// The relay's shared secret.
    pub join_key: Option<Secret>,
    /// Is the client id a token?
    pub id_token: bool,
    /// What visitors must show besides a token.
    pub gate: Option<Gate>,
    /// The tunnel to open.
    pub tunnel: Option<TunnelConfig>,
    /// Is a relay used? Always, unless there is a tunnel and no relay was named.
    pub relay: bool,
}

impl Config {
    /// Validates settings and fills in defaults.
    ///
    /// # Errors
    /// All faults at once.
    pub fn new(s: Settings) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let client_id = s.client_id.clone().unwrap_or_else(identity::derived_client_id);
        let client_id = client_id
            .parse::<ClientId>()
            .map_err(|e| faults.push(format!("--client-id {e}")))
            .ok();
        let mut tokens: Vec<Token> = Vec::new();
        for token in s.token.iter().flatten() {
            match token.parse::<Token>() {
                Ok(token) if tokens.contains(&token) => {}
                Ok(token) => tokens.push(token),
                Err(e) => faults.push(format!("--token {e}")),
            }
        }
        let mode = mode_of(&s, client_id.as_ref(), &tokens, &mut faults);
        if s.reconnect_interval == Some(0) {
            faults.push("--reconnect-interval must be at least 1 second".into());
        }
        for (name, port) in [("control-port", s.control_port), ("proxy-port", s.proxy_port)] {
            if port == Some(0) {
                faults.push(format!("--{name} must be the relay's port, not 0"));
            }
        }
        let host = unbracketed(s.server_addr.as_deref().unwrap_or("127.0.0.1"));
        if host.is_empty()
            || host.contains('/')
            || (host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err())
        {
            let hint = "give a host name or address alone; ports have flags of their own";
            faults.push(format!(
                "--server-addr {host}: {hint} (--control-port, --proxy-port)"
            ));
        }
        let trust = trust(&s, &mut faults);
        let join_key = join_key(&s, &mut faults);
        let gate = gate(&s, &mut faults);
        if gate.is_some() && s.command_mode == Some(true) {
            faults.push("--require-auth and --require-key are for a local service; with --command-mode use --edge-key".into());
        }
        let local = match &mode {
            Some(Mode::Tcp { host, port }) => Some((host.as_str(), *port)),
            Some(Mode::Command(_)) | None => None,
        };
        let tunnel = mode
            .is_some()
            .then(|| tunnel_settings::of_daemon(&s, local, &mut faults))
            .flatten();
        let relay_named = s.server_addr.is_some() || s.control_port.is_some() || s.proxy_port.is_some();
        let (Some(client_id), Some(mode), true) = (client_id, mode, faults.is_empty()) else {
            return Err(ConfigError(faults));
        };
        Ok(Self {
            client_id,
            tokens,
            server: Server {
                host,
                control_port: s.control_port.unwrap_or(CONTROL_PORT),
                proxy_port: s.proxy_port.unwrap_or(PROXY_PORT),
            },
            mode,
            auto_reconnect: s.auto_reconnect.unwrap_or(true),
            reconnect_interval: Duration::from_secs(s.reconnect_interval.unwrap_or(d::RECONNECT_INTERVAL)),
            plaintext: s.plaintext.unwrap_or(false),
            data_dir: data_dir(s.data_dir),
            trust,
            join_key,
            id_token: !s.no_id_token.unwrap_or(false),
            gate,
            relay: tunnel.is_none() || relay_named,
            tunnel,
        })
    }

    /// Where visitors find us by `token`; `told` is what the relay said of itself.
    pub fn public_url(&self, told: &Public, token: &str) -> String {
        let base = match &told.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => {
                let host = &self.server.host;
                let host = if host.contains(':') {
                    format!("[{host}]")
                } else {
                    host.clone()
                };
                let scheme = if told.tls { "https" } else { "http" };
                format!("{scheme}://{host}:{}", told.port.unwrap_or(PUBLIC_PORT))
            }
        };
        format!("{base}/?token={token}")
    }
}

/// What a relay says of its public side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Public {
    /// Its URL.
    pub url: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// Does that port take HTTPS?
    pub tls: bool,
}

/// Largest file that holds a join key, in bytes.
const MAX_SECRET_FILE: usize = 4096;

fn trust(s: &Settings, faults: &mut Vec<String>) -> Policy {
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

fn join_key(s: &Settings, faults: &mut Vec<String>) -> Option<Secret> {
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

fn gate(s: &Settings, faults: &mut Vec<String>) -> Option<Gate> {
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
fn mode_of(s: &Settings, id: Option<&ClientId>, tokens: &[Token], faults: &mut Vec<String>) -> Option<Mode> {
    let command = s.command_mode.unwrap_or(false);
    if command {
        if s.local_port.is_some() || s.local_addr.is_some() {
            faults.push(
                "--local-addr and --local-port do not go with --command-mode: choose one of the two modes"
                    .into(),
            );
            return None;
        }
        return Some(Mode::Command(Box::new(command_settings::read(
            s, id?, tokens, faults,
        )?)));
    }
    for name in command_settings::given(s) {
        faults.push(format!("--{name} only goes with --command-mode"));
    }
    let host = unbracketed(s.local_addr.as_deref().unwrap_or("127.0.0.1"));
    match s.local_port {
        Some(port) if port != 0 => Some(Mode::Tcp { host, port }),
        _ => {
            let hint = "e.g. --local-port 3000; or give --command-mode for the AI agents of this machine";
            faults.push(format!(
                "--local-port is missing: the port of the local service, {hint}"
            ));
            None
        }
    }
}

fn unbracketed(host: &str) -> String {
    host.strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Config, ConfigError> {
        let cli = Cli::parse_from([&["arpc"], args].concat());
        Config::new(cli.settings)
    }

    #[test]
    fn the_defaults_are_those_of_the_readme() {
        let c = parse(&["--local-port", "3000", "--client-id", "demo"]).unwrap();
        assert_eq!(
            c.server,
            Server {
                host: "127.0.0.1".into(),
                control_port: 17001,
                proxy_port: 17002
            }
        );
        assert!(matches!(&c.mode, Mode::Tcp { host, port: 3000 } if host == "127.0.0.1"));
        assert!(c.auto_reconnect && !c.plaintext);
        assert_eq!(
            c.public_url(&Public::default(), "demo"),
            "http://127.0.0.1:17003/?token=demo"
        );
        let v6 = parse(&["--local-port", "1", "--server-addr", "[::1]"]).unwrap();
        assert_eq!(
            v6.public_url(
                &Public {
                    url: None,
                    port: Some(80),
                    tls: false
                },
                "x"
            ),
            "http://[::1]:80/?token=x"
        );
        let told = Public {
            url: Some("https://relay.example/".into()),
            port: Some(80),
            tls: true,
        };
        assert_eq!(v6.public_url(&told, "x"), "https://relay.example/?token=x");
    }

    #[test]
    fn booleans_may_have_a_value() {
        let c = parse(&["--command-mode=true", "--auto-reconnect=false"]).unwrap();
        assert!(matches!(c.mode, Mode::Command(_)) && !c.auto_reconnect);
        assert!(parse(&["--command-mode=false"]).is_err());
    }

    #[test]
    fn the_rules_of_both_modes_are_kept_and_all_faults_told() {
        for (args, faults) in [
            (&[][..], 1),
            (&["--command-mode", "--local-port", "1"], 1),
            (&["--local-port", "1", "--enable-fs", "--enable-mcp"], 2),
            (
                &[
                    "--local-port",
                    "0",
                    "--client-id",
                    "a/b",
                    "--token",
                    "",
                    "--reconnect-interval",
                    "0",
                ],
                4,
            ),
            (&["--local-port", "1", "--server-addr", "http://relay:17001"], 1),
            (&["--local-port", "1", "--server-addr", "relay:17001"], 1),
        ] {
            assert_eq!(parse(args).unwrap_err().0.len(), faults, "{args:?}");
        }
    }
}
