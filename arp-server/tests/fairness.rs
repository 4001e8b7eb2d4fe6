//! One client's flood, slow reader, huge body or dead edge costs the others nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::{RawClient, get, within};
use arp_testkit::origin::{Origin, checksum, pattern};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::http2;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Runs `get`s for the neighbour while something bad goes on, and expects all of them to be served.
async fn neighbour_is_served(relay: &Relay) {
    for _ in 0..30 {
        let answer = within("the neighbour", get(relay.public, "/?token=neighbour", "")).await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, "hello from neighbour".into())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_for_one_client_leaves_its_neighbour_alone() {
    let relay = Relay::builder()
        .args([
            "--pool-size",
            "2",
            "--max-tunnels",
            "8",
            "--max-waiting",
            "32",
            "--tunnel-wait",
            "30",
        ])
        .start()
        .await;
    let (hog, other) = (Origin::start("hog").await, Origin::start("neighbour").await);
    let _hog = Edge::tcp(&relay, "hog", hog.addr).await;
    let _neighbour = Edge::tcp(&relay, "neighbour", other.addr).await;
    let mut flood = Vec::new();
    for n in 1..=200 {
        let mut client = RawClient::connect(relay.public).await;
        client
            .send("GET /hold?token=hog HTTP/1.1\r\nHost: r\r\n\r\n")
            .await;
        flood.push(client);
        if n == 4 {
            // While tunnels are dialed, those who will get one wait in the queue, and others find it full.
            within("the first to arrive", hog.arrived(4)).await;
        }
    }
    neighbour_is_served(&relay).await;
    hog.release(20);
    let mut statuses = Vec::new();
    for client in &mut flood {
        statuses.push(client.answer().await.status);
    }
    assert_eq!(
        statuses.iter().filter(|s| **s == 200).count(),
        20,
        "half of the tunnels, 4, and half of the queue, 16: {statuses:?}"
    );
    assert!(statuses.iter().all(|s| matches!(s, 200 | 503)));
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_and_stalled_senders_cost_neither_memory_nor_neighbours() {
    let relay = Relay::start().await;
    let (slow, other) = (Origin::start("slow").await, Origin::start("neighbour").await);
    let edge = Edge::tcp(&relay, "slow", slow.addr).await;
    let _neighbour = Edge::tcp(&relay, "neighbour", other.addr).await;
    neighbour_is_served(&relay).await;
    let before = (relay.daemon.rss_kib(), edge.daemon.rss_kib());
    let mut stalled = Vec::new();
    for i in 0..40 {
        let mut client = RawClient::connect(relay.public).await;
        let kind = if i % 2 == 0 { "bytes" } else { "chunked" };
        client
            .send(&format!(
                "GET /{kind}/100000000?token=slow HTTP/1.1\r\nHost: r\r\n\r\n"
            ))
            .await;
        client.head().await;
        stalled.push(client);
        let mut client = RawClient::connect(relay.public).await;
        client
            .send("POST /sink?token=slow HTTP/1.1\r\nHost: r\r\nContent-Length: 100000000\r\n\r\nabc")
            .await;
        stalled.push(client);
    }
    neighbour_is_served(&relay).await;
    let after = (relay.daemon.rss_kib(), edge.daemon.rss_kib());
    // 80 connections with 8 GB to say: what is held is a buffer each, not what they have to say.
    assert!(
        after.0 < before.0 + 40_000 && after.1 < before.1 + 40_000,
        "{before:?} -> {after:?} KiB"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_each_way_arrives_whole_with_flat_memory() {
    const SIZE: u64 = 1 << 30;
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let edge = Edge::tcp(&relay, "demo", origin.addr).await;
    get(relay.public, "/?token=demo", "").await;
    let before = (relay.daemon.rss_kib(), edge.daemon.rss_kib());
    for kind in ["bytes", "chunked"] {
        let mut client = RawClient::connect(relay.public).await;
        client
            .send(&format!(
                "GET /{kind}/{SIZE}?token=demo HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n"
            ))
            .await;
        client.head().await;
        let (mut total, mut buf, want) = (0u64, vec![0; 256 * 1024], pattern(0, 251 * 2));
        loop {
            let n = within("more", client.stream.read(&mut buf)).await.unwrap();
            if n == 0 {
                break;
            }
            if kind == "bytes" && total > 0 {
                // Every piece begins where the one before ended (the head's read took the first bytes).
                let at = buf[0] as usize;
                assert!(n < 251 || buf[..251] == want[at..at + 251]);
            }
            total += n as u64;
        }
        let overhead = total as i64 - SIZE as i64;
        assert!(overhead.abs() < 16 * 1024 * 1024, "{kind}: {total} bytes");
    }
    let mut client = RawClient::connect(relay.public).await;
    client
        .send(&format!(
            "POST /sink?token=demo HTTP/1.1\r\nHost: r\r\nContent-Length: {SIZE}\r\n\r\n"
        ))
        .await;
    let block = vec![7; 1 << 20];
    for _ in 0..SIZE >> 20 {
        client.send_bytes(&block).await;
    }
    let answer = client.answer().await;
    assert!(
        answer.text().starts_with(&format!("{SIZE} ")),
        "{}",
        answer.text()
    );
    let after = (relay.daemon.rss_kib(), edge.daemon.rss_kib());
    assert!(
        after.0 < before.0 + 12_000 && after.1 < before.1 + 12_000,
        "{before:?} -> {after:?} KiB"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_arrives_byte_for_byte_whatever_its_size() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let mut client = RawClient::connect(relay.public).await;
    for size in [
        0usize,
        1,
        250,
        8 * 1024 - 1,
        16 * 1024,
        16 * 1024 + 1,
        70_000,
        600_000,
        3_000_000,
    ] {
        let body = pattern(3, size);
        client
            .send(&format!(
                "POST /sink?token=demo HTTP/1.1\r\nHost: r\r\nContent-Length: {size}\r\n\r\n"
            ))
            .await;
        client.send_bytes(&body).await;
        assert_eq!(
            client.answer().await.text(),
            format!("{size} {}", checksum(0, 0, &body))
        );
        client
            .send(&format!(
                "GET /bytes/{size}?token=demo HTTP/1.1\r\nHost: r\r\n\r\n"
            ))
            .await;
        assert!(
            client.answer().await.body == pattern(0, size),
            "{size} bytes down"
        );
        client
            .send(&format!(
                "GET /chunked/{size}?token=demo HTTP/1.1\r\nHost: r\r\n\r\n"
            ))
            .await;
        assert!(
            client.answer().await.body == pattern(0, size),
            "{size} bytes down in chunks"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_only_so_many_connections() {
    let relay = Relay::builder().args(["--max-conns-per-ip", "3"]).start().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = RawClient::connect(relay.public).await;
        client.send("GET / HTTP/1.1\r\nHost: r\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 401);
        open.push(client);
    }
    let mut fourth = RawClient::connect(relay.public).await;
    let answer = fourth.answer().await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (503, Some("too_many_connections"))
    );
    // A place that is given back is there for the next one.
    drop(open.pop());
    within("a free place", async {
        loop {
            let mut client = RawClient::connect(relay.public).await;
            if client
                .stream
                .write_all(b"GET / HTTP/1.1\r\nHost: r\r\n\r\n")
                .await
                .is_ok()
                && client.answer().await.status == 401
            {
                break;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_on_the_edge_ports_hold_nobody_up() {
    let relay = Relay::start().await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(tokio::net::TcpStream::connect(relay.control).await.unwrap());
        silent.push(tokio::net::TcpStream::connect(relay.proxy).await.unwrap());
    }
    let origin = Origin::start("neighbour").await;
    let _edge = within("registration", Edge::tcp(&relay, "neighbour", origin.addr)).await;
    neighbour_is_served(&relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_edge_ports_ends_that_connection_alone() {
    let relay = Relay::start_plain().await;
    let origin = Origin::start("neighbour").await;
    let _edge = Edge::tcp(&relay, "neighbour", origin.addr).await;
    let frame = |json: &str| [&(json.len() as u32).to_be_bytes()[..], json.as_bytes()].concat();
    for bytes in [
        vec![0xff; 64],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        frame("{}"),
        frame("[[[["),
        frame(r#"{"Ping":{}}"#),
        frame(r#"{"Register":{"client_id":"../../etc"}}"#),
        frame(
            r#"{"NewProxyConn":{"proxy_conn_id":"00000000000000000000000000000000","client_id":"neighbour"}}"#,
        ),
        frame(r#"{"NewProxyConn":{"proxy_conn_id":"x","client_id":"neighbour"}}"#),
    ] {
        for port in [relay.control, relay.proxy] {
            let mut client = RawClient::connect(port).await;
            let _ = client.stream.write_all(&bytes).await;
            assert_eq!(
                within("the end", client.rest()).await,
                b"",
                "{:?}",
                String::from_utf8_lossy(&bytes)
            );
        }
    }
    neighbour_is_served(&relay).await;
}

/// The status that a visitor at this address gets, and how long that takes.
async fn asks(from: [u8; 4], to: SocketAddr, fields: &str) -> (String, Duration) {
    let mut visitor = RawClient::connect_from(from, to).await.stream;
    let start = Instant::now();
    let request = format!("GET /?token=demo HTTP/1.1\r\nHost: r\r\nConnection: close\r\n{fields}\r\n");
    visitor.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("an answer", visitor.read_to_string(&mut answer))
        .await
        .unwrap();
    let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
    (status, start.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_leaves_tunnels_for_the_others_whatever_it_holds() {
    let relay = Relay::builder().args(["--max-tunnels", "32"]).start().await;
    let origin = Origin::start("o").await;
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let mut held = Vec::new();
    // Streams that wait for their answer for ever, on five connections, and as many slow uploads.
    for _ in 0..5 {
        let client = http2::connect_from([127, 0, 0, 1], relay.public, 1 << 20).await;
        for _ in 0..20 {
            let mut client = client.clone().ready().await.unwrap();
            held.push(
                client
                    .send_request(http2::request("GET", "/hold?token=demo"), true)
                    .unwrap(),
            );
        }
    }
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut visitor = RawClient::connect(relay.public).await;
        visitor
            .send("POST /sink?token=demo HTTP/1.1\r\nHost: r\r\nContent-Length: 99999\r\n\r\nx")
            .await;
        slow.push(visitor);
    }
    within("its share", origin.arrived(16)).await;
    for n in 2..30 {
        // Whoever waits for a tunnel in vain gets another status.
        let (status, _) = asks([127, 0, 0, n], relay.public, "").await;
        assert_eq!(status, "200", "a visitor from elsewhere");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_a_share_is_of_the_visitor_it_saw() {
    let relay = Relay::builder()
        .args([
            "--max-tunnels",
            "4",
            "--pool-size",
            "1",
            "--trusted-proxy",
            "127.0.0.1",
            "--tunnel-wait",
            "2",
        ])
        .start()
        .await;
    let origin = Origin::start("o").await;
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut client = RawClient::connect(relay.public).await;
        client
            .send("GET /hold?token=demo HTTP/1.1\r\nHost: r\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
            .await;
        held.push(client);
    }
    within("its share", origin.arrived(2)).await;
    let (status, _) = asks([127, 0, 0, 1], relay.public, "X-Forwarded-For: 192.0.2.2\r\n").await;
    assert_eq!(status, "200");
    // What a visitor says of itself in front of what the proxy saw changes nothing.
    let made_up = "X-Forwarded-For: 192.0.2.9, 192.0.2.1\r\n";
    let (status, _) = asks([127, 0, 0, 1], relay.public, made_up).await;
    assert_eq!(status, "503", "its share is used up");
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_and_slow_bodies_make_room_for_others() {
    for http2 in [false, true] {
        let relay = Relay::builder().args(["--max-tunnels", "8"]).start().await;
        let origin = Origin::start("o").await;
        let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
        // Addresses that have every tunnel between them.
        let (mut held, mut streams, mut taken) = (Vec::new(), Vec::new(), 0);
        for (n, share) in [(1, 4), (2, 2), (3, 1), (4, 1)] {
            let from = [127, 0, 1, n];
            for kind in 0..share {
                if http2 {
                    let mut client = http2::connect_from(from, relay.public, 65_535).await;
                    let (answer, stream) = client
                        .send_request(http2::request("POST", "/sink?token=demo"), false)
                        .unwrap();
                    streams.push((client, answer, stream));
                    continue;
                }
                let mut visitor = RawClient::connect_from(from, relay.public).await.stream;
                let request = if kind % 2 == 0 {
                    "GET /bytes/100000000?token=demo HTTP/1.1\r\nHost: r\r\n\r\n"
                } else {
                    "POST /sink?token=demo HTTP/1.1\r\nHost: r\r\nContent-Length: 99999\r\n\r\nx"
                };
                visitor.write_all(request.as_bytes()).await.unwrap();
                held.push(visitor);
            }
            taken += share;
            within("its share", origin.arrived(taken)).await;
        }
        let (status, time) = asks([127, 0, 2, 1], relay.public, "").await;
        assert_eq!(status, "200", "HTTP/2 {http2}: after {time:?}");
        drop((held, streams));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_takes_its_time_does_not_make_room() {
    let relay = Relay::builder()
        .args(["--max-tunnels", "1", "--pool-size", "1", "--tunnel-wait", "8"])
        .start()
        .await;
    let origin = Origin::start("o").await;
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let mut client = RawClient::connect(relay.public).await;
    client
        .send("GET /hold?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
        .await;
    within("the request", origin.arrived(1)).await;
    let (status, _) = asks([127, 0, 0, 2], relay.public, "").await;
    assert_eq!(
        status, "504",
        "the service thinks, and nobody takes that from its visitor"
    );
    origin.release(1);
    assert_eq!(client.answer().await.status, 200);
}
