//! The real Claude Code, Codex and Gemini CLI behind a real relay and edge, talking to the loopback model API.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

#[path = "real_agents/gateway.rs"]
mod gateway;
mod support;

use arp_testkit::cli::{self, Home};
use arp_testkit::model_api::ModelApi;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;
use support::{Edge, SseReader, TOKEN, Ws};
use tokio::task::JoinHandle;

/// A real relay and a real edge with a real agent, if that is installed.
async fn edge(binary: &str) -> Option<(Edge, Home, ModelApi)> {
    let path = cli::find(binary)?;
    let api = ModelApi::bind(0).await.unwrap();
    let home = Home::new(&api);
    let arguments = vec![format!("--agent-path={binary}={}", path.display())];
    let edge = Edge::launch_through_relay(arguments, home.env().to_vec()).await;
    Some((edge, home, api))
}

/// Waits until the clock is in the first part of a minute.
async fn early_in_a_minute() {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    if now % 60 > 35 {
        tokio::time::sleep(Duration::from_secs(60 - now % 60)).await;
    }
}

async fn start(edge: &Edge, home: &Home, executor: &str, prompt: &str) -> String {
    let mut body = json!({"executor": executor, "prompt": prompt, "project_path": home.project()});
    if executor == "gemini" {
        // Without it each prompt costs another request.
        body["model"] = json!("gemini-2.5-flash");
    }
    let (status, started) = edge.post("/api/sessions", body).await;
    assert_eq!(status, StatusCode::CREATED, "{started}");
    started["session_id"].as_str().unwrap().to_owned()
}

async fn decide(edge: &Edge, approval: &Value, decision: Value) {
    let path = format!("/api/approvals/{}", approval["id"].as_str().unwrap());
    let (status, answer) = edge.post(&path, decision).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

/// Follows a session through the relay to its end, over every cut of the connection: all events, as they came.
fn follow(edge: &Edge, id: &str) -> JoinHandle<Vec<Value>> {
    let url = edge.url(&format!("/api/sessions/{id}?format=events&token={TOKEN}"));
    let client = edge.client.clone();
    tokio::spawn(async move {
        let mut events: Vec<Value> = Vec::new();
        loop {
            let mut request = client.get(&url).header("accept", "text/event-stream");
            if let Some(last) = events.last() {
                request = request.header("last-event-id", last["seq"].to_string());
            }
            let Some(response) = request.send().await.ok().filter(|answer| answer.status() == 200) else {
                // arpc is being started again.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let mut reader = SseReader::of(response);
            while let Some(event) = reader.next().await {
                if event.name.is_none() {
                    let event = event.json();
                    if event["type"] == "completion" {
                        return events;
                    }
                    events.push(event);
                }
            }
        }
    })
}

/// A turn, a tool allowed and one denied, a follow-up, an interrupt, a restart of arpc with an approval waiting, a
/// stop of arpc and the way back, history and deletion: all of it through the relay, over HTTP, SSE and WebSocket.
async fn whole_life(executor: &str) {
    let Some((mut edge, home, _api)) = edge(executor).await else {
        return;
    };
    let project = home.project();
    let id = start(&edge, &home, executor, "say hello there").await;
    let followed = follow(&edge, &id);
    let view = edge.until_status(&id, "idle").await;
    assert!(
        view["activity"].as_str().unwrap().contains("hello there"),
        "{view}"
    );
    assert_eq!(view["last_turn"], "completed");
    let agent_id = view["agent_session_id"].as_str().unwrap().to_owned();
    assert_eq!(
        edge.view(&agent_id).await["id"],
        json!(id),
        "found by the agent's own id too"
    );

    let mut ws = Ws::open(
        &edge,
        &format!("/api/sessions/{id}/ws?since={}", view["last_seq"]),
    )
    .await;
    ws.send(json!({"type": "message", "text": "run tool: touch allowed.txt"}))
        .await;
    let asked = ws.until(|frame| frame["event"]["type"] == "approval").await["event"].clone();
    assert!(
        asked["title"].as_str().unwrap().contains("touch allowed.txt"),
        "{asked}"
    );
    edge.say(&id, "say queued").await;
    ws.send(json!({"type": "decide", "id": "d", "approval_id": asked["id"], "decision": "allow"}))
        .await;
    assert_eq!(ws.until(|frame| frame["id"] == "d").await["ok"], true);
    edge.until(&id, "both turns", |view| {
        view["turns"] == 3 && view["status"] == "idle"
    })
    .await;
    // Codex answers while a slow command still runs.
    edge.until_exists(&project.join("allowed.txt")).await;

    edge.say(&id, "run tool: touch denied.txt").await;
    let asked = edge.until_asked(&id).await;
    edge.kill_and_restart();
    let again = edge.until_asked(&id).await;
    assert_eq!(
        again["id"], asked["id"],
        "the approval waits after a restart of arpc"
    );
    decide(&edge, &again, json!({"decision": "deny", "message": "not today"})).await;
    edge.until_status(&id, "idle").await;
    assert!(!project.join("denied.txt").exists());

    edge.say(&id, "slow 30").await;
    edge.until(&id, "some text", |view| {
        view["status"] == "running" && view["turns"] == 5
    })
    .await;
    edge.post(&format!("/api/sessions/{id}/interrupt"), json!({}))
        .await;
    assert_eq!(edge.until_status(&id, "idle").await["last_turn"], "interrupted");

    // A stop leaves the agent where it is; only parking ends it.
    edge.terminate();
    edge.restart();
    assert_eq!(edge.view(&id).await["status"], "idle");
    edge.stop(&["--park"]).await;
    edge.restart();
    assert_eq!(edge.view(&id).await["status"], "parked");
    edge.say(&id, "say back again").await;
    // Gemini may have to wait for the next minute.
    let view = edge
        .until_within(Duration::from_secs(100), &id, "the way back", |view| {
            view["status"] == "idle"
        })
        .await;
    assert!(
        view["activity"].as_str().unwrap().contains("back again"),
        "{view}"
    );
    assert_eq!(view["agent_session_id"], json!(agent_id));
    let (_, cancelled) = edge.post(&format!("/api/sessions/{id}/cancel"), json!({})).await;
    assert_eq!(cancelled["session"]["status"], "cancelled");

    let events = edge.events(&id).await;
    let seqs: Vec<u64> = events
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    let followed = followed.await.unwrap();
    assert!(
        followed.len() > 20 && events.starts_with(&followed),
        "what was followed over all cuts is what happened"
    );

    let (_, history) = edge.get(&format!("/api/{executor}/sessions")).await;
    assert_eq!(history["sessions"][0]["id"], json!(agent_id), "{history}");
    let (_, said) = edge
        .get(&format!("/api/{executor}/sessions/{agent_id}?format=events"))
        .await;
    let texts = said["events"].to_string();
    for said in ["hello there", "touch allowed.txt", "back again"] {
        assert!(texts.contains(said), "{said} in {texts}");
    }
    assert_eq!(
        edge.delete(&format!("/api/sessions/{id}")).await.1["type"],
        "session_deleted"
    );
    assert_eq!(edge.get(&format!("/api/{executor}/sessions")).await.1["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_lives_a_whole_life() {
    whole_life("claude").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_lives_a_whole_life() {
    whole_life("codex").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_lives_a_whole_life() {
    whole_life("gemini").await;
}

/// Gemini loses a session that is opened twice within a minute of the clock, so arpc waits, says so, survives its own
/// end meanwhile, and goes on counting the tokens.
#[tokio::test(flavor = "multi_thread")]
async fn a_gemini_that_is_resumed_at_once_is_not_lost() {
    let Some((mut edge, home, _api)) = edge("gemini").await else {
        return;
    };
    early_in_a_minute().await;
    let id = start(&edge, &home, "gemini", "say remember").await;
    let before = edge.until_status(&id, "idle").await;
    edge.post(&format!("/api/sessions/{id}/cancel"), json!({})).await;
    edge.say(&id, "say back").await;
    let waiting = edge.view(&id).await;
    assert_eq!(
        (&waiting["status"], &waiting["queue"][0]["text"]),
        (&json!("starting"), &json!("say back")),
        "{waiting}"
    );
    let events = edge.events(&id).await;
    let told = events.last().unwrap()["message"].as_str().unwrap_or_default();
    assert!(told.contains("within one minute"), "{events:?}");
    edge.kill_and_restart();
    let view = edge
        .until_within(Duration::from_secs(100), &id, "the way back", |view| {
            view["status"] == "idle"
        })
        .await;
    assert_eq!(
        (&view["turns"], &view["agent_session_id"]),
        (&json!(2), &before["agent_session_id"]),
        "{view}"
    );
    assert_eq!(
        view["usage"]["input_tokens"].as_u64(),
        before["usage"]["input_tokens"].as_u64().map(|first| first * 2)
    );
    let path = format!(
        "/api/gemini/sessions/{}?format=events",
        view["agent_session_id"].as_str().unwrap()
    );
    let said = edge.get(&path).await.1.to_string();
    assert!(
        said.contains("say remember") && said.contains("say back"),
        "{said}"
    );
    // Given up while it waits.
    edge.post(&format!("/api/sessions/{id}/cancel"), json!({})).await;
    edge.say(&id, "say never").await;
    let (_, cancelled) = edge.post(&format!("/api/sessions/{id}/cancel"), json!({})).await;
    assert_eq!(
        (&cancelled["session"]["status"], &cancelled["session"]["queue"]),
        (&json!("cancelled"), &json!([]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_allowed_for_the_session_is_not_asked_again() {
    for executor in ["claude", "codex", "gemini"] {
        let Some((edge, home, _api)) = edge(executor).await else {
            continue;
        };
        let id = start(&edge, &home, executor, "run tool: touch a.txt").await;
        let asked = edge.until_asked(&id).await;
        assert_eq!(asked["can_allow_session"], true, "{executor}: {asked}");
        assert_eq!(asked["can_edit"], executor == "claude", "{executor}: {asked}");
        if executor != "claude" {
            let path = format!("/api/approvals/{}", asked["id"].as_str().unwrap());
            let changed = json!({"decision": "allow", "updated_input": {"command": "touch b.txt"}});
            let (status, refused) = edge.post(&path, changed).await;
            assert_eq!(
                (status, &refused["code"]),
                (StatusCode::BAD_REQUEST, &json!("unsupported")),
                "{executor}"
            );
            assert_eq!(edge.until_asked(&id).await["id"], asked["id"], "it still waits");
        }
        decide(&edge, &asked, json!({"decision": "allow", "for_session": true})).await;
        edge.until_status(&id, "idle").await;
        edge.say(&id, "run tool: touch a.txt").await;
        let view = edge
            .until(&id, "the second turn", |view| {
                view["turns"] == 2 && view["status"] == "idle"
            })
            .await;
        assert_eq!(view["last_turn"], "completed", "{executor}");
        let events = edge.events(&id).await;
        let asked = events.iter().filter(|event| event["type"] == "approval").count();
        let outcome = events
            .iter()
            .find(|event| event["type"] == "approval_resolved")
            .unwrap();
        assert_eq!(
            (asked, &outcome["outcome"]),
            (1, &json!("allowed_for_session")),
            "{executor}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_the_history_is_resumed_and_forked() {
    let Some((edge, home, _api)) = edge("claude").await else {
        return;
    };
    let id = start(&edge, &home, "claude", "say one").await;
    let view = edge.until_status(&id, "idle").await;
    let agent_id = view["agent_session_id"].as_str().unwrap().to_owned();
    // Our record goes, the agent's history stays.
    assert_eq!(
        edge.delete(&format!("/api/sessions/{id}?keep_history=true"))
            .await
            .1["type"],
        "session_removed"
    );
    assert_eq!(
        edge.get(&format!("/api/sessions/{agent_id}")).await.1["code"],
        "not_live"
    );
    let body = json!({"executor": "claude", "resume": agent_id, "prompt": "say two"});
    let (status, resumed) = edge.post("/api/sessions", body).await;
    assert_eq!(status, StatusCode::CREATED, "{resumed}");
    let id = resumed["session_id"].as_str().unwrap();
    let view = edge.until_status(id, "idle").await;
    assert_eq!(
        (&view["agent_session_id"], &view["project_path"]),
        (&json!(agent_id), &json!(home.project()))
    );
    // The newest of the directory is one of ours by now: the same session goes on, in the same process.
    let body = json!({"executor": "claude", "resume_last": true, "project_path": home.project(), "prompt": "say again"});
    let (_, again) = edge.post("/api/sessions", body).await;
    assert_eq!(again["session_id"], json!(id), "{again}");
    let done = |view: &Value| view["turns"] == 2 && view["status"] == "idle";
    let view = edge.until(id, "its second turn ended", done).await;
    assert_eq!(view["agent_session_id"], json!(agent_id));
    let (status, forked) = edge
        .post(
            &format!("/api/sessions/{id}/fork"),
            json!({"prompt": "say three"}),
        )
        .await;
    assert_eq!(status, StatusCode::CREATED, "{forked}");
    let copy = forked["session_id"].as_str().unwrap();
    let view = edge.until_status(copy, "idle").await;
    assert_eq!(view["parent_id"], json!(id));
    assert_ne!(view["agent_session_id"], json!(agent_id));
}
