//! Input of the endpoints: bodies, frames and stream parameters, checked and turned into what they ask for.

use super::error::ApiError;
use super::feed::{FeedRequest, Until};
use super::request::{Call, snake_object};
use arp_agents::driver::{Decision, PermissionMode};
use arp_sessions::model::{Origin, SessionView};
use arp_sessions::read::{Sequence, Start};
use arp_sessions::{Change, NewSession};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The body of `POST /api/sessions` and `…/fork`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NewSessionBody {
    executor: Option<String>,
    prompt: Option<String>,
    project_path: Option<String>,
    model: Option<String>,
    resume: Option<String>,
    resume_last: bool,
    fork: bool,
    permission_mode: Option<String>,
    approval_mode: Option<String>,
    allowed_tools: Vec<String>,
    title: Option<String>,
    client_id: Option<String>,
    pub(crate) stream: bool,
}

impl NewSessionBody {
    /// What the session manager is asked for.
    pub(crate) fn into_new_session(
        self,
        default_path: PathBuf,
        origin: Origin,
    ) -> Result<NewSession, ApiError> {
        let mode = match (self.permission_mode.as_deref(), self.approval_mode.as_deref()) {
            (None, None) => None,
            (Some(mode), None) | (None, Some(mode)) => Some(permission_mode(mode)?),
            (Some(one), Some(other)) => {
                let mode = permission_mode(one)?;
                if permission_mode(other)? != mode {
                    return Err(ApiError::bad_request(
                        "\"permission_mode\" and \"approval_mode\" contradict each other; give one",
                    ));
                }
                Some(mode)
            }
        };
        Ok(NewSession {
            executor: filled(self.executor),
            prompt: self.prompt,
            project_path: filled(self.project_path).map(PathBuf::from).map(in_home),
            default_path,
            model: filled(self.model),
            resume: filled(self.resume),
            resume_last: self.resume_last,
            fork: self.fork,
            permission_mode: mode,
            allowed_tools: self.allowed_tools,
            title: filled(self.title),
            client_id: client_id(self.client_id)?,
            origin,
        })
    }

    /// `…/fork`: a copy of this session.
    pub(crate) fn forking(mut self, id: &str) -> Self {
        self.resume = Some(id.to_owned());
        self.resume_last = false;
        self.fork = true;
        self
    }
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}

fn client_id(id: Option<String>) -> Result<Option<String>, ApiError> {
    match filled(id) {
        Some(id) if id.len() > 200 => Err(ApiError::bad_request("\"client_id\" has more than 200 bytes")),
        id => Ok(id),
    }
}

/// `~/x` as a path in the home directory.
pub(crate) fn in_home(path: PathBuf) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

/// A permission mode by our name or by one of the agents' own.
pub(crate) fn permission_mode(name: &str) -> Result<PermissionMode, ApiError> {
    let plain: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    Ok(match plain.as_str() {
        "default" | "manual" | "ask" | "untrusted" | "unlesstrusted" | "onrequest" => PermissionMode::Default,
        "acceptedits" | "autoedit" | "auto" => PermissionMode::AcceptEdits,
        "plan" | "readonly" => PermissionMode::Plan,
        "bypasspermissions"
        | "bypass"
        | "yolo"
        | "never"
        | "dangerfullaccess"
        | "fullauto"
        | "dangerouslyskippermissions"
        | "dangerouslybypassapprovalsandsandbox" => PermissionMode::BypassPermissions,
        _ => {
            return Err(ApiError::bad_request(format!(
                "there is no permission mode {name:?}; there are default, acceptEdits, plan and bypassPermissions"
            )));
        }
    })
}

/// The body of `POST …/messages`, and a `message` frame.
#[derive(Debug, Deserialize)]
pub(crate) struct MessageBody {
    #[serde(alias = "prompt", alias = "message")]
    text: String,
    #[serde(default)]
    client_id: Option<String>,
    #[serde(default)]
    pub(crate) interrupt: bool,
    #[serde(default)]
    pub(crate) stream: bool,
}

impl MessageBody {
    /// Text and idempotency id.
    pub(crate) fn parts(self) -> Result<(String, Option<String>), ApiError> {
        Ok((self.text, client_id(self.client_id)?))
    }
}

/// The body of `PATCH /api/sessions/{id}`, and a `set` frame.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ChangeBody {
    model: Option<String>,
    permission_mode: Option<String>,
    title: Option<String>,
}

impl ChangeBody {
    /// What is to be changed.
    pub(crate) fn into_change(self) -> Result<Change, ApiError> {
        Ok(Change {
            model: filled(self.model),
            permission_mode: self.permission_mode.as_deref().map(permission_mode).transpose()?,
            title: self.title,
        })
    }
}

/// The body of `POST …/retry`, and a `retry` frame.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RetryBody {
    client_id: Option<String>,
}

impl RetryBody {
    /// The idempotency id.
    pub(crate) fn id(self) -> Result<Option<String>, ApiError> {
        client_id(self.client_id)
    }
}

/// The body of `POST …/interrupt`, and an `interrupt` frame.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct InterruptBody {
    pub(crate) clear_queue: bool,
}

/// The body of `POST /api/approvals/{id}`, and a `decide` frame.
#[derive(Debug, Deserialize)]
pub(crate) struct DecisionBody {
    decision: String,
    #[serde(default)]
    for_session: bool,
    #[serde(default)]
    updated_input: Option<Value>,
    #[serde(default)]
    answers: BTreeMap<String, String>,
    #[serde(default)]
    permission_mode: Option<String>,
    #[serde(default, alias = "reason")]
    message: Option<String>,
    #[serde(default)]
    interrupt: bool,
}

impl DecisionBody {
    /// What is decided.
    pub(crate) fn into_decision(self) -> Result<Decision, ApiError> {
        match self.decision.to_ascii_lowercase().as_str() {
            "allow" | "approve" | "accept" => Ok(Decision::Allow {
                for_session: self.for_session,
                updated_input: self.updated_input,
                answers: self.answers,
                permission_mode: self.permission_mode.as_deref().map(permission_mode).transpose()?,
            }),
            "deny" | "reject" | "decline" => Ok(Decision::Deny {
                message: filled(self.message),
                interrupt: self.interrupt,
            }),
            other => Err(ApiError::bad_request(format!(
                "\"decision\" is allow or deny, not {other:?}"
            ))),
        }
    }
}

/// The fields of a frame as one of the bodies above.
pub(crate) fn frame_as<T: serde::de::DeserializeOwned>(frame: Map<String, Value>) -> Result<T, ApiError> {
    serde_json::from_value(Value::Object(snake_object(frame)?))
        .map_err(|error| ApiError::bad_request(format!("the frame does not fit: {error}")))
}

/// Which of the two sequences a request is about.
pub(crate) fn sequence(call: &Call) -> Result<Sequence, ApiError> {
    match call.query.get("format") {
        None | Some("" | "raw" | "lines") => Ok(Sequence::Lines),
        Some("events") => Ok(Sequence::Events),
        Some(other) => Err(ApiError::bad_query(format!(
            "\"format\" is raw or events, not {other:?}"
        ))),
    }
}

/// The stream that a request asks for. `until` is what counts without a word about it.
pub(crate) fn stream(
    call: &Call,
    sequence: Sequence,
    view: &SessionView,
    from: Start,
    until: Until,
) -> Result<FeedRequest, ApiError> {
    let query = &call.query;
    let mut request = FeedRequest {
        sequence,
        from,
        until,
    };
    if let Some(first) = query
        .parsed::<u64>("from_line")?
        .filter(|_| sequence == Sequence::Lines)
    {
        request.from = Start::At(first);
    }
    if sequence == Sequence::Events {
        match query.get("since") {
            None | Some("") => {}
            // What the session object, which comes first, does not tell yet.
            Some("latest") => request.from = Start::At(view.last_seq + 1),
            Some(_) => {
                request.from = Start::At(query.parsed::<u64>("since")?.unwrap_or(0).saturating_add(1));
            }
        }
    }
    if let Some(tail) = query.parsed::<u64>("tail")? {
        request.from = Start::Last(tail);
    }
    // The last one seen; a browser sends it when it comes back.
    if let Some(last) = call
        .header("last-event-id")
        .and_then(|id| id.trim().parse::<u64>().ok())
    {
        request.from = Start::At(last.saturating_add(1));
    }
    match query.get("until") {
        None | Some("") => {}
        Some("end") => request.until = Until::End,
        Some("turn") => {
            if !matches!(request.until, Until::Turn(_)) {
                request.until = Until::Turn(view.turns);
            }
        }
        Some(other) => {
            return Err(ApiError::bad_query(format!(
                "\"until\" is turn or end, not {other:?}"
            )));
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_known_by_the_names_of_all_agents() {
        for (name, mode) in [
            ("auto_edit", PermissionMode::AcceptEdits),
            ("danger-full-access", PermissionMode::BypassPermissions),
            ("bypassPermissions", PermissionMode::BypassPermissions),
            ("YOLO", PermissionMode::BypassPermissions),
            ("on-request", PermissionMode::Default),
        ] {
            assert_eq!(permission_mode(name).unwrap(), mode);
        }
        assert!(permission_mode("whatever").is_err());
    }
}
