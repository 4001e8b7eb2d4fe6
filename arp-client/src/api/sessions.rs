//! `/api/sessions…`: the handlers.

use super::error::ApiError;
use super::feed::{FeedRequest, Until};
use super::input::{self, ChangeBody, InterruptBody, MessageBody, NewSessionBody, RetryBody};
use super::request::{Call, Query};
use super::{Answer, State, json, ok, sse};
use arp_sessions::clock::rfc3339;
use arp_sessions::model::{Origin, Status};
use arp_sessions::read::{Entry, Sequence, Start};
use arp_sessions::store::Filter;
use arp_sessions::{Accepted, Created, Deleted, History, Removal};
use http::StatusCode;
use http::header::{HeaderValue, LOCATION};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;

/// A page of lines or events is cut at this many bytes.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

pub(super) fn list(state: &Arc<State>, call: &Call) -> Answer {
    let query = &call.query;
    let limit = query.limit("limit", 50, 500)?;
    let offset = query.parsed::<u64>("offset")?.unwrap_or(0);
    let filter = Filter {
        status: statuses(query.get("status"))?,
        executor: query
            .get("executor")
            .filter(|name| !name.is_empty())
            .map(str::to_lowercase),
        project_path: query
            .get("project_path")
            .filter(|path| !path.is_empty())
            .map(str::to_owned),
        text: query.get("q").filter(|text| !text.is_empty()).map(str::to_owned),
        limit: u64::try_from(limit).unwrap_or(u64::MAX),
        offset,
    };
    let (sessions, total) = state.sessions.list(&filter)?;
    let sessions: Vec<Value> = sessions
        .iter()
        .map(|session| super::gateway::joined(state, session))
        .collect();
    ok(&json!({"type": "sessions", "sessions": sessions, "total": total, "limit": limit, "offset": offset}))
}

fn statuses(given: Option<&str>) -> Result<Vec<Status>, ApiError> {
    let mut wanted = Vec::new();
    for name in given
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        if name == "live" {
            wanted.extend(Status::ALL.into_iter().filter(|status| status.is_live()));
            continue;
        }
        let status = Status::ALL.into_iter().find(|status| status.name() == name);
        wanted.push(status.ok_or_else(|| ApiError::bad_query(format!("there is no status {name:?}")))?);
    }
    Ok(wanted)
}

pub(super) async fn create(state: &Arc<State>, mut call: Call) -> Answer {
    let body: NewSessionBody = call.json().await?;
    start(state, &call, body).await
}

pub(super) async fn fork(state: &Arc<State>, mut call: Call) -> Answer {
    let body: NewSessionBody = call.json().await?;
    let body = body.forking(call.param("id"));
    start(state, &call, body).await
}

async fn start(state: &Arc<State>, call: &Call, body: NewSessionBody) -> Answer {
    let stream = body.stream || call.accepts_sse();
    let origin = match call.header("x-arp-origin") {
        Some("cli") => Origin::Cli,
        _ => Origin::Api,
    };
    let wanted = body.into_new_session(state.config.default_path.clone(), origin)?;
    let has_prompt = wanted.prompt.is_some();
    let sequence = input::sequence(call)?;
    let Created { session, existed } = state.start_session(wanted, call.starter()).await?;
    let status = if existed {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let mut response = if stream {
        let follower = state.sessions.follow(&session.id)?;
        let turns = u64::from(has_prompt && !existed).max(session.turns);
        let from = match sequence {
            _ if !existed => 1,
            Sequence::Lines => session.total_lines + 1,
            Sequence::Events => session.last_seq + 1,
        };
        let request = input::stream(call, sequence, &session, Start::At(from), Until::Turn(turns))?;
        sse::session(state, follower, request, status)
    } else {
        json(
            status,
            &json!({"type": "session_started", "session_id": session.id, "session": super::gateway::joined(state, &session)}),
        )?
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&session.id) {
        headers.insert("x-session-id", id);
    }
    // Relative to the request's own path, whatever prefix it came by.
    let last = if call.head.uri.path().ends_with("/fork") {
        "../"
    } else {
        "sessions/"
    };
    let place = if call.head.uri.path().ends_with('/') {
        ""
    } else {
        last
    };
    if let Ok(location) = HeaderValue::from_str(&format!("{place}{}", session.id)) {
        headers.insert(LOCATION, location);
    }
    Ok(response)
}

pub(super) async fn get(state: &Arc<State>, call: &Call) -> Answer {
    let id = call.param("id");
    let session = match state.sessions.get(id) {
        Ok(session) => session,
        Err(error) => return Err(super::history::hint(state, id, error.into()).await),
    };
    let sequence = input::sequence(call)?;
    if call.accepts_sse() || call.query.flag("stream")? {
        let request = input::stream(call, sequence, &session, Start::At(1), Until::End)?;
        return Ok(sse::session(
            state,
            state.sessions.follow(&session.id)?,
            request,
            StatusCode::OK,
        ));
    }
    let limit = match call.query.get("lines") {
        Some("none") => 0,
        _ => call.query.limit("limit", 1000, 10_000)?,
    };
    if sequence == Sequence::Events {
        let since = call.query.parsed::<u64>("since")?.unwrap_or(0);
        let (entries, more) = page(state, &session.id, sequence, since.saturating_add(1), limit).await?;
        let next = entries.last().map_or(since, |entry| entry.number);
        let events = raw_events(&entries)?;
        return ok(&Page {
            kind: "session",
            head: json!({"session_id": session.id, "session": super::gateway::joined(state, &session), "next_since": next, "has_more": more}),
            events: Some(events),
            lines: None,
        });
    }
    let from = call.query.parsed::<u64>("from_line")?.unwrap_or(1).max(1);
    let (entries, more) = page(state, &session.id, sequence, from, limit).await?;
    let next = entries.last().map_or(from, |entry| entry.number + 1);
    let lines = entries
        .into_iter()
        .map(|entry| json!({"line": entry.number, "at": rfc3339(entry.time_ms), "data": entry.text}))
        .collect();
    ok(&Page {
        kind: "session",
        head: json!({
            "session_id": session.id, "session": super::gateway::joined(state, &session), "from_line": from, "next_line": next, "has_more": more,
        }),
        events: None,
        lines: Some(lines),
    })
}

/// An object with a page of a sequence in it, as it is on disk.
#[derive(serde::Serialize)]
struct Page {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    head: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<Vec<Box<RawValue>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Vec<Value>>,
}

fn raw_events(entries: &[Entry]) -> Result<Vec<Box<RawValue>>, ApiError> {
    entries
        .iter()
        .map(|entry| RawValue::from_string(entry.event_json()))
        .collect::<Result<_, _>>()
        .map_err(|error| ApiError::internal(format!("an event on disk is not JSON: {error}")))
}

/// Entries from a number on, and whether there are more.
async fn page(
    state: &Arc<State>,
    id: &str,
    sequence: Sequence,
    from: u64,
    limit: usize,
) -> Result<(Vec<Entry>, bool), ApiError> {
    let cursor = state.sessions.read(id, sequence, from)?;
    if limit == 0 {
        let (_, read) = cursor.page(1, 1).await;
        return Ok((Vec::new(), !read?.is_empty()));
    }
    let (cursor, read) = cursor.page(limit, PAGE_BYTES).await;
    let entries = read?;
    let (_, rest) = cursor.page(1, 1).await;
    Ok((entries, !rest?.is_empty()))
}

pub(super) async fn events(state: &Arc<State>, call: &Call) -> Answer {
    let session = state.sessions.get(call.param("id"))?;
    let limit = call.query.limit("limit", 200, 2000)?;
    let before = match call.query.get("before") {
        None | Some("") => None,
        Some("latest") => Some(session.last_seq + 1),
        Some(_) => call.query.parsed::<u64>("before")?,
    };
    let (entries, more) = match before {
        Some(before) => page_before(state, &session.id, before.min(session.last_seq + 1), limit).await?,
        None => {
            let from = call.query.parsed::<u64>("since")?.unwrap_or(0).saturating_add(1);
            page(state, &session.id, Sequence::Events, from, limit).await?
        }
    };
    let numbers = (
        entries.first().map(|entry| entry.number),
        entries.last().map(|entry| entry.number),
    );
    ok(&Page {
        kind: "events",
        head: json!({"session_id": session.id, "first_seq": numbers.0, "last_seq": numbers.1, "has_more": more}),
        events: Some(raw_events(&entries)?),
        lines: None,
    })
}

/// The last events before a number, and whether there are some before those. Numbers have gaps where fragments
/// were folded, so it is looked further back until there are enough.
async fn page_before(
    state: &Arc<State>,
    id: &str,
    before: u64,
    limit: usize,
) -> Result<(Vec<Entry>, bool), ApiError> {
    let mut window = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
    loop {
        let from = before.saturating_sub(window).max(1);
        let mut cursor = state.sessions.read(id, Sequence::Events, from)?;
        let mut kept: VecDeque<Entry> = VecDeque::new();
        let (mut size, mut dropped) = (0, false);
        'reading: loop {
            let (next, read) = cursor.batch().await;
            cursor = next;
            let entries = read?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                if entry.number >= before {
                    break 'reading;
                }
                size += entry.text.len();
                kept.push_back(entry);
                while kept.len() > limit.max(1) || (size > PAGE_BYTES && kept.len() > 1) {
                    size -= kept.pop_front().map_or(0, |entry| entry.text.len());
                    dropped = true;
                }
            }
        }
        if dropped || kept.len() >= limit || from == 1 {
            let more = dropped || from > 1;
            return Ok((kept.into(), more));
        }
        window = window.saturating_mul(4);
    }
}

pub(super) async fn message(state: &Arc<State>, mut call: Call) -> Answer {
    let body: MessageBody = call.json().await?;
    let id = state.sessions.get(call.param("id"))?.id.clone();
    let stream = body.stream || call.accepts_sse();
    let sequence = input::sequence(&call)?;
    let interrupt = body.interrupt;
    let (text, client_id) = body.parts()?;
    let before = state.sessions.get(&id)?;
    let accepted = state.sessions.message(&id, text, client_id, interrupt).await?;
    if stream {
        let turns = if accepted.duplicate {
            before.turns
        } else {
            accepted.turns + 1
        };
        let before_it = if sequence == Sequence::Lines {
            accepted.tail.lines
        } else {
            accepted.tail.seq
        };
        let from = Start::At(before_it + 1);
        let request: FeedRequest = input::stream(&call, sequence, &before, from, Until::Turn(turns))?;
        return Ok(sse::session(
            state,
            state.sessions.follow(&id)?,
            request,
            StatusCode::OK,
        ));
    }
    let status = if accepted.duplicate {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    json(status, &accepted_json(&id, &accepted))
}

/// The answer to a message.
pub(super) fn accepted_json(session_id: &str, accepted: &Accepted) -> Value {
    json!({
        "type": "message_accepted",
        "session_id": session_id,
        "message": accepted.message,
        "duplicate": accepted.duplicate,
    })
}

pub(super) async fn unqueue(state: &Arc<State>, call: &Call) -> Answer {
    let id = state.sessions.get(call.param("id"))?.id.clone();
    let message_id = call.param("message_id");
    state.sessions.unqueue(&id, message_id).await?;
    ok(&json!({"type": "message_removed", "session_id": id, "message_id": message_id}))
}

pub(super) async fn interrupt(state: &Arc<State>, mut call: Call) -> Answer {
    let body: InterruptBody = call.json().await?;
    let id = state.sessions.get(call.param("id"))?.id.clone();
    let was_running = state.sessions.interrupt(&id, body.clear_queue).await?;
    json(
        StatusCode::ACCEPTED,
        &json!({"type": "session_interrupted", "session_id": id, "was_running": was_running}),
    )
}

pub(super) async fn cancel(state: &Arc<State>, mut call: Call) -> Answer {
    let _: serde::de::IgnoredAny = call.json().await?;
    let id = state.sessions.get(call.param("id"))?.id.clone();
    let session = state.sessions.cancel(&id).await?;
    let session = super::gateway::joined(state, &session);
    ok(&json!({"type": "session_cancelled", "session_id": id, "session": session}))
}

pub(super) async fn patch(state: &Arc<State>, mut call: Call) -> Answer {
    let body: ChangeBody = call.json().await?;
    let id = state.sessions.get(call.param("id"))?.id.clone();
    let session = state.sessions.set(&id, body.into_change()?).await?;
    let session = super::gateway::joined(state, &session);
    ok(&json!({"type": "session", "session_id": id, "session": session}))
}

pub(super) async fn delete(state: &Arc<State>, call: &Call) -> Answer {
    let removal = removal(&call.query)?;
    let id = state.sessions.get(call.param("id"))?.id.clone();
    let (kind, history) = match state.sessions.delete(&id, removal).await? {
        Deleted::Cancelled => ("session_cancelled", "kept"),
        Deleted::Deleted => ("session_deleted", "deleted"),
        Deleted::Removed => ("session_removed", "kept"),
    };
    ok(&json!({"type": kind, "session_id": id, "history": history}))
}

/// What is to go. A word that is not understood removes nothing: it may have been meant to keep something.
fn removal(query: &Query) -> Result<Removal, ApiError> {
    query.only(&["force", "history", "keep_history"])?;
    let history = match (query.get("history"), query.flag("keep_history")?) {
        (Some("delete"), false) => History::Delete,
        (Some("delete"), true) => {
            return Err(ApiError::bad_query(
                "\"history=delete\" and \"keep_history\" contradict each other; give one",
            ));
        }
        (Some("keep"), _) | (None, true) => History::Keep,
        (None, false) => History::IfOurs,
        (Some(other), _) => {
            return Err(ApiError::bad_query(format!(
                "\"history\" is delete or keep, not {other:?}"
            )));
        }
    };
    Ok(Removal {
        force: query.flag("force")?,
        history,
    })
}

pub(super) async fn retry(state: &Arc<State>, mut call: Call) -> Answer {
    let body: RetryBody = call.json().await?;
    let id = state.sessions.get(call.param("id"))?.id.clone();
    let accepted = state.sessions.retry(&id, body.id()?).await?;
    json(StatusCode::ACCEPTED, &accepted_json(&id, &accepted))
}
