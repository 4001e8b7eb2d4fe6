//! Connections of edges that have not yet said who they are: a bounded number, of which the one that
//! has waited longest gives way to a newcomer. Honest handshakes take milliseconds, so a flood of silent
//! connections drives out only its own. The admin port, whose answers take as little, counts its connections so, too.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// See the module.
#[derive(Debug)]
pub struct Handshakes {
    max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    permits: BTreeMap<u64, CancellationToken>,
}

/// Leave for one handshake, given back when dropped.
#[derive(Debug)]
pub struct HandshakePermit {
    handshakes: Arc<Handshakes>,
    number: u64,
    called: CancellationToken,
}

impl Handshakes {
    /// At most `max` at a time.
    pub fn new(max: usize) -> Arc<Self> {
        let waiting = Mutex::default();
        Arc::new(Self { max, waiting })
    }

    /// A permit, at the cost of the longest waiting one when there is no other.
    pub fn enter(self: &Arc<Self>) -> HandshakePermit {
        let called = CancellationToken::new();
        let (number, oldest) = {
            let mut waiting = self.lock();
            let oldest = if waiting.permits.len() >= self.max {
                waiting.permits.pop_first()
            } else {
                None
            };
            let number = waiting.next;
            waiting.next += 1;
            waiting.permits.insert(number, called.clone());
            (number, oldest)
        };
        if let Some((_, oldest)) = oldest {
            oldest.cancel();
        }
        let handshakes = self.clone();
        HandshakePermit {
            handshakes,
            number,
            called,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HandshakePermit {
    /// Runs a handshake; `None` when the permit was needed for somebody else.
    pub async fn hold<T>(&self, handshake: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = handshake => Some(done),
            () = self.called.cancelled() => None,
        }
    }
}

impl Drop for HandshakePermit {
    fn drop(&mut self) {
        self.handshakes.lock().permits.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_waiting_gives_way() {
        let handshakes = Handshakes::new(2);
        let (a, b) = (handshakes.enter(), handshakes.enter());
        let c = handshakes.enter();
        assert_eq!(a.hold(std::future::pending::<()>()).await, None);
        assert_eq!(b.hold(async { 1 }).await, Some(1));
        drop(b);
        let d = handshakes.enter();
        assert_eq!(
            (c.hold(async { 2 }).await, d.hold(async { 3 }).await),
            (Some(2), Some(3))
        );
        drop((a, c, d));
        assert!(handshakes.lock().permits.is_empty());
    }
}
