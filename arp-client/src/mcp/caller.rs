//! Who calls the MCP server.

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
}
