//! What a Codex thread tells in a turn, as events; sub-agents' threads show inside the call that began them.

use super::items::{item_completed, item_started, tool_call, user_text};
use crate::card::plan_at;
use crate::event::{Event, Usage};
use crate::text::{array_at, str_at, string_at};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most sub-agent threads whose place is remembered.
const MAX_CHILDREN: usize = 256;

/// Items that are being worked on, and what is known of sub-agents.
#[derive(Debug, Default)]
pub(super) struct Thread {
    /// Items that began and are not done.
    open: BTreeMap<String, Value>,
    /// The call that began each sub-agent's thread.
    children: BTreeMap<String, String>,
    /// Prompts that were sent, and whose echo is still to come.
    echoes: usize,
    /// Commands that an interrupt left running, to be ended.
    pub(super) to_end: Vec<String>,
}

impl Thread {
    /// A prompt was sent and told; Codex will echo it.
    pub(super) fn prompt_sent(&mut self) {
        self.echoes += 1;
    }

    /// An item that is being worked on.
    pub(super) fn item(&self, id: &str) -> Option<&Value> {
        self.open.get(id)
    }

    /// The commands that run now.
    pub(super) fn running_commands(&self) -> Vec<String> {
        let commands = self
            .open
            .iter()
            .filter(|(_, item)| str_at(item, "type") == Some("commandExecution"));
        commands.map(|(id, _)| id.clone()).collect()
    }

    /// A notification of a sub-agent's thread.
    pub(super) fn foreign(&mut self, thread: &str, method: &str, params: &Value) -> Vec<Event> {
        if !method.starts_with("item/") {
            return Vec::new();
        }
        let parent = self
            .children
            .get(thread)
            .cloned()
            .unwrap_or_else(|| thread.to_owned());
        self.told(method, params, Some(&parent))
    }

    /// A notification about an item, the plan or the tokens.
    pub(super) fn told(&mut self, method: &str, params: &Value, parent: Option<&str>) -> Vec<Event> {
        let item = params.get("item").unwrap_or(&Value::Null);
        let fragment = || -> Option<(String, String)> {
            let text = string_at(params, "delta").filter(|text| !text.is_empty())?;
            Some((string_at(params, "itemId")?, text))
        };
        let owner = parent.map(str::to_owned);
        match method {
            "item/started" => self.started(item, parent),
            "item/completed" => self.completed(item, parent),
            "item/fileChange/patchUpdated" => self.patch_updated(params, parent),
            "item/agentMessage/delta" | "item/plan/delta" => fragment()
                .map(|(id, text)| Event::Text {
                    id,
                    text,
                    delta: true,
                    parent: owner,
                })
                .into_iter()
                .collect(),
            "item/reasoning/summaryTextDelta" | "item/reasoning/textDelta" => fragment()
                .map(|(id, text)| Event::Thinking {
                    id,
                    text,
                    delta: true,
                    parent: owner,
                })
                .into_iter()
                .collect(),
            "item/reasoning/summaryPartAdded" => {
                let further = params.get("summaryIndex").and_then(Value::as_u64).unwrap_or(0) > 0;
                let id = string_at(params, "itemId").filter(|_| further);
                id.map(|id| Event::Thinking {
                    id,
                    text: "\n\n".to_owned(),
                    delta: true,
                    parent: owner,
                })
                .into_iter()
                .collect()
            }
            "item/commandExecution/outputDelta" => fragment()
                .map(|(id, output)| Event::ToolResult {
                    id,
                    output,
                    delta: true,
                    is_error: false,
                    exit_code: None,
                    parent: owner,
                })
                .into_iter()
                .collect(),
            "turn/plan/updated" => plan_at(params, "plan")
                .map(|entries| Event::Plan { entries })
                .into_iter()
                .collect(),
            "thread/tokenUsage/updated" => vec![Event::Usage(usage(params.pointer("/tokenUsage/total")))],
            "warning" | "guardianWarning" => {
                vec![Event::Raw {
                    data: json!({"type": method, "message": params.get("message")}),
                }]
            }
            _ => Vec::new(),
        }
    }

    /// What was begun will not be finished: a card must not spin for ever.
    pub(super) fn turn_ended(&mut self) -> Vec<Event> {
        self.echoes = 0;
        let open = std::mem::take(&mut self.open);
        open.into_iter()
            .filter(|(_, item)| tool_call(item, None).is_some())
            .map(|(id, _)| Event::ToolResult {
                id,
                output: "Stopped.".to_owned(),
                delta: false,
                is_error: true,
                exit_code: None,
                parent: None,
            })
            .collect()
    }

    fn started(&mut self, item: &Value, parent: Option<&str>) -> Vec<Event> {
        if let Some(id) = string_at(item, "id") {
            self.open.insert(id, item.clone());
        }
        item_started(item, parent)
    }

    fn completed(&mut self, item: &Value, parent: Option<&str>) -> Vec<Event> {
        let id = str_at(item, "id").unwrap_or_default();
        let began = self.open.remove(id).is_some();
        if str_at(item, "type") == Some("userMessage") && parent.is_none() {
            if self.echoes > 0 {
                self.echoes -= 1;
                return Vec::new();
            }
            return vec![Event::UserMessage {
                id: Some(id.to_owned()),
                text: user_text(item),
            }];
        }
        if str_at(item, "type") == Some("collabAgentToolCall") {
            for child in array_at(item, "receiverThreadIds")
                .iter()
                .filter_map(Value::as_str)
            {
                if self.children.len() < MAX_CHILDREN {
                    self.children
                        .entry(child.to_owned())
                        .or_insert_with(|| id.to_owned());
                }
            }
        }
        let mut events = Vec::new();
        // A search tells what it looked for only when it is done.
        if !began || str_at(item, "type") == Some("webSearch") {
            events.extend(tool_call(item, parent));
        }
        events.extend(item_completed(item, parent));
        events
    }

    fn patch_updated(&mut self, params: &Value, parent: Option<&str>) -> Vec<Event> {
        let Some(item) = str_at(params, "itemId").and_then(|id| self.open.get_mut(id)) else {
            return Vec::new();
        };
        if let Some(changes) = params.get("changes") {
            item["changes"] = changes.clone();
        }
        tool_call(item, parent).into_iter().collect()
    }
}

fn usage(total: Option<&Value>) -> Usage {
    let number = |key: &str| total.and_then(|total| total.get(key)).and_then(Value::as_u64);
    Usage {
        input_tokens: number("inputTokens"),
        cached_input_tokens: number("cachedInputTokens"),
        output_tokens: number("outputTokens"),
        cost_usd: None,
    }
}
