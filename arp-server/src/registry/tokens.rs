//! Which client has which name: the table in which a visitor's request is looked up.

use super::client::Client;
use arp_common::ids::{MAX_NAME, Token};
use dashmap::DashMap;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use subtle::ConstantTimeEq;

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

type ByHash<T> = DashMap<u128, T, BuildHasherDefault<Hashed>>;

/// Names, and whose they are or were. By the keyed hash of the name in lower case: host names have no case, so tokens
/// that differ only in it are one. What a lookup takes tells nothing of the tokens that are there, as nobody knows
/// the hash.
#[derive(Debug)]
pub(super) struct Tokens {
    held: ByHash<(Token, Arc<Client>)>,
    /// Names that somebody had: who still asks for one must not end up with somebody else. True for those that are
    /// bound to a key, which are not made at will.
    past: ByHash<bool>,
    /// How many of those are remembered.
    most_past: usize,
    key: (u64, u64),
}

impl Tokens {
    pub(super) fn new(key: (u64, u64), most_past: usize) -> Self {
        Self {
            held: ByHash::default(),
            past: ByHash::default(),
            most_past,
            key,
        }
    }

    /// Keyed hash of a name, the same in any case.
    pub(super) fn hash(&self, name: &str) -> u128 {
        let mut lower = [0; MAX_NAME];
        let len = name.len().min(MAX_NAME);
        let lower = &mut lower[..len];
        lower.copy_from_slice(&name.as_bytes()[..len]);
        lower.make_ascii_lowercase();
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        hasher.write(lower);
        hasher.finish128().as_u128()
    }

    /// Whose this name is, and its hash.
    pub(super) fn find(&self, name: &str, spelling: Spelling) -> (Option<Holder>, u128) {
        let hash = self.hash(name);
        let held = self.by_hash(hash).filter(|(token, _)| match spelling {
            Spelling::Exact => token.as_str().as_bytes().ct_eq(name.as_bytes()).into(),
            Spelling::AnyCase => true,
        });
        let holder = match held {
            Some((token, client)) => Some(Holder::Client(token, client, hash)),
            None => self.past.contains_key(&hash).then_some(Holder::GivenUp),
        };
        (holder, hash)
    }

    /// The client and token with this hash.
    pub(super) fn by_hash(&self, hash: u128) -> Option<(Token, Arc<Client>)> {
        self.held.get(&hash).map(|e| e.value().clone())
    }

    /// Whom visitors reach by this name, in any case of letters.
    pub(super) fn owner(&self, name: &str) -> Option<Arc<Client>> {
        self.held.get(&self.hash(name)).map(|e| e.value().1.clone())
    }

    /// Gives a name to a client, whoever had it.
    pub(super) fn give(&self, name: Token, client: Arc<Client>) {
        self.held.insert(self.hash(name.as_str()), (name, client));
    }

    /// Takes a name from a client, if it is still that one's. `bound`: to its key.
    pub(super) fn take(&self, name: &Token, client: &Arc<Client>, bound: bool) {
        let hash = self.hash(name.as_str());
        // Noted first: at no moment is it one that nobody ever had.
        if (self.held.get(&hash)).is_some_and(|e| Arc::ptr_eq(&e.value().1, client)) {
            self.remember(hash, bound);
        }
        self.held
            .remove_if(&hash, |_, (_, owner)| Arc::ptr_eq(owner, client));
    }

    /// Notes that somebody had this name, if nobody has it now. `bound`: to a key.
    pub(super) fn was_given(&self, name: &str, bound: bool) {
        let hash = self.hash(name);
        if !self.held.contains_key(&hash) {
            self.remember(hash, bound);
        }
    }

    fn remember(&self, hash: u128, bound: bool) {
        if self.past.len() >= self.most_past && !self.past.contains_key(&hash) {
            // Those first that cost nothing: whoever speaks in plain makes as many as it likes.
            self.past.retain(|_, bound| *bound);
            if self.past.len() >= self.most_past {
                let mut out = self.most_past / 10;
                self.past.retain(|_, _| {
                    let keep = out == 0;
                    out = out.saturating_sub(1);
                    keep
                });
            }
        }
        let mut known = self.past.entry(hash).or_insert(bound);
        *known |= bound;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given_up(tokens: &Tokens, name: &str) -> bool {
        matches!(tokens.find(name, Spelling::Exact).0, Some(Holder::GivenUp))
    }

    #[test]
    fn names_that_cost_nothing_push_none_out_that_is_bound() {
        let tokens = Tokens::new((1, 2), 100);
        tokens.was_given("mine", true);
        tokens.was_given("mine", false);
        for n in 0..1_000 {
            tokens.was_given(&format!("loose-{n}"), false);
            assert!(tokens.past.len() <= 100);
        }
        assert!(given_up(&tokens, "mine") && given_up(&tokens, "MINE"));
        assert!(given_up(&tokens, "loose-999"), "the latest is known");
        for n in 0..1_000 {
            tokens.was_given(&format!("bound-{n}"), true);
            assert!(tokens.past.len() <= 100);
        }
        assert!(given_up(&tokens, "bound-999"));
    }
}
