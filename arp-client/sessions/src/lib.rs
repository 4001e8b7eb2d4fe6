//! Running agent sessions: host process, event log, broker, approvals.

pub mod clock;
pub mod defaults;
pub mod error;
pub mod host;
mod hostlink;
pub mod ipc;
pub mod log;
pub mod model;
pub mod procs;
pub mod store;
pub use hostlink::HostProgram;
