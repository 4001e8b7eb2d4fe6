//! Flags, environment and file: all that can be set, as it was set.

use crate::cli::Action;
use arp_common::logging::LogFormat;
use clap::Parser;
use std::net::IpAddr;
use std::path::PathBuf;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use clap::CommandFactory;

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
