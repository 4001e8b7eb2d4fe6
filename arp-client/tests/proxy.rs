//! `/proxy`: services of other ports are reached, and their pages do not act as the console.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

mod support;

use arp_testkit::web;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::process::Stdio;
use support::{Edge, PATIENCE, TOKEN, answer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What the hostile page tries, and tells its service of directly.
const PAGE: &str = r#"<!doctype html><title>a service</title>
<script src="app.js"></script>
<script type="module" src="module.js"></script>
<script>
const port = location.pathname.match(/proxy\/(\d+)/)[1];
const prefix = location.pathname.replace(/proxy\/.*/, '');
const tried = {};
const attempt = async (name, what) => {
  try { tried[name] = await what(); } catch (error) { tried[name] = 'refused: ' + error; }
};
const socket = (url) => new Promise((resolve, reject) => {
  const ws = new WebSocket(url);
  ws.onopen = () => ws.send('hello');
  ws.onmessage = (message) => resolve(message.data);
  ws.onerror = () => reject('no socket');
});
addEventListener('load', async () => {
  await attempt('cookie', () => document.cookie);
  await attempt('storage', () => String(localStorage.length));
  await attempt('worker', () => navigator.serviceWorker.register('sw.js', { scope: '/' }).then(() => 'registered'));
  for (const at of ['/', prefix]) {
    await attempt('read ' + at, () => fetch(at + 'api/sessions', { credentials: 'include' }).then((it) => it.text()));
    await attempt('start ' + at, () => fetch(at + 'api/sessions', {
      method: 'POST', headers: { 'content-type': 'application/json' }, credentials: 'include',
      body: JSON.stringify({ prompt: 'say stolen' }),
    }).then((it) => it.status));
    await attempt('events ' + at, () => socket(location.origin.replace('http', 'ws') + at + 'api/events/ws'));
  }
  tried.script = String(globalThis.script);
  tried.module = String(globalThis.module);
  await attempt('own', () => fetch('data.json').then((it) => it.json()).then((it) => it.own));
  await attempt('own post', () => fetch('data.json', { method: 'PUT', headers: { 'x-own': '1' } }).then((it) => it.status));
  await attempt('own socket', () => socket(location.href.replace(/^http/, 'ws').replace(/\?.*/, '') + 'ws'));
  fetch(`http://127.0.0.1:${port}/report?${encodeURIComponent(JSON.stringify(tried))}`, { mode: 'no-cors' });
});
</script>"#;

/// A service with the page; what it is told comes out of the channel.
async fn service() -> (u16, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (reports, told) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, reports.clone()));
        }
    });
    (port, told)
}

async fn serve(mut stream: TcpStream, reports: mpsc::Sender<Value>) {
    let mut head = vec![0; 16 * 1024];
    let read = stream.peek(&mut head).await.unwrap();
    let head = String::from_utf8_lossy(&head[..read]).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    if path.ends_with("/ws") {
        use futures_util::{SinkExt, StreamExt};
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            let _ = socket.send(message).await;
        }
        return;
    }
    let mut whole = Vec::new();
    while !whole.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).await.unwrap();
        if read == 0 {
            return;
        }
        whole.extend(&part[..read]);
    }
    let (kind, body) = match path.split('?').next().unwrap() {
        "/" => ("text/html", PAGE.to_owned()),
        "/app.js" => ("text/javascript", "globalThis.script = 'ran'".to_owned()),
        "/module.js" => ("text/javascript", "globalThis.module = 'ran'".to_owned()),
        "/sw.js" => (
            "text/javascript",
            "addEventListener('fetch', () => {})".to_owned(),
        ),
        "/data.json" => ("application/json", r#"{"own":"mine"}"#.to_owned()),
        "/headers" => ("text/plain", String::from_utf8_lossy(&whole).into_owned()),
        "/report" => {
            let report = percent_encoding::percent_decode_str(path.split_once('?').unwrap().1);
            let report = serde_json::from_slice(&report.collect::<Vec<u8>>()).unwrap();
            let _ = reports.send(report).await;
            ("text/plain", String::new())
        }
        _ => ("text/plain", "nothing".to_owned()),
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\
         service-worker-allowed: /\r\nclear-site-data: \"*\"\r\nset-cookie: arp_token=stolen; Path=/\r\n\
         set-cookie: id=1; Domain=127.0.0.1; Path=/\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// A browser; it ends with all its processes.
struct Browser(tokio::process::Child);

impl Drop for Browser {
    fn drop(&mut self) {
        // What is found under its name may be a script that starts it, and goes alone.
        #[cfg(unix)]
        if let Some(group) = self
            .0
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()))
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.start_kill();
    }
}

/// Opens an address in a real browser of its own, until the page has told what it could do.
async fn what_the_page_can(url: &str, told: &mut mpsc::Receiver<Value>) -> Option<Value> {
    let chromium = web::chromium()?;
    let profile = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(chromium);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .args(["--disable-features=PrivateNetworkAccessChecks,LocalNetworkAccessChecks"])
        .arg("--remote-debugging-port=0")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(url)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    #[cfg(unix)]
    command.process_group(0);
    let browser = Browser(command.spawn().unwrap());
    let report = tokio::time::timeout(2 * PATIENCE, told.recv()).await;
    drop(browser);
    Some(report.expect("the page told nothing").unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_service_does_not_act_as_the_console_and_reaches_its_service() {
    let (port, mut told) = service().await;
    let edge = Edge::start_with(&[&format!("--proxy-ports={port}")]).await;
    for base in [edge.url(""), edge.relay_url("")] {
        for (address, in_path) in [
            (format!("{base}/t/{TOKEN}/proxy/{port}/"), true),
            (format!("{base}/proxy/{port}/?token={TOKEN}"), false),
        ] {
            let Some(could) = what_the_page_can(&address, &mut told).await else {
                return;
            };
            for (name, result) in could.as_object().unwrap() {
                let refused = result.as_str().is_some_and(|text| text.starts_with("refused"));
                let own = name.starts_with("own") || ["script", "module"].contains(&name.as_str());
                assert!(own || refused, "{address}: {name}: {result}");
            }
            if in_path {
                let own = [
                    ("script", json!("ran")),
                    ("module", json!("ran")),
                    ("own", json!("mine")),
                    ("own post", json!(200)),
                    ("own socket", json!("hello")),
                ];
                for (name, result) in own {
                    assert_eq!(could[name], result, "{address}: {name}");
                }
            }
        }
    }
    assert_eq!(edge.get("/api/sessions").await.1["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_speak_for_the_origin_do_not_pass_nor_do_our_secrets() {
    let (port, _told) = service().await;
    let edge = Edge::start_with(&[&format!("--proxy-ports={port}")]).await;
    let page = edge
        .request(Method::GET, &format!("/proxy/{port}/"))
        .send()
        .await
        .unwrap();
    let headers = page.headers();
    assert!(
        headers["content-security-policy"]
            .to_str()
            .unwrap()
            .starts_with("sandbox ")
    );
    assert!(!headers.contains_key("service-worker-allowed") && !headers.contains_key("clear-site-data"));
    let cookies: Vec<_> = headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["id=1; Path=/"]);
    let worker = edge
        .request(Method::GET, &format!("/proxy/{port}/sw.js"))
        .header("service-worker", "script");
    let (status, refused) = answer(worker).await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::FORBIDDEN, &json!("service_worker_refused"))
    );
    let asked = edge
        .request(Method::GET, &format!("/proxy/{port}/headers"))
        .header("cookie", "arp_edge_1=secret; own=1")
        .header("referer", format!("{}/?token={TOKEN}", edge.base));
    let seen = asked.send().await.unwrap().text().await.unwrap();
    assert!(
        seen.contains("own=1") && !seen.contains("secret") && !seen.contains(TOKEN),
        "{seen}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_becomes_a_raw_connection_to_an_allowed_port_of_this_machine_only() {
    // A service that speaks first and is no web server.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(b"220 ready\r\n").await.unwrap();
                let mut said = [0; 5];
                stream.read_exact(&mut said).await.unwrap();
                stream.write_all(&said).await.unwrap();
            });
        }
    });
    let edge = Edge::start_with(&[&format!("--proxy-ports={port}")]).await;
    for base in [edge.url(""), edge.relay_url("")] {
        let address = base
            .strip_prefix("http://")
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        let body = format!("{{\"port\":{port}}}");
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "POST /proxy HTTP/1.1\r\nhost: {address}\r\nx-arp-token: {TOKEN}\r\nconnection: upgrade\r\n\
             upgrade: tcp\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        let reading = async {
            while !seen.ends_with(b"220 ready\r\n") {
                seen.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"hello").await.unwrap();
            stream.read_to_end(&mut seen).await.unwrap();
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap();
        let seen = String::from_utf8(seen).unwrap();
        assert!(
            seen.starts_with("HTTP/1.1 101") && seen.ends_with("hello"),
            "{address}: {seen}"
        );
    }
    for (body, status, code) in [
        (json!({"port": port}), 426, "upgrade_required"),
        (json!({"port": 22}), 403, "port_not_allowed"),
        (
            json!({"port": port, "host": "192.0.2.1"}),
            403,
            "host_not_allowed",
        ),
        (
            json!({"port": port, "host": "127.evil.example"}),
            403,
            "host_not_allowed",
        ),
        (json!({}), 400, "bad_request"),
    ] {
        let (is, refused) = edge.post("/proxy", body).await;
        assert_eq!(
            (is.as_u16(), &refused["code"]),
            (status, &json!(code)),
            "{refused}"
        );
    }
    let (_, refused) = edge.post("/proxy", json!({"port": port})).await;
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains(&format!("/proxy/{port}/"))
    );
    let evil = edge
        .request(Method::POST, "/proxy")
        .header("origin", "null")
        .json(&json!({"port": port}));
    assert_eq!(answer(evil).await.1["code"], "origin_not_allowed");
}
