//! A stream of events as one text to look at: what came in pieces stands whole in the place where it began, so that a
//! secret that came in pieces is found in it as in any other text.

use crate::sse::{self, Splitter};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Characters at the end of a text that was cut, which may be the begin of a secret that nothing would find: no secret
/// with spaces in it (a card's number) is longer.
const UNSURE: usize = 64;

/// A text that comes in pieces.
#[derive(Debug)]
struct Text {
    /// The event in which it began, and where in it.
    event: usize,
    pointer: String,
    text: String,
}

/// The data of all events as a JSON array. Where the stream `is_cut`, without the end of each text, of which nobody can
/// say whether it is the begin of a secret.
#[must_use]
pub fn joined(stream: &[u8], is_cut: bool) -> Vec<u8> {
    let mut splitter = Splitter::default();
    splitter.push(stream);
    let mut events: Vec<Value> = Vec::new();
    let mut texts: HashMap<String, Text> = HashMap::new();
    let mut take = |event: &[u8]| {
        let Some(data) = sse::data(event).filter(|data| **data != *b"[DONE]") else {
            return;
        };
        let Ok(mut value) = serde_json::from_slice::<Value>(&data) else {
            events.push(String::from_utf8_lossy(&data).into());
            return;
        };
        let mut began = None;
        let mut begins = false;
        for (key, pointer) in pieces(&value) {
            let Some(Value::String(piece)) = value.pointer_mut(&pointer).map(Value::take) else {
                continue;
            };
            if let Some(text) = texts.get_mut(&key) {
                text.text.push_str(&piece);
                began = Some(text.event);
                if let Some(place) = value.pointer_mut(&pointer) {
                    *place = Value::from("");
                }
            } else {
                begins = true;
                let text = Text {
                    event: events.len(),
                    pointer,
                    text: piece,
                };
                texts.insert(key, text);
            }
        }
        // Nothing is in it but the next piece of what has begun.
        let known = began.and_then(|began| events.get(began));
        if begins || known.is_none_or(|known| !says_no_more(&value, known)) {
            events.push(value);
        }
    };
    while let Some(event) = splitter.next_event() {
        take(&event);
    }
    take(&splitter.rest());
    for text in texts.into_values() {
        if let Some(place) = events
            .get_mut(text.event)
            .and_then(|event| event.pointer_mut(&text.pointer))
        {
            let sure = if is_cut {
                without_end(&text.text)
            } else {
                &text.text
            };
            *place = sure.into();
        }
    }
    Value::from(events).to_string().into_bytes()
}

/// Without its last characters, and back to the end of a word.
fn without_end(text: &str) -> &str {
    let end = text.char_indices().rev().nth(UNSURE).map_or(0, |(at, _)| at);
    let sure = &text[..end];
    sure.rfind(char::is_whitespace)
        .map_or("", |end| sure[..end].trim_end())
}

/// Does an event say no more than the one in which its text began, but for the text?
fn says_no_more(event: &Value, began: &Value) -> bool {
    // What is different in each event and of no interest to anybody; the text itself is `""` here and `null` there.
    const PASSING: [&str; 2] = ["sequence_number", "obfuscation"];
    match (event, began) {
        (Value::Object(event), Value::Object(began)) => {
            let of =
                |map: &Map<String, Value>| map.keys().filter(|key| !PASSING.contains(&key.as_str())).count();
            of(event) == of(began)
                && event.iter().all(|(key, value)| {
                    PASSING.contains(&key.as_str())
                        || began.get(key).is_some_and(|began| says_no_more(value, began))
                })
        }
        (Value::Array(event), Value::Array(began)) => {
            event.len() == began.len()
                && event
                    .iter()
                    .zip(began)
                    .all(|(event, began)| says_no_more(event, began))
        }
        (Value::String(text), Value::Null) => text.is_empty(),
        _ => event == began,
    }
}

/// The texts of which an event holds a piece: whose (the same for all pieces of one), and where in the event.
fn pieces(event: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut note = |key: String, pointer: String| {
        if event.pointer(&pointer).is_some_and(Value::is_string) {
            all.push((key, pointer));
        }
    };
    let kind = event["type"].as_str().unwrap_or_default();
    // Messages API. A signature comes whole.
    if kind == "content_block_delta" {
        for field in ["text", "thinking", "partial_json"] {
            note(format!("{}/{field}", event["index"]), format!("/delta/{field}"));
        }
    }
    // Responses.
    if kind.ends_with(".delta") {
        let key = format!(
            "{}/{}/{}/{}/{kind}",
            event["item_id"], event["output_index"], event["content_index"], event["summary_index"]
        );
        note(key, "/delta".to_owned());
    }
    // Chat completions.
    for (n, choice) in list(&event["choices"]).iter().enumerate() {
        let whose = choice["index"].as_u64().unwrap_or(n as u64);
        for field in ["content", "reasoning_content", "reasoning", "refusal"] {
            note(
                format!("choice {whose}/{field}"),
                format!("/choices/{n}/delta/{field}"),
            );
        }
        for (m, call) in list(&choice["delta"]["tool_calls"]).iter().enumerate() {
            let call = call["index"].as_u64().unwrap_or(m as u64);
            note(
                format!("choice {whose}/call {call}"),
                format!("/choices/{n}/delta/tool_calls/{m}/function/arguments"),
            );
        }
    }
    // Gemini.
    for (n, candidate) in list(&event["candidates"]).iter().enumerate() {
        let whose = candidate["index"].as_u64().unwrap_or(n as u64);
        for (m, part) in list(&candidate["content"]["parts"]).iter().enumerate() {
            note(
                format!("candidate {whose}/{}", part["thought"] == true),
                format!("/candidates/{n}/content/parts/{m}/text"),
            );
        }
    }
    all
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn stream(events: &[Value]) -> Vec<u8> {
        let all: Vec<String> = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        all.concat().into_bytes()
    }

    fn of(events: &[Value], is_cut: bool) -> Vec<Value> {
        serde_json::from_slice(&joined(&stream(events), is_cut)).unwrap()
    }

    fn claude(index: u64, kind: &str, field: &str, text: &str) -> Value {
        json!({"type": "content_block_delta", "index": index, "delta": {"type": kind, field: text}})
    }

    proptest! {
        #[test]
        fn a_text_is_whole_however_it_was_cut(text in "[a-z \"\\\\\n中]{0,40}", other in "[a-z]{1,9}", cuts in proptest::collection::vec(0usize..40, 0..9)) {
            let chars: Vec<char> = text.chars().collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (chars.len() + 1)).collect();
            cuts.push(0);
            cuts.push(chars.len());
            cuts.sort_unstable();
            let pieces: Vec<String> = cuts.windows(2).map(|at| chars[at[0]..at[1]].iter().collect()).collect();
            // Two blocks whose pieces come in turns.
            let events: Vec<Value> = pieces.iter().flat_map(|piece| [claude(0, "text_delta", "text", piece), claude(1, "input_json_delta", "partial_json", &other)]).collect();
            prop_assert_eq!(of(&events, false), [claude(0, "text_delta", "text", &text), claude(1, "input_json_delta", "partial_json", &other.repeat(pieces.len()))]);
            let responses: Vec<Value> = pieces.iter().enumerate().map(|(n, piece)| json!({"type": "response.output_text.delta", "item_id": "i", "sequence_number": n, "obfuscation": "x".repeat(n), "delta": piece})).collect();
            let got = of(&responses, false);
            prop_assert_eq!((got.len(), got[0]["delta"].as_str()), (1, Some(text.as_str())));
            let chat: Vec<Value> = pieces.iter().map(|piece| json!({"choices": [{"index": 0, "delta": {"content": piece}}]})).collect();
            prop_assert_eq!(of(&chat, false), [json!({"choices": [{"index": 0, "delta": {"content": text}}]})]);
            let gemini: Vec<Value> = pieces.iter().enumerate().map(|(n, piece)| json!({"candidates": [{"content": {"parts": [{"text": piece}]}}], "usageMetadata": {"n": n}})).collect();
            // What each chunk says besides stays.
            let got = of(&gemini, false);
            prop_assert_eq!((got.len(), got[0]["candidates"][0]["content"]["parts"][0]["text"].as_str()), (pieces.len(), Some(text.as_str())));
        }

        #[test]
        fn anything_is_taken(stream in proptest::collection::vec(any::<u8>(), 0..200)) {
            let got: Value = serde_json::from_slice(&joined(&stream, true)).unwrap();
            prop_assert!(got.is_array());
        }
    }

    #[test]
    fn of_a_stream_that_was_cut_nothing_is_kept_that_may_be_the_begin_of_a_secret() {
        let text = format!("{} use sk-ant-api03-abc", "word ".repeat(30));
        let got = of(&[claude(0, "text_delta", "text", &text)], true);
        let kept = got[0]["delta"]["text"].as_str().unwrap();
        assert!(kept.starts_with("word word") && !kept.contains("sk-"), "{kept}");
        assert_eq!(
            of(&[claude(0, "text_delta", "text", "sk-ant-api03-abc")], true),
            [claude(0, "text_delta", "text", "")]
        );
    }

    #[test]
    fn what_is_no_event_and_what_is_no_json_does_no_harm() {
        let text = b": hello\n\nevent: x\ndata: no json\n\ndata: {\"type\":\"ping\"}\n\ndata: [DONE]\n\ndata: {\"a\":1}";
        let got: Value = serde_json::from_slice(&joined(text, false)).unwrap();
        assert_eq!(got, json!(["no json", {"type": "ping"}, {"a": 1}]));
        assert_eq!(joined(b"", false), b"[]");
    }
}
