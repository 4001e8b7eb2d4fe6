//! arps, the relay of arp: edge agents register here and keep tunnels ready; each public request goes
//! into one of them.
//!
//! `main` wires; [`server`] runs; [`control`] and [`tunnels`] speak with edges, [`visitor`] with visitors,
//! `routing` tells which client a request is for, [`exchange`] carries it there, and they meet in
//! [`registry`] and the pools.

/// Version and commit, as `--version` shows them.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ARP_COMMIT"), ")");

/// The system whose archives of a release are ours.
pub const TARGET: &str = env!("ARP_TARGET");

/// Where releases lie, if the build was told.
pub const RELEASES: Option<&str> = option_env!("ARP_BASE_URL");

pub mod admin;
pub mod admission;
pub mod answer;
pub mod bans;
pub mod cli;
mod clock;
pub mod config;
pub mod control;
pub mod data;
pub mod defaults;
pub mod exchange;
pub mod handshakes;
pub mod http;
pub mod live;
pub mod metrics;
pub mod quota;
pub mod registry;
pub mod reload;
mod routing;
pub mod server;
pub mod shared;
pub mod store;
pub mod tcp;
pub mod tunnels;
pub mod visitor;
