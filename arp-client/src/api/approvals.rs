//! `/api/approvals…`: what waits for a decision.

use super::error::ApiError;
use super::input::DecisionBody;
use super::request::Call;
use super::{Answer, State, ok, preview};
use arp_sessions::model::Resolution;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn list(state: &Arc<State>, call: &Call) -> Answer {
    let session = call.query.get("session_id").filter(|id| !id.is_empty());
    ok(&json!({"type": "approvals", "approvals": state.sessions.approvals(session)}))
}

/// One approval with what it would do to files, as they are now.
pub(super) async fn get(state: &Arc<State>, call: &Call) -> Answer {
    let id = call.param("approval_id");
    let found = state
        .sessions
        .approvals(None)
        .into_iter()
        .find(|view| view.approval.id == id);
    let Some(view) = found else {
        return Err(ApiError::from(state.sessions.why_not_waiting(id).await));
    };
    let roots = Arc::clone(&state.roots);
    let (view, files) = tokio::task::spawn_blocking(move || {
        let files = preview::files(&view.approval, view.project_path.as_deref(), |project| {
            roots.only(project)
        });
        (view, files)
    })
    .await
    .map_err(|error| ApiError::internal(format!("a look at files failed: {error}")))?;
    ok(&json!({"type": "approval", "approval": view, "files": files}))
}

pub(super) async fn decide(state: &Arc<State>, mut call: Call) -> Answer {
    let body: DecisionBody = call.json().await?;
    let resolution = state
        .sessions
        .decide(call.param("approval_id"), body.into_decision()?)
        .await?;
    ok(&resolved_json(&resolution))
}

/// The answer to a decision.
pub(super) fn resolved_json(resolution: &Resolution) -> Value {
    let mut told = json!({
        "type": "approval_resolved",
        "id": resolution.id,
        "session_id": resolution.session_id,
        "outcome": resolution.outcome,
        "message": resolution.message,
    });
    if let Some(edited) = &resolution.edited {
        told["edited"] = json!(edited);
    }
    told
}
