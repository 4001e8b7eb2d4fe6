//! What a tool call looks like on a card, whichever agent made it.

use crate::event::{FileChange, PlanEntry, PlanStatus, ToolKind};
use crate::text::{array_at, str_at, string_at};
use serde_json::Value;

/// The drawable side of a tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCard {
    /// What sort of tool.
    pub kind: ToolKind,
    /// One line: the command, the path, the question.
    pub title: String,
    /// For edits: what changes.
    pub changes: Vec<FileChange>,
}

impl ToolCard {
    /// A card without changes.
    #[must_use]
    pub fn plain(kind: ToolKind, title: impl Into<String>) -> Self {
        Self {
            kind,
            title: title.into(),
            changes: Vec::new(),
        }
    }
}

/// The steps in a list of todos, whose texts are under one of `content`, `description` and `step`.
pub(crate) fn plan_entries(list: &[Value]) -> Vec<PlanEntry> {
    list.iter()
        .map(|item| PlanEntry {
            content: ["content", "description", "step"]
                .iter()
                .find_map(|key| string_at(item, key))
                .unwrap_or_default(),
            status: match str_at(item, "status") {
                Some("completed" | "done") => PlanStatus::Completed,
                Some("in_progress" | "inProgress") => PlanStatus::InProgress,
                _ => PlanStatus::Pending,
            },
        })
        .collect()
}

/// The steps under `key` of a tool's arguments, if there is a list.
pub(crate) fn plan_at(input: &Value, key: &str) -> Option<Vec<PlanEntry>> {
    input
        .get(key)?
        .is_array()
        .then(|| plan_entries(array_at(input, key)))
}
