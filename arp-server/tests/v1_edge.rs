//! An edge agent that somebody else wrote, from the protocol's description alone: version 1, one HTTP
//! request a tunnel, then it closes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_testkit::daemon::Relay;
use arp_testkit::http::{RawClient, get, within};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

async fn send(stream: &mut TcpStream, json: &str) {
    stream.write_u32(json.len() as u32).await.unwrap();
    stream.write_all(json.as_bytes()).await.unwrap();
}

async fn receive(stream: &mut TcpStream) -> String {
    let len = stream.read_u32().await.unwrap();
    let mut json = vec![0; len as usize];
    stream.read_exact(&mut json).await.unwrap();
    String::from_utf8(json).unwrap()
}

/// Registers and answers every tunnel's one request with its own method, target and body. What else the
/// relay says goes to `said`.
async fn run_edge(control: SocketAddr, proxy: SocketAddr, said: mpsc::UnboundedSender<String>) {
    let mut link = TcpStream::connect(control).await.unwrap();
    send(&mut link, r#"{"Register":{"client_id":"old-timer"}}"#).await;
    assert_eq!(
        receive(&mut link).await,
        r#"{"RegisterResult":{"success":true,"error":null}}"#
    );
    said.send("registered".into()).unwrap();
    loop {
        let command = receive(&mut link).await;
        let Some(id) = command.strip_prefix(r#"{"RequestNewProxyConn":{"proxy_conn_id":""#) else {
            said.send(command).unwrap();
            continue;
        };
        let id = id.trim_end_matches("\"}}").to_owned();
        tokio::spawn(async move {
            let mut tunnel = TcpStream::connect(proxy).await.unwrap();
            send(
                &mut tunnel,
                &format!(r#"{{"NewProxyConn":{{"proxy_conn_id":"{id}","client_id":"old-timer"}}}}"#),
            )
            .await;
            let mut request = Vec::new();
            while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                if tunnel.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let text = String::from_utf8(request).unwrap();
            assert!(
                text.starts_with(|c: char| c.is_ascii_uppercase()),
                "raw bytes from the first: {text:?}"
            );
            let line = text.lines().next().unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len());
            tunnel.write_all(answer.as_bytes()).await.unwrap();
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_1_edge_is_served_without_errors() {
    let mut relay = Relay::builder()
        .args(["--heartbeat", "1", "--allow-plaintext"])
        .start()
        .await;
    let (tx, mut said) = mpsc::unbounded_channel();
    let edge = tokio::spawn(run_edge(relay.control, relay.proxy, tx));
    assert_eq!(
        within("the registration", said.recv()).await.unwrap(),
        "registered"
    );
    let mut client = RawClient::connect(relay.public).await;
    for i in 0..50 {
        // Requests that cannot be repeated are the hard ones for a tunnel that closes after each.
        client
            .send(&format!(
                "POST /n/{i}?token=old-timer HTTP/1.1\r\nHost: r\r\nContent-Length: 2\r\n\r\nhi"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, format!("POST /n/{i} HTTP/1.1"))
        );
    }
    let mut all = Vec::new();
    for i in 0..100 {
        let public = relay.public;
        all.push(tokio::spawn(async move {
            get(public, &format!("/p/{i}?token=old-timer"), "").await.status
        }));
    }
    for answer in all {
        assert_eq!(answer.await.unwrap(), 200);
    }
    // Nothing that version 1 does not know: no heartbeats (at one a second some would have come), and no
    // go-away when the relay stops.
    relay.daemon.terminate();
    assert!(relay.daemon.ended().await.success());
    edge.abort();
    assert_eq!(said.try_recv().ok(), None);
}
