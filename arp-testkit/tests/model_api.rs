//! The loopback model API keeps what its documentation promises, over plain sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_testkit::model_api::{ModelApi, Reply};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);

/// Sends a request and leaves the connection open to read from.
async fn post(api: &ModelApi, path: &str, body: &Value) -> TcpStream {
    let mut socket = TcpStream::connect(api.address()).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-api-key: secret\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).await.unwrap();
    socket
}

/// All that comes until the connection ends, however it ends.
async fn rest(mut socket: TcpStream) -> String {
    let mut all = Vec::new();
    let reading = async {
        let mut some = [0; 4096];
        while let Ok(count @ 1..) = socket.read(&mut some).await {
            all.extend_from_slice(&some[..count]);
        }
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the answer ends");
    String::from_utf8(all).unwrap()
}

async fn ask(api: &ModelApi, path: &str, body: &Value) -> String {
    rest(post(api, path, body).await).await
}

fn messages(prompt: &str) -> Value {
    json!({"stream": true, "messages": [{"role": "user", "content": prompt}]})
}

#[tokio::test]
async fn every_api_streams_the_words_and_ends_as_its_kind_does() {
    let api = ModelApi::start().await;
    let input =
        json!({"stream": true, "input": [{"type": "message", "role": "user", "content": "say one two"}]});
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": "say one two"}]}]});
    for (path, body, word, end) in [
        (
            "/v1/messages",
            messages("say one two"),
            r#""text":"one ""#,
            "event: message_stop",
        ),
        (
            "/v1/responses",
            input,
            r#""delta":"one ""#,
            "event: response.completed",
        ),
        (
            "/v1beta/models/m:streamGenerateContent?alt=sse",
            contents,
            r#""text":"one ""#,
            r#""finishReason":"STOP""#,
        ),
    ] {
        let answer = ask(&api, path, &body).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(word) && answer.contains(end), "{answer}");
    }
}

#[tokio::test]
async fn a_held_answer_goes_on_when_it_is_released() {
    let api = ModelApi::start().await;
    let socket = post(&api, "/v1/messages", &messages("fake hold")).await;
    api.until_held().await;
    let (answer, ()) = tokio::join!(rest(socket), async { api.release() });
    assert!(answer.contains("first ") && answer.contains("second"), "{answer}");
    assert!(answer.contains("message_stop"), "{answer}");
}

#[tokio::test]
async fn a_dropped_answer_breaks_off_in_the_middle() {
    let api = ModelApi::start().await;
    let answer = ask(&api, "/v1/messages", &messages("fake drop")).await;
    assert!(
        answer.contains("this ") && !answer.contains("message_stop"),
        "{answer}"
    );
}

#[tokio::test]
async fn the_queue_goes_first_and_errors_have_the_apis_shape() {
    let api = ModelApi::start().await;
    api.queue(Reply::text("queued"));
    assert!(
        ask(&api, "/v1/messages", &messages("say no"))
            .await
            .contains("queued")
    );
    let answer = ask(&api, "/v1/messages", &messages("fake error 429 slower")).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(answer.contains(r#""type":"rate_limit_error""#), "{answer}");
}

#[tokio::test]
async fn other_processes_steer_it_and_no_key_is_recorded() {
    let api = ModelApi::start().await;
    let order = json!([{"text": "from afar"}, {"tool": "Bash", "args": {"command": "ls"}}]);
    ask(&api, "/__fake/queue", &order).await;
    assert!(ask(&api, "/v1/messages", &messages("x")).await.contains("afar"));
    assert!(
        ask(&api, "/v1/messages", &messages("x"))
            .await
            .contains("tool_use")
    );
    assert_eq!(api.requests().len(), 2);
    let key = api.requests()[0]
        .headers
        .iter()
        .find(|(name, _)| name == "x-api-key")
        .cloned();
    assert_eq!(key.unwrap().1, "***");
    api.reset();
    assert!(api.requests().is_empty());
}

#[tokio::test]
async fn a_tool_result_is_told_back_in_every_api() {
    let api = ModelApi::start().await;
    let result = json!([{"type": "tool_result", "tool_use_id": "t", "content": "ok-1"}]);
    let output = json!([{"type": "function_call_output", "call_id": "c", "output": "ok-2"}]);
    let response = json!([{"functionResponse": {"name": "f", "response": {"output": "ok-3"}}}]);
    for (path, body, wanted) in [
        (
            "/v1/messages",
            json!({"messages": [{"role": "user", "content": result}]}),
            "ok-1",
        ),
        ("/v1/responses", json!({"input": output}), "ok-2"),
        (
            "/v1beta/models/m:generateContent",
            json!({"contents": [{"role": "user", "parts": response}]}),
            "ok-3",
        ),
    ] {
        let answer = ask(&api, path, &body).await;
        assert!(answer.contains(&format!("Tool result: {wanted}")), "{answer}");
    }
}
