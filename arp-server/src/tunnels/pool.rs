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
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot};

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

    fn target(&self) -> usize {
        self.target.load(Ordering::Relaxed)
    }

    fn max_tunnels(&self) -> usize {
        self.max_tunnels.load(Ordering::Relaxed)
    }

    fn max_waiting(&self) -> usize {
        self.max_waiting.load(Ordering::Relaxed)
    }

    fn wait(&self) -> Duration {
        Duration::from_millis(self.wait_ms.load(Ordering::Relaxed))
    }
}

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
    limits: Arc<LiveLimits>,
    pending: Arc<Pending>,
    state: Mutex<State>,
    pub(super) live: AtomicUsize,
    pub(super) in_use: AtomicUsize,
    /// Changed only under the lock.
    waiting: AtomicUsize,
    pub(super) stirred: Notify,
}

#[derive(Debug, Default)]
struct State {
    link: Option<Link>,
    /// Until when an edge that is not here is waited for, as it was here before the relay was started.
    expected: Option<Instant>,
    /// The newest registration that was ever in charge: an older one that comes late has no say.
    newest: u64,
    idle: Vec<Tunnel>,
    queue: Queue,
    leases: Vec<Weak<Lease>>,
    asked: usize,
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

    fn lock(&self) -> MutexGuard<'_, State> {
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

    /// The edge is to be back by then.
    pub(crate) fn expect(&self, until: Instant) {
        self.lock().expected = Some(until);
    }

    /// Was the edge expected, and has not come?
    fn is_overdue(&self) -> bool {
        let state = self.lock();
        state.link.is_none() && state.expected.is_some_and(|until| until <= Instant::now())
    }

    fn within_share(&self, held: &AtomicUsize) -> bool {
        let used = self.in_use.load(Ordering::Relaxed);
        within_share(held.load(Ordering::Relaxed), used, self.limits.max_tunnels())
    }

    fn lease(self: &Arc<Self>, state: &mut State, tunnel: Tunnel, held: Arc<AtomicUsize>) -> Leased {
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
    fn offer(self: &Arc<Self>, mut tunnel: Tunnel) {
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
    fn refill(self: &Arc<Self>, state: &mut State, now: Instant, gone: &mut Vec<Tunnel>) {
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

/// The tunnel that suits a request best: used ones first, so that those that were never used are there for who
/// may take no other, and of those the most recently used, whose socket buffers are grown and memory is warm.
fn take(idle: &mut Vec<Tunnel>, need: Need, now: Instant) -> Option<Tunnel> {
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
