//! What is told of homes that the real agents left behind (`fixtures/`, long strings cut).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use arp_agents::event::{Event, ToolKind, TurnStatus};
use arp_history::{AgentKind, EventPage, Filter, History, Page, SessionFilter, Status};
use common::Home;
use serde_json::{Value, json};

const FIRST: &str = "994418b3-651b-4aae-aad1-2255b15088c1";

fn titles(history: &History, agent: AgentKind, filter: &SessionFilter) -> Vec<String> {
    let listed = history.sessions(agent, filter).unwrap();
    listed.sessions.into_iter().map(|s| s.title.unwrap()).collect()
}

fn all_events(history: &History, agent: AgentKind, id: &str) -> Vec<Event> {
    let page: EventPage = history.events(agent, id, Page::default()).unwrap();
    assert_eq!(page.next, None);
    page.events.into_iter().map(|e| e.event).collect()
}

/// Prompts and answers, as somebody would read them.
fn talk(events: &[Event]) -> Vec<(&'static str, &str)> {
    fn said(event: &Event) -> Option<(&'static str, &str)> {
        match event {
            Event::UserMessage { text, .. } => Some(("user", text.as_str())),
            Event::Text { text, .. } => Some(("agent", text.as_str())),
            _ => None,
        }
    }
    events.iter().filter_map(said).collect()
}

#[test]
fn claude_projects_have_their_true_paths() {
    let home = Home::real();
    let history = home.open();
    let projects = serde_json::to_value(history.projects(AgentKind::Claude, None, 0).unwrap()).unwrap();
    assert_eq!(
        (&projects["type"], &projects["total"]),
        (&json!("projects"), &json!(2))
    );
    let paths: Vec<_> = projects["projects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (&p["id"], &p["path"]))
        .collect();
    assert_eq!(
        paths,
        [
            (
                &json!("-home-dev-projects-my-app-1"),
                &json!("/home/dev/projects/my.app_1")
            ),
            (
                &json!("-home-dev-projects-other"),
                &json!("/home/dev/projects/other")
            ),
        ]
    );
    let first = &projects["projects"][0];
    assert_eq!(first["sessions"].as_array().unwrap().len(), 7);
    assert_eq!(first["created_at"], json!(1_795_197_874));
    assert!(first["most_recent_session"].as_i64().unwrap() >= 1_795_197_879);

    let directories = serde_json::to_value(history.working_directories(AgentKind::Claude).unwrap()).unwrap();
    let directory = &directories["directories"][0];
    assert_eq!(
        (&directory["path"], &directory["shortname"]),
        (&json!("/home/dev/projects/my.app_1"), &json!("my.app_1"))
    );
    assert_eq!(directory["conversationCount"], json!(7));
    assert!(
        directory["lastDate"]
            .as_str()
            .unwrap()
            .starts_with("2026-11-20T18:04:")
    );
}

#[test]
fn a_claude_session_is_listed_in_the_known_shape() {
    let home = Home::real();
    let history = home.open();
    let session = serde_json::to_value(history.session(AgentKind::Claude, FIRST).unwrap()).unwrap();
    assert_eq!(
        session,
        json!({"id": FIRST, "agent": "claude", "project_id": "-home-dev-projects-my-app-1",
            "project_path": "/home/dev/projects/my.app_1", "todo_data": null,
            "created_at": 1_795_197_874, "updated_at": 1_795_197_879,
            "first_message": "say Hello, this is the first session",
            "message_timestamp": "2026-11-20T18:04:35.005Z", "message_count": 7, "status": "completed",
            "total_duration": 836, "title": "say Hello, this is the first session", "model": "claude-opus-5-5",
            "git_branch": "main", "archived": false, "size": 70595})
    );
}

#[test]
fn sessions_are_filtered_paged_and_counted_newest_first() {
    let home = Home::real();
    let history = home.open();
    let all = history
        .sessions(AgentKind::Claude, &SessionFilter::default())
        .unwrap();
    assert_eq!((all.total, all.sessions.len()), (8, 8));
    assert!(all.sessions.is_sorted_by(|a, b| a.updated_at >= b.updated_at));
    assert!(all.sessions.iter().all(|s| s.status == Status::Completed));

    let in_path = |path: &str| SessionFilter {
        project_path: Some(path.into()),
        ..SessionFilter::default()
    };
    let other = in_path("/home/dev/projects/other/");
    assert_eq!(
        titles(&history, AgentKind::Claude, &other),
        ["say a session in another project"]
    );
    assert_eq!(
        titles(&history, AgentKind::Claude, &in_path("/home/dev")),
        Vec::<String>::new()
    );
    let project = SessionFilter {
        project_id: Some("-home-dev-projects-my-app-1".into()),
        ..SessionFilter::default()
    };
    assert_eq!(history.sessions(AgentKind::Claude, &project).unwrap().total, 7);

    let mut paged = Vec::new();
    for offset in (0..9).step_by(3) {
        let filter = SessionFilter {
            limit: Some(3),
            offset,
            ..SessionFilter::default()
        };
        let page = history.sessions(AgentKind::Claude, &filter).unwrap();
        assert_eq!(page.total, 8);
        paged.extend(page.sessions);
    }
    assert_eq!(paged, all.sessions);
    assert!(
        titles(&history, AgentKind::Claude, &project).contains(&"Fix the login bug".to_owned()),
        "given title"
    );
}

#[test]
fn a_claude_session_reads_as_a_conversation() {
    let home = Home::real();
    let events = all_events(&home.open(), AgentKind::Claude, FIRST);
    assert_eq!(
        talk(&events),
        [
            ("user", "say Hello, this is the first session"),
            ("agent", "Hello, this is the first session"),
            ("user", "run tool: ls -a"),
            ("agent", "Running it."),
            ("agent", "Tool result: .\n..\n.git\nREADME.md"),
            ("user", "say continued from another directory"),
            ("agent", "continued from another directory"),
        ]
    );
    let call = events.iter().find_map(|e| match e {
        Event::ToolCall {
            id,
            name,
            kind,
            title,
            ..
        } => Some((id.clone(), name.as_str(), *kind, title.as_str())),
        _ => None,
    });
    let (id, name, kind, title) = call.unwrap();
    assert_eq!((name, kind, title), ("Bash", ToolKind::Command, "ls -a"));
    assert!(events.iter().any(
        |e| matches!(e, Event::ToolResult { id: of, output, is_error: false, .. }
        if *of == id && output == ".\n..\n.git\nREADME.md")
    ));
    let cost = events.iter().rev().find_map(|e| match e {
        Event::Usage(usage) => Some((usage.input_tokens, usage.output_tokens, usage.cost_usd)),
        _ => None,
    });
    assert_eq!(
        cost,
        Some((Some(400), Some(18), Some(0.001_960_000_000_000_000_4)))
    );
}

#[test]
fn claude_edits_thoughts_and_failures_are_told() {
    let home = Home::real();
    let history = home.open();
    let edit = all_events(
        &history,
        AgentKind::Claude,
        "268d0348-cd2c-42d4-b319-da0c273ed738",
    );
    let change = edit.iter().find_map(|e| match e {
        Event::ToolCall {
            kind: ToolKind::Edit,
            changes,
            ..
        } => Some(changes.clone()),
        _ => None,
    });
    let change = &change.unwrap()[0];
    assert_eq!(change.path, "/home/dev/projects/my.app_1/new.txt");
    assert_eq!(change.diff, "@@ -0,0 +1 @@\n+hello\n");
    let thought = all_events(
        &history,
        AgentKind::Claude,
        "a593f16d-7bc2-4d28-9231-29c11c9724aa",
    );
    assert!(
        thought
            .iter()
            .any(|e| matches!(e, Event::Thinking { text, .. } if text == "Let me think about that."))
    );
    let failed = all_events(
        &history,
        AgentKind::Claude,
        "8d250c6f-0c95-483b-a434-90de534fd8c3",
    );
    assert!(
        failed
            .iter()
            .any(|e| matches!(e, Event::Error { message, .. } if message == "API Error: 400 bad request"))
    );
}

#[test]
fn a_sub_agent_is_told_with_the_call_that_started_it() {
    let home = Home::real();
    let id = "62d0f3ca-1d8a-40bc-bca2-3db84a186c37";
    let events = all_events(&home.open(), AgentKind::Claude, id);
    let place = |wanted: &dyn Fn(&Event) -> bool| events.iter().position(wanted).unwrap();
    let call = "toolu_fake1795197876000354";
    let started = place(&|e| matches!(e, Event::ToolCall { id, kind: ToolKind::Task, .. } if id == call));
    let inside = place(
        &|e| matches!(e, Event::Text { text, parent: Some(parent), .. } if text == "I looked around" && parent == call),
    );
    let ended = place(&|e| matches!(e, Event::ToolResult { id, .. } if id == call));
    assert!(started < inside && inside < ended);
    let prompts = events
        .iter()
        .filter(|e| matches!(e, Event::UserMessage { .. }))
        .count();
    assert_eq!(prompts, 1, "what the sub-agent was told is no prompt of the user");
}

#[test]
fn raw_lines_are_the_files_lines_and_housekeeping_can_be_left_out() {
    let home = Home::real();
    let history = home.open();
    let path = home.path(&format!(
        "claude/projects/-home-dev-projects-my-app-1/{FIRST}.jsonl"
    ));
    let file = std::fs::read_to_string(path).unwrap();
    let mut lines = Vec::new();
    let mut page = Page { from: 0, limit: 5 };
    loop {
        let got = history
            .messages(AgentKind::Claude, FIRST, page, Filter::Everything)
            .unwrap();
        assert!(got.messages.len() <= 5);
        assert_eq!(got.total_lines, 44);
        lines.extend(got.messages.into_iter().map(|m| m.get().to_owned()));
        match got.next {
            Some(next) => page.from = next,
            None => break,
        }
    }
    assert_eq!(lines, file.lines().collect::<Vec<_>>());

    let talk = history
        .messages(AgentKind::Claude, FIRST, Page::default(), Filter::Conversation)
        .unwrap();
    let shown = serde_json::to_value(&talk).unwrap();
    assert_eq!(
        (&shown["type"], &shown["session_id"]),
        (&json!("session_history"), &json!(FIRST))
    );
    let kinds: Vec<&str> = shown["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["type"].as_str().unwrap())
        .collect();
    assert!(
        kinds
            .iter()
            .all(|k| ["user", "assistant", "cost-state"].contains(k)),
        "{kinds:?}"
    );
    assert_eq!((kinds.len(), talk.lines.len(), talk.lines[0]), (12, 12, 2));
}

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
    assert_eq!(agent(FIRST), Some(AgentKind::Claude));
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
