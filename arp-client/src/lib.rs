//! arpc, the edge agent of arp: registers with a relay and serves the tunnels that it asks for.
//!
//! `main` wires; [`link`] keeps the registration, [`forward`] is TCP mode.

pub mod banner;
pub mod config;
pub mod defaults;
pub mod forward;
pub mod identity;
pub mod link;
