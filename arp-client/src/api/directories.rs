//! `GET /api/directories`: where a session may begin, so that nobody types a path on a phone.

use super::request::Call;
use super::{Answer, State, ok};
use arp_history::{AgentKind, History};
use arp_sessions::store::Filter;
use serde::Serialize;
use serde_json::json;
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Projects of the past that are told, newest first.
const MAX_RECENT: usize = 50;
/// Repositories that are told, most recently used first.
const MAX_REPOSITORIES: usize = 60;
/// Repositories are looked for this deep below the home directory.
const DEPTH: usize = 4;
/// Looking ends after so many entries of directories, or after this time: what was found by then is told.
const MAX_ENTRIES: usize = 20_000;
const PATIENCE: Duration = Duration::from_millis(400);
/// Directories that hold what others wrote, in great numbers.
const SKIPPED: [&str; 8] = [
    "node_modules",
    "target",
    "vendor",
    "venv",
    "Library",
    "AppData",
    "snap",
    "go",
];

/// A place where a session may begin.
#[derive(Debug, Serialize)]
struct Place {
    path: PathBuf,
    /// `home`, `repository` or `recent`.
    kind: &'static str,
    /// Unix milliseconds; null where it was never used.
    last_used: Option<u64>,
}

pub(super) async fn list(state: &Arc<State>, _call: &Call) -> Answer {
    let filter = Filter {
        limit: 500,
        ..Filter::default()
    };
    let (sessions, _) = state.sessions.list(&filter)?;
    let mut used: HashMap<PathBuf, u64> = HashMap::new();
    for session in &sessions {
        note(&mut used, session.project_path.clone(), session.updated_at.0);
    }
    let history = Arc::clone(&state.history);
    let home = std::env::home_dir();
    let places = tokio::task::spawn_blocking(move || {
        of_history(&history, &mut used);
        places(home.as_deref(), used)
    })
    .await
    .map_err(|error| super::ApiError::internal(format!("a look for directories failed: {error}")))?;
    ok(&json!({"type": "directories", "directories": places}))
}

fn note(used: &mut HashMap<PathBuf, u64>, path: PathBuf, time: u64) {
    let last = used.entry(path).or_default();
    *last = time.max(*last);
}

/// Adds what the agents' histories know; one that cannot be read leaves the others' directories.
fn of_history(history: &History, used: &mut HashMap<PathBuf, u64>) {
    for agent in AgentKind::ALL {
        let Ok(found) = history.projects(agent, Some(200), 0) else {
            continue;
        };
        for project in found.projects {
            let seconds = project.most_recent_session.unwrap_or(project.created_at);
            let time = u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
            note(used, PathBuf::from(project.path), time);
        }
    }
}

fn places(home: Option<&Path>, used: HashMap<PathBuf, u64>) -> Vec<Place> {
    let mut places = Vec::new();
    if let Some(home) = home {
        places.push(Place {
            path: home.to_owned(),
            kind: "home",
            last_used: used.get(home).copied(),
        });
    }
    let known: HashSet<PathBuf> = used.keys().cloned().collect();
    let mut recent: Vec<(PathBuf, u64)> = used
        .into_iter()
        // What was removed since cannot be worked in.
        .filter(|(path, _)| Some(path.as_path()) != home && path.is_absolute() && path.is_dir())
        .collect();
    recent.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    places.extend(recent.into_iter().take(MAX_RECENT).map(|(path, time)| Place {
        path,
        kind: "recent",
        last_used: Some(time),
    }));
    let mut found = home.map(repositories).unwrap_or_default();
    found.retain(|(path, _)| !known.contains(path));
    found.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    places.extend(
        found
            .into_iter()
            .take(MAX_REPOSITORIES)
            .map(|(path, time)| Place {
                path,
                kind: "repository",
                last_used: (time > 0).then_some(time),
            }),
    );
    places
}

/// Git repositories below `home`, nearest first, each with the time of its last checkout or commit. Links are not
/// followed, hidden directories and repositories within repositories not looked into.
fn repositories(home: &Path) -> Vec<(PathBuf, u64)> {
    let end = Instant::now() + PATIENCE;
    let mut entries = 0;
    let mut found = Vec::new();
    let mut next = VecDeque::from([(home.to_owned(), 0)]);
    while let Some((directory, depth)) = next.pop_front() {
        if depth > 0
            && let Some(time) = repository(&directory)
        {
            found.push((directory, time));
            continue;
        }
        if depth == DEPTH {
            continue;
        }
        let Ok(read) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in read.flatten() {
            entries += 1;
            if entries > MAX_ENTRIES || Instant::now() > end {
                return found;
            }
            let name = entry.file_name();
            let hidden = name.as_encoded_bytes().first() == Some(&b'.');
            let skipped = SKIPPED.iter().any(|skipped| name == *skipped);
            if !hidden && !skipped && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                next.push_back((entry.path(), depth + 1));
            }
        }
    }
    found
}

/// The time of the last use in Unix milliseconds, if this is a repository or a worktree of one.
fn repository(directory: &Path) -> Option<u64> {
    let git = directory.join(".git");
    let about = git.symlink_metadata().ok()?;
    let used = ["index", "HEAD"]
        .iter()
        .filter_map(|name| git.join(name).metadata().ok())
        .chain(std::iter::once(about))
        .filter_map(|file| file.modified().ok()?.duration_since(UNIX_EPOCH).ok())
        .map(|time| u64::try_from(time.as_millis()).unwrap_or(0))
        .max();
    Some(used.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_below_home_are_found_and_what_others_wrote_is_not() {
        let home = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(home.path().join(path)).unwrap();
        make("app/.git");
        make("code/site/.git");
        make("code/site/inner/.git");
        make("app/node_modules/x/.git");
        make("plain/node_modules/y/.git");
        make(".hidden/z/.git");
        make("a/b/c/d/e/.git");
        // A worktree has a file in its place.
        make("code/tree");
        std::fs::write(home.path().join("code/tree/.git"), "gitdir: elsewhere\n").unwrap();
        let mut found: Vec<String> = repositories(home.path())
            .into_iter()
            .map(|(path, _)| {
                path.strip_prefix(home.path())
                    .unwrap()
                    .display()
                    .to_string()
                    .replace('\\', "/")
            })
            .collect();
        found.sort();
        assert_eq!(found, ["app", "code/site", "code/tree"]);
    }

    #[test]
    fn places_are_home_then_projects_of_the_past_then_other_repositories_each_once() {
        let home = tempfile::tempdir().unwrap();
        for path in ["app/.git", "new/.git", "notes"] {
            std::fs::create_dir_all(home.path().join(path)).unwrap();
        }
        let used = HashMap::from([
            (home.path().join("notes"), 5),
            (home.path().join("app"), 9),
            (home.path().join("gone"), 7),
            (PathBuf::from("relative"), 8),
        ]);
        let told: Vec<(&str, String)> = places(Some(home.path()), used)
            .into_iter()
            .map(|place| {
                (
                    place.kind,
                    place.path.file_name().unwrap().to_string_lossy().into_owned(),
                )
            })
            .collect();
        let home_name = home.path().file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(told[0], ("home", home_name));
        assert_eq!(
            told[1..],
            [
                ("recent", "app".to_owned()),
                ("recent", "notes".to_owned()),
                ("repository", "new".to_owned())
            ]
        );
    }
}
