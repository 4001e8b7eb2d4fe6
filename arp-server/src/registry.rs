//! Who is registered: client ids and tokens to clients, and the tunnels that were asked for and have not
//! come yet.
//!
//! The relay keeps this in memory; a second relay would put a directory behind the same few methods. Which
//! key a name is bound to is decided before, in [`crate::store`].

use crate::defaults as d;
use crate::store::Binding;
use crate::tcp::services::{Service, Services};
use crate::tunnels::pending::Pending;
use crate::tunnels::pool::{Link, Pool, PoolLimits};
use arp_common::ids::{ClientId, MAX_NAME, Token};
use arp_common::protocol::{Command, GoAwayReason, Mode, Protocol};
use arp_common::tls::Fingerprint;
use dashmap::DashMap;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use subtle::ConstantTimeEq;
use tokio::sync::mpsc;

/// A client that registered at some time since the relay started.
#[derive(Debug)]
pub struct Client {
    /// Its id.
    pub id: ClientId,
    /// Its tunnels.
    pub pool: Arc<Pool>,
    /// What it serves under which name.
    pub services: Services,
    /// Has a visitor ever asked for it?
    used: AtomicBool,
    state: Mutex<ClientState>,
}

#[derive(Debug, Default)]
struct ClientState {
    tokens: Vec<Token>,
    /// The control channel in charge.
    link: Option<Channel>,
    /// The key that registered last; none in plain.
    key: Option<Fingerprint>,
    seen: Option<Instant>,
}

/// The control channel of a client that is here.
#[derive(Debug)]
struct Channel {
    generation: u64,
    tx: mpsc::Sender<Command>,
    since: Instant,
    about: About,
}

/// What is known of a control channel besides the client's names.
#[derive(Debug, Clone)]
pub struct About {
    /// Where it comes from.
    pub peer: SocketAddr,
    /// What the edge calls itself.
    pub agent: Option<String>,
    /// Protocol version.
    pub version: u32,
    /// What it does with tunnels.
    pub mode: Option<Mode>,
}

/// A client that is here now.
#[derive(Debug, Clone)]
pub struct Present {
    /// Its id.
    pub id: ClientId,
    /// Its key; none in plain.
    pub key: Option<Fingerprint>,
    /// Names by which visitors reach it.
    pub names: usize,
    /// Since when.
    pub since: Instant,
    /// More about its control channel.
    pub about: About,
}

/// How a name must be written to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// As it was registered.
    Exact,
    /// In any case, as host names are.
    AnyCase,
}

/// Whose a name is.
#[derive(Debug)]
pub(crate) enum Holder {
    /// This client's, so written, with this keyed hash.
    Client(Token, Arc<Client>, u128),
    /// Nobody's any more.
    GivenUp,
}

/// Counts the names that a visitor's request asks for.
pub(crate) trait Tally {
    /// A name was asked for: its keyed hash, and whether somebody has it or had it.
    fn asked(&mut self, name: &str, hash: u128, found: bool);
}

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
    pub tx: mpsc::Sender<Command>,
}

/// Why a registration was refused. `Display` is for logs: it masks names. What the edge is told of its own names
/// is [`RegisterError::told`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Somebody else has this name.
    #[error("the name {0} belongs to another client")]
    Taken(Token),
    /// Another key has this name.
    #[error("the name {0} belongs to another client: it is bound to another key")]
    Bound(Token),
    /// The relay wants a shared secret, and this is not it.
    #[error(
        "this relay takes only edge agents that know its join key; give it with --join-key or ARPC_JOIN_KEY"
    )]
    JoinKey,
    /// The address has asked for too many names, or with too many keys, in vain.
    #[error("too many refused registrations from this address; wait a minute")]
    TooManyTries,
    /// The bindings cannot be kept.
    #[error("the relay cannot write to its data directory, so it takes no new names; tell its operator")]
    Store,
    /// More tokens than allowed.
    #[error("too many tokens; at most {} further ones", d::MAX_EXTRA_TOKENS)]
    TooManyTokens,
    /// The relay has too many clients.
    #[error("this relay has no room for another client (--max-clients {0}); ask its operator")]
    Full(usize),
    /// The address has too many clients here.
    #[error(
        "this relay has no room for another edge agent from this address (--max-edges-per-ip {0}); ask its operator"
    )]
    AddressFull(usize),
    /// The address has bound too many names.
    #[error(
        "too many new names from this address within an hour (--max-new-names-per-ip {0}); wait, or ask the relay's \
         operator. Names that this machine has already are not affected"
    )]
    TooManyNames(usize),
    /// The key has too many names.
    #[error(
        "this machine's key has {0} names at this relay, and it takes no more of one key; use fewer --client-id and \
         --token, or ask the relay's operator to free some (arps clients forget)"
    )]
    KeyFull(usize),
    /// The relay has too many names.
    #[error(
        "this relay has no room for another name: {0} are bound, and all of them are in use; its operator can free \
         some (arps clients forget --older-than 30d)"
    )]
    NamesFull(usize),
}

impl RegisterError {
    /// Would trying again without a change by a person be of no use?
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Taken(_) | Self::Bound(_) | Self::JoinKey | Self::TooManyTokens
        )
    }

    /// What the edge is told. The name is one that it asked for itself.
    pub fn told(&self) -> String {
        match self {
            Self::Taken(name) => format!(
                "the name {} belongs to another client of this relay; choose another --client-id or --token",
                name.as_str()
            ),
            Self::Bound(name) => format!(
                "the name {0} belongs to another client of this relay: it is bound to another key. Choose another \
                 --client-id or --token; or, if it is yours and its key is lost, have the relay's operator free it:\n  \
                 arps clients forget {0}",
                name.as_str()
            ),
            other => other.to_string(),
        }
    }
}

/// The hasher of keys that are keyed hashes already: their own bits will do.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Everybody the relay knows.
#[derive(Debug)]
pub struct Registry {
    /// Keyed hash of the lower-case token to client: host names have no case, so tokens that differ only in it
    /// are one. What a lookup takes tells nothing of the tokens that are there, as nobody knows the hash.
    tokens: DashMap<u128, (Token, Arc<Client>), BuildHasherDefault<Hashed>>,
    /// Keyed hashes of names that somebody had: who still asks for one must not end up with somebody else.
    given_up: DashMap<u128, (), BuildHasherDefault<Hashed>>,
    hash_key: (u64, u64),
    clients: DashMap<ClientId, Arc<Client>>,
    limits: Arc<PoolLimits>,
    pending: Arc<Pending>,
    max_clients: usize,
    /// Has a client ever said that it serves MySQL, where the server speaks first?
    mysql: AtomicBool,
    generation: AtomicU64,
    /// Held while names change hands, so that two registrations cannot each get half of the other's.
    naming: Mutex<()>,
}

impl Registry {
    /// An empty registry. The key of its hashes is nobody else's business.
    pub fn new(limits: PoolLimits, max_clients: usize, hash_key: (u64, u64)) -> Self {
        Self {
            tokens: DashMap::default(),
            given_up: DashMap::default(),
            hash_key,
            clients: DashMap::default(),
            limits: Arc::new(limits),
            pending: Arc::default(),
            max_clients,
            mysql: AtomicBool::new(false),
            generation: AtomicU64::new(1),
            naming: Mutex::new(()),
        }
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
        let hash = self.hash(name);
        let held = self.by_hash(hash).filter(|(token, _)| match spelling {
            Spelling::Exact => token.as_str().as_bytes().ct_eq(name.as_bytes()).into(),
            Spelling::AnyCase => true,
        });
        let holder = match held {
            Some((token, client)) => Some(Holder::Client(token, client.wanted(), hash)),
            None => self.given_up.contains_key(&hash).then_some(Holder::GivenUp),
        };
        tally.asked(name, hash, holder.is_some());
        holder
    }

    /// The client and token with this keyed hash, for a visitor's request; `tally` counts.
    pub(crate) fn find_hash(&self, hash: u128, tally: &mut impl Tally) -> Option<(Token, Arc<Client>)> {
        let (token, client) = self.by_hash(hash)?;
        tally.asked(token.as_str(), hash, true);
        Some((token, client.wanted()))
    }

    /// The client and token with this keyed hash.
    fn by_hash(&self, hash: u128) -> Option<(Token, Arc<Client>)> {
        self.tokens.get(&hash).map(|e| e.value().clone())
    }

    /// Whom visitors reach by this name, in any case of letters.
    fn owner(&self, name: &str) -> Option<Arc<Client>> {
        self.tokens.get(&self.hash(name)).map(|e| e.value().1.clone())
    }

    /// Keyed hash of a name, the same in any case.
    pub fn hash(&self, name: &str) -> u128 {
        let mut lower = [0; MAX_NAME];
        let len = name.len().min(MAX_NAME);
        let lower = &mut lower[..len];
        lower.copy_from_slice(&name.as_bytes()[..len]);
        lower.make_ascii_lowercase();
        let mut hasher = SipHasher13::new_with_keys(self.hash_key.0, self.hash_key.1);
        hasher.write(lower);
        hasher.finish128().as_u128()
    }

    /// The clients that are here now.
    pub fn present(&self) -> Vec<Present> {
        self.clients.iter().filter_map(|e| e.value().present()).collect()
    }

    /// Is the client with this id here now?
    pub fn is_present(&self, id: &str) -> bool {
        self.clients.get(id).is_some_and(|c| c.lock().link.is_some())
    }

    /// May somebody come who waits to be greeted as by MySQL?
    pub(crate) fn serves_mysql(&self) -> bool {
        self.mysql.load(Ordering::Relaxed)
    }

    /// The client with this id, here or away. For those who come without a name.
    pub(crate) fn client_of(&self, id: &ClientId) -> Option<Arc<Client>> {
        self.clients.get(id).map(|c| c.clone())
    }

    /// Takes clients that are known from earlier onto the books, offline.
    pub fn restore(&self, known: Vec<Binding>) {
        for binding in known {
            let client = self.client(&binding.client);
            client.used.store(binding.used, Ordering::Relaxed);
            let mut state = client.lock();
            state.key = Some(binding.key);
            for name in binding.routed {
                self.tokens
                    .insert(self.hash(name.as_str()), (name.clone(), client.clone()));
                state.tokens.push(name);
            }
        }
    }

    fn client(&self, id: &ClientId) -> Arc<Client> {
        let new = || {
            let pool = Pool::new(id.clone(), self.limits.clone(), self.pending.clone());
            Arc::new(Client {
                id: id.clone(),
                pool,
                services: Services::default(),
                used: AtomicBool::new(false),
                state: Mutex::default(),
            })
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
            .owner(id.as_str())
            .is_some_and(|c| c.id != *id && c.pool.is_online())
        {
            return Err(taken());
        }
        for name in names {
            let named = || self.clients.get(name.as_str()).map(|c| c.clone());
            if let Some(owner) = self.owner(name.as_str()).or_else(named)
                && owner.id != *id
                && owner.pool.is_online()
            {
                return Err(RegisterError::Taken(name.clone()));
            }
        }
        if !self.clients.contains_key(id) && self.is_full() {
            return Err(RegisterError::Full(self.max_clients));
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
        client.services.set(services);
        self.rename(&client, names);
        // Before anybody else may register: two channels of one client must reach its pool in the order in which
        // they registered, or the later one would be taken for gone when the earlier one ends.
        client.pool.link_up(link);
        drop(naming);
        if let Some(old) = old_link {
            let _ = old.tx.try_send(Command::GoAway {
                reason: GoAwayReason::Replaced,
            });
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
        let old = std::mem::replace(&mut client.lock().tokens, names.clone());
        for name in old.iter().filter(|n| !names.contains(n)) {
            self.drop_name(name, client);
        }
        for name in names {
            let hash = self.hash(name.as_str());
            self.given_up.remove(&hash);
            self.tokens.insert(hash, (name, client.clone()));
        }
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

    fn drop_name(&self, name: &Token, client: &Arc<Client>) {
        let hash = self.hash(name.as_str());
        let dropped = self
            .tokens
            .remove_if(&hash, |_, (_, owner)| Arc::ptr_eq(owner, client));
        if dropped.is_some() {
            if self.given_up.len() >= d::MAX_GIVEN_UP {
                self.given_up.clear();
            }
            self.given_up.insert(hash, ());
            client.services.revoke(name);
        }
    }

    /// Are as many clients online as may be?
    fn is_full(&self) -> bool {
        let online = |c: &Arc<Client>| c.lock().link.is_some();
        self.clients.len() >= self.max_clients
            && self.clients.iter().filter(|c| online(c)).count() >= self.max_clients
    }

    /// Forgets offline clients, longest gone first, when there are too many. Call with `naming` held: who is
    /// forgotten here must not be registering at the same moment.
    fn make_room(&self) {
        if self.clients.len() < self.max_clients.saturating_add(d::MAX_OFFLINE) {
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
            for name in std::mem::take(&mut client.lock().tokens) {
                self.drop_name(&name, client);
            }
            self.clients.remove(&client.id);
        }
    }
}

impl Client {
    fn lock(&self) -> std::sync::MutexGuard<'_, ClientState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command on the control channel in charge, if there is one with room.
    pub fn tell(&self, command: Command) {
        if let Some(link) = &self.lock().link {
            let _ = link.tx.try_send(command);
        }
    }

    /// Do visitors reach it by this name now?
    pub(crate) fn has(&self, name: &Token) -> bool {
        self.lock().tokens.contains(name)
    }

    /// A visitor asks for it.
    fn wanted(self: &Arc<Self>) -> Arc<Self> {
        // Nearly always it is set: reading alone keeps the line in every core's cache.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        self.clone()
    }

    /// Has a visitor ever asked for it?
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    fn present(&self) -> Option<Present> {
        let state = self.lock();
        let link = state.link.as_ref()?;
        Some(Present {
            id: self.id.clone(),
            key: state.key,
            names: state.tokens.len(),
            since: link.since,
            about: link.about.clone(),
        })
    }

    /// The key that registered last; none in plain.
    pub fn key(&self) -> Option<Fingerprint> {
        self.lock().key
    }

    /// Is it online, and with another key than this one? Then the two are not the same edge.
    fn is_of_another(&self, key: Option<Fingerprint>) -> bool {
        let state = self.lock();
        state.link.is_some() && state.key != key
    }

    /// How many names visitors reach it by.
    pub fn names(&self) -> usize {
        self.lock().tokens.len()
    }
}

/// How an address is counted: IPv6 users own a /64 and can change the rest at will.
pub fn counted(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => {
            let prefix = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(prefix.into())
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn registry(max_clients: usize) -> Registry {
        let limits = PoolLimits {
            target: 0,
            max_tunnels: 1,
            max_waiting: 1,
            wait: Duration::from_secs(1),
        };
        Registry::new(limits, max_clients, (1, 2))
    }

    fn entry(id: &str) -> (Entry, mpsc::Receiver<Command>) {
        let (tx, rx) = mpsc::channel(8);
        let id: ClientId = id.parse().unwrap();
        let about = About {
            peer: "192.0.2.1:1".parse().unwrap(),
            agent: None,
            version: 2,
            mode: None,
        };
        let names = vec![id.clone().into()];
        let key = Some(Fingerprint::from_bytes([1; 32]));
        (
            Entry {
                id,
                names,
                key,
                services: Vec::new(),
                about,
                tx,
            },
            rx,
        )
    }

    /// The links of two registrations that reach the pool in the wrong order.
    #[tokio::test]
    async fn generations_only_rise() {
        let registry = registry(9);
        let client = registry.client(&"demo".parse().unwrap());
        let link = |generation, mode| Link {
            generation,
            version: 2,
            mode: Some(mode),
            key: None,
            tx: mpsc::channel(1).0,
        };
        client.pool.link_up(link(2, Mode::Command));
        client.pool.link_up(link(1, Mode::Tcp));
        assert_eq!(client.pool.mode(), Some(Mode::Command), "the newer one stays");
        client.pool.link_down(1, true);
        assert!(client.pool.is_online(), "the end of the older one means nothing");
        client.pool.link_down(2, true);
        client.pool.link_up(link(1, Mode::Tcp));
        assert!(!client.pool.is_online(), "it is over, however late it comes");
    }

    #[tokio::test]
    async fn a_client_stays_online_however_its_registrations_interleave() {
        let registry = Arc::new(registry(9));
        // Made here, because a pool looks after itself in a task.
        registry.client(&"demo".parse().unwrap());
        for _ in 0..200 {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let registry = registry.clone();
                    std::thread::spawn(move || {
                        let (entry, rx) = entry("demo");
                        let (client, generation) = registry.register(entry).unwrap();
                        (client, generation, rx)
                    })
                })
                .collect();
            let mut all: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
            all.sort_by_key(|(_, generation, _)| *generation);
            let (client, last, _rx) = all.pop().unwrap();
            for (client, generation, _) in &all {
                registry.unregister(client, *generation, false);
            }
            assert!(client.pool.is_online() && registry.is_present("demo"));
            registry.unregister(&client, last, false);
            assert!(!client.pool.is_online());
        }
    }

    #[tokio::test]
    async fn asking_changes_nothing_and_a_full_relay_says_which_limit_was_met() {
        let registry = registry(1);
        let (one, _rx) = entry("one");
        let (client, _) = registry.register(one).unwrap();
        assert!(!client.is_used());
        let (two, _rx) = entry("two");
        let refused = registry.check(&two.id, &two.names, two.key).unwrap_err();
        assert_eq!(refused, RegisterError::Full(1));
        assert!(refused.told().contains("--max-clients 1"));
        assert!(!client.is_used(), "that was no visitor");
        struct Uncounted;
        impl Tally for Uncounted {
            fn asked(&mut self, _: &str, _: u128, _: bool) {}
        }
        let found = registry.find("one", Spelling::Exact, &mut Uncounted);
        assert!(matches!(found, Some(Holder::Client(..))) && client.is_used());
        assert_eq!(registry.present().len(), 1);
    }

    #[test]
    fn logs_mask_a_name_and_its_owner_sees_it() {
        let bound = RegisterError::Bound("a-secret-name".parse().unwrap());
        assert!(!bound.to_string().contains("secret"));
        assert!(bound.told().ends_with("\n  arps clients forget a-secret-name"));
    }
}
