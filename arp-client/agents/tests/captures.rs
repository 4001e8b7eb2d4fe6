//! What was captured from the real CLIs, replayed: the same lines always give the same events.
//!
//! `fixtures/AGENT/NAME.jsonl` is what one-shot runs printed; `NAME.wire.jsonl` holds both directions of a
//! long-lived session. `NAME.events` beside it says what must come of it, one line an action. After a change
//! that is meant, `UPDATE_EXPECTED=1 cargo test -p arp-agents --test captures` writes them anew; read the diff.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_agents::acp::AcpAgent;
use arp_agents::agent::{Agent, LaunchOptions};
use arp_agents::claude::Claude;
use arp_agents::codex::Codex;
use arp_agents::driver::{Action, Driver, Exit};
use arp_agents::event::Event;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn driver(agent: &dyn Agent) -> Box<dyn Driver> {
    agent.driver(&LaunchOptions {
        project_path: "/home/dev/projects/my.app_1".into(),
        ..LaunchOptions::default()
    })
}

/// Feeds a capture to a fresh driver and gives all actions but `Send`.
fn replay(agent: &dyn Agent, name: &str) -> Vec<Action> {
    let mut driver = driver(agent);
    let mut actions = Vec::new();
    for line in fs::read_to_string(fixture(name)).unwrap().lines() {
        if name.ends_with(".wire.jsonl") {
            let wire: Value = serde_json::from_str(line).unwrap();
            let message = wire["msg"].to_string();
            actions.extend(match wire["dir"].as_str() {
                Some("in") => driver.replay_sent(&message),
                _ => driver.on_line(&message),
            });
        } else {
            actions.extend(driver.on_line(line));
        }
    }
    actions.extend(driver.on_exit(
        Exit {
            code: Some(0),
            signal: None,
        },
        "",
    ));
    actions.retain(|action| !matches!(action, Action::Send(_)));
    actions
}

/// One line an action.
fn told(actions: &[Action]) -> String {
    let line = |action: &Action| match action {
        Action::Emit(Event::Init {
            models,
            agent_session_id,
            model,
            cwd,
            permission_mode,
        }) => format!(
            "init {agent_session_id:?} {model:?} {cwd:?} {permission_mode:?} models={}",
            models.len()
        ),
        Action::Emit(event) => serde_json::to_string(event).unwrap(),
        Action::Ask(approval) => format!("ASK {}", serde_json::to_string(approval).unwrap()),
        other => format!("{other:?}"),
    };
    actions.iter().map(|action| line(action) + "\n").collect()
}

fn check(agent: &dyn Agent, name: &str) {
    let expected = fixture(name.trim_end_matches(".jsonl")).with_extension("events");
    let told = told(&replay(agent, name));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&expected, &told).unwrap();
    }
    let wanted = fs::read_to_string(&expected).unwrap();
    for (at, (told, wanted)) in told.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(told, wanted, "{name}: line {}", at + 1);
    }
    assert_eq!(told.lines().count(), wanted.lines().count(), "{name}");
    assert!(!wanted.is_empty());
}

#[test]
fn claude_captures_tell_what_happened() {
    for name in [
        "partial.jsonl",
        "err429once.jsonl",
        "err400.jsonl",
        "sigint_in_tool.jsonl",
        "tool_denied.jsonl",
        "multiturn.wire.jsonl",
        "approvals.wire.jsonl",
    ] {
        check(&Claude::new(), &format!("claude/{name}"));
    }
}

#[test]
fn codex_captures_tell_what_happened() {
    for name in [
        "multiturn.wire.jsonl",
        "patch_mcp.wire.jsonl",
        "interrupt_in_tool.wire.jsonl",
    ] {
        check(&Codex::new(), &format!("codex/{name}"));
    }
}

#[test]
fn gemini_captures_tell_what_happened() {
    for name in [
        "multiturn.wire.jsonl",
        "load.wire.jsonl",
        "cancel_in_tool.wire.jsonl",
    ] {
        check(&AcpAgent::gemini(), &format!("gemini/{name}"));
    }
}

#[test]
fn approvals_keep_their_ids_over_replays() {
    let ids = || -> Vec<String> {
        let actions = replay(&Codex::new(), "codex/multiturn.wire.jsonl");
        actions
            .iter()
            .filter_map(|action| {
                if let Action::Ask(approval) = action {
                    Some(approval.id.clone())
                } else {
                    None
                }
            })
            .collect()
    };
    assert_eq!(ids(), ids());
    assert_eq!(ids(), ["r0-0", "r0-1", "r0-2", "r0-3"]);
}

#[test]
fn no_line_makes_a_driver_panic() {
    let hostile = [
        "",
        "null",
        "[]",
        "{}",
        "\"x\"",
        "1e999",
        "{\"type\":\"assistant\"}",
        "{\"type\":\"user\",\"message\":3}",
        "{\"id\":7,\"result\":null}",
        "{\"id\":-1,\"method\":\"item/fileChange/requestApproval\"}",
        "{\"method\":\"session/update\",\"params\":{\"update\":{\"sessionUpdate\":\"tool_call\",\"toolCallId\":1}}}",
        "{\"type\":\"control_request\",\"request_id\":\"x\",\"request\":{\"subtype\":\"can_use_tool\"}}",
        "{\"method\":\"item/started\",\"params\":{\"item\":{\"type\":\"commandExecution\",\"command\":5}}}",
    ];
    let agents: [&dyn Agent; 3] = [&Claude::new(), &Codex::new(), &AcpAgent::gemini()];
    for agent in agents {
        let mut driver = driver(agent);
        for line in hostile {
            driver.on_line(line);
            driver.replay_sent(line);
        }
        // Every line of every capture, in the wrong agent's driver too.
        for name in [
            "claude/approvals.wire.jsonl",
            "codex/patch_mcp.wire.jsonl",
            "gemini/multiturn.wire.jsonl",
        ] {
            for line in fs::read_to_string(fixture(name)).unwrap().lines() {
                let wire: Value = serde_json::from_str(line).unwrap();
                driver.on_line(&wire["msg"].to_string());
            }
        }
        driver.on_exit(
            Exit {
                code: None,
                signal: Some(9),
            },
            "gone",
        );
    }
}
