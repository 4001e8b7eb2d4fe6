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
    // Whichever way a session's object comes, this is with it.
    let change = edge.request(Method::PATCH, &format!("/api/sessions/{id}"));
    let (_, changed) = answer(change.json(&json!({"title": "renamed"}))).await;
    assert_eq!(&changed["session"]["gateway"], joined, "{changed}");
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

/// An upstream that speaks Codex's WebSocket, in front of a model API over HTTP; the frames that came.
async fn with_socket(api: &ModelApi) -> (String, std::sync::Arc<std::sync::Mutex<Vec<Value>>>) {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::protocol::Message;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let frames = std::sync::Arc::<std::sync::Mutex<Vec<Value>>>::default();
    let (log, http) = (frames.clone(), format!("{}/v1/responses", api.url()));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (log, http) = (log.clone(), http.clone());
            tokio::spawn(async move {
                let Ok(mut socket) = tokio_tungstenite::accept_async(tcp).await else {
                    return;
                };
                while let Some(Ok(message)) = socket.next().await {
                    let Message::Text(text) = message else { continue };
                    let mut frame: Value = serde_json::from_str(&text).unwrap();
                    log.lock().unwrap().push(frame.clone());
                    let body = frame.as_object_mut().unwrap();
                    body.retain(|name, _| !matches!(name.as_str(), "type" | "previous_response_id"));
                    let asked = arp_testkit::client::client()
                        .post(&http)
                        .json(&frame)
                        .send()
                        .await;
                    let answer = asked.unwrap().text().await.unwrap();
                    for data in answer.lines().filter_map(|line| line.strip_prefix("data: ")) {
                        if data != "[DONE]" && socket.send(Message::text(data)).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    (url, frames)
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_over_its_websocket_is_bridged_to_a_socket_and_to_http() {
    let Some(path) = cli::find("codex") else { return };
    let (direct, a, b) = (
        ModelApi::start().await,
        ModelApi::start().await,
        ModelApi::start().await,
    );
    let (socket, frames) = with_socket(&a).await;
    let home = Home::new(&direct);
    let config = home.path().join(".codex/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("websockets = false", "websockets = true")).unwrap();
    let clp = home.path().join(".clp");
    std::fs::create_dir_all(&clp).unwrap();
    let entry = |url: &str, weight: u32| json!({"base_url": url, "auth_token": "key", "weight": weight});
    let file = json!({"a": entry(&socket, 2), "b": entry(&b.url(), 1)});
    std::fs::write(clp.join("codex.json"), file.to_string()).unwrap();
    let settings = "[codex]\nwebsocket = true\n[upstream.codex.a]\nwebsocket = true\n[redaction]\npresets = [\"mails\"]\n";
    std::fs::write(clp.join("gateway.toml"), settings).unwrap();
    let mut environment = home.env().to_vec();
    environment.push(("CLP_HOME".into(), clp.clone().into()));
    for port in ["CLAUDE", "CODEX", "GEMINI", "UI"] {
        environment.push((format!("CLP_{port}_PORT").into(), "0".into()));
    }
    let arguments = vec![
        format!("--agent-path=codex={}", path.display()),
        "--gateway".to_owned(),
    ];
    let edge = Edge::launch(arguments, environment).await;
    let _stop = Stop(clp.into());

    let id = start(&edge, &home, "codex", "say over the socket").await;
    edge.until_status(&id, "idle").await;
    turn(&edge, &id, "say once more").await;
    let seen = frames.lock().unwrap().clone();
    assert!(seen.len() >= 2, "{seen:?}");
    assert!(seen[0].get("previous_response_id").is_none());
    let last = seen.last().unwrap();
    assert!(last["previous_response_id"].is_string(), "{last}");
    let input = last["input"].to_string();
    assert!(
        input.contains("once more") && !input.contains("over the socket"),
        "only what is new: {last}"
    );

    // Another upstream, over HTTP: with all that was said; and a tool with a secret that nobody sees.
    let chosen = json!({"upstream": "b"});
    put(&edge, &format!("/api/sessions/{id}/gateway"), chosen).await;
    turn(&edge, &id, "say switched").await;
    let asked = b.requests().pop().unwrap().body.to_string();
    for word in ["over the socket", "once more", "switched"] {
        assert!(asked.contains(word), "{word}: {asked}");
    }
    edge.say(&id, &format!("run tool: echo {SECRET} > told.txt"))
        .await;
    let question = edge.until_asked(&id).await;
    decide(&edge, &question, json!({"decision": "allow"})).await;
    edge.until_status(&id, "idle").await;
    edge.until_exists(&home.project().join("told.txt")).await;
    let told = std::fs::read_to_string(home.project().join("told.txt")).unwrap();
    assert_eq!(told.trim(), SECRET);
    assert!(
        b.requests()
            .iter()
            .all(|request| !request.body.to_string().contains(SECRET))
    );
    let (_, requests) = edge.get(&format!("/api/gateway/requests?session={id}")).await;
    assert_eq!(requests["requests"][0]["path"], "WS /v1/responses", "{requests}");
    assert!(direct.requests().is_empty(), "nothing went past the gateway");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edges_door_leads_to_the_gateway_of_its_machine_and_to_nobody_without_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let clp = dir.path().join("clp");
    let mut environment: Vec<(OsString, OsString)> = vec![("CLP_HOME".into(), clp.clone().into())];
    for port in ["CLAUDE", "CODEX", "GEMINI", "UI"] {
        environment.push((format!("CLP_{port}_PORT").into(), "0".into()));
    }
    let edge = Edge::launch_through_relay(Vec::new(), environment.clone()).await;
    let (status, told) = edge.get("/api/gateway").await;
    assert_eq!((status.as_u16(), &told["code"]), (404, &json!("gateway_off")));
    drop(edge);

    let edge = Edge::launch_through_relay(vec!["--gateway".to_owned()], environment.clone()).await;
    let (status, told) = edge.get("/api/gateway").await;
    assert_eq!(
        (status.as_u16(), &told["code"]),
        (503, &json!("gateway_not_running"))
    );
    let _stop = Stop(clp.clone().into());
    let mut started = std::process::Command::new(ARPC);
    started.args(["gateway", "start"]).envs(environment.clone());
    let started = started.output().unwrap();
    assert!(started.status.success(), "{started:?}");
    let (status, overview) = edge.get("/api/gateway").await;
    assert_eq!((status.as_u16(), &overview["type"]), (200, &json!("gateway")));

    // What is changed through the door is told to whoever watches there, and lies in the files.
    let mut events = edge
        .request(Method::GET, "/api/gateway/events")
        .send()
        .await
        .unwrap();
    let new = json!({"base_url": "http://127.0.0.1:1", "auth_token": "sk-hidden"});
    let (status, upstream) = put(&edge, "/api/gateway/upstreams/claude/my%20relay", new).await;
    assert_eq!(
        (status.as_u16(), &upstream["name"], &upstream["has_token"]),
        (200, &json!("my relay"), &json!(true)),
        "{upstream}"
    );
    let mut heard = String::new();
    while !heard.contains("event: upstreams") {
        let bytes = events.chunk().await.unwrap().expect("the stream goes on");
        heard.push_str(&String::from_utf8_lossy(&bytes));
    }
    let (_, all) = edge.get("/api/gateway/upstreams").await;
    assert!(!all.to_string().contains("sk-hidden"), "{all}");
    let (status, recording) = put(&edge, "/api/gateway/recording", json!({"on": true})).await;
    assert_eq!((status.as_u16(), &recording["on"]), (200, &json!(true)));
    let settings = std::fs::read_to_string(clp.join("gateway.toml")).unwrap();
    assert!(settings.contains("on = true"), "{settings}");
    let (status, unknown) = edge.get("/api/gateway/nothing").await;
    assert_eq!((status.as_u16(), &unknown["code"]), (404, &json!("not_found")));

    let stranger = arp_testkit::client::client().get(edge.url("/api/gateway/upstreams"));
    let (status, told) = answer(stranger).await;
    assert_eq!(status.as_u16(), 401, "{told}");
}
