//! What a tool call looks like on a card, whichever agent made it.

use crate::event::{FileChange, PlanEntry, PlanStatus, ToolKind};
use crate::text::{array_at, str_at, string_at};
use serde_json::Value;
use std::collections::BTreeMap;

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

/// Ids of approvals: each is given once, though an agent may use an id of its own again. So a decision about one
/// question is never taken for one about a later question.
#[derive(Debug, Default)]
pub(crate) struct ApprovalIds(BTreeMap<String, u32>);

impl ApprovalIds {
    /// The id for a question that the agent calls `wanted`.
    pub(crate) fn give(&mut self, wanted: String) -> String {
        let given = self.0.entry(wanted.clone()).or_default();
        *given = given.saturating_add(1);
        match *given {
            1 => wanted,
            again => format!("{wanted}~{again}"),
        }
    }
}

/// What each of the choices of a question means; empty when none is explained.
pub(crate) fn descriptions(options: &[&Value]) -> Vec<String> {
    let all: Vec<String> = options
        .iter()
        .map(|option| string_at(option, "description").unwrap_or_default())
        .collect();
    if all.iter().all(String::is_empty) {
        Vec::new()
    } else {
        all
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
