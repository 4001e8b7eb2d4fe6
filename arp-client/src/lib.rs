//! arpc, the edge agent of arp: registers with a relay and serves the tunnels that it asks for.
//!
//! `main` wires; [`link`] keeps the registration, [`forward`] is TCP mode ([`gate`] and [`local`] under it),
//! [`serving`] is command mode with its HTTP API on the state in [`command`], [`cli`] holds the subcommands that
//! talk to a running daemon. [`tunnel`] is a public URL through somebody else's service, in place of a relay or beside it.

mod api;
pub mod banner;
pub mod cli;
pub mod command;
mod command_settings;
pub mod config;
pub mod console;
pub mod defaults;
pub mod forward;
pub mod gate;
pub mod identity;
pub mod link;
pub mod local;
mod mcp;
pub mod services;
pub mod serving;
pub mod settings;
pub mod tokens;
mod trace;
pub mod trust;
pub mod tunnel;
pub mod tunnel_settings;
