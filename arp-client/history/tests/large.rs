//! A home with 5,000 sessions and one large file: what listing and opening it may cost, counted in bytes read (time
//! is measured by `examples/large_home.rs`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use arp_history::{AgentKind, Filter, Page, SessionFilter};
use common::{Home, claude_answer, claude_prompt};
use std::fs;
use std::io::{BufWriter, Write};

const SESSIONS: u32 = 5_000;
const LARGE_LINES: u32 = 24_000;

/// 5,000 small sessions in 50 projects, and a session of some 100 MB.
fn large_home() -> Home {
    let home = Home::empty();
    for n in 0..SESSIONS {
        let cwd = format!("/home/dev/project {}", n % 50);
        let text = claude_prompt(&format!("prompt {n}"), &cwd, n) + &claude_answer("done", n + 1);
        home.put(
            &format!("claude/projects/-home-dev-project-{}/s{n:04}.jsonl", n % 50),
            text,
        );
    }
    let path = home.put(
        "claude/projects/-home-dev-large/large.jsonl",
        claude_prompt("a long story", "/home/dev/large", 80_000),
    );
    let mut file = BufWriter::new(fs::OpenOptions::new().append(true).open(path).unwrap());
    let filler = "lorem ipsum ".repeat(340);
    for n in 1..LARGE_LINES {
        file.write_all(claude_answer(&format!("chapter {n} {filler}"), n).as_bytes())
            .unwrap();
    }
    file.flush().unwrap();
    home
}

#[test]
fn five_thousand_sessions_are_listed_without_reading_and_a_large_one_opens_anywhere() {
    let home = large_home();
    let size = fs::metadata(home.path("claude/projects/-home-dev-large/large.jsonl"))
        .unwrap()
        .len();
    assert!(size > 100_000_000, "{size}");
    let history = home.open();
    let first = history.scan().unwrap();
    assert_eq!(
        (first.files, first.read),
        (u64::from(SESSIONS) + 1, u64::from(SESSIONS) + 1)
    );

    // Listing reads nothing.
    let before = history.bytes_read();
    let mut seen = std::collections::BTreeSet::new();
    for offset in (0..6_000).step_by(1_000) {
        let filter = SessionFilter {
            offset,
            ..SessionFilter::default()
        };
        let page = history.sessions(AgentKind::Claude, &filter).unwrap();
        assert_eq!(page.total, u64::from(SESSIONS) + 1);
        seen.extend(page.sessions.into_iter().map(|s| s.id));
    }
    assert_eq!(seen.len(), SESSIONS as usize + 1);
    let projects = history.projects(AgentKind::Claude, None, 0).unwrap();
    assert_eq!(
        (
            projects.total,
            projects.projects.iter().map(|p| p.sessions.len()).sum::<usize>()
        ),
        (51, 5_001)
    );
    assert_eq!(history.working_directories(AgentKind::Claude).unwrap().total, 51);
    let of_one = SessionFilter {
        project_path: Some("/home/dev/project 7".into()),
        ..SessionFilter::default()
    };
    assert_eq!(history.sessions(AgentKind::Claude, &of_one).unwrap().total, 100);
    assert_eq!(history.bytes_read(), before);

    // A page anywhere in the large file reads that page and at most one stretch between remembered offsets.
    for from in [0, 1, 999, 12_345, u64::from(LARGE_LINES) - 10] {
        let before = history.bytes_read();
        let page = history
            .messages(
                AgentKind::Claude,
                "large",
                Page { from, limit: 10 },
                Filter::Everything,
            )
            .unwrap();
        assert_eq!(
            (page.total_lines, page.messages.len()),
            (u64::from(LARGE_LINES), 10)
        );
        let first = page.messages[0].get();
        assert!(if from == 0 {
            first.contains("a long story")
        } else {
            first.contains(&format!("chapter {from} "))
        });
        let read = history.bytes_read() - before;
        assert!(read < 800_000, "{read} bytes read for a page of 45 KB at {from}");
    }

    // When it grows, only what is new is read.
    home.append(
        "claude/projects/-home-dev-large/large.jsonl",
        claude_answer("the end", 1),
    );
    let before = history.bytes_read();
    let session = history.session(AgentKind::Claude, "large").unwrap();
    assert_eq!(session.message_count, u64::from(LARGE_LINES) + 1);
    assert!(history.bytes_read() - before < 1_000);
}
