//! Flags, environment and file, merged and validated whole.

use crate::command::CommandConfig;
use crate::command_settings;
use crate::defaults as d;
use crate::gate::Gate;
use crate::identity;
use crate::trust::{self, Policy};
use arp_agents::acp::AcpConfig;
use arp_common::defaults::{CONTROL_PORT, PROXY_PORT, PUBLIC_PORT};
use arp_common::ids::{ClientId, Token};
use arp_common::private;
use arp_common::protocol::Secret;
use arp_common::settings::ConfigError;
use clap::Parser;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// arpc, the edge agent of arp: makes a local service, or the AI agents of this machine, reachable
/// through a relay.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None, after_help = "Every flag can be set as ARPC_<FLAG> in the environment (ARPC_SERVER_ADDR=relay.example), or as <flag> in\nthe TOML file given with --config (server-addr = \"relay.example\"). Flags win over the environment, and it\nover the file.\n\nExamples:\n  arpc --server-addr relay.example --local-port 3000              a web service on port 3000\n  arpc --server-addr relay.example --command-mode                 the AI agents of this machine")]
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

arp_common::settings! {
    /// Name of this edge agent, and the token by which visitors reach it [default: derived from this
    /// machine and user; stays the same].
    #[arg(long, value_name = "ID", env = "ARPC_CLIENT_ID", global = true)]
    client_id: String,
    /// Directory for this machine's key, known relays, tokens and sessions [default: arpc in the user's local
    /// data directory].
    #[arg(long, value_name = "DIR", env = "ARPC_DATA_DIR", global = true)]
    data_dir: PathBuf,
    /// A further token by which visitors reach this edge agent; may be given several times.
    #[arg(long, value_name = "TOKEN", env = "ARPC_TOKEN", value_delimiter = ',')]
    token: Vec<String>,
    /// Address of the relay [default: 127.0.0.1].
    #[arg(long, value_name = "HOST", env = "ARPC_SERVER_ADDR")]
    server_addr: String,
    /// Control port of the relay [default: 17001].
    #[arg(long, value_name = "PORT", env = "ARPC_CONTROL_PORT")]
    control_port: u16,
    /// Proxy port of the relay [default: 17002].
    #[arg(long, value_name = "PORT", env = "ARPC_PROXY_PORT")]
    proxy_port: u16,
    /// Address of the local service [default: 127.0.0.1].
    #[arg(long, value_name = "HOST", env = "ARPC_LOCAL_ADDR")]
    local_addr: String,
    /// Port of the local service. Required unless --command-mode is given.
    #[arg(long, value_name = "PORT", env = "ARPC_LOCAL_PORT")]
    local_port: u16,
    /// Serve the AI agents of this machine instead of a local service.
    #[arg(long, env = "ARPC_COMMAND_MODE", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    command_mode: bool,
    /// Path of the claude program, if it is not found by itself.
    #[arg(long, value_name = "FILE", env = "ARPC_COMMAND_PATH")]
    command_path: PathBuf,
    /// Path of another agent's program, as EXECUTOR=FILE (codex=/opt/codex); may be given several times.
    #[arg(long, value_name = "EXECUTOR=FILE", env = "ARPC_AGENT_PATH", value_delimiter = ',')]
    agent_path: Vec<String>,
    /// Further agents that speak ACP, by executor name (only in the file: [acp.NAME] command, args, env).
    #[arg(skip)]
    acp: BTreeMap<String, AcpConfig>,
    /// Executor for requests that name none [default: the first agent found].
    #[arg(long, value_name = "NAME", env = "ARPC_DEFAULT_EXECUTOR")]
    default_executor: String,
    /// Let sessions run that ask nothing before they act (bypassPermissions, yolo, danger-full-access).
    #[arg(long, env = "ARPC_ALLOW_BYPASS", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_bypass: bool,
    /// Agents that may run at a time.
    #[arg(long, value_name = "N", env = "ARPC_MAX_SESSIONS")]
    max_sessions: usize,
    /// Seconds after which an approval that nobody answers is denied; 0 for never.
    #[arg(long, value_name = "SECS", env = "ARPC_APPROVAL_TIMEOUT")]
    approval_timeout: u64,
    /// Seconds after which an idle session's process is ended (the next message resumes it); 0 for never.
    #[arg(long, value_name = "SECS", env = "ARPC_PARK_AFTER")]
    park_after: u64,
    /// Days after which the record of a session that rests is forgotten (the agent's own history stays); 0 for
    /// never [default: 90].
    #[arg(long, value_name = "DAYS", env = "ARPC_KEEP_DAYS")]
    keep_days: u64,
    /// Gigabytes that the records of resting sessions may take; the oldest go first [default: 10].
    #[arg(long, value_name = "GB", env = "ARPC_KEEP_GB")]
    keep_gb: u64,
    /// Also serve the API and console on this loopback address (127.0.0.1:9020).
    #[arg(long, value_name = "IP:PORT", env = "ARPC_LISTEN")]
    listen: std::net::SocketAddr,
    /// Origin of another site whose pages may use the API; may be given several times.
    #[arg(long, value_name = "ORIGIN", env = "ARPC_ALLOWED_ORIGIN", value_delimiter = ',')]
    allowed_origin: Vec<String>,
    /// Host name that requests may be for; any through the relay if none is given.
    #[arg(long, value_name = "HOST", env = "ARPC_ALLOWED_HOST", value_delimiter = ',')]
    allowed_host: Vec<String>,
    /// A second secret that every request to the API needs; better given in the environment or the file.
    #[arg(long, value_name = "SECRET", env = "ARPC_EDGE_KEY", hide_env_values = true)]
    edge_key: String,
    /// Local port that visitors may reach by /proxy/PORT/; may be given several times.
    #[arg(long, value_name = "PORT", env = "ARPC_PROXY_PORTS", value_delimiter = ',')]
    proxy_ports: Vec<u16>,
    /// Directory that visitors may read with --enable-fs, besides those of the agents' projects.
    #[arg(long, value_name = "DIR", env = "ARPC_FS_ROOT", value_delimiter = ',')]
    fs_root: Vec<PathBuf>,
    /// Offer the MCP server (only with --command-mode).
    #[arg(long, env = "ARPC_ENABLE_MCP", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_mcp: bool,
    /// Port of the MCP server, on loopback [default: 9021].
    #[arg(long, value_name = "PORT", env = "ARPC_MCP_PORT")]
    mcp_port: u16,
    /// Let visitors read the files of the agents' projects (only with --command-mode).
    #[arg(long, env = "ARPC_ENABLE_FS", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_fs: bool,
    /// Connect again when the relay is lost [default: true].
    #[arg(long, env = "ARPC_AUTO_RECONNECT", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    auto_reconnect: bool,
    /// Longest pause before connecting again, in seconds [default: 5].
    #[arg(long, value_name = "SECS", env = "ARPC_RECONNECT_INTERVAL")]
    reconnect_interval: u64,
    /// Speak with the relay without TLS.
    #[arg(long, env = "ARPC_PLAINTEXT", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    plaintext: bool,
    /// Key that the relay must have (SHA256:…, as `arps fingerprint` prints it) [default: the one it shows at
    /// first contact].
    #[arg(long, value_name = "SHA256", env = "ARPC_SERVER_FINGERPRINT")]
    server_fingerprint: String,
    /// Trust a relay that has a certificate for its name from these authorities: a PEM file, or `system` for those
    /// of the operating system.
    #[arg(long, value_name = "FILE", env = "ARPC_SERVER_CA")]
    server_ca: String,
    /// Shared secret of a relay that takes only edge agents who know it (better given as ARPC_JOIN_KEY or in a
    /// file: other users see the flags of a process).
    #[arg(long, value_name = "SECRET", env = "ARPC_JOIN_KEY", hide_env_values = true)]
    join_key: String,
    /// File that holds the join key.
    #[arg(long, value_name = "FILE", env = "ARPC_JOIN_KEY_FILE")]
    join_key_file: PathBuf,
    /// Do not let visitors in by the client id: only by tokens.
    #[arg(long, env = "ARPC_NO_ID_TOKEN", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_id_token: bool,
    /// Visitors must also show this user and password, which the relay does not know (HTTP basic
    /// authentication; better given as ARPC_REQUIRE_AUTH); may be given several times.
    #[arg(long, value_name = "USER:PASSWORD", env = "ARPC_REQUIRE_AUTH", hide_env_values = true)]
    require_auth: Vec<String>,
    /// Visitors must also show this key, which the relay does not know (as X-ARP-Key or bearer token; better given
    /// as ARPC_REQUIRE_KEY); may be given several times.
    #[arg(long, value_name = "KEY", env = "ARPC_REQUIRE_KEY", hide_env_values = true)]
    require_key: Vec<String>,
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

/// The data directory: as given, else the user's.
pub fn data_dir(given: Option<PathBuf>) -> PathBuf {
    given
        .or_else(|| directories::BaseDirs::new().map(|dirs| dirs.data_local_dir().join("arpc")))
        .unwrap_or_else(|| PathBuf::from("arpc"))
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
