//! HTTP done properly, between a visitor and a local service.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::{RawClient, get, within};
use arp_testkit::origin::Origin;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn setup() -> (Relay, Origin, Edge) {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let edge = Edge::tcp(&relay, "demo", origin.addr).await;
    (relay, origin, edge)
}

/// A local service that answers each request head with the next of these texts, then closes.
async fn scripted(answers: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                for answer in answers {
                    if read_head(&mut stream).await.is_empty() {
                        return;
                    }
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    addr
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return String::new(),
        }
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let (relay, _origin, _edge) = setup().await;
    let mut client = RawClient::connect(relay.public).await;
    let all: String = (0..40)
        .map(|i| {
            format!("POST /echo?token=demo&n={i} HTTP/1.1\r\nHost: r\r\nContent-Length: 3\r\n\r\n{i:03}")
        })
        .collect();
    client.send(&all).await;
    for i in 0..40 {
        let echo = client.answer().await.json();
        assert_eq!(
            (echo["target"].as_str(), echo["body"].as_str()),
            (Some(&*format!("/echo?n={i}")), Some(&*format!("{i:03}")))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_204_and_304_have_no_body_and_the_connection_goes_on() {
    let (relay, _origin, _edge) = setup().await;
    let mut client = RawClient::connect(relay.public).await;
    client
        .send("HEAD /bytes/500?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
        .await;
    let head = client.head().await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("500")));
    for status in [204, 304] {
        client
            .send(&format!(
                "GET /status/{status}?token=demo HTTP/1.1\r\nHost: r\r\n\r\n"
            ))
            .await;
        assert_eq!(client.answer().await.status, status);
    }
    client.send("GET /?token=demo HTTP/1.1\r\nHost: r\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "hello from o");
}

#[tokio::test(flavor = "multi_thread")]
async fn continue_is_asked_of_the_local_service() {
    let (relay, _origin, _edge) = setup().await;
    let mut client = RawClient::connect(relay.public).await;
    client
        .send(
            "POST /echo?token=demo HTTP/1.1\r\nHost: r\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        )
        .await;
    assert_eq!(client.head().await.status, 100);
    client.send("hello").await;
    assert_eq!(client.answer().await.json()["body"], "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_without_continue_is_passed_on() {
    let relay = Relay::start().await;
    let local = scripted(&["HTTP/1.1 413 Too Big\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"]).await;
    let _edge = Edge::tcp(&relay, "demo", local).await;
    let mut client = RawClient::connect(relay.public).await;
    let head =
        "POST /?token=demo HTTP/1.1\r\nHost: r\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n";
    client.send(head).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (413, "no".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn early_hints_come_before_the_answer() {
    let relay = Relay::start().await;
    let local = scripted(&["HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]).await;
    let _edge = Edge::tcp(&relay, "demo", local).await;
    let mut client = RawClient::connect(relay.public).await;
    client.send("GET /?token=demo HTTP/1.1\r\nHost: r\r\n\r\n").await;
    let hints = client.head().await;
    assert_eq!(
        (hints.status, hints.header("link")),
        (103, Some("</a.css>; rel=preload"))
    );
    assert_eq!(client.answer().await.text(), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_and_trailers_pass_both_ways() {
    let (relay, _origin, _edge) = setup().await;
    let mut client = RawClient::connect(relay.public).await;
    client.send("POST /echo?token=demo HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nTE: trailers\r\n\r\n").await;
    client
        .send("5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 42\r\nContent-Length: 7\r\n\r\n")
        .await;
    let echo = client.answer().await.json();
    assert_eq!(echo["body"], "hello world");
    assert_eq!(
        echo["trailers"],
        serde_json::json!(["x-sum: 42"]),
        "framing fields are not trailers"
    );

    let local = scripted(&["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n"]).await;
    let _other = Edge::tcp(&relay, "other", local).await;
    client
        .send("GET /?token=other HTTP/1.1\r\nHost: r\r\nTE: trailers\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.text(), answer.trailers),
        ("abc".into(), vec!["X-Sum: 9".into()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_length_end_with_the_connection_of_the_service() {
    let relay = Relay::start().await;
    let local = scripted(&["HTTP/1.0 200 OK\r\nX: folded\r\n line\r\n\r\nall of it"]).await;
    let _edge = Edge::tcp(&relay, "demo", local).await;
    let mut client = RawClient::connect(relay.public).await;
    for _ in 0..3 {
        client.send("GET /?token=demo HTTP/1.1\r\nHost: r\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.text(), answer.header("transfer-encoding")),
            ("all of it".into(), Some("chunked"))
        );
        assert!(
            answer
                .header("x")
                .is_some_and(|x| x.starts_with("folded") && x.ends_with("line"))
        );
    }
    client.send("GET /?token=demo HTTP/1.0\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.text(), answer.header("connection")),
        ("all of it".into(), Some("close"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_is_told_apart_from_a_complete_one() {
    let relay = Relay::start().await;
    let local = scripted(&["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"]).await;
    let _edge = Edge::tcp(&relay, "demo", local).await;
    let output = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "20", &relay.url("/?token=demo")])
        .output()
        .expect("curl is installed");
    assert!(
        !output.status.success(),
        "curl must see that something is missing"
    );
    let output = std::process::Command::new("curl")
        .args([
            "-sS",
            "--http2-prior-knowledge",
            "--max-time",
            "20",
            &relay.url("/?token=demo"),
        ])
        .output()
        .expect("curl is installed");
    assert!(!output.status.success(), "over HTTP/2 too");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_never_held_back() {
    let (relay, origin, _edge) = setup().await;
    let mut client = RawClient::connect(relay.public).await;
    client
        .send("GET /sse?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 200);
    for n in 0..20 {
        // The next event is only made when the one before has been seen.
        origin.release(1);
        let mut event = Vec::new();
        client.chunk(&mut event).await;
        assert_eq!(
            String::from_utf8(event).unwrap(),
            format!("id: {n}\ndata: event {n}\n\n")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_who_leaves_is_noticed_by_the_local_service() {
    let (relay, origin, _edge) = setup().await;
    let mut client = RawClient::connect(relay.public).await;
    client
        .send("GET /hold?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
        .await;
    within("the request", origin.arrived(1)).await;
    drop(client);
    within("the end of the request", origin.given_up(1)).await;
    // The same with HTTP/2, where a stream is reset.
    let mut curl = tokio::process::Command::new("curl");
    let url = relay.url("/hold?token=demo");
    let mut curl = curl
        .args(["-sS", "--http2-prior-knowledge", &url])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    within("the request", origin.arrived(2)).await;
    curl.kill().await.unwrap();
    within("the end of the request", origin.given_up(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_who_closes_its_sending_side_still_gets_its_answer() {
    let (relay, origin, _edge) = setup().await;
    let mut client = RawClient::connect(relay.public).await;
    client
        .send("GET /hold?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
        .await;
    client.stream.shutdown().await.unwrap();
    within("the request", origin.arrived(1)).await;
    origin.release(1);
    assert_eq!(client.answer().await.text(), "released o");
}

/// Raw bytes flow after 101 and not before, both ways, and both ends are carried through.
#[tokio::test(flavor = "multi_thread")]
async fn any_protocol_can_be_upgraded_to() {
    let relay = Relay::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _edge = Edge::tcp(&relay, "demo", listener.local_addr().unwrap()).await;
    let service = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(
            head.contains("Upgrade: shout/1\r\n") && head.contains("Connection: Upgrade\r\n"),
            "{head}"
        );
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: shout/1\r\n\r\nREADY",
            )
            .await
            .unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        stream.write_all(said.to_uppercase().as_bytes()).await.unwrap();
    });
    let mut client = RawClient::connect(relay.public).await;
    client.send("GET /up?token=demo HTTP/1.1\r\nHost: r\r\nConnection: keep-alive, Upgrade\r\nUpgrade: shout/1\r\n\r\nearly ").await;
    let answer = client.head().await;
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("shout/1")));
    client.send("bird").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"READYEARLY BIRD");
    service.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let (relay, _origin, _edge) = setup().await;
    let mut client = RawClient::connect(relay.public).await;
    for _ in 0..2 {
        client
            .send("GET /?token=demo HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.text(), "hello from o");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_clients_are_understood() {
    let (relay, _origin, _edge) = setup().await;
    let mut client = RawClient::connect(relay.public).await;
    client
        .send("\r\nGET /?token=demo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.text(), answer.header("connection")),
        ("hello from o".into(), Some("keep-alive"))
    );
    client.send("GET /chunked/100?token=demo HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.answer().await.body.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_half_of_a_head_is_waited_for_longer_than_allowed() {
    let relay = Relay::builder().args(["--head-timeout", "1"]).start().await;
    for half in ["GET / HT", "P", "PRI * HTTP/2.0\r\n"] {
        let mut client = RawClient::connect(relay.public).await;
        client.send(half).await;
        let rest = String::from_utf8(client.rest().await).unwrap();
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 408"), "{rest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_never_answers_is_given_up() {
    let relay = Relay::builder().args(["--response-timeout", "1"]).start().await;
    let origin = Origin::start("o").await;
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let answer = get(relay.public, "/hold?token=demo", "").await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (504, Some("answer_timeout"))
    );
    within("the end of the request", origin.given_up(1)).await;
}
