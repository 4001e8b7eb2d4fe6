//! The agents' own histories, as sessions need them.

use super::CommandConfig;
use arp_history::{AgentKind, History, HistoryConfig, HistoryError, Page, SessionFilter};
use arp_sessions::clock::parse_rfc3339;
use arp_sessions::error::SessionError;
use arp_sessions::{Holder, PastEvent, PastSession, PastSessions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens the history of all agents.
pub(super) fn open(config: &CommandConfig) -> Result<Arc<History>, HistoryError> {
    let index = config.data_dir.join("history.sqlite");
    let mut wanted = HistoryConfig::from_env(|name| std::env::var_os(name), index);
    wanted.codex_command = config.agent_paths.get("codex").cloned();
    Ok(Arc::new(History::open(wanted)?))
}

/// Looks sessions up in the history.
pub(super) struct Past(pub(super) Arc<History>);

impl PastSessions for Past {
    fn find(&self, executor: &str, id: &str) -> Option<PastSession> {
        let agent: AgentKind = executor.parse().ok()?;
        self.0.session(agent, id).ok().map(past)
    }

    fn newest(&self, executor: &str, project_path: &Path) -> Option<PastSession> {
        let agent: AgentKind = executor.parse().ok()?;
        let filter = SessionFilter {
            project_path: Some(project_path.to_string_lossy().into_owned()),
            limit: Some(1),
            ..SessionFilter::default()
        };
        self.0
            .sessions(agent, &filter)
            .ok()?
            .sessions
            .into_iter()
            .next()
            .map(past)
    }

    fn holder(&self, executor: &str, id: &str) -> Option<Holder> {
        let agent: AgentKind = executor.parse().ok()?;
        let live = self.0.live(agent);
        live.into_iter()
            .find(|live| live.session_id == id)
            .map(|live| Holder { pid: live.pid })
    }

    fn events(&self, executor: &str, id: &str) -> Vec<PastEvent> {
        let Ok(agent) = executor.parse::<AgentKind>() else {
            return Vec::new();
        };
        match self.newest_events(agent, id) {
            Ok(events) => events,
            Err(HistoryError::UnknownSession { .. } | HistoryError::NoHome(_)) => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "cannot read what came before a session");
                Vec::new()
            }
        }
    }

    fn delete(&self, executor: &str, id: &str, force: bool) -> Result<(), SessionError> {
        let Ok(agent) = executor.parse::<AgentKind>() else {
            return Ok(());
        };
        if let Some(holder) = self.holder(executor, id).filter(|_| !force) {
            return Err(SessionError::InUse(format!(
                "process {} has this session of {agent} open, a terminal perhaps; close it there, or delete with \
                 \"force\"",
                holder.pid
            )));
        }
        // That it was written to lately (which is all that Gemini leaves to see) was our own doing.
        match self.0.delete(agent, id, true) {
            // It never came to the agent's disk.
            Ok(_) | Err(HistoryError::UnknownSession { .. } | HistoryError::NoHome(_)) => Ok(()),
            Err(error) => Err(SessionError::Internal(format!(
                "the agent's history cannot be deleted, so nothing was: {error}"
            ))),
        }
    }
}

impl Past {
    fn newest_events(&self, agent: AgentKind, id: &str) -> Result<Vec<PastEvent>, HistoryError> {
        let all = Page {
            from: u64::MAX,
            limit: 1,
        };
        let records = self.0.events(agent, id, all)?.total_lines;
        let mut from = records.saturating_sub(PAST_RECORDS);
        let mut past = Vec::new();
        loop {
            let page = Page {
                from,
                limit: arp_history::MAX_PAGE_LINES,
            };
            let page = self.0.events(agent, id, page)?;
            for told in page.events {
                let Ok(event) = serde_json::to_string(&told.event) else {
                    continue;
                };
                past.push(PastEvent {
                    time_ms: told.timestamp.as_deref().and_then(parse_rfc3339).unwrap_or(0),
                    event,
                });
            }
            match page.next {
                Some(next) if next > from => from = next,
                _ => return Ok(past),
            }
        }
    }
}

/// Records of an agent's own history that a session begins with, at most.
const PAST_RECORDS: u64 = 2000;

fn past(session: arp_history::Session) -> PastSession {
    PastSession {
        id: session.id,
        project_path: PathBuf::from(session.project_path),
        first_message: session.first_message,
        used_ms: u64::try_from(session.updated_at)
            .unwrap_or(0)
            .saturating_mul(1000),
    }
}
