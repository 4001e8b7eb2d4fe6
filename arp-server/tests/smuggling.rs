//! Requests that two parsers could read in two ways are refused, and nothing of them reaches an edge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::{RawClient, get};
use arp_testkit::origin::Origin;

const SHAPES: &[(&str, &str)] = &[
    (
        "CL with TE",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE with CL",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
    ("two CL", "Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd"),
    (
        "two different CL",
        "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
    ),
    ("CL list", "Content-Length: 4, 4\r\n\r\nabcd"),
    ("signed CL", "Content-Length: +4\r\n\r\nabcd"),
    ("negative CL", "Content-Length: -4\r\n\r\nabcd"),
    ("hex CL", "Content-Length: 0x4\r\n\r\nabcd"),
    ("CL with a space", "Content-Length: 4 4\r\n\r\nabcd"),
    ("huge CL", "Content-Length: 18446744073709551617\r\n\r\nabcd"),
    (
        "space before colon",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    ),
    ("obs-fold", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("obs-fold later", "X: a\r\n\tb\r\n\r\n"),
    ("bare CR", "X: a\rTransfer-Encoding: chunked\r\n\r\n"),
    ("bare LF", "X: a\nTransfer-Encoding: chunked\r\n\r\n"),
    ("bare LF end", "X: a\r\n\n"),
    ("NUL", "X: a\0b\r\n\r\n"),
    ("unknown coding", "Transfer-Encoding: cow\r\n\r\n"),
    ("coding list", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    (
        "chunked twice",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked as prefix",
        "Transfer-Encoding: chunkedfoo\r\n\r\n0\r\n\r\n",
    ),
    ("vertical tab", "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("two Hosts", "Host: other\r\n\r\n"),
    ("nameless field", ": x\r\n\r\n"),
    ("field with a space", "Foo Bar: x\r\n\r\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_requests_are_refused_and_reach_nobody() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let mut refused = Vec::new();
    for (name, fields) in SHAPES {
        refused.push((
            *name,
            format!("POST /?token=demo HTTP/1.1\r\nHost: r\r\n{fields}"),
        ));
    }
    for (name, head) in [
        (
            "foreign authority",
            "GET http://other/?token=demo HTTP/1.1\r\nHost: r\r\n\r\n",
        ),
        ("no Host", "GET /?token=demo HTTP/1.1\r\n\r\n"),
        ("two spaces", "GET  /?token=demo HTTP/1.1\r\nHost: r\r\n\r\n"),
        (
            "TE in 1.0",
            "POST /?token=demo HTTP/1.0\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("0.9", "GET /?token=demo\r\n\r\n"),
    ] {
        refused.push((name, head.to_owned()));
    }
    for (name, request) in refused {
        let mut client = RawClient::connect(relay.public).await;
        // A second request rides along: it must never be seen as one.
        client
            .send(&format!(
                "{request}GET /smuggled?token=demo HTTP/1.1\r\nHost: r\r\n\r\n"
            ))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 400, "{name}");
        assert_eq!(client.rest().await, b"", "{name}: the connection must end");
    }
    assert_eq!(origin.seen().len(), 0);
    assert_eq!(get(relay.public, "/?token=demo", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_lies_ends_the_exchange_and_its_tunnel() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    for body in [
        "5\r\nabc\r\n0\r\n\r\n",
        "zz\r\n",
        "1\nabc",
        "3\r\nabcGET",
        "3\r\nabcXX0\r\n\r\n",
        "3\r\nabc\r0\r\n\r\n",
        "3\r\nabc\n\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
    ] {
        let mut client = RawClient::connect(relay.public).await;
        client
            .send("POST /sink?token=demo HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        client.send(body).await;
        client
            .send("GET /smuggled?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
            .await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (400, Some("bad_body")),
            "{body:?}"
        );
        client.rest().await;
    }
    assert!(origin.seen().iter().all(|s| s.target != "/smuggled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_trace_and_oversized_heads_are_refused() {
    let relay = Relay::start().await;
    let field = format!("X: {}\r\n", "y".repeat(1000));
    for (request, status) in [
        // That reaches names of this relay alone, and nobody has this one.
        (
            "CONNECT example.org:443 HTTP/1.1\r\nHost: r\r\n\r\n".to_owned(),
            404,
        ),
        ("CONNECT /?token=demo HTTP/1.1\r\nHost: r\r\n\r\n".to_owned(), 405),
        (
            "CONNECT http://r/?token=demo HTTP/1.1\r\nHost: r\r\n\r\n".to_owned(),
            405,
        ),
        ("TRACE / HTTP/1.1\r\nHost: r\r\n\r\n".to_owned(), 405),
        (
            format!("GET / HTTP/1.1\r\nHost: r\r\n{}\r\n", field.repeat(70)),
            431,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: r\r\n{}\r\n", "A: b\r\n".repeat(200)),
            431,
        ),
        ("GET / HTTP/2.5\r\nHost: r\r\n\r\n".to_owned(), 505),
    ] {
        let mut client = RawClient::connect(relay.public).await;
        client.send(&request).await;
        assert_eq!(client.answer().await.status, status, "{}", &request[..40]);
        client.rest().await;
    }
}

/// Requests behind such a change would be seen by nobody on the way, and could say anything of their sender.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_to_http_in_another_form_is_not_passed_on() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    for upgrade in ["h2c", "H2c", "HTTP/2.0", "TLS/1.0", "h2c, websocket"] {
        let answer = get(
            relay.public,
            "/upgrade?token=demo",
            &format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        )
        .await;
        let seen = origin.seen().pop().unwrap();
        if upgrade.contains("websocket") {
            assert_eq!((answer.status, seen.header("upgrade")), (101, Some("websocket")));
        } else {
            assert_eq!((answer.status, seen.header("upgrade")), (426, None), "{upgrade}");
        }
        assert_eq!(seen.header("http2-settings"), None);
    }
}
