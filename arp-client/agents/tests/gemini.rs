//! Gemini CLI itself, driven by our launch and driver over ACP against a scripted model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use arp_agents::acp::AcpAgent;
use arp_agents::agent::{LaunchOptions, Resume};
use arp_agents::driver::{Action, Command, CommandError, Decision, PermissionMode};
use arp_agents::event::{ApprovalOutcome, Event, ToolKind, TurnStatus};
use common::{Session, Stage, allow, allow_for_session, deny, is_fragment};
use serde_json::json;

macro_rules! stage {
    () => {
        match Stage::set("gemini").await {
            Some(stage) => stage,
            None => return,
        }
    };
}

/// With a model of its own, so that no router is asked which one to take.
fn options(stage: &Stage) -> LaunchOptions {
    LaunchOptions {
        model: Some("gemini-2.5-flash".into()),
        ..stage.options()
    }
}

#[tokio::test]
async fn turns_stream_their_words_and_follow_each_other() {
    let stage = stage!();
    let mut session = stage.start(&AcpAgent::gemini(), options(&stage)).await;
    assert_eq!(
        session.turn("say hello from gemini").await,
        (TurnStatus::Completed, None)
    );
    assert!(session.seen.iter().filter(|action| is_fragment(action)).count() >= 3);
    assert_eq!(session.turn("think then answer").await.0, TurnStatus::Completed);
    assert_eq!(session.said(), ["hello from gemini", "then answer"]);
    assert!(session.thought()[0].contains("Let me think about that."));
    let told = session.events();
    assert!(told.iter().any(|event| matches!(event, Event::UserMessage { id: Some(id), .. } if id == "id of say hello from gemini")));
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::Init { models, .. } if !models.is_empty()))
    );
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::Usage(usage) if usage.input_tokens == Some(200)))
    );
    session.finish().await;
}

#[tokio::test]
async fn a_command_waits_for_its_approval() {
    let stage = stage!();
    let mut session = stage.start(&AcpAgent::gemini(), options(&stage)).await;
    session.prompt("run tool: touch made.txt && echo done");
    let approval = session.asked().await;
    assert_eq!(
        (approval.kind, approval.title.as_str()),
        (ToolKind::Command, "touch made.txt && echo done")
    );
    assert_eq!(approval.tool_name, "run_shell_command");
    assert_eq!(approval.input["command"], "touch made.txt && echo done");
    assert!(approval.can_allow_session && !approval.can_edit);
    assert!(!stage.home.project().join("made.txt").exists());

    session.decide(&approval, allow());
    assert_eq!(session.turn_end().await.0, TurnStatus::Completed);
    assert!(stage.home.project().join("made.txt").exists());
    assert!(!session.result_of(&approval).unwrap().1);
    assert_eq!(session.outcome(&approval).unwrap().0, ApprovalOutcome::Allowed);
    session.finish().await;
}

#[tokio::test]
async fn a_denial_leaves_no_card_open_and_the_turn_goes_on() {
    let stage = stage!();
    let mut session = stage.start(&AcpAgent::gemini(), options(&stage)).await;
    session.prompt("run tool: touch denied.txt");
    let approval = session.asked().await;
    session.decide(&approval, deny("Not on my phone"));
    assert_eq!(session.turn_end().await.0, TurnStatus::Completed);
    assert!(!stage.home.project().join("denied.txt").exists());
    assert_eq!(
        session.outcome(&approval).unwrap(),
        (ApprovalOutcome::Denied, Some("Not on my phone".to_owned()))
    );
    assert_eq!(
        session.result_of(&approval).unwrap(),
        ("Denied.".to_owned(), true)
    );
    session.finish().await;
}

#[tokio::test]
async fn a_denial_can_end_the_turn() {
    let stage = stage!();
    let mut session = stage.start(&AcpAgent::gemini(), options(&stage)).await;
    session.prompt("run tool: touch denied.txt");
    let approval = session.asked().await;
    session.decide(
        &approval,
        Decision::Deny {
            message: None,
            interrupt: true,
        },
    );
    assert_eq!(session.turn_end().await.0, TurnStatus::Interrupted);
    assert_eq!(session.turn("say still here").await.0, TurnStatus::Completed);
    session.finish().await;
}

#[tokio::test]
async fn what_is_allowed_for_the_session_is_not_asked_again() {
    let stage = stage!();
    let mut session = stage.start(&AcpAgent::gemini(), options(&stage)).await;
    session.prompt("run tool: touch again.txt");
    let approval = session.asked().await;
    session.decide(&approval, allow_for_session());
    session.turn_end().await;
    assert_eq!(
        session.outcome(&approval).unwrap().0,
        ApprovalOutcome::AllowedForSession
    );

    let asked_before = session.seen.len();
    assert_eq!(
        session.turn("run tool: touch again.txt").await.0,
        TurnStatus::Completed
    );
    assert!(
        !session.seen[asked_before..]
            .iter()
            .any(|action| matches!(action, Action::Ask(_)))
    );
    session.finish().await;
}

#[tokio::test]
async fn an_edit_shows_its_diff() {
    let stage = stage!();
    let mut session = stage.start(&AcpAgent::gemini(), options(&stage)).await;
    let path = stage.home.project().join("README.md");
    let edit =
        json!({"file_path": path, "old_string": "# demo", "new_string": "# changed", "instruction": "x"});
    session.prompt(&format!("call replace {edit}"));
    let approval = session.asked().await;
    assert_eq!(approval.kind, ToolKind::Edit);
    assert_eq!(approval.title, path.to_string_lossy());
    assert_eq!(approval.changes[0].diff, "@@ -1 +1 @@\n-# demo\n+# changed\n");
    session.decide(&approval, allow());
    assert_eq!(session.turn_end().await.0, TurnStatus::Completed);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "# changed\n");
    session.finish().await;
}

#[tokio::test]
async fn an_interrupt_stops_the_words_and_keeps_the_session() {
    let stage = stage!();
    let mut session = stage.start(&AcpAgent::gemini(), options(&stage)).await;
    session.prompt("fake hold");
    session.until(is_fragment).await;
    session.command(Command::Interrupt).unwrap();
    assert_eq!(session.turn_end().await, (TurnStatus::Interrupted, None));
    assert_eq!(session.turn("say alive").await.0, TurnStatus::Completed);
    assert_eq!(session.said().last().unwrap(), "alive");
    assert_eq!(
        session.command(Command::Interrupt),
        Err(CommandError::WrongState("no turn is running"))
    );
    session.finish().await;
}

#[tokio::test]
async fn an_interrupt_right_after_the_prompt_is_not_lost() {
    let stage = stage!();
    let mut session = stage.start(&AcpAgent::gemini(), options(&stage)).await;
    session.prompt("slow 60");
    session.command(Command::Interrupt).unwrap();
    assert_eq!(session.turn_end().await.0, TurnStatus::Interrupted);
    assert_eq!(session.turn("say alive").await.0, TurnStatus::Completed);
    session.finish().await;
}

#[tokio::test]
async fn an_interrupt_voids_the_approval_that_waits() {
    let stage = stage!();
    let mut session = stage.start(&AcpAgent::gemini(), options(&stage)).await;
    session.prompt("run tool: touch never.txt");
    let approval = session.asked().await;
    session.command(Command::Interrupt).unwrap();
    assert_eq!(session.turn_end().await.0, TurnStatus::Interrupted);
    assert_eq!(session.outcome(&approval).unwrap().0, ApprovalOutcome::Void);
    assert!(!stage.home.project().join("never.txt").exists());
    session.finish().await;
}

#[tokio::test]
async fn an_interrupt_ends_the_command_that_runs() {
    let stage = stage!();
    let yolo = LaunchOptions {
        permission_mode: PermissionMode::BypassPermissions,
        allow_bypass: true,
        ..options(&stage)
    };
    let mut session = stage.start(&AcpAgent::gemini(), yolo).await;
    let started = stage.home.project().join("started");
    session.prompt("run tool: python3 -c 'import os,time; open(\"started\",\"w\").write(str(os.getpid())); time.sleep(300)'");
    session
        .until(|action| matches!(action, Action::Emit(Event::ToolCall { .. })))
        .await;
    let pid = common::contents_when_there(&started).await;
    session.command(Command::Interrupt).unwrap();
    assert_eq!(session.turn_end().await.0, TurnStatus::Interrupted);
    common::gone(pid.trim()).await;
    session.finish().await;
}

#[tokio::test]
async fn an_error_of_the_api_fails_the_turn_and_not_the_session() {
    let stage = stage!();
    let mut session = stage.start(&AcpAgent::gemini(), options(&stage)).await;
    assert_eq!(
        session.turn("fake error 400 nope").await,
        (TurnStatus::Failed, Some("nope".to_owned()))
    );
    assert_eq!(session.turn("say better").await.0, TurnStatus::Completed);
    session.finish().await;
}

#[tokio::test]
async fn a_session_is_loaded_without_telling_its_history_again() {
    let stage = stage!();
    let mut first = stage.start(&AcpAgent::gemini(), options(&stage)).await;
    first.turn("say remember me").await;
    first.turn("say me too").await;
    let id = first.agent_session_id();
    first.finish().await;

    // A session that is loaded within the minute in which it began loses its history: a fault of the CLI,
    // whose files are named by the minute.
    for chat in common::files_below(&stage.home.path().join(".gemini/tmp")) {
        let name = chat.file_name().unwrap().to_string_lossy().into_owned();
        if let Some(rest) = name.strip_prefix("session-") {
            let older = format!("session-2020-01-01T00-00{}", &rest["YYYY-MM-DDThh-mm".len()..]);
            std::fs::rename(&chat, chat.with_file_name(older)).unwrap();
        }
    }

    let resume = Resume::Session {
        id: id.clone(),
        fork: false,
    };
    let mut next = stage
        .start(
            &AcpAgent::gemini(),
            LaunchOptions {
                resume,
                run: 1,
                ..options(&stage)
            },
        )
        .await;
    next.turn("say and now").await;
    assert_eq!(next.agent_session_id(), id);
    assert_eq!(next.said(), ["and now"]);
    let asked = stage.api.requests().pop().unwrap().body.to_string();
    assert!(
        asked.contains("remember me") && asked.contains("me too"),
        "the model is given what was said before"
    );
    next.finish().await;
}

#[tokio::test]
async fn an_unknown_session_cannot_be_resumed_and_that_is_said() {
    let stage = stage!();
    let resume = Resume::Session {
        id: "00000000-0000-4000-8000-000000000000".into(),
        fork: false,
    };
    let options = LaunchOptions {
        resume,
        ..options(&stage)
    };
    let mut session = Session::spawn(&AcpAgent::gemini(), &stage.program, stage.home.env(), options);
    session.command(Command::Start).unwrap();
    match session.until(|action| matches!(action, Action::Fatal(_))).await {
        Action::Fatal(why) => assert!(why.contains("No previous sessions found"), "{why}"),
        _ => unreachable!(),
    }
}

#[tokio::test]
async fn model_and_mode_change_in_mid_session() {
    let stage = stage!();
    let mut session = stage.start(&AcpAgent::gemini(), options(&stage)).await;
    session.turn("say one").await;
    session
        .command(Command::SetModel("gemini-2.5-pro".into()))
        .unwrap();
    session
        .command(Command::SetPermissionMode(PermissionMode::AcceptEdits))
        .unwrap();
    session.turn("say two").await;
    assert_eq!(
        session.about(),
        (Some("gemini-2.5-pro".into()), Some("autoEdit".into()))
    );
    assert_eq!(session.mode(), Some(PermissionMode::AcceptEdits));
    assert!(
        stage
            .api
            .requests()
            .pop()
            .unwrap()
            .path
            .contains("gemini-2.5-pro")
    );
    assert_eq!(session.said(), ["one", "two"], "an announced mode is no answer");

    let file = stage.home.project().join("free.txt");
    session
        .turn(&format!(
            "call write_file {}",
            json!({"file_path": file, "content": "x"})
        ))
        .await;
    assert!(file.exists() && !session.seen.iter().any(|action| matches!(action, Action::Ask(_))));
    let refused = session.command(Command::SetPermissionMode(PermissionMode::BypassPermissions));
    assert!(matches!(refused, Err(CommandError::Forbidden(_))));
    session.finish().await;
}

#[tokio::test]
async fn a_mode_holds_from_the_start() {
    let stage = stage!();
    let plan = LaunchOptions {
        permission_mode: PermissionMode::Plan,
        ..options(&stage)
    };
    let mut session = stage.start(&AcpAgent::gemini(), plan).await;
    assert_eq!(session.about().1.as_deref(), Some("plan"));
    assert_eq!(session.mode(), Some(PermissionMode::Plan));
    let file = stage.home.project().join("planned.txt");
    session
        .turn(&format!(
            "call write_file {}",
            json!({"file_path": file, "content": "x"})
        ))
        .await;
    assert!(!file.exists());
    session.finish().await;
}
