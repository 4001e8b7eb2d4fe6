//! Who asks for names that do not exist: a debt for each address, which time pays off.
//!
//! Up to [`FREE_MISSES`] nothing happens: people mistype. Above it a miss is told "too many" instead of "no
//! such name". Above [`MAX_MISSES`] no answer tells a guesser anything: whatever was not in use from that
//! address already is refused unlooked. So visitors at other addresses, and those who were there before the
//! guessing began in earnest, notice nothing.

use crate::defaults::{FREE_MISSES, MAX_GUESSERS, MAX_MISSES, MISSES_PER_SEC};
use crate::registry::counted;
use dashmap::DashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Names that are remembered as in use from one guessing address.
const FRIENDS: usize = 64;

/// How an address stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No more misses than anybody.
    Good,
    /// Misses are told to slow down.
    Doubtful,
    /// Only what is known to be in use is served.
    Guessing,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Guesses {
    debts: DashMap<IpAddr, Debt>,
    /// How many there are, so that a relay without guessers never looks further.
    count: AtomicUsize,
}

#[derive(Debug)]
struct Debt {
    misses: f64,
    at: Instant,
    friends: Vec<u128>,
}

impl Debt {
    fn now(&self) -> f64 {
        (self.misses - self.at.elapsed().as_secs_f64() * MISSES_PER_SEC).max(0.0)
    }
}

fn standing(misses: f64) -> Standing {
    if misses > MAX_MISSES {
        Standing::Guessing
    } else if misses > FREE_MISSES {
        Standing::Doubtful
    } else {
        Standing::Good
    }
}

impl Guesses {
    /// How an address stands before it asks.
    pub fn standing(&self, ip: IpAddr) -> Standing {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Standing::Good;
        }
        self.debts
            .get(&counted(ip))
            .map_or(Standing::Good, |debt| standing(debt.now()))
    }

    /// Notes `n` names that do not exist, and tells how the address stands now.
    pub fn miss(&self, ip: IpAddr, n: usize) -> Standing {
        if self.debts.len() >= MAX_GUESSERS {
            self.sweep();
        }
        let mut fresh = false;
        let mut debt = self.debts.entry(counted(ip)).or_insert_with(|| {
            fresh = true;
            Debt {
                misses: 0.0,
                at: Instant::now(),
                friends: Vec::new(),
            }
        });
        debt.misses = (debt.now() + n as f64).min(2.0 * MAX_MISSES);
        debt.at = Instant::now();
        if fresh {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        standing(debt.misses)
    }

    /// May a visitor at `ip` be served by a name that exists? `name` gives its keyed hash.
    pub fn admits(&self, ip: IpAddr, name: impl FnOnce() -> u128) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return true;
        }
        let Some(mut debt) = self.debts.get_mut(&counted(ip)) else {
            return true;
        };
        let name = name();
        if debt.friends.contains(&name) {
            return true;
        }
        if standing(debt.now()) == Standing::Guessing {
            return false;
        }
        if debt.friends.len() < FRIENDS {
            debt.friends.push(name);
        }
        true
    }

    /// Forgets those who have paid; if everybody still owes, the smaller half.
    fn sweep(&self) {
        self.debts.retain(|_, debt| debt.now() > 0.0);
        if self.debts.len() >= MAX_GUESSERS {
            let mut owed: Vec<f64> = self.debts.iter().map(|d| d.now()).collect();
            owed.sort_by(f64::total_cmp);
            let median = owed.get(owed.len() / 2).copied().unwrap_or(0.0);
            self.debts.retain(|_, debt| debt.now() > median);
        }
        self.count.store(self.debts.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_is_slowed_for_one_address_and_nobody_else() {
        let guesses = Guesses::default();
        let (bad, good): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..FREE_MISSES as usize {
            assert_eq!(guesses.miss(bad, 1), Standing::Good);
        }
        guesses.miss(bad, 1);
        assert_eq!(guesses.miss(bad, 1), Standing::Doubtful);
        assert!(guesses.admits(bad, || 1), "a name that exists still works");
        for _ in 0..MAX_MISSES as usize + 1 {
            guesses.miss(bad, 1);
        }
        assert_eq!(guesses.standing(bad), Standing::Guessing);
        assert!(!guesses.admits(bad, || 2), "a right guess looks like a wrong one");
        assert!(guesses.admits(bad, || 1), "who was there before stays");
        assert!(guesses.admits(good, || 2) && guesses.standing(good) == Standing::Good);
    }

    #[test]
    fn memory_is_bounded() {
        let guesses = Guesses::default();
        for n in 0..MAX_GUESSERS as u32 + 10 {
            guesses.miss(IpAddr::from(n.to_be_bytes()), 1);
        }
        assert!(guesses.debts.len() <= MAX_GUESSERS);
    }
}
