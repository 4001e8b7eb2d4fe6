//! What the admin API answers, and the command line reads.

use crate::metrics::Sums;
use serde::{Deserialize, Serialize};

/// `GET /api/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Version and commit.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime: u64,
    /// False while it stops and lets exchanges finish.
    pub serving: bool,
    /// The fingerprint of its key.
    pub fingerprint: String,
    /// Address for edges to register.
    pub control: String,
    /// Address for tunnels.
    pub proxy: String,
    /// Address for visitors.
    pub public: String,
    /// Address of the admin port; none if it is closed.
    pub admin: Option<String>,
    /// Edge agents.
    pub edges: Edges,
    /// Tunnels of all of them.
    pub tunnels: Tunnels,
    /// Requests for a tunnel since the start.
    pub checkouts: Checkouts,
    /// Connections of visitors now.
    pub visitors: usize,
    /// Exchanges since the start.
    pub requests: u64,
    /// Bytes from visitors since the start.
    pub bytes_in: u64,
    /// Bytes to visitors since the start.
    pub bytes_out: u64,
    /// What was refused since the start, by reason.
    pub refused: Vec<Refused>,
    /// Handshakes that failed since the start.
    pub failed: Failed,
    /// Resident memory in bytes, where the system tells it.
    pub memory: Option<u64>,
    /// Open file descriptors, where the system tells them.
    pub descriptors: Option<u64>,
    /// Seconds of processor time, where the system tells them.
    pub cpu: Option<f64>,
    /// Can the store be written to?
    pub store_writable: bool,
}

/// Edge agents.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Edges {
    /// Here now.
    pub online: usize,
    /// Known, here or not.
    pub known: usize,
    /// Registrations since the start.
    pub registrations: u64,
}

/// Tunnels.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tunnels {
    /// Ready for a request.
    pub idle: usize,
    /// Carrying one.
    pub used: usize,
    /// Requests that wait for one.
    pub waiting: usize,
    /// Opened since the start.
    pub opened: u64,
}

/// How requests got their tunnels.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checkouts {
    /// At once.
    pub hit: u64,
    /// After waiting.
    pub miss: u64,
    /// Not in time.
    pub timeout: u64,
    /// Not at all: the client is offline.
    pub offline: u64,
    /// Not at all: too many wait, or the address has its share.
    pub busy: u64,
}

/// Something that was refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refused {
    /// `request`, `edge` or `connection`.
    pub what: String,
    /// The reason.
    pub code: String,
    /// How often.
    pub count: u64,
}

/// Handshakes that failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failed {
    /// On the control port.
    pub control: u64,
    /// On the proxy port.
    pub proxy: u64,
    /// Visitors' TLS.
    pub public: u64,
}

/// One of `GET /api/clients`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClientRow {
    /// Its id.
    pub id: String,
    /// Fingerprint of its key; none in plain.
    pub key: Option<String>,
    /// Names by which visitors reach it.
    pub names: usize,
    /// Is it here?
    pub online: bool,
    /// Seconds since it registered.
    pub since: Option<u64>,
    /// Address of its control channel.
    pub peer: Option<String>,
    /// What it calls itself.
    pub agent: Option<String>,
    /// Tunnels ready.
    pub idle: usize,
    /// Tunnels that carry a request.
    pub used: usize,
    /// Requests that wait for one.
    pub waiting: usize,
    /// Since the relay started.
    pub traffic: Sums,
}

/// `GET /api/traffic`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrafficNow {
    /// Seconds between two samples.
    pub step: u64,
    /// The last minutes, the latest last.
    pub samples: Vec<Sample>,
    /// The days that are noted, today last; in UTC.
    pub days: Vec<crate::store::Day>,
}

/// What happened in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Its end, in seconds since 1970.
    pub at: u64,
    /// Exchanges that ended.
    pub requests: u64,
    /// Bytes from visitors.
    pub bytes_in: u64,
    /// Bytes to visitors.
    pub bytes_out: u64,
    /// Refusals.
    pub refused: u64,
    /// Edge agents online at its end.
    pub edges: usize,
    /// Tunnels in use at its end.
    pub used: usize,
    /// Requests that waited at its end.
    pub waiting: usize,
}

/// `GET /api/bans`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BanLists {
    /// By the settings (`--ban`).
    pub settings: Vec<String>,
    /// By the operator, while the relay ran.
    pub given: Vec<String>,
}
