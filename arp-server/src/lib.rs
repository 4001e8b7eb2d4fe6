//! arps, the relay of arp: edge agents register here and keep tunnels ready; each public request goes
//! into one of them.
//!
//! `main` wires; [`server`] runs; [`control`] and [`tunnel`] speak with edges, [`public`] with visitors,
//! and they meet in [`registry`] and [`pool`].

pub mod config;
pub mod control;
pub mod defaults;
pub mod h1;
pub mod pool;
pub mod public;
pub mod registry;
pub mod server;
pub mod tunnel;
