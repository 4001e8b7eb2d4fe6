//! New sessions: fresh, resumed, forked.

use super::Sessions;
use crate::clock;
use crate::core::{PastEvent, PastSession};
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

/// What became of a request for a new session.
enum Reserved {
    /// It is new.
    New,
    /// Somebody was quicker with the same `client_id`: this one.
    Same(Box<Meta>),
    /// Somebody was quicker to resume the same session: this one.
    Resumed(Box<Meta>),
}

/// Events of the past that a session begins with, at most.
const PAST_EVENTS: u64 = 4000;
/// What is told of the past.
const PAST_KINDS: [&str; 6] = [
    "user_message",
    "text",
    "thinking",
    "tool_call",
    "tool_result",
    "plan",
];

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
    pub async fn create(&self, mut wanted: NewSession) -> Result<Created, SessionError> {
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
        if wanted.resume.is_none() && wanted.resume_last {
            // By its id: it may be one of ours, and then no second process may open it.
            wanted.resume = Some(self.newest(&wanted).await?.ok_or_else(|| {
                SessionError::CannotResume(
                    "there is no earlier session in this directory to go on with".into(),
                )
            })?);
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
                self.call(&ours.id, |reply| Ask::Begin {
                    past: Vec::new(),
                    reply,
                })
                .await?;
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
            // By this it is found by whoever resumes the same one in the same moment.
            origins.agent_session_id = Some(id.clone()).filter(|_| !fork);
            self.past(executor, move |past, executor| past.find(executor, &id))
                .await?
        } else {
            if wanted.resume_last {
                // None is known here; the agent may know better.
                origins.beginning = Beginning::Last { fork };
            }
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
        Ok(origins)
    }

    /// The session of the wanted agent that was used last in the wanted directory.
    async fn newest(&self, wanted: &NewSession) -> Result<Option<String>, SessionError> {
        let path = wanted
            .project_path
            .as_ref()
            .unwrap_or(&wanted.default_path)
            .clone();
        let newest = self
            .past(self.executor(wanted)?, move |past, executor| {
                past.newest(executor, &path)
            })
            .await?;
        Ok(newest.map(|past| past.id))
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
        let past = self.past_events(&executor, &origins).await?;
        let again = wanted.clone();
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
            agent_mode: None,
            problem: None,
            never_resumes: None,
            left_running: Vec::new(),
            granted: Vec::new(),
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
        match self.reserve(meta).await? {
            Reserved::New => {}
            Reserved::Same(ours) => {
                return Ok(Created {
                    session: self.view_of(&ours)?,
                    existed: true,
                });
            }
            Reserved::Resumed(ours) => return self.go_on(again, &ours).await,
        }
        let begun = self.first_words(&id, past, wanted.prompt, wanted.client_id).await;
        if let Err(error) = begun {
            if let Err(error) = self.forget(&id, || Ok(())).await {
                tracing::warn!(session = id, %error, "cannot remove a session that did not start");
            }
            return Err(error);
        }
        Ok(Created {
            session: self.get(&id)?,
            existed: false,
        })
    }

    async fn first_words(
        &self,
        id: &str,
        past: Vec<PastEvent>,
        prompt: Option<String>,
        client_id: Option<String>,
    ) -> Result<(), SessionError> {
        if prompt.is_none() || !past.is_empty() {
            self.call(id, |reply| Ask::Begin {
                past: past.clone(),
                reply,
            })
            .await?;
        }
        let Some(text) = prompt else { return Ok(()) };
        self.call(id, |reply| Ask::Message {
            text: text.clone(),
            client_id: client_id.clone(),
            interrupt: false,
            reply,
        })
        .await
        .map(|_| ())
    }

    /// What happened before, for a session that goes on with another or is a copy of it.
    async fn past_events(&self, executor: &str, origins: &Origins) -> Result<Vec<PastEvent>, SessionError> {
        let Beginning::Session { id, .. } = &origins.beginning else {
            return Ok(Vec::new());
        };
        let parent = match &origins.parent_id {
            Some(parent) => self.core().store.find(parent)?,
            None => None,
        };
        if let Some(ours) = parent {
            return self.events_of(&ours).await;
        }
        let (core, executor, id) = (Arc::clone(self.core()), executor.to_owned(), id.clone());
        tokio::task::spawn_blocking(move || core.past.events(&executor, &id))
            .await
            .map_err(|error| SessionError::Internal(error.to_string()))
    }

    /// The newest events of a session of ours, as those of the past of another: what was said and done.
    async fn events_of(&self, ours: &Meta) -> Result<Vec<PastEvent>, SessionError> {
        let from = ours.last_seq.saturating_sub(PAST_EVENTS);
        let mut cursor = self.read(&ours.id, crate::read::Sequence::Events, from + 1)?;
        let mut past = Vec::new();
        loop {
            let (next, read) = cursor.batch().await;
            cursor = next;
            let entries = read?;
            if entries.is_empty() {
                return Ok(past);
            }
            for entry in entries {
                // Our own serialization puts the type first.
                let told = PAST_KINDS
                    .iter()
                    .any(|kind| entry.text.starts_with(&format!("{{\"type\":\"{kind}\"")));
                if told && !entry.text.contains("\"delta\":true") {
                    past.push(PastEvent {
                        time_ms: entry.time_ms,
                        event: entry.text,
                    });
                }
            }
        }
    }

    /// Reserves a place for a new session, if there is room and nobody was quicker.
    async fn reserve(&self, meta: Meta) -> Result<Reserved, SessionError> {
        let _one_at_a_time = self.0.room.lock().await;
        let store = &self.core().store;
        if let Some(client_id) = &meta.client_id
            && let Some(same) = store.find_by_client_id(client_id)?
        {
            return Ok(Reserved::Same(Box::new(same)));
        }
        if let Beginning::Session { id, fork: false } = &meta.beginning
            && let Some(ours) = store.find(id)?
        {
            return Ok(Reserved::Resumed(Box::new(ours)));
        }
        self.park_one_if_full().await?;
        store.save(&meta)?;
        self.activate(meta)?;
        Ok(Reserved::New)
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
                .filter(|view| view.status == Status::Idle && view.can_resume)
                .collect();
            idle.sort_by_key(|view| view.updated_at);
            idle.into_iter().next()
        };
        match idle {
            Some(view) => {
                let why = Some("another session needed its place".to_owned());
                self.call(&view.id, |reply| Ask::Park {
                    why: why.clone(),
                    reply,
                })
                .await
            }
            None => Err(SessionError::TooManySessions(most)),
        }
    }
}
