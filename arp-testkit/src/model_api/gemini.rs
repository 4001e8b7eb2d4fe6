//! Google's `generateContent`, which Gemini CLI speaks.

use super::http::Piece;
use super::ids::fresh;
use super::script::{Ask, Reply, plain};
use super::text_of;
use serde_json::{Value, json};

pub(super) fn ask(body: &Value) -> Ask {
    let groups = body.get("tools").and_then(Value::as_array).into_iter().flatten();
    let tools = groups
        .flat_map(|group| super::names(group.get("functionDeclarations")))
        .collect();
    let config = &body["generationConfig"];
    let wants_json = config["responseMimeType"]
        .as_str()
        .is_some_and(|kind| kind.contains("json"));
    let schema = ["responseJsonSchema", "responseSchema"]
        .iter()
        .find_map(|key| config.get(key))
        .cloned();
    let mut ask = Ask {
        tools,
        schema: wants_json.then(|| schema.unwrap_or_default()),
        ..Ask::default()
    };
    for content in body
        .get("contents")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .rev()
    {
        if !matches!(content["role"].as_str(), None | Some("user" | "function")) {
            continue;
        }
        let parts = content["parts"].as_array().cloned().unwrap_or_default();
        if let Some(result) = parts.iter().rev().find_map(|part| part.get("functionResponse")) {
            let response = &result["response"];
            let text = text_of(response);
            ask.tool_result = Some(if text.is_empty() {
                response.to_string()
            } else {
                text
            });
            break;
        }
        let mut texts = parts.iter().filter_map(|part| part["text"].as_str());
        if let Some(text) = texts.rfind(|text| !plain(text).is_empty()) {
            ask.prompt = text.to_owned();
            break;
        }
    }
    ask
}

pub(super) fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    json!({"error": {"code": status, "message": message, "status": kind}})
}

pub(super) fn message(body: &Value, reply: &Reply) -> Value {
    let mut parts = Vec::new();
    if !reply.thinking.is_empty() {
        parts.push(json!({"text": reply.thinking, "thought": true}));
    }
    if !reply.text.is_empty() {
        parts.push(json!({"text": reply.text}));
    }
    parts.extend(calls(reply));
    chunk(body, reply, parts, true)
}

pub(super) fn stream(body: &Value, reply: &Reply) -> Vec<Piece> {
    let mut pieces = Vec::new();
    if !reply.thinking.is_empty() {
        let thought = json!({"text": reply.thinking, "thought": true});
        pieces.push(Piece::now(None, chunk(body, reply, vec![thought], false)));
    }
    let words = reply.words();
    for (place, word) in words.iter().enumerate() {
        let last = reply.calls.is_empty() && place + 1 == words.len();
        let data = chunk(body, reply, vec![json!({"text": word})], last);
        pieces.push(Piece::word(None, data, place, words.len()));
    }
    if !reply.calls.is_empty() || words.is_empty() {
        let parts = if reply.calls.is_empty() {
            vec![json!({"text": ""})]
        } else {
            calls(reply)
        };
        pieces.push(Piece::now(None, chunk(body, reply, parts, true)));
    }
    pieces
}

fn calls(reply: &Reply) -> Vec<Value> {
    let call = |(name, args): &(String, Value)| json!({"functionCall": {"id": fresh("call_fake"), "name": name, "args": args}});
    reply.calls.iter().map(call).collect()
}

fn chunk(body: &Value, reply: &Reply, parts: Vec<Value>, last: bool) -> Value {
    let output = reply.tokens();
    let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
    if last {
        candidate["finishReason"] = json!("STOP");
    }
    json!({
        "candidates": [candidate],
        "modelVersion": body.get("model").cloned().unwrap_or_else(|| json!("fake")),
        "responseId": fresh("fake"),
        "usageMetadata": {
            "promptTokenCount": 100,
            "candidatesTokenCount": output,
            "totalTokenCount": 100 + output,
        },
    })
}
