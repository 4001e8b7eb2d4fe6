//! Claude Code itself, driven by our launch and driver against a scripted model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use arp_agents::agent::{LaunchOptions, Resume};
use arp_agents::claude::Claude;
use arp_agents::driver::{Action, Command, CommandError, Decision, PermissionMode};
use arp_agents::event::{ApprovalOutcome, Event, PlanStatus, ToolKind, TurnStatus};
use arp_testkit::model_api::Reply;
use common::{Session, Stage, allow, allow_for_session, deny, is_fragment};
use serde_json::json;
use std::collections::BTreeMap;

macro_rules! stage {
    () => {
        match Stage::set("claude").await {
            Some(stage) => stage,
            None => return,
        }
    };
}

#[tokio::test]
async fn turns_stream_their_words_and_follow_each_other() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
    assert_eq!(
        session.turn("say hello from claude").await,
        (TurnStatus::Completed, None)
    );
    assert!(session.seen.iter().filter(|action| is_fragment(action)).count() >= 3);
    assert_eq!(session.turn("think then answer").await.0, TurnStatus::Completed);
    assert_eq!(session.said(), ["hello from claude", "then answer"]);
    assert_eq!(session.thought(), ["Let me think about that."]);
    let told = session.events();
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::UserMessage { id: Some(id), text }
        if id == "id of say hello from claude" && text == "say hello from claude"))
    );
    assert!(
        told.iter()
            .any(|event| matches!(event, Event::Init { models, .. } if !models.is_empty()))
    );
    assert!(told.iter().any(|event| matches!(event, Event::Usage(usage)
        if usage.input_tokens == Some(200) && usage.cost_usd.is_some_and(|cost| cost > 0.0))));
    session.finish().await;
}

#[tokio::test]
async fn a_command_waits_for_its_approval() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
    session.prompt("run tool: touch made.txt && echo done");
    let approval = session.asked().await;
    assert_eq!(
        (approval.kind, approval.title.as_str()),
        (ToolKind::Command, "touch made.txt && echo done")
    );
    assert_eq!(approval.tool_name, "Bash");
    assert!(approval.can_edit && approval.can_allow_session);
    assert!(!stage.home.project().join("made.txt").exists());

    session.decide(&approval, allow());
    assert_eq!(session.turn_end().await.0, TurnStatus::Completed);
    assert!(stage.home.project().join("made.txt").exists());
    assert_eq!(session.result_of(&approval).unwrap(), ("done".to_owned(), false));
    assert_eq!(session.outcome(&approval).unwrap().0, ApprovalOutcome::Allowed);
    session.finish().await;
}

#[tokio::test]
async fn a_denial_reaches_the_model_with_its_reason() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
    session.prompt("run tool: touch denied.txt");
    let approval = session.asked().await;
    session.decide(&approval, deny("Not on my phone"));
    assert_eq!(session.turn_end().await.0, TurnStatus::Completed);
    assert!(!stage.home.project().join("denied.txt").exists());
    assert_eq!(
        session.outcome(&approval).unwrap(),
        (ApprovalOutcome::Denied, Some("Not on my phone".to_owned()))
    );
    assert_eq!(session.said().last().unwrap(), "Tool result: Not on my phone");
    session.finish().await;
}

#[tokio::test]
async fn a_denial_can_end_the_turn() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
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
    let mut session = stage.start(&Claude::new(), stage.options()).await;
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
    // And not a word of it in the settings on disk.
    assert!(!stage.home.project().join(".claude").exists());
    session.finish().await;
}

#[tokio::test]
async fn tools_that_are_allowed_at_the_start_are_not_asked_for() {
    let stage = stage!();
    let allowed_tools = vec!["Bash(touch:*)".to_owned(), "Bash(mkdir:*)".to_owned()];
    let mut session = stage
        .start(
            &Claude::new(),
            LaunchOptions {
                allowed_tools,
                ..stage.options()
            },
        )
        .await;
    assert_eq!(
        session.turn("run tool: mkdir made").await.0,
        TurnStatus::Completed
    );
    assert!(stage.home.project().join("made").exists());
    session.prompt("run tool: rmdir made");
    let approval = session.asked().await;
    session.decide(&approval, deny("keep it"));
    session.turn_end().await;
    assert!(stage.home.project().join("made").exists());
    session.finish().await;
}

#[tokio::test]
async fn the_arguments_can_be_changed_with_the_permission() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
    session.prompt("run tool: touch theirs.txt");
    let approval = session.asked().await;
    let mut input = approval.input.clone();
    input["command"] = json!("touch ours.txt");
    let changed = Decision::Allow {
        for_session: false,
        updated_input: Some(input),
        answers: BTreeMap::new(),
        permission_mode: None,
    };
    session.decide(&approval, changed);
    session.turn_end().await;
    let project = stage.home.project();
    assert!(project.join("ours.txt").exists() && !project.join("theirs.txt").exists());
    session.finish().await;
}

#[tokio::test]
async fn an_edit_shows_its_diff_before_and_after() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
    let path = stage.home.project().join("README.md");
    session
        .turn(&format!("call Read {}", json!({"file_path": path})))
        .await;
    session.prompt(&format!(
        "call Edit {}",
        json!({"file_path": path, "old_string": "# demo", "new_string": "# changed"})
    ));
    let approval = session.asked().await;
    assert_eq!(approval.kind, ToolKind::Edit);
    assert_eq!(approval.changes[0].path, path.to_string_lossy());
    // Where in the file this stands is not known from the arguments.
    assert_eq!(approval.changes[0].diff, "@@\n-# demo\n+# changed\n");
    session.decide(&approval, allow());
    session.turn_end().await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "# changed\n");
    let card = session.events().into_iter().rev().find_map(|event| match event {
        Event::ToolCall { name, changes, .. } if name == "Edit" => changes.first().cloned(),
        _ => None,
    });
    assert_eq!(card.unwrap().diff, "@@ -1,1 +1,1 @@\n-# demo\n+# changed\n");
    session.finish().await;
}

#[tokio::test]
async fn a_question_is_answered_with_a_choice() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
    let options = json!([{"label": "A", "description": "a"}, {"label": "B", "description": "b"}]);
    let question = json!({"question": "Which?", "header": "Pick", "multiSelect": false, "options": options});
    session.prompt(&format!(
        "call AskUserQuestion {}",
        json!({"questions": [question]})
    ));
    let approval = session.asked().await;
    assert_eq!(
        (approval.kind, approval.title.as_str()),
        (ToolKind::Question, "Which?")
    );
    assert_eq!(approval.questions[0].options, ["A", "B"]);
    assert_eq!(approval.questions[0].descriptions, ["a", "b"]);
    assert!(!approval.can_allow_session && !approval.can_edit);
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
    assert!(session.result_of(&approval).unwrap().0.contains('B'));
    session.finish().await;
}

#[tokio::test]
async fn a_plan_waits_for_its_approval() {
    let stage = stage!();
    let options = LaunchOptions {
        permission_mode: PermissionMode::Plan,
        ..stage.options()
    };
    let mut session = stage.start(&Claude::new(), options).await;
    assert_eq!(session.about().1.as_deref(), Some("plan"));
    session.prompt(r##"call ExitPlanMode {"plan":"# Do it"}"##);
    let approval = session.asked().await;
    assert_eq!(
        (approval.kind, approval.tool_name.as_str()),
        (ToolKind::Plan, "ExitPlanMode")
    );
    session.decide(&approval, allow());
    assert_eq!(session.turn_end().await.0, TurnStatus::Completed);
    assert!(!session.result_of(&approval).unwrap().1);
    session.finish().await;
}

#[tokio::test]
async fn a_plan_is_approved_with_the_mode_to_go_on_in() {
    for (mode, word) in [
        (PermissionMode::AcceptEdits, "acceptEdits"),
        (PermissionMode::Default, "default"),
    ] {
        let stage = stage!();
        let options = LaunchOptions {
            permission_mode: PermissionMode::Plan,
            ..stage.options()
        };
        let mut session = stage.start(&Claude::new(), options).await;
        session.prompt(r##"call ExitPlanMode {"plan":"# Do it"}"##);
        let approval = session.asked().await;
        assert_eq!(
            approval.modes,
            [PermissionMode::AcceptEdits, PermissionMode::Default]
        );
        session.decide(
            &approval,
            Decision::Allow {
                for_session: false,
                updated_input: None,
                answers: BTreeMap::new(),
                permission_mode: Some(mode),
            },
        );
        assert_eq!(session.turn_end().await.0, TurnStatus::Completed);
        session.turn("say on").await;
        assert_eq!(session.about().1.as_deref(), Some(word));
        session.finish().await;
    }
}

#[tokio::test]
async fn several_approvals_wait_at_once_or_one_after_the_other() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
    let file = stage.home.project().join("b.txt");
    let write = json!({"file_path": file, "content": "x"});
    session.prompt(&format!(
        "call Bash {}\ncall Write {write}",
        json!({"command": "touch a.txt", "description": "d"})
    ));
    for _ in 0..2 {
        let approval = session.asked().await;
        session.decide(&approval, allow());
    }
    assert_eq!(session.turn_end().await.0, TurnStatus::Completed);
    assert!(stage.home.project().join("a.txt").exists() && file.exists());
    session.finish().await;
}

#[tokio::test]
async fn an_interrupt_stops_the_words_and_keeps_the_session() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
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
    let mut session = stage.start(&Claude::new(), stage.options()).await;
    session.prompt("slow 60");
    session.command(Command::Interrupt).unwrap();
    assert_eq!(session.turn_end().await.0, TurnStatus::Interrupted);
    assert_eq!(session.turn("say alive").await.0, TurnStatus::Completed);
    session.finish().await;
}

#[tokio::test]
async fn an_interrupt_voids_the_approval_that_waits() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
    session.prompt("run tool: touch never.txt");
    let approval = session.asked().await;
    session.command(Command::Interrupt).unwrap();
    assert_eq!(session.turn_end().await.0, TurnStatus::Interrupted);
    assert_eq!(session.outcome(&approval).unwrap().0, ApprovalOutcome::Void);
    let late = session.command(Command::Decide {
        approval_id: approval.id.clone(),
        decision: allow(),
    });
    assert_eq!(late, Err(CommandError::UnknownApproval(approval.id)));
    session.finish().await;
}

#[tokio::test]
async fn an_error_of_the_api_fails_the_turn_and_not_the_session() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
    let (status, message) = session.turn("fake error 400 nope").await;
    assert_eq!(status, TurnStatus::Failed);
    assert!(message.unwrap().contains("nope"));
    assert!(session.said().is_empty());

    assert_eq!(
        session.turn("fake error 529 once busy").await.0,
        TurnStatus::Completed
    );
    assert!(
        session
            .events()
            .iter()
            .any(|event| matches!(event, Event::Error { retrying: true, message }
        if message.contains("529") && message.contains("retry 1 of")))
    );
    session.finish().await;
}

#[tokio::test]
async fn a_session_is_resumed_by_id_continued_and_forked() {
    let stage = stage!();
    let chosen = "6a0a9a4e-4a9f-4e0a-8f0e-2d8a1c9b7e55".to_owned();
    let mut first = stage
        .start(
            &Claude::new(),
            LaunchOptions {
                session_id: Some(chosen.clone()),
                ..stage.options()
            },
        )
        .await;
    first.turn("say remember me").await;
    assert_eq!(first.agent_session_id(), chosen);
    first.finish().await;

    for (resume, same) in [
        (
            Resume::Session {
                id: chosen.clone(),
                fork: false,
            },
            true,
        ),
        (Resume::Last { fork: false }, true),
        (
            Resume::Session {
                id: chosen.clone(),
                fork: true,
            },
            false,
        ),
    ] {
        let mut next = stage
            .start(
                &Claude::new(),
                LaunchOptions {
                    resume,
                    run: 1,
                    ..stage.options()
                },
            )
            .await;
        next.turn("say and now").await;
        assert_eq!(next.agent_session_id() == chosen, same);
        let asked = stage.api.requests().pop().unwrap().body.to_string();
        assert!(
            asked.contains("remember me"),
            "the model is given what was said before"
        );
        next.finish().await;
    }
}

#[tokio::test]
async fn an_unknown_session_cannot_be_resumed_and_that_is_said() {
    let stage = stage!();
    let id = "00000000-0000-4000-8000-000000000000".to_owned();
    let options = LaunchOptions {
        resume: Resume::Session { id, fork: false },
        ..stage.options()
    };
    let mut session = Session::spawn(&Claude::new(), &stage.program, stage.home.env(), options);
    session.command(Command::Start).unwrap();
    match session.until(|action| matches!(action, Action::Fatal(_))).await {
        Action::Fatal(why) => assert!(why.contains("No conversation found"), "{why}"),
        _ => unreachable!(),
    }
}

#[tokio::test]
async fn model_and_mode_change_in_mid_session() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
    session.turn("say one").await;
    session
        .command(Command::SetModel("claude-sonnet-4-5".into()))
        .unwrap();
    session
        .command(Command::SetPermissionMode(PermissionMode::AcceptEdits))
        .unwrap();
    session.turn("say two").await;
    assert_eq!(
        session.about(),
        (Some("claude-sonnet-4-5".into()), Some("acceptEdits".into()))
    );
    assert_eq!(
        stage.api.requests().pop().unwrap().body["model"],
        "claude-sonnet-4-5"
    );

    let file = stage.home.project().join("free.txt");
    session
        .turn(&format!(
            "call Write {}",
            json!({"file_path": file, "content": "x"})
        ))
        .await;
    assert!(file.exists() && !session.seen.iter().any(|action| matches!(action, Action::Ask(_))));
    session.finish().await;
}

#[tokio::test]
async fn bypassing_works_where_it_was_allowed_and_nowhere_else() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
    let refused = session.command(Command::SetPermissionMode(PermissionMode::BypassPermissions));
    assert!(matches!(refused, Err(CommandError::Forbidden(_))));
    session.finish().await;

    let allowed = LaunchOptions {
        allow_bypass: true,
        ..stage.options()
    };
    let mut session = stage.start(&Claude::new(), allowed.clone()).await;
    session
        .command(Command::SetPermissionMode(PermissionMode::BypassPermissions))
        .unwrap();
    session.turn("run tool: touch later.txt").await;
    assert!(stage.home.project().join("later.txt").exists());
    session.finish().await;

    let at_once = LaunchOptions {
        permission_mode: PermissionMode::BypassPermissions,
        ..allowed
    };
    let mut session = stage.start(&Claude::new(), at_once).await;
    session.turn("run tool: touch once.txt").await;
    assert!(stage.home.project().join("once.txt").exists());
    session.finish().await;
}

#[tokio::test]
async fn a_sub_agent_shows_inside_the_call_that_began_it() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
    let task = json!({"description": "look around", "prompt": "run tool: touch sub.txt",
        "subagent_type": "general-purpose", "run_in_background": false});
    session.prompt(&format!("call Agent {task}"));
    let approval = session.asked().await;
    session.decide(&approval, allow());
    session.turn_end().await;
    let told = session.events();
    let call = told.iter().find_map(|event| match event {
        Event::ToolCall {
            id,
            kind: ToolKind::Task,
            title,
            ..
        } if title == "look around" => Some(id.clone()),
        _ => None,
    });
    assert!(told.iter().any(
        |event| matches!(event, Event::ToolCall { parent, kind: ToolKind::Command, .. } if *parent == call)
    ));
    session.finish().await;
}

#[tokio::test]
async fn a_turn_that_claude_begins_by_itself_is_not_taken_for_the_next_prompts() {
    let stage = stage!();
    let mut session = stage.start(&Claude::new(), stage.options()).await;
    let task = json!({"description": "aside", "prompt": "fake hold", "subagent_type": "general-purpose",
        "run_in_background": true});
    assert_eq!(
        session.turn(&format!("call Agent {task}")).await.0,
        TurnStatus::Completed
    );

    // The sub-agent ends, and its report begins a turn that nobody asked for; that turn is held too.
    stage.api.until_held().await;
    stage.api.queue(Reply {
        hold: true,
        ..Reply::text("own words of claude")
    });
    stage.api.release();
    session.until(|action| matches!(action, Action::TurnBegan)).await;
    session.until(is_fragment).await;
    session.prompt("say mine");
    session.until_printed("\"state\":\"queued\"").await;
    stage.api.until_held().await;
    let prompted = session.seen.len();
    stage.api.release();
    session.until(|action| matches!(action, Action::TurnEnded)).await;
    assert_eq!(session.said().last().unwrap(), "mine");
    let ends = |wanted: fn(&Action) -> bool| {
        session.seen[prompted..]
            .iter()
            .filter(|action| wanted(action))
            .count()
    };
    assert_eq!(
        ends(|action| matches!(action, Action::Emit(Event::TurnEnd { .. }))),
        2,
        "both turns end"
    );
    assert_eq!(
        ends(|action| matches!(action, Action::TurnEnded)),
        1,
        "the next prompt waits for ours"
    );
    session.finish().await;
}

#[tokio::test]
async fn a_todo_list_becomes_the_plan() {
    // The tool is not offered by every version; its call as printed is what counts.
    let mut driver = {
        use arp_agents::agent::Agent;
        Claude::new().driver(&LaunchOptions::default())
    };
    let line = json!({"type": "assistant", "parent_tool_use_id": null, "message": {"id": "m", "content": [
        {"type": "tool_use", "id": "t", "name": "TodoWrite", "input": {"todos": [
            {"content": "a", "status": "completed"}, {"content": "b", "status": "in_progress"}]}}]}});
    let plan = driver
        .on_line(&line.to_string())
        .into_iter()
        .find_map(|action| match action {
            Action::Emit(Event::Plan { entries }) => Some(entries),
            _ => None,
        });
    let steps: Vec<_> = plan
        .unwrap()
        .into_iter()
        .map(|entry| (entry.content, entry.status))
        .collect();
    assert_eq!(
        steps,
        [
            ("a".into(), PlanStatus::Completed),
            ("b".into(), PlanStatus::InProgress)
        ]
    );
}
