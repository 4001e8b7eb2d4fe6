//! `/api/gateway…`: the gateway's own API, for whoever may use this one; and a session's part of it.

use super::body::Body;
use super::error::ApiError;
use super::request::{BODY_TIMEOUT, Call, MAX_BODY};
use super::{Answer, State};
use crate::command::gateway::{Gateway, ask, reachable};
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::sync::Arc;

/// Is this a path of the gateway's API?
pub(super) fn is_path(path: &str) -> bool {
    path.strip_prefix("/api/gateway")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn gateway(state: &State) -> Result<&Arc<Gateway>, ApiError> {
    state.gateway.as_ref().ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "gateway_off",
            "this arpc does not use the gateway; the owner of the machine can start it with --gateway",
        )
    })
}

pub(super) async fn pass(state: &Arc<State>, head: Parts, body: Incoming) -> Answer {
    let path = head
        .uri
        .path_and_query()
        .map_or("/api/gateway", |path| path.as_str())
        .to_owned();
    let body = read(body).await?;
    exchange(state, &head, head.method.clone(), &path, body).await
}

async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    let reading = Limited::new(body, MAX_BODY).collect();
    match tokio::time::timeout(BODY_TIMEOUT, reading).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(ApiError::bad_request("the body broke off, or is too long")),
        Err(_) => Err(ApiError::bad_request("the body did not arrive in time")),
    }
}

/// `GET` and `PUT /api/sessions/{id}/gateway`.
pub(super) async fn session(state: &Arc<State>, call: Call) -> Answer {
    // Our id, where the agent's was given.
    let id = state.sessions.get(call.param("id"))?.id.clone();
    let path = format!(
        "/api/gateway/sessions/{}",
        utf8_percent_encode(&id, NON_ALPHANUMERIC)
    );
    let Call { head, body, .. } = call;
    let body = read(body).await?;
    exchange(state, &head, head.method.clone(), &path, body).await
}

async fn exchange(state: &Arc<State>, head: &Parts, method: Method, path: &str, body: Bytes) -> Answer {
    let not_running = |why: String| {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "gateway_not_running",
            format!("the gateway does not run ({why}); the next session starts it, or `arpc gateway start`"),
        )
    };
    let running = gateway(state)?
        .running()
        .await
        .map_err(|error| not_running(error.to_string()))?;
    let running = running.ok_or_else(|| not_running("no process holds its lock".into()))?;
    let mut request = Request::builder().method(method).uri(path);
    for name in [ACCEPT, CONTENT_TYPE] {
        if let Some(value) = head.headers.get(&name) {
            request = request.header(name, value);
        }
    }
    let response = ask(reachable(running.ui), request, body).await;
    let response = response.map_err(|error| not_running(error.to_string()))?;
    let (answer, body) = response.into_parts();
    let mut out: Response<Body> = Response::new(body.map_err(Into::into).boxed_unsync());
    *out.status_mut() = answer.status;
    for name in [CONTENT_TYPE, CACHE_CONTROL] {
        if let Some(value) = answer.headers.get(&name) {
            out.headers_mut().insert(name, value.clone());
        }
    }
    out.headers_mut()
        .insert("x-accel-buffering", http::HeaderValue::from_static("no"));
    Ok(out)
}

/// A session's object with what the gateway knows of it.
pub(super) fn joined(state: &State, session: &impl serde::Serialize) -> Value {
    joined_by(state.gateway.as_deref(), session)
}

/// The same, with this gateway.
pub(super) fn joined_by(gateway: Option<&Gateway>, session: &impl serde::Serialize) -> Value {
    let mut value = serde_json::to_value(session).unwrap_or_default();
    let Some(gateway) = gateway else {
        return value;
    };
    if let Some(object) = value.as_object_mut() {
        let id = object.get("id").and_then(Value::as_str).unwrap_or_default();
        let known = gateway.session(id).unwrap_or(Value::Null);
        object.insert("gateway".to_owned(), known);
    }
    value
}
