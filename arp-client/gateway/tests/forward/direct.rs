//! The connections that the gateway makes itself: kept, closed, shared, and ended with the one who wanted them.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::network::{Server, why, with};
use super::support::*;
use super::{ASK, PATH};
use arp_gateway::service::Service;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

/// A whole streamed answer, as it goes over the line.
fn answer(text: &str) -> String {
    let mut out =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for event in message(text) {
        let _ = write!(out, "{:x}\r\n{event}\r\n", event.len());
    }
    out + "0\r\n\r\n"
}

/// Asks without a client in between, which might ask again by itself.
async fn agent(gateway: &Running, body: &str) -> TcpStream {
    let mut tcp = TcpStream::connect(gateway.url.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    tcp.write_all(body.as_bytes()).await.unwrap();
    tcp
}

#[tokio::test]
async fn a_connection_that_the_upstream_has_closed_is_not_used_again() {
    let (closed, mut closes) = mpsc::unbounded_channel();
    let upstream = Server::start(move |mut tcp| {
        let closed = closed.clone();
        async move {
            read(&mut tcp, &mut Vec::new()).await.unwrap();
            tcp.write_all(answer("once").as_bytes()).await.unwrap();
            drop(tcp);
            closed.send(()).unwrap();
        }
    })
    .await;
    let gateway = with(&format!("http://{}", upstream.address), "").await;
    for asked in 1..=5 {
        let got = gateway.post(PATH, ASK, None).await;
        assert!(got.body.contains("once"), "{got:?}");
        closes.recv().await.unwrap();
        assert_eq!(upstream.connections(), asked);
    }
    gateway.gateway.usage().flush();
    let newest = gateway.gateway.usage().newest(5).unwrap();
    assert!(newest.iter().all(|r| r["failed"].as_array().unwrap().is_empty()));
}

#[tokio::test]
async fn what_an_upstream_may_have_understood_is_not_sent_to_it_again() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let upstream = Server::start(move |mut tcp| {
        let seen = count.clone();
        async move {
            let mut buf = Vec::new();
            while read(&mut tcp, &mut buf).await.is_some() {
                // The second one is read, and the connection closed.
                if seen.fetch_add(1, Ordering::SeqCst) > 0 {
                    return;
                }
                tcp.write_all(answer("first").as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    let gateway = with(&format!("http://{}", upstream.address), "").await;
    assert!(gateway.post(PATH, ASK, None).await.body.contains("first"));
    let got = gateway.post(PATH, ASK, None).await;
    assert_eq!(got.status, 503, "{got:?}");
    assert_eq!((seen.load(Ordering::SeqCst), upstream.connections()), (2, 1));
}

#[tokio::test]
async fn provisional_answers_are_passed_over_and_a_connection_is_kept() {
    let upstream = Server::start(|mut tcp| async move {
        let mut buf = Vec::new();
        while let Some(asked) = read(&mut tcp, &mut buf).await {
            assert_eq!(asked.header("expect"), None);
            let before = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
            tcp.write_all(before.as_bytes()).await.unwrap();
            tcp.write_all(answer("at last").as_bytes()).await.unwrap();
        }
    })
    .await;
    let gateway = with(&format!("http://{}", upstream.address), "").await;
    for _ in 0..3 {
        assert!(gateway.post(PATH, ASK, None).await.body.contains("at last"));
    }
    let mut tcp = TcpStream::connect(gateway.url.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        ASK.len()
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut told = [0; 25];
    tcp.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    tcp.write_all(ASK.as_bytes()).await.unwrap();
    let mut rest = String::new();
    tcp.read_to_string(&mut rest).await.unwrap();
    assert!(
        rest.starts_with("HTTP/1.1 200 ") && rest.contains("at last"),
        "{rest}"
    );
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn an_agent_that_leaves_ends_the_upstreams_connection() {
    for answers in [false, true] {
        let (told, mut tells) = mpsc::unbounded_channel();
        let upstream = Server::start(move |mut tcp| {
            let told = told.clone();
            async move {
                read(&mut tcp, &mut Vec::new()).await.unwrap();
                if answers {
                    let whole = answer("begun");
                    tcp.write_all(&whole.as_bytes()[..whole.len() - 200])
                        .await
                        .unwrap();
                }
                told.send("asked").unwrap();
                let mut more = [0];
                // An end, or that the other side wants no more.
                assert!(matches!(tcp.read(&mut more).await, Ok(0) | Err(_)));
                told.send("ended").unwrap();
            }
        })
        .await;
        let gateway = with(&format!("http://{}", upstream.address), "").await;
        let mut tcp = agent(&gateway, ASK).await;
        assert_eq!(tells.recv().await, Some("asked"));
        if answers {
            let mut some = [0; 64];
            assert!(tcp.read(&mut some).await.unwrap() > 0);
        }
        drop(tcp);
        assert_eq!(tells.recv().await, Some("ended"), "answers: {answers}");
    }
}

/// More than what is kept of a body.
const LONG: usize = 40 << 20;

#[tokio::test]
async fn a_long_body_goes_through_with_its_length_and_an_early_answer_comes_back() {
    let upstream = Upstream::start(|asked| {
        assert!(asked.body.iter().all(|byte| *byte == b'x'));
        Say::Events(message("all of it"))
    })
    .await;
    let gateway = Running::start(Service::Claude, &file(&[("a", &upstream.url(), 0)])).await;
    let body = "x".repeat(LONG);
    let got = gateway.post(PATH, &body, None).await;
    assert!(got.body.contains("all of it"), "{got:?}");
    let asked = &upstream.asked()[0];
    assert_eq!(asked.body.len(), LONG);
    assert_eq!(asked.header("content-length"), Some(&*LONG.to_string()));
    assert_eq!(asked.header("transfer-encoding"), None);

    let early = Server::start(|mut tcp| async move {
        let mut buf = vec![0; 64 << 10];
        assert!(tcp.read(&mut buf).await.unwrap() > 0);
        let told = r#"{"type":"error","error":{"type":"request_too_large","message":"too much"}}"#;
        let head = format!(
            "HTTP/1.1 413 X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{told}",
            told.len()
        );
        tcp.write_all(head.as_bytes()).await.unwrap();
        while matches!(tcp.read(&mut buf).await, Ok(1..)) {}
    })
    .await;
    let gateway = with(&format!("http://{}", early.address), "").await;
    let mut tcp = TcpStream::connect(gateway.url.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {LONG}\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.unwrap();
    // It sends all of it before it listens, as simple clients do.
    let (mut listen, mut say) = tcp.into_split();
    let saying = tokio::spawn(async move { say.write_all(body.as_bytes()).await });
    let mut told = vec![0; 12];
    listen.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 413");
    saying.abort();
}

#[tokio::test]
async fn hosts_are_named_as_urls_name_them() {
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else {
        return; // A machine without IPv6.
    };
    let port = listener.local_addr().unwrap().port();
    let heard = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let asked = read(&mut tcp, &mut Vec::new()).await.unwrap();
        tcp.write_all(answer("six").as_bytes()).await.unwrap();
        asked
    });
    let gateway = with(&format!("http://[::1]:{port}/v1"), "").await;
    assert!(gateway.post(PATH, ASK, None).await.body.contains("six"));
    let asked = heard.await.unwrap();
    assert_eq!(asked.line, "POST /v1/messages?beta=true HTTP/1.1");
    assert_eq!(asked.header("host"), Some(&*format!("[::1]:{port}")));
    assert_eq!(asked.header("accept"), Some("*/*"));
}

#[tokio::test]
async fn an_upstream_with_http2_is_asked_over_one_connection_until_it_says_goodbye() {
    let goodbye = Arc::new(Notify::new());
    let (ended, mut ends) = mpsc::unbounded_channel();
    let asked = Arc::new(AtomicUsize::new(0));
    let (say_goodbye, count) = (goodbye.clone(), asked.clone());
    let plain = Server::start(move |tcp| {
        let (goodbye, ended, asked) = (say_goodbye.clone(), ended.clone(), count.clone());
        async move {
            let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let asked = asked.clone();
                async move {
                    assert_eq!(request.version(), http::Version::HTTP_2);
                    assert!(!request.headers().contains_key("host"));
                    assert_eq!(request.uri().path(), "/base/v1/messages");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(body, ASK);
                    asked.fetch_add(1, Ordering::SeqCst);
                    let mut response =
                        http::Response::new(Full::new(Bytes::from(message("in a frame").concat())));
                    response
                        .headers_mut()
                        .insert("content-type", "text/event-stream".parse().unwrap());
                    Ok::<_, Infallible>(response)
                }
            });
            let mut connection = std::pin::pin!(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(tcp), answer)
            );
            tokio::select! {
                _ = connection.as_mut() => {}
                () = goodbye.notified() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
            ended.send(()).unwrap();
        }
    })
    .await;
    let (tls, pem) = Server::tls_speaking(plain.address, &[b"h2"]).await;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let gateway = with(
        &format!("https://localhost:{}/base", tls.address.port()),
        &format!("ca_file = \"{}\"\n", ca.display()),
    )
    .await;
    let posts = (0..4).map(|_| gateway.post(PATH, ASK, None));
    for got in futures_util::future::join_all(posts).await {
        assert!(got.body.contains("in a frame"), "{got:?}");
    }
    // Those that began at the same time may have made one each; from now on one is enough.
    let before = plain.connections();
    for _ in 0..3 {
        assert!(gateway.post(PATH, ASK, None).await.body.contains("in a frame"));
    }
    assert_eq!(plain.connections(), before);
    goodbye.notify_waiters();
    for _ in 0..before {
        ends.recv().await.unwrap();
    }
    assert!(gateway.post(PATH, ASK, None).await.body.contains("in a frame"));
    assert_eq!(
        (plain.connections(), asked.load(Ordering::SeqCst)),
        (before + 1, 8)
    );
    // A certificate for another name.
    let other = with(
        &format!("https://127.0.0.1:{}", tls.address.port()),
        &format!("ca_file = \"{}\"\n", ca.display()),
    )
    .await;
    assert!(why(&other).await.contains("certificate is not trusted"));
}
