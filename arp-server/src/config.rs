//! Settings: flags, environment and file, merged ([`flags`]) and validated whole ([`validate`]); what differs between two
//! of them ([`changes`]); and where the data directory is ([`place`]).

mod changes;
mod flags;
mod place;
mod validate;

pub use changes::changes;
pub use flags::{Cli, Settings};
pub use place::{data_dir, data_dir_of_command};

use crate::admission::EdgeLimits;
use crate::bans::Ban;
use crate::data;
use crate::shared::PublicLimits;
use crate::tcp::ports::PortLimits;
use crate::tunnels::limits::PoolLimits;
use arp_common::logging::LogFormat;
use arp_common::protocol::Secret;
use arp_common::settings::ConfigError;
use arp_common::tls::{Certificate, Files};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

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
