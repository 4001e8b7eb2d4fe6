//! Measures history on a home with 5,000 sessions and one of 500 MB, made up in a temporary directory.
//!
//! `cargo run --release -p arp-history --example large_home [megabytes]`
#![allow(clippy::unwrap_used)]

use arp_history::{AgentKind, Filter, History, HistoryConfig, Page, SessionFilter};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

const SESSIONS: u32 = 5_000;
const ROUNDS: usize = 50;

fn main() {
    let megabytes: usize = std::env::args().nth(1).map_or(500, |n| n.parse().unwrap());
    let temp = tempfile::tempdir().unwrap();
    let claude = temp.path().join("claude");
    build(&claude, megabytes);
    let config = HistoryConfig {
        claude_dir: Some(claude.clone()),
        codex_home: None,
        gemini_dir: None,
        codex_command: None,
        index_path: temp.path().join("index/history.sqlite"),
    };
    let history = History::open(config.clone()).unwrap();
    let started = Instant::now();
    let report = history.scan().unwrap();
    println!(
        "first scan: {:?}, {} files, {} MB",
        started.elapsed(),
        report.files,
        report.bytes / 1_000_000
    );

    drop(history);
    let started = Instant::now();
    let history = History::open(config).unwrap();
    println!("open the index again: {:?}", started.elapsed());
    let list = |filter: &SessionFilter| {
        assert!(
            !history
                .sessions(AgentKind::Claude, filter)
                .unwrap()
                .sessions
                .is_empty()
        );
    };
    let page = SessionFilter {
        limit: Some(50),
        ..SessionFilter::default()
    };
    measure("list 50 sessions", || list(&page));
    measure("list 1,000 sessions", || list(&SessionFilter::default()));
    measure("list projects with all ids", || {
        assert_eq!(history.projects(AgentKind::Claude, None, 0).unwrap().total, 51);
    });
    measure("list working directories", || {
        assert_eq!(history.working_directories(AgentKind::Claude).unwrap().total, 51);
    });
    let lines = history
        .session(AgentKind::Claude, "large")
        .map(|_| last_line(&history))
        .unwrap();
    for (name, from) in [("first", 0), ("middle", lines / 2), ("last", lines - 100)] {
        measure(&format!("open the large session, {name} 100 lines"), || {
            let page = Page { from, limit: 100 };
            let got = history
                .messages(AgentKind::Claude, "large", page, Filter::Everything)
                .unwrap();
            assert_eq!(got.messages.len(), 100);
        });
    }
    measure("the same as events", || {
        let page = Page {
            from: lines / 2,
            limit: 100,
        };
        assert!(
            !history
                .events(AgentKind::Claude, "large", page)
                .unwrap()
                .events
                .is_empty()
        );
    });
    let path = claude.join("projects/-large/large.jsonl");
    measure("append a line and list", || {
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(answer(1, "more").as_bytes()).unwrap();
        list(&page);
    });
    println!("memory at most: {}", peak_memory());
}

fn last_line(history: &History) -> u64 {
    let page = Page { from: 0, limit: 1 };
    history
        .messages(AgentKind::Claude, "large", page, Filter::Everything)
        .unwrap()
        .total_lines
}

/// Prints the median and the worst of some rounds.
fn measure(what: &str, mut f: impl FnMut()) {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            f();
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "{what}: median {:?}, worst {:?}",
        times[ROUNDS / 2],
        times[ROUNDS - 1]
    );
}

fn build(claude: &Path, megabytes: usize) {
    // A line of 50 KB of housekeeping in each, as in real ones.
    let shape = format!(
        "{{\"type\":\"api-request-shape\",\"x\":\"{}\"}}\n",
        "s".repeat(50_000)
    );
    for n in 0..SESSIONS {
        let dir = claude.join(format!("projects/-home-dev-project-{}", n % 50));
        fs::create_dir_all(&dir).unwrap();
        let prompt = prompt(n, &format!("/home/dev/project {}", n % 50));
        fs::write(
            dir.join(format!("s{n:04}.jsonl")),
            prompt + &shape + &answer(n, "done"),
        )
        .unwrap();
    }
    let dir = claude.join("projects/-large");
    fs::create_dir_all(&dir).unwrap();
    let mut file = BufWriter::new(fs::File::create(dir.join("large.jsonl")).unwrap());
    file.write_all(prompt(1, "/large").as_bytes()).unwrap();
    let (text, mut written) = ("lorem ipsum ".repeat(160), 0);
    for n in 0.. {
        let line = if n % 20 == 0 {
            shape.clone()
        } else {
            answer(n, &text)
        };
        written += line.len();
        file.write_all(line.as_bytes()).unwrap();
        if written > megabytes * 1_000_000 {
            break;
        }
    }
    file.flush().unwrap();
}

fn prompt(n: u32, cwd: &str) -> String {
    format!(
        "{{\"type\":\"user\",\"message\":{{\"role\":\"user\",\"content\":\"prompt {n}\"}},\"uuid\":\"u{n}\",\
         \"timestamp\":\"2026-11-20T10:{:02}:{:02}.000Z\",\"cwd\":\"{cwd}\"}}\n",
        n / 60 % 60,
        n % 60
    )
}

fn answer(n: u32, text: &str) -> String {
    format!(
        "{{\"parentUuid\":\"u{n}\",\"message\":{{\"id\":\"m{n}\",\"model\":\"claude-opus-5-5\",\"content\":\
         [{{\"type\":\"text\",\"text\":\"{text}\"}}]}},\"type\":\"assistant\",\"uuid\":\"a{n}\",\
         \"timestamp\":\"2026-11-20T11:{:02}:{:02}.000Z\"}}\n",
        n / 60 % 60,
        n % 60
    )
}

/// What Linux says of the process; elsewhere nothing.
fn peak_memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |kb| kb.trim().to_owned())
}
