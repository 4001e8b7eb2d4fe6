//! Any agent that speaks the Agent Client Protocol works as an executor, by its command and arguments alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use arp_agents::agent::{Agent, LaunchOptions, Resume};
use arp_agents::catalog::Catalog;
use arp_agents::discover::Places;
use arp_agents::driver::{Action, Command, CommandError, Exit, PermissionMode};
use arp_agents::event::{ApprovalOutcome, Event, PlanStatus, ToolKind, TurnStatus};
use common::{Session, allow, allow_for_session, deny};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/acp_agent.py");

/// The executor as it would stand in the owner's configuration.
fn agent(args: &[&str]) -> Arc<dyn Agent> {
    let mut all = vec![PROGRAM];
    all.extend(args);
    let config = serde_json::from_value(json!({"command": "python3", "args": all})).unwrap();
    let catalog = Catalog::new(BTreeMap::from([("scripted".to_owned(), config)])).unwrap();
    catalog.get("Scripted").unwrap()
}

fn options() -> LaunchOptions {
    LaunchOptions {
        project_path: std::env::temp_dir(),
        ..LaunchOptions::default()
    }
}

async fn spawn(agent: &dyn Agent, options: LaunchOptions) -> Session {
    let found = Places::of_environment()
        .find(agent, None)
        .await
        .expect("python3 is installed");
    let mut session = Session::spawn(agent, &found.path, &[], options);
    session.command(Command::Start).unwrap();
    session
}

async fn start(options: LaunchOptions) -> Session {
    let mut session = spawn(&*agent(&[]), options).await;
    session.until(|action| matches!(action, Action::Ready)).await;
    session
}

#[tokio::test]
async fn it_talks_and_shows_its_plan() {
    let mut session = start(options()).await;
    assert_eq!(
        session.turn("hello over there").await,
        (TurnStatus::Completed, None)
    );
    assert_eq!(session.said(), ["hello over there "]);
    session.turn("plan").await;
    let steps = session.events().into_iter().find_map(|event| match event {
        Event::Plan { entries } => Some(entries.iter().map(|entry| entry.status).collect::<Vec<_>>()),
        _ => None,
    });
    assert_eq!(steps.unwrap(), [PlanStatus::Completed, PlanStatus::Pending]);
    assert_eq!(session.turn("refuse").await.0, TurnStatus::Failed);
    session.finish().await;
}

#[tokio::test]
async fn its_edit_is_approved_with_the_diff() {
    let mut session = start(options()).await;
    session.prompt("edit");
    let approval = session.asked().await;
    assert_eq!(
        (approval.kind, approval.title.as_str()),
        (ToolKind::Edit, "a.txt")
    );
    assert_eq!(approval.changes[0].diff, "@@\n-one\n+two\n");
    assert_eq!(approval.input, json!({"path": "a.txt"}));
    assert!(!approval.can_allow_session);
    let refused = session.command(Command::Decide {
        approval_id: approval.id.clone(),
        decision: allow_for_session(),
    });
    assert!(
        matches!(refused, Err(CommandError::Unsupported(_))),
        "it does not offer that"
    );
    session.decide(&approval, allow());
    session.turn_end().await;
    assert_eq!(
        session.result_of(&approval).unwrap(),
        (r#"{"written":1}"#.to_owned(), false)
    );
    assert_eq!(session.said(), ["answer: yes"]);

    session.prompt("edit");
    let approval = session.asked().await;
    session.decide(&approval, deny("no"));
    session.turn_end().await;
    assert_eq!(session.outcome(&approval).unwrap().0, ApprovalOutcome::Denied);
    session.finish().await;
}

#[tokio::test]
async fn a_cancel_answers_what_waits() {
    let mut session = start(options()).await;
    session.prompt("edit");
    let approval = session.asked().await;
    session.command(Command::Interrupt).unwrap();
    assert_eq!(session.turn_end().await.0, TurnStatus::Interrupted);
    assert_eq!(session.outcome(&approval).unwrap().0, ApprovalOutcome::Void);

    session.prompt("wait");
    session.until(common::is_fragment).await;
    session.command(Command::Interrupt).unwrap();
    assert_eq!(session.turn_end().await.0, TurnStatus::Interrupted);
    session.finish().await;
}

#[tokio::test]
async fn a_request_that_we_do_not_know_is_refused_and_nothing_hangs() {
    let mut session = start(options()).await;
    session.turn("read a file").await;
    assert_eq!(session.said(), ["refused"]);
    session.finish().await;
}

#[tokio::test]
async fn model_and_mode_are_set_as_it_offers_them() {
    let wanted = LaunchOptions {
        model: Some("large".into()),
        permission_mode: PermissionMode::Plan,
        ..options()
    };
    let mut session = start(wanted).await;
    assert_eq!(session.about(), (Some("large".into()), Some("architect".into())));
    session.command(Command::SetModel("small".into())).unwrap();
    session
        .command(Command::SetPermissionMode(PermissionMode::Default))
        .unwrap();
    session.turn("hi").await;
    assert_eq!(session.about(), (Some("small".into()), Some("ask".into())));
    let refused = session.command(Command::SetPermissionMode(PermissionMode::AcceptEdits));
    let Err(CommandError::Unsupported(why)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        why,
        "scripted has no such permission mode; it offers ask, architect"
    );
    session.finish().await;
}

#[tokio::test]
async fn a_loaded_session_does_not_tell_its_history_again() {
    let resume = Resume::Session {
        id: "s-1".into(),
        fork: false,
    };
    let mut session = start(LaunchOptions { resume, ..options() }).await;
    session.turn("new").await;
    assert_eq!(session.said(), ["new "]);
    assert_eq!(session.agent_session_id(), "s-1");
    session.finish().await;
}

#[tokio::test]
async fn what_it_cannot_do_ends_the_start_with_a_reason() {
    let wanted = LaunchOptions {
        permission_mode: PermissionMode::AcceptEdits,
        ..options()
    };
    for (args, options, expected) in [
        (&[][..], wanted, "it offers ask, architect"),
        (&["2"][..], options(), "version 2 of the Agent Client Protocol"),
    ] {
        let mut session = spawn(&*agent(args), options).await;
        match session.until(|action| matches!(action, Action::Fatal(_))).await {
            Action::Fatal(why) => assert!(why.contains(expected), "{why}"),
            _ => unreachable!(),
        }
    }
}

#[tokio::test]
async fn a_crash_in_a_turn_fails_the_turn_with_the_last_words() {
    let agent = agent(&[]);
    let mut driver = agent.driver(&options());
    driver.command(Command::Start).unwrap();
    driver.on_line(r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1}}"#);
    driver.on_line(r#"{"jsonrpc":"2.0","id":2,"result":{"sessionId":"s"}}"#);
    driver
        .command(Command::Prompt {
            id: None,
            text: "crash".into(),
        })
        .unwrap();
    let told = driver.on_exit(
        Exit {
            code: Some(3),
            signal: None,
        },
        "noise\nit went wrong\n",
    );
    assert!(told.iter().any(|action| matches!(action, Action::Emit(Event::TurnEnd { status: TurnStatus::Failed, message: Some(why), .. })
        if why == "noise\nit went wrong")));
}
