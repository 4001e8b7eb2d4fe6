//! Deleting a session removes all that belongs to it, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use arp_history::{AgentKind, HistoryError, SessionFilter};
use common::{Home, claude_prompt};
use std::fs;
use std::time::{Duration, SystemTime};

fn age(home: &Home, rel: &str) {
    let file = fs::OpenOptions::new().append(true).open(home.path(rel)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3_600))
        .unwrap();
}

#[test]
fn a_claude_session_goes_with_its_sub_agents_and_side_files() {
    let home = Home::real();
    let id = "62d0f3ca-1d8a-40bc-bca2-3db84a186c37";
    let other = "994418b3-651b-4aae-aad1-2255b15088c1";
    for of in [id, other] {
        home.put(&format!("claude/session-env/{of}/env"), "x");
        home.put(&format!("claude/file-history/{of}/a@v1"), "x");
        home.put(&format!("claude/tasks/{of}/1.json"), "x");
        home.put(
            &format!("claude/todos/{of}-agent-{of}.json"),
            r#"[{"content":"a","status":"pending"}]"#,
        );
    }
    let history = home.open();
    let todo = history.session(AgentKind::Claude, id).unwrap().todo_data.unwrap();
    assert_eq!(todo[0]["content"], "a");

    let deleted = history.delete(AgentKind::Claude, id, false).unwrap();
    let project = "projects/-home-dev-projects-my-app-1";
    assert_eq!(
        deleted.removed,
        [
            format!("{project}/{id}"),
            format!("session-env/{id}"),
            format!("file-history/{id}"),
            format!("tasks/{id}"),
            format!("todos/{id}-agent-{id}.json"),
            format!("{project}/{id}.jsonl"),
        ]
    );
    let json = serde_json::to_value(&deleted).unwrap();
    assert_eq!(
        (&json["type"], &json["session_id"]),
        (&"session_deleted".into(), &id.into())
    );
    for rel in &deleted.removed {
        assert!(!home.exists(&format!("claude/{rel}")));
        assert!(
            home.exists(&format!("claude/{}", rel.replace(id, other))) || rel.ends_with(id),
            "{rel}"
        );
    }
    assert!(home.exists(&format!("claude/session-env/{other}/env")));
    assert!(matches!(
        history.session(AgentKind::Claude, id),
        Err(HistoryError::UnknownSession { .. })
    ));
    assert_eq!(
        history
            .sessions(AgentKind::Claude, &SessionFilter::default())
            .unwrap()
            .total,
        7
    );
    assert!(matches!(
        history.delete(AgentKind::Claude, id, false),
        Err(HistoryError::UnknownSession { .. })
    ));
}

#[cfg(unix)]
#[test]
fn a_live_claude_session_is_only_deleted_by_force() {
    let home = Home::empty();
    home.put("claude/projects/-p/s1.jsonl", claude_prompt("hello", "/p", 1));
    let process = serde_json::json!({"pid": std::process::id(), "sessionId": "s1"});
    home.put("claude/sessions/1.json", process.to_string());
    let history = home.open();
    let refused = history.delete(AgentKind::Claude, "s1", false).unwrap_err();
    assert_eq!((refused.code(), refused.status()), ("session_live", 409));
    assert!(home.exists("claude/projects/-p/s1.jsonl"));
    history.delete(AgentKind::Claude, "s1", true).unwrap();
    assert!(!home.exists("claude/projects/-p/s1.jsonl"));
}

#[test]
fn a_codex_session_goes_wherever_it_lies() {
    let home = Home::real();
    let history = home.open();
    for id in [
        "01a1fa21-c7a6-7af1-96d7-fbce3238070c",
        "01a1fa21-cce6-71e3-82d4-bdcccbc37745",
    ] {
        let removed = history.delete(AgentKind::Codex, id, false).unwrap().removed;
        assert_eq!(removed.len(), 1);
        assert!(removed[0].contains(id) && !home.exists(&format!("codex/{}", removed[0])));
    }
    assert_eq!(
        history
            .sessions(AgentKind::Codex, &SessionFilter::default())
            .unwrap()
            .total,
        8
    );
}

/// Codex holds the file of a session it works with open.
#[cfg(target_os = "linux")]
#[test]
fn a_codex_session_that_a_codex_process_holds_is_only_deleted_by_force() {
    let home = Home::real();
    let history = home.open();
    let id = "01a1fa21-c7a6-7af1-96d7-fbce3238070c";
    let file = home.path(&format!(
        "codex/sessions/2026/11/20/rollout-2026-11-20T18-04-40-{id}.jsonl"
    ));
    // A process of that name, with the file open.
    let fake = home.path("codex-fake");
    fs::copy("/bin/sleep", &fake).unwrap();
    let stdin = fs::OpenOptions::new().append(true).open(&file).unwrap();
    let mut child = std::process::Command::new(&fake)
        .arg("60")
        .stdin(stdin)
        .spawn()
        .unwrap();
    let refused = history.delete(AgentKind::Codex, id, false).unwrap_err();
    let live = history.live(AgentKind::Codex);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(refused, HistoryError::Live { .. }));
    assert_eq!(
        (live.len(), live[0].pid, live[0].session_id.as_str()),
        (1, child.id(), id)
    );
    history.delete(AgentKind::Codex, id, false).unwrap();
}

#[cfg(unix)]
#[test]
fn codex_is_asked_to_delete_and_what_it_leaves_is_removed() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::real();
    let command = home.put(
        "bin/codex",
        "#!/bin/sh\necho \"$CODEX_HOME $*\" > \"$CODEX_HOME/asked\"\nexit 1\n",
    );
    fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
    // Not named in the configuration, but found on the machine.
    let history = arp_history::History::open(home.config()).unwrap();
    history.found_codex(command);
    let id = "01a1fa21-c7a6-7af1-96d7-fbce3238070c";
    assert_eq!(
        history.delete(AgentKind::Codex, id, false).unwrap().removed.len(),
        1
    );
    let asked = fs::read_to_string(home.path("codex/asked")).unwrap();
    assert_eq!(
        asked.trim(),
        format!("{} delete --force {id}", home.path("codex").display())
    );
}

#[test]
fn a_gemini_session_goes_with_all_its_files() {
    let home = Home::real();
    let id = "95af8c04-23c5-4cbb-9811-0ce9568eaa3f";
    let tmp = "gemini/tmp/my-app-1";
    home.put(&format!("{tmp}/chats/{id}/agent-7.jsonl"), "{}");
    let belonging = [
        format!("{tmp}/logs/session-{id}.jsonl"),
        format!("{tmp}/tool-outputs/session-{id}/out.txt"),
        format!("{tmp}/{id}/plans/plan.md"),
        format!("{tmp}/logs/session-agent-7.jsonl"),
        format!("{tmp}/agent-7/x"),
    ];
    for rel in &belonging {
        home.put(rel, "x");
    }
    home.put(&format!("{tmp}/logs/session-other.jsonl"), "x");
    let files = [
        "session-2026-11-20T18-04-95af8c04.jsonl",
        "session-2026-11-20T18-16-95af8c04.jsonl",
    ];
    let history = home.open();
    let recent = history.delete(AgentKind::Gemini, id, false).unwrap_err();
    assert!(
        matches!(recent, HistoryError::Live { .. }),
        "it was written to just now"
    );
    files.iter().for_each(|f| age(&home, &format!("{tmp}/chats/{f}")));

    let removed = history.delete(AgentKind::Gemini, id, false).unwrap().removed;
    assert_eq!(removed.len(), 5 + 1 + 2, "{removed:?}");
    for rel in belonging.iter().map(String::as_str) {
        assert!(!home.exists(rel), "{rel}");
    }
    assert!(files.iter().all(|f| !home.exists(&format!("{tmp}/chats/{f}"))));
    assert!(home.exists(&format!("{tmp}/logs/session-other.jsonl")));
    assert!(home.exists(&format!("{tmp}/chats/session-2026-11-20T18-15-7f6bc288.jsonl")));
    assert_eq!(
        history
            .sessions(AgentKind::Gemini, &SessionFilter::default())
            .unwrap()
            .total,
        3
    );
}
