//! Errors as clients see them: a status, a code for machines, a sentence for people.

use super::body::{self, Body};
use arp_sessions::error::SessionError;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::json;
use std::time::Duration;

/// An answer that says no.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            header: None,
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(crate) fn bad_query(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_query", message)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is nothing at this path; GET /api/openapi.json lists what there is",
        )
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    pub(crate) fn method_not_allowed(allow: &str) -> Self {
        let mut error = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            format!("this path takes {allow}"),
        );
        error.header = HeaderValue::from_str(allow).ok().map(|value| (ALLOW, value));
        error
    }

    /// With the time after which it may be tried again.
    pub(crate) fn retry_after(mut self, after: Duration) -> Self {
        self.header = Some((RETRY_AFTER, HeaderValue::from(after.as_secs())));
        self
    }

    /// With this header in its answer.
    pub(crate) fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.header = Some((name, value));
    }

    /// The JSON object of the answer.
    pub(crate) fn json(&self) -> serde_json::Value {
        json!({"type": "error", "code": self.code, "message": self.message})
    }

    pub(crate) fn response(&self) -> Response<Body> {
        let mut response = Response::new(body::full(self.json().to_string()));
        *response.status_mut() = self.status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some((name, value)) = &self.header {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        let status = match &error {
            SessionError::NotFound(_)
            | SessionError::ApprovalNotFound(_)
            | SessionError::MessageNotFound(_) => StatusCode::NOT_FOUND,
            SessionError::BadRequest(_)
            | SessionError::ProjectPath(_)
            | SessionError::Unsupported(_)
            | SessionError::UnknownAgent(_) => StatusCode::BAD_REQUEST,
            SessionError::BypassNotAllowed(_) => StatusCode::FORBIDDEN,
            SessionError::AgentNotFound(_) | SessionError::AgentTooOld(_) | SessionError::AgentFailed(_) => {
                StatusCode::FAILED_DEPENDENCY
            }
            SessionError::CannotResume(_)
            | SessionError::WrongState(_)
            | SessionError::InUse(_)
            | SessionError::ApprovalResolved(_)
            | SessionError::AlreadySent(_)
            | SessionError::ClientIdReused(_) => StatusCode::CONFLICT,
            SessionError::TooManySessions(_) | SessionError::QueueFull(_) => StatusCode::TOO_MANY_REQUESTS,
            SessionError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            SessionError::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            SessionError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(%error, "a request failed");
        }
        let mut answer = Self::new(status, error.code(), error.to_string());
        if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
            answer.header = Some((RETRY_AFTER, HeaderValue::from_static("5")));
        }
        answer
    }
}
