//! Who is registered: client ids and tokens to clients, and the tunnels that were asked for and have not
//! come yet.
//!
//! The relay keeps this in memory; a second relay would put a directory behind the same few methods. Which
//! key a name is bound to is decided before, in [`crate::store`].

mod client;
mod refused;
mod tokens;

pub use client::{About, Client, Present};
pub use refused::RegisterError;
pub use tokens::Spelling;
pub(crate) use tokens::{Holder, Tally};

use self::client::Channel;
use self::tokens::Tokens;
use crate::defaults as d;
use crate::store::Binding;
use crate::tcp::services::Service;
use crate::tunnels::limits::{LiveLimits, PoolLimits};
use crate::tunnels::pending::Pending;
use crate::tunnels::pool::{Link, Pool, ToEdge};
use arp_common::ids::{ClientId, MAX_NAME, Token};
use arp_common::protocol::{Command, GoAwayReason, Protocol};
use arp_common::tls::Fingerprint;
use dashmap::DashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What an edge asks for when it registers.
#[derive(Debug)]
pub struct Entry {
    /// Its id.
    pub id: ClientId,
    /// Names by which visitors reach it, its id among them unless it does not want that.
    pub names: Vec<Token>,
    /// The key it holds; none in plain.
    pub key: Option<Fingerprint>,
    /// What it says of its services.
    pub services: Vec<Service>,
    /// More about its control channel.
    pub about: About,
    /// Commands to it.
    pub tx: ToEdge,
}

/// Everybody the relay knows.
#[derive(Debug)]
pub struct Registry {
    tokens: Tokens,
    clients: DashMap<ClientId, Arc<Client>>,
    limits: Arc<LiveLimits>,
    pending: Arc<Pending>,
    max_clients: AtomicUsize,
    /// Has a client ever said that it serves MySQL, where the server speaks first?
    mysql: AtomicBool,
    /// Has a client ever said that TLS is to go to it unread?
    passing: AtomicBool,
    generation: AtomicU64,
    /// Held while names change hands, so that two registrations cannot each get half of the other's.
    naming: Mutex<()>,
}

impl Registry {
    /// An empty registry. The key of its hashes is nobody else's business.
    pub fn new(limits: PoolLimits, max_clients: usize, hash_key: (u64, u64)) -> Self {
        // As many as can be bound, and as many again that were and are not any more.
        let most_past = d::MAX_GIVEN_UP.max(max_clients.saturating_mul(8));
        Self {
            tokens: Tokens::new(hash_key, most_past),
            clients: DashMap::default(),
            limits: Arc::new(LiveLimits::new(&limits)),
            pending: Arc::default(),
            max_clients: AtomicUsize::new(max_clients),
            mysql: AtomicBool::new(false),
            passing: AtomicBool::new(false),
            generation: AtomicU64::new(1),
            naming: Mutex::new(()),
        }
    }

    /// Changes the limits; who is over them now stays.
    pub(crate) fn set_limits(&self, limits: &PoolLimits, max_clients: usize) {
        self.limits.set(limits);
        self.max_clients.store(max_clients, Ordering::Relaxed);
    }

    fn max_clients(&self) -> usize {
        self.max_clients.load(Ordering::Relaxed)
    }

    /// The tunnels that were asked for.
    pub(crate) fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    /// Whose name this is. The only way for a visitor's request to learn it, and `tally` counts.
    pub(crate) fn find(&self, name: &str, spelling: Spelling, tally: &mut impl Tally) -> Option<Holder> {
        if name.len() > MAX_NAME {
            return None;
        }
        let (holder, hash) = self.tokens.find(name, spelling);
        if let Some(Holder::Client(_, client, _)) = &holder {
            client.is_wanted();
        }
        tally.asked(name, hash, holder.is_some());
        holder
    }

    /// The client and token with this keyed hash, for a visitor's request; `tally` counts.
    pub(crate) fn find_hash(&self, hash: u128, tally: &mut impl Tally) -> Option<(Token, Arc<Client>)> {
        let (token, client) = self.tokens.by_hash(hash)?;
        tally.asked(token.as_str(), hash, true);
        client.is_wanted();
        Some((token, client))
    }

    /// Keyed hash of a name, the same in any case.
    pub fn hash(&self, name: &str) -> u128 {
        self.tokens.hash(name)
    }

    /// The clients that are here now.
    pub fn present(&self) -> Vec<Present> {
        self.clients.iter().filter_map(|e| e.value().present()).collect()
    }

    /// The clients that it knows, here or not.
    pub(crate) fn known(&self) -> Vec<Arc<Client>> {
        self.clients.iter().map(|e| e.value().clone()).collect()
    }

    /// The client with this id, if it is known.
    pub(crate) fn by_id(&self, id: &str) -> Option<Arc<Client>> {
        self.clients.get(id).map(|e| e.value().clone())
    }

    /// Is the client with this id here now?
    pub fn is_present(&self, id: &str) -> bool {
        self.clients.get(id).is_some_and(|c| c.lock().link.is_some())
    }

    /// May somebody come who waits to be greeted as by MySQL?
    pub(crate) fn serves_mysql(&self) -> bool {
        self.mysql.load(Ordering::Relaxed)
    }

    /// May somebody come whose TLS is to go to a client unread?
    pub(crate) fn passes_tls(&self) -> bool {
        self.passing.load(Ordering::Relaxed)
    }

    /// The client with this id, here or away. For those who come without a name.
    pub(crate) fn client_of(&self, id: &ClientId) -> Option<Arc<Client>> {
        self.clients.get(id).map(|c| c.clone())
    }

    /// Takes clients that are known from earlier onto the books, offline, and all names that are bound to somebody:
    /// who is not on the books, or has given a name up, is not somebody else.
    pub fn restore(&self, known: Vec<Binding>, bound: Vec<String>) {
        let until = Instant::now() + d::RETURN;
        for binding in known {
            let client = self.client(&binding.client);
            client.pool.expect(until);
            for name in client.restore(&binding) {
                self.tokens.give(name, client.clone());
            }
        }
        for name in bound {
            self.tokens.was_given(&name, true);
        }
    }

    fn client(&self, id: &ClientId) -> Arc<Client> {
        let new = || {
            let pool = Pool::new(id.clone(), self.limits.clone(), self.pending.clone());
            Arc::new(Client::new(id.clone(), pool))
        };
        self.clients.entry(id.clone()).or_insert_with(new).clone()
    }

    /// Would [`Registry::register`] take this entry now? Changes nothing.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub fn check(
        &self,
        id: &ClientId,
        names: &[Token],
        key: Option<Fingerprint>,
    ) -> Result<(), RegisterError> {
        if names.len() > d::MAX_EXTRA_TOKENS + 1 {
            return Err(RegisterError::TooManyTokens);
        }
        let taken = || RegisterError::Taken(id.clone().into());
        if self.clients.get(id).is_some_and(|c| c.is_of_another(key)) {
            return Err(taken());
        }
        // Somebody may be reached by this id as a token, or have an id that is asked for as a token.
        if self
            .tokens
            .owner(id.as_str())
            .is_some_and(|c| c.id != *id && c.pool.is_online())
        {
            return Err(taken());
        }
        for name in names {
            let named = || self.clients.get(name.as_str()).map(|c| c.clone());
            if let Some(owner) = self.tokens.owner(name.as_str()).or_else(named)
                && owner.id != *id
                && owner.pool.is_online()
            {
                return Err(RegisterError::Taken(name.clone()));
            }
        }
        if !self.clients.contains_key(id) && self.is_full() {
            return Err(RegisterError::Full(self.max_clients()));
        }
        Ok(())
    }

    /// Registers a client under its names, in place of an earlier registration of the same client, whose
    /// control channel is told to go.
    ///
    /// # Errors
    /// See [`RegisterError`]; nothing has changed then.
    pub fn register(&self, entry: Entry) -> Result<(Arc<Client>, u64), RegisterError> {
        let Entry {
            id,
            names,
            key,
            services,
            about,
            tx,
        } = entry;
        let naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        self.check(&id, &names, key)?;
        if !self.clients.contains_key(&id) {
            self.make_room();
        }
        let client = self.client(&id);
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let link = Link {
            generation,
            version: about.version,
            mode: about.mode,
            key,
            tx: tx.clone(),
        };
        let old_link = {
            let mut state = client.lock();
            state.seen = Some(Instant::now());
            state.key = key;
            state.link.replace(Channel {
                generation,
                tx,
                since: Instant::now(),
                about,
            })
        };
        if services.iter().any(|s| s.protocol == Some(Protocol::Mysql)) {
            self.mysql.store(true, Ordering::Relaxed);
        }
        if services.iter().any(|s| s.passthrough) {
            self.passing.store(true, Ordering::Relaxed);
        }
        client.services.set(services);
        self.rename(&client, names);
        // Before anybody else may register: two channels of one client must reach its pool in the order in which
        // they registered, or the later one would be taken for gone when the earlier one ends.
        client.pool.link_up(link);
        drop(naming);
        if let Some(old) = old_link {
            let _ = old.tx.try_send(Box::new(Command::GoAway {
                reason: GoAwayReason::Replaced,
            }));
        }
        Ok((client, generation))
    }

    /// Changes the names of a registered client.
    ///
    /// # Errors
    /// See [`RegisterError`]; nothing has changed then.
    pub fn set_names(
        &self,
        client: &Arc<Client>,
        generation: u64,
        names: Vec<Token>,
    ) -> Result<(), RegisterError> {
        let _naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        let key = {
            let state = client.lock();
            // A registration that was replaced meanwhile has no say any more.
            if state.link.as_ref().is_none_or(|l| l.generation != generation) {
                return Ok(());
            }
            state.key
        };
        self.check(&client.id, &names, key)?;
        self.rename(client, names);
        Ok(())
    }

    /// Call with `naming` held.
    fn rename(&self, client: &Arc<Client>, names: Vec<Token>) {
        let (old, bound) = client.rename(names.clone());
        for name in old.iter().filter(|n| !names.contains(n)) {
            self.tokens.take(name, client, bound);
            client.services.revoke(name);
        }
        for name in names {
            self.tokens.give(name, client.clone());
        }
        // An id is its client's also where visitors do not reach it by that.
        self.tokens.was_given(client.id.as_str(), bound);
    }

    /// A control channel ended. Its client is offline unless it has registered again since. `for_good`: it
    /// said goodbye.
    pub fn unregister(&self, client: &Arc<Client>, generation: u64, for_good: bool) {
        let mut state = client.lock();
        if state.link.as_ref().is_some_and(|l| l.generation == generation) {
            state.link = None;
            state.seen = Some(Instant::now());
        }
        drop(state);
        client.pool.link_down(generation, for_good);
    }

    /// Are as many clients online as may be?
    fn is_full(&self) -> bool {
        let online = |c: &Arc<Client>| c.lock().link.is_some();
        let max = self.max_clients();
        self.clients.len() >= max && self.clients.iter().filter(|c| online(c)).count() >= max
    }

    /// Forgets offline clients, longest gone first, when there are too many. Call with `naming` held: who is
    /// forgotten here must not be registering at the same moment.
    fn make_room(&self) {
        if self.clients.len() < self.max_clients().saturating_add(d::MAX_OFFLINE) {
            return;
        }
        let mut offline: Vec<_> = self
            .clients
            .iter()
            .filter(|c| c.lock().link.is_none())
            .map(|c| (c.lock().seen, c.value().clone()))
            .collect();
        offline.sort_by_key(|(seen, _)| *seen);
        // A tenth at a time, so that a flood of registrations does not sort at each.
        for (_, client) in offline.iter().take((d::MAX_OFFLINE / 10).max(1)) {
            let (names, bound) = client.rename(Vec::new());
            for name in names {
                self.tokens.take(&name, client, bound);
            }
            self.clients.remove(&client.id);
        }
    }
}

#[cfg(test)]
mod tests;
