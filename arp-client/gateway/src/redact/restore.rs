//! Secrets back into an answer: in whole texts at once, in streams as they come, even where a placeholder comes in
//! pieces; in the arguments of tools in the form that JSON needs.

use super::placeholder::Hidden;
use crate::service::Service;
use crate::sse;
use crate::strings::{self, At};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// As it stands inside a JSON string.
fn escaped(secret: &str) -> String {
    let quoted = Value::from(secret).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// A JSON text with the secrets back in all its strings. What is signed is left alone, as the request's was.
#[must_use]
pub fn whole(hidden: &Hidden, text: &[u8]) -> Bytes {
    match strings::rewrite(text, |at, value| restored(hidden, at, value)) {
        Ok(Some(new)) => new.into(),
        Ok(None) => Bytes::copy_from_slice(text),
        // Not JSON: as plain text, for which the secret's own form is right.
        Err(_) => match std::str::from_utf8(text)
            .ok()
            .and_then(|text| hidden.restore(text, str::to_owned))
        {
            Some(new) => new.into(),
            None => Bytes::copy_from_slice(text),
        },
    }
}

fn restored(hidden: &Hidden, at: At<'_>, value: &str) -> Option<String> {
    match at.key {
        "thinking" | "signature" | "encrypted_content" | "thoughtSignature" if !at.free => None,
        "arguments" | "partial_json" => hidden.restore(value, escaped),
        _ => hidden.restore(value, str::to_owned),
    }
}

/// A text in a stream that comes in pieces.
#[derive(Debug, Default)]
struct Waiting {
    text: String,
    /// An event of the same kind, to say the rest with.
    event: Vec<u8>,
}

/// Restores the secrets of one stream's answer.
#[derive(Debug)]
pub struct Stream {
    service: Service,
    hidden: Hidden,
    /// What waits, by the text that it belongs to.
    waiting: BTreeMap<String, Waiting>,
}

impl Stream {
    /// For an answer to a request of which this was hidden.
    #[must_use]
    pub const fn new(service: Service, hidden: Hidden) -> Self {
        Self {
            service,
            hidden,
            waiting: BTreeMap::new(),
        }
    }

    /// One event (with its blank line) as the agent is to see it; before it, perhaps, one with what had waited.
    pub fn event(&mut self, event: Bytes) -> Bytes {
        let held = event.clone();
        let Some(data) = sse::data(&held) else {
            return event;
        };
        if *data == *b"[DONE]" {
            return joined(self.flush(|_| true), event);
        }
        let Ok(value) = serde_json::from_slice::<Value>(&data) else {
            return event;
        };
        match self.service {
            Service::Claude => self.claude(event, &data, &value),
            Service::Codex => self.codex(event, &data, &value),
            Service::Gemini => self.gemini(event, &data, &value),
        }
    }

    /// What waits still, at the end.
    pub fn end(&mut self) -> Bytes {
        self.flush(|_| true).into()
    }

    fn claude(&mut self, event: Bytes, data: &[u8], value: &Value) -> Bytes {
        let index = value["index"]
            .as_u64()
            .map_or_else(String::new, |n| n.to_string());
        match value["type"].as_str() {
            Some("content_block_delta") => {
                let (field, form): (_, fn(&str) -> String) = match value["delta"]["type"].as_str() {
                    Some("text_delta") => ("text", str::to_owned),
                    Some("input_json_delta") => ("partial_json", escaped),
                    // Thinking is signed; the rest is nothing that was written by a model.
                    _ => return event,
                };
                self.piece(
                    index,
                    event,
                    data,
                    &["delta", field],
                    value["delta"][field].as_str(),
                    form,
                )
            }
            Some("content_block_stop") => joined(self.flush(|key| key == index), event),
            Some("message_delta" | "message_stop") => joined(self.flush(|_| true), event),
            Some("content_block_start") => self.all_strings(event, data),
            _ => event,
        }
    }

    fn codex(&mut self, event: Bytes, data: &[u8], value: &Value) -> Bytes {
        let kind = value["type"].as_str().unwrap_or_default();
        if let Some(what) = kind.strip_suffix(".delta") {
            let form: fn(&str) -> String = if what.ends_with("function_call_arguments") {
                escaped
            } else {
                str::to_owned
            };
            let key = format!(
                "{}/{}/{}/{what}",
                value["item_id"], value["output_index"], value["content_index"]
            );
            return self.piece(key, event, data, &["delta"], value["delta"].as_str(), form);
        }
        if kind.is_empty() && value["choices"].is_array() {
            return self.completion(event, data, value);
        }
        let end = kind.ends_with(".done")
            || matches!(
                kind,
                "response.completed" | "response.incomplete" | "response.failed"
            );
        let before = if end {
            let item = format!("{}/", value["item_id"]);
            let all = !kind.ends_with(".done") || value["item_id"].is_null();
            self.flush(|key| all || key.starts_with(&item))
        } else {
            Vec::new()
        };
        joined(before, self.all_strings(event, data))
    }

    /// Chat completions: text of one choice, arguments of its calls.
    fn completion(&mut self, event: Bytes, data: &[u8], value: &Value) -> Bytes {
        let delta = &value["choices"][0]["delta"];
        if let Some(text) = delta["content"].as_str() {
            return self.piece(
                "content".to_owned(),
                event,
                data,
                &["choices", "delta", "content"],
                Some(text),
                str::to_owned,
            );
        }
        let call = &delta["tool_calls"][0];
        if let Some(text) = call["function"]["arguments"].as_str() {
            let key = format!("call {}", call["index"]);
            let at = ["choices", "delta", "tool_calls", "function", "arguments"];
            return self.piece(key, event, data, &at, Some(text), escaped);
        }
        if value["choices"][0]["finish_reason"].is_string() {
            return joined(self.flush(|_| true), event);
        }
        event
    }

    fn gemini(&mut self, event: Bytes, data: &[u8], value: &Value) -> Bytes {
        let plain = |part: &Value| part["text"].is_string() && part["thought"] != true;
        let candidates = value["candidates"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        // What stands in the place of each text of a part, in their order.
        let mut texts: Vec<Option<String>> = Vec::new();
        let mut before = Vec::new();
        for (at, candidate) in candidates.iter().enumerate() {
            let index = candidate["index"].as_u64().unwrap_or(at as u64);
            let key = format!("text {index}");
            let parts = candidate["content"]["parts"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let ends = !candidate["finishReason"].is_null();
            if parts.is_empty() && !ends {
                continue;
            }
            let waiting = self.waiting.remove(&key);
            let mut waited = waiting.map(|waiting| waiting.text).unwrap_or_default();
            for (n, part) in parts.iter().enumerate() {
                let Some(text) = part["text"].as_str() else {
                    continue;
                };
                if !plain(part) {
                    texts.push(None);
                    continue;
                }
                let all = std::mem::take(&mut waited) + text;
                if ends || n + 1 < parts.len() {
                    texts.push(Some(self.hidden.restore(&all, str::to_owned).unwrap_or(all)));
                    continue;
                }
                let (ready, end) = self.hidden.restore_piece(&all, str::to_owned);
                if end < all.len() {
                    let waiting = Waiting {
                        event: gemini_chunk(index, &all[end..]),
                        text: all[end..].to_owned(),
                    };
                    self.waiting.insert(key.clone(), waiting);
                    // Nothing is sure of it yet, and there is nothing else in it.
                    if ready.is_empty() && candidates.len() == 1 && parts.len() == 1 {
                        return Bytes::new();
                    }
                }
                texts.push(Some(ready));
            }
            // Nothing in this chunk could carry it: a chunk of its own before it.
            if !waited.is_empty() {
                let text = self.hidden.restore(&waited, str::to_owned).unwrap_or(waited);
                before.append(&mut gemini_chunk(index, &text));
            }
        }
        let mut texts = texts.into_iter();
        let hidden = &self.hidden;
        let new = strings::rewrite(data, |at, text| {
            if at.key == "text"
                && at.parent == "parts"
                && !at.free
                && let Some(Some(new)) = texts.next()
            {
                return (new != text).then_some(new);
            }
            restored(hidden, at, text)
        });
        joined(
            before,
            match new {
                Ok(Some(new)) => with_data(&event, &new),
                _ => event,
            },
        )
    }

    fn all_strings(&self, event: Bytes, data: &[u8]) -> Bytes {
        match strings::rewrite(data, |at, text| restored(&self.hidden, at, text)) {
            Ok(Some(new)) => with_data(&event, &new),
            _ => event,
        }
    }

    /// A piece of a text: what is sure of it, together with what had waited.
    fn piece(
        &mut self,
        key: String,
        event: Bytes,
        data: &[u8],
        path: &[&str],
        text: Option<&str>,
        form: fn(&str) -> String,
    ) -> Bytes {
        let Some(text) = text else { return event };
        let waited = self
            .waiting
            .remove(&key)
            .map(|waiting| waiting.text)
            .unwrap_or_default();
        let all = format!("{waited}{text}");
        let (ready, end) = self.hidden.restore_piece(&all, form);
        if end < all.len() {
            let rest = all[end..].to_owned();
            let event = with_data(&event, &with_text(data, path, &rest));
            self.waiting.insert(
                key,
                Waiting {
                    text: rest,
                    event: event.to_vec(),
                },
            );
            if ready.is_empty() {
                return Bytes::new();
            }
        }
        if ready == text {
            return event;
        }
        with_data(&event, &with_text(data, path, &ready))
    }

    /// What waits and cannot become a placeholder any more, as events of their own.
    fn flush(&mut self, of: impl Fn(&str) -> bool) -> Vec<u8> {
        let mut out = Vec::new();
        self.waiting.retain(|key, waiting| {
            let now = of(key);
            if now {
                out.append(&mut waiting.event);
            }
            !now
        });
        out
    }
}

/// A chunk with a text of one candidate and nothing else.
fn gemini_chunk(index: u64, text: &str) -> Vec<u8> {
    let chunk =
        json!({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "index": index}]});
    format!("data: {chunk}\n\n").into_bytes()
}

fn joined(mut before: Vec<u8>, event: Bytes) -> Bytes {
    if before.is_empty() {
        return event;
    }
    before.extend_from_slice(&event);
    before.into()
}

/// The JSON text with another string at the end of this way of names (arrays on the way are gone through).
fn with_text(data: &[u8], path: &[&str], new: &str) -> Vec<u8> {
    let (key, parent) = match path {
        [.., parent, key] => (*key, *parent),
        [key] => (*key, ""),
        [] => ("", ""),
    };
    let mut first = true;
    let rewritten = strings::rewrite(data, |at, _| {
        (at.key == key && at.parent == parent && std::mem::take(&mut first)).then(|| new.to_owned())
    });
    match rewritten {
        Ok(Some(new)) => new,
        _ => data.to_vec(),
    }
}

/// The event with other data; its other lines stay.
fn with_data(event: &[u8], data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(event.len() + data.len());
    let mut put = false;
    for line in event.split_inclusive(|b| *b == b'\n') {
        if !line.starts_with(b"data") {
            out.extend_from_slice(line);
            continue;
        }
        // Several lines of data are one line of JSON now.
        if !std::mem::replace(&mut put, true) {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(data);
            out.extend_from_slice(if line.ends_with(b"\r\n") { b"\r\n" } else { b"\n" });
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::super::placeholder::{Key, LEN};
    use super::*;
    use proptest::prelude::*;

    fn hidden(secret: &str) -> (Hidden, String) {
        let mut hidden = Hidden::of("s");
        let placeholder = hidden.hide(&Key::new(&[5; 32]), secret).to_owned();
        (hidden, placeholder)
    }

    /// Cuts a text into pieces at these places.
    fn pieces<'t>(text: &'t str, cuts: &[usize]) -> Vec<&'t str> {
        let mut cuts: Vec<usize> = cuts
            .iter()
            .map(|c| c % (text.len() + 1))
            .filter(|c| text.is_char_boundary(*c))
            .collect();
        cuts.sort_unstable();
        cuts.push(text.len());
        let mut from = 0;
        cuts.into_iter()
            .map(|cut| &text[std::mem::replace(&mut from, cut)..cut])
            .collect()
    }

    fn events_of(bytes: &[u8]) -> Vec<Value> {
        let mut splitter = sse::Splitter::default();
        splitter.push(bytes);
        std::iter::from_fn(|| splitter.next_event())
            .filter_map(|event| serde_json::from_slice(&sse::data(&event)?).ok())
            .collect()
    }

    fn sse(value: &Value) -> Bytes {
        format!("event: x\ndata: {value}\n\n").into()
    }

    proptest! {
        #[test]
        fn a_stream_of_claude_restores_text_and_arguments(secret in "[a-z\"\\\\\n]{1,9}", around in "[ARPX\" a中]{0,6}", cuts in proptest::collection::vec(0usize..100, 0..9)) {
            let (map, placeholder) = hidden(&secret);
            let mut stream = Stream::new(Service::Claude, map);
            let text = format!("{around}{placeholder}{around}{placeholder}");
            let arguments = serde_json::json!({"command": text}).to_string();
            let mut out = Vec::new();
            for piece in pieces(&text, &cuts) {
                out.extend_from_slice(&stream.event(sse(&json!({"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":piece}}))));
            }
            for piece in pieces(&arguments, &cuts) {
                out.extend_from_slice(&stream.event(sse(&json!({"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":piece}}))));
            }
            for index in [0, 1] {
                out.extend_from_slice(&stream.event(sse(&json!({"type":"content_block_stop","index":index}))));
            }
            let of = |index: u64, field: &str| -> String {
                events_of(&out).iter().filter(|e| e["index"] == index).filter_map(|e| e["delta"][field].as_str().map(str::to_owned)).collect()
            };
            let wanted = format!("{around}{secret}{around}{secret}");
            prop_assert_eq!(of(0, "text"), wanted.clone());
            let arguments: Value = serde_json::from_str(&of(1, "partial_json")).unwrap();
            prop_assert_eq!(arguments["command"].as_str().unwrap(), wanted.as_str());
        }

        #[test]
        fn streams_of_codex_and_gemini_restore_text(secret in "[a-z\"\n]{1,9}", around in "[ARPX a]{0,6}", cuts in proptest::collection::vec(0usize..100, 0..9)) {
            let (map, placeholder) = hidden(&secret);
            let text = format!("{around}{placeholder}{around}");
            let wanted = format!("{around}{secret}{around}");
            let mut stream = Stream::new(Service::Codex, map);
            let mut out = Vec::new();
            for piece in pieces(&text, &cuts) {
                out.extend_from_slice(&stream.event(sse(&json!({"type":"response.output_text.delta","item_id":"m","output_index":0,"content_index":0,"delta":piece}))));
            }
            let item = json!({"type":"response.output_item.done","item":{"type":"function_call","arguments":json!({"c":text}).to_string(),"content":[{"text":text}]}});
            out.extend_from_slice(&stream.event(sse(&item)));
            let all = events_of(&out);
            let said: String = all.iter().filter_map(|e| e["delta"].as_str().map(str::to_owned)).collect();
            prop_assert_eq!(&said, &wanted);
            let last = &all.last().unwrap()["item"];
            prop_assert_eq!(last["content"][0]["text"].as_str().unwrap(), wanted.as_str());
            let arguments: Value = serde_json::from_str(last["arguments"].as_str().unwrap()).unwrap();
            prop_assert_eq!(arguments["c"].as_str().unwrap(), wanted.as_str());

            for ended_by in ["text", "call", "nothing"] {
                let (map, _) = hidden(&secret);
                let mut stream = Stream::new(Service::Gemini, map);
                let mut out = Vec::new();
                for piece in pieces(&text, &cuts) {
                    out.extend_from_slice(&stream.event(sse(&json!({"candidates":[{"content":{"parts":[{"text":piece}]}}]}))));
                }
                let parts = match ended_by {
                    "text" => json!([{"text": "."}]),
                    "call" => json!([{"functionCall": {"args": {"c": text}}}]),
                    _ => json!([]),
                };
                out.extend_from_slice(&stream.event(sse(&json!({"candidates":[{"content":{"parts":parts},"finishReason":"STOP"}]}))));
                let said: String = events_of(&out).iter().filter_map(|e| e["candidates"][0]["content"]["parts"][0]["text"].as_str().map(str::to_owned)).collect();
                prop_assert_eq!(said, if ended_by == "text" { format!("{wanted}.") } else { wanted.clone() });
                if ended_by == "call" {
                    let told = events_of(&out);
                    let call = &told.last().unwrap()["candidates"][0]["content"]["parts"][0]["functionCall"];
                    prop_assert_eq!(call["args"]["c"].as_str().unwrap(), wanted.as_str());
                }
            }
        }
    }

    #[test]
    fn each_of_several_candidates_gets_its_own_secrets_back() {
        let (map, placeholder) = hidden("secret");
        let (first, second) = placeholder.split_at(7);
        let mut stream = Stream::new(Service::Gemini, map);
        let chunk = |a: &str, b: &str, finish: Value| {
            let of = |index: u64, text: &str| json!({"index": index, "content": {"parts": [{"text": text}]}, "finishReason": finish});
            sse(&json!({"candidates": [of(0, a), of(1, b)]}))
        };
        let mut out = Vec::new();
        out.extend_from_slice(&stream.event(chunk(&format!("a {first}"), "b ", Value::Null)));
        out.extend_from_slice(&stream.event(chunk(second, first, Value::Null)));
        // Only one of them goes on.
        let one = json!({"candidates": [{"index": 1, "content": {"parts": [{"text": second}]}}]});
        out.extend_from_slice(&stream.event(sse(&one)));
        out.extend_from_slice(&stream.event(chunk(".", &placeholder, "STOP".into())));
        out.extend_from_slice(&stream.end());
        let said = |wanted: u64| -> String {
            let events = events_of(&out);
            let all = events.iter().filter_map(|e| e["candidates"].as_array()).flatten();
            all.filter(|candidate| candidate["index"] == wanted)
                .filter_map(|candidate| candidate["content"]["parts"][0]["text"].as_str())
                .collect()
        };
        assert_eq!(
            (said(0).as_str(), said(1).as_str()),
            ("a secret.", "b secretsecret")
        );
    }

    #[test]
    fn what_waits_is_said_at_the_end_and_thinking_is_left_alone() {
        let (map, placeholder) = hidden("x");
        let mut stream = Stream::new(Service::Claude, map);
        let thinking = sse(
            &json!({"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":placeholder}}),
        );
        assert_eq!(stream.event(thinking.clone()), thinking);
        let half = &placeholder[..LEN - 1];
        let text = |t: &str| {
            sse(&json!({"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":t}}))
        };
        assert!(stream.event(text(half)).is_empty());
        let rest = stream.end();
        assert_eq!(events_of(&rest)[0]["delta"]["text"], half);
        assert_eq!(&whole(&hidden("y").0, b"not json")[..], b"not json");
    }
}
