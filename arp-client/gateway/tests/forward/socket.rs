//! Codex's WebSocket: refused unless it is switched on, then bridged to HTTP or to an upstream's own socket.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::support::*;
use arp_gateway::service::Service;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

const ON: &str = "[codex]\nwebsocket = true\n";

/// Codex's side of a socket.
struct Agent(WebSocketStream<TcpStream>);

impl Agent {
    async fn connect(gateway: &Running) -> Result<Self, u16> {
        let address = gateway.url.trim_start_matches("http://").to_owned();
        let mut request = format!("ws://{address}/v1/responses")
            .into_client_request()
            .unwrap();
        let headers = request.headers_mut();
        headers.insert("authorization", "Bearer of-the-agent".parse().unwrap());
        headers.insert("session-id", "s1".parse().unwrap());
        headers.insert("openai-beta", "responses_websockets=2026-02-06".parse().unwrap());
        let tcp = TcpStream::connect(address).await.unwrap();
        match client_async(request, tcp).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tokio_tungstenite::tungstenite::Error::Http(refused)) => Err(refused.status().as_u16()),
            Err(e) => panic!("{e}"),
        }
    }

    /// One frame, and what comes back up to the end of its answer.
    async fn ask(&mut self, mut frame: Value) -> Vec<Value> {
        frame["type"] = "response.create".into();
        frame["model"] = "gpt-x".into();
        self.0.send(Message::text(frame.to_string())).await.unwrap();
        let mut all = Vec::new();
        while let Some(Ok(Message::Text(text))) = self.0.next().await {
            let event: Value = serde_json::from_str(&text).unwrap();
            let kind = event["type"].as_str().unwrap().to_owned();
            all.push(event);
            if matches!(kind.as_str(), "response.completed" | "response.failed" | "error") {
                return all;
            }
        }
        panic!("the socket ended: {all:?}")
    }
}

fn user(text: &str) -> Value {
    json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
}

/// The events of an answer with this text.
fn answer(id: &str, text: &str) -> Vec<Value> {
    let item = json!({"type": "message", "id": format!("msg_{id}"), "role": "assistant",
        "content": [{"type": "output_text", "text": text}]});
    let usage = json!({"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3, "total_tokens": 13});
    vec![
        json!({"type": "response.created", "response": {"id": id}}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": {"id": id, "output": [], "usage": usage}}),
    ]
}

/// The last text of a request's input.
fn last_text(request: &Value) -> String {
    let input = request["input"].as_array().unwrap();
    input.last().unwrap()["content"][0]["text"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// An upstream over HTTP that answers with the text it was given.
async fn over_http() -> Upstream {
    Upstream::start(|asked| {
        let Ok(request) = serde_json::from_slice::<Value>(&asked.body) else {
            return error(404, "no socket here");
        };
        let text = last_text(&request);
        if text == "busy" {
            return error(503, "busy");
        }
        let items = request["input"].as_array().unwrap().len();
        let events = answer(&format!("http_{items}"), &text);
        Say::Events(events.iter().map(|e| format!("data: {e}\n\n")).collect())
    })
    .await
}

/// An upstream with a socket: each connection's frames.
struct WithSocket {
    url: String,
    connections: Arc<Mutex<Vec<Vec<Value>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl WithSocket {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections: Arc<Mutex<Vec<Vec<Value>>>> = Arc::default();
        let log = connections.clone();
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let Ok(mut socket) = accept_async(tcp).await else {
                    continue;
                };
                let number = log.lock().unwrap().len();
                log.lock().unwrap().push(Vec::new());
                let log = log.clone();
                tokio::spawn(async move {
                    while let Some(Ok(Message::Text(text))) = socket.next().await {
                        let frame: Value = serde_json::from_str(&text).unwrap();
                        log.lock().unwrap()[number].push(frame.clone());
                        let text = last_text(&frame);
                        let events = match text.as_str() {
                            "limit" => vec![
                                json!({"type": "error", "status": 429, "error": {"code": "x", "message": "slow down"}, "headers": {"retry-after": "7"}}),
                            ],
                            "forget" if frame["previous_response_id"].is_string() => vec![
                                json!({"type": "error", "status": 400, "error": {"code": "previous_response_not_found"}}),
                            ],
                            "break" => vec![json!({"type": "response.created", "response": {"id": "x"}})],
                            _ => answer(&format!("ws_{text}"), &text),
                        };
                        for event in events {
                            socket.send(Message::text(event.to_string())).await.unwrap();
                        }
                        if text == "break" {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            url,
            connections,
            task,
        }
    }

    fn frames(&self) -> Vec<Vec<Value>> {
        self.connections.lock().unwrap().clone()
    }
}

impl Drop for WithSocket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_socket_is_bridged_to_http_with_all_that_was_said_before() {
    let upstream = over_http().await;
    let gateway = Running::start(Service::Codex, &file(&[("a", &upstream.url(), 0)])).await;
    assert_eq!(
        Agent::connect(&gateway).await.err(),
        Some(426),
        "unless it is switched on"
    );
    std::fs::write(
        gateway.home.settings(),
        format!("{ON}[redaction]\nwords = [\"hushword\"]\n"),
    )
    .unwrap();
    let mut agent = Agent::connect(&gateway).await.unwrap();

    // The base prompt comes first, and is answered here.
    let base =
        json!({"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "base"}]});
    let warm = agent
        .ask(json!({"generate": false, "input": [base], "n": 1.50}))
        .await;
    let id = warm[1]["response"]["id"].as_str().unwrap().to_owned();
    assert_eq!(upstream.times(), 0);

    let first = agent
        .ask(json!({"previous_response_id": id, "input": [user("hushword")], "n": 1}))
        .await;
    assert_eq!(
        first[1]["item"]["content"][0]["text"], "hushword",
        "it is back in the answer"
    );
    let second = agent
        .ask(json!({"previous_response_id": id_of(&first), "input": [user("two")]}))
        .await;
    assert_eq!(id_of(&second), "http_4");
    let asked = upstream.asked();
    assert_eq!(asked[0].line, "POST /v1/responses HTTP/1.1");
    assert_eq!(asked[0].header("authorization"), Some("Bearer key-a"));
    assert_eq!(asked[0].header("accept"), Some("text/event-stream"));
    for gone in ["openai-beta", "sec-websocket-key", "upgrade"] {
        assert_eq!(asked[0].header(gone), None, "{gone}");
    }
    assert!(asked.iter().all(|asked| !asked.text().contains("hushword")));
    let request: Value = serde_json::from_slice(&asked[1].body).unwrap();
    let roles: Vec<_> = request["input"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["role"])
        .collect();
    assert_eq!(roles, ["developer", "user", "assistant", "user"]);
    assert_eq!(
        (
            &request["type"],
            &request["previous_response_id"],
            &request["stream"]
        ),
        (&Value::Null, &Value::Null, &json!(true))
    );

    // An error goes by its status; what the gateway does not know it does not pretend to.
    let refused = agent
        .ask(json!({"previous_response_id": id_of(&second), "input": [user("busy")]}))
        .await;
    assert_eq!(
        (&refused[0]["type"], &refused[0]["status"]),
        (&json!("error"), &json!(503))
    );
    let unknown = agent
        .ask(json!({"previous_response_id": "resp_x", "input": []}))
        .await;
    assert_eq!(unknown[0]["error"]["code"], "previous_response_not_found");
    let again = agent.ask(json!({"input": [user("anew")]})).await;
    assert_eq!(id_of(&again), "http_1");

    gateway.gateway.usage().flush();
    let newest = gateway.gateway.usage().newest(9).unwrap();
    assert_eq!(newest.len(), 4);
    assert_eq!(
        (
            &newest[0]["path"],
            &newest[0]["session"],
            &newest[0]["input"],
            &newest[0]["output"]
        ),
        (&json!("WS /v1/responses"), &json!("s1"), &json!(6), &json!(3))
    );
}

fn id_of(events: &[Value]) -> &str {
    events.last().unwrap()["response"]["id"].as_str().unwrap()
}

#[tokio::test]
async fn an_upstream_with_a_socket_hears_only_what_is_new_and_a_switch_needs_nothing_of_the_agent() {
    let (a, b) = (WithSocket::start().await, over_http().await);
    let gateway = Running::start(Service::Codex, &file(&[("a", &a.url, 2), ("b", &b.url(), 1)])).await;
    let both = format!("{ON}[upstream.codex.a]\nwebsocket = true\n[upstream.codex.b]\nwebsocket = true\n");
    std::fs::write(gateway.home.settings(), both).unwrap();
    let mut agent = Agent::connect(&gateway).await.unwrap();
    let mut last = String::new();
    let mut turn = async |text: &str| {
        let mut frame = json!({"input": [user(text)]});
        if !last.is_empty() {
            frame["previous_response_id"] = last.clone().into();
        }
        let events = agent.ask(frame).await;
        if events.last().unwrap()["type"] == "response.completed" {
            last = id_of(&events).to_owned();
        }
        events
    };
    turn("one").await;
    turn("two").await;
    let frames = a.frames();
    assert_eq!(frames.len(), 1, "one socket for both");
    assert_eq!(frames[0][0]["type"], "response.create");
    assert_eq!(frames[0][1]["previous_response_id"], "ws_one");
    assert_eq!(frames[0][1]["input"], json!([user("two")]));

    // It has forgotten: with all that was said, on a new socket.
    turn("forget").await;
    let frames = a.frames();
    assert_eq!(
        (frames.len(), frames[1][0]["input"].as_array().unwrap().len()),
        (2, 5)
    );
    assert!(frames[1][0].get("previous_response_id").is_none());

    // It refuses: the other one, which has no socket, answers over HTTP.
    let events = turn("limit").await;
    assert_eq!(id_of(&events), "http_7");
    let asked = b.asked();
    assert!(
        asked[0].line.starts_with("GET /v1/responses"),
        "it was asked for a socket first"
    );
    let request: Value = serde_json::from_slice(&asked[1].body).unwrap();
    assert_eq!(request["input"].as_array().unwrap().len(), 7);
}

#[tokio::test]
async fn an_answer_that_breaks_off_on_the_upstreams_socket_is_ended_so_that_codex_asks_again() {
    let a = WithSocket::start().await;
    let gateway = Running::start(Service::Codex, &file(&[("a", &a.url, 0)])).await;
    std::fs::write(
        gateway.home.settings(),
        format!("{ON}[upstream.codex.a]\nwebsocket = true\n"),
    )
    .unwrap();
    let mut agent = Agent::connect(&gateway).await.unwrap();
    let events = agent.ask(json!({"input": [user("break")]})).await;
    let failed = &events.last().unwrap()["response"]["error"];
    assert_eq!(failed["code"], "rate_limit_exceeded", "{events:?}");
    // A frame that is none.
    agent.0.send(Message::text("{")).await.unwrap();
    let Some(Ok(Message::Text(text))) = agent.0.next().await else {
        panic!("nothing came")
    };
    assert!(text.contains("invalid_frame"), "{text}");
}
