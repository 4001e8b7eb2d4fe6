//! Anthropic Messages, which Claude Code speaks.

use super::http::Piece;
use super::script::{Ask, Reply, plain};
use super::{ids::fresh, text_of};
use serde_json::{Value, json};

pub(super) fn ask(body: &Value) -> Ask {
    let mut ask = Ask {
        tools: super::names(body.get("tools")),
        schema: body.pointer("/output_config/format/schema").cloned(),
        ..Ask::default()
    };
    let messages = body
        .get("messages")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    for message in messages.rev().filter(|message| message["role"] == "user") {
        let content = &message["content"];
        let blocks = match content {
            Value::String(_) => vec![json!({"type": "text", "text": content})],
            _ => content.as_array().cloned().unwrap_or_default(),
        };
        let mut texts = blocks
            .iter()
            .filter(|block| block["type"] == "text")
            .filter_map(|block| block["text"].as_str());
        let result = blocks.iter().rfind(|block| block["type"] == "tool_result");
        if let Some(text) = texts.rfind(|text| !plain(text).is_empty()) {
            ask.prompt = text.to_owned();
            break;
        }
        if let Some(result) = result {
            ask.tool_result = Some(text_of(&result["content"]));
            break;
        }
    }
    ask
}

pub(super) fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": fresh("req_fake")})
}

pub(super) fn message(body: &Value, reply: &Reply) -> Value {
    let mut content = Vec::new();
    if !reply.thinking.is_empty() {
        content.push(json!({"type": "thinking", "thinking": reply.thinking, "signature": "ZmFrZQ=="}));
    }
    if !reply.text.is_empty() {
        content.push(json!({"type": "text", "text": reply.text}));
    }
    for (name, input) in &reply.calls {
        content.push(json!({"type": "tool_use", "id": fresh("toolu_fake"), "name": name, "input": input}));
    }
    json!({
        "id": fresh("msg_fake"),
        "type": "message",
        "role": "assistant",
        "model": body.get("model").cloned().unwrap_or_else(|| json!("fake")),
        "content": content,
        "stop_reason": if reply.calls.is_empty() { "end_turn" } else { "tool_use" },
        "stop_sequence": null,
        "usage": {
            "input_tokens": 100,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": reply.tokens(),
        },
    })
}

pub(super) fn stream(body: &Value, reply: &Reply) -> Vec<Piece> {
    let whole = message(body, reply);
    let mut begun = whole.clone();
    begun["content"] = json!([]);
    begun["stop_reason"] = Value::Null;
    begun["usage"]["output_tokens"] = json!(1);
    let mut pieces = vec![
        piece("message_start", json!({"message": begun})),
        piece("ping", json!({})),
    ];
    for (index, block) in whole["content"].as_array().into_iter().flatten().enumerate() {
        let mut empty = block.clone();
        let mut deltas: Vec<Value> = Vec::new();
        match block["type"].as_str() {
            Some("text") => {
                empty["text"] = json!("");
                deltas.extend(
                    reply
                        .words()
                        .iter()
                        .map(|word| json!({"type": "text_delta", "text": word})),
                );
            }
            Some("thinking") => {
                empty["thinking"] = json!("");
                empty["signature"] = json!("");
                deltas.push(json!({"type": "thinking_delta", "thinking": block["thinking"]}));
                deltas.push(json!({"type": "signature_delta", "signature": block["signature"]}));
            }
            _ => {
                empty["input"] = json!({});
                deltas.push(json!({"type": "input_json_delta", "partial_json": block["input"].to_string()}));
            }
        }
        pieces.push(piece(
            "content_block_start",
            json!({"index": index, "content_block": empty}),
        ));
        let (count, is_text) = (deltas.len(), block["type"] == "text");
        for (place, delta) in deltas.into_iter().enumerate() {
            let mut piece = piece("content_block_delta", json!({"index": index, "delta": delta}));
            piece.word = is_text.then_some((place, count));
            pieces.push(piece);
        }
        pieces.push(piece("content_block_stop", json!({"index": index})));
    }
    pieces.push(piece(
        "message_delta",
        json!({
            "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": null},
            "usage": {"output_tokens": whole["usage"]["output_tokens"]},
        }),
    ));
    pieces.push(piece("message_stop", json!({})));
    pieces
}

fn piece(kind: &str, mut data: Value) -> Piece {
    data["type"] = json!(kind);
    Piece::now(Some(kind), data)
}
