//! The agents' lines in the one vocabulary of events.

use crate::clock;
use serde_json::Value;

/// What a line became: when it was, and what happened.
pub(crate) type Said = (Option<String>, Vec<arp_agents::event::Event>);

/// The line as JSON, if it is an object that is not nested too deeply.
pub(crate) fn value(line: &[u8]) -> Option<Value> {
    serde_json::from_str::<Value>(&crate::json::text(line))
        .ok()
        .filter(Value::is_object)
}

pub(crate) fn str_at<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

pub(crate) fn string_at(value: &Value, key: &str) -> Option<String> {
    str_at(value, key).map(str::to_owned)
}

pub(crate) fn list_at<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A time as all agents' events have it.
pub(crate) fn time_of(value: &Value) -> Option<String> {
    str_at(value, "timestamp")
        .and_then(clock::parse)
        .and_then(clock::format)
}

/// Text of a content field: a string, a block, or a list of blocks; other content is named in brackets.
pub(crate) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts: Vec<_> = blocks
                .iter()
                .map(text_of)
                .filter(|text| !text.is_empty())
                .collect();
            texts.join("\n")
        }
        Value::Object(block) => match block.get("text").and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => format!(
                "[{}]",
                block.get("type").and_then(Value::as_str).unwrap_or("content")
            ),
        },
        _ => String::new(),
    }
}
