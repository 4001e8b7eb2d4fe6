//! Connections of edges that have not yet said who they are: a bounded number, of which the one that
//! has waited longest gives way to a newcomer. Honest handshakes take milliseconds, so a flood of silent
//! connections drives out only its own.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// See the module.
#[derive(Debug)]
pub struct WaitingRoom {
    max: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    seats: BTreeMap<u64, CancellationToken>,
}

/// A place in the room, given up when dropped.
#[derive(Debug)]
pub struct Seat {
    room: Arc<WaitingRoom>,
    number: u64,
    called: CancellationToken,
}

impl WaitingRoom {
    /// A room for `max` connections.
    pub fn new(max: usize) -> Arc<Self> {
        let inside = Mutex::default();
        Arc::new(Self { max, inside })
    }

    /// A place, at the cost of the longest waiting one when there is no other.
    pub fn enter(self: &Arc<Self>) -> Seat {
        let called = CancellationToken::new();
        let (number, oldest) = {
            let mut inside = self.lock();
            let oldest = if inside.seats.len() >= self.max {
                inside.seats.pop_first()
            } else {
                None
            };
            let number = inside.next;
            inside.next += 1;
            inside.seats.insert(number, called.clone());
            (number, oldest)
        };
        if let Some((_, oldest)) = oldest {
            oldest.cancel();
        }
        let room = self.clone();
        Seat { room, number, called }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Runs a handshake; `None` when the place was needed for somebody else.
    pub async fn hold<T>(&self, handshake: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = handshake => Some(done),
            () = self.called.cancelled() => None,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.lock().seats.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_waiting_gives_way() {
        let room = WaitingRoom::new(2);
        let (a, b) = (room.enter(), room.enter());
        let c = room.enter();
        assert_eq!(a.hold(std::future::pending::<()>()).await, None);
        assert_eq!(b.hold(async { 1 }).await, Some(1));
        drop(b);
        let d = room.enter();
        assert_eq!(
            (c.hold(async { 2 }).await, d.hold(async { 3 }).await),
            (Some(2), Some(3))
        );
        drop((a, c, d));
        assert!(room.lock().seats.is_empty());
    }
}
