//! What is told of a home that the real Claude Code left behind (`fixtures/`, long strings cut).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use arp_agents::event::{Event, ToolKind};
use arp_history::{AgentKind, Filter, History, Page, SessionFilter, Status};
use common::{Home, all_events, talk};
use serde_json::json;

const FIRST: &str = "994418b3-651b-4aae-aad1-2255b15088c1";

fn titles(history: &History, agent: AgentKind, filter: &SessionFilter) -> Vec<String> {
    let listed = history.sessions(agent, filter).unwrap();
    listed.sessions.into_iter().map(|s| s.title.unwrap()).collect()
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
