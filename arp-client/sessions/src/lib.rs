//! Running agent sessions: host process, event log, broker, approvals.

pub mod clock;
mod core;
pub mod defaults;
pub mod error;
pub mod host;
mod hostlink;
mod hostprogram;
pub mod ipc;
pub mod log;
mod manager;
pub mod model;
pub mod procs;
pub mod read;
mod session;
pub mod store;
pub use core::{
    AgentSource, Finding, FoundAgent, Holder, NoPast, PastEvent, PastSession, PastSessions, Preparing,
    SessionsConfig,
};
pub use hostprogram::{HOST_PROGRAM, HostProgram};
pub use manager::{
    Created, Deleted, ExternalApproval, Follower, History, Leaving, NewSession, Removal, Sessions, Steering,
};
pub use session::{Accepted, BusEvent, Change, Tail};
