//! Codex's history.

mod delete;
mod events;
mod fold;
mod live;
mod names;

use crate::AgentKind;
use crate::format::{Format, Teller, Told};
use crate::homes::{Files, Found, Stamp, each_dir, each_file};
use crate::project;
use crate::query::FileRow;
use crate::shapes::{LiveSession, Session};
use crate::summary::Summary;
use arp_agents::event::Event;
use names::Names;
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// Codex's format: `sessions/Y/M/D/rollout-….jsonl`.
#[derive(Default)]
pub(crate) struct Codex {
    names: Names,
}

impl Format for Codex {
    fn agent(&self) -> AgentKind {
        AgentKind::Codex
    }

    fn find(&self, home: &Path, files: &mut Files) {
        let mut take = |rel: &str, name: &str, archived: bool, stamp: Stamp| {
            let Some(id) = fold::id_of_file(name) else { return };
            files.add(Found {
                rel: format!("{rel}/{name}"),
                dir: String::new(),
                id: Some(id.to_owned()),
                archived,
                stamp,
            });
        };
        each_dir(&home.join("sessions"), |year, path| {
            each_dir(&path, |month, path| {
                each_dir(&path, |day, path| {
                    let rel = format!("sessions/{year}/{month}/{day}");
                    each_file(&path, |name, stamp| take(&rel, name, false, stamp));
                });
            });
        });
        each_file(&home.join("archived_sessions"), |name, stamp| {
            take("archived_sessions", name, true, stamp);
        });
    }

    fn add(&self, to: &mut Summary, _dir: &str, _number: u64, _offset: u64, line: &[u8]) {
        fold::add(to, line);
    }

    fn is_housekeeping(&self, kind: &str) -> bool {
        ["world_state", "token_usage_record"].contains(&kind)
    }

    /// Results are told twice, a few lines apart: the lines before a page say which are known.
    fn told<'c>(&self, _file: &Path, _counter: &'c AtomicU64) -> Told<'c> {
        let teller = Box::new(events::Talk::default());
        Told::Lines { teller, lead: true }
    }

    fn project(&self, _dir: String, path: &str) -> String {
        project::id_of(path)
    }

    /// Adds the name that the user gave.
    fn complete(&self, home: &Path, session: &mut Session) {
        if let Some(name) = self.names.of(home, &session.id) {
            session.title = Some(name);
        }
    }

    fn live(&self, home: &Path) -> Vec<LiveSession> {
        live::find(home)
    }

    fn delete_by_itself(&self, program: Option<&Path>, home: &Path, id: &str) {
        if let Some(codex) = program {
            delete::run(codex, home, id);
        }
    }

    /// Its databases keep rows of it, which Codex ignores when the file is gone.
    fn beside(&self, _home: &Path, _id: &str, _files: &[FileRow]) -> Vec<String> {
        Vec::new()
    }
}

impl Teller for events::Talk {
    fn tell(&mut self, number: u64, line: &Value) -> Vec<(Option<String>, Event)> {
        let (time, said) = self.events(number, line);
        said.into_iter().map(|event| (time.clone(), event)).collect()
    }
}
