//! The MCP server.

use crate::api::State;
use crate::command::{CommandError, McpConfig};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) async fn listen(
    _state: &Arc<State>,
    config: McpConfig,
    _tasks: &TaskTracker,
    _stop: &CancellationToken,
) -> Result<SocketAddr, CommandError> {
    Ok(SocketAddr::from(([127, 0, 0, 1], config.port)))
}
