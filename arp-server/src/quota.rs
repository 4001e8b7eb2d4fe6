//! How many new names an address may bind: so many at once, and as many again in each hour.
//!
//! Keys cost nothing and names are kept for good, so without this one host fills the table in seconds. Of IPv6 each
//! /64 is an address, and a /48 (what one customer gets, 65,536 of those) has four shares in all.

use dashmap::DashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Addresses that are remembered.
const MAX_ADDRESSES: usize = 50_000;
/// Shares of a /48.
const SHARES_OF_48: usize = 4;
/// Time in which a share comes back, in seconds.
const HOUR: f64 = 3600.0;

/// See the module.
#[derive(Debug)]
pub struct Quota {
    /// `usize::MAX` where there is none.
    per_ip: AtomicUsize,
    spent: DashMap<IpAddr, Spent>,
}

#[derive(Debug, Clone, Copy)]
struct Spent {
    names: f64,
    at: Instant,
}

impl Spent {
    fn now(&self, share: f64) -> f64 {
        (self.names - self.at.elapsed().as_secs_f64() * share / HOUR).max(0.0)
    }
}

impl Quota {
    /// With so many names for an address; without a limit if there is none.
    pub fn new(per_ip: Option<usize>) -> Self {
        Self {
            per_ip: AtomicUsize::new(per_ip.unwrap_or(usize::MAX)),
            spent: DashMap::new(),
        }
    }

    /// The limit.
    pub fn limit(&self) -> usize {
        self.per_ip.load(Relaxed)
    }

    /// Changes the limit.
    pub fn set_limit(&self, per_ip: Option<usize>) {
        self.per_ip.store(per_ip.unwrap_or(usize::MAX), Relaxed);
    }

    fn limited(&self) -> Option<usize> {
        Some(self.limit()).filter(|limit| *limit < usize::MAX)
    }

    /// Takes up to `n` names off the share of an address, and tells how many those are.
    pub fn take(&self, ip: IpAddr, n: usize) -> usize {
        let Some(limit) = self.limited() else { return n };
        if self.spent.len() >= MAX_ADDRESSES {
            self.sweep(limit);
        }
        let mut taken = n;
        for (network, share) in networks(ip, limit) {
            let left = self
                .spent
                .get(&network)
                .map_or(share, |s| (share as f64 - s.now(share as f64)) as usize);
            taken = taken.min(left);
        }
        self.add(ip, limit, taken as f64);
        taken
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&self, ip: IpAddr, n: usize) {
        if let (Some(limit), 1..) = (self.limited(), n) {
            self.add(ip, limit, -(n as f64));
        }
    }

    fn add(&self, ip: IpAddr, limit: usize, n: f64) {
        if n == 0.0 {
            return;
        }
        for (network, share) in networks(ip, limit) {
            let at = Instant::now();
            let mut spent = self.spent.entry(network).or_insert(Spent { names: 0.0, at });
            spent.names = (spent.now(share as f64) + n).max(0.0);
            spent.at = at;
            let none = spent.names == 0.0;
            drop(spent);
            if none {
                self.spent.remove_if(&network, |_, s| s.names == 0.0);
            }
        }
    }

    /// Forgets those who owe least.
    fn sweep(&self, limit: usize) {
        self.spent.retain(|_, s| s.now(limit as f64) > limit as f64 / 2.0);
        if self.spent.len() >= MAX_ADDRESSES {
            self.spent.clear();
        }
    }
}

/// The networks that an address is counted by, and the share of each.
fn networks(ip: IpAddr, limit: usize) -> impl Iterator<Item = (IpAddr, usize)> {
    let wide = match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            // The last segment tells it apart from the /64 that begins alike.
            let marked = Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 48);
            Some((IpAddr::V6(marked), limit.saturating_mul(SHARES_OF_48)))
        }
    };
    std::iter::once((counted(ip), limit)).chain(wide)
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

    #[test]
    fn an_address_has_its_share_and_what_it_did_not_use_comes_back() {
        let quota = Quota::new(Some(10));
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert_eq!(quota.take(a, 8), 8);
        assert_eq!(quota.take(a, 8), 2);
        assert_eq!(quota.take(a, 1), 0);
        assert_eq!(quota.take(b, 8), 8);
        quota.give_back(a, 3);
        assert_eq!(quota.take(a, 8), 3);
        quota.give_back(b, 8);
        assert_eq!(quota.spent.len(), 1, "nothing is kept of who owes nothing");
        assert_eq!(Quota::new(None).take(a, 99), 99);
    }

    #[test]
    fn a_customers_many_networks_are_no_many_customers() {
        let quota = Quota::new(Some(10));
        let taken: usize = (0..100)
            .map(|n| quota.take(format!("2001:db8:7:{n:x}::1").parse().unwrap(), 10))
            .sum();
        assert_eq!(taken, 40);
        assert_eq!(quota.take("2001:db8:8::1".parse().unwrap(), 10), 10);
    }
}
