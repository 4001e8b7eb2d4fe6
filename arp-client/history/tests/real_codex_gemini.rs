//! What is told of homes that the real Codex and Gemini CLI left behind (`fixtures/`, long strings cut), and of all
//! agents together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use arp_agents::event::{Event, ToolKind, TurnStatus};
use arp_history::{AgentKind, Page, SessionFilter};
use common::{Home, all_events, talk};
use serde_json::{Value, json};

const CLAUDE: &str = "994418b3-651b-4aae-aad1-2255b15088c1";

#[test]
fn codex_sessions_are_listed_with_given_names_and_archive() {
    let home = Home::real();
    let history = home.open();
    let listed = history
        .sessions(AgentKind::Codex, &SessionFilter::default())
        .unwrap();
    let mut shown: Vec<_> = listed
        .sessions
        .iter()
        .map(|s| {
            (
                s.title.as_deref().unwrap().chars().take(40).collect::<String>(),
                s.archived,
            )
        })
        .collect();
    shown.sort_unstable();
    let expected = [
        ("Make a file", false),
        ("call apply_patch {\"input\":\"*** Begin Pat", false),
        ("fake error 400 bad request", false),
        ("run tool: touch ro.txt", false),
        ("run tool: touch ro.txt", false),
        ("say Hello, this is the first codex sessi", false),
        ("say hi", false),
        ("say over the app server", false),
        ("say to be archived", true),
        ("think deep thoughts", false),
    ];
    assert_eq!(
        shown,
        expected.map(|(title, archived)| (title.to_owned(), archived))
    );
    let session = history
        .session(AgentKind::Codex, "01a1fa21-c9db-73b1-a9cb-176aee63e27e")
        .unwrap();
    assert_eq!(
        (session.project_path.as_str(), session.message_count),
        ("/home/dev/projects/my.app_1", 3)
    );
    assert_eq!(
        (session.total_duration, session.model.as_deref()),
        (Some(191), Some("gpt-5.5"))
    );
    assert_eq!(
        session.first_message.as_deref(),
        Some("run tool: touch made.txt && echo made")
    );
    let projects = history.projects(AgentKind::Codex, None, 0).unwrap();
    assert_eq!(projects.total, 2);
    assert!(
        projects
            .projects
            .iter()
            .all(|p| p.id.starts_with(&p.path.replace(['/', '.', '_'], "-")))
    );
}

#[test]
fn a_codex_session_reads_as_a_conversation_with_commands_and_diffs() {
    let home = Home::real();
    let history = home.open();
    let events = all_events(&history, AgentKind::Codex, "01a1fa21-c9db-73b1-a9cb-176aee63e27e");
    let said = talk(&events);
    assert_eq!(
        &said[..2],
        [
            ("user", "run tool: touch made.txt && echo made"),
            ("agent", "Running it.")
        ]
    );
    assert_eq!(said.len(), 3);
    let calls: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            Event::ToolCall { id, kind, title, .. } => Some((id.as_str(), *kind, title.as_str())),
            _ => None,
        })
        .collect();
    let (id, kind, title) = *calls.last().unwrap();
    assert_eq!((kind, title), (ToolKind::Command, "touch made.txt && echo made"));
    assert!(calls.iter().all(|(of, ..)| *of == id), "one card");
    let results: Vec<_> = events
        .iter()
        .filter_map(|e| match e {
            Event::ToolResult {
                output, exit_code, ..
            } => Some((output.as_str(), *exit_code)),
            _ => None,
        })
        .collect();
    assert_eq!(results, [("made\n", Some(0))], "told once, as the user saw it");
    assert!(matches!(
        events.last(),
        Some(Event::TurnEnd {
            status: TurnStatus::Completed,
            duration_ms: Some(191),
            ..
        })
    ));

    let patched = all_events(&history, AgentKind::Codex, "01a1fa47-de9c-7fc3-950f-991ab8b5cfb9");
    let changes = patched.iter().find_map(|e| match e {
        Event::ToolCall {
            kind: ToolKind::Edit,
            changes,
            ..
        } if !changes.is_empty() => Some(changes.clone()),
        _ => None,
    });
    let diffs: Vec<String> = changes.unwrap().into_iter().map(|c| c.diff).collect();
    assert_eq!(diffs, ["@@ -1 +1 @@\n-hi\n+hello\n", "@@ -0,0 +1 @@\n+one\n"]);

    let aborted = all_events(&history, AgentKind::Codex, "01a1fa48-5d60-7781-b471-59e7581fbc02");
    assert!(aborted.iter().any(|e| matches!(
        e,
        Event::TurnEnd {
            status: TurnStatus::Interrupted,
            ..
        }
    )));
    let failed = all_events(&history, AgentKind::Codex, "01a1fa21-cc13-7f92-ae55-352dfe1f62e8");
    assert!(matches!(
        failed.last(),
        Some(Event::TurnEnd {
            status: TurnStatus::Failed,
            message: Some(_),
            ..
        })
    ));
    let thought = all_events(&history, AgentKind::Codex, "01a1fa21-cb2c-76a1-af45-3435d6e6d34d");
    assert!(
        thought
            .iter()
            .any(|e| matches!(e, Event::Thinking { text, .. } if text == "Let me think about that."))
    );
}

#[test]
fn a_resumed_gemini_session_is_one_session_with_all_its_messages() {
    let home = Home::real();
    let history = home.open();
    let listed = history
        .sessions(AgentKind::Gemini, &SessionFilter::default())
        .unwrap();
    assert_eq!(
        listed.total, 4,
        "the stub that a resume leaves is no session of its own"
    );
    let resumed = history
        .session(AgentKind::Gemini, "95af8c04-23c5-4cbb-9811-0ce9568eaa3f")
        .unwrap();
    assert_eq!(resumed.project_id, "my-app-1");
    assert_eq!(resumed.project_path, "/home/dev/projects/my.app_1");
    assert_eq!(
        resumed.title.as_deref(),
        Some("say Hello, this is the first gemini session")
    );
    assert_eq!(resumed.message_count, 7);
    assert_eq!(
        resumed.message_timestamp.as_deref(),
        Some("2026-11-20T18:04:45.638Z"),
        "as the resume wrote it anew"
    );
    assert!(resumed.total_duration.is_some());

    let events = all_events(&history, AgentKind::Gemini, &resumed.id);
    let result = "Tool result: <untrusted_context>\nOutput: README.md\nmade.txt\nnew.txt\nProcess Group PGID: 10816\n</untrusted_context>";
    assert_eq!(
        talk(&events),
        [
            ("user", "say Hello, this is the first gemini session"),
            ("agent", "Hello, this is the first gemini session"),
            ("user", "run tool: ls"),
            ("agent", "Running it."),
            ("agent", result),
            ("user", "say resumed minutes later"),
            ("agent", "resumed minutes later"),
        ]
    );
    let projects = history.projects(AgentKind::Gemini, None, 0).unwrap();
    assert_eq!(
        (projects.total, projects.projects[0].path.as_str()),
        (2, "/home/dev/projects/my.app_1")
    );
}

#[test]
fn gemini_pages_are_messages_and_join_to_the_whole() {
    let home = Home::real();
    let history = home.open();
    let id = "95af8c04-23c5-4cbb-9811-0ce9568eaa3f";
    let whole = history.events(AgentKind::Gemini, id, Page::default()).unwrap();
    let mut joined = Vec::new();
    let mut from = Some(0);
    while let Some(at) = from {
        let page = history
            .events(AgentKind::Gemini, id, Page { from: at, limit: 1 })
            .unwrap();
        assert_eq!(page.total_lines, whole.total_lines);
        joined.extend(page.events);
        from = page.next;
    }
    assert_eq!(joined, whole.events);
    let edit = all_events(
        &history,
        AgentKind::Gemini,
        "46a694f9-1a4d-4b75-8a8b-56ffdcdfa631",
    );
    let change = edit.iter().find_map(|e| match e {
        Event::ToolCall {
            kind: ToolKind::Edit,
            changes,
            ..
        } => changes.first().cloned(),
        _ => None,
    });
    assert_eq!(change.unwrap().diff, "@@ -0,0 +1,1 @@\n+hi\n");
}

#[test]
fn a_session_is_found_whichever_agents_it_is() {
    let home = Home::real();
    let history = home.open();
    let agent = |id: &str| history.find(id).unwrap().map(|s| s.agent);
    assert_eq!(agent(CLAUDE), Some(AgentKind::Claude));
    assert_eq!(
        agent("01a1fa21-c9db-73b1-a9cb-176aee63e27e"),
        Some(AgentKind::Codex)
    );
    assert_eq!(
        agent("7f6bc288-aa62-4366-8f2d-29282dff9131"),
        Some(AgentKind::Gemini)
    );
    for unknown in ["x", "", "..", "../../etc/passwd", "994418b3", "%"] {
        assert_eq!(agent(unknown), None, "{unknown}");
    }
}

#[test]
fn the_answers_need_no_second_reading_of_the_files() {
    let home = Home::real();
    let first = home.open();
    let report = first.scan().unwrap();
    assert_eq!((report.files, report.read), (8 + 10 + 5, 8 + 10 + 5));
    drop(first);
    let again = home.open();
    assert_eq!(again.scan().unwrap().read, 0);
    let listed = again
        .sessions(AgentKind::Claude, &SessionFilter::default())
        .unwrap();
    let listed: Value = serde_json::to_value(listed).unwrap();
    assert_eq!(listed["total"], json!(8));
    assert_eq!(again.bytes_read(), 0);
}
