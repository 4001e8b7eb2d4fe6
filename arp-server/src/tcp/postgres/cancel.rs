//! Which connection a cancel request is for: the keys that servers have given out through us.

use arp_common::ids::Token;
use bytes::Bytes;
use dashmap::DashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Process id and secret, as a server told them. Never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct CancelKey(pub(super) Bytes);

/// The keys of the connections that are open, and by which name, from which address, each came.
#[derive(Default)]
pub(crate) struct Cancels(DashMap<CancelKey, (Token, IpAddr)>);

/// A key that can be used; forgotten when dropped.
pub(super) struct Kept {
    cancels: Arc<Cancels>,
    key: CancelKey,
}

impl Cancels {
    /// Remembers a key. `None` if another connection has the same: then neither can be told from the other, and the
    /// older one keeps it.
    pub(super) fn keep(self: &Arc<Self>, key: CancelKey, name: Token, ip: IpAddr) -> Option<Kept> {
        let mut fresh = false;
        self.0.entry(key.clone()).or_insert_with(|| {
            fresh = true;
            (name, ip)
        });
        fresh.then(|| Kept {
            cancels: self.clone(),
            key,
        })
    }

    /// By which name, and from which address, the connection of this key came.
    pub(super) fn find(&self, key: &CancelKey) -> Option<(Token, IpAddr)> {
        self.0.get(key).map(|kept| kept.clone())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.cancels.0.remove(&self.key);
    }
}
