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
