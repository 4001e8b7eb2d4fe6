//! Claude Code's history.

mod events;
mod fold;
mod live;
mod sub_agents;

pub(crate) use fold::slug;

use crate::AgentKind;
use crate::delete::names_in;
use crate::format::{Format, Teller, Told};
use crate::homes::{Files, Found, each_dir, each_file, is_safe_id, read_side_file};
use crate::query::FileRow;
use crate::shapes::{LiveSession, Session};
use crate::summary::Summary;
use arp_agents::event::Event;
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use sub_agents::SubAgents;

/// Claude Code's format: `projects/SLUG/ID.jsonl`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claude;

impl Format for Claude {
    fn agent(&self) -> AgentKind {
        AgentKind::Claude
    }

    fn find(&self, home: &Path, files: &mut Files) {
        each_dir(&home.join("projects"), |dir, path| {
            each_file(&path, |name, stamp| {
                let id = name
                    .strip_suffix(".jsonl")
                    .filter(|id| is_safe_id(id) && !id.starts_with("agent-"));
                let Some(id) = id else { return };
                files.add(Found {
                    rel: format!("projects/{dir}/{name}"),
                    dir: dir.to_owned(),
                    id: Some(id.to_owned()),
                    archived: false,
                    stamp,
                });
            });
        });
    }

    fn add(&self, to: &mut Summary, dir: &str, _number: u64, _offset: u64, line: &[u8]) {
        fold::add(to, dir, line);
    }

    fn is_housekeeping(&self, kind: &str) -> bool {
        let told = [
            "user",
            "assistant",
            "system",
            "summary",
            "custom-title",
            "ai-title",
            "cost-state",
        ];
        !told.contains(&kind)
    }

    fn told<'c>(&self, file: &Path, counter: &'c AtomicU64) -> Told<'c> {
        let teller = Box::new(Lines {
            sub_agents: SubAgents::of(file, counter),
        });
        Told::Lines { teller, lead: false }
    }

    /// Adds the todo list.
    fn complete(&self, home: &Path, session: &mut Session) {
        // The id is a file's name as it was found (see `is_safe_id`).
        let name = format!("{0}-agent-{0}.json", session.id);
        let todo = read_side_file(&home.join("todos").join(name));
        session.todo_data = todo.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    }

    fn live(&self, home: &Path) -> Vec<LiveSession> {
        live::find(home)
    }

    fn beside(&self, home: &Path, id: &str, files: &[FileRow]) -> Vec<String> {
        let mut all: Vec<String> = files.iter().map(|f| format!("projects/{}/{id}", f.dir)).collect();
        for dir in ["session-env", "file-history", "tasks"] {
            all.push(format!("{dir}/{id}"));
        }
        let todos = names_in(&home.join("todos"), |name| {
            name.starts_with(id) && name.ends_with(".json")
        });
        all.extend(todos.into_iter().map(|name| format!("todos/{name}")));
        all
    }
}

/// A session's lines; what its sub-agents did is told where they were started.
struct Lines<'c> {
    sub_agents: SubAgents<'c>,
}

impl Teller for Lines<'_> {
    fn tell(&mut self, _number: u64, line: &Value) -> Vec<(Option<String>, Event)> {
        let (time, said) = events::events(line, None);
        let inner = self.sub_agents.told_by(&said);
        let own = said.into_iter().map(|event| (time.clone(), event));
        own.chain(inner).collect()
    }
}
