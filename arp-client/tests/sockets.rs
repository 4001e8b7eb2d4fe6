//! WebSockets of sessions and of the inbox, and other services of the machine behind `/proxy`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

mod support;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use support::{Edge, PATIENCE, TOKEN, Ws};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn event(frame: &Value, kind: &str) -> bool {
    frame["type"] == "event" && frame["event"]["type"] == kind
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_over_one_socket() {
    let edge = Edge::start().await;
    let id = edge.session("say one").await;
    let mut ws = Ws::open(&edge, &format!("/api/sessions/{id}/ws")).await;
    assert_eq!(ws.next().await["type"], "session");
    ws.until(|frame| event(frame, "turn_end")).await;

    ws.send(json!({"type": "message", "id": "r1", "text": "ask touch a", "client_id": "c1"}))
        .await;
    let reply = ws.until(|frame| frame["type"] == "reply").await;
    assert_eq!(
        (&reply["id"], &reply["ok"], &reply["result"]["duplicate"]),
        (&json!("r1"), &json!(true), &json!(false))
    );
    let asked = ws.until(|frame| event(frame, "approval")).await;
    let decide = json!({"type": "decide", "id": 2, "approvalId": asked["event"]["id"], "decision": "allow"});
    ws.send(decide).await;
    assert_eq!(
        ws.until(|frame| frame["type"] == "reply").await["result"]["outcome"],
        "allowed"
    );
    let end = ws.until(|frame| event(frame, "turn_end")).await;

    ws.send(json!({"type": "message", "text": "hold"})).await;
    ws.until(|frame| frame["session"]["turn"]["prompt"] == "hold")
        .await;
    ws.until(|frame| event(frame, "user_message")).await;
    ws.send(json!({"type": "interrupt", "id": "r3"})).await;
    assert_eq!(
        ws.until(|frame| frame["id"] == "r3").await["result"]["was_running"],
        true
    );
    assert_eq!(
        ws.until(|frame| event(frame, "turn_end")).await["event"]["status"],
        "interrupted"
    );

    ws.send(json!({"type": "set", "id": "r4", "title": "T"})).await;
    assert_eq!(
        ws.until(|frame| frame["id"] == "r4").await["result"]["session"]["title"],
        "T"
    );
    ws.send(json!({"type": "nonsense", "id": "r5"})).await;
    assert_eq!(ws.until(|frame| frame["id"] == "r5").await["code"], "bad_frame");
    ws.send(json!({"type": "ping"})).await;
    ws.until(|frame| frame["type"] == "pong").await;

    // Another one begins where it is told to.
    let since = end["event"]["seq"].as_u64().unwrap();
    let mut other = Ws::open(&edge, &format!("/api/sessions/{id}/ws?since={since}")).await;
    let first = other.until(|frame| frame["type"] == "event").await;
    assert_eq!(first["event"]["seq"], json!(since + 1));

    ws.send(json!({"type": "cancel", "id": "r6"})).await;
    ws.until(|frame| frame["type"] == "completion").await;
    ws.send(json!({"type": "message", "text": "say resumed"})).await;
    ws.until(|frame| frame["event"]["text"] == "resumed").await;
    edge.post(&format!("/api/sessions/{id}/cancel"), json!({})).await;
    edge.delete(&format!("/api/sessions/{id}")).await;
    ws.until(|frame| frame["type"] == "removed").await;
}

/// One frame of the server: is it compressed, and its payload.
async fn frame(stream: &mut TcpStream) -> (u8, bool, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.unwrap();
    let len = match head[1] {
        126 => usize::from(stream.read_u16().await.unwrap()),
        127 => usize::try_from(stream.read_u64().await.unwrap()).unwrap(),
        len => usize::from(len),
    };
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).await.unwrap();
    (head[0] & 0x0f, head[0] & 0x40 != 0, payload)
}

/// As browsers do it: every one of them offers `permessage-deflate`, and compresses what it sends.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_compressed_where_the_browser_offers_that_also_through_the_relay() {
    use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
    let edge = Edge::start().await;
    let id = edge.session("burst 300 40").await;
    edge.until_status(&id, "idle").await;
    for base in [edge.url(""), edge.relay_url("")] {
        let address = base
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "GET /api/sessions/{id}/ws HTTP/1.1\r\nhost: {address}\r\nx-arp-token: {TOKEN}\r\nconnection: Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 101"), "{answer}");
        assert!(
            answer.contains("sec-websocket-extensions: permessage-deflate\r\n"),
            "{answer}"
        );

        let ping = r#"{"type":"ping","filling":"some words, some words, some words"}"#;
        let mut packed = Vec::with_capacity(1024);
        Compress::new(Compression::default(), false)
            .compress_vec(ping.as_bytes(), &mut packed, FlushCompress::Sync)
            .unwrap();
        let packed = packed.strip_suffix(&[0, 0, 0xff, 0xff]).unwrap();
        let mut sent = vec![0xc1, 0x80 | u8::try_from(packed.len()).unwrap(), 1, 2, 3, 4];
        sent.extend(
            packed
                .iter()
                .zip([1, 2, 3, 4].iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        stream.write_all(&sent).await.unwrap();

        let mut inflate = Decompress::new(false);
        let (mut on_wire, mut said, mut texts, mut pong) = (0, 0, 0, false);
        let reading = async {
            while texts < 300 || !pong {
                let (opcode, compressed, mut payload) = frame(&mut stream).await;
                if opcode != 1 {
                    continue;
                }
                on_wire += payload.len();
                let mut text = Vec::with_capacity(1 << 20);
                if compressed {
                    payload.extend([0, 0, 0xff, 0xff]);
                    inflate
                        .decompress_vec(&payload, &mut text, FlushDecompress::Sync)
                        .unwrap();
                } else {
                    text = payload;
                }
                said += text.len();
                let frame: Value = serde_json::from_slice(&text).unwrap();
                texts += usize::from(event(&frame, "text"));
                pong |= frame["type"] == "pong";
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap();
        println!("{address}: {said} bytes of JSON in {on_wire}");
        assert!(on_wire * 4 < said, "{said} bytes of JSON in {on_wire}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_cut_again_and_again_repeats_and_misses_nothing() {
    let edge = Edge::start().await;
    let id = edge.session("ticks 600 1").await;
    let mut seen: Vec<u64> = Vec::new();
    let mut ended = false;
    for cut in 0.. {
        let since = seen.last().copied().unwrap_or(0);
        let mut ws = Ws::open(&edge, &format!("/api/sessions/{id}/ws?since={since}")).await;
        for _ in 0..(cut * 7) % 40 + 2 {
            let frame = ws.next().await;
            if frame["type"] == "event" {
                seen.push(frame["event"]["seq"].as_u64().unwrap());
            }
            if event(&frame, "turn_end") {
                ended = true;
                break;
            }
        }
        if ended {
            break;
        }
    }
    assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>());
    assert!(seen.len() > 600);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_speaks_websocket_too() {
    let edge = Edge::start().await;
    let mut ws = Ws::open(&edge, "/api/events/ws").await;
    assert_eq!(ws.next().await["type"], "snapshot");
    let id = edge.session("say x").await;
    ws.until(|frame| frame["type"] == "session" && frame["session"]["id"] == json!(id))
        .await;
    let (status, refused) = edge.get("/api/events/ws").await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::UPGRADE_REQUIRED, &json!("upgrade_required"))
    );
}

/// A service that answers with the head it was sent, and echoes after an upgrade.
async fn service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let text = String::from_utf8(head).unwrap();
                if text.to_lowercase().contains("upgrade: echo") {
                    let switch =
                        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
                    stream.write_all(switch.as_bytes()).await.unwrap();
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                } else {
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn allowed_ports_are_reached_and_learn_none_of_our_secrets() {
    let port = service().await;
    let edge = Edge::start_with(&[
        &format!("--proxy-ports={port}"),
        "--edge-key=a-key-of-some-length",
    ])
    .await;
    let request = edge
        .request(Method::GET, &format!("/proxy/{port}/a%2Fb?x=1"))
        .bearer_auth("a-key-of-some-length")
        .header("cookie", format!("arp_token={TOKEN}; mine=1; arp_edge=x"))
        .header("connection", "x-hop")
        .header("x-hop", "1");
    let seen = request.send().await.unwrap().text().await.unwrap().to_lowercase();
    assert!(seen.starts_with("get /a%2fb?x=1 http/1.1"), "{seen}");
    assert!(
        seen.contains(&format!("host: localhost:{port}")) && seen.contains("cookie: mine=1"),
        "{seen}"
    );
    for secret in [TOKEN, "a-key-of-some-length", "arp_edge", "x-hop"] {
        assert!(!seen.contains(secret), "{secret} in {seen}");
    }
    let (status, refused) = support::answer(
        edge.request(Method::GET, "/proxy/22/")
            .bearer_auth("a-key-of-some-length"),
    )
    .await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::FORBIDDEN, &json!("port_not_allowed"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_passes_through_the_proxy() {
    let port = service().await;
    let edge = Edge::start_with(&[&format!("--proxy-ports={port}")]).await;
    let address = edge.base.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET /proxy/{port}/ HTTP/1.1\r\nhost: {address}\r\nx-arp-token: {TOKEN}\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(
            tokio::time::timeout(PATIENCE, stream.read_u8())
                .await
                .unwrap()
                .unwrap(),
        );
    }
    assert!(
        answer.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    stream.write_all(b"back and forth").await.unwrap();
    let mut echo = [0; 14];
    tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut echo))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&echo, b"back and forth");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_a_502_that_names_it() {
    let edge = Edge::start_with(&["--proxy-ports=1"]).await;
    let (status, refused) = edge.get("/proxy/1/").await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::BAD_GATEWAY, &json!("local_service_down"))
    );
    assert!(refused["message"].as_str().unwrap().contains("port 1"));
}
