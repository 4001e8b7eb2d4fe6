//! The settings as flags, environment and file give them, before anybody asks whether they make sense.

use arp_agents::acp::AcpConfig;
use std::collections::BTreeMap;
use std::path::PathBuf;
use toml::Table;

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
    /// Also serve the API and console on this loopback address (127.0.0.1:9020).
    #[arg(long, value_name = "IP:PORT", env = "ARPC_LISTEN")]
    listen: std::net::SocketAddr,
    /// Origin of another site whose pages may use the API; may be given several times.
    #[arg(long, alias = "allowed-origins", value_name = "ORIGIN", env = "ARPC_ALLOWED_ORIGIN", value_delimiter = ',')]
    #[serde(alias = "allowed-origins")]
    allowed_origin: Vec<String>,
    /// Host name that requests may be for; any through the relay if none is given.
    #[arg(long, alias = "allowed-hosts", value_name = "HOST", env = "ARPC_ALLOWED_HOST", value_delimiter = ',')]
    #[serde(alias = "allowed-hosts")]
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
    /// Also open a tunnel, which needs no server of your own: auto, cloudflare, tailscale, ngrok, bore, custom. A
    /// relay is only used then if one is named.
    #[arg(long = "tunnel", value_name = "BACKEND", env = "ARPC_TUNNEL")]
    tunnel_backend: String,
    /// TOML file with the [tunnel] tables [default: those in the file given with --config].
    #[arg(long, value_name = "FILE", env = "ARPC_TUNNEL_CONFIG", global = true)]
    tunnel_config: PathBuf,
    /// Settings of tunnels (only in the file: [tunnel] and its tables).
    #[arg(skip)]
    tunnel: Table,
}

/// The data directory: as given, else the user's.
pub fn data_dir(given: Option<PathBuf>) -> PathBuf {
    given
        .or_else(|| directories::BaseDirs::new().map(|dirs| dirs.data_local_dir().join("arpc")))
        .unwrap_or_else(|| PathBuf::from("arpc"))
}
