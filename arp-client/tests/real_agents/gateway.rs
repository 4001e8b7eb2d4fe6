//! The real CLIs, sent through the model gateway by arpc: switched and failed over in mid-session, cut in mid-stream,
//! with a secret that the upstream never sees.

use super::support::{ARPC, Edge, answer};
use super::{decide, start};
use arp_testkit::cli::{self, Home};
use arp_testkit::model_api::{ModelApi, Reply};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;

const SECRET: &str = "someone@corp.example";

/// Ends the gateway that was started for a test.
struct Stop(OsString);

impl Drop for Stop {
    fn drop(&mut self) {
        let _ = std::process::Command::new(ARPC)
            .args(["gateway", "stop"])
            .env("CLP_HOME", &self.0)
            .output();
    }
}

/// A home of the gateway with these two upstreams, for all services.
fn clp_home(dir: &Path, a: &ModelApi, b: &ModelApi) {
    std::fs::create_dir_all(dir).unwrap();
    let entry = |api: &ModelApi, key: &str, weight: u32| json!({"base_url": api.url(), "auth_token": key, "api_key": key, "weight": weight});
    let file = json!({"a": entry(a, "key-a", 2), "b": entry(b, "key-b", 1)}).to_string();
    for service in ["claude", "codex", "gemini"] {
        std::fs::write(dir.join(format!("{service}.json")), &file).unwrap();
    }
    std::fs::write(dir.join("gateway.toml"), "[redaction]\npresets = [\"mails\"]\n").unwrap();
}

async fn gateway_of(edge: &Edge, id: &str) -> Value {
    edge.get(&format!("/api/sessions/{id}/gateway")).await.1
}

async fn put(edge: &Edge, path: &str, body: Value) -> (StatusCode, Value) {
    answer(edge.request(Method::PUT, path).json(&body)).await
}

async fn turn(edge: &Edge, id: &str, text: &str) {
    let turns = edge.view(id).await["turns"].as_u64().unwrap();
    edge.say(id, text).await;
    let view = edge
        .until(id, text, |view| {
            view["turns"].as_u64() > Some(turns) && view["status"] == "idle"
        })
        .await;
    assert_eq!(view["last_turn"], "completed", "{text}: {view}");
}

async fn through_the_gateway(executor: &str) {
    let Some(path) = cli::find(executor) else { return };
    let (direct, a, b) = (
        ModelApi::start().await,
        ModelApi::start().await,
        ModelApi::start().await,
    );
    let home = Home::new(&direct);
    let clp = home.path().join(".clp");
    clp_home(&clp, &a, &b);
    let mut environment = home.env().to_vec();
    environment.push(("CLP_HOME".into(), clp.clone().into()));
    for port in ["CLAUDE", "CODEX", "GEMINI", "UI"] {
        environment.push((format!("CLP_{port}_PORT").into(), "0".into()));
    }
    let arguments = vec![
        format!("--agent-path={executor}={}", path.display()),
        "--gateway".to_owned(),
    ];
    let edge = Edge::launch(arguments, environment).await;
    let _stop = Stop(clp.into());
    let (status, told) = edge.get("/api/gateway").await;
    assert_eq!(
        (status.as_u16(), &told["code"]),
        (503, &json!("gateway_not_running")),
        "not before it is needed"
    );

    let id = start(&edge, &home, executor, "say hello there").await;
    edge.until_status(&id, "idle").await;
    let known = gateway_of(&edge, &id).await;
    assert_eq!(
        (&known["service"], &known["upstream"]),
        (&json!(executor), &json!("a")),
        "{known}"
    );
    assert!(!a.requests().is_empty() && b.requests().is_empty());

    // A person sends the session elsewhere, from the next request on.
    let (status, chosen) = put(
        &edge,
        &format!("/api/sessions/{id}/gateway"),
        json!({"upstream": "b"}),
    )
    .await;
    assert_eq!(
        (status.as_u16(), &chosen["choice"]["upstream"]),
        (200, &json!("b")),
        "{chosen}"
    );
    turn(&edge, &id, "say switched").await;
    assert_eq!(gateway_of(&edge, &id).await["upstream"], "b");
    let before = b.requests().len();
    assert!(before > 0);

    // It fails: the other one answers, and the agent notices nothing.
    b.queue(Reply::error(503, "busy"));
    turn(&edge, &id, "say failed over").await;
    let known = gateway_of(&edge, &id).await;
    assert_eq!(
        (&known["upstream"], &known["failovers"]),
        (&json!("a"), &json!(1)),
        "{known}"
    );

    // It breaks off in the middle: the agent asks again by itself, and that request is answered.
    let cut = Reply {
        cut: true,
        ..Reply::text("this answer never comes to its end because it is cut in the middle")
    };
    b.queue(cut);
    turn(&edge, &id, "say after the cut").await;

    // A secret that no upstream sees works in the agent's command all the same.
    edge.say(&id, &format!("run tool: echo {SECRET} > told.txt"))
        .await;
    let asked = edge.until_asked(&id).await;
    assert!(asked["title"].as_str().unwrap().contains(SECRET), "{asked}");
    decide(&edge, &asked, json!({"decision": "allow"})).await;
    edge.until_status(&id, "idle").await;
    edge.until_exists(&home.project().join("told.txt")).await;
    let told = std::fs::read_to_string(home.project().join("told.txt")).unwrap();
    assert_eq!(told.trim(), SECRET);
    for request in a.requests().iter().chain(&b.requests()) {
        assert!(!request.body.to_string().contains(SECRET), "{}", request.body);
    }
    assert!(direct.requests().is_empty(), "nothing went past the gateway");

    let view = edge.view(&id).await;
    let joined = &view["gateway"];
    assert_eq!(joined["failovers"], 1, "{joined}");
    assert!(
        joined["redacted"].as_u64() > Some(0) && joined["usage"]["output"].as_u64() > Some(0),
        "{joined}"
    );
    let (_, usage) = edge.get("/api/gateway/usage?by=project").await;
    if executor != "codex" {
        assert_eq!(usage["sums"][0]["key"], json!(home.project()), "{usage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_goes_through_the_gateway() {
    through_the_gateway("claude").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_goes_through_the_gateway() {
    through_the_gateway("codex").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_goes_through_the_gateway() {
    through_the_gateway("gemini").await;
}
