//! Gemini CLI's history.

mod events;
mod fold;

pub(crate) use fold::Journal;

use crate::delete::names_in;
use crate::format::{Format, Told};
use crate::homes::{Files, Found, each_dir, each_file, is_safe_id, read_side_file};
use crate::query::FileRow;
use crate::shapes::LiveSession;
use crate::summary::Summary;
use crate::{AgentKind, clock};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

/// A session whose file was written to this recently is taken for live when it is to be deleted.
const RECENT: Duration = Duration::from_secs(30);

/// Gemini CLI's format: `tmp/SLUG/chats/session-….jsonl`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gemini;

impl Format for Gemini {
    fn agent(&self) -> AgentKind {
        AgentKind::Gemini
    }

    fn find(&self, home: &Path, files: &mut Files) {
        each_dir(&home.join("tmp"), |dir, path| {
            each_file(&path.join("chats"), |name, stamp| {
                if name.starts_with("session-") && name.ends_with(".jsonl") {
                    files.add(Found {
                        rel: format!("tmp/{dir}/chats/{name}"),
                        dir: dir.to_owned(),
                        id: None,
                        archived: false,
                        stamp,
                    });
                }
            });
        });
    }

    fn add(&self, to: &mut Summary, _dir: &str, number: u64, offset: u64, line: &[u8]) {
        fold::add(to, number, offset, line);
    }

    fn finish(&self, to: &mut Summary) {
        fold::finish(to);
    }

    fn told<'c>(&self, _file: &Path, _counter: &'c AtomicU64) -> Told<'c> {
        Told::Messages(|line, place| fold::message_in(line, place).map(events::events))
    }

    /// The directory that a project stands for: `tmp/SLUG/.project_root`.
    fn path(&self, home: &Path, dir: &str, _summary: &Summary) -> Option<String> {
        let bytes = read_side_file(&home.join("tmp").join(dir).join(".project_root"))?;
        let text = String::from_utf8(bytes).ok()?;
        let path = text.trim();
        (!path.is_empty() && path.len() <= 4096).then(|| path.to_owned())
    }

    /// One that is resumed may have another file.
    fn moves(&self) -> bool {
        true
    }

    /// It leaves no trace: it opens its file for each line.
    fn live(&self, _home: &Path) -> Vec<LiveSession> {
        Vec::new()
    }

    fn is_recent(&self, file: &Path) -> bool {
        let modified = std::fs::symlink_metadata(file).and_then(|m| m.modified());
        let now = clock::of(SystemTime::now());
        modified.is_ok_and(|at| now.saturating_sub(clock::of(at)) < RECENT.as_millis() as i64)
    }

    fn beside(&self, home: &Path, id: &str, files: &[FileRow]) -> Vec<String> {
        let mut all = Vec::new();
        for file in files {
            let tmp = format!("tmp/{}", file.dir);
            // A sub-agent's files are in a directory named for the session, and what belongs to it is named
            // for the sub-agent.
            let agents = names_in(&home.join(&tmp).join("chats").join(id), |_| true);
            let agents = agents
                .iter()
                .filter_map(|name| name.rsplit_once('.').map(|(stem, _)| stem));
            let ids: Vec<&str> = agents.filter(|a| is_safe_id(a)).chain([id]).collect();
            for id in ids {
                all.push(format!("{tmp}/logs/session-{id}.jsonl"));
                all.push(format!("{tmp}/tool-outputs/session-{id}"));
                if !["chats", "logs", "tool-outputs"].contains(&id.to_ascii_lowercase().as_str()) {
                    all.push(format!("{tmp}/{id}"));
                }
            }
            all.push(format!("{tmp}/chats/{id}"));
        }
        all.sort_unstable();
        all.dedup();
        all
    }
}
