//! Sessions deleted: first everything is checked, then removed, all or nothing.

use super::Sessions;
use crate::error::SessionError;
use crate::host::{ASIDE, SessionDir};
use crate::log::LogReader;
use crate::model::{Beginning, Meta};
use crate::session::{Ask, RemoveFirst};
use crate::store::Filter;
use std::sync::Arc;

/// What is to become of the agent's own history of a session that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum History {
    /// It goes too if the session was begun here. One that was made elsewhere, in a terminal, is kept.
    #[default]
    IfOurs,
    /// It goes too.
    Delete,
    /// It stays.
    Keep,
}

/// How a session is to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removal {
    /// Also one whose turn runs, or that somebody else has open.
    pub force: bool,
    /// The agent's own history.
    pub history: History,
}

/// How a session was ended by [`Sessions::delete`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// A turn was running: it was cancelled, the record is kept.
    Cancelled,
    /// Everything is gone, the agent's own history included.
    Deleted,
    /// Our record is gone, the agent's history is kept.
    Removed,
}

impl Sessions {
    /// Cancels a session whose turn runs; deletes one whose does not. With `force` both.
    ///
    /// # Errors
    /// [`SessionError`]; then everything is still there.
    pub async fn delete(&self, id: &str, removal: Removal) -> Result<Deleted, SessionError> {
        let view = self.get(id)?;
        if view.status.is_busy() && !removal.force {
            self.cancel(&view.id).await?;
            return Ok(Deleted::Cancelled);
        }
        let meta = self.meta(&view.id)?;
        let agent_id = self.get(&view.id)?.agent_session_id.clone();
        if view.status.is_live() {
            // One that waits for a message is ended first; it is not in use.
            self.cancel(&view.id).await?;
        }
        let agent_id = self.get(&view.id)?.agent_session_id.clone().or(agent_id);
        let with_history = match removal.history {
            History::Keep => false,
            History::Delete => true,
            History::IfOurs => begun_here(&meta, agent_id.as_deref()),
        };
        let Some(agent_id) = agent_id.filter(|_| with_history) else {
            self.forget(&view.id, || Ok(())).await?;
            return Ok(if with_history {
                Deleted::Deleted
            } else {
                Deleted::Removed
            });
        };
        let (core, executor) = (Arc::clone(self.core()), meta.executor);
        let delete = move || core.past.delete(&executor, &agent_id, removal.force);
        self.forget(&view.id, delete).await?;
        Ok(Deleted::Deleted)
    }

    /// Drops all record of a session that is not live, if `first` comes about. When this returns nobody finds it
    /// any more.
    pub(super) async fn forget(
        &self,
        id: &str,
        first: impl FnOnce() -> Result<(), SessionError> + Send + Clone + 'static,
    ) -> Result<(), SessionError> {
        self.call(id, |reply| Ask::Remove {
            first: RemoveFirst(Box::new(first.clone())),
            reply,
        })
        .await?;
        self.actors().remove(id);
        Ok(())
    }

    /// At the start: what an `arpc` that was killed was removing is removed or put back, and sessions whose events
    /// were lost with the power are read again.
    pub(super) fn sweep(&self) -> Result<(), SessionError> {
        let root = self.config().data_dir.join("sessions");
        for entry in std::fs::read_dir(&root)?.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != ASIDE) {
                continue;
            }
            let id = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            let known = self.core().store.find(id)?.is_some_and(|meta| meta.id == id);
            let done = if known {
                std::fs::rename(&path, path.with_extension(""))
            } else {
                std::fs::remove_dir_all(&path)
            };
            if let Err(error) = done {
                tracing::warn!(path = %path.display(), %error, "cannot tidy up after a removal");
            }
        }
        let (newest, _) = self.core().store.list(&Filter {
            limit: RECENT,
            ..Filter::default()
        })?;
        for meta in newest.into_iter().filter(|meta| !meta.status.is_live()) {
            if self.is_behind(&meta) {
                self.activate(meta)?;
            }
        }
        Ok(())
    }

    /// Does the raw log know more than the events?
    fn is_behind(&self, meta: &Meta) -> bool {
        let dir = SessionDir::new(self.config().session_dir(&meta.id));
        let end = |path| LogReader::end_of(path).unwrap_or_default();
        let (raw, events) = (end(&dir.raw_log()), end(&dir.event_log()));
        raw.seq > events.line
    }
}

/// Sessions that may have been at work when the power failed.
const RECENT: u64 = 200;

/// Did the agent's history of it begin with us?
fn begun_here(meta: &Meta, agent_id: Option<&str>) -> bool {
    match &meta.beginning {
        Beginning::New => true,
        // An agent that goes on in the original where a copy was asked for has made nothing of its own.
        Beginning::Session { id, fork } => *fork && agent_id != Some(id),
        Beginning::Last { fork } => *fork,
    }
}
