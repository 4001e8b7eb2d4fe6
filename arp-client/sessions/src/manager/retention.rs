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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{AgentSource, Finding, NoPast, SessionsConfig};
    use crate::hostlink::HostProgram;
    use crate::model::{Beginning, Meta, Origin};
    use arp_agents::agent::Agent;
    use std::sync::Arc;

    struct Nobody;

    impl AgentSource for Nobody {
        fn find<'a>(&'a self, executor: &'a str) -> Finding<'a> {
            Box::pin(async move { Err(SessionError::UnknownAgent(executor.to_owned())) })
        }

        fn known(&self, _executor: &str) -> Option<Arc<dyn Agent>> {
            None
        }

        fn default_executor(&self) -> Option<String> {
            None
        }
    }

    fn ended(id: &str, updated_ms: u64) -> Meta {
        Meta {
            id: id.into(),
            executor: "claude".into(),
            agent_session_id: None,
            title: None,
            first_message: None,
            project_path: "/".into(),
            model: None,
            model_chosen: false,
            permission_mode: arp_agents::driver::PermissionMode::Default,
            allowed_tools: Vec::new(),
            status: Status::Completed,
            turn: None,
            turns: 1,
            last_turn: None,
            activity: None,
            usage: None,
            models: Vec::new(),
            error: None,
            exit_code: None,
            exit_signal: None,
            parent_id: None,
            origin: Origin::Api,
            beginning: Beginning::New,
            opened_ms: 0,
            starts_ms: None,
            used_before: arp_agents::event::Usage::default(),
            runs: 1,
            run_after: 0,
            last_seq: 0,
            total_lines: 0,
            created_ms: updated_ms,
            updated_ms,
            ended_ms: Some(updated_ms),
            client_id: None,
        }
    }

    #[tokio::test]
    async fn too_old_and_too_much_goes_and_what_runs_stays() {
        let dir = tempfile::tempdir().unwrap();
        let host = HostProgram {
            program: "/bin/false".into(),
            args: Vec::new(),
        };
        let mut config = SessionsConfig::new(dir.path().to_owned(), host);
        config.keep_bytes = 2500;
        let sessions = Sessions::open(config, Arc::new(Nobody), Arc::new(NoPast)).unwrap();
        let now = clock::now_ms();
        let mut live = ended("live", 1);
        live.status = Status::Running;
        let all = [
            ended("old", 1),
            ended("a", now - 3),
            ended("b", now - 2),
            ended("c", now - 1),
            live,
        ];
        for meta in &all {
            sessions.core().store.save(meta).unwrap();
            let dir = sessions.config().session_dir(&meta.id);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("raw.log"), vec![0; 1000]).unwrap();
        }
        sessions.forget_old().await.unwrap();
        let left = |id: &str| sessions.core().store.find(id).unwrap().is_some();
        assert_eq!(all.map(|meta| left(&meta.id)), [false, false, true, true, true]);
        assert!(!sessions.config().session_dir("old").exists());
    }
}
