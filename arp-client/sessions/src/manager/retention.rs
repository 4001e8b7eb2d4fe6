//! Records of ended sessions are kept for a time, and within a size; the agents' own histories are not touched.
//!
//! The time is measured by a clock that only goes forward: a wall clock that jumps deletes nothing.

use super::{Inner, Sessions};
use crate::clock;
use crate::error::SessionError;
use crate::host::SessionDir;
use crate::model::Status;
use crate::store::Filter;
use std::sync::Weak;
use std::time::{Duration, Instant};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(3600);
/// The first time: not while everything else starts.
const FIRST: Duration = Duration::from_secs(60);
/// How long `arpc` was off counts up to so much at each start: only the wall clock tells it.
const MOST_OFF: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn run(sessions: Weak<Inner>) {
    let mut wait = FIRST;
    let mut before: Option<Instant> = None;
    loop {
        tokio::time::sleep(wait).await;
        wait = EVERY;
        let Some(inner) = sessions.upgrade() else { return };
        let sessions = Sessions(inner);
        let passed = before.replace(Instant::now()).map(|before| before.elapsed());
        let done = match sessions.age(passed) {
            Ok(age_ms) => sessions.forget_old(age_ms).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "cannot tidy up old sessions");
        }
    }
}

impl Sessions {
    /// The age of our records, in milliseconds: it grows by what passed since the last look, or, at the first look
    /// after a start, by how long we were off, as far as the wall clock can be believed.
    fn age(&self, passed: Option<Duration>) -> Result<u64, SessionError> {
        let store = &self.core().store;
        let now = clock::now_ms();
        let (age, wall) = store.clock()?.unwrap_or((0, now));
        let grown = passed.unwrap_or_else(|| Duration::from_millis(now.saturating_sub(wall)).min(MOST_OFF));
        let age = age.saturating_add(u64::try_from(grown.as_millis()).unwrap_or(u64::MAX));
        store.set_clock(age, now)?;
        Ok(age)
    }

    /// Forgets sessions that have rested for too long, and the oldest of those that take too much. The newest stay
    /// however old they are.
    pub(crate) async fn forget_old(&self, age_ms: u64) -> Result<(), SessionError> {
        let ended = Status::ALL
            .into_iter()
            .filter(|status| !status.is_live())
            .collect();
        let filter = Filter {
            status: ended,
            limit: u64::MAX,
            ..Filter::default()
        };
        let store = &self.core().store;
        let (metas, _) = store.list(&filter)?;
        let keep_ms = u64::try_from(self.config().keep_for.as_millis()).unwrap_or(u64::MAX);
        let mut bytes = 0_u64;
        for (number, meta) in metas.into_iter().enumerate() {
            let since = store.resting_since(&meta, age_ms)?;
            bytes += SessionDir::new(self.config().session_dir(&meta.id)).size();
            let too_old = age_ms.saturating_sub(since) > keep_ms && number >= self.config().keep_newest;
            let waits = !store.queue(&meta.id)?.is_empty();
            if (too_old || bytes > self.config().keep_bytes) && !waits {
                tracing::info!(session = meta.id, "forgets an old session");
                // One that cannot be removed now is tried again; the others need not wait for it.
                if let Err(error) = self.forget(&meta.id, || Ok(())).await {
                    tracing::warn!(session = meta.id, %error, "cannot forget an old session");
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{AgentSource, Finding, NoPast, SessionsConfig};
    use crate::hostprogram::HostProgram;
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
            agent_mode: None,
            problem: None,
            never_resumes: None,
            left_running: Vec::new(),
            granted: Vec::new(),
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
        let host = HostProgram::only("/bin/false".into(), Vec::new());
        let mut config = SessionsConfig::new(dir.path().to_owned(), host);
        config.keep_bytes = 2500;
        config.keep_newest = 0;
        let sessions = Sessions::open(config, Arc::new(Nobody), Arc::new(NoPast)).unwrap();
        let now = clock::now_ms();
        let mut live = ended("live", 1);
        live.status = Status::Running;
        let mut parked = ended("parked", now - 5);
        parked.status = Status::Parked;
        let stuck = ended("stuck", now - 6);
        let all = [
            ended("old", now - 4),
            ended("a", now - 3),
            ended("b", now - 2),
            ended("c", now - 1),
            live,
            parked,
            stuck,
        ];
        // The old one has been here for long; what its wall clock says counts for nothing.
        let keep_ms = u64::try_from(sessions.config().keep_for.as_millis()).unwrap();
        sessions.core().store.save(&all[0]).unwrap();
        sessions.core().store.resting_since(&all[0], 0).unwrap();
        for meta in &all {
            sessions.core().store.save(meta).unwrap();
            let dir = sessions.config().session_dir(&meta.id);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("raw.log"), vec![0; 1000]).unwrap();
        }
        // One that cannot be removed: something is in the way.
        std::fs::create_dir_all(sessions.config().session_dir("stuck.removed").join("x")).unwrap();
        sessions.forget_old(keep_ms + 1).await.unwrap();
        let left = |id: &str| sessions.core().store.find(id).unwrap().is_some();
        assert_eq!(
            all.map(|meta| left(&meta.id)),
            [false, false, true, true, true, false, true]
        );
        assert!(!sessions.config().session_dir("old").exists());
    }

    #[tokio::test]
    async fn a_deleted_session_is_not_brought_back_by_who_read_of_it_before() {
        let dir = tempfile::tempdir().unwrap();
        let host = HostProgram::only("/bin/false".into(), Vec::new());
        let config = SessionsConfig::new(dir.path().to_owned(), host);
        let sessions = Sessions::open(config, Arc::new(Nobody), Arc::new(NoPast)).unwrap();
        let meta = ended("gone", 1);
        sessions.core().store.save(&meta).unwrap();
        sessions.forget("gone", || Ok(())).await.unwrap();
        // Another session whose agent calls it by that name is not it.
        let mut other = ended("other", 2);
        other.agent_session_id = Some("gone".into());
        sessions.core().store.save(&other).unwrap();
        assert!(matches!(sessions.activate(meta), Err(SessionError::NotFound(_))));
        assert!(sessions.actors().is_empty());
        assert!(!sessions.config().session_dir("gone").exists());
    }

    #[tokio::test]
    async fn a_clock_that_jumps_deletes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let host = HostProgram::only("/bin/false".into(), Vec::new());
        let mut config = SessionsConfig::new(dir.path().to_owned(), host);
        config.keep_newest = 0;
        let sessions = Sessions::open(config, Arc::new(Nobody), Arc::new(NoPast)).unwrap();
        // Written when the clock said 1970, and looked at years later by the wall clock.
        sessions.core().store.save(&ended("a", 1)).unwrap();
        sessions.core().store.set_clock(5, 1).unwrap();
        let age = sessions.age(None).unwrap();
        assert_eq!(age, 5 + u64::try_from(MOST_OFF.as_millis()).unwrap());
        sessions.forget_old(age).await.unwrap();
        assert!(sessions.core().store.find("a").unwrap().is_some());
        // And set back again: time goes on all the same.
        sessions.core().store.set_clock(age, u64::MAX / 4).unwrap();
        assert_eq!(sessions.age(None).unwrap(), age);
        assert_eq!(sessions.age(Some(Duration::from_secs(1))).unwrap(), age + 1000);
    }
}
