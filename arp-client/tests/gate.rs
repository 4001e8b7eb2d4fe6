//! The edge's own gate: what a token alone opens.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::{RawClient, get};
use arp_testkit::origin::{Origin, pattern};
use std::process::Command;
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread")]
async fn a_token_alone_reaches_nothing_behind_a_gate() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .var("ARPC_REQUIRE_KEY", "k-e-y")
        .args(["--require-auth", "ann:secret"])
        .start()
        .await;
    // One connection, so that one tunnel sees good and bad requests in turn.
    let mut visitor = RawClient::connect(relay.public).await;
    for (fields, status) in [
        ("", 401),
        ("Authorization: Bearer k-e-y\r\n", 200),
        ("Authorization: Bearer k-e\r\n", 401),
        ("Authorization: Basic YW5uOnNlY3JldA==\r\n", 200),
        ("Authorization: Basic YW5uOnNlY3JldDE=\r\n", 401),
        ("X-ARP-Key: k-e-y\r\nAuthorization: Bearer own\r\n", 200),
    ] {
        let before = origin.seen().len();
        let body = "Content-Length: 3\r\n\r\nabc";
        visitor
            .send(&format!(
                "POST /echo?token=demo HTTP/1.1\r\nHost: r\r\n{fields}{body}"
            ))
            .await;
        let answer = visitor.answer().await;
        assert_eq!(answer.status, status, "{fields}");
        assert_eq!(
            origin.seen().len() - before,
            usize::from(status == 200),
            "{fields}"
        );
        if status == 401 {
            assert_eq!(answer.json()["code"], "edge_auth_required");
            assert!(
                answer
                    .headers
                    .iter()
                    .any(|(n, v)| n == "www-authenticate" && v.starts_with("Basic"))
            );
        } else {
            let seen = origin.seen().pop().unwrap();
            let own = fields.contains("own").then_some("Bearer own");
            assert_eq!(
                (seen.header("authorization"), seen.header("x-arp-key")),
                (own, None)
            );
            assert_eq!(
                (seen.header("host"), answer.json()["body"].as_str()),
                (Some("r"), Some("abc"))
            );
        }
    }
    let key = "X-ARP-Key: k-e-y\r\n";
    for (path, bytes) in [("/bytes/300000", 300_000), ("/chunked/300000", 300_000)] {
        assert_eq!(
            get(relay.public, &format!("{path}?token=demo"), key)
                .await
                .body
                .len(),
            bytes
        );
    }
    assert!(!edge.daemon.output().contains("k-e-y"));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_stream_through_a_gate_and_a_missing_service_is_told() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--require-key", "k"])
        .start()
        .await;
    let mut visitor = RawClient::connect(relay.public).await;
    visitor
        .send("GET /sse?token=demo HTTP/1.1\r\nHost: r\r\nX-ARP-Key: k\r\n\r\n")
        .await;
    assert_eq!(visitor.head().await.status, 200);
    for n in 0..3 {
        origin.release(1);
        let mut event = Vec::new();
        visitor.chunk(&mut event).await;
        assert!(String::from_utf8(event).unwrap().contains(&format!("event {n}")));
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let _edge = Edge::tcp_builder(&relay, "gone", nobody)
        .args(["--require-key", "k"])
        .start()
        .await;
    assert_eq!(get(relay.public, "/?token=gone", "").await.status, 401);
    let answer = get(relay.public, "/?token=gone", "X-ARP-Key: k\r\n").await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (502, Some("local_service_unreachable"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_protocol_needs_the_key_too() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--require-auth", "ann:secret", "--require-key", "k-e-y"])
        .start()
        .await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    for wrong in [
        "",
        "X-ARP-Key: k\r\n",
        "Authorization: Basic YW5uOnNlY3JldDE=\r\n",
        "Sec-WebSocket-Protocol: k-e-y\r\n",
    ] {
        let mut visitor = RawClient::connect(relay.public).await;
        let head = format!("GET /upgrade?token=demo HTTP/1.1\r\nHost: r\r\n{upgrade}{wrong}\r\n");
        // What a client sends ahead, as if it had been let in, reaches nobody either.
        visitor
            .send(&format!("{head}GET /smuggled HTTP/1.1\r\nHost: r\r\n\r\n"))
            .await;
        assert_eq!(visitor.answer().await.status, 401, "{wrong}");
    }
    assert!(origin.seen().is_empty());
    for right in [
        "X-ARP-Key: k-e-y\r\nAuthorization: Bearer own\r\n",
        "Authorization: Basic YW5uOnNlY3JldA==\r\n",
    ] {
        let mut visitor = RawClient::connect(relay.public).await;
        visitor
            .send(&format!(
                "GET /upgrade?token=demo HTTP/1.1\r\nHost: r\r\n{upgrade}{right}\r\n"
            ))
            .await;
        let answer = visitor.head().await;
        assert_eq!(
            (answer.status, answer.header("upgrade")),
            (101, Some("websocket"))
        );
        assert_eq!(visitor.exactly(6).await, b"hello\n");
        let sent = pattern(0, 60_000);
        visitor.send_bytes(&sent).await;
        assert!(visitor.exactly(sent.len()).await == sent, "every byte comes back");
        let seen = origin.seen().pop().unwrap();
        let own = right.contains("own").then_some("Bearer own");
        assert_eq!(
            (seen.header("x-arp-key"), seen.header("authorization")),
            (None, own)
        );
        assert_eq!(seen.target, "/upgrade");
        // The end of one side is the end of the other.
        visitor.stream.shutdown().await.unwrap();
        assert!(visitor.rest().await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn visitors_with_http2_pass_the_gate_with_the_key_alone() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--require-key", "k-e-y"])
        .start()
        .await;
    let url = relay.url("/sink?token=demo");
    let curl = |more: &[&str]| {
        let output = Command::new("curl")
            .args([
                "-s",
                "--max-time",
                "20",
                "--http2-prior-knowledge",
                "-w",
                " %{http_version} %{http_code}",
            ])
            .args(["--data-binary", "abc", &url])
            .args(more)
            .output()
            .expect("curl is installed");
        String::from_utf8(output.stdout).unwrap()
    };
    let (none, wrong) = (curl(&[]), curl(&["-H", "Authorization: Bearer k-e"]));
    for refused in [&none, &wrong] {
        assert!(
            refused.contains("edge_auth_required") && refused.ends_with(" 2 401"),
            "{refused}"
        );
    }
    assert!(origin.seen().is_empty());
    for right in ["Authorization: Bearer k-e-y", "X-ARP-Key: k-e-y"] {
        let told = curl(&["-H", right]);
        assert!(told.starts_with("3 ") && told.ends_with(" 2 200"), "{told}");
        let seen = origin.seen().pop().unwrap();
        assert_eq!(
            (seen.header("authorization"), seen.header("x-arp-key")),
            (None, None)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn command_mode_names_the_key_that_it_has_in_its_place() {
    for flags in [["--require-key", "k"], ["--require-auth", "a:b"]] {
        let mut edge = Edge::builder()
            .args(["--server-addr", "127.0.0.1", "--command-mode"])
            .args(flags)
            .spawn();
        assert_ne!(edge.daemon.ended().await.code(), Some(0));
        let said = edge.daemon.output();
        assert!(said.contains("--edge-key"), "{said}");
    }
}
