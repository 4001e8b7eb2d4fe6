//! One tunnel: its bytes, and how the pool notices what happens to it while it is idle.

use super::pool::Pool;
use crate::defaults as d;
use arp_common::transport::{ReadHalf, WriteHalf};
use bytes::BytesMut;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Instant;
use tokio::io::{AsyncRead, ReadBuf};

/// What a request needs of its tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// Any: the request can be replayed should the tunnel turn out dead.
    Any,
    /// One that was never used or was in use a moment ago: the request cannot be replayed.
    Ready,
    /// One that was never used: another one has just turned out dead.
    Fresh,
}

/// Which of an edge's services a used tunnel leads to: a hash of its token, or 0 for the one of all names.
pub(crate) type ServiceKey = u64;

/// What a request needs, and of which service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// How far the tunnel can be relied on.
    pub(crate) want: Want,
    /// Where it leads, unless it was never used.
    pub(crate) service: ServiceKey,
}

impl From<Want> for Need {
    fn from(want: Want) -> Self {
        Self { want, service: 0 }
    }
}

/// One connection to an edge, ready to carry an exchange.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// Bytes from the edge.
    pub(crate) rd: ReadHalf,
    /// Bytes to the edge.
    pub(crate) wr: WriteHalf,
    /// Read and not yet used.
    pub(crate) buf: BytesMut,
    /// Exchanges it has carried.
    pub(crate) uses: u32,
    /// Where it leads, once it was used.
    pub(crate) service: ServiceKey,
    /// Does the edge expect an `Open` frame before the first byte?
    pub(crate) version: u32,
    pub(super) last_used: Instant,
    pub(super) generation: u64,
    pub(super) watch: Arc<Watch>,
    pub(super) _permit: Permit,
}

impl Tunnel {
    /// Leaves a read pending whose waker tells the pool when anything happens. False if something already
    /// has: bytes that nobody asked for, or the end.
    pub(super) fn arm(&mut self) -> bool {
        self.watch.fired.store(false, Ordering::Release);
        let waker = Waker::from(self.watch.clone());
        let mut byte = [0u8; 1];
        let mut buf = ReadBuf::new(&mut byte);
        Pin::new(&mut self.rd)
            .poll_read(&mut Context::from_waker(&waker), &mut buf)
            .is_pending()
    }

    /// May any request take it, also one that cannot be replayed?
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.uses == 0 || now.duration_since(self.last_used) < d::WARM
    }

    /// Has nothing happened to it that its keeper does not know yet?
    pub(super) fn is_calm(&self) -> bool {
        !self.watch.fired.load(Ordering::Acquire)
    }
}

/// Wakes the pool's keeper when an idle tunnel stirs.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) fired: AtomicBool,
    pub(super) pool: Arc<Pool>,
}

impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        // Only a mark: this may run while the pool is locked.
        self.fired.store(true, Ordering::Release);
        self.pool.stirred.notify_one();
    }
}

/// Leave to be one of the tunnels that a client may have; given back when the tunnel is dropped.
#[derive(Debug)]
pub(super) struct Permit(pub(super) Arc<Pool>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
        // Only a mark, as above: a waiting request may have been short of just this place.
        self.0.stirred.notify_one();
    }
}
