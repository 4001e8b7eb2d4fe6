//! arpc, the edge agent of arp: registers with a relay and serves the tunnels that it asks for.
//!
//! `main` wires; [`link`] keeps the registration, [`forward`] is TCP mode ([`gate`] and [`local`] under it),
//! [`serving`] is command mode with its HTTP API on the state in [`command`], [`cli`] holds the subcommands that
//! talk to a running daemon. [`tunnel`] is a public URL through somebody else's service, in place of a relay or beside it.

/// Version and commit, as `--version` shows them.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("ARP_COMMIT"), ")");

/// The system whose archives of a release are ours.
pub const TARGET: &str = env!("ARP_TARGET");

/// Where releases lie, if the build was told.
pub const RELEASES: Option<&str> = option_env!("ARP_BASE_URL");

mod api;
pub mod banner;
pub mod cli;
pub mod command;
mod command_settings;
pub mod config;
pub mod console;
pub mod defaults;
pub mod edge_tls;
mod encoding;
pub mod forward;
pub mod gate;
pub mod identity;
pub mod link;
pub mod local;
mod mcp;
pub mod services;
pub mod serving;
pub mod settings;
pub mod standing;
pub mod tokens;
mod trace;
pub mod trust;
pub mod tunnel;
pub mod tunnel_settings;
