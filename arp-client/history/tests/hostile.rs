//! Homes that somebody made to do harm, and ids that somebody asks for to get elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use arp_history::{AgentKind, Filter, HistoryError, MAX_LINE_BYTES, Page, SessionFilter};
use common::{Home, claude_answer, claude_prompt};
use std::fs;
use std::io::Write;

const FILE: &str = "claude/projects/-p/s1.jsonl";

fn raw(home: &Home, page: Page) -> (Vec<String>, Option<u64>) {
    let page = home
        .open()
        .messages(AgentKind::Claude, "s1", page, Filter::Everything)
        .unwrap();
    (
        page.messages.iter().map(|m| m.get().to_owned()).collect(),
        page.next,
    )
}

#[test]
fn odd_lines_are_stood_in_for_and_the_rest_is_read() {
    let home = Home::empty();
    let deep = format!(
        "{{\"type\":\"user\",\"x\":{}1{}}}",
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    let mut text = claude_prompt("hello", "/p", 1).into_bytes();
    for line in [
        deep.as_bytes(),
        b"not json",
        b"",
        b"[1,2]",
        b"{\"type\":\"user\",\"message\":{\"content\":\"bad \xff\xfe\"}}",
        b"{",
        b"\0\0",
    ] {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend(claude_answer("still here", 2).bytes());
    home.put(FILE, text);
    let (lines, next) = raw(&home, Page::default());
    assert_eq!((lines.len(), next), (9, None));
    for (at, reason) in [
        (1, "nested too deeply"),
        (2, "no JSON object"),
        (3, "no JSON object"),
        (4, "no JSON object"),
        (6, "no JSON object"),
    ] {
        let value: serde_json::Value = serde_json::from_str(&lines[at]).unwrap();
        assert_eq!(value["type"], "unreadable_line");
        assert!(value["reason"].as_str().unwrap().contains(reason), "{value}");
    }
    assert!(lines[5].contains("bad \u{fffd}\u{fffd}"));
    assert!(lines[8].contains("still here"));
    let history = home.open();
    let session = history.session(AgentKind::Claude, "s1").unwrap();
    assert_eq!(
        (session.message_count, session.title.as_deref()),
        (3, Some("hello"))
    );
    let events = history.events(AgentKind::Claude, "s1", Page::default()).unwrap();
    assert_eq!(events.events.len(), 3);
}

#[test]
fn a_line_over_the_limit_costs_one_pass_and_no_page() {
    let home = Home::empty();
    let path = home.put(FILE, claude_prompt("before", "/p", 1));
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let size = 3 * MAX_LINE_BYTES;
    let chunk = vec![b'x'; 1024 * 1024];
    file.write_all(b"{\"type\":\"user\",\"x\":\"").unwrap();
    for _ in 0..size / chunk.len() as u64 {
        file.write_all(&chunk).unwrap();
    }
    file.write_all(b"\"}\n").unwrap();
    file.write_all(claude_answer("after", 2).as_bytes()).unwrap();
    drop(file);

    let history = home.open();
    let report = history.scan().unwrap();
    assert!(
        report.bytes < fs::metadata(&path).unwrap().len() + 1_000,
        "{}",
        report.bytes
    );
    let page = history
        .messages(AgentKind::Claude, "s1", Page::default(), Filter::Everything)
        .unwrap();
    let stand_in: serde_json::Value = serde_json::from_str(page.messages[1].get()).unwrap();
    assert_eq!(
        (page.total_lines, &stand_in["reason"]),
        (3, &"it is too long".into())
    );
    assert_eq!(stand_in["bytes"], size + 22);
    assert!(page.messages[2].get().contains("after"));
    let read = history.bytes_read() - report.bytes;
    assert!(
        read < 1024 * 1024,
        "{read} bytes read for a page around a line of {size}"
    );
}

#[test]
fn an_endless_line_is_never_read_again() {
    let home = Home::empty();
    let path = home.put(FILE, claude_prompt("before", "/p", 1));
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&vec![b'x'; usize::try_from(2 * MAX_LINE_BYTES).unwrap()])
        .unwrap();
    let history = home.open();
    history.scan().unwrap();
    let before = history.bytes_read();
    for _ in 0..10 {
        file.write_all(&[b'x'; 1_000]).unwrap();
        history.scan().unwrap();
    }
    let read = history.bytes_read() - before;
    assert!(read < 20_000, "{read} bytes read for 10,000 new ones");
    file.write_all(format!("\n{}", claude_answer("after", 2)).as_bytes())
        .unwrap();
    let (lines, _) = raw(&home, Page::default());
    assert_eq!(lines.len(), 3);
    assert!(lines[1].contains("too long") && lines[2].contains("after"));
}

#[test]
fn pages_are_bounded_in_bytes_and_join_to_the_whole() {
    let home = Home::empty();
    let megabyte = "y".repeat(1024 * 1024);
    let text: String = (0..30)
        .map(|n| claude_answer(&format!("{n} {megabyte}"), n))
        .collect();
    home.put(FILE, text);
    let history = home.open();
    let (mut from, mut seen) = (Some(0), Vec::new());
    while let Some(at) = from {
        let page = history
            .messages(
                AgentKind::Claude,
                "s1",
                Page {
                    from: at,
                    limit: 1_000,
                },
                Filter::Everything,
            )
            .unwrap();
        let bytes: usize = page.messages.iter().map(|m| m.get().len()).sum();
        assert!(bytes as u64 <= arp_history::MAX_PAGE_BYTES, "{bytes}");
        seen.extend(page.lines);
        from = page.next;
    }
    assert_eq!(seen, (0..30).collect::<Vec<_>>());
}

#[test]
fn housekeeping_without_end_does_not_make_a_page_without_end() {
    let home = Home::empty();
    let junk = format!(
        "{{\"type\":\"api-request-shape\",\"x\":\"{}\"}}\n",
        "z".repeat(1024 * 1024)
    );
    home.put(
        FILE,
        claude_prompt("hello", "/p", 1) + &junk.repeat(50) + &claude_answer("end", 2),
    );
    let history = home.open();
    history.scan().unwrap();
    let before = history.bytes_read();
    let page = history
        .messages(AgentKind::Claude, "s1", Page::default(), Filter::Conversation)
        .unwrap();
    assert!(history.bytes_read() - before < 40 * 1024 * 1024);
    assert_eq!(page.lines, [0]);
    let page = Page {
        from: page.next.unwrap(),
        limit: 10,
    };
    assert_eq!(
        history
            .messages(AgentKind::Claude, "s1", page, Filter::Conversation)
            .unwrap()
            .lines,
        [51]
    );
}

#[test]
fn ids_that_are_paths_reach_nothing() {
    let home = Home::empty();
    home.put(FILE, claude_prompt("hello", "/p", 1));
    home.put("claude/projects/-p/secret.txt", "x");
    home.put(
        "claude/projects/-p/...jsonl",
        claude_prompt("a file named for the parent", "/p", 1),
    );
    let history = home.open();
    let long = "a".repeat(100_000);
    for id in [
        "..",
        ".",
        "",
        "/etc/passwd",
        "../-p/s1",
        "s1/../s1",
        "-p/s1",
        "s1.jsonl",
        "s1\0",
        "S1",
        "%2e%2e",
        long.as_str(),
    ] {
        for agent in AgentKind::ALL {
            let session = history.session(agent, id);
            assert!(
                matches!(session, Err(HistoryError::UnknownSession { .. })),
                "{agent} {id}"
            );
            assert!(history.delete(agent, id, true).is_err());
            let error = history
                .messages(agent, id, Page::default(), Filter::Everything)
                .unwrap_err();
            assert!(error.to_string().len() < 2_000);
        }
    }
    assert!(
        home.exists(FILE) && home.exists("claude/projects/-p/...jsonl") && !home.exists("claude/session-env")
    );
    assert_eq!(
        history
            .sessions(AgentKind::Claude, &SessionFilter::default())
            .unwrap()
            .total,
        1
    );
}

#[test]
fn an_id_inside_a_gemini_file_that_is_a_path_makes_no_session() {
    let home = Home::empty();
    let header = |id: &str| {
        format!(
            "{{\"sessionId\":\"{id}\",\"startTime\":\"2026-11-20T18:04:43.684Z\"}}\n{{\"id\":\"a\",\"type\":\"user\",\"content\":\"hi\"}}\n"
        )
    };
    home.put("gemini/tmp/p/chats/session-1.jsonl", header("../../../outside"));
    home.put("gemini/tmp/p/chats/session-2.jsonl", header(".."));
    home.put("gemini/tmp/p/chats/session-3.jsonl", header("chats"));
    home.put("gemini/tmp/p/chats/session-4.jsonl", header("good"));
    home.put("outside/precious", "x");
    let history = home.open();
    let listed = history
        .sessions(AgentKind::Gemini, &SessionFilter::default())
        .unwrap();
    let mut ids: Vec<_> = listed.sessions.iter().map(|s| s.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["chats", "good"]);
    history.delete(AgentKind::Gemini, "chats", true).unwrap();
    assert!(home.exists("gemini/tmp/p/chats/session-4.jsonl") && home.exists("outside/precious"));
    assert!(!home.exists("gemini/tmp/p/chats/session-3.jsonl"));
}

#[cfg(unix)]
#[test]
fn links_out_of_the_home_are_neither_read_nor_followed_by_a_deletion() {
    use std::os::unix::fs::symlink;
    let home = Home::empty();
    home.put("outside/secret.jsonl", claude_prompt("secret", "/p", 1));
    home.put("outside/dir/precious", "x");
    home.put(FILE, claude_prompt("hello", "/p", 1));
    symlink(
        home.path("outside/secret.jsonl"),
        home.path("claude/projects/-p/s2.jsonl"),
    )
    .unwrap();
    symlink(home.path("outside"), home.path("claude/projects/-q")).unwrap();
    let history = home.open();
    assert_eq!(
        history
            .sessions(AgentKind::Claude, &SessionFilter::default())
            .unwrap()
            .total,
        1
    );

    // The file is swapped for a link after it was indexed.
    fs::remove_file(home.path(FILE)).unwrap();
    symlink(home.path("outside/secret.jsonl"), home.path(FILE)).unwrap();
    let page = history.messages(AgentKind::Claude, "s1", Page::default(), Filter::Everything);
    assert!(
        matches!(page, Err(HistoryError::UnknownSession { .. })),
        "{page:?}"
    );

    // What belongs to a session is a link: it goes, what it leads to stays.
    fs::remove_file(home.path(FILE)).unwrap();
    home.put(FILE, claude_prompt("hello", "/p", 1));
    symlink(home.path("outside/dir"), home.path("claude/projects/-p/s1")).unwrap();
    fs::create_dir(home.path("claude/session-env")).unwrap();
    symlink(home.path("outside"), home.path("claude/session-env/s1")).unwrap();
    let removed = history.delete(AgentKind::Claude, "s1", false).unwrap().removed;
    assert_eq!(
        removed,
        ["projects/-p/s1", "session-env/s1", "projects/-p/s1.jsonl"]
    );
    assert!(home.exists("outside/dir/precious") && home.exists("outside/secret.jsonl"));
}

#[test]
fn sub_agents_that_name_one_another_or_never_end_are_told_once_and_cut() {
    let home = Home::empty();
    let call = |id: &str| {
        let block = serde_json::json!({"type": "tool_use", "id": id, "name": "Task", "input": {}});
        let line = serde_json::json!({"type": "assistant", "message": {"id": id, "content": [block]}});
        format!("{line}\n")
    };
    home.put(FILE, claude_prompt("go", "/p", 1) + &call("a") + &call("b"));
    let sub = "claude/projects/-p/s1/subagents";
    for (name, started_by, starts) in [("agent-1", "a", "b"), ("agent-2", "b", "a")] {
        home.put(
            &format!("{sub}/{name}.meta.json"),
            format!("{{\"toolUseId\":\"{started_by}\"}}"),
        );
        home.put(
            &format!("{sub}/{name}.jsonl"),
            call(starts) + &claude_answer(name, 3),
        );
    }
    let history = home.open();
    let texts = |history: &arp_history::History| -> Vec<String> {
        let page = history.events(AgentKind::Claude, "s1", Page::default()).unwrap();
        let told = page.events.iter().map(|e| serde_json::to_value(e).unwrap());
        told.filter(|e| e["type"] == "text" || e["type"] == "raw")
            .map(|e| format!("{}{}", e["text"], e["data"]["type"]))
            .collect()
    };
    assert_eq!(texts(&history), ["\"agent-2\"null", "\"agent-1\"null"]);

    home.put(
        &format!("{sub}/agent-2.jsonl"),
        claude_answer(&"x".repeat(1024 * 1024), 3).repeat(50),
    );
    let cut = texts(&history);
    assert_eq!(cut.iter().filter(|t| t.contains("sub_agent_cut")).count(), 2);
    assert!(cut.len() < 15);
}
