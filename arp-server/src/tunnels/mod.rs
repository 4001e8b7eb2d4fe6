//! The tunnels of the edges: each client's pool, those that were asked for, and how they arrive.

pub(crate) mod accept;
pub(crate) mod lease;
pub(crate) mod pending;
pub mod pool;
pub(crate) mod queue;
pub(crate) mod tunnel;
