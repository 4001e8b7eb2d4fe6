//! What an ACP agent tells in a turn, as events.

use super::Habits;
use crate::card::{ToolCard, plan_entries};
use crate::diff;
use crate::event::{Approval, Event, FileChange, Grant, ToolKind};
use crate::text::{array_at, content_text, one_line, str_at, string_at};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The text that is being written, and the tool calls that are not done.
#[derive(Debug)]
pub(super) struct Updates {
    habits: Habits,
    /// Goes in front of the ids made here, so that those of a later process differ.
    run: u32,
    blocks: u64,
    /// What the block that is being written holds; a change of kind begins another.
    block: Option<Block>,
    calls: BTreeMap<String, Call>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Text,
    Thought,
}

/// All that was told of a tool call so far: a later update only names what changed.
#[derive(Debug, Default)]
struct Call {
    fields: Map<String, Value>,
    /// What was shown last, so that nothing is shown twice.
    shown: Option<Event>,
}

impl Updates {
    pub(super) fn new(habits: Habits, run: u32) -> Self {
        Self {
            habits,
            run,
            blocks: 0,
            block: None,
            calls: BTreeMap::new(),
        }
    }

    /// A `session/update` notification's `update`.
    pub(super) fn update(&mut self, update: &Value) -> Vec<Event> {
        match str_at(update, "sessionUpdate") {
            Some("agent_message_chunk") => self.chunk(Block::Text, update),
            Some("agent_thought_chunk") => self.chunk(Block::Thought, update),
            Some("tool_call" | "tool_call_update") => self.tool_call(update),
            Some("plan") => vec![Event::Plan {
                entries: plan_entries(array_at(update, "entries")),
            }],
            // Prompts are told when they are sent; commands and modes are not part of the talk.
            _ => Vec::new(),
        }
    }

    /// The approval that a permission request asks for, and the card of the call it is about.
    pub(super) fn permission(
        &mut self,
        id: String,
        params: &Value,
        session_grants: Vec<Grant>,
    ) -> (Vec<Event>, Approval) {
        let told = params.get("toolCall").unwrap_or(&Value::Null);
        let events = self.tool_call(told);
        let call_id = str_at(told, "toolCallId").unwrap_or_default();
        let empty = Call::default();
        let call = self.calls.get(call_id).unwrap_or(&empty);
        let card = call.card(self.habits.whole_file_diffs);
        let approval = Approval {
            id,
            tool_call_id: Some(call_id.to_owned()),
            tool_name: self.tool_name(call_id, call),
            kind: card.kind,
            reason: call
                .texts()
                .first()
                .and_then(|text| reason(text))
                .filter(|reason| *reason != card.title),
            title: card.title,
            input: call.asked_for(),
            changes: card.changes,
            can_allow_session: !session_grants.is_empty(),
            session_grants,
            modes: Vec::new(),
            can_edit: false,
            questions: Vec::new(),
        };
        (events, approval)
    }

    /// A call was denied; some agents say nothing more about it.
    pub(super) fn denied(&mut self, call: &str) -> Vec<Event> {
        self.calls
            .remove(call)
            .map(|_| result(call, "Denied.".to_owned(), true))
            .into_iter()
            .collect()
    }

    /// A turn ended: what was begun will not be finished.
    pub(super) fn turn_ended(&mut self) -> Vec<Event> {
        self.block = None;
        let open = std::mem::take(&mut self.calls);
        open.into_keys()
            .map(|id| result(&id, "Stopped.".to_owned(), true))
            .collect()
    }

    fn chunk(&mut self, block: Block, update: &Value) -> Vec<Event> {
        let text = content_text(update.get("content").unwrap_or(&Value::Null));
        let announced = self
            .habits
            .announces_mode
            .is_some_and(|prefix| text.starts_with(prefix));
        if text.is_empty() || announced {
            return Vec::new();
        }
        if self.block != Some(block) {
            self.block = Some(block);
            self.blocks += 1;
        }
        let id = format!("r{}-b{}", self.run, self.blocks);
        vec![match block {
            Block::Text => Event::Text {
                id,
                text,
                delta: true,
                parent: None,
            },
            Block::Thought => Event::Thinking {
                id,
                text,
                delta: true,
                parent: None,
            },
        }]
    }

    fn tool_call(&mut self, told: &Value) -> Vec<Event> {
        let (Some(id), Some(fields)) = (string_at(told, "toolCallId"), told.as_object()) else {
            return Vec::new();
        };
        self.block = None;
        let mut call = self.calls.remove(&id).unwrap_or_default();
        for (key, value) in fields {
            if !value.is_null() {
                call.fields.insert(key.clone(), value.clone());
            }
        }
        let card = call.card(self.habits.whole_file_diffs);
        let shown = Event::ToolCall {
            id: id.clone(),
            name: self.tool_name(&id, &call),
            kind: card.kind,
            title: card.title,
            input: call.input(),
            changes: card.changes,
            parent: None,
        };
        let mut events = Vec::new();
        let failed = call.field("status") == Some("failed");
        let over = failed || call.field("status") == Some("completed");
        // The last update puts the output where the description was; the card keeps what it showed.
        if call.shown.is_none() || (!over && call.shown.as_ref() != Some(&shown)) {
            call.shown = Some(shown.clone());
            events.push(shown);
        }
        if over {
            // Only what this update brought is output; an earlier text describes the call.
            events.push(result(&id, output(told), failed));
        } else {
            self.calls.insert(id, call);
        }
        events
    }

    fn tool_name(&self, id: &str, call: &Call) -> String {
        let in_id = id
            .split_once("__")
            .map(|(name, _)| name)
            .filter(|name| !name.is_empty());
        if let Some((tool, server)) = call.mcp_tool() {
            return format!("mcp__{server}__{tool}");
        }
        match in_id.filter(|_| self.habits.tool_name_in_call_id) {
            Some(name) => name.to_owned(),
            None => call.field("kind").unwrap_or("tool").to_owned(),
        }
    }
}

impl Call {
    fn field(&self, key: &str) -> Option<&str> {
        self.fields.get(key).and_then(Value::as_str)
    }

    fn content(&self) -> &[Value] {
        self.fields
            .get("content")
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    fn texts(&self) -> Vec<String> {
        texts(self.content())
    }

    /// The tool and the server, where it is a tool of one: `echo (broker MCP Server)`.
    fn mcp_tool(&self) -> Option<(&str, &str)> {
        let inside = self.field("title")?.strip_suffix(" MCP Server)")?;
        inside.rsplit_once(" (")
    }

    fn card(&self, whole_files: bool) -> ToolCard {
        let changes: Vec<FileChange> = self
            .content()
            .iter()
            .filter(|part| str_at(part, "type") == Some("diff"))
            .map(|part| {
                let old = str_at(part, "oldText").unwrap_or_default();
                let new = str_at(part, "newText").unwrap_or_default();
                FileChange {
                    path: string_at(part, "path").unwrap_or_default(),
                    diff: if whole_files || old.is_empty() {
                        diff::unified(old, new)
                    } else {
                        diff::fragment(old, new)
                    },
                }
            })
            .collect();
        let title = self.field("title").map(one_line).unwrap_or_default();
        let is_mcp = self.mcp_tool().is_some();
        let kind = match self.field("kind") {
            Some("read") => ToolKind::Read,
            Some("edit" | "delete" | "move") => ToolKind::Edit,
            Some("search") => ToolKind::Search,
            Some("execute") => ToolKind::Command,
            Some("fetch") => ToolKind::Fetch,
            Some("switch_mode") => ToolKind::Plan,
            _ if is_mcp => ToolKind::Mcp,
            _ => ToolKind::Other,
        };
        let title = match changes.as_slice() {
            [one] => one.path.clone(),
            _ if title.is_empty() => "tool".to_owned(),
            _ => title,
        };
        ToolCard { kind, title, changes }
    }

    /// What is asked for: the arguments, and the texts of the edits where those do not hold them.
    fn asked_for(&self) -> Value {
        let mut input = self.input();
        let edits: Vec<Value> = self
            .content()
            .iter()
            .filter(|part| str_at(part, "type") == Some("diff"))
            .map(|part| {
                json!({"path": part.get("path"), "old_text": part.get("oldText"), "new_text": part.get("newText")})
            })
            .collect();
        if let (Some(fields), false) = (
            input.as_object_mut(),
            edits.is_empty() || self.fields.contains_key("rawInput"),
        ) {
            fields.insert("changes".to_owned(), Value::Array(edits));
        }
        input
    }

    /// The arguments, where the agent tells them; else all that it shows.
    fn input(&self) -> Value {
        if let Some(raw) = self.fields.get("rawInput") {
            return raw.clone();
        }
        let title = self.field("title").unwrap_or_default();
        let description = self.texts().join("\n");
        let mut input = Map::new();
        if self.field("kind") == Some("execute") {
            input.insert("command".to_owned(), json!(title));
            if let Some((directory, _)) = directory_and_reason(&description) {
                input.insert("cwd".to_owned(), json!(directory));
            }
        } else {
            input.insert("title".to_owned(), json!(title));
            if let Some(locations) = self.fields.get("locations") {
                input.insert("locations".to_owned(), locations.clone());
            }
        }
        input.insert("description".to_owned(), json!(description));
        Value::Object(input)
    }
}

/// Gemini's word about a command: the directory it runs in, and what it is for.
fn directory_and_reason(text: &str) -> Option<(&str, &str)> {
    let (directory, rest) = text
        .strip_prefix("[current working directory ")?
        .split_once(']')?;
    Some((
        directory,
        rest.trim().trim_start_matches('(').trim_end_matches(')'),
    ))
}

/// What a call is for. Gemini puts the directory in front of it, and brackets around it.
fn reason(text: &str) -> Option<String> {
    let line = one_line(text);
    let bare = directory_and_reason(&line).map_or(line.clone(), |(_, rest)| rest.to_owned());
    (!bare.is_empty()).then_some(bare)
}

fn texts(content: &[Value]) -> Vec<String> {
    content
        .iter()
        .filter(|part| str_at(part, "type") != Some("diff"))
        .map(content_text)
        .filter(|text| !text.is_empty())
        .collect()
}

fn output(told: &Value) -> String {
    let text = texts(array_at(told, "content")).join("\n");
    if !text.is_empty() {
        return text;
    }
    match told.get("rawOutput") {
        None | Some(Value::Null) => String::new(),
        Some(raw @ (Value::Object(_) | Value::Array(_))) => {
            let text = content_text(raw);
            if text.starts_with('[') && text.ends_with(']') {
                raw.to_string()
            } else {
                text
            }
        }
        Some(raw) => content_text(raw),
    }
}

fn result(id: &str, output: String, is_error: bool) -> Event {
    Event::ToolResult {
        id: id.to_owned(),
        output,
        delta: false,
        is_error,
        exit_code: None,
        parent: None,
    }
}
