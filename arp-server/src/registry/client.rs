//! One client: its tunnels, its names, and the control channel in charge.

use crate::store::Binding;
use crate::tcp::services::Services;
use crate::tunnels::pool::{Pool, ToEdge};
use arp_common::ids::{ClientId, Token};
use arp_common::protocol::{Command, Mode};
use arp_common::tls::Fingerprint;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    tokens: Vec<Token>,
    /// The control channel in charge.
    pub(super) link: Option<Channel>,
    /// The key that registered last; none in plain.
    pub(super) key: Option<Fingerprint>,
    /// When it came or left last.
    pub(super) seen: Option<Instant>,
}

/// The control channel of a client that is here.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) generation: u64,
    pub(super) tx: ToEdge,
    pub(super) since: Instant,
    pub(super) about: About,
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

impl Client {
    /// A client that is not here.
    pub(super) fn new(id: ClientId, pool: Arc<Pool>) -> Self {
        Self {
            id,
            pool,
            services: Services::default(),
            used: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Makes it what it was before the relay was stopped, and gives its names.
    pub(super) fn restore(&self, binding: &Binding) -> Vec<Token> {
        self.used.store(binding.used, Ordering::Relaxed);
        let mut state = self.lock();
        state.key = Some(binding.key);
        state.tokens.extend_from_slice(&binding.routed);
        binding.routed.clone()
    }

    /// Changes its names. Gives those that it had, and whether they are bound to a key.
    pub(super) fn rename(&self, names: Vec<Token>) -> (Vec<Token>, bool) {
        let mut state = self.lock();
        (std::mem::replace(&mut state.tokens, names), state.key.is_some())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command on the control channel in charge, if there is one with room.
    pub fn tell(&self, command: Command) {
        if let Some(link) = &self.lock().link {
            let _ = link.tx.try_send(Box::new(command));
        }
    }

    /// Do visitors reach it by this name now?
    pub(crate) fn has(&self, name: &Token) -> bool {
        self.lock().tokens.contains(name)
    }

    /// A visitor asks for it.
    pub(super) fn is_wanted(&self) {
        // Nearly always it is set: reading alone keeps the line in every core's cache.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Has a visitor ever asked for it?
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn present(&self) -> Option<Present> {
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
    pub(super) fn is_of_another(&self, key: Option<Fingerprint>) -> bool {
        let state = self.lock();
        state.link.is_some() && state.key != key
    }

    /// How many names visitors reach it by.
    pub fn names(&self) -> usize {
        self.lock().tokens.len()
    }
}
