//! Hostile peers in numbers, and what a neighbour notices: memory of the relay, and the time of requests on
//! connections of their own. Prints the figures: `cargo test --release --test hostile_load -- --nocapture`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use arp_common::tls::Identity;
use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::{get, within};
use arp_testkit::origin::Origin;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{register, secure, try_register};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Requests of the neighbour in each measurement.
const REQUESTS: usize = 200;
/// Half-open connections.
const HALF_OPEN: usize = 10_000;

/// A relay with a neighbour to be left alone.
struct Street {
    relay: Relay,
    quiet: Figures,
    _edge: Edge,
    _origin: Origin,
    /// One attack at a time: each is to be seen by itself, and needs many files.
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

/// What the neighbour notices.
#[derive(Debug, Clone, Copy)]
struct Figures {
    rss: u64,
    median: Duration,
    p99: Duration,
}

impl Street {
    async fn new() -> Self {
        static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let turn = TURN.lock().await;
        arp_common::net::raise_file_limit();
        // One test registers names as fast as it can.
        let args = ["--max-new-names-per-ip", "0"];
        let relay = Relay::builder().args(args).start().await;
        let origin = Origin::start("neighbour").await;
        let edge = Edge::tcp(&relay, "neighbour", origin.addr).await;
        let mut street = Self {
            quiet: Figures {
                rss: 0,
                median: Duration::ZERO,
                p99: Duration::ZERO,
            },
            relay,
            _edge: edge,
            _origin: origin,
            _turn: turn,
        };
        street.measure().await;
        street.quiet = street.measure().await;
        street
    }

    async fn measure(&self) -> Figures {
        let mut times = Vec::new();
        for _ in 0..REQUESTS {
            let start = Instant::now();
            let answer = within("the neighbour", get(self.relay.public, "/?token=neighbour", "")).await;
            assert_eq!(answer.status, 200);
            times.push(start.elapsed());
        }
        times.sort();
        Figures {
            rss: self.relay.daemon.rss_kib(),
            median: times[REQUESTS / 2],
            p99: times[REQUESTS * 99 / 100],
        }
    }

    /// Measures under attack, prints it, and expects no more memory than `kib`, and no neighbour who waits. What a
    /// connection may cost is its buffer and its task, some 20 kB; how many there can be is bounded (`--max-conns`,
    /// and 4,096 handshakes on each edge port).
    async fn under(&self, attack: &str, kib: u64) {
        let now = self.measure().await;
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        println!(
            "| {attack} | {:.1} → {:.1} | {:.2} → {:.2} | {:.2} → {:.2} |",
            self.quiet.rss as f64 / 1024.0,
            now.rss as f64 / 1024.0,
            ms(self.quiet.median),
            ms(now.median),
            ms(self.quiet.p99),
            ms(now.p99),
        );
        assert!(
            now.rss < self.quiet.rss + kib,
            "{attack}: {:?} -> {now:?}",
            self.quiet
        );
        // Attacker, relay, edge and service share the machine's cores, with whatever else runs there: how long it takes
        // is a figure. That nobody waits for a peer's deadline is a promise.
        assert!(now.p99 < arp_common::defaults::HANDSHAKE, "{attack}: {now:?}");
    }
}

/// Connects from an address of its own in 127.0.1.0/24, so that the limit for one address is not what is seen.
async fn connect_from(n: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 1, n));
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_half_open_connections_to_edge_ports_leave_neighbours_alone() {
    let street = Street::new().await;
    let mut held = Vec::new();
    for n in 0..HALF_OPEN {
        let to = if n % 2 == 0 {
            street.relay.control
        } else {
            street.relay.proxy
        };
        let mut tcp = TcpStream::connect(to).await.unwrap();
        if n % 4 < 2 {
            // A handshake that stops within its first message.
            tcp.write_all(&[0x16, 3, 1, 1, 0, 1, 0, 0]).await.unwrap();
        }
        held.push(tcp);
    }
    street
        .under("10,000 half-open connections to the edge ports", 160 * 1024)
        .await;
    // Those that waited longest gave way, long before their time was over.
    for oldest in &mut held[..100] {
        let closed = tokio::time::timeout(Duration::from_secs(1), oldest.read(&mut [0; 8])).await;
        assert!(!matches!(closed, Err(_) | Ok(Ok(1..))), "still held: {closed:?}");
    }
    // Nor is a new edge kept out.
    let origin = Origin::start("new").await;
    let start = Instant::now();
    let _edge = within("registration", Edge::tcp(&street.relay, "new", origin.addr)).await;
    println!(
        "(a new edge among them is registered after {:?})",
        start.elapsed()
    );
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_half_open_requests_leave_neighbours_alone() {
    let street = Street::new().await;
    let mut held = Vec::new();
    for n in 0..HALF_OPEN {
        let mut tcp = connect_from((n / 1000) as u8 + 1, street.relay.public).await;
        tcp.write_all(b"GET /?token=neighbour HTTP/1.1\r\nHo")
            .await
            .unwrap();
        held.push(tcp);
    }
    street.under("10,000 half-open requests", 256 * 1024).await;
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_send_a_byte_now_and_then_leave_neighbours_alone_and_are_cut_off() {
    let street = Street::new().await;
    let hello = [0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3];
    let mut slow = JoinSet::new();
    for n in 0..1000usize {
        let to = [street.relay.control, street.relay.proxy, street.relay.public][n % 3];
        let bytes: Vec<u8> = if n % 3 == 2 {
            b"GET /?token=neigh".to_vec()
        } else {
            hello.to_vec()
        };
        slow.spawn(async move {
            let mut tcp = TcpStream::connect(to).await.unwrap();
            let start = Instant::now();
            let (mut rd, mut wr) = tcp.split();
            let drip = async {
                for byte in bytes.iter().chain(std::iter::repeat(&b'x')) {
                    if wr.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
                std::future::pending::<()>().await
            };
            tokio::select! {
                () = drip => {}
                _ = async { while rd.read(&mut [0; 256]).await.is_ok_and(|n| n > 0) {} } => {}
            }
            start.elapsed()
        });
    }
    street
        .under("1,000 peers that send a byte now and then", 48 * 1024)
        .await;
    let longest = within("all to be cut off", slow.join_all())
        .await
        .into_iter()
        .max()
        .unwrap();
    println!("(the last of them is cut off after {longest:?})");
    // The longest deadline is that of a request's head.
    assert!(
        longest < arps::defaults::HEAD_TIMEOUT + arp_testkit::daemon::PATIENCE,
        "{longest:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_of_four_gibibytes_cost_no_memory() {
    let street = Street::new().await;
    let identity = Arc::new(Identity::generate().unwrap());
    let mut held = Vec::new();
    for n in 0..200 {
        let to = if n % 2 == 0 {
            street.relay.control
        } else {
            street.relay.proxy
        };
        let mut liar = secure(to, &identity).await;
        liar.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        // More than any frame may have; the relay has hung up by now.
        let _ = liar.write_all(&[b'x'; 128 * 1024]).await;
        let _ = liar.flush().await;
        held.push(liar);
    }
    street.under("200 frames of 4 GiB", 32 * 1024).await;
    for mut liar in held {
        let mut byte = [0];
        assert!(!matches!(within("the end", liar.read(&mut byte)).await, Ok(1)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_registrations_leaves_neighbours_alone() {
    let street = Street::new().await;
    let done = Arc::new(AtomicUsize::new(0));
    let registered = Arc::new(Semaphore::new(0));
    let mut flood = JoinSet::new();
    for n in 0..8 {
        let (control, done, registered) = (street.relay.control, done.clone(), registered.clone());
        flood.spawn(async move {
            let identity = Identity::generate().unwrap();
            for i in 0.. {
                let mut peer = support::Peer::secure(control, &identity).await;
                let result = peer.register(register(&format!("flood-{n}-{i}"))).await;
                assert!(result.success, "{result:?}");
                done.fetch_add(1, Ordering::Relaxed);
                registered.add_permits(1);
            }
        });
    }
    // It is under way before anybody is measured, and still when that is over.
    let some = || async { registered.acquire_many(8).await.unwrap().forget() };
    within("a flood", some()).await;
    let (start, before) = (Instant::now(), done.load(Ordering::Relaxed));
    street
        .under("new names registered as fast as eight edges can", 48 * 1024)
        .await;
    let rate = (done.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    println!("({rate:.0} registrations a second)");
    let _ = registered.forget_permits(usize::MAX);
    within("a flood that goes on", some()).await;
    flood.shutdown().await;
    // Whose names they are is not forgotten for it.
    let (_, result) = try_register(
        &street.relay,
        &Identity::generate().unwrap(),
        register("neighbour"),
    )
    .await;
    assert!(!result.success);
}
