//! Who may register under which names: join key, key bindings, and the patience with those who try.

use crate::defaults as d;
use crate::registry::{Client, Entry, RegisterError, Registry};
use crate::routing::guesses::{Guesses, Standing};
use crate::store::{Claim, Store, Verdict};
use arp_common::ids::{ClientId, Token};
use arp_common::protocol::{Command, Register, Secret};
use arp_common::tls::Fingerprint;
use std::net::IpAddr;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tokio::sync::mpsc;

/// See the module.
#[derive(Debug)]
pub struct Admission {
    registry: Arc<Registry>,
    store: Store,
    join_key: Option<Secret>,
    /// Registrations that were refused. Visitors are counted elsewhere: a home with a mistyping visitor must
    /// not lock out the edge agent that lives in it.
    refused: Guesses,
}

impl Admission {
    /// With a shared secret that every edge must know, if there is one.
    pub fn new(registry: Arc<Registry>, store: Store, join_key: Option<Secret>) -> Self {
        Self {
            registry,
            store,
            join_key,
            refused: Guesses::default(),
        }
    }

    /// Who is registered.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Registers an edge that shows `key` (none in plain) from `ip`.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub async fn register(
        &self,
        register: Register,
        version: u32,
        key: Option<Fingerprint>,
        ip: IpAddr,
        tx: mpsc::Sender<Command>,
    ) -> Result<(Arc<Client>, u64), RegisterError> {
        let Register {
            client_id,
            tokens,
            id_token,
            mode,
            join_key,
            ..
        } = register;
        if self.refused.standing(ip) == Standing::Guessing && self.join_key.is_some() {
            return Err(RegisterError::TooManyTries);
        }
        if !self.knows_join_key(join_key.as_ref()) {
            self.refused.miss(ip, 1);
            tokio::time::sleep(d::WRONG_JOIN_KEY).await;
            return Err(RegisterError::JoinKey);
        }
        let id_token = id_token.unwrap_or(true);
        let names = self.claim(&client_id, tokens, id_token, key, ip).await?;
        // From here on nothing waits: whoever is registered is told so.
        self.registry.register(Entry {
            id: client_id,
            names,
            key,
            version,
            mode,
            tx,
        })
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
        let claim = Claim {
            client: id.clone(),
            tokens,
            id_token,
            key,
            may_ask: self.refused.standing(ip) == Standing::Good,
        };
        // Asked first, so that a name that is in use is not bound to somebody who cannot have it yet.
        let free = self.registry.check(id, &names, key);
        if let Err(e) = free {
            return Err(self.refuse(e, claim.may_ask, ip));
        }
        let may_ask = claim.may_ask;
        match self.store.claim(claim).await {
            Ok(Verdict::Granted) => Ok(names),
            Ok(Verdict::Bound(name)) => Err(self.refuse(RegisterError::Bound(name), may_ask, ip)),
            Ok(Verdict::TooManyTries) => Err(RegisterError::TooManyTries),
            Ok(Verdict::Full) => Err(RegisterError::Full),
            Err(_) => Err(RegisterError::Store),
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
        let Some(wanted) = &self.join_key else { return true };
        let told = told.map(Secret::expose).unwrap_or_default();
        // Only its length can show, and that says nothing of a random key.
        wanted.expose().as_bytes().ct_eq(told.as_bytes()).into()
    }
}
