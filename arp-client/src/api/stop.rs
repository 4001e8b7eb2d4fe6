//! `POST /api/stop`: `arpc stop` asks the running daemon to stop.

use super::error::ApiError;
use super::request::Call;
use super::{Answer, State, json};
use crate::command::{PeerInfo, Via};
use arp_sessions::Leaving;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StopBody {
    /// End the agents too; the next message resumes their sessions.
    park: bool,
}

pub(super) async fn stop(state: &Arc<State>, peer: PeerInfo, mut call: Call) -> Answer {
    if peer.via != Via::Local {
        // Whoever holds a token may use the sessions, not end the daemon.
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "local_only",
            "arpc is stopped on its own machine, by `arpc stop`",
        ));
    }
    let body: StopBody = call.json().await?;
    let leaving = if body.park { Leaving::Park } else { Leaving::RunOn };
    state.leaving.send_replace(Some(leaving));
    json(
        StatusCode::ACCEPTED,
        &json!({"type": "stopping", "parks": body.park, "pid": std::process::id()}),
    )
}
