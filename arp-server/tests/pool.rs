//! Tunnels are ready before they are needed, used again and again, and never in the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::{RawClient, get, within};
use arp_testkit::origin::Origin;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_500_succeeds_with_a_pool_of_5() {
    let relay = Relay::builder().args(["--pool-size", "5"]).start().await;
    let origin = Origin::start("o").await;
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let mut all = Vec::new();
    for _ in 0..500 {
        let mut client = RawClient::connect(relay.public).await;
        client
            .send("GET /hold?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
            .await;
        all.push(client);
    }
    // All at the local service at once: none waits for another to finish.
    within("all requests", origin.arrived(500)).await;
    origin.release(500);
    for client in &mut all {
        assert_eq!(client.answer().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_tunnels_wait_their_turn() {
    let relay = Relay::builder().args(["--max-tunnels", "8"]).start().await;
    let origin = Origin::start("o").await;
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let all: Vec<_> = (0..400)
        .map(|_| {
            let public = relay.public;
            tokio::spawn(async move {
                get(public, "/bytes/2000?token=demo", "Connection: close\r\n")
                    .await
                    .status
            })
        })
        .collect();
    for answer in all {
        assert_eq!(answer.await.unwrap(), 200);
    }
    assert!(
        origin.connections() <= 8 + 2,
        "{} connections",
        origin.connections()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_and_local_connections_are_used_again() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    for i in 0..300 {
        let method = if i % 3 == 0 { "POST" } else { "GET" };
        let mut client = RawClient::connect(relay.public).await;
        client
            .send(&format!(
                "{method} /chunked/{i}?token=demo HTTP/1.1\r\nHost: r\r\n\r\n"
            ))
            .await;
        assert_eq!(client.answer().await.body.len(), i);
    }
    assert!(
        origin.connections() <= 10,
        "{} connections for 300 requests",
        origin.connections()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_closes_after_each_answer_costs_no_error() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let mut client = RawClient::connect(relay.public).await;
    for i in 0..100 {
        let method = if i % 2 == 0 { "POST" } else { "GET" };
        client
            .send(&format!("{method} /close?token=demo HTTP/1.1\r\nHost: r\r\n\r\n"))
            .await;
        assert_eq!((client.answer().await.status, i), (200, i));
    }
}

/// The nastiest kind: it says keep-alive, answers, and closes without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_closes_idle_connections_silently_costs_no_error() {
    let relay = Relay::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buf = [0; 4096];
                if stream.read(&mut buf).await.unwrap_or(0) > 0 {
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        .await;
                }
            });
        }
    });
    let _edge = Edge::tcp(&relay, "demo", local).await;
    let mut client = RawClient::connect(relay.public).await;
    for i in 0..200 {
        client.send("GET /?token=demo HTTP/1.1\r\nHost: r\r\n\r\n").await;
        assert_eq!((client.answer().await.status, i), (200, i));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_restarts_costs_no_error() {
    let (relay, mut origin) = (Relay::start().await, Origin::start("first").await);
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    for round in 0..5 {
        for _ in 0..8 {
            assert_eq!(get(relay.public, "/?token=demo", "").await.status, 200);
        }
        let addr = origin.addr;
        origin.stop().await;
        // The request is on its way while nobody listens.
        let early = tokio::spawn({
            let public = relay.public;
            async move { get(public, "/early?token=demo", "").await }
        });
        tokio::task::yield_now().await;
        origin = Origin::start_at(&format!("round {round}"), addr).await;
        assert_eq!(early.await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_told_at_once_and_by_name() {
    let relay = Relay::start().await;
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let _edge = Edge::tcp(&relay, "demo", gone).await;
    for request in [
        "GET /?token=demo HTTP/1.1\r\nHost: r\r\n\r\n".to_owned(),
        format!(
            "POST /?token=demo HTTP/1.1\r\nHost: r\r\nContent-Length: 500000\r\n\r\n{}",
            "x".repeat(500_000)
        ),
    ] {
        let mut client = RawClient::connect(relay.public).await;
        client.send(&request).await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (502, Some("local_service_unreachable"))
        );
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&gone.to_string()), "{message}");
    }
    let mut client = RawClient::connect(relay.public).await;
    client.send("HEAD /?token=demo HTTP/1.1\r\nHost: r\r\n\r\n").await;
    assert_eq!(client.head().await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_to_a_large_upload_arrives() {
    let relay = Relay::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buf = [0; 1024];
                let _ = stream.read(&mut buf).await;
                let _ = stream
                    .write_all(
                        b"HTTP/1.1 413 Too Large\r\nContent-Length: 6\r\nConnection: close\r\n\r\ntoobig",
                    )
                    .await;
                let _ = stream.shutdown().await;
                // Reads on, as a careful server does, so that its answer is not lost to a reset.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            });
        }
    });
    let _edge = Edge::tcp(&relay, "demo", local).await;
    let mut client = RawClient::connect(relay.public).await;
    client
        .send("POST /?token=demo HTTP/1.1\r\nHost: r\r\nContent-Length: 100000000\r\n\r\n")
        .await;
    client.send_bytes(&[b'x'; 100_000]).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (413, "toobig".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_edge_that_never_opens_a_tunnel_holds_a_request_for_long() {
    let relay = Relay::builder()
        .args(["--tunnel-wait", "1", "--allow-plaintext"])
        .start()
        .await;
    let mut lazy = tokio::net::TcpStream::connect(relay.control).await.unwrap();
    let register = br#"{"Register":{"client_id":"lazy"}}"#;
    lazy.write_u32(register.len() as u32).await.unwrap();
    lazy.write_all(register).await.unwrap();
    lazy.read_u8().await.unwrap();
    let answer = get(relay.public, "/?token=lazy", "").await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (504, Some("tunnel_timeout"))
    );
    let full = Relay::builder()
        .args(["--max-waiting", "0", "--allow-plaintext"])
        .start()
        .await;
    let mut lazy = tokio::net::TcpStream::connect(full.control).await.unwrap();
    lazy.write_u32(register.len() as u32).await.unwrap();
    lazy.write_all(register).await.unwrap();
    lazy.read_u8().await.unwrap();
    let answer = get(full.public, "/?token=lazy", "").await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (503, Some("busy"))
    );
}

/// Tunnels whose service may be closing them by now are in nobody's way.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_replayed_finds_a_tunnel_though_all_are_cold() {
    for (max, gets) in [("1", 1), ("2", 2), ("40", 40)] {
        let relay = Relay::builder()
            .args(["--max-tunnels", max, "--pool-size", "1"])
            .start()
            .await;
        let origin = Origin::start("o").await;
        let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
        let mut all = Vec::new();
        for n in 0..gets {
            let mut client = RawClient::connect_from([127, 0, 0, n + 1], relay.public).await;
            client
                .send("GET /hold?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
                .await;
            all.push(client);
        }
        within("all requests", origin.arrived(gets as usize)).await;
        origin.release(gets as usize);
        for client in &mut all {
            assert_eq!(client.answer().await.status, 200);
        }
        // Longer than a used tunnel counts as warm.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for _ in 0..3 {
            // Whoever waits for a tunnel in vain gets another status.
            let mut client = RawClient::connect(relay.public).await;
            client
                .send("POST /echo?token=demo HTTP/1.1\r\nHost: r\r\nContent-Length: 2\r\n\r\nhi")
                .await;
            assert_eq!(client.answer().await.status, 200, "--max-tunnels {max}");
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
    }
}

/// A local service that says more than it was asked, a moment after its answer.
async fn talkative() -> (std::net::SocketAddr, mpsc::UnboundedReceiver<()>) {
    let (said, hears) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let said = said.clone();
            tokio::spawn(async move {
                let mut buf = [0; 4096];
                while let Ok(n) = stream.read(&mut buf).await {
                    if n == 0 {
                        return;
                    }
                    let line = String::from_utf8_lossy(&buf[..n]);
                    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
                    let answer = |text: &str| {
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
                    };
                    if stream.write_all(answer(&target).as_bytes()).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    let _ = stream.write_all(answer("not asked for").as_bytes()).await;
                    let _ = said.send(());
                }
            });
        }
    });
    (local, hears)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_asked_for_reaches_nobody() {
    let relay = Relay::start_plain().await;
    for (token, args) in [("secure", &[][..]), ("plain", &["--plaintext"])] {
        let (local, mut said) = talkative().await;
        let builder = Edge::tcp_builder(&relay, token, local);
        let _edge = builder.args(args.iter().copied()).start().await;
        for n in 0..10 {
            let answer = get(relay.public, &format!("/{n}?token={token}"), "").await;
            assert_eq!((answer.status, answer.text()), (200, format!("/{n}")), "{token}");
            within("the second answer", said.recv()).await.unwrap();
            // Its way to the relay, of which nothing tells. Were it longer than the next request's way to the
            // service, nobody could tell the two answers apart.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}
