//! Flags, environment and file, merged and validated whole.

use crate::admission::EdgeLimits;
use crate::bans::Ban;
use crate::cli::Action;
use crate::data;
use crate::defaults as d;
use crate::shared::PublicLimits;
use crate::store::Limits;
use crate::tcp::RawLimits;
use crate::tcp::ports::{self, PortLimits};
use crate::tunnels::pool::PoolLimits;
use arp_common::defaults::{CONTROL_PORT, HEARTBEAT, PROXY_PORT, PUBLIC_PORT};
use arp_common::logging::LogFormat;
use arp_common::origin::origin_of;
use arp_common::private;
use arp_common::protocol::Secret;
use arp_common::settings::ConfigError;
use arp_common::tls::{Certificate, Files};
use clap::Parser;
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// arps, the relay of arp: carries visitors to edge agents behind NAT.
///
/// Edge agents (arpc) register on the control port and open tunnels on the proxy port; visitors come to the public
/// port, and each of their requests goes into a tunnel of the client that its token names.
#[derive(Debug, Parser)]
#[command(
    version = crate::VERSION,
    after_help = "Start it without flags, and it serves on the ports 17001 to 17003. More flags: --help",
    after_long_help = AFTER_HELP
)]
pub struct Cli {
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,
    /// Read settings from this TOML file.
    #[arg(long, value_name = "FILE", env = "ARPS_CONFIG", help_heading = "Running")]
    pub config: Option<PathBuf>,
    /// Check all settings and the files they name, say what is wrong, and exit.
    #[arg(long, help_heading = "Running")]
    pub check_config: bool,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub action: Option<Action>,
}

const AFTER_HELP: &str = "\
Every flag can be set as ARPS_<FLAG> in the environment (ARPS_PUBLIC_PORT=80), or as <flag> in the TOML file
given with --config (public-port = 80). Flags win over the environment, and it over the file. RUST_LOG=debug
shows each request.

Exit codes: 0 it was told to stop, or the command is done; 1 it failed; 2 wrong flags or settings;
130 it was told to stop at once (a second Ctrl-C).

Examples:
  arps                                                        for everybody, on the ports 17001 to 17003
  arps --join-key-file /etc/arps/join-key                     only for edge agents that know the key
  arps --tls-cert cert.pem --tls-key key.pem --public-port 443    visitors by HTTPS
  arps --domain arp.example.com                               a host name for each client
  arps clients                                                who is known, who is online";

arp_common::settings! {
    /// Port on which edge agents register [default: 17001].
    #[arg(long, value_name = "PORT", env = "ARPS_CONTROL_PORT", help_heading = "Ports")]
    control_port: u16,
    /// Port on which edge agents open tunnels [default: 17002].
    #[arg(long, value_name = "PORT", env = "ARPS_PROXY_PORT", help_heading = "Ports")]
    proxy_port: u16,
    /// Port on which visitors come [default: 17003].
    ///
    /// It speaks plain HTTP unless there is a certificate (--tls-cert), or a proxy that does TLS in front.
    #[arg(long, value_name = "PORT", env = "ARPS_PUBLIC_PORT", help_heading = "Ports")]
    public_port: u16,
    /// Ports that edge agents may have for a service of theirs (20000-20999): raw TCP, without a token [default: none].
    ///
    /// A port stays reserved for its service while the edge agent is away.
    #[arg(long, value_name = "FROM-TO", env = "ARPS_REMOTE_PORTS", help_heading = "Ports", hide_short_help = true)]
    remote_ports: String,
    /// Ports that one edge agent may have [default: 8].
    #[arg(long, value_name = "N", env = "ARPS_REMOTE_PORTS_PER_CLIENT", help_heading = "Ports", hide_short_help = true)]
    remote_ports_per_client: usize,
    /// Seconds for which a port stays reserved for an edge agent that is away [default: 2592000].
    #[arg(long, value_name = "SECS", env = "ARPS_REMOTE_PORT_KEEP", help_heading = "Ports", hide_short_help = true)]
    remote_port_keep: u64,
    /// Address to listen on [default: all, IPv6 and IPv4].
    #[arg(long, value_name = "IP", env = "ARPS_BIND", help_heading = "Ports")]
    bind: IpAddr,

    /// Open the admin port: status, metrics and a page for the operator [default: true].
    #[arg(long, env = "ARPS_ADMIN", value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Admin", hide_short_help = true)]
    admin: bool,
    /// Port of status, metrics and the operator's page [default: 17004].
    ///
    /// If nothing is said and the port is taken, the relay does without.
    #[arg(long, value_name = "PORT", env = "ARPS_ADMIN_PORT", help_heading = "Admin")]
    admin_port: u16,
    /// Address of the admin port [default: 127.0.0.1].
    ///
    /// It speaks plain HTTP: let other machines reach it only through a tunnel or a proxy that does TLS.
    #[arg(long, value_name = "IP", env = "ARPS_ADMIN_BIND", help_heading = "Admin", hide_short_help = true)]
    admin_bind: IpAddr,
    /// Key of the admin port [default: in the file admin-key of the data directory, made at the first start].
    #[arg(long, value_name = "SECRET", env = "ARPS_ADMIN_KEY", hide_env_values = true, help_heading = "Admin", hide_short_help = true)]
    admin_key: String,
    /// File that holds the key of the admin port.
    #[arg(long, value_name = "FILE", env = "ARPS_ADMIN_KEY_FILE", help_heading = "Admin", hide_short_help = true)]
    admin_key_file: PathBuf,

    /// Domain whose subdomains are tokens: <token>.<domain> reaches a client.
    ///
    /// Each client then has a browser origin of its own. It needs a DNS record for *.<domain>.
    #[arg(long, value_name = "NAME", env = "ARPS_DOMAIN", help_heading = "Visitors")]
    domain: String,
    /// URL at which visitors find this relay, for the edge agents to print (https://relay.example).
    #[arg(long, value_name = "URL", env = "ARPS_PUBLIC_URL", help_heading = "Visitors")]
    public_url: String,
    /// Certificate chain of the public port, in PEM form; with --tls-key visitors come by HTTPS.
    ///
    /// Those who come without are redirected. The file is read again when it changes.
    #[arg(long, value_name = "FILE", env = "ARPS_TLS_CERT", help_heading = "Visitors")]
    tls_cert: PathBuf,
    /// Private key of that certificate, in PEM form.
    #[arg(long, value_name = "FILE", env = "ARPS_TLS_KEY", help_heading = "Visitors")]
    tls_key: PathBuf,
    /// Seconds for which browsers are to remember that this host speaks HTTPS only (HSTS) [default: off].
    ///
    /// With --tls-cert, or behind a trusted proxy that does TLS.
    #[arg(long, value_name = "SECS", env = "ARPS_HSTS", help_heading = "Visitors", hide_short_help = true)]
    hsts: u64,
    /// Network of proxies (10.0.0.0/8) whose X-Forwarded-* is believed; may be given several times.
    #[arg(long, value_name = "CIDR", env = "ARPS_TRUSTED_PROXY", value_delimiter = ',', help_heading = "Visitors")]
    trusted_proxy: Vec<String>,

    /// Network of balancers (10.0.0.0/8) whose connections to the public port begin with a header of the PROXY protocol,
    /// v1 or v2; may be given several times.
    #[arg(long, value_name = "CIDR", env = "ARPS_PROXY_PROTOCOL_FROM", value_delimiter = ',', help_heading = "Visitors", hide_short_help = true)]
    proxy_protocol_from: Vec<String>,

    /// Shared secret that edge agents must know to register [default: none, everybody may].
    ///
    /// Better given as ARPS_JOIN_KEY or in a file: other users see the flags of a process.
    #[arg(long, value_name = "SECRET", env = "ARPS_JOIN_KEY", hide_env_values = true, help_heading = "Edge agents")]
    join_key: String,
    /// File that holds the join key.
    #[arg(long, value_name = "FILE", env = "ARPS_JOIN_KEY_FILE", help_heading = "Edge agents")]
    join_key_file: PathBuf,
    /// Client id, key (its fingerprint) or network (10.0.0.0/8) of edge agents that may not register; may be given
    /// several times.
    ///
    /// `arps clients ban` does the same while the relay runs.
    #[arg(long, value_name = "WHO", env = "ARPS_BAN", value_delimiter = ',', help_heading = "Edge agents", hide_short_help = true)]
    ban: Vec<String>,
    /// Take edge agents without TLS [default: false].
    ///
    /// What they carry can be read and changed on the way, and their names are bound to no key.
    #[arg(long, env = "ARPS_ALLOW_PLAINTEXT", value_name = "BOOL", hide_possible_values = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Edge agents")]
    allow_plaintext: bool,
    /// Seconds between signs of life on a control channel; three missed ones are a lost edge [default: 15].
    #[arg(long, value_name = "SECS", env = "ARPS_HEARTBEAT", help_heading = "Edge agents", hide_short_help = true)]
    heartbeat: u64,

    /// Idle tunnels to keep ready for each client [default: 5].
    #[arg(long, value_name = "N", env = "ARPS_POOL_SIZE", help_heading = "Limits")]
    pool_size: usize,
    /// Tunnels one client may have, idle and in use; one visitor address can use half of them [default: 1024].
    #[arg(long, value_name = "N", env = "ARPS_MAX_TUNNELS", help_heading = "Limits", hide_short_help = true)]
    max_tunnels: usize,
    /// Requests that may wait for a tunnel of one client; more are answered 503 [default: 2048].
    #[arg(long, value_name = "N", env = "ARPS_MAX_WAITING", help_heading = "Limits", hide_short_help = true)]
    max_waiting: usize,
    /// Seconds a request waits for a tunnel before it is answered 504 [default: 10].
    #[arg(long, value_name = "SECS", env = "ARPS_TUNNEL_WAIT", help_heading = "Limits", hide_short_help = true)]
    tunnel_wait: u64,
    /// Seconds a visitor has for a request head once it has begun [default: 15].
    #[arg(long, value_name = "SECS", env = "ARPS_HEAD_TIMEOUT", help_heading = "Limits", hide_short_help = true)]
    head_timeout: u64,
    /// Seconds a visitor may keep a connection open without a request [default: 75].
    #[arg(long, value_name = "SECS", env = "ARPS_KEEP_ALIVE", help_heading = "Limits", hide_short_help = true)]
    keep_alive: u64,
    /// Seconds a local service may take to begin its answer [default: 900].
    #[arg(long, value_name = "SECS", env = "ARPS_RESPONSE_TIMEOUT", help_heading = "Limits", hide_short_help = true)]
    response_timeout: u64,
    /// Seconds a raw connection (CONNECT, ?token= line, database) may be silent; 0 for any time [default: 86400].
    #[arg(long, value_name = "SECS", env = "ARPS_RAW_IDLE", help_heading = "Limits", hide_short_help = true)]
    raw_idle: u64,
    /// Seconds a raw connection may last in all; 0 for any time [default: 0].
    #[arg(long, value_name = "SECS", env = "ARPS_RAW_TOTAL", help_heading = "Limits", hide_short_help = true)]
    raw_total: u64,
    /// Connections of visitors, all together [default: 20000].
    #[arg(long, value_name = "N", env = "ARPS_MAX_CONNS", help_heading = "Limits", hide_short_help = true)]
    max_conns: usize,
    /// Connections from one visitor address (IPv6: one /64) [default: 1024].
    #[arg(long, value_name = "N", env = "ARPS_MAX_CONNS_PER_IP", help_heading = "Limits", hide_short_help = true)]
    max_conns_per_ip: usize,
    /// Clients that may be registered at a time [default: 10000].
    #[arg(long, value_name = "N", env = "ARPS_MAX_CLIENTS", help_heading = "Limits", hide_short_help = true)]
    max_clients: usize,
    /// Edge agents of one address (IPv6: one /64) that may be registered at a time [default: 1024].
    #[arg(long, value_name = "N", env = "ARPS_MAX_EDGES_PER_IP", help_heading = "Limits", hide_short_help = true)]
    max_edges_per_ip: usize,
    /// Names that one address may register for the first time in an hour; 0 for any number [default: 512].
    ///
    /// Names are kept for good, so a stranger could use them up. With a join key there is no such limit.
    #[arg(long, value_name = "N", env = "ARPS_MAX_NEW_NAMES_PER_IP", help_heading = "Limits", hide_short_help = true)]
    max_new_names_per_ip: usize,

    /// Directory for the relay's key and its key bindings [default: arps in the user's local data directory].
    ///
    /// Under systemd: the StateDirectory. Keep a backup of it: it says which key holds which name.
    #[arg(long, value_name = "DIR", env = "ARPS_DATA_DIR", global = true, help_heading = "Running")]
    data_dir: PathBuf,
    /// How the log is written: text for people, or json, one object a line, for programs [default: text].
    #[arg(long, value_name = "FORMAT", env = "ARPS_LOG_FORMAT", help_heading = "Running", hide_short_help = true)]
    log_format: LogFormat,
    /// Seconds that exchanges have to finish after SIGTERM [default: 30].
    #[arg(long, value_name = "SECS", env = "ARPS_GRACE", help_heading = "Running", hide_short_help = true)]
    grace: u64,
}

/// Settings that are whole and make sense.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on; all if not set.
    pub bind: Option<IpAddr>,
    /// Control port; 0 for any.
    pub control_port: u16,
    /// Proxy port; 0 for any.
    pub proxy_port: u16,
    /// Public port; 0 for any.
    pub public_port: u16,
    /// For every client's pool.
    pub pool: PoolLimits,
    /// For visitors.
    pub public: PublicLimits,
    /// Visitor connections in all.
    pub max_conns: usize,
    /// Visitor connections from one address.
    pub max_conns_per_ip: usize,
    /// Clients registered at a time.
    pub max_clients: usize,
    /// For edges.
    pub edges: EdgeLimits,
    /// URL at which visitors find the relay.
    pub public_url: Option<String>,
    /// Take edges without TLS.
    pub allow_plaintext: bool,
    /// Where the key and the key bindings are.
    pub data_dir: PathBuf,
    /// What an edge must know to register.
    pub join_key: Option<Secret>,
    /// Edges that may not register.
    pub bans: Vec<Ban>,
    /// The admin port, if it is to be opened.
    pub admin: Option<AdminConfig>,
    /// Certificate of the public port.
    pub tls: Option<Files>,
    /// Between signs of life on a control channel.
    pub heartbeat: Duration,
    /// For exchanges after the signal to stop.
    pub grace: Duration,
    /// How the log is written.
    pub log_format: LogFormat,
    /// Ports that edges may have for themselves.
    pub ports: PortLimits,
}

impl Config {
    /// Opens the certificate that the settings name.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn try_tls(&self) -> Result<(), ConfigError> {
        let loaded = self.tls.clone().map(Certificate::load).transpose();
        loaded
            .map(|_| ())
            .map_err(|e| ConfigError(vec![format!("--tls-cert, --tls-key: {e}")]))
    }
}

/// The admin port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Address to listen on.
    pub bind: IpAddr,
    /// Its port; 0 for any.
    pub port: u16,
    /// Was the port asked for by number? Then it must be had.
    pub named: bool,
    /// Its key; that in the data directory if there is none.
    pub key: Option<Secret>,
}

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

    /// Opens what the settings name: certificates, keys, directories. Changes nothing.
    ///
    /// # Errors
    /// All faults at once.
    pub fn try_files(&self) -> Result<(), ConfigError> {
        let mut faults = self.try_tls().err().map_or_else(Vec::new, |e| e.0);
        faults.extend(
            data::faults(&self.data_dir)
                .into_iter()
                .map(|e| format!("--data-dir: {e}")),
        );
        if faults.is_empty() {
            Ok(())
        } else {
            Err(ConfigError(faults))
        }
    }
}

/// The settings that differ: those that can be changed while the relay serves, and those that cannot.
pub fn changes(old: &Config, new: &Config) -> (Vec<String>, Vec<String>) {
    let (mut live, mut fixed) = (Vec::new(), Vec::new());
    let mut look = |changed: bool, names: &[&str], can_change: bool| {
        if changed {
            let list = if can_change { &mut live } else { &mut fixed };
            list.extend(names.iter().map(|name| format!("--{name}")));
        }
    };
    let (a, b) = (&old.pool, &new.pool);
    look(a.target != b.target, &["pool-size"], true);
    look(a.max_tunnels != b.max_tunnels, &["max-tunnels"], true);
    look(a.max_waiting != b.max_waiting, &["max-waiting"], true);
    look(a.wait != b.wait, &["tunnel-wait"], true);
    let (a, b) = (&old.public, &new.public);
    look(a.head_timeout != b.head_timeout, &["head-timeout"], true);
    look(a.keep_alive != b.keep_alive, &["keep-alive"], true);
    look(
        a.response_timeout != b.response_timeout,
        &["response-timeout"],
        true,
    );
    look(a.domain != b.domain, &["domain"], true);
    look(a.trusted_proxies != b.trusted_proxies, &["trusted-proxy"], true);
    look(a.hsts != b.hsts, &["hsts"], true);
    look(old.public_url != new.public_url, &["public-url"], true);
    look(old.max_conns != new.max_conns, &["max-conns"], true);
    look(
        old.max_conns_per_ip != new.max_conns_per_ip,
        &["max-conns-per-ip"],
        true,
    );
    look(old.max_clients != new.max_clients, &["max-clients"], true);
    look(old.edges.per_ip != new.edges.per_ip, &["max-edges-per-ip"], true);
    let names = |c: &Config| c.edges.new_names_per_ip;
    look(names(old) != names(new), &["max-new-names-per-ip"], true);
    look(old.join_key != new.join_key, &["join-key"], true);
    look(old.bans != new.bans, &["ban"], true);
    look(old.heartbeat != new.heartbeat, &["heartbeat"], true);
    look(old.grace != new.grace, &["grace"], true);
    let key = |c: &Config| c.admin.as_ref().and_then(|a| a.key.clone());
    // Back to the one of the data directory is another start.
    look(
        key(old) != key(new),
        &["admin-key"],
        key(old).is_some() && key(new).is_some(),
    );
    look(old.tls != new.tls, &["tls-cert", "tls-key"], false);
    look(old.bind != new.bind, &["bind"], false);
    look(old.control_port != new.control_port, &["control-port"], false);
    look(old.proxy_port != new.proxy_port, &["proxy-port"], false);
    look(old.public_port != new.public_port, &["public-port"], false);
    look(
        old.allow_plaintext != new.allow_plaintext,
        &["allow-plaintext"],
        false,
    );
    look(old.data_dir != new.data_dir, &["data-dir"], false);
    look(old.log_format != new.log_format, &["log-format"], false);
    let place = |c: &Config| c.admin.as_ref().map(|a| (a.bind, a.port));
    look(
        place(old) != place(new),
        &["admin", "admin-bind", "admin-port"],
        false,
    );
    (live, fixed)
}

/// The data directory: as given, else where systemd says, else the user's.
pub fn data_dir(given: Option<PathBuf>) -> PathBuf {
    given
        .or_else(|| std::env::var_os("STATE_DIRECTORY").map(PathBuf::from))
        .or_else(|| directories::BaseDirs::new().map(|dirs| dirs.data_local_dir().join("arps")))
        .unwrap_or_else(|| PathBuf::from("arps-data"))
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
    use clap::CommandFactory;

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

    #[test]
    fn flags_win_over_the_file() {
        let file = "public-port = 80\npool-size = 2\nallow-plaintext = true";
        let file = Settings::from_toml(file, "file").unwrap();
        let flags = Cli::parse_from(["arps", "--public-port", "0", "--trusted-proxy", "10.0.0.0/8,::1"]);
        let config = Config::new(flags.settings.or(file)).unwrap();
        assert_eq!(
            (config.public_port, config.pool.target, config.allow_plaintext),
            (0, 2, true)
        );
        assert_eq!(config.public.trusted_proxies.len(), 2);
        assert!(Settings::from_toml("pubic-port = 80", "file").is_err());
    }

    #[test]
    fn the_example_holds_every_setting_and_can_be_read() {
        let papers = arp_common::selfdoc::Papers::Config {
            action: arp_common::selfdoc::ConfigAction::Example,
        };
        let mut text = Vec::new();
        arp_common::selfdoc::write(&papers, Cli::command(), &Settings::examples(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            Settings::from_toml(&text, "example").unwrap(),
            Settings::default()
        );
        let all = Settings::from_toml(&arp_common::selfdoc::uncommented(&text), "example").unwrap();
        assert_eq!(
            (all.public_port, all.pool_size, all.admin),
            (Some(17003), Some(5), Some(true))
        );
        for key in Settings::keys() {
            assert!(text.contains(&format!("\n#{key} = ")), "{key}");
        }
    }

    /// What a flag is, is also a key of the file and a variable of the environment, and belongs to a group.
    #[test]
    fn every_flag_is_a_key_and_a_variable() {
        let mut command = Cli::command();
        command.build();
        let flags = command.get_arguments().filter(|a| a.get_long().is_some());
        let mut names: Vec<String> = Vec::new();
        for flag in flags {
            let name = flag.get_long().unwrap().to_owned();
            if ["help", "version", "check-config"].contains(&name.as_str()) {
                continue;
            }
            let variable = format!("ARPS_{}", name.to_uppercase().replace('-', "_"));
            assert_eq!(
                flag.get_env().and_then(|v| v.to_str()),
                Some(&*variable),
                "{name}"
            );
            assert!(flag.get_help_heading().is_some(), "{name}");
            // The file that is read cannot say which one that is.
            if name != "config" {
                names.push(name);
            }
        }
        let mut keys = Settings::keys();
        keys.sort();
        names.sort();
        assert_eq!(names, keys);
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let long = Cli::command().render_long_help().to_string();
        let help = long.split_whitespace().collect::<Vec<_>>().join(" ");
        let config = Config::new(Settings::default()).unwrap();
        let told = |flag: &str| -> u64 {
            let rest = help.split_once(&format!("--{flag} <")).unwrap().1;
            let number = rest.split_once("[default: ").unwrap().1;
            number.split_once(']').unwrap().0.parse().unwrap()
        };
        for (flag, value) in [
            ("control-port", u64::from(config.control_port)),
            ("proxy-port", config.proxy_port.into()),
            ("public-port", config.public_port.into()),
            ("admin-port", config.admin.unwrap().port.into()),
            ("pool-size", config.pool.target as u64),
            ("max-tunnels", config.pool.max_tunnels as u64),
            ("max-waiting", config.pool.max_waiting as u64),
            ("tunnel-wait", config.pool.wait.as_secs()),
            ("head-timeout", config.public.head_timeout.as_secs()),
            ("keep-alive", config.public.keep_alive.as_secs()),
            ("response-timeout", config.public.response_timeout.as_secs()),
            ("max-conns", config.max_conns as u64),
            ("max-conns-per-ip", config.max_conns_per_ip as u64),
            ("max-clients", config.max_clients as u64),
            ("max-edges-per-ip", config.edges.per_ip as u64),
            (
                "max-new-names-per-ip",
                config.edges.new_names_per_ip.unwrap() as u64,
            ),
            ("heartbeat", config.heartbeat.as_secs()),
            ("grace", config.grace.as_secs()),
        ] {
            assert_eq!(told(flag), value, "{flag}");
        }
        let short = Cli::command().render_help().to_string();
        assert!(short.lines().count() * 2 < long.lines().count(), "-h is short");
        assert!(help.contains("Exit codes:") && short.contains("--help"));
    }
}
