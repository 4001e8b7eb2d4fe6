//! The settings of command mode.

use super::CommandError;
use arp_agents::acp::AcpConfig;
use arp_sessions::{HostProgram, SessionsConfig};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The settings of command mode.
#[derive(Debug, Clone)]
pub struct CommandConfig {
    /// Where sessions are kept.
    pub data_dir: PathBuf,
    /// The client id.
    pub client_id: String,
    /// A second secret that every request needs, if it is set.
    pub edge_key: Option<String>,
    /// Listen here without a relay; loopback only.
    pub listen: Option<SocketAddr>,
    /// Host names that requests may be for, besides loopback names. Empty: any, through the relay.
    pub allowed_hosts: Vec<String>,
    /// Origins of other sites whose pages may use this API, as `https://host:port`.
    pub allowed_origins: Vec<String>,
    /// May sessions run that ask nothing?
    pub allow_bypass: bool,
    /// Send the agents through the model gateway?
    pub gateway: bool,
    /// Serve files?
    pub enable_fs: bool,
    /// Directories that may be served besides those of projects.
    pub fs_roots: Vec<PathBuf>,
    /// Local ports that may be reached by `/proxy`.
    pub proxy_ports: Vec<u16>,
    /// The MCP server.
    pub mcp: Option<McpConfig>,
    /// Where agents are, by executor.
    pub agent_paths: BTreeMap<String, PathBuf>,
    /// Further agents that speak ACP, by the name that they shall have.
    pub acp_agents: BTreeMap<String, AcpConfig>,
    /// The executor for requests that name none.
    pub default_executor: Option<String>,
    /// Where sessions work whose request does not say where.
    pub default_path: PathBuf,
    /// Agents that may be alive at once.
    pub max_live: usize,
    /// An approval that nobody answers is denied after this.
    pub approval_timeout: Option<Duration>,
    /// An idle session is parked after this.
    pub park_after: Option<Duration>,
    /// Records of ended sessions are kept this long.
    pub keep_for: Duration,
    /// Logs of ended sessions may take this many bytes.
    pub keep_bytes: u64,
    /// How session hosts are started; this executable without.
    pub host: Option<HostProgram>,
}

/// The settings of the MCP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct McpConfig {
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl CommandConfig {
    /// The defaults.
    #[must_use]
    pub fn new(data_dir: PathBuf, client_id: String) -> Self {
        use arp_sessions::defaults;
        Self {
            data_dir,
            client_id,
            edge_key: None,
            listen: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            allow_bypass: false,
            gateway: false,
            enable_fs: false,
            fs_roots: Vec::new(),
            proxy_ports: Vec::new(),
            mcp: None,
            agent_paths: BTreeMap::new(),
            acp_agents: BTreeMap::new(),
            default_executor: None,
            default_path: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            max_live: defaults::MAX_LIVE,
            approval_timeout: Some(defaults::APPROVAL_TIMEOUT),
            park_after: Some(defaults::PARK_AFTER),
            keep_for: defaults::KEEP_FOR,
            keep_bytes: defaults::KEEP_BYTES,
            host: None,
        }
    }

    /// Says what is wrong, all at once.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut wrong = Vec::new();
        if let Some(listen) = self.listen
            && !listen.ip().is_loopback()
        {
            wrong.push(format!(
                "--listen {listen} is not a loopback address; other machines reach this one through the relay"
            ));
        }
        if self.allowed_origins.iter().any(|origin| origin.contains('*')) {
            wrong.push("--allowed-origins takes no wildcard; list the origins one by one".to_owned());
        }
        for origin in &self.allowed_origins {
            let host = origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"));
            if host.is_none_or(|host| host.is_empty() || host.contains('/')) {
                wrong.push(format!(
                    "{origin} is not an origin; write it as https://host or http://host:port"
                ));
            }
        }
        if self.edge_key.as_ref().is_some_and(|key| key.len() < 16) {
            wrong.push("the edge key is shorter than 16 characters; take a longer one".to_owned());
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("\n"))
        }
    }

    pub(super) fn sessions(&self) -> Result<SessionsConfig, CommandError> {
        let host = match &self.host {
            Some(host) => host.clone(),
            None => HostProgram::this_executable()
                .map_err(|error| CommandError::Config(format!("cannot find this executable: {error}")))?,
        };
        let mut sessions = SessionsConfig::new(self.data_dir.clone(), host);
        sessions.allow_bypass = self.allow_bypass;
        sessions.max_live = self.max_live;
        sessions.approval_timeout = self.approval_timeout;
        sessions.park_after = self.park_after;
        sessions.keep_for = self.keep_for;
        sessions.keep_bytes = self.keep_bytes;
        Ok(sessions)
    }
}
