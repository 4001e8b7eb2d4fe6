//! A gateway on a free port, and upstreams that answer as they are told, down to the byte and the cut.
//!
//! The upstreams are scripted: no real model API can be had in a test.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use arp_gateway::api::Api;
use arp_gateway::forward::Gateway;
use arp_gateway::guard::Doors;
use arp_gateway::home::Home;
use arp_gateway::live::Live;
use arp_gateway::server;
use arp_gateway::service::Service;
use arp_gateway::usage::store::Usage;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What an upstream was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What it does.
#[derive(Debug, Clone)]
pub enum Say {
    /// A whole answer.
    Whole(u16, &'static str, Vec<(&'static str, String)>, String),
    /// A chunked stream of events, each a piece, then a clean end.
    Events(Vec<String>),
    /// The same, cut without the last chunk.
    Broken(Vec<String>),
    /// These events, then silence.
    Stalled(Vec<String>),
    /// Nothing: the connection is closed.
    Close,
    /// Nothing: the connection stays open.
    Silent,
}

pub fn error(status: u16, message: &str) -> Say {
    let body = format!(r#"{{"type":"error","error":{{"type":"x","message":"{message}"}}}}"#);
    Say::Whole(status, "application/json", vec![], body)
}

type Script = dyn Fn(&Asked) -> Say + Send + Sync;

pub struct Upstream {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _stop: DropGuard,
}

impl Upstream {
    pub async fn start(script: impl Fn(&Asked) -> Say + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let stop = CancellationToken::new();
        let (log, stopped) = (asked.clone(), stop.clone());
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stopped.cancelled() => return,
                };
                let (tcp, _) = accepted.unwrap();
                tokio::spawn(connection(tcp, script.clone(), log.clone()));
            }
        });
        Self {
            address,
            asked,
            _stop: stop.drop_guard(),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn times(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn connection(mut tcp: TcpStream, script: Arc<Script>, log: Arc<Mutex<Vec<Asked>>>) {
    let mut buf = Vec::new();
    loop {
        let Some(asked) = read(&mut tcp, &mut buf).await else {
            return;
        };
        log.lock().unwrap().push(asked.clone());
        let mut out = String::new();
        let mut stalls = false;
        let (events, whole) = match script(&asked) {
            Say::Close => return,
            Say::Silent => return std::future::pending().await,
            Say::Whole(status, kind, headers, body) => {
                let _ = write!(
                    out,
                    "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n",
                    body.len()
                );
                for (name, value) in headers {
                    let _ = write!(out, "{name}: {value}\r\n");
                }
                let _ = write!(out, "\r\n{body}");
                if tcp.write_all(out.as_bytes()).await.is_err() {
                    return;
                }
                continue;
            }
            Say::Events(events) => (events, true),
            Say::Broken(events) => (events, false),
            Say::Stalled(events) => {
                stalls = true;
                (events, false)
            }
        };
        out.push_str(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        );
        for event in events {
            let _ = write!(out, "{:x}\r\n{event}\r\n", event.len());
        }
        if whole {
            out.push_str("0\r\n\r\n");
        }
        if tcp.write_all(out.as_bytes()).await.is_err() {
            return;
        }
        if stalls {
            return std::future::pending().await;
        }
        if !whole {
            return;
        }
    }
}

pub async fn read(tcp: &mut TcpStream, buf: &mut Vec<u8>) -> Option<Asked> {
    let end = loop {
        if let Some(at) = buf.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if tcp.read_buf(buf).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buf[..end]).into_owned();
    buf.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let line = lines.next()?.to_owned();
    let headers: Vec<_> = lines
        .filter_map(|l| l.split_once(": "))
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, v)| v.parse().unwrap());
    while buf.len() < length {
        if tcp.read_buf(buf).await.ok()? == 0 {
            return None;
        }
    }
    let body = buf.drain(..length).collect();
    Some(Asked { line, headers, body })
}

/// A running gateway for one service.
pub struct Running {
    pub url: String,
    /// Where its API is.
    pub api: String,
    pub gateway: Arc<Gateway>,
    pub home: Home,
    _dir: tempfile::TempDir,
    _stop: DropGuard,
}

impl Running {
    pub async fn start(service: Service, upstreams: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("clp"));
        home.create().unwrap();
        std::fs::write(home.upstreams(service), upstreams).unwrap();
        let (usage, _thread) = Usage::open(&home.usage()).unwrap();
        let gateway = Arc::new(Gateway::new(Arc::new(Live::new(home.clone())), usage));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let page = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}", page.local_addr().unwrap());
        let running = arp_gateway::process::Running {
            pid: std::process::id(),
            version: "test".into(),
            since: 0,
            claude: listener.local_addr().unwrap(),
            codex: listener.local_addr().unwrap(),
            gemini: listener.local_addr().unwrap(),
            ui: page.local_addr().unwrap(),
        };
        let served = Arc::new(Api::new(
            gateway.clone(),
            running,
            None,
            Arc::new(Doors::default()),
        ));
        tokio::spawn(server::serve_page(page, served, stop.clone()));
        let doors = Arc::new(Doors::default());
        tokio::spawn(server::serve(
            listener,
            service,
            gateway.clone(),
            doors,
            stop.clone(),
        ));
        Self {
            url,
            api,
            gateway,
            home,
            _dir: dir,
            _stop: stop.drop_guard(),
        }
    }

    /// Asks the API.
    pub async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
        let request = client().request(method.parse().unwrap(), format!("{}{path}", self.api));
        let got = got(request.body(body.to_owned()).send().await.unwrap()).await;
        (got.status, serde_json::from_str(&got.body).unwrap_or_default())
    }

    pub async fn post(&self, path: &str, body: &str, session: Option<&str>) -> Got {
        let mut request = client()
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .header("x-api-key", "-");
        if let Some(session) = session {
            request = request.header("x-claude-code-session-id", session);
        }
        got(request.body(body.to_owned()).send().await.unwrap()).await
    }
}

pub fn client() -> reqwest::Client {
    arp_testkit::client::builder().no_proxy().build().unwrap()
}

/// What an agent gets.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
    pub cut: bool,
}

pub async fn got(mut response: reqwest::Response) -> Got {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let (mut body, mut cut) = (Vec::new(), false);
    loop {
        match response.chunk().await {
            Ok(Some(bytes)) => body.extend_from_slice(&bytes),
            Ok(None) => break,
            Err(_) => {
                cut = true;
                break;
            }
        }
    }
    Got {
        status,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
        cut,
    }
}

/// `claude.json` of these: name, URL, weight; the first is the active one.
pub fn file(list: &[(&str, &str, u32)]) -> String {
    let entries: Vec<String> = list
        .iter()
        .enumerate()
        .map(|(n, (name, url, weight))| {
            let active = n == 0;
            format!(r#""{name}":{{"base_url":"{url}","auth_token":"key-{name}","weight":{weight},"active":{active}}}"#)
        })
        .collect();
    format!("{{{}}}", entries.join(","))
}

/// A whole streamed answer of the Messages API with this text.
pub fn message(text: &str) -> Vec<String> {
    [
        r#"event: message_start
data: {"type":"message_start","message":{"id":"m","model":"claude-x","usage":{"input_tokens":11,"cache_read_input_tokens":7,"output_tokens":1}}}"#
            .to_owned(),
        r#"event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#
            .to_owned(),
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}"
        ),
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}".to_owned(),
        r#"event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}"#
            .to_owned(),
        "event: message_stop\ndata: {\"type\":\"message_stop\"}".to_owned(),
    ]
    .into_iter()
    .map(|event| event + "\n\n")
    .collect()
}
