//! arpc, the edge agent of arp.

mod api;
pub mod cli;
pub mod command;
mod mcp;
