//! What an operator sees of a running relay and does with it: status, metrics, clients, a page. On a port of its own
//! with a key of its own, and for the command line on a socket in the data directory that only the relay's user can
//! open.
//!
//! It reads what the others count ([`crate::metrics`]) and asks the registry; nothing that serves visitors knows
//! of it.

mod api;
pub mod ask;
mod guard;
mod history;
mod process;
mod prometheus;
mod serve;
pub mod shape;

pub use guard::Guard;
pub use serve::{key, listen, serve_port, serve_socket};

use crate::admission::Admission;
use crate::bans::Ban;
use crate::metrics::{Counter, Totals};
use crate::registry::Registry;
use crate::reload::{Asked, Outcome};
use crate::server::Addresses;
use crate::tunnels::pool::Counts;
use crate::visitor::census::Census;
use arp_common::protocol::{Command, GoAwayReason};
use history::History;
use shape::{Checkouts, ClientRow, Edges, Failed, Refused, Status, Tunnels};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Everything that is needed to tell how the relay does.
#[derive(Debug)]
pub struct Admin {
    admission: Arc<Admission>,
    census: Arc<Census>,
    history: History,
    about: About,
    began: Instant,
    reload: mpsc::Sender<Asked>,
    stop: CancellationToken,
}

/// What does not change while the relay runs.
#[derive(Debug, Clone)]
pub struct About {
    /// Where it listens.
    pub addresses: Addresses,
    /// The fingerprint of its key.
    pub fingerprint: String,
    /// Version and commit.
    pub version: &'static str,
}

impl Admin {
    /// Of a relay that is about to serve; `days` are those that are in its store.
    pub fn new(
        admission: Arc<Admission>,
        census: Arc<Census>,
        about: About,
        days: Vec<crate::store::Day>,
        reload: mpsc::Sender<Asked>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            admission,
            census,
            history: History::new(days),
            about,
            began: Instant::now(),
            reload,
            stop,
        })
    }

    fn registry(&self) -> &Registry {
        self.admission.registry()
    }

    /// Takes a sample now and then, and notes the traffic of the day in the store, until `end`; then once more.
    pub async fn keep_history(self: Arc<Self>, end: CancellationToken) {
        let mut tick = tokio::time::interval(history::STEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let over = tokio::select! {
                _ = tick.tick() => false,
                () = end.cancelled() => true,
            };
            let (online, counts) = self.now();
            self.history.sample(&Totals::now(), online, counts);
            if let Some(more) = self.history.due(over) {
                match self.admission.store().add_traffic(more).await {
                    Ok(()) => self.history.noted(&more),
                    // The store says itself that it cannot write; it is tried again with the next.
                    Err(e) => tracing::debug!("the traffic of the day is not noted yet: {e}"),
                }
            }
            if over {
                return;
            }
        }
    }

    /// Edges online, and the tunnels of all clients.
    fn now(&self) -> (usize, Counts) {
        let (mut online, mut all) = (0, Counts::default());
        for client in self.registry().known() {
            let counts = client.pool.counts();
            online += usize::from(client.pool.is_online());
            all.idle += counts.idle;
            all.used += counts.used;
            all.waiting += counts.waiting;
        }
        (online, all)
    }

    fn status(&self) -> Status {
        let totals = Totals::now();
        let (online, tunnels) = self.now();
        let at = self.about.addresses;
        Status {
            version: self.about.version.to_owned(),
            pid: std::process::id(),
            uptime: self.began.elapsed().as_secs(),
            serving: !self.stop.is_cancelled(),
            fingerprint: self.about.fingerprint.clone(),
            control: at.control.to_string(),
            proxy: at.proxy.to_string(),
            public: at.public.to_string(),
            admin: at.admin.map(|a| a.to_string()),
            edges: Edges {
                online,
                known: self.registry().known().len(),
                registrations: totals.get(Counter::Registered),
            },
            tunnels: Tunnels {
                idle: tunnels.idle,
                used: tunnels.used,
                waiting: tunnels.waiting,
                opened: totals.get(Counter::Tunnels),
            },
            checkouts: Checkouts {
                hit: totals.get(Counter::CheckoutHit),
                miss: totals.get(Counter::CheckoutMiss),
                timeout: totals.get(Counter::CheckoutTimeout),
                offline: totals.get(Counter::CheckoutOffline),
                busy: totals.get(Counter::CheckoutBusy),
            },
            visitors: self.census.total(),
            requests: totals.requests(),
            bytes_in: totals.get(Counter::BytesIn),
            bytes_out: totals.get(Counter::BytesOut),
            refused: totals
                .refused
                .iter()
                .map(|(what, code, count)| Refused {
                    what: (*what).to_owned(),
                    code: (*code).to_owned(),
                    count: *count,
                })
                .collect(),
            failed: Failed {
                control: totals.get(Counter::FailedControl),
                proxy: totals.get(Counter::FailedProxy),
                public: totals.get(Counter::FailedPublic),
            },
            memory: process::memory(),
            descriptors: process::descriptors(),
            cpu: process::cpu(),
            store_writable: self.admission.store().is_writable(),
        }
    }

    /// Everybody who is known, those online first.
    fn clients(&self) -> Vec<ClientRow> {
        let mut rows: Vec<ClientRow> = self
            .registry()
            .known()
            .iter()
            .map(|client| {
                let (counts, sums, present) =
                    (client.pool.counts(), client.pool.traffic.sums(), client.present());
                let here = present.as_ref();
                ClientRow {
                    id: client.id.as_str().to_owned(),
                    key: client.key().map(|k| k.to_string()),
                    names: client.names(),
                    online: here.is_some(),
                    since: here.map(|p| p.since.elapsed().as_secs()),
                    peer: here.map(|p| p.about.peer.to_string()),
                    agent: here.and_then(|p| p.about.agent.clone()),
                    idle: counts.idle,
                    used: counts.used,
                    waiting: counts.waiting,
                    traffic: sums,
                }
            })
            .collect();
        rows.sort_by(|a, b| (b.online, &a.id).cmp(&(a.online, &b.id)));
        rows
    }

    /// Ends the control channel of a client that is here. False if it is not.
    fn kick(&self, id: &str) -> bool {
        let Some(client) = self.registry().by_id(id) else {
            return false;
        };
        let here = client.present().is_some();
        client.tell(Command::GoAway {
            reason: GoAwayReason::Kicked,
        });
        here
    }

    /// Bans, and ends the control channels of those that it holds; gives how many.
    async fn ban(&self, ban: &Ban) -> Result<usize, crate::store::StoreError> {
        self.admission.store().set_ban(ban.to_string(), true).await?;
        self.admission.bans().give(ban, true);
        Ok(self.enforce())
    }

    /// Ends the control channels of those that are banned.
    pub fn enforce(&self) -> usize {
        let bans = self.admission.bans();
        let banned = |id: &str, present: &crate::registry::Present| {
            bans.holds(&present.id, present.key, present.about.peer.ip()) && self.kick(id)
        };
        let present = self.registry().present();
        present.iter().filter(|p| banned(p.id.as_str(), p)).count()
    }

    /// Has the settings read again. None if nobody does that.
    async fn reload(&self) -> Option<Outcome> {
        let (answer, outcome) = oneshot::channel();
        self.reload.send(answer).await.ok()?;
        outcome.await.ok()
    }

    async fn unban(&self, ban: &Ban) -> Result<bool, crate::store::StoreError> {
        self.admission.store().set_ban(ban.to_string(), false).await?;
        Ok(self.admission.bans().give(ban, false))
    }
}

/// Seconds since 1970.
fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
