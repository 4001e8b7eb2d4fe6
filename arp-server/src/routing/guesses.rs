//! Who asks for names that do not exist: a debt for each address, which time pays off.
//!
//! Up to [`FREE_MISSES`] nothing happens: people mistype. Above it a miss is told "too many" instead of "no
//! such name". Above [`MAX_MISSES`] an address learns of names that are new to it only in turn, some a second,
//! whether they exist or not. A name that exists is served in every case, and one that was in use from that
//! address, or that nobody could guess, at once.

use crate::defaults::{FREE_MISSES, GUESS_LINE, GUESS_TURN, MAX_GUESSERS, MAX_MISSES, MISSES_PER_SEC};
use crate::quota::counted;
use dashmap::DashMap;
use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::time::sleep_until;

/// Names that are remembered as in use from one guessing address.
const FRIENDS: usize = 64;
/// Names asked for beside one that exists that are remembered of an address, so that each counts once.
const ASKED: usize = 32;

/// How an address stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// No more misses than anybody.
    Good,
    /// Misses are told to slow down.
    Doubtful,
    /// Nothing is told of names at once, but of those known to be in use.
    Guessing,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    debts: DashMap<IpAddr, Debt>,
    /// How many there are, so that a relay without guessers never looks further.
    count: AtomicUsize,
}

#[derive(Debug)]
struct Debt {
    misses: f64,
    at: Instant,
    friends: Vec<u128>,
    asked: VecDeque<u128>,
    line: Arc<Line>,
}

/// Those at one guessing address who wait to be told about a name. First come, first served, so that a visitor
/// who comes anew waits no longer than one turn for each connection that guesses.
#[derive(Debug, Default)]
struct Line {
    /// When the next may be told.
    next: tokio::sync::Mutex<Option<tokio::time::Instant>>,
    /// The connections that wait, each once.
    waiting: Mutex<HashSet<SocketAddr>>,
}

/// Leave to wait in a line; given back when dropped.
struct TurnPermit<'a>(&'a Line, SocketAddr);

impl Line {
    fn enter(&self, who: SocketAddr) -> Option<TurnPermit<'_>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let room = waiting.len() < GUESS_LINE && waiting.insert(who);
        room.then(|| TurnPermit(self, who))
    }
}

impl Drop for TurnPermit<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&self.1);
    }
}

impl Debt {
    fn now(&self) -> f64 {
        (self.misses - self.at.elapsed().as_secs_f64() * MISSES_PER_SEC).max(0.0)
    }

    /// Notes names, and tells how many of them are new.
    fn ask(&mut self, names: &[u128]) -> usize {
        let mut new = 0;
        for name in names {
            if !self.asked.contains(name) {
                self.asked.truncate(ASKED - 1);
                self.asked.push_front(*name);
                new += 1;
            }
        }
        new
    }

    fn befriend(&mut self, name: u128) {
        if self.friends.len() < FRIENDS && !self.friends.contains(&name) {
            self.friends.push(name);
        }
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
    /// Has nobody missed lately?
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// How an address stands before it asks.
    pub(crate) fn standing(&self, ip: IpAddr) -> Standing {
        if self.is_empty() {
            return Standing::Good;
        }
        self.debts
            .get(&counted(ip))
            .map_or(Standing::Good, |debt| standing(debt.now()))
    }

    /// Notes `n` names that do not exist, and tells how the address stands now.
    pub(crate) fn miss(&self, ip: IpAddr, n: usize) -> Standing {
        self.owe(ip, |_| n).1
    }

    /// Notes the names that a request asked for which is served, and tells how many turns it has to wait first.
    ///
    /// Those that do not exist: applications have parameters of their own that look like ours, and who has a
    /// client may use it to guess on. Each counts once. Those that do: from an address that guesses they wait as
    /// those that do not, unless they were in use there.
    pub(crate) fn served(&self, ip: IpAddr, found: &[u128], missed: &[u128]) -> usize {
        if missed.is_empty() && self.is_empty() {
            return 0;
        }
        let mut new = 0;
        if missed.is_empty() {
            if self.is_known(ip, found) {
                return 0;
            }
        } else {
            new = self.owe(ip, |debt| debt.ask(missed)).0;
        }
        let Some(mut debt) = self.debts.get_mut(&counted(ip)) else {
            return 0;
        };
        if standing(debt.now()) == Standing::Guessing {
            return new + found.iter().filter(|name| !debt.friends.contains(name)).count();
        }
        for name in found {
            debt.befriend(*name);
        }
        0
    }

    /// Is there nothing to be noted of an address that uses these names? The usual case, in which nothing is written.
    fn is_known(&self, ip: IpAddr, found: &[u128]) -> bool {
        let ip = counted(ip);
        let (paid, known) = match self.debts.get(&ip) {
            None => return true,
            Some(debt) => (
                debt.now() == 0.0,
                found.iter().all(|name| debt.friends.contains(name)),
            ),
        };
        if paid && self.debts.remove_if(&ip, |_, debt| debt.now() == 0.0).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        paid || known
    }

    /// Adds to an address's debt what `count` says: how much, and how it stands now.
    fn owe(&self, ip: IpAddr, count: impl FnOnce(&mut Debt) -> usize) -> (usize, Standing) {
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
                asked: VecDeque::new(),
                line: Arc::default(),
            }
        });
        let n = count(&mut debt);
        debt.misses = (debt.now() + n as f64).min(2.0 * MAX_MISSES);
        debt.at = Instant::now();
        if fresh {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        (n, standing(debt.misses))
    }

    /// Remembers that names are in use from an address.
    pub(crate) fn befriend(&self, ip: IpAddr, names: &[u128]) {
        if let Some(mut debt) = self.debts.get_mut(&counted(ip)) {
            for name in names {
                debt.befriend(*name);
            }
        }
    }

    /// Waits until a guessing address may be told about `names` more names. False if the connection `who` waits
    /// already, or too many do; then it must not be told.
    pub(crate) async fn turn(&self, ip: IpAddr, who: SocketAddr, names: usize) -> bool {
        let Some(line) = self.debts.get(&counted(ip)).map(|debt| debt.line.clone()) else {
            return true;
        };
        let Some(_permit) = line.enter(who) else {
            return false;
        };
        // The lock hands over in the order of coming; who hangs up leaves the line.
        let mut next = line.next.lock().await;
        if let Some(at) = *next {
            sleep_until(at).await;
        }
        *next = Some(tokio::time::Instant::now() + GUESS_TURN * u32::try_from(names).unwrap_or(u32::MAX));
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
        assert_eq!(
            guesses.served(bad, &[1], &[]),
            0,
            "a name that exists still works"
        );
        for _ in 0..MAX_MISSES as usize + 1 {
            guesses.miss(bad, 1);
        }
        assert_eq!(guesses.standing(bad), Standing::Guessing);
        assert_eq!(
            guesses.served(bad, &[2, 3], &[]),
            2,
            "names that are new there have to wait"
        );
        assert_eq!(guesses.served(bad, &[2], &[4]), 2, "hit or miss alike");
        assert_eq!(guesses.served(bad, &[1], &[]), 0, "who was there before stays");
        assert_eq!(guesses.served(good, &[2], &[]), 0);
        assert_eq!(guesses.standing(good), Standing::Good);
    }

    #[test]
    fn a_name_asked_for_beside_another_counts_once() {
        let guesses = Guesses::default();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        // An application with a few parameters of its own, however often it uses them.
        for _ in 0..10_000 {
            for name in 0..4 {
                assert_eq!(guesses.served(ip, &[], &[name, name + 100]), 0);
            }
        }
        assert_eq!(guesses.standing(ip), Standing::Good);
        let waits = (1_000..3_000).filter(|name| guesses.served(ip, &[], &[*name]) > 0);
        assert!(waits.count() > 1_400);
        assert_eq!(guesses.standing(ip), Standing::Guessing);
        assert_eq!(guesses.served(ip, &[], &(5_000..5_003).collect::<Vec<_>>()), 3);
    }

    #[test]
    fn who_has_paid_is_forgotten_and_costs_no_more_look_ups() {
        let guesses = Guesses::default();
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        guesses.miss(ip, 3);
        assert_eq!(guesses.served(ip, &[1], &[]), 0);
        assert!(!guesses.is_empty(), "it still owes");
        guesses.debts.get_mut(&ip).unwrap().misses = 0.0;
        assert_eq!(guesses.served(ip, &[2], &[]), 0);
        assert!(guesses.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_guesses_is_told_in_turn_and_nobody_is_passed_over() {
        let guesses = Arc::new(Guesses::default());
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        let at = move |port| SocketAddr::new(ip, port);
        guesses.miss(ip, MAX_MISSES as usize + 1);
        let start = tokio::time::Instant::now();
        // Forty connections guess on and on; one visitor comes once, behind them.
        let mut guessers = tokio::task::JoinSet::new();
        for port in 1..=40 {
            let guesses = guesses.clone();
            guessers.spawn(async move {
                for _ in 0..20 {
                    assert!(guesses.turn(ip, at(port), 1).await);
                }
            });
        }
        tokio::task::yield_now().await;
        assert!(!guesses.turn(ip, at(7), 1).await, "a connection waits once");
        assert!(guesses.turn(ip, at(99), 1).await);
        let waited = start.elapsed();
        assert!(
            waited >= GUESS_TURN * 38 && waited <= GUESS_TURN * 42,
            "{waited:?}"
        );
        guesses.befriend(ip, &[3]);
        assert_eq!(guesses.served(ip, &[3], &[]), 0, "and never again");
        while let Some(done) = guessers.join_next().await {
            done.unwrap();
        }
        assert!(
            start.elapsed() >= GUESS_TURN * 799,
            "so many a second, however many ask"
        );
        // Who hangs up leaves the line.
        let gone = tokio::time::timeout(GUESS_TURN / 2, guesses.turn(ip, at(1), 1));
        assert!(gone.await.is_err());
        assert!(guesses.turn(ip, at(1), 4).await);
        let four = tokio::time::Instant::now();
        assert!(guesses.turn(ip, at(1), 1).await);
        assert!(four.elapsed() >= GUESS_TURN * 4, "a turn for each name");
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
