//! A request takes a tunnel, or waits in turn for one and has room made for it.

use super::lease::Leased;
use super::pool::{Pool, take};
use super::tunnel::Need;
use crate::defaults as d;
use crate::metrics::{self, Counter};
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio::sync::oneshot;

/// Why there is no tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckoutError {
    /// The edge is not connected.
    #[error("the edge agent is offline")]
    Offline,
    /// Too many wait already.
    #[error("too many requests are waiting for this edge agent")]
    Busy,
    /// The visitor's address has its share of the client's tunnels, and kept them.
    #[error("your address has as many requests open at this edge agent as it may have at a time")]
    Share,
    /// None came in time.
    #[error("the edge agent opened no tunnel in time")]
    Timeout,
}

impl CheckoutError {
    fn count(self) {
        let counter = match self {
            Self::Offline => Counter::CheckoutOffline,
            Self::Busy | Self::Share => Counter::CheckoutBusy,
            Self::Timeout => Counter::CheckoutTimeout,
        };
        metrics::add(counter, 1);
    }
}

impl Pool {
    /// Takes a tunnel for a visitor at `address`, waiting for one if need be. Who no longer wants one drops
    /// the future, and its place in the queue is free.
    ///
    /// # Errors
    /// See [`CheckoutError`].
    pub(crate) async fn checkout(
        self: &Arc<Self>,
        want: impl Into<Need>,
        address: IpAddr,
    ) -> Result<Leased, CheckoutError> {
        let found = self.take_or_queue(want.into(), address);
        match found.inspect_err(|e| e.count())? {
            Found::Idle(leased) => {
                metrics::add(Counter::CheckoutHit, 1);
                Ok(leased)
            }
            // On the heap: most requests find a tunnel, and need no room for waiting.
            Found::Queued(queued) => {
                let waited = Box::pin(self.wait(queued, address)).await;
                match &waited {
                    Ok(_) => metrics::add(Counter::CheckoutMiss, 1),
                    Err(e) => e.count(),
                }
                waited
            }
        }
    }

    fn take_or_queue(self: &Arc<Self>, want: Need, address: IpAddr) -> Result<Found, CheckoutError> {
        let mut gone = Vec::new();
        let mut state = self.lock();
        if state.link.is_none() && state.expected.is_none_or(|until| until <= Instant::now()) {
            return Err(CheckoutError::Offline);
        }
        let held = state.queue.held(address);
        let now = Instant::now();
        let found = if self.within_share(&held) {
            take(&mut state.idle, want, now)
        } else {
            None
        };
        let found = match found {
            Some(tunnel) => Found::Idle(self.lease(&mut state, tunnel, held)),
            None => {
                let queued = state.queue.push(address, want, self.limits.max_waiting());
                let (ticket, rx) = queued.ok_or(CheckoutError::Busy)?;
                let pool = self.clone();
                Found::Queued(Queued {
                    pool,
                    address,
                    ticket,
                    rx,
                })
            }
        };
        self.refill(&mut state, now, &mut gone);
        drop(state);
        drop(gone);
        Ok(found)
    }

    async fn wait(self: &Arc<Self>, mut queued: Queued, address: IpAddr) -> Result<Leased, CheckoutError> {
        let deadline = tokio::time::sleep(self.limits.wait());
        tokio::pin!(deadline);
        loop {
            self.make_room(address);
            if self.is_overdue() {
                return Err(CheckoutError::Offline);
            }
            tokio::select! {
                biased;
                got = &mut queued.rx => match got {
                    Ok(leased) => return Ok(leased),
                    Err(_) => return Err(CheckoutError::Offline),
                },
                () = &mut deadline => break,
                () = tokio::time::sleep(d::MAKE_ROOM_EVERY) => {}
            }
        }
        let mut state = self.lock();
        if state.link.is_none() {
            return Err(CheckoutError::Offline);
        }
        let held = state.queue.held(address);
        if held.load(Ordering::Relaxed) > 0 && !self.within_share(&held) {
            Err(CheckoutError::Share)
        } else {
            Err(CheckoutError::Timeout)
        }
    }

    /// Was the edge expected, and has not come?
    fn is_overdue(&self) -> bool {
        let state = self.lock();
        state.link.is_none() && state.expected.is_some_and(|until| until <= Instant::now())
    }

    /// When somebody at `address` waits and there is neither a tunnel nor room for one, has an exchange end
    /// that waits for its own visitor: one of an address that holds more, or, if the address has its share, one of
    /// its own.
    fn make_room(&self, address: IpAddr) {
        let mut state = self.lock();
        if state.link.is_none() {
            return;
        }
        let own = state.queue.held(address);
        let own_count = own.load(Ordering::Relaxed);
        let in_share = self.within_share(&own);
        let live = self.live.load(Ordering::Relaxed);
        if in_share && live + state.asked < self.limits.max_tunnels() {
            return;
        }
        let full = self.in_use.load(Ordering::Relaxed) >= self.limits.max_tunnels();
        let (mut victim, mut leaving) = (None, 0);
        for lease in state.leases.iter().filter_map(Weak::upgrade) {
            let of_own = Arc::ptr_eq(lease.held(), &own);
            let held = lease.held().load(Ordering::Relaxed);
            let may_go = if in_share || (full && !of_own) {
                held > own_count
            } else {
                of_own
            };
            if !may_go {
                continue;
            }
            if lease.is_reclaimed() {
                leaving += 1;
                continue;
            }
            let stalled = lease.stalled();
            if stalled >= d::STALLED && victim.as_ref().is_none_or(|(best, _)| (held, stalled) > *best) {
                victim = Some(((held, stalled), lease));
            }
        }
        if let Some((_, lease)) = victim
            && leaving < state.queue.len()
        {
            lease.ask_back();
        }
    }
}

/// What a request finds.
enum Found {
    Idle(Leased),
    Queued(Queued),
}

/// A request in the queue. Dropping it leaves the queue; a tunnel that was given to it meanwhile goes back.
struct Queued {
    pool: Arc<Pool>,
    address: IpAddr,
    ticket: u64,
    rx: oneshot::Receiver<Leased>,
}

impl Drop for Queued {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        let left = state.queue.leave(self.address, self.ticket);
        self.pool.waiting.store(state.queue.len(), Ordering::Relaxed);
        drop(state);
        if !left {
            self.rx.close();
            if let Ok(Leased { tunnel, lease }) = self.rx.try_recv() {
                drop(lease);
                self.pool.offer(tunnel);
            }
        }
    }
}
