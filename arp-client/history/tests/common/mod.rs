//! Homes to test with: copies of real ones, and ones made up line by line.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use arp_agents::event::Event;
use arp_history::{AgentKind, EventPage, History, HistoryConfig, Page};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

pub struct Home {
    pub temp: tempfile::TempDir,
}

impl Home {
    /// Empty homes.
    pub fn empty() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["claude", "codex", "gemini"] {
            fs::create_dir(temp.path().join(dir)).unwrap();
        }
        Self { temp }
    }

    /// Homes that the real agents left behind.
    pub fn real() -> Self {
        let home = Self::empty();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        copy(&fixtures, home.temp.path());
        home
    }

    pub fn config(&self) -> HistoryConfig {
        HistoryConfig {
            claude_dir: Some(self.path("claude")),
            codex_home: Some(self.path("codex")),
            gemini_dir: Some(self.path("gemini")),
            codex_command: None,
            index_path: self.path("index/history.sqlite"),
        }
    }

    pub fn open(&self) -> History {
        History::open(self.config()).unwrap()
    }

    pub fn path(&self, rel: &str) -> PathBuf {
        self.temp.path().join(rel)
    }

    pub fn exists(&self, rel: &str) -> bool {
        self.path(rel).symlink_metadata().is_ok()
    }

    /// Writes a file, with the directories to it.
    pub fn put(&self, rel: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(rel);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn append(&self, rel: &str, content: impl AsRef<[u8]>) {
        let mut file = fs::OpenOptions::new().append(true).open(self.path(rel)).unwrap();
        file.write_all(content.as_ref()).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// A line of a Claude session in which somebody says something.
pub fn claude_prompt(text: &str, cwd: &str, seconds: u32) -> String {
    let line = serde_json::json!({"type": "user", "message": {"role": "user", "content": text}, "cwd": cwd,
        "uuid": format!("u{seconds}"), "timestamp": time(seconds)});
    format!("{line}\n")
}

/// A line of a Claude session in which it answers.
pub fn claude_answer(text: &str, seconds: u32) -> String {
    let line = serde_json::json!({"type": "assistant", "message": {"id": format!("m{seconds}"), "role": "assistant",
        "model": "claude-opus-5-5", "content": [{"type": "text", "text": text}]},
        "uuid": format!("a{seconds}"), "timestamp": time(seconds)});
    format!("{line}\n")
}

/// So many seconds after 2026-11-20T00:00:00Z (within that day).
pub fn time(seconds: u32) -> String {
    format!(
        "2026-11-20T{:02}:{:02}:{:02}.000Z",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// All events of a session that fits one page.
pub fn all_events(history: &History, agent: AgentKind, id: &str) -> Vec<Event> {
    let page: EventPage = history.events(agent, id, Page::default()).unwrap();
    assert_eq!(page.next, None);
    page.events.into_iter().map(|e| e.event).collect()
}

/// Prompts and answers, as somebody would read them.
pub fn talk(events: &[Event]) -> Vec<(&'static str, &str)> {
    fn said(event: &Event) -> Option<(&'static str, &str)> {
        match event {
            Event::UserMessage { text, .. } => Some(("user", text.as_str())),
            Event::Text { text, .. } => Some(("agent", text.as_str())),
            _ => None,
        }
    }
    events.iter().filter_map(said).collect()
}
