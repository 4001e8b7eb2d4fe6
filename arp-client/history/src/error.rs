//! What can go wrong.

use crate::AgentKind;
use std::io;

/// Why history was not given, or not deleted.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// No session of that id is on disk.
    #[error("{agent} has no session {id} on this machine")]
    UnknownSession {
        /// Whose.
        agent: AgentKind,
        /// The id that was asked for.
        id: String,
    },
    /// The agent has no home on this machine.
    #[error("{0} has no history on this machine; it appears once the agent has run")]
    NoHome(AgentKind),
    /// The session is open in a running agent and deletion was not forced.
    #[error("session {id} is in use by a running {agent}; end it first, or delete with force")]
    Live {
        /// Whose.
        agent: AgentKind,
        /// Which.
        id: String,
    },
    /// The session's file was gone or was replaced while it was being read.
    #[error("the session's file changed while it was read; ask again")]
    Changed,
    /// The index cannot be kept.
    #[error("the history index failed: {0}")]
    Index(#[from] rusqlite::Error),
    /// A file cannot be read or removed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl HistoryError {
    /// A stable code for the `code` field of the HTTP error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownSession { .. } => "session_not_found",
            Self::NoHome(_) => "no_history",
            Self::Live { .. } => "session_live",
            Self::Changed => "session_changed",
            Self::Index(_) => "index_error",
            Self::Io { .. } => "io_error",
        }
    }

    /// The HTTP status that fits.
    pub fn status(&self) -> u16 {
        match self {
            Self::UnknownSession { .. } | Self::NoHome(_) => 404,
            Self::Live { .. } | Self::Changed => 409,
            Self::Index(_) | Self::Io { .. } => 500,
        }
    }

    pub(crate) fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
