//! What the relay counts while it serves. A leaf: every room writes here, and [`crate::admin`] reads.
//!
//! Each thread has a shard of its own, which nobody else writes to as long as there are no more threads than shards:
//! counting is one addition to a line of memory that is in this core's cache. The counters belong to the process, as
//! its memory and its descriptors do; so no connection and no pool carries a pointer to them.
//!
//! Nothing here says who visited what: there are sums, and codes that the relay itself gave out.

use dashmap::DashMap;
use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Shards: more than a small server has threads that serve, so that sharing one is rare.
const SHARDS: usize = 16;

/// A sum that only rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// A request found a tunnel at once.
    CheckoutHit,
    /// A request waited for a tunnel and got one.
    CheckoutMiss,
    /// A request waited in vain.
    CheckoutTimeout,
    /// A request came for a client that is offline.
    CheckoutOffline,
    /// A request was one too many.
    CheckoutBusy,
    /// Bytes of request bodies, and from visitors of changed protocols and raw connections.
    BytesIn,
    /// Bytes of answers' bodies, and to visitors of changed protocols and raw connections.
    BytesOut,
    /// Connections of visitors.
    Visitors,
    /// Control channels that did not get as far as a registration, without those that were refused.
    FailedControl,
    /// Connections on the proxy port that did not become a tunnel.
    FailedProxy,
    /// Visitors' TLS handshakes that failed.
    FailedPublic,
    /// Registrations.
    Registered,
    /// Tunnels that arrived.
    Tunnels,
    /// Raw connections that ended.
    RawEnded,
}

const COUNTERS: usize = Counter::RawEnded as usize + 1;

/// How an exchange ended, by who gave the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Class {
    /// It became another protocol; its time is that up to the change.
    Switched,
    /// The client answered 2xx.
    Success,
    /// The client answered 3xx.
    Redirect,
    /// The client answered 4xx.
    ClientError,
    /// The client answered 5xx.
    ServerError,
    /// The relay answered in its place.
    Refused,
    /// The answer broke off, or the visitor left.
    Broken,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Switched,
        Self::Success,
        Self::Redirect,
        Self::ClientError,
        Self::ServerError,
        Self::Refused,
        Self::Broken,
    ];

    /// Of an answer that came whole.
    pub fn of(status: u16) -> Self {
        match status {
            100..=199 => Self::Switched,
            300..=399 => Self::Redirect,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::Success,
        }
    }

    /// For a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Switched => "1xx",
            Self::Success => "2xx",
            Self::Redirect => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::Refused => "refused",
            Self::Broken => "broken",
        }
    }
}

/// Upper bounds of the histogram of durations, in microseconds; one more bucket holds what is longer. From a hit on
/// the same machine to a model that thinks.
pub const BOUNDS: [u64; 14] = [
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    5_000_000,
    30_000_000,
    120_000_000,
];

const BUCKETS: usize = BOUNDS.len() + 1;

#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    counters: [AtomicU64; COUNTERS],
    buckets: [[AtomicU64; BUCKETS]; Class::ALL.len()],
    micros: [AtomicU64; Class::ALL.len()],
}

static ALL: [Shard; SHARDS] = [const {
    Shard {
        counters: [const { AtomicU64::new(0) }; COUNTERS],
        buckets: [const { [const { AtomicU64::new(0) }; BUCKETS] }; Class::ALL.len()],
        micros: [const { AtomicU64::new(0) }; Class::ALL.len()],
    }
}; SHARDS];

/// By what was refused (`request`, `edge`, `connection`) and the code of the reason. Refusals are not the hot path,
/// and their codes are a few dozen texts of ours.
static REFUSED: LazyLock<DashMap<(&'static str, &'static str), AtomicU64>> = LazyLock::new(DashMap::new);

/// Raw connections that began, by the protocol or the way by which they came.
static RAW: LazyLock<DashMap<&'static str, AtomicU64>> = LazyLock::new(DashMap::new);

/// A raw connection that is open; dropping it says that it has ended.
#[must_use]
pub(crate) struct RawOpen(());

impl Drop for RawOpen {
    fn drop(&mut self) {
        add(Counter::RawEnded, 1);
    }
}

/// A raw connection has begun, of a protocol that we name.
pub(crate) fn raw_begun(protocol: &'static str) -> RawOpen {
    if let Some(count) = RAW.get(protocol) {
        count.fetch_add(1, Relaxed);
    } else {
        RAW.entry(protocol).or_default().fetch_add(1, Relaxed);
    }
    RawOpen(())
}

fn shard() -> &'static Shard {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // It is; on Windows clippy does not see it.
        #[allow(clippy::missing_const_for_thread_local, reason = "false alarm")]
        static MINE: Cell<Option<&'static Shard>> = const { Cell::new(None) };
    }
    MINE.with(|mine| {
        mine.get().unwrap_or_else(|| {
            let shard = &ALL[NEXT.fetch_add(1, Relaxed) % SHARDS];
            mine.set(Some(shard));
            shard
        })
    })
}

/// Adds to a counter.
#[inline]
pub fn add(counter: Counter, n: u64) {
    shard().counters[counter as usize].fetch_add(n, Relaxed);
}

/// An exchange is over.
pub(crate) fn exchanged(class: Class, took: Duration) {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let bucket = BOUNDS.partition_point(|bound| *bound < micros);
    let shard = shard();
    shard.buckets[class as usize][bucket].fetch_add(1, Relaxed);
    shard.micros[class as usize].fetch_add(micros, Relaxed);
}

/// Something was refused: what, and why. Both are texts of ours, never of a peer's.
pub fn refused(what: &'static str, code: &'static str) {
    let key = (what, code);
    if let Some(count) = REFUSED.get(&key) {
        count.fetch_add(1, Relaxed);
        return;
    }
    REFUSED.entry(key).or_default().fetch_add(1, Relaxed);
}

/// All counters at one moment; of counts that go on meanwhile some are in it and some are not.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    counters: [u64; COUNTERS],
    /// For each class, in the order of [`Class::ALL`].
    pub exchanges: [Durations; Class::ALL.len()],
    /// What was refused, why, how often; sorted.
    pub refused: Vec<(&'static str, &'static str, u64)>,
    /// Raw connections that began, by protocol; sorted.
    pub raw: Vec<(&'static str, u64)>,
}

/// A histogram of one class.
#[derive(Debug, Clone, Copy, Default)]
pub struct Durations {
    /// How many fell below each bound and above the one before; the last one holds the rest.
    pub buckets: [u64; BUCKETS],
    /// All together, in microseconds.
    pub micros: u64,
}

impl Durations {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Totals {
    /// Of this moment.
    pub fn now() -> Self {
        let mut totals = Self::default();
        for shard in &ALL {
            for (sum, one) in totals.counters.iter_mut().zip(&shard.counters) {
                *sum += one.load(Relaxed);
            }
            for (class, sum) in totals.exchanges.iter_mut().enumerate() {
                sum.micros += shard.micros[class].load(Relaxed);
                for (sum, one) in sum.buckets.iter_mut().zip(&shard.buckets[class]) {
                    *sum += one.load(Relaxed);
                }
            }
        }
        let refused = REFUSED.iter();
        totals.refused = refused.map(|r| (r.key().0, r.key().1, r.load(Relaxed))).collect();
        totals.refused.sort_unstable();
        totals.raw = RAW.iter().map(|r| (*r.key(), r.load(Relaxed))).collect();
        totals.raw.sort_unstable();
        totals
    }

    /// One of them.
    pub fn get(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Exchanges of all classes.
    pub fn requests(&self) -> u64 {
        self.exchanges.iter().map(Durations::count).sum()
    }

    /// Raw connections that are open.
    pub fn raw_open(&self) -> u64 {
        let begun: u64 = self.raw.iter().map(|(_, n)| n).sum();
        begun.saturating_sub(self.get(Counter::RawEnded))
    }

    /// Everything that was refused.
    pub fn refusals(&self) -> u64 {
        self.refused.iter().map(|(_, _, n)| n).sum()
    }
}

/// What went through one client's tunnels since the relay started.
#[derive(Debug, Default)]
pub struct Traffic {
    requests: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// [`Traffic`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sums {
    /// Exchanges.
    pub requests: u64,
    /// Bytes from visitors.
    pub bytes_in: u64,
    /// Bytes to visitors.
    pub bytes_out: u64,
}

impl Traffic {
    /// An exchange is over.
    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Bytes came from a visitor.
    pub(crate) fn came(&self, n: u64) {
        self.bytes_in.fetch_add(n, Relaxed);
        add(Counter::BytesIn, n);
    }

    /// Bytes went to a visitor.
    pub(crate) fn went(&self, n: u64) {
        self.bytes_out.fetch_add(n, Relaxed);
        add(Counter::BytesOut, n);
    }

    /// As it is now.
    pub fn sums(&self) -> Sums {
        Sums {
            requests: self.requests.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests of this process count, too: differences of what only this one counts.
    #[test]
    fn threads_are_added_up() {
        let before = Totals::now();
        let threads: Vec<_> = (0..40)
            .map(|_| {
                std::thread::spawn(|| {
                    for _ in 0..100 {
                        add(Counter::FailedPublic, 2);
                        refused("test", "reason");
                        exchanged(Class::Redirect, Duration::from_millis(3));
                    }
                    exchanged(Class::Redirect, Duration::from_secs(3600));
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        let after = Totals::now();
        let failed = |t: &Totals| t.get(Counter::FailedPublic);
        assert_eq!(failed(&after) - failed(&before), 8000);
        assert!(after.refused.contains(&("test", "reason", 4000)));
        let redirects = after.exchanges[Class::Redirect as usize];
        assert!(redirects.buckets[3] >= 4000, "up to 5 ms");
        assert!(redirects.buckets[BUCKETS - 1] >= 40, "longer than all bounds");
        assert!(after.requests() >= 4040 && after.refusals() >= 4000);
    }

    #[test]
    fn classes_have_their_places() {
        for (at, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, at);
        }
        assert_eq!(
            (Class::of(101), Class::of(204), Class::of(599)),
            (Class::Switched, Class::Success, Class::ServerError)
        );
    }
}
