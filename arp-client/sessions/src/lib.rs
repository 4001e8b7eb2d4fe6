//! Running agent sessions: host process, event log, broker, approvals.

pub mod log;
