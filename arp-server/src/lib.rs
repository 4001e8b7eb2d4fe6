//! arps, the relay of arp: edge agents register here and keep tunnels ready; each public request goes
//! into one of them.
//!
//! `main` wires; [`server`] runs; [`control`] and [`tunnels`] speak with edges, [`visitor`] with visitors,
//! `routing` tells which client a request is for, [`exchange`] carries it there, and they meet in
//! [`registry`] and the pools.

pub mod admission;
pub mod answer;
pub mod certificate;
pub mod cli;
pub mod config;
pub mod control;
pub mod data;
pub mod defaults;
pub mod exchange;
pub mod handshakes;
pub mod http;
pub mod quota;
pub mod registry;
mod routing;
pub mod server;
pub mod shared;
pub mod status;
pub mod store;
pub mod tcp;
pub mod tunnels;
pub mod visitor;
