//! Gemini's messages as events.

use super::fold::prompt_of;
use crate::events::{Said, list_at, str_at, string_at, text_of, time_of};
use arp_agents::diff;
use arp_agents::event::{Event, FileChange, ToolKind, Usage};
use serde_json::Value;
use serde_json::value::to_raw_value;

/// A message's events.
pub(crate) fn events(message: &Value) -> Said {
    let id = string_at(message, "id").unwrap_or_default();
    let events = match str_at(message, "type") {
        Some("user") => user(message, id),
        Some("gemini") => answer(message, &id),
        Some("error") => {
            let message = text_of(message.get("content").unwrap_or(&Value::Null));
            vec![Event::Error {
                message,
                retrying: false,
            }]
        }
        // Notes of the CLI to its user (`info`, `warning`).
        _ => Vec::new(),
    };
    (time_of(message), events)
}

fn user(message: &Value, id: String) -> Vec<Event> {
    // Results of tools are told with the calls they answer.
    let content = message
        .get("content")
        .and_then(|content| to_raw_value(content).ok());
    let text = content.and_then(|content| prompt_of(&content));
    text.map(|text| Event::UserMessage { id: Some(id), text })
        .into_iter()
        .collect()
}

fn answer(message: &Value, id: &str) -> Vec<Event> {
    let mut events = Vec::new();
    for (place, thought) in list_at(message, "thoughts").iter().enumerate() {
        let parts = ["subject", "description"].map(|key| str_at(thought, key).unwrap_or_default());
        let text = match parts {
            ["", text] | [text, ""] => text.to_owned(),
            [subject, text] => format!("**{subject}**\n\n{text}"),
        };
        if !text.is_empty() {
            events.push(Event::Thinking {
                id: format!("{id}:thought:{place}"),
                text,
                delta: false,
                parent: None,
            });
        }
    }
    let text = said(message.get("content"));
    if !text.is_empty() {
        events.push(Event::Text {
            id: id.to_owned(),
            text,
            delta: false,
            parent: None,
        });
    }
    let calls = list_at(message, "toolCalls");
    for call in calls {
        tool(call, &mut events);
    }
    // A call that was broken off is only in the content.
    for call in list_at(message, "content")
        .iter()
        .filter_map(|part| part.get("functionCall"))
    {
        if !calls.iter().any(|known| known.get("id") == call.get("id")) {
            tool(call, &mut events);
        }
    }
    let tokens = |key: &str| message.pointer(&format!("/tokens/{key}")).and_then(Value::as_u64);
    if message.get("tokens").is_some_and(Value::is_object) {
        events.push(Event::Usage(Usage {
            input_tokens: tokens("input"),
            cached_input_tokens: tokens("cached"),
            output_tokens: tokens("output"),
            cost_usd: None,
        }));
    }
    events
}

/// The text in a content: calls in it are told apart.
fn said(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().filter_map(|part| str_at(part, "text")).collect(),
        _ => String::new(),
    }
}

/// A call, and its result if it has one.
fn tool(call: &Value, events: &mut Vec<Event>) {
    let id = string_at(call, "id").unwrap_or_default();
    let name = string_at(call, "name").unwrap_or_default();
    let input = call.get("args").cloned().unwrap_or_default();
    let title = str_at(call, "description")
        .or_else(|| {
            ["command", "file_path", "path", "pattern", "query", "url"]
                .iter()
                .find_map(|key| str_at(&input, key))
        })
        .map(crate::json::short)
        .filter(|title| !title.is_empty());
    events.push(Event::ToolCall {
        id: id.clone(),
        kind: kind_of(&name),
        title: title.unwrap_or_else(|| name.clone()),
        name,
        changes: changes(call),
        input,
        parent: None,
    });
    let status = str_at(call, "status");
    if matches!(status, Some("success" | "error" | "cancelled")) {
        events.push(Event::ToolResult {
            id,
            output: output(call),
            delta: false,
            is_error: status != Some("success"),
            exit_code: None,
            parent: None,
        });
    }
}

fn kind_of(name: &str) -> ToolKind {
    match name {
        "run_shell_command" => ToolKind::Command,
        "write_file" | "replace" | "edit" => ToolKind::Edit,
        "read_file" | "read_many_files" | "list_directory" => ToolKind::Read,
        "glob" | "grep_search" | "search_file_content" | "google_web_search" => ToolKind::Search,
        "web_fetch" => ToolKind::Fetch,
        "write_todos" | "enter_plan_mode" | "exit_plan_mode" => ToolKind::Plan,
        "ask_user" => ToolKind::Question,
        _ if name.starts_with("mcp_") => ToolKind::Mcp,
        _ => ToolKind::Other,
    }
}

/// What an edit changed: the diff that the result shows, without its header.
fn changes(call: &Value) -> Vec<FileChange> {
    let path = call.pointer("/args/file_path").and_then(Value::as_str);
    let shown = call.pointer("/resultDisplay/fileDiff").and_then(Value::as_str);
    let diff = match shown {
        Some(diff) => diff.find("@@ ").map(|hunks| diff[hunks..].to_owned()),
        None if kind_of(str_at(call, "name").unwrap_or_default()) == ToolKind::Edit => {
            let text = |key: &str| call.pointer(&format!("/args/{key}")).and_then(Value::as_str);
            match (text("content"), text("new_string")) {
                (Some(content), _) => Some(diff::unified("", content)),
                (None, Some(new)) => Some(diff::unified(text("old_string").unwrap_or_default(), new)),
                (None, None) => None,
            }
        }
        None => None,
    };
    let change = path.zip(diff).map(|(path, diff)| FileChange {
        path: path.to_owned(),
        diff,
    });
    change.into_iter().collect()
}

/// What a tool gave: as it was shown, else as the model got it.
fn output(call: &Value) -> String {
    if let Some(shown) = str_at(call, "resultDisplay").filter(|shown| !shown.is_empty()) {
        return shown.to_owned();
    }
    let responses = list_at(call, "result")
        .iter()
        .filter_map(|part| part.pointer("/functionResponse/response"));
    let texts = responses.filter_map(|r| str_at(r, "output").or_else(|| str_at(r, "error")));
    texts.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn thoughts_come_before_the_text_and_results_after_their_call() {
        let (time, events) = events(
            &json!({"id": "m", "timestamp": "2026-11-20T18:04:45.724Z", "type": "gemini", "content": "Running it.",
            "thoughts": [{"subject": "S", "description": "d"}], "tokens": {"input": 5, "output": 2, "cached": 1},
            "toolCalls": [{"id": "t", "name": "run_shell_command", "args": {"command": "ls"}, "status": "error",
                "result": [{"functionResponse": {"response": {"error": "denied"}}}]}]}),
        );
        assert_eq!(time.as_deref(), Some("2026-11-20T18:04:45.724Z"));
        assert!(matches!(&events[0], Event::Thinking { text, .. } if text == "**S**\n\nd"));
        assert!(matches!(&events[1], Event::Text { text, .. } if text == "Running it."));
        assert!(
            matches!(&events[2], Event::ToolCall { kind: ToolKind::Command, title, .. } if title == "ls")
        );
        assert!(matches!(&events[3], Event::ToolResult { is_error: true, output, .. } if output == "denied"));
        assert!(matches!(&events[4], Event::Usage(usage) if usage.input_tokens == Some(5)));
    }

    #[test]
    fn a_call_without_a_status_has_no_result_yet() {
        let (_, events) = events(
            &json!({"id": "m", "type": "gemini", "content": "", "toolCalls": [{"id": "t", "name": "x"}]}),
        );
        assert_eq!(events.len(), 1);
    }
}
