//! A tunnel in use: which visitor address holds it, and whether its exchange waits for that visitor.

use super::pool::Pool;
use super::tunnel::Tunnel;
use crate::clock::Coarse;
use crate::metrics::Traffic;
use atomic_waker::AtomicWaker;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::task::Poll;
use std::time::Duration;

/// A tunnel that carries an exchange.
#[derive(Debug)]
pub(crate) struct Leased {
    /// The tunnel.
    pub(crate) tunnel: Tunnel,
    /// What the pool knows of its use.
    pub(crate) lease: Arc<Lease>,
}

/// The use of one tunnel by one exchange; it counts for its visitor address until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<Pool>,
    /// Tunnels that the same address holds.
    held: Arc<AtomicUsize>,
    /// When something last moved, as [`Coarse::to_bits`].
    moved: AtomicU64,
    steps: AtomicU64,
    waits: [AtomicBool; 2],
    reclaimed: AtomicBool,
    reclaim: AtomicWaker,
}

/// A direction of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The request.
    Up,
    /// The answer.
    Down,
}

impl Lease {
    pub(super) fn new(pool: Arc<Pool>, held: Arc<AtomicUsize>) -> Arc<Self> {
        held.fetch_add(1, Relaxed);
        pool.in_use.fetch_add(1, Relaxed);
        Arc::new(Self {
            pool,
            held,
            moved: AtomicU64::new(Coarse::now().to_bits()),
            steps: AtomicU64::new(0),
            waits: Default::default(),
            reclaimed: AtomicBool::new(false),
            reclaim: AtomicWaker::new(),
        })
    }

    /// Something moved, in either direction.
    pub(crate) fn step(&self) {
        self.steps.fetch_add(1, Relaxed);
        self.moved.store(Coarse::now().to_bits(), Relaxed);
    }

    /// How often something moved.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Relaxed)
    }

    /// Tells whether a direction waits for the visitor: for more of the request, or to take more of the answer.
    pub(crate) fn waits_for_visitor(&self, way: Way, waits: bool) {
        self.waits[way as usize].store(waits, Relaxed);
    }

    /// Ready when the exchange has to make room for others.
    pub(crate) async fn reclaimed(&self) {
        poll_fn(|cx| {
            self.reclaim.register(cx.waker());
            if self.is_reclaimed() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// What goes through the client's tunnels.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.pool.traffic
    }

    /// Tunnels that its visitor address holds.
    pub(super) fn held(&self) -> &Arc<AtomicUsize> {
        &self.held
    }

    /// How long nothing has moved while the exchange waits for its visitor.
    pub(super) fn stalled(&self) -> Duration {
        if !self.waits.iter().any(|w| w.load(Relaxed)) {
            return Duration::ZERO;
        }
        Coarse::from_bits(self.moved.load(Relaxed)).elapsed()
    }

    pub(super) fn is_reclaimed(&self) -> bool {
        self.reclaimed.load(SeqCst)
    }

    pub(super) fn ask_back(&self) {
        self.reclaimed.store(true, SeqCst);
        self.reclaim.wake();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Only marks: this may run while the pool is locked.
        self.held.fetch_sub(1, Relaxed);
        self.pool.in_use.fetch_sub(1, Relaxed);
        self.pool.stir_for_waiting();
    }
}
