//! The `[tunnel]` tables: what they may hold, and how they are read.

mod backends;
mod fields;
mod read;

pub use fields::Variables;
pub use read::Overrides;

use arp_common::protocol::Secret;
use regex_lite::Regex;
use serde::{Serialize, Serializer};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What a tunnel goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Backend {
    /// The first of the others that can be used.
    Auto,
    /// None.
    None,
    /// Cloudflare Tunnel, by `cloudflared`.
    Cloudflare,
    /// Tailscale Funnel or Serve, by `tailscale`.
    Tailscale,
    /// ngrok, by its agent.
    Ngrok,
    /// bore.
    Bore,
    /// A command of the user's own.
    Custom,
    /// A relay of our own kind.
    Arp,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Auto,
        Self::None,
        Self::Cloudflare,
        Self::Tailscale,
        Self::Ngrok,
        Self::Bore,
        Self::Custom,
        Self::Arp,
    ];

    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::Cloudflare => "cloudflare",
            Self::Tailscale => "tailscale",
            Self::Ngrok => "ngrok",
            Self::Bore => "bore",
            Self::Custom => "custom",
            Self::Arp => "arp",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Backend {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.trim().to_ascii_lowercase();
        let found = match name.as_str() {
            "cloudflared" => Some(Self::Cloudflare),
            "relay" => Some(Self::Arp),
            _ => Self::ALL.into_iter().find(|backend| backend.name() == name),
        };
        found.ok_or_else(|| {
            let all: Vec<&str> = Self::ALL.iter().map(|backend| backend.name()).collect();
            format!(
                "there is no tunnel backend called {text}; there are {}",
                all.join(", ")
            )
        })
    }
}

/// Settings of a tunnel that are whole and make sense.
#[derive(Debug, Clone)]
pub struct TunnelConfig {
    /// Through what.
    pub backend: Backend,
    /// Host of the local service.
    pub local_host: String,
    /// Port of the local service; `None` where nothing says one.
    pub local_port: Option<u16>,
    /// Port of the front, where it has to be the same each time; any free one otherwise.
    pub front_port: Option<u16>,
    /// Does `arpc --command-mode` start it?
    pub auto_start: bool,
    /// Pause between looks at its health.
    pub health_interval: Duration,
    /// Failed looks in a row after which it is restarted.
    pub max_failures: u32,
    /// Is the public URL asked whether it leads here?
    pub probe: bool,
    /// What happens when it fails.
    pub reconnect: Reconnect,
    /// Visitors must show this user and password (`user:password`).
    pub basic_auth: Option<Secret>,
    /// For `cloudflare`.
    pub cloudflare: Cloudflare,
    /// For `tailscale`.
    pub tailscale: Tailscale,
    /// For `ngrok`.
    pub ngrok: Ngrok,
    /// For `bore`.
    pub bore: Bore,
    /// For `custom`.
    pub custom: Option<Custom>,
    /// For `arp`.
    pub arp: Option<Arp>,
}

impl TunnelConfig {
    /// The port that is exposed.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.local_port.unwrap_or(crate::defaults::LOCAL_PORT)
    }

    /// Everything that no log may show.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let token = match &self.cloudflare.mode {
            CloudflareMode::Token { token, .. } => Some(token),
            CloudflareMode::Quick | CloudflareMode::Credentials { .. } => None,
        };
        let password = self.basic_auth.as_ref();
        let own = [&self.ngrok.authtoken, &self.bore.secret];
        let join_key = self.arp.as_ref().and_then(|arp| arp.join_key.as_ref());
        token
            .into_iter()
            .chain(password)
            .chain(own.into_iter().flatten())
            .chain(join_key)
    }
}

/// What happens when a tunnel fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnect {
    /// Is it started again at all?
    pub enabled: bool,
    /// Tries in a row; 0 for any number.
    pub max_attempts: u32,
    /// Shortest pause before a try.
    pub base: Duration,
    /// Longest pause.
    pub max: Duration,
}

/// Cloudflare Tunnel.
#[derive(Debug, Clone)]
pub struct Cloudflare {
    /// Which kind of tunnel.
    pub mode: CloudflareMode,
    /// How cloudflared speaks with Cloudflare.
    pub protocol: Protocol,
    /// Port of its readiness endpoint; a free one otherwise.
    pub metrics_port: Option<u16>,
    /// cloudflared itself checks that visitors came through Cloudflare Access.
    pub access: Option<Access>,
    /// The program.
    pub bin: Option<PathBuf>,
}

/// Kinds of Cloudflare tunnels.
#[derive(Debug, Clone)]
pub enum CloudflareMode {
    /// A random name, no account.
    Quick,
    /// A tunnel that is set up in the dashboard.
    Token {
        /// Its token.
        token: Secret,
        /// The public host name that the dashboard gives it.
        hostname: Option<String>,
    },
    /// A tunnel that is set up on this machine (`cloudflared tunnel create`).
    Credentials {
        /// Its id or name.
        tunnel_id: String,
        /// Its credentials.
        file: PathBuf,
        /// The public host name that is routed to it.
        hostname: String,
    },
}

/// How cloudflared speaks with Cloudflare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// QUIC, and HTTP/2 where UDP is blocked.
    Auto,
    /// QUIC only.
    Quic,
    /// HTTP/2 only.
    Http2,
}

/// Cloudflare Access.
#[derive(Debug, Clone)]
pub struct Access {
    /// `TEAM` of `TEAM.cloudflareaccess.com`.
    pub team: String,
    /// Audience tags of the applications.
    pub aud: Vec<String>,
}

/// Tailscale Funnel or Serve.
#[derive(Debug, Clone)]
pub struct Tailscale {
    /// To everybody (Funnel), or only to the tailnet (Serve).
    pub funnel: bool,
    /// Public port.
    pub port: u16,
    /// The program.
    pub bin: Option<PathBuf>,
}

/// ngrok.
#[derive(Debug, Clone)]
pub struct Ngrok {
    /// Its token; the agent's own configuration may have one too.
    pub authtoken: Option<Secret>,
    /// A name of one's own.
    pub domain: Option<String>,
    /// May the agent keep requests for its inspection page?
    pub inspect: bool,
    /// Port of that page and of its API; a free one otherwise.
    pub inspect_port: Option<u16>,
    /// The program.
    pub bin: Option<PathBuf>,
}

/// bore.
#[derive(Debug, Clone)]
pub struct Bore {
    /// Its server.
    pub server: String,
    /// Was the server named, or is it the public one?
    pub server_given: bool,
    /// Public port; any otherwise.
    pub port: Option<u16>,
    /// The server's secret.
    pub secret: Option<Secret>,
    /// The program.
    pub bin: Option<PathBuf>,
}

/// A command of the user's own.
#[derive(Debug, Clone)]
pub struct Custom {
    /// Program and arguments, with `{port}` and `{host}` in them.
    pub command: Vec<String>,
    /// Finds the URL in what it prints.
    pub url: UrlSource,
    /// Time it has until it prints the URL.
    pub start: Duration,
    /// Answers 2xx while the tunnel is good.
    pub health_url: Option<String>,
}

/// Where the URL of a custom tunnel comes from.
#[derive(Debug, Clone)]
pub enum UrlSource {
    /// It is always this.
    Fixed(String),
    /// The first URL it prints.
    First,
    /// The address around this text.
    Around(String),
    /// What this finds: its first group, or all of it.
    Pattern(Regex),
}

/// A relay of our own kind.
#[derive(Debug, Clone)]
pub struct Arp {
    /// Its address.
    pub server: String,
    /// Its control port.
    pub control_port: Option<u16>,
    /// Its proxy port.
    pub proxy_port: Option<u16>,
    /// By which name visitors come.
    pub client_id: Option<String>,
    /// The relay's shared secret.
    pub join_key: Option<Secret>,
    /// The key that the relay must have.
    pub fingerprint: Option<String>,
    /// Without TLS.
    pub plaintext: bool,
}
