//! OpenAI Responses, which Codex speaks.

use super::http::Piece;
use super::ids::{fresh, now};
use super::script::{Ask, Reply, plain};
use super::text_of;
use serde_json::{Value, json};

pub(super) fn ask(body: &Value) -> Ask {
    let mut tools = super::names(body.get("tools"));
    for namespace in body.get("tools").and_then(Value::as_array).into_iter().flatten() {
        tools.extend(super::names(namespace.get("tools")));
    }
    let format = body.pointer("/text/format").cloned().unwrap_or_default();
    let schema = (format["type"] == "json_schema").then(|| format["schema"].clone());
    let mut ask = Ask {
        tools,
        schema,
        ..Ask::default()
    };
    match &body["input"] {
        Value::String(prompt) => ask.prompt.clone_from(prompt),
        items => {
            for item in items.as_array().into_iter().flatten().rev() {
                let kind = item["type"].as_str().unwrap_or("message");
                if kind.ends_with("_call_output") {
                    ask.tool_result = Some(text_of(&item["output"]));
                    break;
                }
                let text = text_of(&item["content"]);
                if kind == "message" && item["role"] == "user" && !plain(&text).is_empty() {
                    ask.prompt = text;
                    break;
                }
            }
        }
    }
    ask
}

pub(super) fn error(status: u16, message: &str) -> Value {
    let (kind, code) = match status {
        401 => ("invalid_request_error", json!("invalid_api_key")),
        429 => ("rate_limit_exceeded", json!("rate_limit_exceeded")),
        _ => ("server_error", Value::Null),
    };
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

pub(super) fn message(body: &Value, reply: &Reply) -> Value {
    let output = reply.tokens();
    json!({
        "id": fresh("resp_fake"),
        "object": "response",
        "created_at": now(),
        "status": "completed",
        "model": body.get("model").cloned().unwrap_or_else(|| json!("fake")),
        "output": items(body, reply),
        "usage": {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 100 + output,
        },
    })
}

pub(super) fn stream(body: &Value, reply: &Reply) -> Vec<Piece> {
    let whole = message(body, reply);
    let mut begun = whole.clone();
    begun["status"] = json!("in_progress");
    begun["output"] = json!([]);
    begun["usage"] = Value::Null;
    let mut pieces = vec![
        piece("response.created", json!({"response": begun})),
        piece("response.in_progress", json!({"response": begun})),
    ];
    for (index, item) in whole["output"].as_array().into_iter().flatten().enumerate() {
        let added = |changes: Value| {
            let mut item = item.clone();
            for (key, value) in changes.as_object().into_iter().flatten() {
                item[key] = value.clone();
            }
            piece(
                "response.output_item.added",
                json!({"output_index": index, "item": item}),
            )
        };
        // Every event about an item's content names the item.
        let about = |mut data: Value| {
            data["item_id"] = item["id"].clone();
            data["output_index"] = json!(index);
            data
        };
        match item["type"].as_str() {
            Some("message") => {
                pieces.push(added(json!({"status": "in_progress", "content": []})));
                pieces.extend(text_pieces(item, reply, &about));
            }
            Some("reasoning") => {
                pieces.push(added(json!({"summary": []})));
                let part = &item["summary"][0];
                let empty = json!({"type": "summary_text", "text": ""});
                let of = |kind: &str, data: Value| {
                    let mut data = about(data);
                    data["summary_index"] = json!(0);
                    piece(&format!("response.reasoning_summary_{kind}"), data)
                };
                pieces.push(of("part.added", json!({"part": empty})));
                pieces.push(of("text.delta", json!({"delta": part["text"]})));
                pieces.push(of("text.done", json!({"text": part["text"]})));
                pieces.push(of("part.done", json!({"part": part})));
            }
            kind => {
                let (field, event) = match kind {
                    Some("custom_tool_call") => ("input", "custom_tool_call_input"),
                    _ => ("arguments", "function_call_arguments"),
                };
                pieces.push(added(json!({"status": "in_progress", field: ""})));
                pieces.push(piece(
                    &format!("response.{event}.delta"),
                    about(json!({"delta": item[field]})),
                ));
                pieces.push(piece(
                    &format!("response.{event}.done"),
                    about(json!({field: item[field]})),
                ));
            }
        }
        pieces.push(piece(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
        ));
    }
    pieces.push(piece("response.completed", json!({"response": whole})));
    for (number, piece) in pieces.iter_mut().enumerate() {
        piece.data["sequence_number"] = json!(number);
    }
    pieces
}

fn text_pieces(item: &Value, reply: &Reply, about: &dyn Fn(Value) -> Value) -> Vec<Piece> {
    let part = &item["content"][0];
    let mut empty = part.clone();
    empty["text"] = json!("");
    let of = |kind: &str, data: Value| {
        let mut data = about(data);
        data["content_index"] = json!(0);
        piece(&format!("response.{kind}"), data)
    };
    let words = reply.words();
    let mut pieces = vec![of("content_part.added", json!({"part": empty}))];
    for (place, word) in words.iter().enumerate() {
        let mut piece = of("output_text.delta", json!({"delta": word}));
        piece.word = Some((place, words.len()));
        pieces.push(piece);
    }
    pieces.push(of("output_text.done", json!({"text": reply.text})));
    pieces.push(of("content_part.done", json!({"part": part})));
    pieces
}

fn items(body: &Value, reply: &Reply) -> Vec<Value> {
    let mut items = Vec::new();
    if !reply.thinking.is_empty() {
        items.push(json!({
            "type": "reasoning",
            "id": fresh("rs_fake"),
            "summary": [{"type": "summary_text", "text": reply.thinking}],
            "encrypted_content": null,
        }));
    }
    if !reply.text.is_empty() {
        items.push(json!({
            "type": "message",
            "id": fresh("msg_fake"),
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": reply.text, "annotations": []}],
        }));
    }
    items.extend(
        reply
            .calls
            .iter()
            .map(|(name, arguments)| call(body, name, arguments)),
    );
    items
}

/// A call; `SPACE/NAME` names a tool in a namespace, and a freeform tool takes its `input` alone.
fn call(body: &Value, name: &str, arguments: &Value) -> Value {
    let (space, name) = name
        .rsplit_once('/')
        .map_or((None, name), |(space, name)| (Some(space), name));
    let tools = body.get("tools").and_then(Value::as_array).into_iter().flatten();
    let freeform = tools
        .into_iter()
        .any(|tool| tool["type"] == "custom" && tool["name"] == name);
    let mut call = json!({
        "id": fresh("fc_fake"),
        "status": "completed",
        "call_id": fresh("call_fake"),
        "name": name,
    });
    if freeform {
        call["type"] = json!("custom_tool_call");
        call["input"] = arguments.get("input").cloned().unwrap_or_default();
    } else {
        call["type"] = json!("function_call");
        call["arguments"] = json!(arguments.to_string());
    }
    if let Some(space) = space {
        call["namespace"] = json!(space);
    }
    call
}

fn piece(kind: &str, mut data: Value) -> Piece {
    data["type"] = json!(kind);
    Piece::now(Some(kind), data)
}
