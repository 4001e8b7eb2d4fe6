//! What a request on a kept connection costs the relay, in allocations and in system calls, and an idle edge, in memory.
//! They are the same on every machine, however slow; whatever takes more than these bounds has to say why.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use arp_common::protocol::Command as Say;
use arp_testkit::counting::{Counting, allocated, count_here, held};
use arp_testkit::daemon::{PATIENCE, Relay as Daemon};
use arps::config::{Cli, Config};
use arps::server::Relay;
use clap::Parser;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use support::{Peer, register};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// Allocations of the relay for one request.
const ALLOCATIONS: f64 = 11.0;
/// Reads and writes: the request in and on, the answer in and on.
const CALLS: f64 = 4.0;
/// What background work may add to either, per request.
const MARGIN: f64 = 0.5;
/// Bytes of the relay for an edge with one idle tunnel, both in plain.
const EDGE: i64 = 7_200;

/// Counts are those of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: test\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";

/// An edge in plain whose every tunnel answers every request alike.
async fn edge(control: SocketAddr, proxy: SocketAddr, name: String) {
    let mut link = Peer::plain(control).await;
    assert!(link.register(register(&name)).await.success);
    tokio::spawn(async move {
        loop {
            let id = match link.frames.next().await {
                Ok(Some(Say::RequestNewProxyConn { proxy_conn_id })) => proxy_conn_id,
                Ok(Some(Say::Ping {})) => {
                    link.say(&Say::Pong {}).await;
                    continue;
                }
                Ok(Some(_)) => continue,
                Ok(None) | Err(_) => return,
            };
            let mut tunnel = Peer::plain(proxy).await;
            tunnel.present(&id, &name).await;
            tokio::spawn(async move {
                let Ok(Some(Say::Open { .. })) = tunnel.frames.next().await else {
                    return;
                };
                let Peer { frames, mut wr } = tunnel;
                let (mut rd, mut seen) = frames.into_parts();
                loop {
                    while !seen.ends_with(b"\r\n\r\n") {
                        if !matches!(rd.read_buf(&mut seen).await, Ok(n) if n > 0) {
                            return;
                        }
                    }
                    seen.clear();
                    if wr.write_all(ANSWER).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// A visitor with one connection.
struct Visitor(std::net::TcpStream);

impl Visitor {
    fn new(public: SocketAddr) -> Self {
        let tcp = std::net::TcpStream::connect(public).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(tcp)
    }

    fn ask(&mut self, times: u32) {
        self.ask_for("demo", times);
    }

    fn ask_for(&mut self, name: &str, times: u32) {
        let request = format!(
            "GET /x?token={name}&a=b HTTP/1.1\r\nHost: relay.test\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n"
        );
        for _ in 0..times {
            self.0.write_all(request.as_bytes()).unwrap();
            let (mut answer, mut buf) = (Vec::new(), [0; 4096]);
            while !answer.ends_with(b"hello") {
                let n = self.0.read(&mut buf).unwrap();
                assert!(n > 0);
                answer.extend_from_slice(&buf[..n]);
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
        }
    }
}

/// A relay in this process, whose threads are counted, and what runs in others.
struct Counted {
    relay: arps::server::Addresses,
    runtime: tokio::runtime::Runtime,
    others: tokio::runtime::Runtime,
    served: tokio::task::JoinHandle<Result<(), arps::server::StartError>>,
    stop: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Counted {
    fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().to_str().unwrap();
        let flags = "arps --bind 127.0.0.1 --control-port 0 --proxy-port 0 --public-port 0 --allow-plaintext --data-dir";
        let cli = Cli::parse_from(flags.split(' ').chain([data]).chain(more.iter().copied()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .on_thread_start(count_here)
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let relay = {
            let _inside = runtime.enter();
            Relay::bind(Config::new(cli.settings).unwrap()).unwrap()
        };
        Self {
            relay: relay.addresses().unwrap(),
            served: runtime.spawn(relay.run(stop.clone())),
            runtime,
            others: tokio::runtime::Runtime::new().unwrap(),
            stop,
            _dir: dir,
        }
    }

    fn edge(&self, name: impl Into<String>) {
        let edge = edge(self.relay.control, self.relay.proxy, name.into());
        self.others.block_on(edge);
    }

    fn end(self) {
        self.stop.cancel();
        self.others.block_on(self.served).unwrap().unwrap();
        drop(self.runtime);
    }
}

#[test]
fn a_request_costs_few_allocations() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let relay = Counted::start(&[]);
    relay.edge("demo");
    let mut visitor = Visitor::new(relay.relay.public);
    visitor.ask(200);
    let before = allocated();
    let times = 2_000;
    visitor.ask(times);
    let each = (allocated() - before) as f64 / f64::from(times);
    println!("{each:.2} allocations for a request");
    assert!(
        each <= ALLOCATIONS + MARGIN,
        "{each:.2} allocations for a request"
    );
    relay.end();
}

#[test]
fn an_idle_edge_takes_little_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let relay = Counted::start(&["--pool-size", "1"]);
    let edges = |names: std::ops::Range<u32>| {
        for name in names.map(|n| format!("edge-{n}")) {
            relay.edge(&name);
            // Who is answered for has a tunnel.
            Visitor::new(relay.relay.public).ask_for(&name, 1);
        }
    };
    // What is made once is made.
    edges(0..64);
    let before = held();
    edges(64..192);
    let each = || (held() - before) / 128;
    // Visitors that have left may still be there, on a busy machine.
    let begun = Instant::now();
    while each() > EDGE && begun.elapsed() < PATIENCE {
        Visitor::new(relay.relay.public).ask_for("edge-0", 1);
    }
    let each = each();
    println!("{each} bytes for an idle edge");
    assert!(each <= EDGE, "{each} bytes for an idle edge");
    relay.end();
}

/// How often each call of a kind that moves bytes stands in what strace has written.
fn calls(trace: &Path) -> u64 {
    const KINDS: [&str; 9] = [
        "read(",
        "write(",
        "readv(",
        "writev(",
        "recvfrom(",
        "sendto(",
        "recvmsg(",
        "sendmsg(",
        "setsockopt(",
    ];
    let text = std::fs::read(trace).unwrap();
    let text = String::from_utf8_lossy(&text);
    // A line is `PID call(…`.
    let of_kind = |line: &&str| {
        KINDS.iter().any(|kind| {
            line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit())
                .starts_with(kind)
        })
    };
    text.lines().filter(of_kind).count() as u64
}

#[test]
fn a_request_costs_few_system_calls() {
    let traced = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !traced(Command::new("strace").args(["-f", "-o", "/dev/null", "true"])).is_ok_and(|s| s.success()) {
        println!("strace cannot be used here");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let relay = runtime.block_on(async {
        let relay = Daemon::builder().args(["--allow-plaintext"]).start().await;
        edge(relay.control, relay.proxy, "demo".to_owned()).await;
        relay
    });
    let mut visitor = Visitor::new(relay.public);
    visitor.ask(200);
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&trace)
        .args(["-p", &relay.daemon.pid().to_string()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It is there when it shows a request.
    let begun = Instant::now();
    while !trace.exists() || calls(&trace) == 0 {
        if strace.try_wait().unwrap().is_some() {
            println!("strace may not look at other processes here");
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "strace is there");
        visitor.ask(1);
    }
    visitor.ask(50);
    let before = calls(&trace);
    let times = 500;
    visitor.ask(times);
    // One more, so that what is counted of the last is written.
    visitor.ask(1);
    let each = (calls(&trace) - before) as f64 / f64::from(times);
    strace.kill().unwrap();
    strace.wait().unwrap();
    println!("{each:.2} system calls for a request");
    assert!(each <= CALLS + MARGIN, "{each:.2} system calls for a request");
}
