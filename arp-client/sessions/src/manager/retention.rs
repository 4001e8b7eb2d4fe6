//! Records of ended sessions are kept for a time, and within a size; the agents' own histories are not touched.

use super::{Inner, Sessions};
use crate::clock;
use crate::error::SessionError;
use crate::host::SessionDir;
use crate::model::Status;
use crate::store::Filter;
use std::sync::Weak;
use std::time::Duration;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(3600);
/// The first time: not while everything else starts.
const FIRST: Duration = Duration::from_secs(60);

pub(super) async fn run(sessions: Weak<Inner>) {
    let mut wait = FIRST;
    loop {
        tokio::time::sleep(wait).await;
        wait = EVERY;
        let Some(inner) = sessions.upgrade() else { return };
        if let Err(error) = Sessions(inner).forget_old().await {
            tracing::warn!(%error, "cannot tidy up old sessions");
        }
    }
}

impl Sessions {
    /// Forgets sessions that are too old, and the oldest of those that take too much.
    pub(crate) async fn forget_old(&self) -> Result<(), SessionError> {
        let ended = Status::ALL
            .into_iter()
            .filter(|status| !status.is_live())
            .collect();
        let filter = Filter {
            status: ended,
            limit: u64::MAX,
            ..Filter::default()
        };
        let (metas, _) = self.core().store.list(&filter)?;
        let keep_ms = u64::try_from(self.config().keep_for.as_millis()).unwrap_or(u64::MAX);
        let oldest = clock::now_ms().saturating_sub(keep_ms);
        let mut bytes = 0_u64;
        for meta in metas {
            bytes += SessionDir::new(self.config().session_dir(&meta.id)).size();
            if meta.updated_ms < oldest || bytes > self.config().keep_bytes {
                tracing::info!(session = meta.id, "forgets an old session");
                self.forget(&meta.id).await?;
            }
        }
        Ok(())
    }
}
