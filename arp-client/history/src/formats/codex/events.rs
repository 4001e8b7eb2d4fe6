//! Codex's lines as events. Finished items are translated to the form that its app server sends, which
//! [`arp_agents::codex`] understands.

use crate::events::{Said, list_at, str_at, string_at, text_of, time_of};
use arp_agents::codex::{item_completed, item_started, user_text};
use arp_agents::event::{Event, PlanEntry, PlanStatus, ToolKind, TurnStatus, Usage};
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// A conversation, line by line.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    /// Calls whose result was told as a finished item. The same result in the form that the model got it follows.
    told: HashSet<String>,
    /// What was last told of how it runs.
    init: Option<Event>,
}

impl Talk {
    /// The events of the line of that number.
    pub(crate) fn events(&mut self, number: u64, line: &Value) -> Said {
        let (time, mut events) = events(line);
        let kind = str_at(line, "type");
        // A copy of a session repeats the beginning of its original; each turn repeats how it runs.
        let repeated =
            |event: &Event| (kind == Some("session_meta") && number > 0) || self.init.as_ref() == Some(event);
        events.retain(|event| !matches!(event, Event::Init { .. }) || !repeated(event));
        if let [init @ Event::Init { .. }] = &events[..] {
            self.init = Some(init.clone());
        }
        if kind == Some("event_msg") {
            let results = events.iter().filter_map(|event| match event {
                Event::ToolResult { id, .. } => Some(id.clone()),
                _ => None,
            });
            self.told.extend(results);
        } else {
            events.retain(|event| !matches!(event, Event::ToolResult { id, .. } if self.told.contains(id)));
        }
        (time, events)
    }
}

fn events(line: &Value) -> Said {
    let payload = line.get("payload").unwrap_or(&Value::Null);
    let events = match str_at(line, "type") {
        Some("session_meta") => vec![Event::Init {
            agent_session_id: string_at(payload, "id"),
            model: None,
            models: Vec::new(),
            cwd: string_at(payload, "cwd"),
            permission_mode: None,
        }],
        Some("turn_context") => vec![Event::Init {
            agent_session_id: None,
            model: string_at(payload, "model"),
            models: Vec::new(),
            cwd: string_at(payload, "cwd"),
            permission_mode: string_at(payload, "approval_policy"),
        }],
        Some("event_msg") => event(payload),
        Some("response_item") => response_item(payload),
        _ => Vec::new(),
    };
    (time_of(line), events)
}

fn event(payload: &Value) -> Vec<Event> {
    match str_at(payload, "type") {
        Some("item_completed") => item(payload.get("item").unwrap_or(&Value::Null)),
        // Before item_completed there were these.
        Some("user_message") => {
            let text = string_at(payload, "message").unwrap_or_default();
            vec![Event::UserMessage { id: None, text }]
        }
        Some("agent_message") => {
            let text = string_at(payload, "message").unwrap_or_default();
            vec![Event::Text {
                id: String::new(),
                text,
                delta: false,
                parent: None,
            }]
        }
        Some("agent_reasoning") => {
            let text = string_at(payload, "text").unwrap_or_default();
            vec![Event::Thinking {
                id: String::new(),
                text,
                delta: false,
                parent: None,
            }]
        }
        Some("token_count") => usage(payload),
        Some("error" | "stream_error") => vec![Event::Error {
            message: string_at(payload, "message").unwrap_or_default(),
            retrying: str_at(payload, "type") == Some("stream_error"),
        }],
        Some("task_complete") => {
            let error = payload.pointer("/error/message").and_then(Value::as_str);
            let status = if error.is_some() {
                TurnStatus::Failed
            } else {
                TurnStatus::Completed
            };
            vec![turn_end(payload, status, error)]
        }
        Some("turn_aborted") => vec![turn_end(payload, TurnStatus::Interrupted, None)],
        _ => Vec::new(),
    }
}

fn turn_end(payload: &Value, status: TurnStatus, error: Option<&str>) -> Event {
    let duration_ms = payload.get("duration_ms").and_then(Value::as_u64);
    Event::TurnEnd {
        status,
        message: error.map(str::to_owned),
        duration_ms,
        api_status: None,
    }
}

fn usage(payload: &Value) -> Vec<Event> {
    let Some(total) = payload.pointer("/info/total_token_usage") else {
        return Vec::new();
    };
    let number = |key: &str| total.get(key).and_then(Value::as_u64);
    vec![Event::Usage(Usage {
        input_tokens: number("input_tokens"),
        cached_input_tokens: number("cached_input_tokens"),
        output_tokens: number("output_tokens"),
        cost_usd: None,
    })]
}

/// A finished item: what was said, or a tool's call and its result.
fn item(item: &Value) -> Vec<Event> {
    let item = sent_form(item);
    if str_at(&item, "type") == Some("userMessage") {
        return vec![Event::UserMessage {
            id: string_at(&item, "id"),
            text: user_text(&item),
        }];
    }
    let mut events = item_started(&item, None);
    events.extend(item_completed(&item, None));
    events
}

/// On disk an item's `type` begins with a capital and its fields have underscores; what is sent has neither.
fn sent_form(item: &Value) -> Value {
    let Some(fields) = item.as_object() else {
        return Value::Null;
    };
    let kind = str_at(item, "type").unwrap_or_default();
    let mut sent: Map<String, Value> = fields
        .iter()
        .map(|(key, value)| (camel_case(key), value.clone()))
        .collect();
    sent.insert("type".into(), lower_first(kind).into());
    match kind {
        "AgentMessage" => {
            sent.insert(
                "text".into(),
                text_of(item.get("content").unwrap_or(&Value::Null)).into(),
            );
        }
        "Reasoning" => {
            let texts = |key: &str| -> Value {
                list_at(item, key)
                    .iter()
                    .map(|part| part.as_str().map_or_else(|| text_of(part), str::to_owned))
                    .collect()
            };
            sent.insert("summary".into(), texts("summary_text"));
            sent.insert("content".into(), texts("raw_content"));
        }
        "CommandExecution" => {
            sent.insert("command".into(), command_line(item.get("command")).into());
            let cwd = str_at(item, "cwd").map(|cwd| cwd.strip_prefix("file://").unwrap_or(cwd));
            sent.insert("cwd".into(), cwd.into());
            let actions = list_at(item, "parsed_cmd").iter().map(|action| {
                let kind = str_at(action, "type").map(camel_case);
                json!({"type": kind})
            });
            sent.insert("commandActions".into(), actions.collect());
        }
        "FileChange" => {
            sent.insert("changes".into(), changes(item));
        }
        _ => {}
    }
    Value::Object(sent)
}

/// `{path: {"type":"update","unified_diff":…}}` as the list that is sent.
fn changes(item: &Value) -> Value {
    let change = |(path, change): (&String, &Value)| {
        let diff = str_at(change, "unified_diff")
            .or_else(|| str_at(change, "content"))
            .unwrap_or_default();
        json!({"path": path, "kind": {"type": str_at(change, "type")}, "diff": diff})
    };
    item.get("changes")
        .and_then(Value::as_object)
        .map(|all| all.iter().map(change).collect())
        .unwrap_or_default()
}

/// A command's words as one line, quoted where a shell would need it.
fn command_line(command: Option<&Value>) -> String {
    let words = match command {
        Some(Value::String(line)) => return line.clone(),
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str),
        _ => return String::new(),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let quoted = words.map(|word| match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// What the model was sent and what it sent: only what no finished item tells as well.
fn response_item(payload: &Value) -> Vec<Event> {
    let call = string_at(payload, "call_id").unwrap_or_default();
    let name = string_at(payload, "name").unwrap_or_default();
    match str_at(payload, "type") {
        // Commands and patches are told again as items, under the same id, with exit code and diff.
        Some("function_call") => {
            let arguments = str_at(payload, "arguments").unwrap_or_default();
            let input = serde_json::from_str(arguments).unwrap_or_else(|_| Value::from(arguments));
            let mut events = vec![tool_call(call, &name, input.clone())];
            events.extend(plan(&name, &input));
            events
        }
        Some("custom_tool_call") => {
            let input = payload.get("input").cloned().unwrap_or_default();
            vec![tool_call(call, &name, json!({"input": input}))]
        }
        Some("function_call_output" | "custom_tool_call_output") => {
            let output = payload.get("output").unwrap_or(&Value::Null);
            let output = output.get("content").unwrap_or(output);
            vec![Event::ToolResult {
                id: call,
                output: text_of(output),
                delta: false,
                is_error: false,
                exit_code: None,
                parent: None,
            }]
        }
        _ => Vec::new(),
    }
}

fn tool_call(id: String, name: &str, input: Value) -> Event {
    let said = ["cmd", "command", "path", "query"]
        .iter()
        .find_map(|key| match input.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(words @ Value::Array(_)) => Some(command_line(Some(words))),
            _ => None,
        });
    let kind = match name {
        "exec_command" | "shell" | "local_shell" | "write_stdin" => ToolKind::Command,
        "apply_patch" => ToolKind::Edit,
        "update_plan" => ToolKind::Plan,
        "web_search" => ToolKind::Search,
        "view_image" => ToolKind::Read,
        "spawn_agent" => ToolKind::Task,
        _ if name.starts_with("mcp__") => ToolKind::Mcp,
        _ => ToolKind::Other,
    };
    let title = said
        .map(|text| crate::json::short(&text))
        .filter(|t| !t.is_empty());
    Event::ToolCall {
        id,
        name: name.to_owned(),
        kind,
        title: title.unwrap_or_else(|| name.to_owned()),
        input,
        changes: Vec::new(),
        parent: None,
    }
}

fn plan(name: &str, input: &Value) -> Option<Event> {
    if name != "update_plan" || !input.get("plan").is_some_and(Value::is_array) {
        return None;
    }
    let entry = |step: &Value| PlanEntry {
        content: string_at(step, "step").unwrap_or_default(),
        status: match str_at(step, "status") {
            Some("completed") => PlanStatus::Completed,
            Some("in_progress") => PlanStatus::InProgress,
            _ => PlanStatus::Pending,
        },
    };
    Some(Event::Plan {
        entries: list_at(input, "plan").iter().map(entry).collect(),
    })
}

fn camel_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    let mut upper = false;
    for c in key.chars() {
        if c == '_' {
            upper = true;
        } else if std::mem::take(&mut upper) {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
    }
    out
}

fn lower_first(name: &str) -> String {
    let mut chars = name.chars();
    chars
        .next()
        .map(|first| first.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_turned_into_the_sent_form() {
        assert_eq!(
            (camel_case("exit_code"), camel_case("id")),
            ("exitCode".into(), "id".into())
        );
        assert_eq!(
            (lower_first("McpToolCall"), lower_first("")),
            ("mcpToolCall".into(), String::new())
        );
        assert_eq!(
            command_line(Some(&json!(["bash", "-lc", "echo 'a' b"]))),
            "bash -lc 'echo '\\''a'\\'' b'"
        );
    }

    #[test]
    fn a_plan_is_told_with_its_call() {
        let line = json!({"type": "response_item", "payload": {"type": "function_call", "call_id": "c", "name": "update_plan",
            "arguments": "{\"plan\":[{\"step\":\"one\",\"status\":\"completed\"}]}"}});
        let (_, events) = events(&line);
        assert!(matches!(
            &events[0],
            Event::ToolCall {
                kind: ToolKind::Plan,
                ..
            }
        ));
        let entry = PlanEntry {
            content: "one".into(),
            status: PlanStatus::Completed,
        };
        assert_eq!(events[1], Event::Plan { entries: vec![entry] });
    }

    #[test]
    fn what_is_put_before_the_prompt_is_not_told() {
        let line = json!({"type": "response_item", "payload": {"type": "message", "role": "user",
            "content": [{"type": "input_text", "text": "<environment_context>"}]}});
        assert_eq!(events(&line).1, []);
    }
}
