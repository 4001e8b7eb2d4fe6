//! OpenAI Responses (and chat completions), as Codex speaks it.

use super::{Ending, First, Identity, Reader, at, count, text};
use crate::json::{self, Item};
use crate::sse;
use crate::usage::Tokens;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

const SESSION: HeaderName = HeaderName::from_static("session-id");
const METADATA: HeaderName = HeaderName::from_static("x-codex-turn-metadata");
const PARENT: HeaderName = HeaderName::from_static("x-codex-parent-thread-id");
const THREAD: HeaderName = HeaderName::from_static("thread-id");

pub(super) fn identify(
    identity: &mut Identity,
    method: &Method,
    path: &str,
    header: &dyn Fn(&HeaderName) -> Option<String>,
) {
    identity.session = identity.session.take().or_else(|| header(&SESSION));
    if identity.project.is_none() {
        let metadata = header(&METADATA).and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let workspaces = metadata.as_ref().and_then(|m| m.get("workspaces")?.as_object());
        identity.project = workspaces.and_then(|all| all.keys().next().cloned());
    }
    if header(&PARENT).is_some() {
        identity.agent = header(&THREAD);
    }
    identity.generates =
        *method == Method::POST && (path.ends_with("/responses") || path.ends_with("/completions"));
}

/// What of an answer has been passed on.
#[derive(Debug, Default)]
pub(super) struct Responses {
    tokens: Tokens,
    model: Option<String>,
    complete: bool,
    error: Option<String>,
    /// Chat completions know no event that ends a stream as a failure.
    completions: bool,
}

impl Responses {
    pub(super) fn at(path: &str) -> Self {
        Self {
            completions: path.ends_with("/completions"),
            ..Self::default()
        }
    }
}

fn tokens(usage: &Value) -> Tokens {
    // Responses and chat completions name the same things in two ways.
    let either = |a: &str, b: &str| count(usage, a).max(count(usage, b));
    let cached = either(
        "/input_tokens_details/cached_tokens",
        "/prompt_tokens_details/cached_tokens",
    );
    Tokens {
        input: either("/input_tokens", "/prompt_tokens").saturating_sub(cached),
        cache_write: 0,
        cache_read: cached,
        output: either("/output_tokens", "/completion_tokens"),
        reasoning: either(
            "/output_tokens_details/reasoning_tokens",
            "/completion_tokens_details/reasoning_tokens",
        ),
    }
}

impl Reader for Responses {
    fn event(&mut self, data: &[u8]) {
        if data == b"[DONE]" {
            self.complete = true;
            return;
        }
        if sse::kind(data).is_some_and(|kind| kind.ends_with(b".delta")) {
            return;
        }
        let Ok(event) = serde_json::from_slice::<Value>(data) else {
            return;
        };
        let response = at(&event, "/response").unwrap_or(&event);
        if let Some(model) = text(response, "/model") {
            self.model = Some(model.to_owned());
        }
        if let Some(usage) = at(response, "/usage").filter(|usage| usage.is_object()) {
            self.tokens = tokens(usage);
        }
        match text(&event, "/type") {
            Some("response.completed" | "response.incomplete") => self.complete = true,
            Some("response.failed") => {
                let message = text(&event, "/response/error/message").unwrap_or("the answer failed");
                let code = text(&event, "/response/error/code").unwrap_or_default();
                self.error = Some(format!("{code}: {message}"));
            }
            Some("error") => {
                let message = text(&event, "/message").or_else(|| text(&event, "/error/message"));
                self.error = Some(message.unwrap_or("an error without a message").to_owned());
            }
            _ => {}
        }
    }

    fn tokens(&self) -> Tokens {
        self.tokens
    }

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn complete(&self) -> bool {
        self.complete
    }

    fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    fn ending(&self) -> Ending {
        if self.complete {
            return Ending::Events(Bytes::new());
        }
        if self.completions {
            return Ending::Cut;
        }
        Ending::Events(failed("the upstream broke off in the middle of its answer"))
    }
}

/// The end of a stream after which Codex asks again at once.
pub(super) fn failed(message: &str) -> Bytes {
    let message = format!("{message}. Please try again in 1ms.");
    let error = json!({"code": "rate_limit_exceeded", "message": message});
    let event = json!({"type": "response.failed", "response": {"status": "failed", "error": error}});
    format!("event: response.failed\ndata: {event}\n\n").into()
}

pub(super) fn first(data: &[u8]) -> First {
    let Ok(event) = serde_json::from_slice::<Value>(data) else {
        return First::Answer;
    };
    let message = |pointer| text(&event, pointer).unwrap_or("an error").to_owned();
    match text(&event, "/type") {
        Some("keepalive") => First::Unclear,
        Some("error") => {
            First::Error(text(&event, "/message").map_or_else(|| message("/error/message"), str::to_owned))
        }
        Some("response.failed") => First::Error(message("/response/error/message")),
        None if event.get("error").is_some() => First::Error(message("/error/message")),
        _ => First::Answer,
    }
}

pub(super) fn whole(body: &[u8]) -> (Tokens, Option<String>) {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return Default::default();
    };
    let usage = at(&answer, "/usage").map(tokens).unwrap_or_default();
    (usage, text(&answer, "/model").map(str::to_owned))
}

pub(super) fn own_error(code: &str, message: &str, fatal: bool) -> (StatusCode, Value) {
    let status = if fatal {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let error = json!({"type": "arp_gateway", "code": code, "message": message});
    (
        status,
        json!({"type": "error", "code": code, "message": message, "error": error}),
    )
}

/// What an account that has nothing left says; there is no use in trying again.
const SPENT: [&str; 2] = ["insufficient_quota", "usage_limit_reached"];

pub(super) fn soften(
    status: &mut StatusCode,
    headers: &mut HeaderMap,
    body: &mut Bytes,
    patience: Option<Duration>,
) {
    if *status == StatusCode::TOO_MANY_REQUESTS
        && let Some(wait) = patience
    {
        // By its own words a used-up account ends the turn; as a limit with a time it is waited for.
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        let told: Value = serde_json::from_slice(body).unwrap_or_default();
        let message = text(&told, "/error/message").unwrap_or("the account is used up for now");
        let error = json!({"type": "rate_limit_exceeded", "code": "rate_limit_exceeded", "message": message});
        *body = json!({"error": error}).to_string().into();
        return;
    }
    let spent = SPENT
        .iter()
        .any(|word| memchr::memmem::find(body, word.as_bytes()).is_some());
    // Codex gives up at once on a 429 that names no time.
    if *status == StatusCode::TOO_MANY_REQUESTS && !spent && !headers.contains_key(RETRY_AFTER) {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
}

/// Takes sealed reasoning out of the history: the whole item, as the API has it.
pub(super) fn without_reasoning(body: &[u8]) -> Option<Bytes> {
    json::with_items(body, "input", |item| {
        match json::text_member(item.get().as_bytes(), "type").as_deref() {
            Some("reasoning") => Item::Drop,
            _ => Item::Keep,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_stands_in_the_last_event() {
        let mut reader = Responses::default();
        reader.event(br#"{"type":"response.created","response":{"id":"r","model":"gpt-x","usage":null}}"#);
        assert!(!reader.complete() && matches!(reader.ending(), Ending::Events(b) if !b.is_empty()));
        reader.event(br#"{"type":"response.completed","response":{"usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":4},"output_tokens":6,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":16}}}"#);
        let tokens = reader.tokens();
        assert_eq!(
            (tokens.input, tokens.cache_read, tokens.output, tokens.reasoning),
            (6, 4, 6, 2)
        );
        assert_eq!(tokens.total(), 16);
        assert!(reader.complete() && reader.error().is_none());
        let (tokens, _) =
            whole(br#"{"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":null}}"#);
        assert_eq!(tokens.total(), 5);
    }

    #[test]
    fn a_429_that_may_pass_names_a_time_and_a_spent_account_does_not() {
        let softened = |body: &[u8]| {
            let (mut status, mut headers) = (StatusCode::TOO_MANY_REQUESTS, HeaderMap::new());
            soften(&mut status, &mut headers, &mut Bytes::copy_from_slice(body), None);
            headers.contains_key(RETRY_AFTER)
        };
        assert!(softened(b"{}") && !softened(br#"{"error":{"code":"insufficient_quota"}}"#));
        let (mut status, mut headers) = (StatusCode::TOO_MANY_REQUESTS, HeaderMap::new());
        let mut body = Bytes::from_static(br#"{"error":{"type":"usage_limit_reached","message":"used up"}}"#);
        soften(
            &mut status,
            &mut headers,
            &mut body,
            Some(Duration::from_secs(3600)),
        );
        assert_eq!(headers[RETRY_AFTER], "3600");
        assert!(!body.windows(12).any(|w| w == b"usage_limit_") && body.windows(7).any(|w| w == b"used up"));
    }
}
