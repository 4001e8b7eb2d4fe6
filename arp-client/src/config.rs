//! The command line, and [`Settings`] made into a [`Config`] that is whole and makes sense.

mod values;

pub(crate) use values::is_host;

use crate::command::CommandConfig;
use crate::defaults as d;
use crate::gate::Gate;
use crate::services;
pub use crate::services::{EndsTls, Service};
pub use crate::settings::{Settings, data_dir};
use crate::tokens::Names;
use crate::trust::{KnownRelays, Policy};
use crate::tunnel_settings;
use arp_common::defaults::{CONTROL_PORT, PROXY_PORT, PUBLIC_PORT};
use arp_common::ids::{ClientId, Token};
use arp_common::logging::LogFormat;
use arp_common::private;
use arp_common::protocol::{Protocol, RemotePort, Secret};
use arp_common::proxy_header::Version;
use arp_common::settings::ConfigError;
use arp_common::tls::{Certificate, Files, Identity};
use arp_tunnels::TunnelConfig;
use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

/// arpc, the edge agent of arp: makes a local service, or the AI agents of this machine, reachable through a relay.
///
/// It dials out to a relay (arps) and registers there. Whoever opens the public URL that it prints reaches the local
/// service, or with --command-mode the console and API of the agents.
#[derive(Debug, Parser)]
#[command(
    version = crate::VERSION,
    after_help = "\
Examples:
  arpc --server-addr relay.example --local-port 3000      a web service on port 3000
  arpc --server-addr relay.example --command-mode         the AI agents of this machine
More flags: --help",
    after_long_help = AFTER_HELP
)]
pub struct Cli {
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,
    /// Read settings from this TOML file.
    #[arg(long, value_name = "FILE", env = "ARPC_CONFIG", help_heading = "Running")]
    pub config: Option<PathBuf>,
    /// Check all settings and the files they name, say what is wrong, and exit.
    #[arg(long, help_heading = "Running")]
    pub check_config: bool,
    /// What to do besides running as a daemon.
    #[command(subcommand)]
    pub command: Option<crate::cli::Command>,
}

const AFTER_HELP: &str = "\
Every flag can be set as ARPC_<FLAG> in the environment (ARPC_SERVER_ADDR=relay.example), or as <flag> in the
TOML file given with --config (server-addr = \"relay.example\"). Flags win over the environment, and it over the
file. RUST_LOG=debug shows each request. Logs are also kept in files, by day, in arpc/logs of the local data
directory (~/.local/share on Linux).

Exit codes: 0 it was told to stop, or the command is done; 1 it failed: the relay cannot be reached or refuses,
or the command failed; 2 wrong flags or settings; 130 it was told to stop at once (a second Ctrl-C).

Examples:
  arpc --server-addr relay.example --local-port 3000      a web service on port 3000
  arpc --server-addr relay.example --command-mode         the AI agents of this machine
  arpc --command-mode --tunnel cloudflare                 the same without a relay of your own
  arpc tunnel start --local-port 3000                     a web service, likewise
  arpc tokens add --expires 7d                            a token that ends in a week
  arpc sessions send ID \"and now the tests\"             a message to a session";

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
    /// Only services that have names of their own.
    Services,
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
    /// Local services that have names of their own; those are among the tokens.
    pub services: Vec<Service>,
    /// What the local service of all other names speaks.
    pub protocol: Option<Protocol>,
    /// The user that a visitor of its becomes who gives none.
    pub default_user: Option<String>,
    /// The port of the relay that it wants for itself; 0 for any.
    pub remote_port: Option<u16>,
    /// Is it told who its visitors are?
    pub proxy_protocol: Option<Version>,
    /// Where the TLS of visitors ends who come by a name that is no service's own.
    pub ends_tls: EndsTls,
    /// The certificate for TLS that ends here.
    pub tls: Option<Files>,
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
    /// Draw the QR code of the public URL?
    pub qr: bool,
    /// The tunnel to open.
    pub tunnel: Option<TunnelConfig>,
    /// How the log is written.
    pub log_format: LogFormat,
    /// Is a relay used? Always, unless there is a tunnel and no relay was named.
    pub relay: bool,
}

impl Config {
    /// Validates settings and fills in defaults. The client id has to be among them.
    ///
    /// # Errors
    /// All faults at once.
    pub fn new(s: Settings) -> Result<Self, ConfigError> {
        let mut faults = Vec::new();
        let client_id = s.client_id.clone().unwrap_or_default();
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
        let services = services::read(&s, client_id.as_ref(), &mut faults);
        tokens.extend(services.iter().map(|s| s.token.clone()));
        let protocol = services::protocol(s.protocol.as_deref(), "--protocol", &mut faults);
        let protocol = protocol.or_else(|| s.local_port.and_then(services::usual));
        let default_user = services::user(s.default_user.as_deref(), "--default-user", &mut faults);
        let remote_port = s.remote_port.as_deref();
        let remote_port =
            remote_port.and_then(|port| services::remote_port(port, "--remote-port", &mut faults));
        let proxy_protocol =
            services::proxy_protocol(s.proxy_protocol.as_deref(), "--proxy-protocol", &mut faults);
        let tls = values::certificate(&s, &mut faults);
        let ends_tls = EndsTls::of(s.tls_passthrough.filter(|on| *on), tls.is_some());
        let mode = values::mode_of(&s, client_id.as_ref(), !services.is_empty(), &mut faults);
        if s.reconnect_interval == Some(0) {
            faults.push("--reconnect-interval must be at least 1 second".into());
        }
        for (name, port) in [("control-port", s.control_port), ("proxy-port", s.proxy_port)] {
            if port == Some(0) {
                faults.push(format!("--{name} must be the relay's port, not 0"));
            }
        }
        let host = values::unbracketed(s.server_addr.as_deref().unwrap_or("127.0.0.1"));
        if host.is_empty()
            || host.contains('/')
            || (host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err())
        {
            let hint = "give a host name or address alone; ports have flags of their own";
            faults.push(format!(
                "--server-addr {host}: {hint} (--control-port, --proxy-port)"
            ));
        }
        let trust = values::trust(&s, &mut faults);
        let join_key = values::join_key(&s, &mut faults);
        let gate = values::gate(&s, &mut faults);
        if gate.is_some() && s.command_mode == Some(true) {
            faults.push("--require-auth and --require-key are for a local service; with --command-mode use --edge-key".into());
        }
        if ends_tls == EndsTls::Service && !matches!(mode, Some(Mode::Tcp { .. }) | None) {
            faults.push(
                "--tls-passthrough is for the service of --local-port; others have tls-passthrough in [services.NAME], \
                 and the console has --tls-cert"
                    .into(),
            );
        }
        let at_a_service = services.iter().map(|s| s.ends_tls).chain([ends_tls]);
        if gate.is_some() && at_a_service.into_iter().any(|ends| ends == EndsTls::Service) {
            faults.push(
                "--require-auth and --require-key do not go with tls-passthrough: what visitors show is for the service \
                 alone to read then"
                    .into(),
            );
        }
        let local = match &mode {
            Some(Mode::Tcp { host, port }) => Some((host.as_str(), *port)),
            Some(Mode::Command(_) | Mode::Services) | None => None,
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
            id_token: !s.no_id_token.unwrap_or(false) && !matches!(mode, Mode::Services),
            services,
            protocol,
            default_user,
            remote_port,
            proxy_protocol,
            ends_tls: if matches!(mode, Mode::Services) {
                EndsTls::Relay
            } else {
                ends_tls
            },
            tls,
            auto_reconnect: s.auto_reconnect.unwrap_or(true),
            reconnect_interval: Duration::from_secs(s.reconnect_interval.unwrap_or(d::RECONNECT_INTERVAL)),
            plaintext: s.plaintext.unwrap_or(false),
            data_dir: data_dir(s.data_dir),
            trust,
            join_key,
            gate,
            qr: !s.no_qr.unwrap_or(false),
            relay: tunnel.is_none() || relay_named,
            tunnel,
            log_format: s.log_format.unwrap_or_default(),
            mode,
        })
    }

    /// Opens what the settings name: keys, pins, tokens, directories. Changes nothing.
    ///
    /// # Errors
    /// All faults at once.
    pub fn try_files(&self) -> Result<(), ConfigError> {
        let dir = &self.data_dir;
        let mut faults = Vec::new();
        let mut fault = |e: String| faults.push(format!("--data-dir: {e}"));
        if let Err(e) = private::usable_dir(dir) {
            fault(e.to_string());
        }
        let key = dir.join(EDGE_KEY);
        if key.exists()
            && let Err(e) = Identity::load_or_create(&key)
        {
            fault(e.to_string());
        }
        let known = KnownRelays::new(dir);
        if let Err(e) = known.check() {
            fault(format!("{}: {e}", known.path().display()));
        }
        if let Err(e) = Names::check(dir, &self.client_id) {
            fault(e.to_string());
        }
        if let Some(Err(e)) = self.tls.clone().map(Certificate::load) {
            faults.push(format!("--tls-cert, --tls-key: {e}"));
        }
        if let Mode::Command(command) = &self.mode {
            for root in command.fs_roots.iter().filter(|root| !root.is_dir()) {
                faults.push(format!(
                    "--fs-root {}: there is no such directory",
                    root.display()
                ));
            }
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(ConfigError(faults))
        }
    }

    /// Does TLS end on this side for any name?
    pub fn passes_tls(&self) -> bool {
        let of_services = self.services.iter().map(|s| s.ends_tls);
        of_services.chain([self.ends_tls]).any(EndsTls::passes)
    }

    /// Where the TLS of visitors ends who come by `token`.
    fn ends_tls_of(&self, token: &str) -> EndsTls {
        let same = |s: &&Service| s.token.as_str().eq_ignore_ascii_case(token);
        let service = self.services.iter().find(same);
        service.map_or(self.ends_tls, |s| s.ends_tls)
    }

    /// Where visitors find us by `token`, written as `shown`; `told` is what the relay said of itself.
    pub fn public_url(&self, told: &Public, token: &str, shown: &str) -> String {
        let domain = told.domain.as_deref();
        if let Some(domain) = domain.filter(|_| self.ends_tls_of(token).passes() && is_host(token)) {
            let port = told.url.as_deref().and_then(values::port_of).or(told.port);
            let port = port.filter(|port| *port != 443);
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            return format!("https://{}.{domain}{port}/", shown.to_ascii_lowercase());
        }
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
        format!("{base}/?token={shown}")
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
    /// The ports that our services have there for themselves.
    pub remote_ports: Vec<RemotePort>,
    /// The domain below which names are host names.
    pub domain: Option<String>,
}

/// Name of the file of this machine's key in the data directory.
pub(crate) const EDGE_KEY: &str = "edge-key.pem";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(args: &[&str]) -> Result<Config, ConfigError> {
        let mut cli = Cli::parse_from([&["arpc"], args].concat());
        cli.settings.client_id.get_or_insert_with(|| "demo".to_owned());
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
            c.public_url(&Public::default(), "demo", "demo"),
            "http://127.0.0.1:17003/?token=demo"
        );
        let v6 = parse(&["--local-port", "1", "--server-addr", "[::1]"]).unwrap();
        assert_eq!(
            v6.public_url(
                &Public {
                    url: None,
                    port: Some(80),
                    ..Public::default()
                },
                "x",
                "x"
            ),
            "http://[::1]:80/?token=x"
        );
        let told = Public {
            url: Some("https://relay.example/".into()),
            port: Some(80),
            tls: true,
            ..Public::default()
        };
        assert_eq!(v6.public_url(&told, "x", "x"), "https://relay.example/?token=x");
    }

    #[test]
    fn names_whose_tls_ends_here_have_a_host_name() {
        let files = ["--tls-cert", "c.pem", "--tls-key", "k.pem"];
        let args = [&files[..], &["--local-port", "1", "--service", "db=5432"]].concat();
        let c = parse(&args).unwrap();
        assert!(c.passes_tls() && c.services[0].ends_tls == EndsTls::Edge);
        let told = |url: Option<&str>, domain: Option<&str>| Public {
            url: url.map(str::to_owned),
            port: Some(17003),
            domain: domain.map(str::to_owned),
            ..Public::default()
        };
        for (url, name, shown) in [
            (None, "Demo", "https://demo.r.test:17003/"),
            (Some("https://r.test"), "db", "https://db.r.test/"),
            (Some("http://r.test:8080/"), "a.b_c", "https://a.b_c.r.test:8080/"),
            (Some("https://r.test"), "a~b", "https://r.test/?token=a~b"),
        ] {
            assert_eq!(c.public_url(&told(url, Some("r.test")), name, name), shown);
        }
        let without = told(Some("https://r.test"), None);
        assert_eq!(c.public_url(&without, "db", "db"), "https://r.test/?token=db");
        for args in [
            &["--command-mode", "--tls-passthrough"][..],
            &["--service", "db=1", "--tls-passthrough"],
            &["--local-port", "1", "--tls-passthrough", "--require-key", "k"],
            &["--local-port", "1", "--tls-cert", "c.pem"],
        ] {
            assert_eq!(parse(args).unwrap_err().0.len(), 1, "{args:?}");
        }
        let c = parse(&["--local-port", "1", "--tls-passthrough=false"]).unwrap();
        assert!(!c.passes_tls());
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

    /// What a flag is, is also a key of the file and a variable of the environment, and belongs to a group.
    #[test]
    fn every_flag_is_a_key_and_a_variable() {
        let mut command = Cli::command();
        command.build();
        // Only in the file: it has tables of its own. The flag --tunnel says the backend; its name is that of a table
        // there.
        let mut names = vec![
            String::from("acp"),
            String::from("services"),
            String::from("tunnel-backend"),
        ];
        for flag in command.get_arguments().filter(|a| a.get_long().is_some()) {
            let name = flag.get_long().unwrap().to_owned();
            if ["help", "version", "check-config"].contains(&name.as_str()) {
                continue;
            }
            let variable = format!("ARPC_{}", name.to_uppercase().replace('-', "_"));
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
    fn the_help_is_short_and_long_and_tells_the_defaults() {
        use arp_sessions::defaults as sessions;
        let long = Cli::command().render_long_help().to_string();
        let short = Cli::command().render_help().to_string();
        assert!(short.lines().count() * 2 < long.lines().count(), "-h is short");
        assert!(long.contains("Exit codes:") && short.contains("More flags: --help"));
        let help = long.split_whitespace().collect::<Vec<_>>().join(" ");
        for (flag, value) in [
            ("control-port", u64::from(CONTROL_PORT)),
            ("proxy-port", u64::from(PROXY_PORT)),
            ("mcp-port", u64::from(d::MCP_PORT)),
            ("reconnect-interval", d::RECONNECT_INTERVAL),
            ("max-sessions", sessions::MAX_LIVE as u64),
            ("approval-timeout", sessions::APPROVAL_TIMEOUT.as_secs()),
            ("park-after", sessions::PARK_AFTER.as_secs()),
        ] {
            let rest = help.split_once(&format!("--{flag} <")).unwrap().1;
            let told = rest
                .split_once("[default: ")
                .unwrap()
                .1
                .split_once(']')
                .unwrap()
                .0;
            assert_eq!(told, value.to_string(), "{flag}");
        }
    }
}
