//! The agents' own histories, as sessions need them.

use super::CommandConfig;
use arp_history::{AgentKind, History, HistoryConfig, HistoryError, SessionFilter};
use arp_sessions::{PastSession, PastSessions};
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

    fn delete(&self, executor: &str, id: &str) -> Result<(), String> {
        let Ok(agent) = executor.parse::<AgentKind>() else {
            return Ok(());
        };
        match self.0.delete(agent, id, true) {
            // It never came to the agent's disk.
            Ok(_) | Err(HistoryError::UnknownSession { .. } | HistoryError::NoHome(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

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
