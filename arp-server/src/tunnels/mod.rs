//! The tunnels of the edges: each client's pool, those that were asked for, and how they arrive.

pub(crate) mod accept;
pub mod checkout;
pub(crate) mod lease;
pub mod limits;
pub(crate) mod pending;
pub mod pool;
pub(crate) mod queue;
pub(crate) mod tunnel;
