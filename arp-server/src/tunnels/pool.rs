//! One client's tunnels: which are idle, who waits for one, how many more to ask the edge for.
//!
//! Refill is driven by use: taking a tunnel, queueing for one or losing one asks for what is missing at
//! that moment, and stock means tunnels that any request may take. A returned tunnel and a new one go to whose turn
//! it is ([`super::queue`]). When nothing else is left, an exchange whose visitor keeps it waiting makes room. An idle tunnel is
//! watched by the waker of a read that is left pending on it, so its death is known when it happens and
//! an idle tunnel costs no task. The kernel tells what happens in order: what came on a tunnel before a request is
//! known before the request is read, and no request asks for it again.
//!
//! One short lock guards idle tunnels and waiting requests together (they must be seen together, or a
//! request could queue at the moment a tunnel comes back); it is never held across an await, and no tunnel
//! is dropped under it.

use super::lease::{Lease, Leased};
use super::limits::LiveLimits;
use super::pending::Pending;
use super::queue::{Queue, within_share};
use super::tunnel::{Need, Permit, Tunnel, Want, Watch};
use crate::defaults as d;
use crate::metrics::{self, Counter, Traffic};
use arp_common::ids::{ClientId, TunnelId};
use arp_common::protocol::{Command, Mode};
use arp_common::tls::Fingerprint;
use arp_common::transport::{ReadHalf, WriteHalf};
use bytes::BytesMut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tokio::sync::{Notify, mpsc};

/// See [`Pool::counts`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) idle: usize,
    pub(crate) used: usize,
    pub(crate) waiting: usize,
}

/// The control channel that a pool asks for tunnels on.
#[derive(Debug, Clone)]
pub struct Link {
    /// Which registration; tunnels of an earlier one are not used again.
    pub generation: u64,
    /// Protocol version of the edge.
    pub version: u32,
    /// What the edge does with tunnels.
    pub mode: Option<Mode>,
    /// The key that registered, which tunnels must come from; none in plain.
    pub key: Option<Fingerprint>,
    /// Commands to the edge.
    pub tx: ToEdge,
}

/// Commands on their way to one edge. Each in a box: such a queue keeps room for 32 as long as the edge is there, and
/// the largest command would set the size.
pub type ToEdge = mpsc::Sender<Box<Command>>;

/// A client's tunnels.
#[derive(Debug)]
pub struct Pool {
    client: ClientId,
    /// What goes through them.
    pub(crate) traffic: Traffic,
    pub(super) limits: Arc<LiveLimits>,
    pending: Arc<Pending>,
    state: Mutex<State>,
    pub(super) live: AtomicUsize,
    pub(super) in_use: AtomicUsize,
    /// Changed only under the lock.
    pub(super) waiting: AtomicUsize,
    pub(super) stirred: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) link: Option<Link>,
    /// Until when an edge that is not here is waited for, as it was here before the relay was started.
    pub(super) expected: Option<Instant>,
    /// The newest registration that was ever in charge: an older one that comes late has no say.
    newest: u64,
    pub(super) idle: Vec<Tunnel>,
    pub(super) queue: Queue,
    pub(super) leases: Vec<Weak<Lease>>,
    pub(super) asked: usize,
    /// Tunnels that ended unused since the last repair. When there are many, keeping a stock only makes
    /// edge and local service open and close connections in a circle.
    wasted: usize,
}

impl Pool {
    /// An empty pool, offline.
    pub(crate) fn new(client: ClientId, limits: Arc<LiveLimits>, pending: Arc<Pending>) -> Arc<Self> {
        Arc::new(Self {
            client,
            traffic: Traffic::default(),
            limits,
            pending,
            state: Mutex::default(),
            live: AtomicUsize::new(0),
            in_use: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            stirred: Notify::new(),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock; if it did, the state would still be sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the edge in charge does with tunnels.
    #[cfg(test)]
    pub(crate) fn mode(&self) -> Option<Mode> {
        self.lock().link.as_ref().and_then(|link| link.mode)
    }

    /// How many tunnels are idle and in use, and how many requests wait; each as it was a moment ago.
    pub(crate) fn counts(&self) -> Counts {
        let used = self.in_use.load(Ordering::Relaxed);
        Counts {
            idle: self.live.load(Ordering::Relaxed).saturating_sub(used),
            used,
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// Is the edge connected?
    pub(crate) fn is_online(&self) -> bool {
        self.lock().link.is_some()
    }

    /// The edge is to be back by then.
    pub(crate) fn expect(&self, until: Instant) {
        self.lock().expected = Some(until);
    }

    pub(super) fn within_share(&self, held: &AtomicUsize) -> bool {
        let used = self.in_use.load(Ordering::Relaxed);
        within_share(held.load(Ordering::Relaxed), used, self.limits.max_tunnels())
    }

    pub(super) fn lease(
        self: &Arc<Self>,
        state: &mut State,
        tunnel: Tunnel,
        held: Arc<AtomicUsize>,
    ) -> Leased {
        let lease = Lease::new(self.clone(), held);
        if state.leases.len() >= 64 + 2 * self.in_use.load(Ordering::Relaxed) {
            state.leases.retain(|l| l.strong_count() > 0);
        }
        state.leases.push(Arc::downgrade(&lease));
        Leased { tunnel, lease }
    }

    /// Takes a tunnel back whose exchange ended cleanly, for the next one.
    pub(crate) fn checkin(self: &Arc<Self>, leased: Leased) {
        let Leased { mut tunnel, lease } = leased;
        drop(lease);
        // A version 1 edge may well close after one exchange, and says nothing before it does. Who has sent
        // more than was asked for would answer the next request with it.
        if tunnel.version < 2 || !tunnel.buf.is_empty() {
            return;
        }
        tunnel.uses += 1;
        tunnel.last_used = Instant::now();
        tunnel.buf = BytesMut::new();
        self.offer(tunnel);
    }

    /// A tunnel that was asked for has arrived. It is dropped if its registration is over, or if it brings
    /// an answer before it was asked anything.
    pub(crate) fn arrived(self: &Arc<Self>, rd: ReadHalf, wr: WriteHalf, buf: BytesMut, generation: u64) {
        self.live.fetch_add(1, Ordering::Relaxed);
        metrics::add(Counter::Tunnels, 1);
        let permit = Permit(self.clone());
        let watch = Arc::new(Watch {
            fired: AtomicBool::new(false),
            pool: self.clone(),
        });
        let version = {
            let mut state = self.lock();
            match &state.link {
                Some(link) if link.generation == generation => {
                    let version = link.version;
                    state.asked = state.asked.saturating_sub(1);
                    state.wasted += usize::from(!buf.is_empty());
                    Some(version)
                }
                _ => None,
            }
        };
        let Some(version) = version.filter(|_| buf.is_empty()) else {
            return;
        };
        self.offer(Tunnel {
            rd,
            wr,
            buf,
            uses: 0,
            service: 0,
            version,
            last_used: Instant::now(),
            generation,
            watch,
            _permit: permit,
        });
    }

    /// A tunnel that was asked for will not come.
    pub(crate) fn gave_up(self: &Arc<Self>, generation: u64) {
        let mut gone = Vec::new();
        let mut state = self.lock();
        if state.link.as_ref().is_some_and(|l| l.generation == generation) {
            state.asked = state.asked.saturating_sub(1);
            self.refill(&mut state, Instant::now(), &mut gone);
        }
        drop(state);
    }

    /// Gives a tunnel to whose turn it is, or keeps it.
    pub(super) fn offer(self: &Arc<Self>, mut tunnel: Tunnel) {
        // Who waits has been read long ago, and may have it before the runtime hears what came meanwhile.
        if self.waiting.load(Ordering::Relaxed) > 0 && !tunnel.rd.is_quiet() {
            return;
        }
        let mut state = self.lock();
        let in_charge = state.link.as_ref().map(|l| l.generation);
        let rejected = if in_charge != Some(tunnel.generation) {
            Some(tunnel)
        } else if tunnel.arm() {
            state.idle.push(tunnel);
            self.serve_queue(&mut state);
            None
        } else {
            state.wasted += usize::from(tunnel.uses == 0);
            Some(tunnel)
        };
        drop(state);
        drop(rejected);
    }

    /// Gives idle tunnels to those that wait, as long as one fits somebody whose turn it is.
    fn serve_queue(self: &Arc<Self>, state: &mut State) {
        while state.queue.len() > 0 && !state.idle.is_empty() {
            let now = Instant::now();
            let State { idle, queue, .. } = &mut *state;
            let used = self.in_use.load(Ordering::Relaxed);
            let next = queue.next(used, self.limits.max_tunnels(), |want| take(idle, want, now));
            let Some((waiter, held, tunnel)) = next else { break };
            let leased = self.lease(state, tunnel, held);
            if let Err(leased) = waiter.tx.send(leased) {
                // Nobody waits there any more: it stays.
                state.idle.push(leased.tunnel);
            }
        }
        self.waiting.store(state.queue.len(), Ordering::Relaxed);
    }

    /// Asks for the tunnels that are missing right now; cold ones give way when there is no room for others,
    /// and are put into `gone`, to be dropped without the lock.
    pub(super) fn refill(self: &Arc<Self>, state: &mut State, now: Instant, gone: &mut Vec<Tunnel>) {
        self.waiting.store(state.queue.len(), Ordering::Relaxed);
        let Some(link) = &state.link else { return };
        let max = self.limits.max_tunnels();
        let stock = if state.wasted > 2 * self.limits.target() {
            0
        } else {
            self.limits.target()
        };
        // No more are counted than are wanted: a burst may have left many.
        let ready = state.idle.iter().filter(|t| t.is_ready(now)).take(stock).count();
        let waiting = state
            .queue
            .could_be_served(self.in_use.load(Ordering::Relaxed), max);
        let missing = (waiting + stock.saturating_sub(ready)).saturating_sub(state.asked);
        let mut room = max.saturating_sub(self.live.load(Ordering::Relaxed) + state.asked);
        if missing > room {
            let before = gone.len();
            drop_cold(&mut state.idle, missing - room, gone, |t| !t.is_ready(now));
            room += gone.len() - before;
        }
        for _ in 0..missing.min(room) {
            let id = TunnelId::random();
            let command = Command::RequestNewProxyConn {
                proxy_conn_id: id.to_string(),
            };
            // Noted first: the answer may be there before we are back.
            self.pending
                .add(id, self.clone(), self.client.clone(), link.key, link.generation);
            if link.tx.try_send(Box::new(command)).is_err() {
                // The edge does not read, or is gone; its link will end, or the next repair asks again.
                self.pending.forget(id);
                break;
            }
            state.asked += 1;
        }
    }

    /// The edge (re)connected. Tunnels of an earlier registration are closed. A registration that was replaced
    /// before it got here changes nothing.
    pub(crate) fn link_up(self: &Arc<Self>, link: Link) {
        let mut gone = Vec::new();
        let mut state = self.lock();
        if link.generation < state.newest {
            return;
        }
        state.newest = link.generation;
        state.expected = None;
        state.link = Some(link);
        state.asked = 0;
        let old = std::mem::take(&mut state.idle);
        self.refill(&mut state, Instant::now(), &mut gone);
        drop(state);
        drop(old);
    }

    /// The control channel of this registration ended. Exchanges go on; idle tunnels are closed. Requests
    /// that wait for a tunnel go on waiting for the edge to come back, unless it left `for_good`.
    pub(crate) fn link_down(&self, generation: u64, for_good: bool) {
        let mut state = self.lock();
        if state.link.as_ref().is_none_or(|l| l.generation != generation) {
            return;
        }
        state.link = None;
        state.asked = 0;
        if for_good {
            state.queue.clear();
            self.waiting.store(0, Ordering::Relaxed);
        }
        let old = std::mem::take(&mut state.idle);
        drop(state);
        drop(old);
    }

    /// Waits until something happened to an idle tunnel, or a permit or share became free.
    pub(crate) async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// Somebody who waits may be able to have a tunnel now. Only a mark: this may run while the pool is locked.
    pub(super) fn stir_for_waiting(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.stirred.notify_one();
        }
    }

    /// Removes idle tunnels that died, closes those not needed for a while, cold ones first, serves those that
    /// wait, asks for what is missing. `repair` is true when it was called by the clock and not by an event.
    pub(crate) fn tend(self: &Arc<Self>, repair: bool) {
        let mut gone = Vec::new();
        let mut state = self.lock();
        let mut at = 0;
        while at < state.idle.len() {
            let tunnel = &mut state.idle[at];
            if !tunnel.is_calm() && !tunnel.arm() {
                let tunnel = state.idle.remove(at);
                state.wasted += usize::from(tunnel.uses == 0);
                gone.push(tunnel);
            } else {
                at += 1;
            }
        }
        let above = state.idle.len().saturating_sub(self.limits.target());
        let before = gone.len();
        let stale = |t: &Tunnel| t.last_used.elapsed() > d::IDLE_ABOVE_TARGET;
        drop_cold(&mut state.idle, above, &mut gone, |t| t.uses > 0 && stale(t));
        let above = above - (gone.len() - before);
        drop_cold(&mut state.idle, above, &mut gone, stale);
        if repair {
            state.wasted = 0;
            state.queue.sweep();
        }
        self.serve_queue(&mut state);
        self.refill(&mut state, Instant::now(), &mut gone);
        drop(state);
        drop(gone);
    }
}

/// The tunnel that suits a request best: used ones first, so that those that were never used are there for who
/// may take no other, and of those the most recently used, whose socket buffers are grown and memory is warm.
pub(super) fn take(idle: &mut Vec<Tunnel>, need: Need, now: Instant) -> Option<Tunnel> {
    let used = |t: &Tunnel| {
        let fits = match need.want {
            Want::Any => true,
            Want::Ready => t.is_ready(now),
            Want::Fresh => false,
        };
        fits && t.uses > 0 && t.service == need.service && t.is_calm()
    };
    let fresh = |t: &Tunnel| t.uses == 0 && t.is_calm();
    let at = idle
        .iter()
        .rposition(used)
        .or_else(|| idle.iter().rposition(fresh))?;
    Some(idle.remove(at))
}

/// Moves up to `most` idle tunnels of a kind into `gone`, the longest idle first.
fn drop_cold(idle: &mut Vec<Tunnel>, most: usize, gone: &mut Vec<Tunnel>, of_kind: impl Fn(&Tunnel) -> bool) {
    let mut left = most;
    gone.extend(idle.extract_if(.., |t| {
        let out = left > 0 && of_kind(t);
        left -= usize::from(out);
        out
    }));
}
