//! What a client serves under which name, and what ends the raw connections to it.

use crate::tunnels::tunnel::ServiceKey;
use arp_common::ids::Token;
pub use arp_common::protocol::Service;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// See the module.
#[derive(Debug, Default)]
pub struct Services {
    /// Is there any that has a name of its own? Most clients have one service for all names.
    several: AtomicBool,
    /// Is there any that takes only TLS which the relay does not read?
    passing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    default: Arc<Service>,
    named: HashMap<Token, Arc<Service>>,
    /// One for each name that a raw connection came by.
    open: HashMap<Token, CancellationToken>,
}

impl Services {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a registration says, in place of what an earlier one said.
    pub(crate) fn set(&self, services: Vec<Service>) {
        let passing = services.iter().any(|s| s.passthrough);
        self.passing.store(passing, Ordering::Release);
        let (mut default, mut named) = (Arc::default(), HashMap::new());
        for service in services {
            match service.token.clone() {
                Some(token) => drop(named.insert(token, Arc::new(service))),
                None => default = Arc::new(service),
            }
        }
        self.several.store(!named.is_empty(), Ordering::Release);
        let mut state = self.lock();
        (state.default, state.named) = (default, named);
    }

    /// What the last registration said of its services.
    pub(crate) fn all(&self) -> Vec<Service> {
        let state = self.lock();
        let all = state.named.values().chain([&state.default]);
        all.map(|service| (**service).clone()).collect()
    }

    /// The service that visitors reach by this name.
    pub(crate) fn of(&self, name: &Token) -> Arc<Service> {
        let state = self.lock();
        state.named.get(name).unwrap_or(&state.default).clone()
    }

    /// Is it for the edge alone to read what visitors of this name send by HTTP?
    pub(crate) fn passes(&self, name: &Token) -> bool {
        self.passing.load(Ordering::Acquire) && self.of(name).passthrough
    }

    /// The service that visitors reach by this name, if it is not the one of all names, and what tells its tunnels
    /// apart.
    pub(crate) fn named(&self, name: &Token) -> Option<(Token, ServiceKey)> {
        if !self.several.load(Ordering::Acquire) || !self.lock().named.contains_key(name) {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        name.as_str().hash(&mut hasher);
        Some((name.clone(), hasher.finish().max(1)))
    }

    /// Is cancelled when the client gives this name up.
    pub(crate) fn revocation(&self, name: &Token) -> CancellationToken {
        self.lock().open.entry(name.clone()).or_default().clone()
    }

    /// The client has given this name up: raw connections that came by it end.
    pub(crate) fn revoke(&self, name: &Token) {
        let open = self.lock().open.remove(name);
        if let Some(open) = open {
            open.cancel();
        }
    }
}
