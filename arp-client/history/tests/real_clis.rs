//! The real CLIs write; history reads. Needs `claude`, `codex` and `gemini` (see `arp_testkit::cli::find`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_agents::event::Event;
use arp_history::{
    AgentKind, Filter, History, HistoryConfig, HistoryError, Page, Session, SessionFilter, Status,
};
use arp_testkit::cli::{self, Home};
use arp_testkit::model_api::ModelApi;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// The slowest CLI takes some seconds to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

fn spawn(binary: &Path, home: &Home, args: &[&str]) -> Child {
    Command::new(binary)
        .args(args)
        .current_dir(home.project())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(home.env().iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Runs to the end; returns standard output and whether it went well.
async fn run(binary: &Path, home: &Home, args: &[&str]) -> (String, bool) {
    let output = tokio::time::timeout(PATIENCE, spawn(binary, home, args).wait_with_output()).await;
    let output = output.expect("the CLI ends in time").unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (
        said + &String::from_utf8_lossy(&output.stderr),
        output.status.success(),
    )
}

fn open(home: &Home) -> History {
    let env = |name: &str| {
        home.env()
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.clone())
    };
    let config = HistoryConfig::from_env(env, home.path().join("arp/history.sqlite"));
    assert!(
        config.claude_dir.as_ref().unwrap().starts_with(home.path()),
        "{config:?}"
    );
    History::open(config).unwrap()
}

fn only(history: &History, agent: AgentKind) -> Session {
    let mut listed = history.sessions(agent, &SessionFilter::default()).unwrap();
    assert_eq!(listed.total, 1);
    listed.sessions.remove(0)
}

fn talk(history: &History, agent: AgentKind, id: &str) -> Vec<String> {
    let page = history.events(agent, id, Page::default()).unwrap();
    let said = page.events.into_iter().filter_map(|e| match e.event {
        Event::UserMessage { text, .. } => Some(format!("> {text}")),
        Event::Text { text, .. } => Some(format!("< {text}")),
        Event::ToolCall { title, .. } => Some(format!("$ {title}")),
        Event::ToolResult { output, .. } => Some(format!("= {}", output.trim())),
        _ => None,
    });
    let mut said: Vec<String> = said.collect();
    // A call may be told again with more detail.
    said.dedup();
    said
}

/// What every agent's session must show after one turn.
fn check(history: &History, home: &Home, agent: AgentKind) -> Session {
    let session = only(history, agent);
    let project = home.project().display().to_string();
    assert_eq!(session.project_path, project);
    assert_eq!(
        (session.first_message.as_deref(), session.message_count),
        (Some("say hello"), 2)
    );
    assert_eq!(
        (session.title.as_deref(), session.status),
        (Some("say hello"), Status::Completed)
    );
    assert!(session.created_at > 1_700_000_000 && session.updated_at >= session.created_at);
    assert_eq!(talk(history, agent, &session.id), ["> say hello", "< hello"]);
    let directories = history.working_directories(agent).unwrap().directories;
    assert_eq!(
        (directories.len(), directories[0].path.as_str()),
        (1, project.as_str())
    );
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_sessions_are_read_resumed_seen_live_and_deleted() {
    let Some(claude) = cli::find("claude") else { return };
    let api = ModelApi::start().await;
    let home = Home::new(&api);
    let history = open(&home);
    assert!(run(&claude, &home, &["-p", "say hello"]).await.1);
    let session = check(&history, &home, AgentKind::Claude);
    assert!(session.total_duration.is_some() && session.model.is_some());

    let (said, ok) = run(&claude, &home, &["-p", "run tool: ls", "--resume", &session.id]).await;
    assert!(ok, "{said}");
    assert_eq!(only(&history, AgentKind::Claude).id, session.id);
    let said = talk(&history, AgentKind::Claude, &session.id);
    assert_eq!(
        said[2..6],
        ["> run tool: ls", "< Running it.", "$ ls", "= README.md"]
    );
    let raw = history
        .messages(
            AgentKind::Claude,
            &session.id,
            Page::default(),
            Filter::Conversation,
        )
        .unwrap();
    assert!(raw.messages.len() >= 5);

    // While it works it is live, and not deleted without force.
    let mut child = spawn(&claude, &home, &["-p", "fake hold", "--resume", &session.id]);
    let live = loop {
        if let Some(live) = history.live(AgentKind::Claude).pop() {
            break live;
        }
        assert!(child.try_wait().unwrap().is_none(), "claude ended early");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(
        (Some(live.pid), live.session_id.as_str()),
        (child.id(), session.id.as_str())
    );
    assert_eq!(only(&history, AgentKind::Claude).status, Status::Ongoing);
    let refused = history.delete(AgentKind::Claude, &session.id, false);
    assert!(matches!(refused, Err(HistoryError::Live { .. })), "{refused:?}");
    // Killed, it leaves its note behind; it is not live all the same.
    child.kill().await.unwrap();
    assert_eq!(history.live(AgentKind::Claude), []);

    history.delete(AgentKind::Claude, &session.id, false).unwrap();
    assert_eq!(
        history
            .sessions(AgentKind::Claude, &SessionFilter::default())
            .unwrap()
            .total,
        0
    );
    let (said, _) = run(&claude, &home, &["-p", "say again", "--resume", &session.id]).await;
    assert!(said.contains("No conversation found"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_sessions_are_read_resumed_and_deleted_with_their_rows() {
    let Some(codex) = cli::find("codex") else { return };
    let api = ModelApi::start().await;
    let home = Home::new(&api);
    let mut history = open(&home);
    let (said, ok) = run(&codex, &home, &["exec", "--json", "say hello"]).await;
    assert!(ok, "{said}");
    let session = check(&history, &home, AgentKind::Codex);
    let args = ["exec", "--json", "resume", &session.id, "run tool: ls"];
    assert!(run(&codex, &home, &args).await.1);
    let said = talk(&history, AgentKind::Codex, &session.id);
    assert_eq!(
        said[2..5],
        ["> run tool: ls", "< Running it.", "$ ls"],
        "{said:?}"
    );
    assert!(said[5..].contains(&"= README.md".to_owned()), "{said:?}");

    let mut config = history.config().clone();
    config.codex_command = Some(codex.clone());
    history = History::open(config).unwrap();
    history.delete(AgentKind::Codex, &session.id, false).unwrap();
    assert_eq!(
        history
            .sessions(AgentKind::Codex, &SessionFilter::default())
            .unwrap()
            .total,
        0
    );
    let rows = rusqlite::Connection::open(home.path().join(".codex/state_5.sqlite")).unwrap();
    let left: i64 = rows
        .query_row("SELECT count(*) FROM threads WHERE id = ?1", [&session.id], |r| {
            r.get(0)
        })
        .unwrap();
    assert_eq!(left, 0);
    let (said, ok) = run(
        &codex,
        &home,
        &["exec", "--json", "resume", &session.id, "say again"],
    )
    .await;
    assert!(!ok && said.contains("no rollout found"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_sessions_are_read_and_deleted() {
    let Some(gemini) = cli::find("gemini") else { return };
    let api = ModelApi::start().await;
    let home = Home::new(&api);
    let history = open(&home);
    let base = [
        "--skip-trust",
        "-m",
        "gemini-2.5-flash",
        "--output-format",
        "stream-json",
        "-p",
    ];
    let prompt = |text| base.into_iter().chain([text]).collect::<Vec<_>>();
    let (said, ok) = run(&gemini, &home, &prompt("say hello")).await;
    assert!(ok, "{said}");
    let session = check(&history, &home, AgentKind::Gemini);
    assert!(said.contains(&session.id));

    let mut args = prompt("call list_directory {\"dir_path\":\".\"}");
    args.extend(["--resume", session.id.as_str()]);
    let (said, ok) = run(&gemini, &home, &args).await;
    assert!(ok, "{said}");
    assert_eq!(only(&history, AgentKind::Gemini).id, session.id);
    let said = talk(&history, AgentKind::Gemini, &session.id);
    assert_eq!(said[..2], ["> say hello", "< hello"], "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("= ")), "{said:?}");

    history.delete(AgentKind::Gemini, &session.id, true).unwrap();
    let (said, _) = run(&gemini, &home, &["--list-sessions", "--skip-trust"]).await;
    assert!(said.contains("No previous sessions"), "{said}");
    assert_eq!(
        history
            .sessions(AgentKind::Gemini, &SessionFilter::default())
            .unwrap()
            .total,
        0
    );
}
