//! A local service that records what reaches it and answers by the path that is asked for.
//!
//! `/echo` sends the request back as JSON (method, target, headers, body) · `/bytes/N` N bytes of a known
//! pattern · `/chunked/N` the same without a length · `/sink` counts and hashes the body · `/status/N` ·
//! `/hold` answers when [`Origin::release`] is called · `/sse` one event per [`Origin::release`] ·
//! `/close` answers and closes the connection · `/upgrade` changes to the protocol that is asked for, greets
//! and echoes · anything else: `hello from NAME`, with the fields that the request asks for by `X-Say: name: value`.

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Fields in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Seen {
    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// A running local service.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    name: String,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    permits: Semaphore,
    arrived: Notify,
    gone: AtomicUsize,
    went: Notify,
}

impl Origin {
    /// Starts one that calls itself `name`.
    pub async fn start(name: &str) -> Self {
        Self::start_at(name, "127.0.0.1:0".parse().expect("an address")).await
    }

    /// Starts one at a given address.
    pub async fn start_at(name: &str, addr: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option");
        socket.bind(addr).expect("the address is free");
        let listener = socket.listen(1024).expect("it can listen");
        let addr = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            permits: Semaphore::new(0),
            arrived: Notify::new(),
            gone: AtomicUsize::new(0),
            went: Notify::new(),
        });
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, shared.clone(), stop.clone(), tasks.clone()));
        Self {
            addr,
            shared,
            stop,
            tasks,
        }
    }

    /// Closes the listener and all connections, as a service that is stopped does.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("sound").clone()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Lets `n` held answers, or events, go.
    pub fn release(&self, n: usize) {
        self.shared.permits.add_permits(n);
    }

    /// Waits until `n` requests have arrived in all.
    pub async fn arrived(&self, n: usize) {
        loop {
            let changed = self.shared.arrived.notified();
            if self.shared.seen.lock().expect("sound").len() >= n {
                return;
            }
            changed.await;
        }
    }

    /// Waits until `n` held answers were given up because nobody wanted them.
    pub async fn given_up(&self, n: usize) {
        loop {
            let changed = self.shared.went.notified();
            if self.shared.gone.load(Ordering::SeqCst) >= n {
                return;
            }
            changed.await;
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken, tasks: TaskTracker) {
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.expect("it can accept"),
            () = stop.cancelled() => return,
        };
        stream.set_nodelay(true).expect("an option");
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (shared, stop) = (shared.clone(), stop.clone());
        tasks.spawn(async move {
            let service = service_fn(|request| answer(shared.clone(), request));
            let served = hyper::server::conn::http1::Builder::new()
                .max_buf_size(1024 * 1024)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            tokio::select! {
                _ = served => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

type Body = BoxBody<Bytes, Infallible>;

/// Counts an answer that was dropped before it could be given.
struct Held<'a>(&'a Shared, bool);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.gone.fetch_add(1, Ordering::SeqCst);
            self.0.went.notify_waiters();
        }
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |p| p.as_str())
        .to_owned();
    let headers = request.headers().iter();
    let headers: Vec<_> = headers
        .map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned()))
        .collect();
    let seen = Seen {
        method: request.method().to_string(),
        target: target.clone(),
        headers,
    };
    shared.seen.lock().expect("sound").push(seen.clone());
    shared.arrived.notify_waiters();
    let path = request.uri().path().to_owned();
    let number = |prefix: &str| path.strip_prefix(prefix).and_then(|n| n.parse::<u64>().ok());
    if path == "/sink" {
        let (mut length, mut sum) = (0u64, 0u64);
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                sum = checksum(sum, length, &data);
                length += data.len() as u64;
            }
        }
        return Ok(text(format!("{length} {sum}")));
    }
    if path == "/upgrade" {
        return Ok(upgrade(request));
    }
    if path == "/sse" {
        let stream = futures_util::stream::unfold((shared, 0u64), |(shared, n)| async move {
            let mut held = Held(&shared, false);
            shared.permits.acquire().await.expect("open").forget();
            held.1 = true;
            drop(held);
            Some((
                Bytes::from(format!("id: {n}\ndata: event {n}\n\n")),
                (shared, n + 1),
            ))
        });
        let mut response = stream_of(stream);
        response
            .headers_mut()
            .insert("content-type", "text/event-stream".parse().expect("a value"));
        return Ok(response);
    }
    let whole = request.into_body().collect().await?;
    let trailers = whole.trailers().cloned();
    let body = whole.to_bytes();
    if let Some(n) = number("/bytes/") {
        let mut response = stream_of(pattern_stream(n));
        response.headers_mut().insert("content-length", n.into());
        return Ok(response);
    }
    if let Some(n) = number("/chunked/") {
        return Ok(stream_of(pattern_stream(n)));
    }
    if let Some(n) = number("/status/") {
        let mut response = text(String::new());
        *response.status_mut() = hyper::StatusCode::from_u16(n as u16).expect("a status");
        return Ok(response);
    }
    Ok(match path.as_str() {
        "/echo" => {
            let json = serde_json::json!({
                "method": seen.method, "target": seen.target, "headers": seen.headers,
                "body": String::from_utf8_lossy(&body),
                "trailers": trailers.map(|t| t.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap_or("?"))).collect::<Vec<_>>()),
            });
            text(json.to_string())
        }
        "/hold" => {
            let mut held = Held(&shared, false);
            shared.permits.acquire().await.expect("open").forget();
            held.1 = true;
            text(format!("released {}", shared.name))
        }
        "/close" => {
            let mut response = text("closing".into());
            response
                .headers_mut()
                .insert("connection", "close".parse().expect("a value"));
            response
        }
        _ => {
            let mut response = text(format!("hello from {}", shared.name));
            for (_, said) in seen.headers.iter().filter(|(name, _)| name == "x-say") {
                let (name, value) = said.split_once(": ").expect("a name and a value");
                let name: hyper::header::HeaderName = name.parse().expect("a name");
                response
                    .headers_mut()
                    .append(name, value.parse().expect("a value"));
            }
            response
        }
    })
}

/// Changes protocols; then greets, and sends back what comes.
fn upgrade(request: Request<Incoming>) -> Response<Body> {
    let Some(protocol) = request.headers().get("upgrade").cloned() else {
        let mut response = text("nothing to upgrade to".into());
        *response.status_mut() = hyper::StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    tokio::spawn(async move {
        let Ok(io) = hyper::upgrade::on(request).await else {
            return;
        };
        let (mut rd, mut wr) = tokio::io::split(TokioIo::new(io));
        if wr.write_all(b"hello\n").await.is_ok() {
            let _ = tokio::io::copy(&mut rd, &mut wr).await;
            let _ = wr.shutdown().await;
        }
    });
    let mut response = text(String::new());
    *response.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("connection", "Upgrade".parse().expect("a value"));
    headers.insert("upgrade", protocol);
    response
}

fn text(text: String) -> Response<Body> {
    Response::new(Full::new(Bytes::from(text)).boxed())
}

fn stream_of(stream: impl futures_util::Stream<Item = Bytes> + Send + Sync + 'static) -> Response<Body> {
    Response::new(BodyExt::boxed(StreamBody::new(
        stream.map(|b| Ok(Frame::data(b))),
    )))
}

/// The `n` bytes that `/bytes/n` sends.
fn pattern_stream(n: u64) -> impl futures_util::Stream<Item = Bytes> + Send + Sync + 'static {
    let block: Bytes = pattern(0, BLOCK).into();
    futures_util::stream::unfold((block, n), |(block, left)| async move {
        let now = left.min(BLOCK as u64);
        (now > 0).then(|| (block.slice(..now as usize), (block.clone(), left - now)))
    })
}

/// The pattern repeats after this many bytes.
const BLOCK: usize = 251 * 256;

/// Bytes `from..from + n` of the pattern.
pub fn pattern(from: u64, n: usize) -> Vec<u8> {
    (from..from + n as u64).map(|i| (i % 251) as u8).collect()
}

/// Adds bytes at `offset` to a sum in which the place of each byte counts.
pub fn checksum(sum: u64, offset: u64, data: &[u8]) -> u64 {
    data.iter().zip(offset..).fold(sum, |s, (b, i)| {
        s.wrapping_add((u64::from(*b) + 1).wrapping_mul(i % 65_521 + 1))
    })
}
