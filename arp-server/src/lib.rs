//! arps, the relay of arp.

pub mod control;
pub mod defaults;
pub mod h1;
pub mod pool;
pub mod registry;
pub mod tunnel;
