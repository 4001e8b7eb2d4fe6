//! What an edit that waits for approval would make of a file as it is now.
//!
//! An agent asks with texts: a file's new content, or a part and what takes its place. What the person who decides
//! wants to know is what becomes of the file on the disk. Nothing is read here: the caller gives the present content.

use crate::diff;
use crate::event::{Approval, ToolKind};
use crate::text::{array_at, string_at};
use serde::Serialize;
use serde_json::Value;

/// One file that an approval would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The path as the agent gave it; may be relative to the session's directory.
    pub path: String,
    /// Where the file is moved to, besides.
    pub moved_to: Option<String>,
    how: How,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum How {
    /// The file holds this and nothing else.
    Write(String),
    /// Parts of the file are replaced, one after the other.
    Replace(Vec<Replacement>),
    /// The file is removed.
    Delete,
    /// The agent made the hunks from the file itself.
    Patch(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Replacement {
    old: String,
    new: String,
    all: bool,
}

/// What would happen to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileAction {
    /// It does not exist yet.
    Create,
    /// It exists, and all of its content is replaced.
    Overwrite,
    /// A part of it is changed.
    Edit,
    /// It is removed.
    Delete,
}

/// Why a proposal does not fit the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Misfit {
    /// The part to be replaced is not in the file, or is there more than once.
    NoMatch,
    /// There is no such file.
    Missing,
}

/// A proposal compared with the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// What happens to the file.
    pub action: FileAction,
    /// Unified diff from the present content, with the line numbers of the file.
    pub diff: String,
}

/// The files that an approval would change, as far as its arguments tell.
#[must_use]
pub fn proposals(approval: &Approval) -> Vec<Proposal> {
    let input = &approval.input;
    match approval.tool_name.as_str() {
        "Write" => single(input, How::Write(string_at(input, "content").unwrap_or_default())),
        "Edit" => single(input, How::Replace(vec![replacement(input)])),
        "MultiEdit" => single(
            input,
            How::Replace(array_at(input, "edits").iter().map(replacement).collect()),
        ),
        _ if approval.kind == ToolKind::Edit => {
            array_at(input, "changes").iter().filter_map(change).collect()
        }
        _ => Vec::new(),
    }
}

/// Claude's tools change one file a call.
fn single(input: &Value, how: How) -> Vec<Proposal> {
    string_at(input, "file_path")
        .map(|path| Proposal {
            path,
            moved_to: None,
            how,
        })
        .into_iter()
        .collect()
}

fn replacement(edit: &Value) -> Replacement {
    Replacement {
        old: string_at(edit, "old_string").unwrap_or_default(),
        new: string_at(edit, "new_string").unwrap_or_default(),
        all: edit.get("replace_all").and_then(Value::as_bool) == Some(true),
    }
}

/// A change as Codex tells it (`kind`, `diff`) or as the Agent Client Protocol does (`old_text`, `new_text`).
fn change(change: &Value) -> Option<Proposal> {
    let path = string_at(change, "path")?;
    let text = string_at(change, "diff").unwrap_or_default();
    let how = match change.pointer("/kind/type").and_then(Value::as_str) {
        Some("add") => How::Write(text),
        Some("delete") => How::Delete,
        Some(_) => How::Patch(text),
        None => {
            let new = string_at(change, "new_text")?;
            match string_at(change, "old_text").filter(|old| !old.is_empty()) {
                Some(old) => How::Replace(vec![Replacement { old, new, all: false }]),
                None => How::Write(new),
            }
        }
    };
    let moved_to = change
        .pointer("/kind/move_path")
        .and_then(Value::as_str)
        .map(str::to_owned);
    Some(Proposal { path, moved_to, how })
}

impl Proposal {
    /// Compares with the file's present content; `None` where there is no file.
    ///
    /// # Errors
    /// [`Misfit`] when the edit cannot be made on this file.
    pub fn against(&self, present: Option<&str>) -> Result<Effect, Misfit> {
        // Agents read and compare files with plain line ends.
        let present = present.map(|text| text.replace("\r\n", "\n"));
        let effect = |action, old: &str, new: &str| Effect {
            action,
            diff: diff::unified(old, new),
        };
        match (&self.how, present) {
            (How::Write(new), None) => Ok(effect(FileAction::Create, "", new)),
            (How::Write(new), Some(old)) => {
                Ok(effect(FileAction::Overwrite, &old, &new.replace("\r\n", "\n")))
            }
            (How::Replace(parts), None) => match parts.as_slice() {
                [one] if one.old.is_empty() => Ok(effect(FileAction::Create, "", &one.new)),
                _ => Err(Misfit::Missing),
            },
            (How::Replace(parts), Some(old)) => {
                let mut text = old.clone();
                for part in parts {
                    text = part.replaced_in(&text).ok_or(Misfit::NoMatch)?;
                }
                Ok(effect(FileAction::Edit, &old, &text))
            }
            (How::Delete | How::Patch(_), None) => Err(Misfit::Missing),
            (How::Delete, Some(old)) => Ok(effect(FileAction::Delete, &old, "")),
            (How::Patch(hunks), Some(_)) => Ok(Effect {
                action: FileAction::Edit,
                diff: hunks.clone(),
            }),
        }
    }

    /// What would happen to the file if it could be made, with nothing known of the file's content.
    #[must_use]
    pub fn action(&self, exists: bool) -> FileAction {
        match self.how {
            How::Delete => FileAction::Delete,
            How::Write(_) if exists => FileAction::Overwrite,
            How::Write(_) => FileAction::Create,
            How::Replace(_) | How::Patch(_) => FileAction::Edit,
        }
    }
}

impl Replacement {
    fn replaced_in(&self, text: &str) -> Option<String> {
        let old = self.old.replace("\r\n", "\n");
        if old.is_empty() {
            // Fills a file that is empty.
            return text.is_empty().then(|| self.new.clone());
        }
        let new = self.new.replace("\r\n", "\n");
        match text.matches(old.as_str()).take(2).count() {
            0 => None,
            1 => Some(text.replacen(old.as_str(), &new, 1)),
            _ if self.all => Some(text.replace(old.as_str(), &new)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn proposal(tool: &str, input: Value) -> Proposal {
        let approval: Approval = serde_json::from_value(json!({
            "id": "a", "tool_call_id": null, "tool_name": tool, "kind": "edit", "title": "", "reason": null,
            "input": input, "can_allow_session": false, "can_edit": false,
        }))
        .unwrap();
        let mut all = proposals(&approval);
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    const FILE: &str = "one\ntwo\nthree\nfour\nfive\nsix\n";

    #[test]
    fn a_write_over_a_file_is_an_overwrite_with_its_diff() {
        let write = proposal("Write", json!({"file_path": "/p/a", "content": "one\nnew\n"}));
        let effect = write.against(Some("one\ntwo\n")).unwrap();
        assert_eq!(effect.action, FileAction::Overwrite);
        assert_eq!(effect.diff, "@@ -1,2 +1,2 @@\n one\n-two\n+new\n");
        assert_eq!(write.against(None).unwrap().action, FileAction::Create);
    }

    #[test]
    fn an_edit_has_the_line_numbers_of_the_file() {
        let edit = proposal(
            "Edit",
            json!({"file_path": "/p/a", "old_string": "five", "new_string": "FIVE"}),
        );
        let diff = edit.against(Some(FILE)).unwrap().diff;
        assert_eq!(diff, "@@ -2,5 +2,5 @@\n two\n three\n four\n-five\n+FIVE\n six\n");
        // The same through Windows' line ends.
        assert_eq!(
            edit.against(Some(&FILE.replace('\n', "\r\n"))).unwrap().diff,
            diff
        );
    }

    #[test]
    fn replacing_all_shows_every_place_and_an_ambiguous_edit_is_none() {
        let edit = |all: bool| {
            proposal(
                "Edit",
                json!({"file_path": "a", "old_string": "x", "new_string": "y", "replace_all": all}),
            )
        };
        assert_eq!(
            edit(true).against(Some("x\nx\n")).unwrap().diff,
            "@@ -1,2 +1,2 @@\n-x\n-x\n+y\n+y\n"
        );
        assert_eq!(edit(false).against(Some("x\nx\n")), Err(Misfit::NoMatch));
        assert_eq!(edit(false).against(Some("z\n")), Err(Misfit::NoMatch));
        assert_eq!(edit(false).against(None), Err(Misfit::Missing));
    }

    #[test]
    fn edits_of_one_call_build_on_each_other() {
        let edit = proposal(
            "MultiEdit",
            json!({"file_path": "a", "edits": [{"old_string": "a", "new_string": "b"}, {"old_string": "b", "new_string": "c"}]}),
        );
        assert_eq!(edit.against(Some("a\n")).unwrap().diff, "@@ -1 +1 @@\n-a\n+c\n");
    }

    #[test]
    fn adding_a_file_that_exists_overwrites_it_and_a_move_is_told() {
        let add = proposal(
            "fileChange",
            json!({"changes": [{"path": "a", "kind": {"type": "add"}, "diff": "new\n"}]}),
        );
        assert_eq!(add.against(Some("old\n")).unwrap().action, FileAction::Overwrite);
        let update = proposal(
            "fileChange",
            json!({"changes": [{"path": "a", "kind": {"type": "update", "move_path": "b"}, "diff": "@@ -1 +1 @@\n-a\n+b\n"}]}),
        );
        assert_eq!(update.moved_to.as_deref(), Some("b"));
        assert_eq!(update.against(Some("a\n")).unwrap().diff, "@@ -1 +1 @@\n-a\n+b\n");
        let delete = proposal(
            "fileChange",
            json!({"changes": [{"path": "a", "kind": {"type": "delete"}, "diff": "told\n"}]}),
        );
        assert_eq!(
            delete.against(Some("there\n")).unwrap().diff,
            "@@ -1 +0,0 @@\n-there\n"
        );
    }

    #[test]
    fn a_diff_of_the_protocol_is_placed_in_the_file() {
        let edit = proposal(
            "write_file",
            json!({"changes": [{"path": "a", "old_text": "six", "new_text": "6"}]}),
        );
        assert!(
            edit.against(Some(FILE))
                .unwrap()
                .diff
                .starts_with("@@ -3,4 +3,4 @@")
        );
    }
}
