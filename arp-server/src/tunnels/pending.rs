//! Tunnels that edges were asked for and that have not come yet.

use super::pool::Pool;
use crate::defaults as d;
use arp_common::ids::{ClientId, TunnelId};
use arp_common::tls::Fingerprint;
use dashmap::DashMap;
use std::sync::Arc;
use std::time::Instant;

/// Tunnels that were asked for and have not come yet.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    map: DashMap<TunnelId, Asked>,
}

/// One tunnel that was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Where it belongs.
    pub(crate) pool: Arc<Pool>,
    /// Who may open it.
    pub(crate) client: ClientId,
    /// The key that holds the registration; none in plain.
    pub(crate) key: Option<Fingerprint>,
    /// Under which registration.
    pub(crate) generation: u64,
    deadline: Instant,
}

impl Pending {
    /// Notes that a tunnel was asked for.
    pub(crate) fn add(
        &self,
        id: TunnelId,
        pool: Arc<Pool>,
        client: ClientId,
        key: Option<Fingerprint>,
        generation: u64,
    ) {
        let deadline = Instant::now() + d::TUNNEL_ARRIVAL;
        self.map.insert(
            id,
            Asked {
                pool,
                client,
                key,
                generation,
                deadline,
            },
        );
    }

    /// Takes a note back: the tunnel was not asked for after all.
    pub(crate) fn forget(&self, id: TunnelId) {
        self.map.remove(&id);
    }

    /// Takes the note: an id is good once, in time, and only for the client and key it was given to.
    pub(crate) fn claim(&self, id: TunnelId, client: &ClientId, key: Option<Fingerprint>) -> Option<Asked> {
        let fits =
            |asked: &Asked| asked.client == *client && asked.key == key && asked.deadline > Instant::now();
        self.map
            .remove_if(&id, |_, asked| fits(asked))
            .map(|(_, asked)| asked)
    }

    /// Gives up what is overdue.
    pub(crate) fn expire(&self) {
        let now = Instant::now();
        let mut late = Vec::new();
        self.map.retain(|_, asked| {
            let keep = asked.deadline > now;
            if !keep {
                late.push((asked.pool.clone(), asked.generation));
            }
            keep
        });
        for (pool, generation) in late {
            pool.gave_up(generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnels::limits::{LiveLimits, PoolLimits};
    use crate::tunnels::pool::Link;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};
    use std::time::Duration;
    use tokio::sync::mpsc;

    /// Looks at the notes at the very moment at which the edge is asked.
    struct Look(Arc<Pending>, AtomicUsize);

    impl Wake for Look {
        fn wake(self: Arc<Self>) {
            self.1.store(self.0.map.len(), Ordering::SeqCst);
        }
    }

    #[test]
    fn a_tunnel_is_noted_before_the_edge_is_asked_for_it() {
        let pending = Arc::new(Pending::default());
        let limits = PoolLimits {
            target: 1,
            max_tunnels: 1,
            max_waiting: 1,
            wait: Duration::from_secs(1),
        };
        let pool = Pool::new(
            "demo".parse().unwrap(),
            Arc::new(LiveLimits::new(&limits)),
            pending.clone(),
        );
        let (tx, mut rx) = mpsc::channel(1);
        let look = Arc::new(Look(pending.clone(), AtomicUsize::new(0)));
        let waker = Waker::from(look.clone());
        assert!(rx.poll_recv(&mut Context::from_waker(&waker)).is_pending());
        pool.link_up(Link {
            generation: 1,
            version: 2,
            mode: None,
            key: None,
            tx,
        });
        assert_eq!(look.1.load(Ordering::SeqCst), 1);
        // And an edge that cannot be asked is not waited for.
        pool.tend(false);
        assert_eq!(pending.map.len(), 1);
    }
}
