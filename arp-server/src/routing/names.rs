//! Looking names up for a visitor. There is no other way to do it, and it keeps what was asked: a name that is
//! not there may have been a guess, and one that is may have been guessed right.

use crate::registry::{Client, Holder, Registry, Spelling, Tally};
use arp_common::ids::Token;
use smallvec::SmallVec;
use std::sync::Arc;

/// A name that a client has.
#[derive(Debug, Clone)]
pub(crate) struct Found<C> {
    /// As it is written.
    pub(crate) token: Token,
    /// Whose it is.
    pub(crate) client: C,
    /// What stands for it in a cookie. Made for names that are there only, or it could be had for any name.
    pub(crate) mark: u128,
}

/// What a name says.
#[derive(Debug, Clone)]
pub(crate) enum Named<C> {
    /// A client has it.
    Client(Found<C>),
    /// A client had it and has given it up.
    GivenUp,
    /// Nobody has ever had it.
    Nobody,
}

impl<C> Named<C> {
    /// The client, if there is one.
    pub(crate) fn found(self) -> Option<Found<C>> {
        match self {
            Self::Client(found) => Some(found),
            Self::GivenUp | Self::Nobody => None,
        }
    }
}

/// Where names are looked up: the registry, or a table in tests.
pub(crate) trait Names {
    /// What a name stands for.
    type Client: Clone;
    /// Looks a name up.
    fn find(&mut self, name: &str, spelling: Spelling) -> Named<Self::Client>;
    /// Looks the name of a mark up.
    fn find_marked(&mut self, mark: u128) -> Option<Found<Self::Client>>;
    /// Is this the mark of a name? Looks nothing up.
    fn is_mark_of(&self, mark: u128, name: &str) -> bool;
    /// Are these the same client?
    fn same(a: &Self::Client, b: &Self::Client) -> bool;
}

/// Keyed hashes of names.
pub(crate) type Hashes = SmallVec<[u128; 2]>;

/// The registry as one request sees it, and what that request has asked so far.
pub(crate) struct Inquiry<'a> {
    registry: &'a Registry,
    asked: Asked,
}

/// The names that a request asked for, each once; those that nobody could guess left out.
#[derive(Debug, Default)]
#[must_use = "who asks for names is to be counted"]
pub(crate) struct Asked {
    /// Those that are there, or were.
    pub(crate) found: Hashes,
    /// The others.
    pub(crate) missed: Hashes,
    /// How often something was asked for in vain.
    pub(crate) tries: usize,
}

impl<'a> Inquiry<'a> {
    pub(crate) fn new(registry: &'a Registry) -> Self {
        Self {
            registry,
            asked: Asked::default(),
        }
    }

    /// What was asked, to be settled before anything is told.
    pub(crate) fn done(self) -> Asked {
        self.asked
    }
}

/// From here on a name is too long to be found by trying: 128 bits take 22 characters.
const TOO_LONG_TO_GUESS: usize = 22;

/// Is this a name of 128 bits, as derived client ids and tokens of `arpc tokens add` are? Slowness would protect
/// it no further.
fn unguessable(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Tally for Asked {
    fn asked(&mut self, name: &str, hash: u128, found: bool) {
        let (list, skip) = if found {
            (&mut self.found, unguessable(name))
        } else {
            self.tries += 1;
            // Not what could be no token, and no signatures in an application's own URLs.
            let skip = name.len() >= TOO_LONG_TO_GUESS || name.parse::<Token>().is_err();
            (&mut self.missed, skip)
        };
        if !skip && !list.contains(&hash) {
            list.push(hash);
        }
    }
}

impl Names for Inquiry<'_> {
    type Client = Arc<Client>;
    fn find(&mut self, name: &str, spelling: Spelling) -> Named<Arc<Client>> {
        match self.registry.find(name, spelling, &mut self.asked) {
            Some(Holder::Client(token, client, mark)) => Named::Client(Found { token, client, mark }),
            Some(Holder::GivenUp) => Named::GivenUp,
            None => Named::Nobody,
        }
    }
    fn find_marked(&mut self, mark: u128) -> Option<Found<Arc<Client>>> {
        let (token, client) = self.registry.find_hash(mark, &mut self.asked)?;
        Some(Found { token, client, mark })
    }
    fn is_mark_of(&self, mark: u128, name: &str) -> bool {
        self.registry.hash(name) == mark
    }
    fn same(a: &Arc<Client>, b: &Arc<Client>) -> bool {
        Arc::ptr_eq(a, b)
    }
}
