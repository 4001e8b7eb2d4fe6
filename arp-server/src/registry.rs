//! Who is registered: client ids and tokens to clients, and the tunnels that were asked for and have not
//! come yet.
//!
//! The relay keeps this in memory; a second relay would put a directory behind the same few methods.

use crate::defaults as d;
use crate::pool::{Link, Pool, PoolLimits};
use arp_common::ids::{ClientId, Token, TunnelId};
use arp_common::protocol::{Command, GoAwayReason};
use dashmap::DashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::mpsc;

/// A client that registered at some time since the relay started.
#[derive(Debug)]
pub struct Client {
    /// Its id.
    pub id: ClientId,
    /// Its tunnels.
    pub pool: Arc<Pool>,
    state: Mutex<ClientState>,
}

#[derive(Debug, Default)]
struct ClientState {
    tokens: Vec<Token>,
    /// The control channel in charge.
    link: Option<(u64, mpsc::Sender<Command>)>,
    seen: Option<Instant>,
}

/// Why a registration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Somebody else has this name.
    #[error("the name {0} belongs to another client of this relay; choose another --client-id or --token")]
    Taken(Token),
    /// More tokens than allowed.
    #[error("too many tokens; at most {} further ones", d::MAX_EXTRA_TOKENS)]
    TooManyTokens,
    /// The relay is full.
    #[error("this relay has no room for another client (--max-clients); ask its operator")]
    Full,
}

impl RegisterError {
    /// Would trying again without a change by a person be of no use?
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Taken(_) | Self::TooManyTokens)
    }
}

/// Everybody the relay knows.
#[derive(Debug)]
pub struct Registry {
    /// Lower-case token to client: host names have no case, so tokens that differ only in it are one.
    tokens: DashMap<Box<str>, (Token, Arc<Client>)>,
    clients: DashMap<ClientId, Arc<Client>>,
    limits: Arc<PoolLimits>,
    pending: Arc<Pending>,
    max_clients: usize,
    generation: AtomicU64,
    /// Held while names change hands, so that two registrations cannot each get half of the other's.
    naming: Mutex<()>,
}

impl Registry {
    /// An empty registry.
    pub fn new(limits: PoolLimits, max_clients: usize) -> Self {
        Self {
            tokens: DashMap::default(),
            clients: DashMap::default(),
            limits: Arc::new(limits),
            pending: Arc::default(),
            max_clients,
            generation: AtomicU64::new(1),
            naming: Mutex::new(()),
        }
    }

    /// The tunnels that were asked for.
    pub fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    /// The client that a token names, exactly as written.
    pub fn by_token(&self, token: &str) -> Option<Arc<Client>> {
        self.find(token)
            .filter(|(name, _)| name.as_str() == token)
            .map(|(_, client)| client)
    }

    /// The client and token that a host label names, whatever its case.
    pub fn by_label(&self, label: &str) -> Option<(Token, Arc<Client>)> {
        self.find(label)
    }

    fn find(&self, token: &str) -> Option<(Token, Arc<Client>)> {
        if token.len() > arp_common::ids::MAX_NAME {
            return None;
        }
        let found = if token.bytes().any(|b| b.is_ascii_uppercase()) {
            self.tokens.get(token.to_ascii_lowercase().as_str())
        } else {
            self.tokens.get(token)
        };
        found.map(|e| e.value().clone())
    }

    /// All clients.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        self.clients.iter().map(|e| e.value().clone()).collect()
    }

    /// Registers a client under its id and further tokens, in place of an earlier registration of the
    /// same client, whose control channel is told to go.
    ///
    /// # Errors
    /// See [`RegisterError`]; nothing has changed then.
    pub fn register(
        &self,
        id: &ClientId,
        extra: Vec<Token>,
        version: u32,
        mode: Option<arp_common::protocol::Mode>,
        tx: mpsc::Sender<Command>,
    ) -> Result<(Arc<Client>, u64), RegisterError> {
        if extra.len() > d::MAX_EXTRA_TOKENS {
            return Err(RegisterError::TooManyTokens);
        }
        let mut names = vec![Token::from(id.clone())];
        names.extend(extra);
        let naming = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &names {
            if let Some((_, owner)) = self.find(name.as_str())
                && owner.id != *id
                && owner.pool.is_online()
            {
                return Err(RegisterError::Taken(name.clone()));
            }
        }
        if !self.clients.contains_key(id) {
            self.make_room()?;
        }
        let client = self
            .clients
            .entry(id.clone())
            .or_insert_with(|| {
                let pool = Pool::new(id.clone(), self.limits.clone(), self.pending.clone());
                Arc::new(Client {
                    id: id.clone(),
                    pool,
                    state: Mutex::default(),
                })
            })
            .clone();
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        let (old_tokens, old_link) = {
            let mut state = client.lock();
            state.seen = Some(Instant::now());
            let old_link = state.link.replace((generation, tx.clone()));
            (std::mem::replace(&mut state.tokens, names.clone()), old_link)
        };
        for name in old_tokens.iter().filter(|n| !names.contains(n)) {
            self.drop_name(name, &client);
        }
        for name in names {
            self.tokens
                .insert(name.as_str().to_ascii_lowercase().into(), (name, client.clone()));
        }
        drop(naming);
        if let Some((_, old)) = old_link {
            let _ = old.try_send(Command::GoAway {
                reason: GoAwayReason::Replaced,
            });
        }
        client.pool.link_up(Link {
            generation,
            version,
            mode,
            tx,
        });
        Ok((client, generation))
    }

    /// A control channel ended. Its client is offline unless it has registered again since. `for_good`: it
    /// said goodbye.
    pub fn unregister(&self, client: &Arc<Client>, generation: u64, for_good: bool) {
        let mut state = client.lock();
        if state.link.as_ref().is_some_and(|(g, _)| *g == generation) {
            state.link = None;
            state.seen = Some(Instant::now());
        }
        drop(state);
        client.pool.link_down(generation, for_good);
    }

    fn drop_name(&self, name: &Token, client: &Arc<Client>) {
        let key = name.as_str().to_ascii_lowercase();
        self.tokens
            .remove_if(key.as_str(), |_, (_, owner)| Arc::ptr_eq(owner, client));
    }

    /// Forgets offline clients, longest gone first, when there are too many; refuses when too many are
    /// online.
    fn make_room(&self) -> Result<(), RegisterError> {
        let online = |c: &Arc<Client>| c.lock().link.is_some();
        if self.clients.len() >= self.max_clients
            && self.clients.iter().filter(|c| online(c)).count() >= self.max_clients
        {
            return Err(RegisterError::Full);
        }
        if self.clients.len() < self.max_clients.saturating_add(d::MAX_OFFLINE) {
            return Ok(());
        }
        let mut offline: Vec<_> = self
            .clients
            .iter()
            .filter(|c| !online(c))
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
        Ok(())
    }
}

impl Client {
    fn lock(&self) -> std::sync::MutexGuard<'_, ClientState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command on the control channel in charge, if there is one with room.
    pub fn tell(&self, command: Command) {
        if let Some((_, tx)) = &self.lock().link {
            let _ = tx.try_send(command);
        }
    }

    /// How many names it has, its id included.
    pub fn names(&self) -> usize {
        self.lock().tokens.len()
    }
}

/// Tunnels that were asked for and have not come yet.
#[derive(Debug, Default)]
pub struct Pending {
    map: DashMap<TunnelId, Asked>,
}

/// One tunnel that was asked for.
#[derive(Debug)]
pub struct Asked {
    /// Where it belongs.
    pub pool: Arc<Pool>,
    /// Who may open it.
    pub client: ClientId,
    /// Under which registration.
    pub generation: u64,
    deadline: Instant,
}

impl Pending {
    /// Notes that a tunnel was asked for.
    pub fn add(&self, id: TunnelId, pool: Arc<Pool>, client: ClientId, generation: u64) {
        let deadline = Instant::now() + d::TUNNEL_ARRIVAL;
        self.map.insert(
            id,
            Asked {
                pool,
                client,
                generation,
                deadline,
            },
        );
    }

    /// Takes the note: an id is good once, and only for the client it was given to.
    pub fn claim(&self, id: TunnelId, client: &ClientId) -> Option<Asked> {
        self.map
            .remove_if(&id, |_, asked| asked.client == *client)
            .map(|(_, asked)| asked)
    }

    /// Gives up what is overdue.
    pub fn expire(&self) {
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
