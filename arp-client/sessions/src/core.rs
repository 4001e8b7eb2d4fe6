//! What all sessions share: configuration, database, agents, the bus.

use crate::defaults;
use crate::error::SessionError;
use crate::hostprogram::HostProgram;
use crate::session::BusEvent;
use crate::store::Store;
use arp_agents::agent::{Agent, Launch};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;

/// How sessions are run.
#[derive(Debug, Clone)]
pub struct SessionsConfig {
    /// Where sessions are kept. Only its owner may enter it.
    pub data_dir: PathBuf,
    /// What to run as session host.
    pub host: HostProgram,
    /// May sessions run that ask nothing?
    pub allow_bypass: bool,
    /// Agents that may be alive at once.
    pub max_live: usize,
    /// An approval that nobody answers is denied after this; `None` waits for ever.
    pub approval_timeout: Option<Duration>,
    /// A session idle for this long is parked; `None` never is.
    pub park_after: Option<Duration>,
    /// Records of ended sessions are kept this long.
    pub keep_for: Duration,
    /// Logs of ended sessions may take this many bytes.
    pub keep_bytes: u64,
    /// So many of the newest are kept however old they are.
    pub keep_newest: usize,
}

impl SessionsConfig {
    /// The defaults.
    #[must_use]
    pub fn new(data_dir: PathBuf, host: HostProgram) -> Self {
        Self {
            data_dir,
            host,
            allow_bypass: false,
            max_live: defaults::MAX_LIVE,
            approval_timeout: Some(defaults::APPROVAL_TIMEOUT),
            park_after: Some(defaults::PARK_AFTER),
            keep_for: defaults::KEEP_FOR,
            keep_bytes: defaults::KEEP_BYTES,
            keep_newest: defaults::KEEP_NEWEST,
        }
    }

    pub(crate) fn session_dir(&self, id: &str) -> PathBuf {
        self.data_dir.join("sessions").join(id)
    }
}

/// An agent and where its binary is.
#[derive(Clone)]
pub struct FoundAgent {
    /// The agent.
    pub agent: Arc<dyn Agent>,
    /// Its binary.
    pub program: PathBuf,
}

/// An agent that is being looked for: its binary may have to be asked for its version.
pub type Finding<'a> = Pin<Box<dyn Future<Output = Result<FoundAgent, SessionError>> + Send + 'a>>;

/// A launch that is being changed.
pub type Preparing<'a> = Pin<Box<dyn Future<Output = Result<(), SessionError>> + Send + 'a>>;

/// Where agents come from.
pub trait AgentSource: Send + Sync {
    /// The agent of this name (any case). Fails with [`SessionError::UnknownAgent`],
    /// [`SessionError::AgentNotFound`] or [`SessionError::AgentTooOld`].
    fn find<'a>(&'a self, executor: &'a str) -> Finding<'a>;

    /// An agent for the replay of a log, where no binary is needed.
    fn known(&self, executor: &str) -> Option<Arc<dyn Agent>>;

    /// Changes the launch of a session's agent, just before its process is started: what it is given beside what the
    /// agent's driver wants. Nothing without.
    fn prepare<'a>(
        &'a self,
        _session: &'a str,
        _executor: &'a str,
        _launch: &'a mut Launch,
    ) -> Preparing<'a> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The executor for requests that name none.
    fn default_executor(&self) -> Option<String>;
}

/// A session of an agent's own history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastSession {
    /// The agent's id.
    pub id: String,
    /// Where it worked.
    pub project_path: PathBuf,
    /// Its first prompt.
    pub first_message: Option<String>,
    /// When it was last used, in milliseconds since 1970.
    pub used_ms: u64,
}

/// Something that happened in a session of an agent's own history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastEvent {
    /// When, in milliseconds since 1970; 0 if that is not known.
    pub time_ms: u64,
    /// The event as JSON text.
    pub event: String,
}

/// Who has a session of an agent open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: u32,
}

/// The agents' own histories, as far as sessions need them. Blocking calls.
pub trait PastSessions: Send + Sync {
    /// The session of this id.
    fn find(&self, executor: &str, id: &str) -> Option<PastSession>;

    /// The newest session of a directory.
    fn newest(&self, executor: &str, project_path: &Path) -> Option<PastSession>;

    /// The process that has this session open, as far as that can be told.
    fn holder(&self, executor: &str, id: &str) -> Option<Holder>;

    /// What happened in a session lately, oldest first.
    fn events(&self, executor: &str, id: &str) -> Vec<PastEvent>;

    /// Removes a session with all that belongs to it, `force` also if somebody has it open. One that is not there is
    /// removed already.
    ///
    /// # Errors
    /// [`SessionError::InUse`], or what else went wrong; then nothing was removed.
    fn delete(&self, executor: &str, id: &str, force: bool) -> Result<(), SessionError>;
}

/// No history.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPast;

impl PastSessions for NoPast {
    fn find(&self, _executor: &str, _id: &str) -> Option<PastSession> {
        None
    }

    fn newest(&self, _executor: &str, _project_path: &Path) -> Option<PastSession> {
        None
    }

    fn holder(&self, _executor: &str, _id: &str) -> Option<Holder> {
        None
    }

    fn events(&self, _executor: &str, _id: &str) -> Vec<PastEvent> {
        Vec::new()
    }

    fn delete(&self, _executor: &str, _id: &str, _force: bool) -> Result<(), SessionError> {
        Ok(())
    }
}

/// What all actors share.
pub(crate) struct Core {
    pub(crate) config: SessionsConfig,
    pub(crate) store: Store,
    pub(crate) agents: Arc<dyn AgentSource>,
    pub(crate) past: Arc<dyn PastSessions>,
    pub(crate) bus: broadcast::Sender<BusEvent>,
}

impl Core {
    /// Tells whoever listens.
    pub(crate) fn tell(&self, event: BusEvent) {
        // Nobody listens: fine.
        let _ = self.bus.send(event);
    }
}
