//! The Anthropic Messages API, as Claude Code speaks it.

use super::{Ending, First, Identity, Reader, text};
use crate::json::{self, Item};
use crate::sse;
use crate::usage::Tokens;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::time::Duration;

const SESSION: HeaderName = HeaderName::from_static("x-claude-code-session-id");
const AGENT: HeaderName = HeaderName::from_static("x-claude-code-agent-id");
const CLASS: HeaderName = HeaderName::from_static("x-claude-code-request-class");

pub(super) fn identify(
    identity: &mut Identity,
    method: &Method,
    path: &str,
    header: &dyn Fn(&HeaderName) -> Option<String>,
) {
    identity.session = identity.session.take().or_else(|| header(&SESSION));
    identity.agent = header(&AGENT);
    identity.class = header(&CLASS);
    identity.generates = *method == Method::POST && path.ends_with("/messages");
}

/// What of an answer has been passed on.
#[derive(Debug, Default)]
pub(super) struct Messages {
    tokens: Tokens,
    model: Option<String>,
    /// The block that is being written: its index and type.
    open: Option<(u64, String)>,
    /// Type of the last finished block that is more than thinking.
    finished: Option<String>,
    stopped: bool,
    error: Option<String>,
}

impl Messages {
    /// Each figure is what the last event says that has it above zero: `message_delta` repeats some as 0.
    fn usage(&mut self, usage: &str) {
        let names = [
            "input_tokens",
            "cache_creation_input_tokens",
            "cache_read_input_tokens",
            "output_tokens",
        ];
        let figures = json::members(usage.as_bytes(), names).unwrap_or_default();
        let tokens = &mut self.tokens;
        let places = [
            &mut tokens.input,
            &mut tokens.cache_write,
            &mut tokens.cache_read,
            &mut tokens.output,
        ];
        for (place, figure) in places.into_iter().zip(figures) {
            let new = figure.and_then(|figure| figure.parse().ok()).unwrap_or(0);
            if new > 0 {
                *place = new;
            }
        }
    }

    /// An event of this kind came.
    fn told(&mut self, kind: &[u8], data: &[u8]) {
        match kind {
            b"message_start" => {
                let Some([message]) = json::members(data, ["message"]) else {
                    return;
                };
                let [model, usage] = within(message, ["model", "usage"]);
                self.model = model.and_then(json::text_of).map(Cow::into_owned);
                self.usage(usage.unwrap_or_default());
            }
            b"content_block_start" => {
                let Some([index, block]) = json::members(data, ["index", "content_block"]) else {
                    return;
                };
                let [kind] = within(block, ["type"]);
                let kind = kind.and_then(json::text_of).unwrap_or_default();
                let index = index.and_then(|index| index.parse().ok()).unwrap_or(0);
                self.open = Some((index, kind.into_owned()));
            }
            b"content_block_stop" if is_object(data) => self.block_ends(),
            b"message_delta" => {
                let Some([usage, delta]) = json::members(data, ["usage", "delta"]) else {
                    return;
                };
                self.usage(usage.unwrap_or_default());
                let [reason] = within(delta, ["stop_reason"]);
                self.stopped |= reason.is_some_and(|reason| reason.starts_with('"'));
            }
            b"message_stop" if is_object(data) => self.stopped = true,
            b"error" => {
                let Some([error]) = json::members(data, ["error"]) else {
                    return;
                };
                let [message] = within(error, ["message"]);
                let message = message.and_then(json::text_of);
                let message = message.unwrap_or(Cow::Borrowed("an error without a message"));
                self.error = Some(message.into_owned());
            }
            _ => {}
        }
    }

    fn block_ends(&mut self) {
        if let Some((_, kind)) = self.open.take()
            && !matches!(kind.as_str(), "thinking" | "redacted_thinking")
        {
            self.finished = Some(kind);
        }
    }
}

impl Reader for Messages {
    fn passes_over(&self, event: &[u8]) -> bool {
        // Nearly all are of this kind, and say so in their first line already.
        event
            .strip_prefix(b"event: content_block_delta\ndata: ")
            .is_some_and(|data| sse::kind(data) == Some(b"content_block_delta"))
    }

    fn event(&mut self, data: &[u8]) {
        // Most events are deltas, in which nothing is of interest: they are not parsed. Of others the name says all.
        match sse::kind(data) {
            Some(b"content_block_delta" | b"ping") => {}
            Some(b"content_block_stop") if data.ends_with(b"}") => self.block_ends(),
            Some(b"message_stop") if data.ends_with(b"}") => self.stopped = true,
            Some(kind) => self.told(kind, data),
            None => {
                let [kind] = json::members(data, ["type"]).unwrap_or_default();
                if let Some(kind) = kind.and_then(json::text_of) {
                    self.told(kind.as_bytes(), data);
                }
            }
        }
    }

    fn tokens(&self) -> Tokens {
        self.tokens
    }

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn complete(&self) -> bool {
        self.stopped
    }

    fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    fn ending(&self) -> Ending {
        if self.stopped {
            return Ending::Events(Bytes::new());
        }
        // Nothing that counts is finished: Claude Code asks for the whole again when the connection is cut.
        let Some(finished) = &self.finished else {
            return Ending::Cut;
        };
        let mut out = String::new();
        if let Some((index, kind)) = &self.open
            && kind == "text"
        {
            out += &event(
                "content_block_stop",
                &json!({"type": "content_block_stop", "index": index}),
            );
        }
        // After a finished tool call the tools are run; after text it goes on "from where it was cut off".
        let reason = if finished == "tool_use" {
            "tool_use"
        } else {
            "max_tokens"
        };
        let usage = json!({"output_tokens": self.tokens.output.max(1)});
        let delta = json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null}, "usage": usage});
        out += &event("message_delta", &delta);
        out += &event("message_stop", &json!({"type": "message_stop"}));
        Ending::Events(out.into())
    }
}

/// Is it a whole JSON object?
fn is_object(data: &[u8]) -> bool {
    json::members(data, []).is_some()
}

/// Members of an object that is a member itself; none of what is no object.
fn within<'t, const N: usize>(value: Option<&'t str>, names: [&str; N]) -> [Option<&'t str>; N] {
    value
        .and_then(|value| json::members(value.as_bytes(), names))
        .unwrap_or([None; N])
}

fn event(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

pub(super) fn first(data: &[u8]) -> First {
    match sse::kind(data) {
        Some(b"ping") => return First::Unclear,
        Some(b"error") | None => {}
        Some(_) => return First::Answer,
    }
    let Ok(event) = serde_json::from_slice::<Value>(data) else {
        return First::Answer;
    };
    match text(&event, "/type") {
        Some("ping") => First::Unclear,
        Some("error") => First::Error(text(&event, "/error/message").unwrap_or("an error").to_owned()),
        _ => First::Answer,
    }
}

pub(super) fn whole(body: &[u8]) -> (Tokens, Option<String>) {
    let mut reader = Messages::default();
    let [model, usage] = json::members(body, ["model", "usage"]).unwrap_or_default();
    reader.usage(usage.unwrap_or_default());
    (reader.tokens, model.and_then(json::text_of).map(Cow::into_owned))
}

pub(super) fn own_error(code: &str, message: &str, fatal: bool) -> (StatusCode, Value) {
    // 403 ends the turn at once and shows the text; 400 would be tried five times in weaker forms.
    let (status, kind) = if fatal {
        (StatusCode::FORBIDDEN, "permission_error")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "api_error")
    };
    let body = json!({"type": "error", "code": code, "message": message, "error": {"type": kind, "message": message}});
    (status, body)
}

/// The longest `retry-after` that Claude Code waits for; a longer one ends the turn.
const MAX_RETRY_AFTER: u64 = 60;

pub(super) fn soften(status: &mut StatusCode, headers: &mut HeaderMap, patience: Option<Duration>) {
    // After two of these it gives up; of a 503 it tries ten over three minutes.
    if status.as_u16() == 529 {
        *status = StatusCode::SERVICE_UNAVAILABLE;
    }
    if let Some(wait) = patience {
        // Started with the watchdog on, it waits for longer, too.
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        return;
    }
    let wait = headers
        .get(RETRY_AFTER)
        .and_then(|v| v.to_str().ok()?.trim().parse::<u64>().ok());
    if wait.is_some_and(|secs| secs > MAX_RETRY_AFTER) {
        headers.insert(RETRY_AFTER, HeaderValue::from(MAX_RETRY_AFTER));
    }
}

/// Takes thinking out of earlier answers.
pub(super) fn without_thinking(body: &[u8]) -> Option<Bytes> {
    json::with_items(body, "messages", |message| {
        let message = message.get().as_bytes();
        if json::text_member(message, "role").as_deref() != Some("assistant") {
            return Item::Keep;
        }
        let mut left = 0;
        let changed = json::with_items(message, "content", |block| {
            match json::text_member(block.get().as_bytes(), "type").as_deref() {
                Some("thinking" | "redacted_thinking") => Item::Drop,
                _ => {
                    left += 1;
                    Item::Keep
                }
            }
        });
        match changed {
            None => Item::Keep,
            // An answer of nothing but thinking: the API takes no empty content.
            Some(_) if left == 0 => Item::Drop,
            Some(text) => Item::Replace(String::from_utf8_lossy(&text).into_owned()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(events: &[Value]) -> Messages {
        let mut reader = Messages::default();
        for event in events {
            reader.event(event.to_string().as_bytes());
        }
        reader
    }

    fn start(index: u64, kind: &str) -> Value {
        json!({"type":"content_block_start","index":index,"content_block":{"type":kind}})
    }

    fn stop(index: u64) -> Value {
        json!({"type":"content_block_stop","index":index})
    }

    #[test]
    fn figures_come_from_every_event_that_has_them() {
        let reader = read(&[
            json!({"type":"message_start","message":{"model":"m","usage":{"input_tokens":7,"cache_creation_input_tokens":5,"cache_read_input_tokens":3,"output_tokens":1}}}),
            json!({"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":0,"output_tokens":42}}),
        ]);
        let tokens = reader.tokens();
        assert_eq!(
            (tokens.input, tokens.cache_write, tokens.cache_read, tokens.output),
            (7, 5, 3, 42)
        );
        assert_eq!(tokens.total(), 57);
        assert!(reader.complete() && reader.model() == Some("m"));
        assert_eq!(reader.ending(), Ending::Events(Bytes::new()));
    }

    #[test]
    fn what_is_not_parsed_says_the_same_as_what_is() {
        for text in [
            r#"{"type":"message_stop"}"#,
            r#"{"index":0,"type":"content_block_stop"}"#,
            r#"{"type" : "content_block_stop", "index":0}"#,
            r#"{"n":1,"type":"message_stop"}"#,
            r#"{"type":"error","error":{"message":"m"}}"#,
            r#"{"error":{"message":"m"},"type":"error"}"#,
            r#"{"type":"message_stop""#,
            r#"{"type":"content_block_delta","delta":{"text":"\"type\":\"error\""}}"#,
        ] {
            let mut reader = read(&[start(0, "text")]);
            reader.event(text.as_bytes());
            let whole: Option<Value> = serde_json::from_str(text).ok();
            let kind = whole
                .as_ref()
                .and_then(|v| v["type"].as_str())
                .unwrap_or_default();
            assert_eq!(reader.complete(), kind == "message_stop", "{text}");
            assert_eq!(reader.open.is_none(), kind == "content_block_stop", "{text}");
            assert_eq!(reader.error(), (kind == "error").then_some("m"), "{text}");
        }
        assert_eq!(first(br#"{"type":"ping"}"#), First::Unclear);
        assert_eq!(first(br#"{"x":1,"type":"ping"}"#), First::Unclear);
        assert_eq!(first(br#"{"type":"message_start"}"#), First::Answer);
        assert_eq!(
            first(br#"{"type":"error","error":{"message":"m"}}"#),
            First::Error("m".into())
        );
    }

    #[test]
    fn a_broken_answer_ends_so_that_claude_goes_on() {
        let begun = json!({"type":"message_start","message":{}});
        for cut in [
            vec![],
            vec![begun.clone()],
            vec![begun.clone(), start(0, "text")],
            vec![begun.clone(), start(0, "thinking"), stop(0)],
            vec![begun.clone(), start(0, "thinking"), stop(0), start(1, "text")],
        ] {
            assert_eq!(read(&cut).ending(), Ending::Cut, "{cut:?}");
        }
        let text_of = |events: &[Value]| match read(events).ending() {
            Ending::Events(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Ending::Cut => "cut".to_owned(),
        };
        let ended = text_of(&[begun.clone(), start(0, "text"), stop(0), start(1, "text")]);
        assert!(
            ended.starts_with("event: content_block_stop\n") && ended.contains("\"index\":1"),
            "{ended}"
        );
        assert!(ended.contains("max_tokens") && ended.ends_with("{\"type\":\"message_stop\"}\n\n"));
        let half_call = text_of(&[begun.clone(), start(0, "text"), stop(0), start(1, "tool_use")]);
        assert!(half_call.starts_with("event: message_delta\n") && half_call.contains("max_tokens"));
        let call = text_of(&[begun, start(0, "tool_use"), stop(0)]);
        assert!(call.contains("\"stop_reason\":\"tool_use\""), "{call}");
    }

    #[test]
    fn thinking_goes_and_all_else_stays() {
        let body = br#"{"model":"m","messages":[{"role":"user","content":"thinking"},
            {"role":"assistant","content":[{"type":"thinking","thinking":"x","signature":"s"},{"type":"text","text":"a", "n":1.0}]},
            {"role":"assistant","content":[{"type":"redacted_thinking","data":"x"}]},
            {"role":"user","content":[{"type":"text","text":"b"}]}],"max_tokens":1}"#;
        let new = without_thinking(body).unwrap();
        let new = std::str::from_utf8(&new).unwrap();
        assert!(!new.contains("signature") && !new.contains("redacted"), "{new}");
        assert!(
            new.contains(r#"{"type":"text","text":"a", "n":1.0}"#) && new.contains(r#""content":"thinking""#)
        );
        assert_eq!(
            serde_json::from_str::<Value>(new).unwrap()["messages"]
                .as_array()
                .unwrap()
                .len(),
            3
        );
        assert_eq!(without_thinking(new.as_bytes()), None);
    }
}
