//! Codex itself, driven by our launch and driver against a scripted model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use arp_agents::agent::{LaunchOptions, Resume};
use arp_agents::codex::Codex;
use arp_agents::driver::{Action, Command, CommandError, Decision, PermissionMode};
use arp_agents::event::{ApprovalOutcome, Event, ToolKind, TurnStatus};
use common::{Session, Stage, allow, allow_for_session, deny, is_fragment};
use serde_json::json;
use std::collections::BTreeMap;

macro_rules! stage {
    () => {
        match Stage::set("codex").await {
            Some(stage) => stage,
            None => return,
        }
    };
}

/// A prompt that makes the model apply a patch.
fn patch(body: &str) -> String {
    let input = format!("*** Begin Patch\n{body}*** End Patch\n");
    format!("call apply_patch {}", json!({"input": input}))
}

const EDIT_README: &str = "*** Update File: README.md\n@@\n-# demo\n+# changed\n";

#[tokio::test]
async fn turns_stream_their_words_and_follow_each_other() {
    let stage = stage!();
    let mut session = stage.start(&Codex::new(), stage.options()).await;
    assert_eq!(
        session.turn("say hello from codex").await,
        (TurnStatus::Completed, None)
    );
    assert!(session.seen.iter().filter(|action| is_fragment(action)).count() >= 3);
    assert_eq!(session.turn("think then answer").await.0, TurnStatus::Completed);
    assert_eq!(session.said(), ["hello from codex", "then answer"]);
    assert_eq!(session.thought(), ["Let me think about that."]);
    let told = session.events();
    let prompts = told
        .iter()
        .filter(|event| matches!(event, Event::UserMessage { .. }))
        .count();
    assert_eq!(prompts, 2, "each prompt is told once");
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::Init { models, .. } if !models.is_empty()))
    );
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::Usage(usage) if usage.input_tokens == Some(200)))
    );
    assert!(told.iter().any(|event| matches!(
        event,
        Event::TurnEnd {
            duration_ms: Some(_),
            ..
        }
    )));
    session.finish().await;
}

#[tokio::test]
async fn a_command_waits_for_its_approval() {
    let stage = stage!();
    let mut session = stage.start(&Codex::new(), stage.options()).await;
    session.prompt("run tool: touch made.txt && echo done");
    let approval = session.asked().await;
    assert_eq!(
        (approval.kind, approval.title.as_str()),
        (ToolKind::Command, "touch made.txt && echo done")
    );
    assert!(approval.can_allow_session && !approval.can_edit);
    assert!(!stage.home.project().join("made.txt").exists());

    session.decide(&approval, allow());
    assert_eq!(session.turn_end().await.0, TurnStatus::Completed);
    assert_eq!(
        session.result_of(&approval).unwrap(),
        ("done\n".to_owned(), false)
    );
    assert!(stage.home.project().join("made.txt").exists());
    assert_eq!(session.outcome(&approval).unwrap().0, ApprovalOutcome::Allowed);
    session.finish().await;
}

#[tokio::test]
async fn a_denial_reaches_the_model_with_its_reason() {
    let stage = stage!();
    let mut session = stage.start(&Codex::new(), stage.options()).await;
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
    let asked = stage.api.requests().pop().unwrap().body.to_string();
    assert!(
        asked.contains("I do not allow that: Not on my phone"),
        "the model is told why"
    );
    session.finish().await;
}

#[tokio::test]
async fn a_denial_can_end_the_turn() {
    let stage = stage!();
    let mut session = stage.start(&Codex::new(), stage.options()).await;
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
    let mut session = stage.start(&Codex::new(), stage.options()).await;
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
async fn changed_arguments_are_refused_and_the_approval_still_waits() {
    let stage = stage!();
    let mut session = stage.start(&Codex::new(), stage.options()).await;
    session.prompt("run tool: touch theirs.txt");
    let approval = session.asked().await;
    let changed = Decision::Allow {
        for_session: false,
        permission_mode: None,
        updated_input: Some(json!({"command": "ls"})),
        answers: BTreeMap::new(),
    };
    let refused = session.command(Command::Decide {
        approval_id: approval.id.clone(),
        decision: changed,
    });
    assert!(matches!(refused, Err(CommandError::Unsupported(_))));
    session.decide(&approval, allow());
    assert_eq!(session.turn_end().await.0, TurnStatus::Completed);
    session.finish().await;
}

#[tokio::test]
async fn an_edit_shows_its_diff() {
    let stage = stage!();
    let mut session = stage.start(&Codex::new(), stage.options()).await;
    session.prompt(&patch(EDIT_README));
    let approval = session.asked().await;
    let path = stage.home.project().join("README.md");
    assert_eq!(approval.kind, ToolKind::Edit);
    assert_eq!(approval.title, path.to_string_lossy());
    assert_eq!(approval.changes[0].diff, "@@ -1 +1 @@\n-# demo\n+# changed\n");
    session.decide(&approval, allow());
    assert_eq!(session.turn_end().await.0, TurnStatus::Completed);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "# changed\n");

    session.prompt(&patch("*** Add File: new.txt\n+hi\n"));
    let approval = session.asked().await;
    assert_eq!(approval.changes[0].diff, "@@ -0,0 +1 @@\n+hi\n");
    session.decide(&approval, deny("no"));
    session.turn_end().await;
    assert!(!stage.home.project().join("new.txt").exists());
    session.finish().await;
}

#[tokio::test]
async fn a_question_is_answered_with_a_choice() {
    let stage = stage!();
    let plan = LaunchOptions {
        permission_mode: PermissionMode::Plan,
        ..stage.options()
    };
    let mut session = stage.start(&Codex::new(), plan).await;
    let options = json!([{"label": "A", "description": "a"}, {"label": "B", "description": "b"}]);
    let question = json!({"id": "q1", "header": "Pick", "question": "Which?", "options": options});
    session.prompt(&format!(
        "call request_user_input {}",
        json!({"questions": [question]})
    ));
    let approval = session.asked().await;
    assert_eq!(
        (approval.kind, approval.title.as_str()),
        (ToolKind::Question, "Which?")
    );
    assert_eq!(approval.questions[0].options, ["A", "B"]);
    let answers = BTreeMap::from([("Which?".to_owned(), "B".to_owned())]);
    session.decide(
        &approval,
        Decision::Allow {
            for_session: false,
            updated_input: None,
            answers,
            permission_mode: None,
        },
    );
    assert_eq!(session.turn_end().await.0, TurnStatus::Completed);
    assert!(session.said().last().unwrap().contains(r#""answers":["B"]"#));
    session.finish().await;
}

#[tokio::test]
async fn an_interrupt_stops_the_words_and_keeps_the_session() {
    let stage = stage!();
    let mut session = stage.start(&Codex::new(), stage.options()).await;
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
    let mut session = stage.start(&Codex::new(), stage.options()).await;
    session.prompt("slow 60");
    session.command(Command::Interrupt).unwrap();
    assert_eq!(session.turn_end().await.0, TurnStatus::Interrupted);
    session.finish().await;
}

#[tokio::test]
async fn an_interrupt_ends_the_command_that_runs() {
    let stage = stage!();
    let options = LaunchOptions {
        permission_mode: PermissionMode::BypassPermissions,
        allow_bypass: true,
        ..stage.options()
    };
    let mut session = stage.start(&Codex::new(), options).await;
    let started = stage.home.project().join("started");
    session.prompt("run tool: python3 -c 'import os,time; open(\"started\",\"w\").write(str(os.getpid())); time.sleep(300)'");
    session
        .until(|action| matches!(action, Action::Emit(Event::ToolCall { .. })))
        .await;
    let pid = common::contents_when_there(&started).await;
    session.command(Command::Interrupt).unwrap();
    assert_eq!(session.turn_end().await.0, TurnStatus::Interrupted);
    assert!(session.events().iter().any(
        |event| matches!(event, Event::ToolResult { is_error: true, output, .. } if output == "Stopped.")
    ));
    // Further talk carries the order to end it to Codex; then the process is gone while Codex is not.
    session.turn("say next").await;
    common::gone(pid.trim()).await;
    session.finish().await;
}

#[tokio::test]
async fn an_interrupt_voids_the_approval_that_waits() {
    let stage = stage!();
    let mut session = stage.start(&Codex::new(), stage.options()).await;
    session.prompt("run tool: touch never.txt");
    let approval = session.asked().await;
    session.command(Command::Interrupt).unwrap();
    assert_eq!(session.turn_end().await.0, TurnStatus::Interrupted);
    assert_eq!(session.outcome(&approval).unwrap().0, ApprovalOutcome::Void);
    session.finish().await;
}

#[tokio::test]
async fn an_error_of_the_api_fails_the_turn_and_not_the_session() {
    let stage = stage!();
    let mut session = stage.start(&Codex::new(), stage.options()).await;
    assert_eq!(
        session.turn("fake error 400 nope").await,
        (TurnStatus::Failed, Some("nope".to_owned()))
    );
    assert_eq!(
        session.turn("fake error 500 6 times").await.0,
        TurnStatus::Completed
    );
    assert!(
        session
            .events()
            .iter()
            .any(|event| matches!(event, Event::Error { retrying: true, .. }))
    );
    session.finish().await;
}

#[tokio::test]
async fn a_session_is_resumed_by_id_continued_and_forked() {
    let stage = stage!();
    let mut first = stage.start(&Codex::new(), stage.options()).await;
    first.turn("say remember me").await;
    let id = first.agent_session_id();
    first.finish().await;

    for (resume, same) in [
        (
            Resume::Session {
                id: id.clone(),
                fork: false,
            },
            true,
        ),
        (Resume::Last { fork: false }, true),
        (
            Resume::Session {
                id: id.clone(),
                fork: true,
            },
            false,
        ),
    ] {
        let mut next = stage
            .start(
                &Codex::new(),
                LaunchOptions {
                    resume,
                    run: 1,
                    ..stage.options()
                },
            )
            .await;
        next.turn("say and now").await;
        assert_eq!(next.agent_session_id() == id, same);
        let asked = stage.api.requests().pop().unwrap().body.to_string();
        assert!(
            asked.contains("remember me"),
            "the model is given what was said before"
        );
        next.finish().await;
    }
}

#[tokio::test]
async fn what_cannot_be_resumed_is_said() {
    let stage = stage!();
    let unknown = Resume::Session {
        id: "01a1fa13-c45e-7650-8e60-1a5da6e861a9".into(),
        fork: false,
    };
    for (resume, expected) in [
        (unknown, "no rollout found"),
        (Resume::Last { fork: false }, "no earlier session"),
    ] {
        let options = LaunchOptions {
            resume,
            ..stage.options()
        };
        let mut session = Session::spawn(&Codex::new(), &stage.program, stage.home.env(), options);
        session.command(Command::Start).unwrap();
        match session.until(|action| matches!(action, Action::Fatal(_))).await {
            Action::Fatal(why) => assert!(why.contains(expected), "{why}"),
            _ => unreachable!(),
        }
    }
}

#[tokio::test]
async fn model_and_mode_change_in_mid_session_and_leave_no_trust_behind() {
    let stage = stage!();
    let mut session = stage.start(&Codex::new(), stage.options()).await;
    session.turn("say one").await;
    session
        .command(Command::SetPermissionMode(PermissionMode::AcceptEdits))
        .unwrap();
    session.turn(&patch(EDIT_README)).await;
    assert_eq!(
        std::fs::read_to_string(stage.home.project().join("README.md")).unwrap(),
        "# changed\n"
    );
    assert!(!session.seen.iter().any(|action| matches!(action, Action::Ask(_))));

    session.command(Command::SetModel("gpt-5.4".into())).unwrap();
    session.turn("say two").await;
    assert_eq!(
        session.about(),
        (Some("gpt-5.4".into()), Some("on-request, workspace-write".into()))
    );
    assert_eq!(session.mode(), Some(PermissionMode::AcceptEdits));
    assert_eq!(stage.api.requests().pop().unwrap().body["model"], "gpt-5.4");
    session.finish().await;
    let config = std::fs::read_to_string(stage.home.path().join(".codex/config.toml")).unwrap();
    assert!(!config.contains("trust_level"), "{config}");
}

#[tokio::test]
async fn modes_hold_from_the_start() {
    let stage = stage!();
    let edits = LaunchOptions {
        permission_mode: PermissionMode::AcceptEdits,
        ..stage.options()
    };
    let mut session = stage.start(&Codex::new(), edits).await;
    session.turn(&patch(EDIT_README)).await;
    assert_eq!(
        std::fs::read_to_string(stage.home.project().join("README.md")).unwrap(),
        "# changed\n"
    );
    session.finish().await;

    let plan = LaunchOptions {
        permission_mode: PermissionMode::Plan,
        ..stage.options()
    };
    let mut session = stage.start(&Codex::new(), plan).await;
    assert_eq!(session.about().1.as_deref(), Some("plan"));
    assert_eq!(session.mode(), Some(PermissionMode::Plan));
    session.turn("run tool: touch planned.txt").await;
    assert!(!stage.home.project().join("planned.txt").exists());
    session
        .command(Command::SetPermissionMode(PermissionMode::Default))
        .unwrap();
    session.prompt("run tool: touch done.txt");
    let approval = session.asked().await;
    session.decide(&approval, allow());
    session.turn_end().await;
    assert!(stage.home.project().join("done.txt").exists());
    assert_eq!(session.mode(), Some(PermissionMode::Default));
    session.finish().await;

    let mut session = stage.start(&Codex::new(), stage.options()).await;
    let refused = session.command(Command::SetPermissionMode(PermissionMode::BypassPermissions));
    assert!(matches!(refused, Err(CommandError::Forbidden(_))));
    session.finish().await;
}

/// Gives Codex an MCP server of its own.
fn configure_mcp_server(stage: &Stage) {
    let path = stage.home.path().join(".codex/config.toml");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/mcp_server.py");
    let config = std::fs::read_to_string(&path).unwrap();
    let server = format!("\n[mcp_servers.tester]\ncommand = \"python3\"\nargs = [\"{program}\"]\n");
    std::fs::write(&path, config + &server).unwrap();
}

#[tokio::test]
async fn a_tool_of_an_mcp_server_is_asked_for_once_and_then_for_the_session() {
    let stage = stage!();
    configure_mcp_server(&stage);
    let mut session = stage.start(&Codex::new(), stage.options()).await;
    let call = r#"call mcp__tester/echo {"text":"hi"}"#;
    session.prompt(call);
    let approval = session.asked().await;
    assert_eq!(
        (approval.kind, approval.tool_name.as_str()),
        (ToolKind::Mcp, "mcp__tester__echo")
    );
    assert_eq!(approval.input, json!({"text": "hi"}));
    session.decide(&approval, allow());
    session.turn_end().await;
    assert!(session.said().last().unwrap().contains("echo: hi"));

    session.prompt(call);
    let approval = session.asked().await;
    assert!(approval.can_allow_session);
    session.decide(&approval, allow_for_session());
    session.turn_end().await;
    assert_eq!(
        session.outcome(&approval).unwrap().0,
        ApprovalOutcome::AllowedForSession
    );

    let asked_before = session.seen.len();
    assert_eq!(session.turn(call).await.0, TurnStatus::Completed);
    assert!(
        !session.seen[asked_before..]
            .iter()
            .any(|action| matches!(action, Action::Ask(_)))
    );
    session.finish().await;
}

#[tokio::test]
async fn a_form_of_an_mcp_server_is_a_question() {
    let stage = stage!();
    configure_mcp_server(&stage);
    let mut session = stage.start(&Codex::new(), stage.options()).await;
    session.prompt("call mcp__tester/fill {}");
    let approval = session.asked().await;
    session.decide(&approval, allow());
    let form = session.asked().await;
    assert_eq!(
        (form.kind, form.title.as_str()),
        (ToolKind::Question, "Who are you?")
    );
    let asked: Vec<&str> = form
        .questions
        .iter()
        .map(|question| question.text.as_str())
        .collect();
    assert_eq!(asked, ["age", "Your name?"]);
    let answers = BTreeMap::from([
        ("Your name?".to_owned(), "Ada".to_owned()),
        ("age".to_owned(), "36".to_owned()),
    ]);
    session.decide(
        &form,
        Decision::Allow {
            for_session: false,
            updated_input: None,
            answers,
            permission_mode: None,
        },
    );
    session.turn_end().await;
    let said = session.said().pop().unwrap();
    assert!(said.contains(r#"{"age": 36, "name": "Ada"}"#), "{said}");
    session.finish().await;
}
