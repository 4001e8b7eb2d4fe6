//! Files that grow, are replaced, cut, moved and deleted while history is read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use arp_history::{AgentKind, Filter, History, HistoryError, Page, SessionFilter, Status};
use common::{Home, claude_answer, claude_prompt, time};
use std::fs;

const FILE: &str = "claude/projects/-p/s1.jsonl";

fn lines(history: &History, id: &str) -> Vec<String> {
    let page = history
        .messages(AgentKind::Claude, id, Page::default(), Filter::Everything)
        .unwrap();
    assert_eq!(page.next, None);
    page.messages.iter().map(|m| m.get().to_owned()).collect()
}

fn titles(history: &History) -> Vec<String> {
    let listed = history
        .sessions(AgentKind::Claude, &SessionFilter::default())
        .unwrap();
    listed
        .sessions
        .into_iter()
        .map(|s| s.title.unwrap_or_default())
        .collect()
}

#[test]
fn a_session_started_in_a_terminal_appears_and_grows() {
    let home = Home::empty();
    let history = home.open();
    assert_eq!(titles(&history), Vec::<String>::new());
    home.put(FILE, claude_prompt("hello", "/p", 1));
    assert_eq!(titles(&history), ["hello"]);
    assert_eq!(lines(&history, "s1").len(), 1);
    for n in 0..20 {
        home.append(FILE, claude_answer(&format!("answer {n}"), 2 + n));
        assert_eq!(lines(&history, "s1").len() as u32, n + 2);
        let session = history.session(AgentKind::Claude, "s1").unwrap();
        assert_eq!(
            (session.message_count as u32, session.updated_at % 86_400),
            (n + 2, i64::from(2 + n))
        );
    }
}

#[test]
fn a_grown_file_is_read_only_from_where_reading_ended() {
    let home = Home::empty();
    let mut text = claude_prompt("hello", "/p", 1);
    for n in 0..2_000 {
        text.push_str(&claude_answer(&"word ".repeat(200), n));
    }
    home.put(FILE, &text);
    let history = home.open();
    let first = history.scan().unwrap();
    assert!(first.bytes >= text.len() as u64);
    let more = claude_answer("more", 3_000);
    home.append(FILE, &more);
    let second = history.scan().unwrap();
    assert_eq!((second.files, second.read), (1, 1));
    // The new line, and a fingerprint of 64 bytes at the beginning and the end, before and after.
    assert!(
        second.bytes <= more.len() as u64 + 4 * 64,
        "{} bytes for {}",
        second.bytes,
        more.len()
    );
    assert_eq!(
        history.session(AgentKind::Claude, "s1").unwrap().message_count,
        2_002
    );
    assert_eq!(history.scan().unwrap().bytes, 0);
}

#[test]
fn a_line_being_written_is_given_when_it_is_whole() {
    let home = Home::empty();
    home.put(FILE, claude_prompt("hello", "/p", 1));
    let history = home.open();
    let answer = claude_answer("the whole answer", 2);
    let (begin, end) = answer.split_at(answer.len() / 2);
    home.append(FILE, begin);
    assert_eq!(lines(&history, "s1").len(), 1);
    assert_eq!(history.session(AgentKind::Claude, "s1").unwrap().message_count, 1);
    home.append(FILE, end);
    assert_eq!(lines(&history, "s1")[1], answer.trim_end());
    assert_eq!(history.session(AgentKind::Claude, "s1").unwrap().message_count, 2);
}

#[test]
fn a_replaced_a_rewritten_and_a_cut_file_are_noticed() {
    let home = Home::empty();
    home.put(FILE, claude_prompt("first", "/p", 1) + &claude_answer("a", 2));
    let history = home.open();
    assert_eq!(titles(&history), ["first"]);

    // Replaced by a rename, larger.
    let other = home.put(
        "other",
        claude_prompt("second, longer", "/p", 3) + &claude_answer("b", 4) + &claude_answer("c", 5),
    );
    fs::rename(other, home.path(FILE)).unwrap();
    assert_eq!(titles(&history), ["second, longer"]);
    assert_eq!(lines(&history, "s1").len(), 3);

    // Rewritten in place, larger still.
    home.put(
        FILE,
        claude_prompt("third", "/p", 6) + &claude_answer(&"d".repeat(1_000), 7),
    );
    assert_eq!(titles(&history), ["third"]);

    // Rewritten in place with the same size.
    let same = fs::read_to_string(home.path(FILE))
        .unwrap()
        .replace("third", "forth");
    fs::write(home.path(FILE), same).unwrap();
    assert_eq!(titles(&history), ["forth"]);

    // Cut within a line.
    let file = fs::OpenOptions::new().write(true).open(home.path(FILE)).unwrap();
    file.set_len(claude_prompt("forth", "/p", 6).len() as u64 + 10)
        .unwrap();
    assert_eq!(lines(&history, "s1").len(), 1);
    assert_eq!(history.session(AgentKind::Claude, "s1").unwrap().message_count, 1);

    // Gone.
    fs::remove_file(home.path(FILE)).unwrap();
    let gone = history.messages(AgentKind::Claude, "s1", Page::default(), Filter::Everything);
    assert!(matches!(gone, Err(HistoryError::UnknownSession { .. })));
    assert_eq!(titles(&history), Vec::<String>::new());
}

#[test]
fn offsets_remembered_of_a_replaced_file_do_not_lead_into_the_new_one() {
    let home = Home::empty();
    // Lines of another length, so that no offset is the same in both.
    let big = |word: &str, lines: u32, size: usize| -> String {
        let line = |n| claude_answer(&format!("{word} {n} {}", "x".repeat(size)), n);
        (0..lines).map(line).collect()
    };
    home.put(FILE, big("old", 3_000, 900));
    let history = home.open();
    history.scan().unwrap();
    let other = home.put("other", big("new", 2_000, 2_500));
    fs::rename(other, home.path(FILE)).unwrap();
    for from in (0..2_000).step_by(37) {
        let page = Page { from, limit: 1 };
        let page = history
            .messages(AgentKind::Claude, "s1", page, Filter::Everything)
            .unwrap();
        assert_eq!(page.total_lines, 2_000);
        let line = page.messages[0].get();
        assert!(line.contains(&format!("new {from} ")), "{}", &line[..200]);
    }
}

#[test]
fn a_replacement_that_begins_and_ends_alike_is_noticed() {
    let home = Home::empty();
    let (begin, end) = (
        claude_prompt(&"b".repeat(200), "/p", 1),
        claude_answer(&"e".repeat(200), 3),
    );
    let title = |title: &str| format!("{{\"type\":\"custom-title\",\"customTitle\":\"{title}\"}}\n");
    home.put(FILE, format!("{begin}{}{end}", title("one")));
    let history = home.open();
    assert_eq!(titles(&history), ["one"]);
    let other = home.put("other", format!("{begin}{}{end}{end}", title("two")));
    fs::rename(other, home.path(FILE)).unwrap();
    assert_eq!(titles(&history), ["two"]);
}

#[test]
fn an_archived_codex_session_stays_one_session() {
    let home = Home::real();
    let history = home.open();
    let id = "01a1fa21-c7a6-7af1-96d7-fbce3238070c";
    let before = history.session(AgentKind::Codex, id).unwrap();
    let name = format!("rollout-2026-11-20T18-04-40-{id}.jsonl");
    let archive = home.path("codex/archived_sessions").join(&name);
    fs::rename(home.path("codex/sessions/2026/11/20").join(&name), archive).unwrap();
    let after = history.session(AgentKind::Codex, id).unwrap();
    assert_eq!((before.archived, after.archived), (false, true));
    assert_eq!(
        (before.title, before.message_count),
        (after.title, after.message_count)
    );
    assert_eq!(
        history
            .sessions(AgentKind::Codex, &SessionFilter::default())
            .unwrap()
            .total,
        10
    );
}

#[test]
fn a_gemini_session_that_is_resumed_and_rewound_is_read_anew_only_at_its_end() {
    let home = Home::empty();
    let file = "gemini/tmp/app/chats/session-2026-11-20T18-04-aaaaaaaa.jsonl";
    let header = r#"{"sessionId":"aaaaaaaa-1","projectHash":"h","startTime":"2026-11-20T18:04:43.684Z","kind":"main"}"#;
    let say = |id: &str, text: &str, at: u32| {
        format!(
            "{}\n",
            serde_json::json!({"id": id, "type": "user", "timestamp": time(at), "content": [{"text": text}]})
        )
    };
    home.put(
        file,
        format!("{header}\n{}{}", say("a", "one", 1), say("b", "two", 2)),
    );
    home.put("gemini/tmp/app/.project_root", "/home/dev/app");
    let history = home.open();
    let texts = || -> Vec<String> {
        let page = history
            .events(AgentKind::Gemini, "aaaaaaaa-1", Page::default())
            .unwrap();
        page.events
            .iter()
            .map(|e| {
                serde_json::to_value(e).unwrap()["text"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    };
    assert_eq!(texts(), ["one", "two"]);
    home.append(file, "{\"$rewindTo\":\"b\"}\n");
    home.append(file, say("c", "three", 3));
    assert_eq!(texts(), ["one", "three"]);
    home.append(file, say("a", "ONE", 4));
    assert_eq!(texts(), ["ONE", "three"]);
    // A resume under a new time leaves a stub; the messages stay where they are.
    home.put(
        "gemini/tmp/app/chats/session-2026-11-20T18-16-aaaaaaaa.jsonl",
        format!("{header}\n"),
    );
    assert_eq!(texts(), ["ONE", "three"]);
    let session = history.session(AgentKind::Gemini, "aaaaaaaa-1").unwrap();
    assert_eq!(
        (session.project_path.as_str(), session.title.as_deref()),
        ("/home/dev/app", Some("ONE"))
    );
    assert_eq!(
        history
            .sessions(AgentKind::Gemini, &SessionFilter::default())
            .unwrap()
            .total,
        1
    );
}

#[test]
fn another_home_does_not_show_the_sessions_of_the_one_before() {
    let home = Home::empty();
    home.put(FILE, claude_prompt("here", "/p", 1));
    home.put("elsewhere/projects/-p/s2.jsonl", claude_prompt("there", "/p", 1));
    assert_eq!(titles(&home.open()), ["here"]);
    let mut config = home.config();
    config.claude_dir = Some(home.path("elsewhere"));
    assert_eq!(titles(&History::open(config).unwrap()), ["there"]);
    assert_eq!(titles(&home.open()), ["here"]);
}

#[test]
fn a_damaged_index_is_made_again_at_once() {
    let home = Home::empty();
    home.put(FILE, claude_prompt("hello", "/p", 1));
    let history = home.open();
    assert_eq!(titles(&history), ["hello"]);
    drop(history);
    let index = home.path("index/history.sqlite");
    let mut bytes = fs::read(&index).unwrap();
    let len = bytes.len();
    bytes[100..]
        .iter_mut()
        .enumerate()
        .for_each(|(n, b)| *b = (n * 31 % 251) as u8);
    fs::write(&index, bytes).unwrap();
    assert_eq!(titles(&home.open()), ["hello"]);
    fs::write(&index, vec![0; len]).unwrap();
    assert_eq!(titles(&home.open()), ["hello"]);
    fs::write(&index, "").unwrap();
    assert_eq!(titles(&home.open()), ["hello"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_session_that_a_running_claude_has_open_is_ongoing() {
    let home = Home::empty();
    home.put(FILE, claude_prompt("hello", "/p", 1));
    let history = home.open();
    assert_eq!(
        history.session(AgentKind::Claude, "s1").unwrap().status,
        Status::Completed
    );
    let pid = std::process::id();
    let json = serde_json::json!({"pid": pid, "sessionId": "s1", "cwd": "/p", "status": "idle"});
    home.put(&format!("claude/sessions/{pid}.json"), json.to_string());
    assert_eq!(
        history.session(AgentKind::Claude, "s1").unwrap().status,
        Status::Ongoing
    );
    let listed = history
        .sessions(AgentKind::Claude, &SessionFilter::default())
        .unwrap();
    assert_eq!(listed.sessions[0].status, Status::Ongoing);
    let live = history.live(AgentKind::Claude);
    assert_eq!((live.len(), live[0].pid, live[0].busy), (1, pid, Some(false)));
}

#[test]
fn many_readers_and_a_writer_at_once_see_whole_sessions() {
    let home = Home::empty();
    for n in 0..50 {
        home.put(
            &format!("claude/projects/-p/s{n}.jsonl"),
            claude_prompt(&format!("prompt {n}"), "/p", n),
        );
    }
    let history = home.open();
    // Another process with the same index.
    let other = home.open();
    std::thread::scope(|scope| {
        for history in [&history, &history, &other, &other] {
            scope.spawn(move || {
                for n in 0..40 {
                    let listed = history
                        .sessions(AgentKind::Claude, &SessionFilter::default())
                        .unwrap();
                    assert_eq!(listed.total, 50);
                    let id = format!("s{}", n % 50);
                    let count = lines(history, &id).len();
                    assert!(count >= 1);
                    assert!(history.session(AgentKind::Claude, &id).unwrap().message_count >= count as u64);
                }
            });
        }
        for round in 0..20 {
            for n in 0..50 {
                home.append(
                    &format!("claude/projects/-p/s{n}.jsonl"),
                    claude_answer("more", 100 + round),
                );
            }
        }
    });
    for n in 0..50 {
        assert_eq!(lines(&history, &format!("s{n}")).len(), 21);
        assert_eq!(
            other
                .session(AgentKind::Claude, &format!("s{n}"))
                .unwrap()
                .message_count,
            21
        );
    }
}
