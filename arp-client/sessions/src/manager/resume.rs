//! Sessions that were parked with messages in their queue go on after a restart.

use super::{Inner, Sessions};
use crate::error::SessionError;
use crate::model::Status;
use crate::session::Ask;
use crate::store::Filter;
use std::sync::Weak;
use std::time::Duration;

/// How long to wait for a place when all are taken.
const AGAIN: Duration = Duration::from_secs(10);

pub(super) async fn run(sessions: Weak<Inner>) {
    let waiting = match sessions.upgrade().map(|inner| Sessions(inner).parked_with_work()) {
        Some(Ok(waiting)) => waiting,
        Some(Err(error)) => {
            tracing::error!(%error, "cannot look for parked sessions");
            return;
        }
        None => return,
    };
    for id in waiting {
        loop {
            let Some(inner) = sessions.upgrade() else { return };
            match Sessions(inner).go_on_with_queue(&id).await {
                Ok(()) => break,
                Err(SessionError::TooManySessions(_)) => tokio::time::sleep(AGAIN).await,
                Err(SessionError::ShuttingDown) => return,
                Err(error) => {
                    tracing::warn!(session = id, %error, "cannot go on with the messages of a parked session");
                    break;
                }
            }
        }
    }
}

impl Sessions {
    fn parked_with_work(&self) -> Result<Vec<String>, SessionError> {
        let (parked, _) = self.core().store.list(&Filter {
            status: vec![Status::Parked],
            limit: u64::MAX,
            ..Filter::default()
        })?;
        let mut waiting = Vec::new();
        for meta in parked {
            if !self.core().store.queue(&meta.id)?.is_empty() {
                waiting.push(meta.id);
            }
        }
        Ok(waiting)
    }

    async fn go_on_with_queue(&self, id: &str) -> Result<(), SessionError> {
        self.make_room(id).await?;
        self.call(id, Ask::Resume).await
    }
}
