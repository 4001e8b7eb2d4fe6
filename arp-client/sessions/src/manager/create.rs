//! New sessions: fresh, resumed, forked.

use super::Sessions;
use crate::clock;
use crate::core::PastSession;
use crate::defaults::MAX_PROMPT;
use crate::error::SessionError;
use crate::model::{Beginning, Meta, Origin, SessionView, Status, shortened, title_of};
use crate::session::{Ask, Change};
use arp_agents::driver::PermissionMode;
use arp_agents::event::Usage;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What somebody wants of a new session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewSession {
    /// The agent; the default one without.
    pub executor: Option<String>,
    /// First message.
    pub prompt: Option<String>,
    /// Directory to work in.
    pub project_path: Option<PathBuf>,
    /// Used when none is given and none is known.
    pub default_path: PathBuf,
    /// Model.
    pub model: Option<String>,
    /// Go on with this session: our id or the agent's.
    pub resume: Option<String>,
    /// Go on with the newest of the directory.
    pub resume_last: bool,
    /// Copy it instead.
    pub fork: bool,
    /// How tools are permitted.
    pub permission_mode: Option<PermissionMode>,
    /// Tools that need not ask.
    pub allowed_tools: Vec<String>,
    /// Title.
    pub title: Option<String>,
    /// Idempotency id.
    pub client_id: Option<String>,
    /// Who asks.
    pub origin: Origin,
}

/// A session was started.
#[derive(Debug, Clone)]
pub struct Created {
    /// As it stands.
    pub session: Arc<SessionView>,
    /// It was there before (resumed, or the same `client_id`).
    pub existed: bool,
}

/// What [`NewSession::resume`] means.
struct Origins {
    beginning: Beginning,
    agent_session_id: Option<String>,
    parent_id: Option<String>,
    path: Option<PathBuf>,
    first_message: Option<String>,
    title: Option<String>,
    opened_ms: u64,
}

pub(super) fn check_prompt(text: &str) -> Result<(), SessionError> {
    if text.trim().is_empty() {
        return Err(SessionError::BadRequest(
            "the message is empty; say something".into(),
        ));
    }
    if text.len() > MAX_PROMPT {
        return Err(SessionError::BadRequest(format!(
            "the message has {} bytes, more than the {MAX_PROMPT} that are allowed; put it into a file",
            text.len()
        )));
    }
    Ok(())
}

impl Sessions {
    /// Starts a session, or goes on with one.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn create(&self, wanted: NewSession) -> Result<Created, SessionError> {
        if self.0.closing.load(Ordering::SeqCst) {
            return Err(SessionError::ShuttingDown);
        }
        if let Some(prompt) = &wanted.prompt {
            check_prompt(prompt)?;
        } else if wanted.resume.is_none() && !wanted.resume_last {
            return Err(SessionError::BadRequest(
                "\"prompt\" is missing; say what the agent shall do".into(),
            ));
        }
        if wanted.fork && wanted.resume.is_none() && !wanted.resume_last {
            return Err(SessionError::BadRequest(
                "\"fork\" needs \"resume\": which session is to be copied?".into(),
            ));
        }
        if let Some(mode) = wanted.permission_mode {
            self.check_mode(mode)?;
        }
        if let Some(client_id) = &wanted.client_id
            && let Some(meta) = self.core().store.find_by_client_id(client_id)?
        {
            return Ok(Created {
                session: self.view_of(&meta)?,
                existed: true,
            });
        }
        if let Some(resume) = &wanted.resume
            && let Some(ours) = self.core().store.find(resume)?
        {
            return if wanted.fork {
                self.fork(wanted, &ours).await
            } else {
                self.go_on(wanted, &ours).await
            };
        }
        let origins = self.origins(&wanted).await?;
        self.begin(wanted, origins).await
    }

    /// `resume` of one of our own sessions.
    async fn go_on(&self, wanted: NewSession, ours: &Meta) -> Result<Created, SessionError> {
        if let Some(executor) = &wanted.executor
            && !executor.eq_ignore_ascii_case(&ours.executor)
        {
            return Err(SessionError::BadRequest(format!(
                "session {} is one of {}, not of {executor}",
                ours.id, ours.executor
            )));
        }
        let change = Change {
            model: wanted.model,
            permission_mode: wanted.permission_mode,
            title: wanted.title,
        };
        if change != Change::default() {
            self.set(&ours.id, change).await?;
        }
        match wanted.prompt {
            Some(prompt) => {
                self.message(&ours.id, prompt, wanted.client_id, false).await?;
            }
            None => {
                self.make_room(&ours.id).await?;
                self.call(&ours.id, Ask::Begin).await?;
            }
        }
        Ok(Created {
            session: self.get(&ours.id)?,
            existed: true,
        })
    }

    async fn fork(&self, mut wanted: NewSession, ours: &Meta) -> Result<Created, SessionError> {
        let Some(id) = ours.agent_session_id.clone().filter(|_| ours.turns > 0) else {
            return Err(SessionError::CannotResume(
                "this session has nothing yet that could be copied".into(),
            ));
        };
        wanted.executor = Some(ours.executor.clone());
        wanted.permission_mode = wanted.permission_mode.or(Some(ours.permission_mode));
        if ours.model_chosen && wanted.model.is_none() {
            wanted.model.clone_from(&ours.model);
        }
        let origins = Origins {
            beginning: Beginning::Session { id, fork: true },
            agent_session_id: None,
            parent_id: Some(ours.id.clone()),
            path: Some(ours.project_path.clone()),
            first_message: ours.first_message.clone(),
            title: ours.title.clone(),
            opened_ms: ours.opened_ms,
        };
        self.begin(wanted, origins).await
    }

    /// Where a session begins that is not one of ours.
    async fn origins(&self, wanted: &NewSession) -> Result<Origins, SessionError> {
        let mut origins = Origins {
            beginning: Beginning::New,
            agent_session_id: None,
            parent_id: None,
            path: None,
            first_message: None,
            title: None,
            opened_ms: 0,
        };
        let executor = self.executor(wanted)?;
        let fork = wanted.fork;
        let past = if let Some(id) = wanted.resume.clone() {
            origins.beginning = Beginning::Session { id: id.clone(), fork };
            self.past(executor, move |past, executor| past.find(executor, &id))
                .await?
        } else if wanted.resume_last {
            let path = wanted
                .project_path
                .clone()
                .unwrap_or_else(|| wanted.default_path.clone());
            origins.beginning = Beginning::Last { fork };
            let newest = self
                .past(executor, move |past, executor| past.newest(executor, &path))
                .await?;
            if let Some(newest) = &newest {
                origins.beginning = Beginning::Session {
                    id: newest.id.clone(),
                    fork,
                };
            }
            newest
        } else {
            return Ok(origins);
        };
        if let Some(past) = past {
            if fork {
                origins.parent_id = Some(past.id);
            } else {
                origins.agent_session_id = Some(past.id);
            }
            origins.path = Some(past.project_path);
            origins.opened_ms = past.used_ms;
            origins.title = past.first_message.as_deref().and_then(title_of);
            origins.first_message = past.first_message;
        }
        // One of ours may be the newest of the directory.
        Ok(origins)
    }

    async fn past(
        &self,
        executor: String,
        look: impl FnOnce(&dyn crate::core::PastSessions, &str) -> Option<PastSession> + Send + 'static,
    ) -> Result<Option<PastSession>, SessionError> {
        let core = Arc::clone(self.core());
        tokio::task::spawn_blocking(move || look(core.past.as_ref(), &executor))
            .await
            .map_err(|error| SessionError::Internal(error.to_string()))
    }

    fn executor(&self, wanted: &NewSession) -> Result<String, SessionError> {
        let name = wanted
            .executor
            .clone()
            .or_else(|| self.core().agents.default_executor());
        let name = name.ok_or_else(|| {
            SessionError::AgentNotFound(
                "no agent is installed on this machine; install Claude Code, Codex or Gemini CLI".into(),
            )
        })?;
        Ok(name.to_lowercase())
    }

    async fn begin(&self, wanted: NewSession, origins: Origins) -> Result<Created, SessionError> {
        let executor = self.executor(&wanted)?;
        let found = self.core().agents.find(&executor).await?;
        let executor = found.agent.id().to_owned();
        let path = wanted
            .project_path
            .or(origins.path)
            .unwrap_or(wanted.default_path);
        if !path.is_absolute() || !tokio::fs::metadata(&path).await.is_ok_and(|meta| meta.is_dir()) {
            return Err(SessionError::ProjectPath(path.display().to_string()));
        }

        let now = clock::now_ms();
        let meta = Meta {
            id: uuid::Uuid::new_v4().to_string(),
            executor,
            agent_session_id: origins.agent_session_id,
            title: wanted.title.or(origins.title),
            first_message: origins.first_message.map(|text| shortened(&text, 500)),
            project_path: path,
            model_chosen: wanted.model.is_some(),
            model: wanted.model,
            permission_mode: wanted.permission_mode.unwrap_or_default(),
            allowed_tools: wanted.allowed_tools,
            status: Status::Starting,
            turn: None,
            turns: 0,
            last_turn: None,
            activity: None,
            usage: None,
            models: Vec::new(),
            error: None,
            exit_code: None,
            exit_signal: None,
            parent_id: origins.parent_id,
            origin: wanted.origin,
            beginning: origins.beginning,
            opened_ms: origins.opened_ms,
            starts_ms: None,
            used_before: Usage::default(),
            runs: 0,
            run_after: 0,
            last_seq: 0,
            total_lines: 0,
            created_ms: now,
            updated_ms: now,
            ended_ms: None,
            client_id: wanted.client_id.clone(),
        };
        let id = meta.id.clone();
        self.reserve(meta).await?;
        let begun = match wanted.prompt {
            Some(text) => {
                let client_id = wanted.client_id;
                self.call(&id, |reply| Ask::Message {
                    text: text.clone(),
                    client_id: client_id.clone(),
                    interrupt: false,
                    reply,
                })
                .await
                .map(|_| ())
            }
            None => self.call(&id, Ask::Begin).await,
        };
        if let Err(error) = begun {
            if let Err(error) = self.forget(&id).await {
                tracing::warn!(session = id, %error, "cannot remove a session that did not start");
            }
            return Err(error);
        }
        Ok(Created {
            session: self.get(&id)?,
            existed: false,
        })
    }

    /// Writes down a new session, if there is room for one.
    async fn reserve(&self, meta: Meta) -> Result<(), SessionError> {
        let _one_at_a_time = self.0.room.lock().await;
        self.park_one_if_full().await?;
        self.core().store.save(&meta)?;
        self.activate(meta)?;
        Ok(())
    }

    /// Sees to it that a session that is not live may become so.
    pub(super) async fn make_room(&self, id: &str) -> Result<(), SessionError> {
        if self.get(id)?.status.is_live() {
            return Ok(());
        }
        let _one_at_a_time = self.0.room.lock().await;
        self.park_one_if_full().await
    }

    async fn park_one_if_full(&self) -> Result<(), SessionError> {
        let most = self.config().max_live;
        if self.live() < most {
            return Ok(());
        }
        let idle = {
            let actors = self.actors();
            let mut idle: Vec<_> = actors
                .values()
                .map(|handle| handle.shared.view())
                .filter(|view| view.status == Status::Idle)
                .collect();
            idle.sort_by_key(|view| view.updated_at);
            idle.into_iter().next()
        };
        match idle {
            Some(view) => self.call(&view.id, Ask::Park).await,
            None => Err(SessionError::TooManySessions(most)),
        }
    }
}
