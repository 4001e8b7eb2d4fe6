//! Running agent sessions: host process, event log, broker, approvals.

pub mod clock;
pub mod defaults;
pub mod host;
mod hostlink;
pub mod ipc;
pub mod log;
pub mod procs;
pub use hostlink::HostProgram;
