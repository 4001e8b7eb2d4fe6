//! The tunnels of the edges: each client's pool, those that were asked for, and how they arrive.

pub mod accept;
pub mod pending;
pub mod pool;
pub mod tunnel;
