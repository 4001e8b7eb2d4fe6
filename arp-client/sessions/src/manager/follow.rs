//! Reading sessions: what happens to all, and the two sequences of one.

use super::Sessions;
use crate::error::SessionError;
use crate::host::SessionDir;
use crate::model::SessionView;
use crate::read::{Cursor, Mend, Sequence, Start};
use crate::session::{Ask, BusEvent, Handle, Tail};
use std::sync::Arc;
use tokio::sync::{broadcast, oneshot, watch};

/// A live view of one session for a reader.
#[derive(Debug)]
pub struct Follower {
    handle: Handle,
    tail: watch::Receiver<Tail>,
    dir: SessionDir,
}

impl Sessions {
    /// What happens to sessions and approvals from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<BusEvent> {
        self.core().bus.subscribe()
    }

    /// Follows a session.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub fn follow(&self, id: &str) -> Result<Follower, SessionError> {
        let handle = self.handle(id)?;
        let id = handle.shared.view().id.clone();
        let dir = SessionDir::new(self.core().config.session_dir(&id));
        Ok(Follower {
            tail: handle.shared.tail.subscribe(),
            handle,
            dir,
        })
    }

    /// Reads one of the two sequences from a number on.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub fn read(&self, id: &str, sequence: Sequence, from: u64) -> Result<Cursor, SessionError> {
        let id = &self.get(id)?.id;
        let dir = SessionDir::new(self.core().config.session_dir(id));
        let (sessions, id) = (self.clone(), id.clone());
        let mend: Mend = Arc::new(move || {
            let (sessions, id) = (sessions.clone(), id.clone());
            Box::pin(async move {
                // It says itself what went wrong.
                let _ = sessions.call(&id, Ask::Mend).await;
            })
        });
        Ok(cursor(&dir, sequence, Start::At(from), mend))
    }
}

fn cursor(dir: &SessionDir, sequence: Sequence, from: Start, mend: Mend) -> Cursor {
    match sequence {
        // There is nothing that lines could be made from.
        Sequence::Lines => Cursor::new(dir.raw_log(), sequence, from),
        Sequence::Events => Cursor::new(dir.event_log(), sequence, from).mending(mend),
    }
}

impl Follower {
    /// The session as it is now.
    #[must_use]
    pub fn view(&self) -> Arc<SessionView> {
        self.handle.shared.view()
    }

    /// How far the sequences reach now; marks it as seen.
    pub fn tail(&mut self) -> Tail {
        *self.tail.borrow_and_update()
    }

    /// Waits until anything has changed since [`Follower::tail`] was asked. `false`: nothing will any more.
    pub async fn changed(&mut self) -> bool {
        self.tail.changed().await.is_ok()
    }

    /// Reads one of the sequences.
    #[must_use]
    pub fn read(&self, sequence: Sequence, from: Start) -> Cursor {
        let asks = self.handle.asks.clone();
        let mend: Mend = Arc::new(move || {
            let asks = asks.clone();
            Box::pin(async move {
                let (reply, done) = oneshot::channel();
                if asks.send(Ask::Mend(reply)).await.is_ok() {
                    // It says itself what went wrong.
                    let _ = done.await;
                }
            })
        });
        cursor(&self.dir, sequence, from, mend)
    }
}
