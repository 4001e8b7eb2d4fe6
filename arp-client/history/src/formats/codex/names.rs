//! The names that Codex's users gave to their sessions: `session_index.jsonl`, appended to, the last one wins.

use crate::homes::{Stamp, open, read_side_file};
use crate::json::short;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The names as of the file's last change.
#[derive(Default)]
pub(crate) struct Names(Mutex<Option<(Stamp, HashMap<String, String>)>>);

#[derive(Deserialize)]
struct Named {
    id: String,
    thread_name: Option<String>,
}

impl Names {
    /// The name of a session, if it has one.
    pub(crate) fn of(&self, home: &Path, id: &str) -> Option<String> {
        let path = home.join("session_index.jsonl");
        let (_, stamp) = open(&path).ok()?;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().map(|(of, _)| *of) != Some(stamp) {
            *known = Some((stamp, read(&path)));
        }
        known.as_ref().and_then(|(_, names)| names.get(id).cloned())
    }
}

fn read(path: &Path) -> HashMap<String, String> {
    let mut names = HashMap::new();
    let bytes = read_side_file(path).unwrap_or_default();
    for line in bytes.split(|b| *b == b'\n') {
        let Ok(named) = serde_json::from_slice::<Named>(line) else {
            continue;
        };
        match named
            .thread_name
            .map(|name| short(&name))
            .filter(|name| !name.is_empty())
        {
            Some(name) => names.insert(named.id, name),
            None => names.remove(&named.id),
        };
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_name_wins_and_a_change_is_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("session_index.jsonl");
        let names = Names::default();
        assert_eq!(names.of(temp.path(), "a"), None);
        let mut text =
            "{\"id\":\"a\",\"thread_name\":\"one\"}\nnonsense\n{\"id\":\"a\",\"thread_name\":\"two\"}\n"
                .to_owned();
        std::fs::write(&path, &text).unwrap();
        assert_eq!(names.of(temp.path(), "a").as_deref(), Some("two"));
        text.push_str("{\"id\":\"a\",\"thread_name\":\"three\"}\n");
        std::fs::write(&path, &text).unwrap();
        assert_eq!(names.of(temp.path(), "a").as_deref(), Some("three"));
        assert_eq!(names.of(temp.path(), "b"), None);
    }
}
