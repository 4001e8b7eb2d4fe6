//! Who calls the MCP server.

use arp_sessions::Steering;
use serde::{Deserialize, Serialize};

/// Who calls, as far as it is told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Caller {
    /// The agent.
    pub(crate) executor: Option<String>,
    /// Its own id of its session.
    pub(crate) session: Option<String>,
    /// Where it works.
    pub(crate) project: Option<String>,
    /// Our id of the session whose process it is, by the system's word and not its own.
    #[serde(skip)]
    pub(crate) proven: Option<String>,
}

impl Caller {
    /// Who this is when it comes to what it may do.
    pub(crate) fn steering(&self) -> Steering<'_> {
        match &self.proven {
            Some(id) => Steering::Session(id),
            None => Steering::Says(self.session.as_deref()),
        }
    }
}
