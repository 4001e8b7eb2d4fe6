//! The settings as flags, environment and file give them, before anybody asks whether they make sense.

use crate::services::ServiceTable;
use arp_agents::acp::AcpConfig;
use arp_common::logging::LogFormat;
use std::collections::BTreeMap;
use std::path::PathBuf;

arp_common::settings! {
    /// Address of the relay [default: 127.0.0.1].
    #[arg(long, value_name = "HOST", env = "ARPC_SERVER_ADDR", help_heading = "The relay")]
    server_addr: String,
    /// Control port of the relay [default: 17001].
    #[arg(long, value_name = "PORT", env = "ARPC_CONTROL_PORT", help_heading = "The relay")]
    control_port: u16,
    /// Proxy port of the relay, on which tunnels are opened [default: 17002].
    #[arg(long, value_name = "PORT", env = "ARPC_PROXY_PORT", help_heading = "The relay")]
    proxy_port: u16,
    /// Shared secret of a relay that takes only edge agents who know it.
    ///
    /// Better given as ARPC_JOIN_KEY or in a file: other users see the flags of a process.
    #[arg(long, value_name = "SECRET", env = "ARPC_JOIN_KEY", hide_env_values = true, help_heading = "The relay")]
    join_key: String,
    /// File that holds the join key.
    #[arg(long, value_name = "FILE", env = "ARPC_JOIN_KEY_FILE", help_heading = "The relay")]
    join_key_file: PathBuf,
    /// Key that the relay must have, as `arps fingerprint` prints it [default: the one it shows at first contact].
    #[arg(long, value_name = "SHA256", env = "ARPC_SERVER_FINGERPRINT", help_heading = "The relay", hide_short_help = true)]
    server_fingerprint: String,
    /// Trust a relay that has a certificate for its name from these authorities: a PEM file, or `system`.
    ///
    /// `system` stands for those that the operating system trusts.
    #[arg(long, value_name = "FILE", env = "ARPC_SERVER_CA", help_heading = "The relay", hide_short_help = true)]
    server_ca: String,
    /// Speak with the relay without TLS [default: false].
    ///
    /// Whoever is on the way can read and change everything. For relays that know no TLS.
    #[arg(long, env = "ARPC_PLAINTEXT", value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "The relay", hide_short_help = true)]
    plaintext: bool,
    /// Connect again when the relay is lost [default: true].
    #[arg(long, env = "ARPC_AUTO_RECONNECT", value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "The relay")]
    auto_reconnect: bool,
    /// Longest pause before connecting again, in seconds [default: 5].
    #[arg(long, value_name = "SECS", env = "ARPC_RECONNECT_INTERVAL", help_heading = "The relay")]
    reconnect_interval: u64,
    /// Name of this edge agent, and a token by which visitors reach it [default: derived from machine and user].
    ///
    /// Whoever knows it can visit. The derived one stays the same and cannot be guessed; it stands in ~/.arp-client/config.
    #[arg(long, value_name = "ID", env = "ARPC_CLIENT_ID", global = true, help_heading = "Names")]
    client_id: String,
    /// Certificate chain for NAME.DOMAIN, in PEM form; with --tls-key TLS ends here, and the relay cannot read it.
    ///
    /// For the console of --command-mode as for local services, on a relay with --domain. Read again when the files
    /// change. By plain HTTP the names are then not served.
    #[arg(long, value_name = "FILE", env = "ARPC_TLS_CERT", help_heading = "Names")]
    tls_cert: PathBuf,
    /// Private key of that certificate, in PEM form.
    #[arg(long, value_name = "FILE", env = "ARPC_TLS_KEY", help_heading = "Names")]
    tls_key: PathBuf,
    /// A further token by which visitors reach this edge agent; may be given several times.
    ///
    /// `arpc tokens add` adds one while arpc runs, and can let it expire.
    #[arg(long, value_name = "TOKEN", env = "ARPC_TOKEN", value_delimiter = ',', help_heading = "Names")]
    token: Vec<String>,
    /// Do not let visitors in by the client id: only by tokens [default: false].
    #[arg(long, env = "ARPC_NO_ID_TOKEN", value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Names", hide_short_help = true)]
    no_id_token: bool,
    /// Port of the local service. Required unless --command-mode is given.
    #[arg(long, value_name = "PORT", env = "ARPC_LOCAL_PORT", help_heading = "A local service")]
    local_port: u16,
    /// Address of the local service [default: 127.0.0.1].
    #[arg(long, value_name = "HOST", env = "ARPC_LOCAL_ADDR", help_heading = "A local service")]
    local_addr: String,
    /// A further local service, reached by a token of its own, as NAME=PORT or NAME=HOST:PORT; may be given several times.
    ///
    /// Alone, or beside --local-port or --command-mode. In the file also as tables: [services.NAME] with port, host,
    /// protocol, default-user, remote-port, proxy-protocol, tls-passthrough.
    #[arg(long, value_name = "NAME=PORT", env = "ARPC_SERVICE", value_delimiter = ',', help_heading = "A local service")]
    service: Vec<String>,
    /// Local services with more to say of them (only in the file: [services.NAME]).
    #[arg(skip)]
    services: BTreeMap<String, ServiceTable>,
    /// What the local service speaks: http, postgres, mysql, redis, ssh or tcp [default: mysql on port 3306, else whatever
    /// visitors speak].
    ///
    /// Only MySQL has to be told: there the server speaks first.
    #[arg(long, value_name = "NAME", env = "ARPC_PROTOCOL", help_heading = "A local service", hide_short_help = true)]
    protocol: String,
    /// Ask the relay for a port that leads to the local service without a token: a number, or `auto`.
    #[arg(long, value_name = "PORT", env = "ARPC_REMOTE_PORT", help_heading = "A local service")]
    remote_port: String,
    /// Tell the local service who its visitors are, by a header of the PROXY protocol in front of each raw connection: v1
    /// or v2 [default: no].
    #[arg(long, value_name = "VERSION", env = "ARPC_PROXY_PROTOCOL", help_heading = "A local service", hide_short_help = true)]
    proxy_protocol: String,
    /// The local service has a certificate and ends TLS itself: the relay passes https://NAME.DOMAIN on to it unread
    /// [default: false].
    ///
    /// It takes a relay with --domain. Plain HTTP through the relay is then refused there.
    #[arg(long, env = "ARPC_TLS_PASSTHROUGH", value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "A local service", hide_short_help = true)]
    tls_passthrough: bool,
    /// Database user that a visitor becomes who gives none [default: the user that runs arpc].
    #[arg(long, value_name = "USER", env = "ARPC_DEFAULT_USER", help_heading = "A local service", hide_short_help = true)]
    default_user: String,
    /// Visitors must also show this user and password, which the relay does not know; may be given several times.
    ///
    /// HTTP basic authentication. Better given as ARPC_REQUIRE_AUTH: other users see the flags of a process.
    #[arg(long, value_name = "USER:PASSWORD", env = "ARPC_REQUIRE_AUTH", hide_env_values = true, help_heading = "A local service", hide_short_help = true)]
    require_auth: Vec<String>,
    /// Visitors must also show this key, which the relay does not know; may be given several times.
    ///
    /// As X-ARP-Key or bearer token. Better given as ARPC_REQUIRE_KEY: other users see the flags of a process.
    #[arg(long, value_name = "KEY", env = "ARPC_REQUIRE_KEY", hide_env_values = true, help_heading = "A local service", hide_short_help = true)]
    require_key: Vec<String>,
    /// Serve the AI agents of this machine instead of a local service [default: false].
    #[arg(long, env = "ARPC_COMMAND_MODE", value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "The AI agents of this machine")]
    command_mode: bool,
    /// Path of the claude program, if it is not found by itself.
    #[arg(long, value_name = "FILE", env = "ARPC_COMMAND_PATH", help_heading = "The AI agents of this machine")]
    command_path: PathBuf,
    /// Path of another agent's program, as EXECUTOR=FILE (codex=/opt/codex); may be given several times.
    #[arg(long, value_name = "EXECUTOR=FILE", env = "ARPC_AGENT_PATH", value_delimiter = ',', help_heading = "The AI agents of this machine", hide_short_help = true)]
    agent_path: Vec<String>,
    /// Further agents that speak ACP, by executor name (only in the file: [acp.NAME] command, args, env).
    #[arg(skip)]
    acp: BTreeMap<String, AcpConfig>,
    /// Executor for requests that name none [default: the first agent found].
    #[arg(long, value_name = "NAME", env = "ARPC_DEFAULT_EXECUTOR", help_heading = "The AI agents of this machine", hide_short_help = true)]
    default_executor: String,
    /// Let sessions run that ask nothing before they act [default: false].
    ///
    /// (bypassPermissions, yolo, danger-full-access)
    #[arg(long, env = "ARPC_ALLOW_BYPASS", value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "The AI agents of this machine", hide_short_help = true)]
    allow_bypass: bool,
    /// Agents that may run at a time [default: 20].
    #[arg(long, value_name = "N", env = "ARPC_MAX_SESSIONS", help_heading = "The AI agents of this machine", hide_short_help = true)]
    max_sessions: usize,
    /// Seconds after which an approval that nobody answers is denied; 0 for never [default: 3600].
    #[arg(long, value_name = "SECS", env = "ARPC_APPROVAL_TIMEOUT", help_heading = "The AI agents of this machine", hide_short_help = true)]
    approval_timeout: u64,
    /// Seconds after which an idle session's process is ended; 0 for never [default: 1800].
    ///
    /// The next message resumes it.
    #[arg(long, value_name = "SECS", env = "ARPC_PARK_AFTER", help_heading = "The AI agents of this machine", hide_short_help = true)]
    park_after: u64,
    /// Days after which the record of a session that rests is forgotten (the agent's own history stays); 0 for
    /// never [default: 90].
    #[arg(long, value_name = "DAYS", env = "ARPC_KEEP_DAYS", help_heading = "The AI agents of this machine", hide_short_help = true)]
    keep_days: u64,
    /// Gigabytes that the records of resting sessions may take; the oldest go first [default: 10].
    #[arg(long, value_name = "GB", env = "ARPC_KEEP_GB", help_heading = "The AI agents of this machine", hide_short_help = true)]
    keep_gb: u64,
    /// A second secret that every request to the API needs [default: none].
    ///
    /// Better given in the environment or the file: other users see the flags of a process.
    #[arg(long, value_name = "SECRET", env = "ARPC_EDGE_KEY", hide_env_values = true, help_heading = "The AI agents of this machine", hide_short_help = true)]
    edge_key: String,
    /// Offer the MCP server [default: false].
    #[arg(long, env = "ARPC_ENABLE_MCP", value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "The AI agents of this machine")]
    enable_mcp: bool,
    /// Port of the MCP server, on loopback [default: 9021].
    #[arg(long, value_name = "PORT", env = "ARPC_MCP_PORT", help_heading = "The AI agents of this machine")]
    mcp_port: u16,
    /// Send the agents through the model gateway of this machine (arpc gateway), and start it where that is needed
    /// [default: false].
    ///
    /// By their environment and flags alone: their settings are not touched. docs/gateway.md tells what it does.
    #[arg(long, env = "ARPC_GATEWAY", value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "The AI agents of this machine")]
    gateway: bool,
    /// Let visitors read files [default: false].
    ///
    /// Below --fs-root, else below the directories in which you used agents at this machine.
    #[arg(long, env = "ARPC_ENABLE_FS", value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "The AI agents of this machine")]
    enable_fs: bool,
    /// Directory that visitors may read with --enable-fs, in place of those of the agents' projects.
    ///
    /// May be given several times.
    #[arg(long, value_name = "DIR", env = "ARPC_FS_ROOT", value_delimiter = ',', help_heading = "The AI agents of this machine", hide_short_help = true)]
    fs_root: Vec<PathBuf>,
    /// Local port that visitors may reach by /proxy/PORT/; may be given several times.
    #[arg(long, value_name = "PORT", env = "ARPC_PROXY_PORTS", value_delimiter = ',', help_heading = "The AI agents of this machine", hide_short_help = true)]
    proxy_ports: Vec<u16>,
    /// Also serve the API and console on this loopback address (127.0.0.1:9020).
    #[arg(long, value_name = "IP:PORT", env = "ARPC_LISTEN", help_heading = "The AI agents of this machine", hide_short_help = true)]
    listen: std::net::SocketAddr,
    /// Origin of another site whose pages may use the API; may be given several times.
    #[arg(long, alias = "allowed-origins", value_name = "ORIGIN", env = "ARPC_ALLOWED_ORIGIN", value_delimiter = ',', help_heading = "The AI agents of this machine", hide_short_help = true)]
    allowed_origin: Vec<String>,
    /// Host name that requests may be for; any through the relay if none is given.
    #[arg(long, alias = "allowed-hosts", value_name = "HOST", env = "ARPC_ALLOWED_HOST", value_delimiter = ',', help_heading = "The AI agents of this machine", hide_short_help = true)]
    allowed_host: Vec<String>,
    /// Directory for this machine's key, known relays, tokens and sessions [default: arpc in the local data directory].
    #[arg(long, value_name = "DIR", env = "ARPC_DATA_DIR", global = true, help_heading = "Running")]
    data_dir: PathBuf,
    /// How the log is written: text for people, or json, one object a line, for programs [default: text].
    #[arg(long, value_name = "FORMAT", env = "ARPC_LOG_FORMAT", help_heading = "Running", hide_short_help = true)]
    log_format: LogFormat,
    /// Do not draw the QR code of the public URL [default: false].
    #[arg(long, env = "ARPC_NO_QR", value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Running")]
    no_qr: bool,
    /// Also open a tunnel, which needs no server of your own: auto, cloudflare, tailscale, ngrok, bore, custom. A
    /// relay is only used then if one is named.
    #[arg(long = "tunnel", value_name = "BACKEND", env = "ARPC_TUNNEL", help_heading = "A public URL without a relay")]
    tunnel_backend: String,
    /// TOML file with the [tunnel] tables [default: those in the file given with --config].
    #[arg(long, value_name = "FILE", env = "ARPC_TUNNEL_CONFIG", global = true, help_heading = "A public URL without a relay")]
    tunnel_config: PathBuf,
    /// Settings of tunnels (only in the file: [tunnel] and its tables).
    #[arg(skip)]
    tunnel: BTreeMap<String, toml::Value>,
}

/// The data directory: as given, else the user's.
pub fn data_dir(given: Option<PathBuf>) -> PathBuf {
    given
        .or_else(|| directories::BaseDirs::new().map(|dirs| dirs.data_local_dir().join("arpc")))
        .unwrap_or_else(|| PathBuf::from("arpc"))
}
