//! Why a request about a session was refused.

use arp_agents::agent::LaunchError;
use arp_agents::driver::CommandError;

/// Why a request about a session was refused. Each has a `code` for machines; the text is for people and
/// says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No such session.
    #[error("there is no session {0} on this machine; GET /api/sessions lists them")]
    NotFound(String),
    /// A field of the request is wrong.
    #[error("{0}")]
    BadRequest(String),
    /// The directory to work in is none.
    #[error("project_path {0} is not a directory on this machine; give an absolute path of one")]
    ProjectPath(String),
    /// The agent has no such ability.
    #[error("{0}")]
    Unsupported(String),
    /// The owner did not allow it.
    #[error("{0}")]
    BypassNotAllowed(String),
    /// No agent of this name is configured.
    #[error("there is no agent called {0}; GET /api/info lists the agents")]
    UnknownAgent(String),
    /// The agent's binary is not there.
    #[error("{0}")]
    AgentNotFound(String),
    /// The agent's binary is too old.
    #[error("{0}")]
    AgentTooOld(String),
    /// The agent's process could not be started.
    #[error("the agent could not be started: {0}")]
    AgentFailed(String),
    /// The session has ended and cannot go on.
    #[error("{0}")]
    CannotResume(String),
    /// Somebody else has it open.
    #[error("{0}")]
    InUse(String),
    /// The disk is full.
    #[error("the disk of this machine is full; make room, and try again")]
    DiskFull,
    /// Not in this state.
    #[error("{0}")]
    WrongState(String),
    /// Too many agents are alive.
    #[error("{0} sessions are running, which is the limit of this machine; cancel one or wait")]
    TooManySessions(usize),
    /// Too many messages wait.
    #[error("{0} messages are waiting in this session already; wait for it, or take some back")]
    QueueFull(usize),
    /// No such approval.
    #[error("there is no approval {0}; GET /api/approvals lists those that wait")]
    ApprovalNotFound(String),
    /// Somebody was quicker, or the agent no longer asks.
    #[error("approval {0} is decided already, or the agent no longer asks")]
    ApprovalResolved(String),
    /// No such message.
    #[error("there is no message {0} in the queue of this session")]
    MessageNotFound(String),
    /// It is with the agent already.
    #[error("message {0} was given to the agent already; interrupt the turn instead")]
    AlreadySent(String),
    /// The same id with another content.
    #[error("client_id {0} was used for something else before; make a new id for each message")]
    ClientIdReused(String),
    /// `arpc` is on its way out.
    #[error("arpc is stopping; try again when it is back")]
    ShuttingDown,
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

impl SessionError {
    /// The code for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "session_not_found",
            Self::BadRequest(_) => "bad_request",
            Self::ProjectPath(_) => "project_path_not_found",
            Self::Unsupported(_) => "unsupported",
            Self::BypassNotAllowed(_) => "bypass_not_allowed",
            Self::UnknownAgent(_) => "unknown_agent",
            Self::AgentNotFound(_) => "agent_not_found",
            Self::AgentTooOld(_) => "agent_too_old",
            Self::AgentFailed(_) => "agent_failed",
            Self::CannotResume(_) => "cannot_resume",
            Self::InUse(_) => "session_in_use",
            Self::DiskFull => "disk_full",
            Self::WrongState(_) => "wrong_state",
            Self::TooManySessions(_) => "too_many_sessions",
            Self::QueueFull(_) => "queue_full",
            Self::ApprovalNotFound(_) => "approval_not_found",
            Self::ApprovalResolved(_) => "approval_resolved",
            Self::MessageNotFound(_) => "message_not_found",
            Self::AlreadySent(_) => "already_sent",
            Self::ClientIdReused(_) => "client_id_reused",
            Self::ShuttingDown => "shutting_down",
            Self::Internal(_) => "internal",
        }
    }
}

impl From<LaunchError> for SessionError {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::Unsupported { .. } => Self::Unsupported(error.to_string()),
            LaunchError::Invalid { .. } => Self::BadRequest(error.to_string()),
            LaunchError::Forbidden(why) => Self::BypassNotAllowed(why),
        }
    }
}

impl From<CommandError> for SessionError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Unsupported(why) => Self::Unsupported(why),
            CommandError::Forbidden(why) => Self::BypassNotAllowed(why),
            CommandError::UnknownApproval(id) => Self::ApprovalNotFound(id),
            CommandError::WrongState(why) => Self::WrongState(why.to_owned()),
        }
    }
}

impl From<rusqlite::Error> for SessionError {
    fn from(error: rusqlite::Error) -> Self {
        if matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull)) {
            return Self::DiskFull;
        }
        Self::Internal(format!("the session database failed: {error}"))
    }
}

impl From<crate::log::LogError> for SessionError {
    fn from(error: crate::log::LogError) -> Self {
        if error.is_full() {
            return Self::DiskFull;
        }
        Self::Internal(error.to_string())
    }
}

impl From<std::io::Error> for SessionError {
    fn from(error: std::io::Error) -> Self {
        if crate::log::is_full(&error) {
            return Self::DiskFull;
        }
        Self::Internal(error.to_string())
    }
}
