//! Claude's tools as cards: what they do in one line, and the diff of those that edit.

use crate::card::{ToolCard, descriptions};
use crate::diff;
use crate::event::{FileChange, Question, ToolKind};
use crate::text::{array_at, one_line, str_at, string_at};
use serde_json::Value;

/// The card of a call of the tool `name` with the arguments `input`.
#[must_use]
pub fn tool_card(name: &str, input: &Value) -> ToolCard {
    let field = |keys: &[&str]| keys.iter().find_map(|key| str_at(input, key)).map(one_line);
    let (kind, title) = match name {
        "Bash" | "BashOutput" | "KillShell" | "Monitor" => {
            (ToolKind::Command, field(&["command", "bash_id", "shell_id"]))
        }
        "Edit" | "MultiEdit" | "Write" => (ToolKind::Edit, field(&["file_path"])),
        "NotebookEdit" => (ToolKind::Edit, field(&["notebook_path"])),
        "Read" | "NotebookRead" => (ToolKind::Read, field(&["file_path", "notebook_path"])),
        "LS" => (ToolKind::Read, field(&["path"])),
        "Glob" | "Grep" => (ToolKind::Search, field(&["pattern"])),
        "WebSearch" | "ToolSearch" => (ToolKind::Search, field(&["query"])),
        "WebFetch" => (ToolKind::Fetch, field(&["url"])),
        "Task" | "Agent" => (ToolKind::Task, field(&["description", "prompt"])),
        "TodoWrite" => (
            ToolKind::Plan,
            Some(format!("{} steps", array_at(input, "todos").len())),
        ),
        "ExitPlanMode" => (
            ToolKind::Plan,
            field(&["plan"]).or_else(|| Some("Plan".to_owned())),
        ),
        "EnterPlanMode" => (ToolKind::Plan, Some("Plan first".to_owned())),
        "AskUserQuestion" => (
            ToolKind::Question,
            array_at(input, "questions")
                .first()
                .and_then(|q| str_at(q, "question"))
                .map(one_line),
        ),
        _ => match name.strip_prefix("mcp__").and_then(|rest| rest.split_once("__")) {
            Some((server, tool)) => (ToolKind::Mcp, Some(format!("{tool} ({server})"))),
            None => (ToolKind::Other, field(&["description", "title"])),
        },
    };
    ToolCard {
        kind,
        title: title
            .filter(|title| !title.is_empty())
            .unwrap_or_else(|| name.to_owned()),
        changes: changes(name, input),
    }
}

/// The questions that a call of `AskUserQuestion` asks.
#[must_use]
pub fn questions(input: &Value) -> Vec<Question> {
    array_at(input, "questions")
        .iter()
        .map(|question| {
            let label = |option: &Value| {
                option
                    .as_str()
                    .map(str::to_owned)
                    .or_else(|| string_at(option, "label"))
            };
            let offered: Vec<&Value> = array_at(question, "options")
                .iter()
                .filter(|option| label(option).is_some())
                .collect();
            Question {
                text: string_at(question, "question").unwrap_or_default(),
                header: string_at(question, "header"),
                options: offered.iter().filter_map(|option| label(option)).collect(),
                descriptions: descriptions(&offered),
                multiple: question
                    .get("multiSelect")
                    .and_then(Value::as_bool)
                    .unwrap_or(false),
            }
        })
        .collect()
}

/// The diff that an edit's result tells, with the line numbers of the whole file.
pub(super) fn changes_of_result(result: &Value) -> Option<FileChange> {
    let path = string_at(result, "filePath")?;
    let mut diff = String::new();
    for hunk in array_at(result, "structuredPatch") {
        let number = |key: &str| hunk.get(key).and_then(Value::as_u64).unwrap_or_default();
        diff.push_str(&format!(
            "@@ -{},{} +{},{} @@\n",
            number("oldStart"),
            number("oldLines"),
            number("newStart"),
            number("newLines")
        ));
        for line in array_at(hunk, "lines").iter().filter_map(Value::as_str) {
            diff.push_str(line);
            diff.push('\n');
        }
    }
    (!diff.is_empty()).then_some(FileChange { path, diff })
}

fn changes(name: &str, input: &Value) -> Vec<FileChange> {
    let text = |value: &Value, key: &str| string_at(value, key).unwrap_or_default();
    let edit = |value: &Value| diff::fragment(&text(value, "old_string"), &text(value, "new_string"));
    let (path, diff) = match name {
        "Edit" => ("file_path", edit(input)),
        "MultiEdit" => (
            "file_path",
            array_at(input, "edits").iter().map(edit).collect::<String>(),
        ),
        "Write" => ("file_path", diff::unified("", &text(input, "content"))),
        "NotebookEdit" => ("notebook_path", diff::fragment("", &text(input, "new_source"))),
        _ => return Vec::new(),
    };
    match str_at(input, path) {
        Some(path) => vec![FileChange {
            path: path.to_owned(),
            diff,
        }],
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_command_is_its_first_line() {
        let card = tool_card(
            "Bash",
            &json!({"command":"make\nmake test","description":"Build"}),
        );
        assert_eq!(card, ToolCard::plain(ToolKind::Command, "make…"));
    }

    #[test]
    fn edits_carry_their_diff() {
        let card = tool_card(
            "MultiEdit",
            &json!({"file_path":"/p/a","edits":[{"old_string":"a","new_string":"b"},{"old_string":"c","new_string":"d"}]}),
        );
        assert_eq!(card.title, "/p/a");
        assert_eq!(card.changes[0].diff, "@@\n-a\n+b\n@@\n-c\n+d\n");
        let card = tool_card("Write", &json!({"file_path":"/p/n","content":"x\n"}));
        assert_eq!(card.changes[0].diff, "@@ -0,0 +1 @@\n+x\n");
    }

    #[test]
    fn an_mcp_tool_names_its_server() {
        assert_eq!(
            tool_card("mcp__files__read_all", &json!({})),
            ToolCard::plain(ToolKind::Mcp, "read_all (files)")
        );
    }

    #[test]
    fn an_unknown_tool_without_arguments_is_its_name() {
        assert_eq!(
            tool_card("CronList", &json!(null)),
            ToolCard::plain(ToolKind::Other, "CronList")
        );
    }
}
