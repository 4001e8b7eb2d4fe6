//! arps, the relay of arp: edge agents register here and keep tunnels ready; each public request goes
//! into one of them.
//!
//! `main` wires; [`server`] runs; [`control`] and [`tunnel`] speak with edges, [`public`] with visitors,
//! and they meet in [`registry`] and [`pool`].

pub mod admission;
pub mod certificate;
pub mod cli;
pub mod config;
pub mod control;
pub mod data;
pub mod defaults;
pub mod guesses;
pub mod h1;
pub mod pool;
pub mod public;
pub mod registry;
pub mod server;
pub mod store;
pub mod tunnel;
pub mod waiting;
