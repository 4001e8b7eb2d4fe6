//! Who may register under which names: join key, key bindings, and the patience with those who try.

use crate::bans::Bans;
use crate::defaults as d;
use crate::live::Live;
use crate::quota::Quota;
use crate::registry::{About, Client, Entry, RegisterError, Registry};
use crate::routing::guesses::{Guesses, Standing};
use crate::store::{Claim, Limit, Limits, Store, Verdict};
use crate::tunnels::pool::ToEdge;
use crate::visitor::census::{Census, ConnPermit};
use arp_common::ids::{ClientId, Token};
use arp_common::protocol::{Register, Secret, Service};
use arp_common::tls::Fingerprint;
use std::net::IpAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// What the operator set for edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EdgeLimits {
    /// Edges of one address that may be registered at a time.
    pub per_ip: usize,
    /// New names that one address may bind in an hour; any number if not set.
    pub new_names_per_ip: Option<usize>,
    /// Names in the store.
    pub names: Limits,
}

/// What the operator asks of edges; it can be changed while the relay serves.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What an edge must know, if anything.
    pub join_key: Option<Secret>,
    /// How much it may have.
    pub limits: EdgeLimits,
}

impl Rules {
    /// Those who know the join key are no strangers.
    fn new_names(&self) -> Option<usize> {
        self.limits.new_names_per_ip.filter(|_| self.join_key.is_none())
    }
}

/// An edge that was let in. Dropping it gives its place back, not its registration.
#[derive(Debug)]
pub struct Admitted {
    /// Who it is.
    pub client: Arc<Client>,
    /// Which registration of it.
    pub generation: u64,
    _permit: ConnPermit,
}

/// See the module.
#[derive(Debug)]
pub struct Admission {
    registry: Arc<Registry>,
    store: Store,
    rules: Live<Rules>,
    bans: Arc<Bans>,
    /// Registered control channels, by address.
    edges: Arc<Census>,
    /// New names, by address.
    quota: Quota,
    /// Registrations that were refused. Visitors are counted elsewhere: a home with a mistyping visitor must
    /// not lock out the edge agent that lives in it.
    refused: Guesses,
}

impl Admission {
    /// With these rules.
    pub fn new(registry: Arc<Registry>, store: Store, rules: Rules, bans: Arc<Bans>) -> Self {
        Self {
            registry,
            store,
            bans,
            edges: Census::new(rules.limits.per_ip, usize::MAX),
            quota: Quota::new(rules.new_names()),
            rules: Live::new(rules),
            refused: Guesses::default(),
        }
    }

    /// Who is registered.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Changes what is asked of edges. Who is here stays.
    pub fn set_rules(&self, rules: Rules) {
        self.edges.set_limits(rules.limits.per_ip, usize::MAX);
        self.quota.set_limit(rules.new_names());
        self.rules.set(rules);
    }

    /// What survives a restart.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Who is not wanted.
    pub fn bans(&self) -> &Arc<Bans> {
        &self.bans
    }

    /// Registers an edge that shows `key` (none in plain).
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub async fn register(
        &self,
        register: Register,
        about: About,
        key: Option<Fingerprint>,
        tx: ToEdge,
    ) -> Result<Admitted, RegisterError> {
        let Register {
            client_id,
            tokens,
            id_token,
            join_key,
            mut services,
            ..
        } = register;
        let ip = about.peer.ip();
        if self.refused.standing(ip) == Standing::Guessing && self.rules.get().join_key.is_some() {
            return Err(RegisterError::TooManyTries);
        }
        if !self.knows_join_key(join_key.as_ref()) {
            self.refused.miss(ip, 1);
            tokio::time::sleep(d::WRONG_JOIN_KEY).await;
            return Err(RegisterError::JoinKey);
        }
        if self.bans.holds(&client_id, key, ip) {
            return Err(RegisterError::Banned);
        }
        let permit = self.edges.admit(ip, false);
        let permit = permit.ok_or(RegisterError::AddressFull(self.rules.get().limits.per_ip))?;
        let id_token = id_token.unwrap_or(true);
        let names = self.claim(&client_id, tokens, id_token, key, ip).await?;
        services.retain(|s| s.token.as_ref().is_none_or(|t| names.contains(t)) && is_sound(s));
        services.truncate(d::MAX_EXTRA_TOKENS + 1);
        // From here on nothing waits: whoever is registered is told so.
        let (client, generation) = self.registry.register(Entry {
            id: client_id,
            names,
            key,
            services,
            about,
            tx,
        })?;
        Ok(Admitted {
            client,
            generation,
            _permit: permit,
        })
    }

    /// Notes in the store that a client is here now, and whether a visitor has ever asked for it.
    pub fn seen(&self, client: &Client) {
        if let Some(key) = client.key() {
            self.store.seen(client.id.clone(), key, client.is_used());
        }
    }

    /// Changes the names of a registered client.
    ///
    /// # Errors
    /// See [`RegisterError`]; nothing has changed then.
    pub async fn set_tokens(
        &self,
        client: &Arc<Client>,
        generation: u64,
        tokens: Vec<Token>,
        id_token: bool,
        ip: IpAddr,
    ) -> Result<(), RegisterError> {
        let key = client.key();
        let names = self.claim(&client.id, tokens, id_token, key, ip).await?;
        self.registry.set_names(client, generation, names)
    }

    /// Has the names bound, and gives those that visitors are to use.
    async fn claim(
        &self,
        id: &ClientId,
        tokens: Vec<Token>,
        id_token: bool,
        key: Option<Fingerprint>,
        ip: IpAddr,
    ) -> Result<Vec<Token>, RegisterError> {
        if tokens.len() > d::MAX_EXTRA_TOKENS {
            return Err(RegisterError::TooManyTokens);
        }
        let mut names = tokens.clone();
        if id_token {
            names.insert(0, id.clone().into());
        }
        let may_ask = self.refused.standing(ip) == Standing::Good;
        // Asked first, so that a name that is in use is not bound to somebody who cannot have it yet.
        if let Err(e) = self.registry.check(id, &names, key) {
            return Err(self.refuse(e, may_ask, ip));
        }
        // Taken in advance: of two that ask at once the second one sees what the first one has.
        let may_bind = self.quota.take(ip, tokens.len() + 1);
        let claim = Claim {
            client: id.clone(),
            tokens,
            id_token,
            key,
            may_ask,
            may_bind,
        };
        let verdict = self.store.claim(claim).await;
        let bound = match &verdict {
            Ok(Verdict::Granted(fresh)) => *fresh,
            _ => 0,
        };
        self.quota.give_back(ip, may_bind.saturating_sub(bound));
        match verdict {
            Ok(Verdict::Granted(_)) => Ok(names),
            Ok(Verdict::Bound(name)) => Err(self.refuse(RegisterError::Bound(name), may_ask, ip)),
            Ok(Verdict::TooManyTries) => Err(RegisterError::TooManyTries),
            Ok(Verdict::Full(limit)) => Err(self.full(limit)),
            Err(_) => Err(RegisterError::Store),
        }
    }

    fn full(&self, limit: Limit) -> RegisterError {
        match limit {
            Limit::Address => RegisterError::TooManyNames(self.quota.limit()),
            Limit::Key => RegisterError::KeyFull(self.rules.get().limits.names.per_key),
            Limit::Relay => RegisterError::NamesFull(self.rules.get().limits.names.names),
        }
    }

    /// Counts a refusal that tells that a name exists.
    fn refuse(&self, e: RegisterError, may_ask: bool, ip: IpAddr) -> RegisterError {
        if matches!(e, RegisterError::Taken(_) | RegisterError::Bound(_)) {
            self.refused.miss(ip, 1);
            if !may_ask {
                return RegisterError::TooManyTries;
            }
        }
        e
    }

    fn knows_join_key(&self, told: Option<&Secret>) -> bool {
        let rules = self.rules.get();
        let Some(wanted) = &rules.join_key else {
            return true;
        };
        let told = told.map(Secret::expose).unwrap_or_default();
        // Only its length can show, and that says nothing of a random key.
        wanted.expose().as_bytes().ct_eq(told.as_bytes()).into()
    }
}

/// Can what an edge says of a service be used? A user goes into packets that end strings with a zero byte.
fn is_sound(service: &Service) -> bool {
    let user = service.default_user.as_deref().unwrap_or("user");
    !user.is_empty() && user.len() <= 128 && !user.chars().any(char::is_control)
}
