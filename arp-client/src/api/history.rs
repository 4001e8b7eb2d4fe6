//! `/api/{agent}/…`: what the agents keep on disk.

use super::error::ApiError;
use super::input;
use super::request::Call;
use super::{Answer, State, ok};
use arp_history::{AgentKind, Filter, History, HistoryError, Page, SessionFilter};
use arp_sessions::Removal;
use arp_sessions::read::Sequence;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Lines of a page without a word about it.
const PAGE: usize = 1000;
/// Room for the events of one record in their numbers.
const PER_RECORD: u64 = 4096;

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(%error, "the history failed");
        }
        Self::new(status, error.code(), error.to_string())
    }
}

fn agent(call: &Call) -> Result<AgentKind, ApiError> {
    let name = call.param("agent");
    name.parse().map_err(|_| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "unknown_agent",
            "there is no history of such an agent; there are claude, codex and gemini",
        )
    })
}

/// Runs what blocks.
async fn blocking<T: Send + 'static>(
    state: &Arc<State>,
    read: impl FnOnce(&History) -> Result<T, HistoryError> + Send + 'static,
) -> Result<T, ApiError> {
    let history = Arc::clone(&state.history);
    tokio::task::spawn_blocking(move || read(&history))
        .await
        .map_err(|error| ApiError::internal(format!("a look into the history failed: {error}")))?
        .map_err(ApiError::from)
}

pub(super) async fn projects(state: &Arc<State>, call: &Call) -> Answer {
    let agent = agent(call)?;
    let (limit, offset) = (
        call.query.parsed("limit")?,
        call.query.parsed("offset")?.unwrap_or(0),
    );
    let projects = blocking(state, move |history| history.projects(agent, limit, offset)).await;
    match projects {
        // An agent that never ran has no projects.
        Err(error) if error.code == "no_history" => {
            ok(&json!({"type": "projects", "projects": [], "total": 0}))
        }
        projects => ok(&projects?),
    }
}

pub(super) async fn directories(state: &Arc<State>, call: &Call) -> Answer {
    let agent = agent(call)?;
    match blocking(state, move |history| history.working_directories(agent)).await {
        Err(error) if error.code == "no_history" => ok(&json!({"directories": [], "total": 0})),
        directories => ok(&directories?),
    }
}

pub(super) async fn list(state: &Arc<State>, call: &Call) -> Answer {
    let agent = agent(call)?;
    let limit = call.query.limit("limit", 50, 1000)?;
    let offset = call.query.parsed::<usize>("offset")?.unwrap_or(0);
    let project_id = Some(call.param("project_id")).filter(|id| !id.is_empty());
    let filter = SessionFilter {
        project_path: call
            .query
            .get("project_path")
            .filter(|path| !path.is_empty())
            .map(str::to_owned),
        project_id: project_id.map(str::to_owned),
        limit: Some(limit),
        offset,
    };
    let listed = blocking(state, move |history| history.sessions(agent, &filter)).await;
    let (sessions, total) = match listed {
        Err(error) if error.code == "no_history" => (Vec::new(), 0),
        listed => {
            let listed = listed?;
            (listed.sessions, listed.total)
        }
    };
    let sessions: Vec<Value> = sessions
        .iter()
        .map(|session| {
            let mut value = serde_json::to_value(session).unwrap_or_default();
            if let Some(id) = ours(state, &session.id) {
                value["live_session_id"] = json!(id);
            }
            value
        })
        .collect();
    ok(&json!({"type": "sessions", "sessions": sessions, "total": total, "limit": limit, "offset": offset}))
}

/// Our id of the session that runs this one, if one does.
fn ours(state: &Arc<State>, agent_session_id: &str) -> Option<String> {
    let session = state.sessions.get(agent_session_id).ok()?;
    session.status.is_live().then(|| session.id.clone())
}

#[derive(Serialize)]
struct Messages<'a> {
    #[serde(flatten)]
    page: &'a arp_history::RawPage,
    offset: u64,
    next_offset: Option<u64>,
}

pub(super) async fn get(state: &Arc<State>, call: &Call) -> Answer {
    let (agent, id) = (agent(call)?, call.param("id").to_owned());
    let from = call.query.parsed::<u64>("offset")?.unwrap_or(0);
    let page = Page {
        from,
        limit: call
            .query
            .limit("limit", PAGE, arp_history::MAX_PAGE_LINES)?
            .max(1),
    };
    if input::sequence(call)? == Sequence::Lines {
        let filter = if call.query.flag("conversation")? {
            Filter::Conversation
        } else {
            Filter::Everything
        };
        let page = blocking(state, move |history| history.messages(agent, &id, page, filter)).await?;
        return ok(&Messages {
            offset: from,
            next_offset: page.next,
            page: &page,
        });
    }
    let page = blocking(state, move |history| history.events(agent, &id, page)).await?;
    let mut last = (u64::MAX, 0);
    let events: Vec<Value> = page
        .events
        .iter()
        .map(|event| {
            last = if last.0 == event.line {
                (event.line, last.1 + 1)
            } else {
                (event.line, 0)
            };
            let mut value = serde_json::to_value(&event.event).unwrap_or_default();
            value["seq"] = json!(event.line * PER_RECORD + last.1 + 1);
            value["at"] = json!(event.timestamp);
            value["line"] = json!(event.line);
            value
        })
        .collect();
    ok(&json!({
        "type": "session_history",
        "session_id": page.session_id,
        "events": events,
        "offset": from,
        "next_offset": page.next,
        "total_lines": page.total_lines,
    }))
}

pub(super) async fn delete(state: &Arc<State>, call: &Call) -> Answer {
    let (agent, id) = (agent(call)?, call.param("id").to_owned());
    call.query.only(&["force"])?;
    let force = call.query.flag("force")?;
    // One of another agent is not what is meant, whatever its number.
    let ours = state.sessions.get(&id).ok();
    if let Some(session) = ours.filter(|session| session.executor.parse() == Ok(agent)) {
        if session.status.is_busy() && !force {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                "session_live",
                format!(
                    "a turn of it runs in session {} of this machine; wait for it, cancel it, or delete with force=true",
                    session.id
                ),
            ));
        }
        // With our record, which would resume what is gone; one that is idle is ended first.
        let removal = Removal {
            force,
            history: arp_sessions::History::Delete,
        };
        state.sessions.delete(&session.id, removal).await?;
        return ok(&json!({"type": "session_deleted", "session_id": id, "removed": []}));
    }
    ok(&blocking(state, move |history| history.delete(agent, &id, force)).await?)
}

/// An id that is no session of ours may be one of an agent's history: then the answer says where that is.
pub(super) async fn hint(state: &Arc<State>, id: &str, error: ApiError) -> ApiError {
    if error.code != "session_not_found" {
        return error;
    }
    let wanted = id.to_owned();
    match blocking(state, move |history| history.find(&wanted)).await {
        Ok(Some(session)) => ApiError::new(
            StatusCode::NOT_FOUND,
            "not_live",
            format!(
                "session {id} is not running here; read it at /api/{}/sessions/{id}, or go on with it by \
                 POST /api/sessions with \"resume\"",
                session.agent
            ),
        ),
        _ => error,
    }
}
