//! What it takes to set up a tunnel through a real relay: `arp-handshake HOST CONTROL PROXY PUBLIC N [RELAY_PID]`.
//!
//! Plays one edge with a key, whose tunnels come with a full TLS handshake or with a resumed session, and one
//! in plain (the relay needs `--allow-plaintext --pool-size 0`). Each visit needs a new tunnel. N visits of each
//! kind are made in turns; printed are medians, as lines of a Markdown table: the time of dialing and presenting a
//! tunnel, the visitor's time from its connection to the end of its answer, and CPU time of the relay.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_common::protocol::{Command, FrameReader, Register, VERSION, write_frame};
use arp_common::tls::{self, Identity, Trust};
use arp_common::transport::Stream;
use arp_testkit::http::get;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::rustls::ClientConfig;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// How a tunnel is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Full,
    Resumed,
}

const KINDS: [(Kind, &str); 3] = [
    (Kind::Plain, "plain TCP (`--allow-plaintext`)"),
    (Kind::Full, "TLS, full handshake"),
    (Kind::Resumed, "TLS, resumed session"),
];

/// A registered edge.
struct Edge {
    name: &'static str,
    frames: FrameReader<Stream>,
    identity: Option<Identity>,
    config: Option<Arc<ClientConfig>>,
}

async fn dial(to: SocketAddr, config: Option<&Arc<ClientConfig>>) -> Stream {
    let tcp = TcpStream::connect(to).await.expect("the relay listens");
    tcp.set_nodelay(true).expect("an option");
    match config {
        None => Stream::Plain(tcp),
        Some(config) => {
            tls::connect(tcp, "relay.test", config.clone())
                .await
                .expect("TLS")
                .0
        }
    }
}

impl Edge {
    async fn register(control: SocketAddr, name: &'static str, identity: Option<Identity>) -> Self {
        let settings = |i: &Identity| tls::client_config(i, &Trust::FirstUse).expect("settings");
        let config = identity.as_ref().map(settings);
        let mut stream = dial(control, config.as_ref()).await;
        let register = Register {
            client_id: name.parse().expect("an id"),
            version: Some(VERSION),
            agent: Some("arp-handshake".into()),
            mode: None,
            tokens: Vec::new(),
            id_token: None,
            join_key: None,
            services: Vec::new(),
        };
        write_frame(&mut stream, &Command::Register(register))
            .await
            .expect("sent");
        let mut frames = FrameReader::new(stream);
        match frames.next().await {
            Ok(Some(Command::RegisterResult(result))) if result.success => {}
            other => panic!("not registered: {other:?}"),
        }
        Self {
            name,
            frames,
            identity,
            config,
        }
    }

    /// Opens the tunnel that is asked for next, and answers the visitor on it. Gives the time it took to be there.
    async fn tunnel(&mut self, proxy: SocketAddr, kind: Kind) -> Duration {
        let id = loop {
            match self.frames.next().await {
                Ok(Some(Command::RequestNewProxyConn { proxy_conn_id })) => break proxy_conn_id,
                Ok(Some(_)) => {}
                other => panic!("lost the relay: {other:?}"),
            }
        };
        // Settings of their own hold no session to resume.
        let fresh = || {
            self.identity
                .as_ref()
                .map(|i| tls::client_config(i, &Trust::FirstUse).expect("settings"))
        };
        let config = if kind == Kind::Full {
            fresh()
        } else {
            self.config.clone()
        };
        let start = Instant::now();
        let mut stream = dial(proxy, config.as_ref()).await;
        let hello = Command::NewProxyConn {
            proxy_conn_id: id,
            client_id: self.name.parse().expect("an id"),
        };
        write_frame(&mut stream, &hello).await.expect("sent");
        let took = start.elapsed();
        if let Stream::Tls(tls) = &stream {
            let done = format!("{:?}", tls.get_ref().1.handshake_kind());
            assert!(done.contains(&format!("{kind:?}")), "{kind:?}: {done}");
        }
        let mut frames = FrameReader::new(stream);
        assert!(matches!(frames.next().await, Ok(Some(Command::Open { .. }))));
        let (mut stream, _) = frames.into_parts();
        stream.write_all(ANSWER).await.expect("sent");
        stream.shutdown().await.expect("ended");
        took
    }
}

/// Seconds of CPU that a process has used.
fn cpu(pid: Option<u32>) -> f64 {
    let Some(pid) = pid else { return 0.0 };
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .expect("tasks")
        .filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("schedstat")).ok())
        .filter_map(|s| s.split(' ').next()?.parse::<f64>().ok())
        .sum::<f64>()
        / 1e9
}

#[tokio::main]
async fn main() {
    let usage = "usage: arp-handshake HOST CONTROL_PORT PROXY_PORT PUBLIC_PORT N [RELAY_PID]";
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [host, control, proxy, public, n, pid @ ..] = &args[..] else {
        panic!("{usage}")
    };
    let at = |port: &String| -> SocketAddr { format!("{host}:{port}").parse().expect(usage) };
    let (control, proxy, public) = (at(control), at(proxy), at(public));
    let (n, pid) = (
        n.parse::<usize>().expect(usage),
        pid.first().map(|p| p.parse().expect(usage)),
    );
    let identity = Identity::generate().expect("a key");
    let mut secure = Edge::register(control, "handshake-tls", Some(identity)).await;
    let mut plain = Edge::register(control, "handshake-plain", None).await;
    let mut figures: [(Vec<Duration>, Vec<Duration>, f64); 3] = Default::default();
    for round in 0..=n {
        for (at, (kind, _)) in KINDS.into_iter().enumerate() {
            let edge = if kind == Kind::Plain {
                &mut plain
            } else {
                &mut secure
            };
            let target = format!("/?token={}", edge.name);
            let before = cpu(pid);
            let start = Instant::now();
            let (answer, tunnel) = tokio::join!(get(public, &target, ""), edge.tunnel(proxy, kind));
            let whole = start.elapsed();
            assert_eq!(answer.status, 200);
            // The first round warms up.
            if round > 0 {
                figures[at].0.push(tunnel);
                figures[at].1.push(whole);
                figures[at].2 += cpu(pid) - before;
            }
        }
    }
    println!(
        "| a visit that needs a new tunnel, medians of {n} | dial and present (ms) | whole visit (ms) | CPU of the relay (ms) |"
    );
    println!("|---|---:|---:|---:|");
    for ((_, name), (mut tunnel, mut whole, cpu)) in KINDS.into_iter().zip(figures) {
        tunnel.sort();
        whole.sort();
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        let cpu = cpu * 1000.0 / n as f64;
        println!(
            "| {name} | {:.2} | {:.2} | {cpu:.2} |",
            ms(tunnel[n / 2]),
            ms(whole[n / 2])
        );
    }
}
