//! How many connections one visitor address, and all together, may have; and whether an address has some that speak HTTP.

use crate::quota::counted;
use dashmap::DashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts open connections.
#[derive(Debug)]
pub struct Census {
    per_ip: DashMap<IpAddr, Open>,
    total: AtomicUsize,
    max_per_ip: AtomicUsize,
    max_total: AtomicUsize,
}

/// The open connections of one address.
#[derive(Debug, Default)]
struct Open {
    /// All of them.
    all: usize,
    /// Those that spoke HTTP.
    http: usize,
}

/// The permit of one open connection; dropping it gives the permit back.
#[derive(Debug)]
pub struct ConnPermit {
    census: Arc<Census>,
    ip: Option<IpAddr>,
    speaks_http: bool,
}

impl Census {
    /// With these limits.
    pub fn new(max_per_ip: usize, max_total: usize) -> Arc<Self> {
        Arc::new(Self {
            per_ip: DashMap::new(),
            total: AtomicUsize::new(0),
            max_per_ip: AtomicUsize::new(max_per_ip),
            max_total: AtomicUsize::new(max_total),
        })
    }

    /// Changes the limits; what is open stays.
    pub fn set_limits(&self, max_per_ip: usize, max_total: usize) {
        self.max_per_ip.store(max_per_ip, Ordering::Relaxed);
        self.max_total.store(max_total, Ordering::Relaxed);
    }

    /// A permit for a connection from `ip`, unless it or all together have too many. An `exempt` address
    /// (a trusted proxy, behind which everybody is) counts only towards the total.
    pub fn admit(self: &Arc<Self>, ip: IpAddr, exempt: bool) -> Option<ConnPermit> {
        let mut permit = ConnPermit {
            census: self.clone(),
            ip: None,
            speaks_http: false,
        };
        if self.total.fetch_add(1, Ordering::Relaxed) >= self.max_total.load(Ordering::Relaxed) {
            return None;
        }
        if !exempt {
            let ip = counted(ip);
            let mut open = self.per_ip.entry(ip).or_default();
            if open.all >= self.max_per_ip.load(Ordering::Relaxed) {
                return None;
            }
            open.all += 1;
            permit.ip = Some(ip);
        }
        Some(permit)
    }

    /// Connections open now.
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }
}

impl ConnPermit {
    /// This connection speaks HTTP. Told once or more.
    pub fn speaks_http(&mut self) {
        if let (Some(ip), false) = (self.ip, self.speaks_http)
            && let Some(mut open) = self.census.per_ip.get_mut(&ip)
        {
            open.http += 1;
            self.speaks_http = true;
        }
    }

    /// Does any open connection of this one's address speak HTTP? Behind an exempt address nobody knows.
    pub fn is_beside_http(&self) -> bool {
        self.ip
            .and_then(|ip| self.census.per_ip.get(&ip).map(|open| open.http > 0))
            .unwrap_or(false)
    }
}

impl Drop for ConnPermit {
    fn drop(&mut self) {
        self.census.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(ip) = self.ip {
            self.census.per_ip.remove_if_mut(&ip, |_, open| {
                open.all -= 1;
                open.http -= usize::from(self.speaks_http);
                open.all == 0
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_per_address_and_given_back() {
        let census = Census::new(2, 3);
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = census.admit(a, false).unwrap();
        let _second = census.admit(a, false).unwrap();
        assert!(census.admit(a, false).is_none());
        let _third = census.admit(b, false).unwrap();
        assert!(census.admit(b, false).is_none(), "all together have too many");
        drop(first);
        assert!(census.admit(a, false).is_some());
        assert_eq!(census.total(), 2);
    }

    #[test]
    fn an_address_speaks_http_while_one_of_its_connections_does() {
        let census = Census::new(9, 9);
        let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let silent = census.admit(a, false).unwrap();
        let (mut one, mut two) = (census.admit(a, false).unwrap(), census.admit(a, false).unwrap());
        assert!(!silent.is_beside_http());
        one.speaks_http();
        one.speaks_http();
        two.speaks_http();
        assert!(silent.is_beside_http() && one.is_beside_http());
        assert!(!census.admit(b, false).unwrap().is_beside_http());
        drop(one);
        assert!(silent.is_beside_http());
        drop(two);
        assert!(!silent.is_beside_http());
        // An exempt one counts nowhere.
        let mut proxy = census.admit(a, true).unwrap();
        proxy.speaks_http();
        assert!(!proxy.is_beside_http() && !silent.is_beside_http());
    }

    #[test]
    fn ipv6_users_are_counted_by_their_64() {
        let census = Census::new(1, 9);
        let _one = census.admit("2001:db8::1".parse().unwrap(), false).unwrap();
        assert!(census.admit("2001:db8::2".parse().unwrap(), false).is_none());
        assert!(census.admit("2001:db8:0:1::1".parse().unwrap(), false).is_some());
    }
}
