//! What Claude says in a turn, as events: streamed fragments, finished blocks, tool calls and their results.
//!
//! Finished blocks come one a line and do not say which place they have in their message; the fragments
//! before them do. Both must carry the same id, so the open blocks of each message are kept here.

use super::tools::{changes_of_result, tool_card};
use crate::card::plan_at;
use crate::event::Event;
use crate::text::{array_at, content_text, str_at, string_at};
use serde_json::Value;
use std::collections::BTreeMap;

/// Tool calls whose results are awaited; more at once than any model makes, so that what never gets an
/// answer cannot pile up.
const MAX_OPEN_CALLS: usize = 512;

/// The state of the messages that are being written, by the sub-agent's call they belong to.
#[derive(Debug, Default)]
pub(super) struct Lines {
    messages: BTreeMap<Option<String>, Message>,
    calls: BTreeMap<String, Call>,
}

#[derive(Debug, Default)]
struct Message {
    id: String,
    /// Streamed blocks that were not finished yet, in the order they began: place and kind.
    open: Vec<(u64, String)>,
    /// The place of the next block, when it was not streamed.
    next: u64,
}

#[derive(Debug)]
struct Call {
    name: String,
    input: Value,
    parent: Option<String>,
    /// Runs on after its first result; another one follows when it is done.
    background: bool,
}

impl Lines {
    /// A `stream_event` line.
    pub(super) fn stream_event(&mut self, line: &Value) -> Vec<Event> {
        let parent = string_at(line, "parent_tool_use_id");
        let Some(event) = line.get("event") else {
            return Vec::new();
        };
        let place = event.get("index").and_then(Value::as_u64).unwrap_or_default();
        match str_at(event, "type") {
            Some("message_start") => {
                let id = event
                    .pointer("/message/id")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                self.message(&parent, id);
                Vec::new()
            }
            Some("content_block_start") => {
                let block = event.get("content_block").unwrap_or(&Value::Null);
                let kind = string_at(block, "type").unwrap_or_default();
                let message = self.messages.entry(parent.clone()).or_default();
                message.next = message.next.max(place + 1);
                message.open.push((place, kind));
                self.early_call(block, parent)
            }
            Some("content_block_delta") => {
                let Some(message) = self.messages.get(&parent) else {
                    return Vec::new();
                };
                fragment(
                    format!("{}:{place}", message.id),
                    event.get("delta").unwrap_or(&Value::Null),
                    parent,
                )
            }
            _ => Vec::new(),
        }
    }

    /// An `assistant` line: finished blocks.
    pub(super) fn assistant(&mut self, line: &Value) -> Vec<Event> {
        let parent = string_at(line, "parent_tool_use_id");
        let Some(said) = line.get("message") else {
            return Vec::new();
        };
        if str_at(said, "model") == Some("<synthetic>") {
            // The CLI's own words about a failed request; the result line tells the same.
            return Vec::new();
        }
        let id = str_at(said, "id").unwrap_or_default();
        let mut events = Vec::new();
        for block in array_at(said, "content") {
            let kind = str_at(block, "type").unwrap_or_default();
            let message = self.message(&parent, id);
            let place = match message.open.iter().position(|(_, open)| open == kind) {
                Some(at) => message.open.remove(at).0,
                None => {
                    message.next += 1;
                    message.next - 1
                }
            };
            let block_id = format!("{id}:{place}");
            events.extend(self.block(kind, block, block_id, parent.clone()));
        }
        events
    }

    /// A `user` line: results of tools. (Prompts are told when they are sent.)
    pub(super) fn user(&mut self, line: &Value) -> Vec<Event> {
        let parent = string_at(line, "parent_tool_use_id");
        let content = line
            .pointer("/message/content")
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        let results: Vec<&Value> = content
            .iter()
            .filter(|block| str_at(block, "type") == Some("tool_result"))
            .collect();
        // The structured result is one a line, so it can only be told apart when there is one result.
        let told = (results.len() == 1)
            .then(|| line.get("tool_use_result"))
            .flatten();
        let mut events = Vec::new();
        for result in results {
            let id = string_at(result, "tool_use_id").unwrap_or_default();
            let call = self.calls.get(&id);
            if let (Some(call), Some(change)) = (call, told.and_then(changes_of_result)) {
                events.push(call_event(&id, call, Some(change)));
            }
            if call.is_some_and(|call| !call.background) {
                self.calls.remove(&id);
            }
            events.push(Event::ToolResult {
                id,
                output: content_text(result.get("content").unwrap_or(&Value::Null)),
                delta: false,
                is_error: result.get("is_error").and_then(Value::as_bool).unwrap_or(false),
                exit_code: None,
                parent: parent.clone(),
            });
        }
        events
    }

    /// Somebody changed the arguments of a call before it ran: its card anew.
    pub(super) fn call_edited(&mut self, id: &str, ran: Value) -> Option<Event> {
        let call = self.calls.get_mut(id)?;
        call.input = ran;
        Some(call_event(id, call, None))
    }

    /// A `system` line about a sub-agent or another task that runs on its own.
    pub(super) fn task(&mut self, line: &Value) -> Vec<Event> {
        let Some(id) = str_at(line, "tool_use_id") else {
            return Vec::new();
        };
        match str_at(line, "subtype") {
            Some("task_started") => {
                if line.get("is_backgrounded").and_then(Value::as_bool) == Some(true)
                    && let Some(call) = self.calls.get_mut(id)
                {
                    call.background = true;
                }
                Vec::new()
            }
            Some("task_notification") if self.calls.get(id).is_some_and(|call| call.background) => {
                let parent = self.calls.remove(id).and_then(|call| call.parent);
                vec![Event::ToolResult {
                    id: id.to_owned(),
                    output: string_at(line, "summary").unwrap_or_default(),
                    delta: false,
                    is_error: str_at(line, "status") != Some("completed"),
                    exit_code: None,
                    parent,
                }]
            }
            _ => Vec::new(),
        }
    }

    /// A turn ended: nothing that was begun will be finished.
    pub(super) fn turn_ended(&mut self) {
        self.messages.clear();
        self.calls.retain(|_, call| call.background);
    }

    fn message(&mut self, parent: &Option<String>, id: &str) -> &mut Message {
        let message = self.messages.entry(parent.clone()).or_default();
        if message.id != id {
            *message = Message {
                id: id.to_owned(),
                ..Message::default()
            };
        }
        message
    }

    /// The card of a call whose arguments are still being written, so that it shows at once.
    fn early_call(&mut self, block: &Value, parent: Option<String>) -> Vec<Event> {
        if str_at(block, "type") != Some("tool_use") {
            return Vec::new();
        }
        let (Some(id), Some(name)) = (str_at(block, "id"), string_at(block, "name")) else {
            return Vec::new();
        };
        let call = Call {
            name,
            input: Value::Null,
            parent,
            background: false,
        };
        vec![call_event(id, &call, None)]
    }

    fn block(&mut self, kind: &str, block: &Value, block_id: String, parent: Option<String>) -> Vec<Event> {
        match kind {
            "text" | "thinking" => {
                let text = string_at(block, kind).unwrap_or_default();
                if text.is_empty() {
                    return Vec::new();
                }
                vec![if kind == "text" {
                    Event::Text {
                        id: block_id,
                        text,
                        delta: false,
                        parent,
                    }
                } else {
                    Event::Thinking {
                        id: block_id,
                        text,
                        delta: false,
                        parent,
                    }
                }]
            }
            "tool_use" => self.tool_use(block, parent),
            // Nothing that could be shown.
            "redacted_thinking" => Vec::new(),
            _ => vec![Event::Raw { data: block.clone() }],
        }
    }

    fn tool_use(&mut self, block: &Value, parent: Option<String>) -> Vec<Event> {
        let id = string_at(block, "id").unwrap_or_default();
        let call = Call {
            name: string_at(block, "name").unwrap_or_default(),
            input: block.get("input").cloned().unwrap_or_default(),
            parent,
            background: false,
        };
        let mut events = vec![call_event(&id, &call, None)];
        if call.name == "TodoWrite"
            && let Some(entries) = plan_at(&call.input, "todos")
        {
            events.push(Event::Plan { entries });
        }
        if self.calls.len() >= MAX_OPEN_CALLS {
            self.calls.pop_first();
        }
        self.calls.insert(id, call);
        events
    }
}

/// The card of a call; with `change` in place of the diff that its arguments give.
fn call_event(id: &str, call: &Call, change: Option<crate::event::FileChange>) -> Event {
    let card = tool_card(&call.name, &call.input);
    Event::ToolCall {
        id: id.to_owned(),
        name: call.name.clone(),
        kind: card.kind,
        title: card.title,
        input: call.input.clone(),
        changes: change.map_or(card.changes, |change| vec![change]),
        parent: call.parent.clone(),
    }
}

fn fragment(id: String, delta: &Value, parent: Option<String>) -> Vec<Event> {
    let (text, thinking) = match str_at(delta, "type") {
        Some("text_delta") => (string_at(delta, "text"), false),
        Some("thinking_delta") => (string_at(delta, "thinking"), true),
        _ => (None, false),
    };
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Vec::new();
    };
    vec![if thinking {
        Event::Thinking {
            id,
            text,
            delta: true,
            parent,
        }
    } else {
        Event::Text {
            id,
            text,
            delta: true,
            parent,
        }
    }]
}
