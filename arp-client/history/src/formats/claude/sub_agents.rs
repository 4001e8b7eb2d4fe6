//! Claude's sub-agents: each writes a file of its own beside the session's, `ID/subagents/agent-….jsonl`, and a note of
//! the call that started it. In events they are told where that call is, as they are while they run.

use crate::defaults::MAX_PAGE_BYTES;
use crate::events;
use crate::homes::{self, each_file, read_side_file};
use crate::lines::{Lines, Position};
use arp_agents::event::Event;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

/// Sub-agents of one session that are looked at.
const MAX_AGENTS: usize = 1_000;

/// The sub-agents of a session that were not told yet, by the call that started them.
pub(crate) struct SubAgents<'c> {
    files: HashMap<String, PathBuf>,
    counter: &'c AtomicU64,
    /// Bytes of their lines that may still be told on this page.
    budget: u64,
}

/// `agent-….meta.json`.
#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "toolUseId")]
    tool_use_id: String,
}

impl<'c> SubAgents<'c> {
    /// Finds those of the session whose file this is.
    pub(crate) fn of(file: &Path, counter: &'c AtomicU64) -> Self {
        let mut found = HashMap::new();
        let own = file.with_extension("");
        let dir = own.join("subagents");
        let is_dir = |path: &Path| path.symlink_metadata().is_ok_and(|m| m.is_dir());
        if is_dir(&own) && is_dir(&dir) {
            each_file(&dir, |name, _| {
                if let Some(stem) = name.strip_suffix(".meta.json")
                    && found.len() < MAX_AGENTS
                    && let Some(bytes) = read_side_file(&dir.join(name))
                    && let Ok(meta) = serde_json::from_slice::<Meta>(&bytes)
                {
                    found.insert(meta.tool_use_id, dir.join(format!("{stem}.jsonl")));
                }
            });
        }
        Self {
            files: found,
            counter,
            budget: MAX_PAGE_BYTES,
        }
    }

    /// What the sub-agents did that were started by calls among these events, each with its time; those started by
    /// sub-agents too.
    pub(crate) fn told_by(&mut self, said: &[Event]) -> Vec<(Option<String>, Event)> {
        let mut all = Vec::new();
        for event in said {
            let Event::ToolCall { id, .. } = event else {
                continue;
            };
            // Taken out: none is told twice, however they name one another.
            if let Some(file) = self.files.remove(id) {
                self.tell(&file, id, &mut all);
            }
        }
        all
    }

    fn tell(&mut self, file: &Path, call: &str, all: &mut Vec<(Option<String>, Event)>) {
        let Ok((file, stamp)) = homes::open(file) else {
            return;
        };
        let Ok(mut lines) = Lines::new(&file, self.counter, Position::default(), stamp.size) else {
            return;
        };
        while let Ok(Some(line)) = lines.next() {
            let len = line.len + 1;
            if len > self.budget {
                self.budget = 0;
                let data = serde_json::json!({"type": "sub_agent_cut", "reason": "its history is too long for one page"});
                return all.push((None, Event::Raw { data }));
            }
            self.budget -= len;
            let Some(value) = line.bytes.and_then(events::value) else {
                continue;
            };
            let (time, said) = super::events::events(&value, Some(call));
            let inner = self.told_by(&said);
            all.extend(said.into_iter().map(|event| (time.clone(), event)));
            all.extend(inner);
        }
    }
}
