//! One client's tunnels: which are idle, who waits for one, how many more to ask the edge for.
//!
//! Refill is driven by use: taking a tunnel, queueing for one or losing one asks for what is missing at
//! that moment. A returned tunnel and a new one go to whoever has waited longest. An idle tunnel is
//! watched by the waker of a read that is left pending on it, so its death is known when it happens and
//! an idle tunnel costs no task.
//!
//! One short lock guards idle tunnels and waiting requests together (they must be seen together, or a
//! request could queue at the moment a tunnel comes back); it is never held across an await, and no tunnel
//! is dropped under it.

use super::pending::Pending;
use super::tunnel::{Permit, Tunnel, Want, Watch};
use crate::defaults as d;
use arp_common::ids::{ClientId, TunnelId};
use arp_common::protocol::{Command, Mode};
use arp_common::tls::Fingerprint;
use arp_common::transport::{ReadHalf, WriteHalf};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};

/// What the operator set for every client's pool.
#[derive(Debug, Clone)]
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

/// Why there is no tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckoutError {
    /// The edge is not connected.
    #[error("the edge agent is offline")]
    Offline,
    /// Too many wait already.
    #[error("too many requests are waiting for this edge agent")]
    Busy,
    /// None came in time.
    #[error("the edge agent opened no tunnel in time")]
    Timeout,
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
    pub tx: mpsc::Sender<Command>,
}

/// A client's tunnels.
#[derive(Debug)]
pub struct Pool {
    client: ClientId,
    limits: Arc<PoolLimits>,
    pending: Arc<Pending>,
    state: Mutex<State>,
    pub(super) live: AtomicUsize,
    served: AtomicU64,
    pub(super) stirred: Notify,
}

#[derive(Debug, Default)]
struct State {
    link: Option<Link>,
    idle: Vec<Tunnel>,
    waiting: VecDeque<Waiter>,
    asked: usize,
    /// Tunnels that ended unused since the last repair. When there are many, keeping a stock only makes
    /// edge and local service open and close connections in a circle.
    wasted: usize,
}

#[derive(Debug)]
struct Waiter {
    want: Want,
    tx: oneshot::Sender<Tunnel>,
}

impl Pool {
    /// An empty pool, offline.
    pub fn new(client: ClientId, limits: Arc<PoolLimits>, pending: Arc<Pending>) -> Arc<Self> {
        Arc::new(Self {
            client,
            limits,
            pending,
            state: Mutex::default(),
            live: AtomicUsize::new(0),
            served: AtomicU64::new(0),
            stirred: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock; if it did, the state would still be sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is the edge connected?
    pub fn is_online(&self) -> bool {
        self.lock().link.is_some()
    }

    /// What the edge does with tunnels, as far as it said so.
    pub fn mode(&self) -> Option<Mode> {
        self.lock().link.as_ref().and_then(|l| l.mode)
    }

    /// Idle tunnels, tunnels in all, requests served.
    pub fn counts(&self) -> (usize, usize, u64) {
        (
            self.lock().idle.len(),
            self.live.load(Ordering::Relaxed),
            self.served.load(Ordering::Relaxed),
        )
    }

    /// Takes a tunnel, waiting for one if need be.
    ///
    /// # Errors
    /// See [`CheckoutError`].
    pub async fn checkout(self: &Arc<Self>, want: Want) -> Result<Tunnel, CheckoutError> {
        let waiting = {
            let mut state = self.lock();
            if state.link.is_none() {
                return Err(CheckoutError::Offline);
            }
            let taken = take(&mut state.idle, want);
            let waiting = match taken {
                Some(tunnel) => {
                    self.refill(&mut state);
                    self.served.fetch_add(1, Ordering::Relaxed);
                    return Ok(tunnel);
                }
                None => {
                    if state.waiting.len() >= self.limits.max_waiting {
                        state.waiting.retain(|w| !w.tx.is_closed());
                        if state.waiting.len() >= self.limits.max_waiting {
                            return Err(CheckoutError::Busy);
                        }
                    }
                    let (tx, rx) = oneshot::channel();
                    state.waiting.push_back(Waiter { want, tx });
                    rx
                }
            };
            self.refill(&mut state);
            waiting
        };
        match tokio::time::timeout(self.limits.wait, waiting).await {
            Ok(Ok(tunnel)) => {
                self.served.fetch_add(1, Ordering::Relaxed);
                Ok(tunnel)
            }
            _ if self.is_online() => Err(CheckoutError::Timeout),
            _ => Err(CheckoutError::Offline),
        }
    }

    /// Takes a tunnel back whose exchange ended cleanly, for the next one.
    pub fn checkin(self: &Arc<Self>, mut tunnel: Tunnel) {
        // A version 1 edge may well close after one exchange, and says nothing before it does.
        if tunnel.version < 2 || !tunnel.buf.is_empty() {
            return;
        }
        tunnel.uses += 1;
        tunnel.last_used = Instant::now();
        tunnel.buf = BytesMut::new();
        self.offer(tunnel);
    }

    /// A tunnel that was asked for has arrived. It is dropped if its registration is over.
    pub fn arrived(self: &Arc<Self>, rd: ReadHalf, wr: WriteHalf, buf: BytesMut, generation: u64) {
        self.live.fetch_add(1, Ordering::Relaxed);
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
                    Some(version)
                }
                _ => None,
            }
        };
        let Some(version) = version else { return };
        let last_used = Instant::now();
        self.offer(Tunnel {
            rd,
            wr,
            buf,
            uses: 0,
            version,
            last_used,
            generation,
            watch,
            _permit: permit,
        });
    }

    /// A tunnel that was asked for will not come.
    pub fn gave_up(self: &Arc<Self>, generation: u64) {
        let mut state = self.lock();
        if state.link.as_ref().is_some_and(|l| l.generation == generation) {
            state.asked = state.asked.saturating_sub(1);
            self.refill(&mut state);
        }
    }

    /// Gives a tunnel to whoever waits longest, or keeps it.
    fn offer(self: &Arc<Self>, mut tunnel: Tunnel) {
        let mut rejected = None;
        {
            let mut state = self.lock();
            if state
                .link
                .as_ref()
                .is_none_or(|l| l.generation != tunnel.generation)
            {
                rejected = Some(tunnel);
            } else {
                loop {
                    let fits = |w: &Waiter| w.want != Want::Fresh || tunnel.uses == 0;
                    let Some(at) = state.waiting.iter().position(fits) else {
                        if tunnel.arm() {
                            state.idle.push(tunnel);
                        } else {
                            state.wasted += usize::from(tunnel.uses == 0);
                            rejected = Some(tunnel);
                        }
                        break;
                    };
                    let Some(waiter) = state.waiting.remove(at) else {
                        break;
                    };
                    match waiter.tx.send(tunnel) {
                        Ok(()) => break,
                        Err(back) => tunnel = back,
                    }
                }
            }
        }
        drop(rejected);
    }

    /// Asks for the tunnels that are missing right now.
    fn refill(self: &Arc<Self>, state: &mut State) {
        let Some(link) = &state.link else { return };
        let stock = if state.wasted > 2 * self.limits.target {
            0
        } else {
            self.limits.target
        };
        let wanted = state.waiting.len() + stock.saturating_sub(state.idle.len());
        let live = self.live.load(Ordering::Relaxed);
        let room = self.limits.max_tunnels.saturating_sub(live + state.asked);
        for _ in 0..wanted.saturating_sub(state.asked).min(room) {
            let id = TunnelId::random();
            let command = Command::RequestNewProxyConn {
                proxy_conn_id: id.to_string(),
            };
            if link.tx.try_send(command).is_err() {
                // The edge does not read, or is gone; its link will end, or the next repair asks again.
                break;
            }
            self.pending
                .add(id, self.clone(), self.client.clone(), link.key, link.generation);
            state.asked += 1;
        }
    }

    /// The edge (re)connected. Tunnels of an earlier registration are closed.
    pub fn link_up(self: &Arc<Self>, link: Link) {
        let old = {
            let mut state = self.lock();
            state.link = Some(link);
            state.asked = 0;
            state.waiting.retain(|w| !w.tx.is_closed());
            let old = std::mem::take(&mut state.idle);
            self.refill(&mut state);
            old
        };
        drop(old);
    }

    /// The control channel of this registration ended. Exchanges go on; idle tunnels are closed. Requests
    /// that wait for a tunnel go on waiting for the edge to come back, unless it left `for_good`.
    pub fn link_down(&self, generation: u64, for_good: bool) {
        let old = {
            let mut state = self.lock();
            if state.link.as_ref().is_none_or(|l| l.generation != generation) {
                return;
            }
            state.link = None;
            state.asked = 0;
            if for_good {
                state.waiting.clear();
            }
            std::mem::take(&mut state.idle)
        };
        drop(old);
    }

    /// Waits until something happened to an idle tunnel, or a place became free.
    pub async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// Removes idle tunnels that died, closes those not needed for a while, asks for what is missing.
    /// `repair` is true when it was called by the clock and not by an event.
    pub fn tend(self: &Arc<Self>, repair: bool) {
        let mut gone = Vec::new();
        {
            let mut state = self.lock();
            let mut at = 0;
            while at < state.idle.len() {
                let tunnel = &mut state.idle[at];
                if tunnel.watch.fired.load(Ordering::Acquire) && !tunnel.arm() {
                    let tunnel = state.idle.remove(at);
                    state.wasted += usize::from(tunnel.uses == 0);
                    gone.push(tunnel);
                } else {
                    at += 1;
                }
            }
            // The oldest stand in front, because the newest are used first.
            let above = state.idle.len().saturating_sub(self.limits.target);
            let stale = |t: &&Tunnel| t.last_used.elapsed() > d::IDLE_ABOVE_TARGET;
            let stale = state.idle.iter().take(above).take_while(stale).count();
            gone.extend(state.idle.drain(..stale));
            state.waiting.retain(|w| !w.tx.is_closed());
            if repair {
                state.wasted = 0;
            }
            self.refill(&mut state);
        }
        drop(gone);
    }
}

/// The most recently used tunnel that fits: its socket buffers are grown and its memory is warm.
fn take(idle: &mut Vec<Tunnel>, want: Want) -> Option<Tunnel> {
    let fits = |t: &Tunnel| {
        !t.watch.fired.load(Ordering::Acquire)
            && match want {
                Want::Any => true,
                Want::Safe => t.is_warm(),
                Want::Fresh => t.uses == 0,
            }
    };
    let at = idle.iter().rposition(fits)?;
    Some(idle.remove(at))
}
