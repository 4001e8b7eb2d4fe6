//! Removing a session with all that belongs to it.
//!
//! Only names that were found on disk, or are made from an id that cannot be a path (see `is_safe_id`), are
//! removed; links are removed, never followed.

use crate::homes::is_safe_id;
use crate::query::FileRow;
use crate::{AgentKind, HistoryError};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long `codex delete` may take.
const CODEX_TIMEOUT: Duration = Duration::from_secs(15);

/// Removes a session's files; returns what is gone, relative to the home.
pub(crate) fn delete(
    codex: Option<&Path>,
    agent: AgentKind,
    home: &Path,
    id: &str,
    files: &[FileRow],
) -> Result<Vec<String>, HistoryError> {
    let mut removed = Vec::new();
    if agent == AgentKind::Codex
        && let Some(codex) = codex
    {
        let is_there = |file: &&FileRow| home.join(&file.rel).symlink_metadata().is_ok();
        let there: Vec<&FileRow> = files.iter().filter(is_there).collect();
        run_codex(codex, home, id);
        removed.extend(
            there
                .into_iter()
                .filter(|file| !is_there(file))
                .map(|file| file.rel.clone()),
        );
    }
    // Its own files last: as long as one is there, the session can be found and its deletion tried again.
    let own = files.iter().map(|file| file.rel.clone());
    for rel in belonging(agent, home, id, files).into_iter().chain(own) {
        if remove(&home.join(&rel)).map_err(HistoryError::io("removing a session's file"))? {
            removed.push(rel);
        }
    }
    Ok(removed)
}

/// What lies beside a session's own files.
fn belonging(agent: AgentKind, home: &Path, id: &str, files: &[FileRow]) -> Vec<String> {
    if !is_safe_id(id) {
        return Vec::new();
    }
    match agent {
        AgentKind::Claude => {
            let mut all: Vec<String> = files.iter().map(|f| format!("projects/{}/{id}", f.dir)).collect();
            for dir in ["session-env", "file-history", "tasks"] {
                all.push(format!("{dir}/{id}"));
            }
            for name in names_in(&home.join("todos"), |name| {
                name.starts_with(id) && name.ends_with(".json")
            }) {
                all.push(format!("todos/{name}"));
            }
            all
        }
        // Its databases keep rows of it, which Codex ignores when the file is gone.
        AgentKind::Codex => Vec::new(),
        AgentKind::Gemini => {
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
}

fn names_in(dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| wanted(name)).take(10_000).collect()
}

/// Removes a file, a link, or a directory with all that is in it. Returns whether there was one.
fn remove(path: &Path) -> io::Result<bool> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Lets Codex delete the session, which clears its databases too. What it leaves is removed afterwards, so a
/// failure is only noted.
fn run_codex(codex: &Path, home: &Path, id: &str) {
    let spawned = Command::new(codex)
        .args(["delete", "--force", id])
        .env("CODEX_HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return tracing::debug!(%error, "codex delete could not be started"),
    };
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return tracing::debug!(%status, "codex delete ended"),
            Ok(None) if started.elapsed() < CODEX_TIMEOUT => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return tracing::debug!("codex delete took too long");
            }
        }
    }
}
