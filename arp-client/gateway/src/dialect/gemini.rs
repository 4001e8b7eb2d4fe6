//! Google's `generateContent`, as Gemini CLI speaks it.

use super::{Ending, First, Identity, Reader, at, count, text};
use crate::json::{self, Item};
use crate::usage::Tokens;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

/// `(before, model, verb and what follows)` of a path such as `/v1beta/models/M:streamGenerateContent`.
fn parts(path: &str) -> Option<(&str, &str, &str)> {
    let at = path.rfind("/models/")? + "/models/".len();
    let (before, rest) = path.split_at(at);
    let end = rest.find(':')?;
    let (model, verb) = rest.split_at(end);
    (!model.is_empty() && !model.contains('/')).then_some((before, model, verb))
}

pub(super) fn identify(identity: &mut Identity, method: &Method, path: &str) {
    if let Some((_, model, verb)) = parts(path) {
        identity.model = Some(model.to_owned());
        identity.generates =
            *method == Method::POST && matches!(verb, ":generateContent" | ":streamGenerateContent");
    }
}

pub(super) fn path_with_model(path: &str, model: &str) -> Option<String> {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    const NAME: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    let (before, _, verb) = parts(path)?;
    Some(format!("{before}{}{verb}", utf8_percent_encode(model, NAME)))
}

/// What of an answer has been passed on.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    tokens: Tokens,
    model: Option<String>,
    finished: bool,
    error: Option<String>,
}

fn tokens(usage: &Value) -> Tokens {
    let cached = count(usage, "/cachedContentTokenCount");
    let reasoning = count(usage, "/thoughtsTokenCount");
    Tokens {
        input: count(usage, "/promptTokenCount")
            .saturating_add(count(usage, "/toolUsePromptTokenCount"))
            .saturating_sub(cached),
        cache_write: 0,
        cache_read: cached,
        output: count(usage, "/candidatesTokenCount").saturating_add(reasoning),
        reasoning,
    }
}

impl Reader for Chunks {
    fn event(&mut self, data: &[u8]) {
        let Ok(chunk) = serde_json::from_slice::<Value>(data) else {
            return;
        };
        if let Some(usage) = at(&chunk, "/usageMetadata").filter(|u| u.is_object()) {
            self.tokens = tokens(usage);
        }
        if let Some(model) = text(&chunk, "/modelVersion") {
            self.model = Some(model.to_owned());
        }
        if text(&chunk, "/candidates/0/finishReason").is_some() {
            self.finished = true;
        }
        if let Some(error) = chunk.get("error") {
            self.error = Some(
                text(error, "/message")
                    .unwrap_or("an error without a message")
                    .to_owned(),
            );
        }
    }

    fn tokens(&self) -> Tokens {
        self.tokens
    }

    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn complete(&self) -> bool {
        self.finished
    }

    fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    fn ending(&self) -> Ending {
        if self.finished {
            return Ending::Events(Bytes::new());
        }
        Ending::Events(error_chunk("the upstream broke off in the middle of its answer"))
    }
}

/// The end of a stream after which Gemini CLI asks again within a second. A cut connection would end its turn.
pub(super) fn error_chunk(message: &str) -> Bytes {
    let error = json!({"error": {"code": 503, "message": message, "status": "UNAVAILABLE"}});
    format!("data: {error}\n\n").into()
}

pub(super) fn first(data: &[u8]) -> First {
    match serde_json::from_slice::<Value>(data) {
        Ok(Value::Object(chunk)) if chunk.is_empty() => First::Unclear,
        Ok(chunk) => match chunk.get("error") {
            Some(error) => First::Error(text(error, "/message").unwrap_or("an error").to_owned()),
            None => First::Answer,
        },
        Err(_) => First::Answer,
    }
}

pub(super) fn whole(body: &[u8]) -> (Tokens, Option<String>) {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return Default::default();
    };
    let usage = at(&answer, "/usageMetadata").map(tokens).unwrap_or_default();
    (usage, text(&answer, "/modelVersion").map(str::to_owned))
}

pub(super) fn own_error(code: &str, message: &str, fatal: bool) -> (StatusCode, Value) {
    let (status, word) = if fatal {
        (StatusCode::BAD_REQUEST, "FAILED_PRECONDITION")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE")
    };
    let error = json!({"code": status.as_u16(), "message": message, "status": word});
    (
        status,
        json!({"type": "error", "code": code, "message": message, "error": error}),
    )
}

pub(super) fn soften(status: &mut StatusCode) {
    // Gemini CLI gives up at once on this one; it means only that the upstream was slow.
    if *status == StatusCode::REQUEST_TIMEOUT {
        *status = StatusCode::SERVICE_UNAVAILABLE;
    }
}

/// Takes the signatures of thoughts out of the history.
pub(super) fn without_signatures(body: &[u8]) -> Option<Bytes> {
    json::with_items(body, "contents", |content| {
        let content = content.get().as_bytes();
        let changed = json::with_items(content, "parts", |part| {
            let Ok(mut object) = crate::files::object::Object::parse(part.get()) else {
                return Item::Keep;
            };
            let both = [
                object.remove("thoughtSignature"),
                object.remove("thought_signature"),
            ];
            if both.contains(&true) {
                Item::Replace(object.to_text(0))
            } else {
                Item::Keep
            }
        });
        changed.map_or(Item::Keep, |text| {
            Item::Replace(String::from_utf8_lossy(&text).into_owned())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_stands_in_the_path() {
        let path = "/v1beta/models/gemini-3.8-flash:streamGenerateContent";
        let mut identity = Identity::default();
        identify(&mut identity, &Method::POST, path);
        assert_eq!(
            (identity.model.as_deref(), identity.generates),
            (Some("gemini-3.8-flash"), true)
        );
        assert_eq!(
            path_with_model(path, "a/b").as_deref(),
            Some("/v1beta/models/a%2Fb:streamGenerateContent")
        );
        assert_eq!(path_with_model("/v1beta/models", "x"), None);
    }

    #[test]
    fn the_last_figures_count_and_cached_input_is_counted_once() {
        let mut reader = Chunks::default();
        reader.event(br#"{"usageMetadata":{"promptTokenCount":9}}"#);
        reader.event(br#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":10,"cachedContentTokenCount":4,"candidatesTokenCount":5,"thoughtsTokenCount":2,"totalTokenCount":17}}"#);
        let tokens = reader.tokens();
        assert_eq!(
            (tokens.input, tokens.cache_read, tokens.output, tokens.reasoning),
            (6, 4, 7, 2)
        );
        assert_eq!(tokens.total(), 17);
        assert!(reader.complete());
    }

    #[test]
    fn signatures_go_and_all_else_stays() {
        let body = br#"{"contents":[{"role":"model","parts":[{"text":"a","thoughtSignature":"x"},{"functionCall":{"n":1.0}}]}]}"#;
        let new = without_signatures(body).unwrap();
        let new = std::str::from_utf8(&new).unwrap();
        assert!(
            !new.contains("thoughtSignature") && new.contains(r#"{"functionCall":{"n":1.0}}"#),
            "{new}"
        );
        assert_eq!(without_signatures(new.as_bytes()), None);
    }
}
