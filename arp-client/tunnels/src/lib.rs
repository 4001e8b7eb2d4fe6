//! A public URL without a server of one's own: tunnels through whatever is at hand, behind one trait.
//!
//! [`Tunnel`] is one backend's program; [`Supervisor`] owns the states, health, back-off and restart of any of
//! them; [`Front`] is the small proxy that every backend is pointed at, so that only what is meant to be public
//! is; [`Prober`] asks the public URL whether it really leads to that front. Programs run under a guard
//! ([`guard_main`]), which ends them when we end, however that comes about.

mod backend;
pub mod config;
mod defaults;
mod error;
mod find;
mod front;
mod get;
mod guard;
mod log;
mod probe;
mod program;
mod status;
mod supervisor;

pub use backend::{Agent, AnyTunnel, Availability, Local, availability, choose};
pub use config::{Backend, TunnelConfig};
pub use error::{Retry, TunnelError};
pub use front::{Body, Front, FrontConfig, Requests, Service, Target, VisitorAddress};
pub use guard::{exec_main, guard_main};
pub use log::Log;
pub use probe::{Nonces, Probe, ProbeOutcome, Prober};
pub use program::Launcher;
pub use status::{Check, TunnelHealth, TunnelInfo, TunnelStatus};
pub use supervisor::{Handle, Plan, Snapshot, Supervisor};

use std::future::Future;

/// A way to get a public URL for a local port.
///
/// A tunnel is started, and may be stopped and started again any number of times; what it does when it fails is the
/// business of its [`Supervisor`].
pub trait Tunnel: Send + Sync {
    /// Which backend this is.
    fn backend(&self) -> Backend;

    /// Starts it and waits until it says itself that it is up.
    ///
    /// # Errors
    /// What went wrong, what to do about it, and whether another try makes sense.
    fn start(&mut self) -> impl Future<Output = Result<TunnelInfo, TunnelError>> + Send;

    /// Ends it, with all its processes. One that does not run is ended.
    ///
    /// # Errors
    /// When something of it may be left.
    fn stop(&mut self) -> impl Future<Output = Result<(), TunnelError>> + Send;

    /// Looks at its process, and asks it whether it is ready.
    ///
    /// # Errors
    /// When it does not run at all.
    fn health_check(&self) -> impl Future<Output = Result<TunnelHealth, TunnelError>> + Send;

    /// How it stands, as far as it knows itself.
    fn status(&self) -> TunnelStatus;

    /// Waits for news of a tunnel that was started. May be dropped and called again.
    fn changed(&mut self) -> impl Future<Output = Change> + Send {
        std::future::pending()
    }
}

/// News of a running tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It ended, or cannot go on.
    Ended(TunnelError),
    /// It has another address.
    Url(String),
}
