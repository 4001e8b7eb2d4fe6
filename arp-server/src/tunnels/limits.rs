//! How many tunnels a client may have, and how long requests wait for one: set by the operator, changed while it is used.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// What the operator set for every client's pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle tunnels to keep ready.
    pub target: usize,
    /// Tunnels in all.
    pub max_tunnels: usize,
    /// Requests that may wait.
    pub max_waiting: usize,
    /// Time a request waits.
    pub wait: Duration,
}

/// [`PoolLimits`] that all pools share and that can be changed while they are used.
#[derive(Debug)]
pub(crate) struct LiveLimits {
    target: AtomicUsize,
    max_tunnels: AtomicUsize,
    max_waiting: AtomicUsize,
    wait_ms: AtomicU64,
}

impl LiveLimits {
    pub(crate) fn new(limits: &PoolLimits) -> Self {
        let live = Self {
            target: AtomicUsize::new(0),
            max_tunnels: AtomicUsize::new(0),
            max_waiting: AtomicUsize::new(0),
            wait_ms: AtomicU64::new(0),
        };
        live.set(limits);
        live
    }

    pub(crate) fn set(&self, limits: &PoolLimits) {
        self.target.store(limits.target, Ordering::Relaxed);
        self.max_tunnels.store(limits.max_tunnels, Ordering::Relaxed);
        self.max_waiting.store(limits.max_waiting, Ordering::Relaxed);
        let wait = u64::try_from(limits.wait.as_millis()).unwrap_or(u64::MAX);
        self.wait_ms.store(wait, Ordering::Relaxed);
    }

    pub(super) fn target(&self) -> usize {
        self.target.load(Ordering::Relaxed)
    }

    pub(super) fn max_tunnels(&self) -> usize {
        self.max_tunnels.load(Ordering::Relaxed)
    }

    pub(super) fn max_waiting(&self) -> usize {
        self.max_waiting.load(Ordering::Relaxed)
    }

    pub(super) fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms.load(Ordering::Relaxed))
    }
}
