//! Codex's items (messages, commands, edits, tool calls) as events.

use crate::card::ToolCard;
use crate::diff;
use crate::event::{Event, FileChange, ToolKind};
use crate::text::{array_at, content_text, one_line, str_at, string_at};
use serde_json::{Value, json};

/// What an item that began looks like; nothing for items that are only told when they are done.
#[must_use]
pub fn item_started(item: &Value, parent: Option<&str>) -> Vec<Event> {
    tool_call(item, parent).into_iter().collect()
}

/// What a finished item looks like: its text, or the result of its tool.
///
/// The call itself is told by [`item_started`]; a reader of finished items alone (a history) calls both.
#[must_use]
pub fn item_completed(item: &Value, parent: Option<&str>) -> Vec<Event> {
    let id = string_at(item, "id").unwrap_or_default();
    let parent = parent.map(str::to_owned);
    match kind_of(item) {
        "agentMessage" | "plan" => match string_at(item, "text").filter(|text| !text.is_empty()) {
            Some(text) => vec![Event::Text {
                id,
                text,
                delta: false,
                parent,
            }],
            None => Vec::new(),
        },
        "reasoning" => {
            let parts =
                |key: &str| -> Vec<&str> { array_at(item, key).iter().filter_map(Value::as_str).collect() };
            let summary = parts("summary");
            let text = if summary.is_empty() {
                parts("content")
            } else {
                summary
            }
            .join("\n\n");
            if text.is_empty() {
                Vec::new()
            } else {
                vec![Event::Thinking {
                    id,
                    text,
                    delta: false,
                    parent,
                }]
            }
        }
        _ if is_tool(item) => {
            let status = str_at(item, "status").unwrap_or("completed");
            let exit_code = item.get("exitCode").and_then(Value::as_i64);
            let succeeded =
                item.get("success").and_then(Value::as_bool) != Some(false) && exit_code.unwrap_or(0) == 0;
            vec![Event::ToolResult {
                id,
                output: output(item, status),
                delta: false,
                is_error: !succeeded || matches!(status, "failed" | "declined"),
                exit_code,
                parent,
            }]
        }
        "userMessage" | "hookPrompt" | "functionCallOutput" | "subAgentActivity" | "sleep"
        | "contextCompaction" | "enteredReviewMode" | "exitedReviewMode" => Vec::new(),
        _ => vec![Event::Raw { data: item.clone() }],
    }
}

/// The text of an item that is a prompt.
#[must_use]
pub fn user_text(item: &Value) -> String {
    let texts: Vec<&str> = array_at(item, "content")
        .iter()
        .filter_map(|part| str_at(part, "text"))
        .collect();
    texts.join("\n")
}

/// The tool call that an item is, if it is one.
pub(super) fn tool_call(item: &Value, parent: Option<&str>) -> Option<Event> {
    if !is_tool(item) {
        return None;
    }
    let card = card(item);
    Some(Event::ToolCall {
        id: string_at(item, "id").unwrap_or_default(),
        name: tool_name(item),
        kind: card.kind,
        title: card.title,
        input: input(item),
        changes: card.changes,
        parent: parent.map(str::to_owned),
    })
}

/// The command inside the shell call that Codex wraps it in.
pub(super) fn bare_command(command: &str) -> &str {
    let Some((shell, script)) = command.split_once(" -lc ").or_else(|| command.split_once(" -c ")) else {
        return command;
    };
    let is_shell = ["bash", "sh", "zsh"]
        .iter()
        .any(|name| shell.rsplit('/').next() == Some(name));
    if !is_shell {
        return command;
    }
    // Only quoting that can be taken off without changing what is inside.
    let quoted = |quote: char| {
        script
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
            .filter(|inside| !inside.contains(quote) && !inside.contains('\\'))
    };
    quoted('\'').or_else(|| quoted('"')).unwrap_or(script)
}

/// The diffs of an edit item.
pub(super) fn changes(item: &Value) -> Vec<FileChange> {
    array_at(item, "changes")
        .iter()
        .map(|change| {
            let text = str_at(change, "diff").unwrap_or_default();
            let diff = match change.pointer("/kind/type").and_then(Value::as_str) {
                // For these two it is the file's content, not a diff.
                Some("add") => diff::unified("", text),
                Some("delete") => diff::unified(text, ""),
                _ => text.to_owned(),
            };
            FileChange {
                path: string_at(change, "path").unwrap_or_default(),
                diff,
            }
        })
        .collect()
}

fn kind_of(item: &Value) -> &str {
    str_at(item, "type").unwrap_or_default()
}

fn is_tool(item: &Value) -> bool {
    matches!(
        kind_of(item),
        "commandExecution"
            | "fileChange"
            | "mcpToolCall"
            | "dynamicToolCall"
            | "collabAgentToolCall"
            | "webSearch"
            | "imageView"
            | "imageGeneration"
    )
}

fn tool_name(item: &Value) -> String {
    let part = |key: &str| str_at(item, key).unwrap_or_default();
    match kind_of(item) {
        "mcpToolCall" => format!("mcp__{}__{}", part("server"), part("tool")),
        "dynamicToolCall" | "collabAgentToolCall" => part("tool").to_owned(),
        other => other.to_owned(),
    }
}

fn card(item: &Value) -> ToolCard {
    let part = |key: &str| str_at(item, key).unwrap_or_default();
    match kind_of(item) {
        "commandExecution" => ToolCard::plain(command_kind(item), one_line(bare_command(part("command")))),
        "fileChange" => {
            let changes = changes(item);
            let title = match changes.as_slice() {
                [one] => one.path.clone(),
                [first, rest @ ..] => format!("{} and {} more", first.path, rest.len()),
                [] => "edit".to_owned(),
            };
            ToolCard {
                kind: ToolKind::Edit,
                title,
                changes,
            }
        }
        "mcpToolCall" => ToolCard::plain(ToolKind::Mcp, format!("{} ({})", part("tool"), part("server"))),
        "collabAgentToolCall" => {
            let prompt = one_line(part("prompt"));
            ToolCard::plain(
                ToolKind::Task,
                if prompt.is_empty() {
                    part("tool").to_owned()
                } else {
                    prompt
                },
            )
        }
        "webSearch" => ToolCard::plain(ToolKind::Search, one_line(part("query"))),
        "imageView" => ToolCard::plain(ToolKind::Read, part("path")),
        _ => ToolCard::plain(ToolKind::Other, tool_name(item)),
    }
}

/// Reading and searching are told from other commands by what Codex parsed, when all parts are such.
fn command_kind(item: &Value) -> ToolKind {
    let actions = array_at(item, "commandActions");
    let all = |kinds: &[&str]| {
        !actions.is_empty()
            && actions
                .iter()
                .all(|action| str_at(action, "type").is_some_and(|t| kinds.contains(&t)))
    };
    if all(&["read"]) {
        ToolKind::Read
    } else if all(&["read", "search", "listFiles"]) {
        ToolKind::Search
    } else {
        ToolKind::Command
    }
}

fn input(item: &Value) -> Value {
    match kind_of(item) {
        "commandExecution" => json!({"command": item.get("command"), "cwd": item.get("cwd")}),
        "fileChange" => json!({"changes": item.get("changes")}),
        "mcpToolCall" | "dynamicToolCall" => item.get("arguments").cloned().unwrap_or_default(),
        "collabAgentToolCall" => json!({"prompt": item.get("prompt"), "model": item.get("model")}),
        "webSearch" => json!({"query": item.get("query"), "action": item.get("action")}),
        _ => item.clone(),
    }
}

fn output(item: &Value, status: &str) -> String {
    let mut text = match kind_of(item) {
        "commandExecution" => string_at(item, "aggregatedOutput").unwrap_or_default(),
        "mcpToolCall" => match item.pointer("/error/message").and_then(Value::as_str) {
            Some(error) => error.to_owned(),
            None => content_text(item.pointer("/result/content").unwrap_or(&Value::Null)),
        },
        "dynamicToolCall" => content_text(item.get("contentItems").unwrap_or(&Value::Null)),
        "collabAgentToolCall" => {
            let states = item.get("agentsStates").and_then(Value::as_object);
            let said = states
                .into_iter()
                .flat_map(|all| all.values())
                .filter_map(|state| str_at(state, "message"));
            said.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    };
    if text.is_empty() && status == "declined" {
        "Denied.".clone_into(&mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_around_a_command_is_taken_off() {
        assert_eq!(
            bare_command("/bin/bash -lc 'touch a && echo b'"),
            "touch a && echo b"
        );
        assert_eq!(bare_command("/bin/bash -lc ls"), "ls");
        assert_eq!(bare_command("bash -lc \"python3 -c 'x'\""), "python3 -c 'x'");
        assert_eq!(bare_command("cat x"), "cat x");
    }

    #[test]
    fn quoting_that_cannot_be_taken_off_stays() {
        let tricky = "/bin/bash -lc 'echo '\\''hi'\\'''";
        assert_eq!(bare_command(tricky), "'echo '\\''hi'\\'''");
        assert_eq!(bare_command("git commit -c 'x'"), "git commit -c 'x'");
    }

    #[test]
    fn a_command_that_only_reads_is_shown_as_reading() {
        let item = |kinds: &[&str]| {
            let actions: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
            json!({"type": "commandExecution", "commandActions": actions})
        };
        assert_eq!(command_kind(&item(&["read"])), ToolKind::Read);
        assert_eq!(command_kind(&item(&["read", "search"])), ToolKind::Search);
        assert_eq!(command_kind(&item(&["read", "unknown"])), ToolKind::Command);
        assert_eq!(command_kind(&item(&[])), ToolKind::Command);
    }

    #[test]
    fn new_and_deleted_files_become_diffs() {
        let item = json!({"changes": [
            {"path": "a", "kind": {"type": "add"}, "diff": "hi\n"},
            {"path": "d", "kind": {"type": "delete"}, "diff": "bye\n"},
            {"path": "u", "kind": {"type": "update", "move_path": null}, "diff": "@@ -1 +1 @@\n-a\n+b\n"},
        ]});
        let diffs: Vec<String> = changes(&item).into_iter().map(|change| change.diff).collect();
        assert_eq!(
            diffs,
            [
                "@@ -0,0 +1 @@\n+hi\n",
                "@@ -1 +0,0 @@\n-bye\n",
                "@@ -1 +1 @@\n-a\n+b\n"
            ]
        );
    }
}
