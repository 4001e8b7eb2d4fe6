//! Staying up: restarts, lost links and cut networks are noticed and healed without help.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::{RawClient, get, within};
use arp_testkit::middlebox::Middlebox;
use arp_testkit::origin::Origin;
use std::time::Duration;

fn registered_again(line: &str) -> Option<()> {
    line.contains("registered again").then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_restarts_has_its_edges_back() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let mut edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let mut relay = relay;
    for round in 1..=2 {
        if round == 1 {
            relay.daemon.terminate()
        } else {
            relay.daemon.kill().await
        }
        relay.daemon.ended().await;
        relay = Relay::builder().at(&relay).start().await;
        edge.daemon
            .nth_line("that it is back", round, registered_again)
            .await;
        assert_eq!(get(relay.public, "/?token=demo", "").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_restarts_is_reached_again() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let mut home = None;
    for round in 0..3 {
        let mut builder = Edge::tcp_builder(&relay, "demo", origin.addr);
        if let Some(home) = home.take() {
            builder = builder.home(home);
        }
        let mut edge = builder.start().await;
        assert_eq!(
            get(relay.public, "/?token=demo", "").await.status,
            200,
            "round {round}"
        );
        edge.daemon.kill().await;
        home = Some(edge.home);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_of_two_edges_with_one_name_wins_and_the_older_stops() {
    let (relay, a, b) = (
        Relay::start().await,
        Origin::start("a").await,
        Origin::start("b").await,
    );
    let mut old = Edge::tcp(&relay, "demo", a.addr).await;
    // The same key: another one would be refused.
    let data = old.home.path().join("data/arpc");
    let _new = Edge::tcp_builder(&relay, "demo", b.addr)
        .args(["--data-dir", data.to_str().expect("UTF-8")])
        .start()
        .await;
    assert_eq!(old.daemon.ended().await.code(), Some(1));
    assert!(
        old.daemon.output().contains("another arpc registered"),
        "{}",
        old.daemon.output()
    );
    assert_eq!(get(relay.public, "/?token=demo", "").await.text(), "hello from b");
}

/// Bytes stop flowing without a reset, on the control channel and the tunnels. (At one heartbeat a second
/// "dead" is three seconds; the default is 15 and 45.)
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_cut_without_a_word_is_noticed_by_both_sides_and_healed() {
    let relay = Relay::builder()
        .args(["--heartbeat", "1", "--tunnel-wait", "2"])
        .start()
        .await;
    let origin = Origin::start("o").await;
    let (control, proxy) = (
        Middlebox::start(relay.control).await,
        Middlebox::start(relay.proxy).await,
    );
    let port = origin.addr.port().to_string();
    let builder = Edge::builder().relay_at(control.addr, proxy.addr);
    let mut edge = builder
        .args(["--client-id", "demo", "--local-port", &port])
        .start()
        .await;
    assert_eq!(get(relay.public, "/?token=demo", "").await.status, 200);
    control.fall_silent();
    proxy.fall_silent();
    let mut relay = relay;
    relay
        .daemon
        .line("that the edge is gone", |l| {
            l.contains("silent for").then_some(())
        })
        .await;
    assert_eq!(get(relay.public, "/?token=demo", "").await.status, 503);
    edge.daemon
        .line("that the relay is gone", |l| {
            l.contains("no sign of life").then_some(())
        })
        .await;
    control.recover();
    proxy.recover();
    edge.daemon.line("that it is back", registered_again).await;
    assert_eq!(get(relay.public, "/?token=demo", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_outlive_a_lost_control_channel() {
    let relay = Relay::builder().args(["--heartbeat", "1"]).start().await;
    let origin = Origin::start("o").await;
    let control = Middlebox::start(relay.control).await;
    let port = origin.addr.port().to_string();
    let builder = Edge::builder().relay_at(control.addr, relay.proxy);
    let mut edge = builder
        .args(["--client-id", "demo", "--local-port", &port])
        .start()
        .await;
    let mut client = RawClient::connect(relay.public).await;
    client
        .send("GET /sse?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
        .await;
    client.head().await;
    origin.release(1);
    client.chunk(&mut Vec::new()).await;
    control.fall_silent();
    edge.daemon
        .line("that the relay is gone", |l| {
            l.contains("no sign of life").then_some(())
        })
        .await;
    control.recover();
    edge.daemon.line("that it is back", registered_again).await;
    for n in 1..5 {
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
async fn a_relay_that_is_told_to_stop_lets_exchanges_finish() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let mut busy = RawClient::connect(relay.public).await;
    busy.send("GET /hold?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
        .await;
    let mut idle = RawClient::connect(relay.public).await;
    idle.send("GET /?token=demo HTTP/1.1\r\nHost: r\r\n\r\n").await;
    idle.answer().await;
    within("the request", origin.arrived(2)).await;
    let mut relay = relay;
    relay.daemon.terminate();
    assert_eq!(idle.rest().await, b"", "an idle connection ends at once");
    origin.release(1);
    let answer = busy.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "released o".into()));
    assert_eq!(relay.daemon.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_period_has_an_end() {
    let relay = Relay::builder().args(["--grace", "1"]).start().await;
    let origin = Origin::start("o").await;
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let mut busy = RawClient::connect(relay.public).await;
    busy.send("GET /hold?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
        .await;
    within("the request", origin.arrived(1)).await;
    let mut relay = relay;
    relay.daemon.terminate();
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(15), relay.daemon.ended())
            .await
            .unwrap()
            .code(),
        Some(0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_is_told_to_stop_lets_exchanges_finish() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let mut edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let mut busy = RawClient::connect(relay.public).await;
    busy.send("GET /hold?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
        .await;
    within("the request", origin.arrived(1)).await;
    edge.daemon.terminate();
    within("the edge to leave", async {
        while get(relay.public, "/?token=demo", "").await.status != 503 {}
    })
    .await;
    origin.release(1);
    assert_eq!(busy.answer().await.text(), "released o");
    assert_eq!(edge.daemon.ended().await.code(), Some(0));
}

/// One request on a connection of its own; `None` if the connection ended before a byte of an answer, so that anybody
/// would send it again.
#[cfg(target_os = "linux")]
async fn try_get(at: std::net::SocketAddr, target: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(at)
        .await
        .expect("it is never refused");
    let request = format!("GET {target} HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let sent = stream.write_all(request.as_bytes()).await;
    let _ = stream.read_to_end(&mut answer).await;
    if answer.is_empty() {
        return None;
    }
    sent.unwrap();
    Some(String::from_utf8(answer).unwrap())
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_under_a_service_manager_refuses_nobody() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let origin = Origin::start("o").await;
    let mut relay = Relay::builder().managed().start().await;
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let public = relay.public;
    let over = Arc::new(AtomicBool::new(false));
    let visitors: Vec<_> = (0..4)
        .map(|_| {
            let over = over.clone();
            tokio::spawn(async move {
                let mut served = 0;
                while !over.load(Ordering::Relaxed) {
                    if let Some(answer) = try_get(public, "/?token=demo").await {
                        assert!(
                            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello from o"),
                            "{answer}"
                        );
                        served += 1;
                    }
                }
                served
            })
        })
        .collect();
    for round in 2..=3 {
        relay.daemon.signal("HUP");
        let up = |l: &str| l.contains("is up").then_some(());
        relay.daemon.nth_line("that it is up again", round, up).await;
        let answer = within("an answer", async {
            loop {
                if let Some(answer) = try_get(public, "/?token=demo").await {
                    return answer;
                }
            }
        });
        assert!(answer.await.starts_with("HTTP/1.1 200 "));
    }
    over.store(true, Ordering::Relaxed);
    for visitor in visitors {
        assert!(within("a visitor", visitor).await.unwrap() > 0);
    }
    relay.daemon.terminate();
    assert_eq!(relay.daemon.ended().await.code(), Some(0));
}

/// The socket of a service manager.
struct Manager {
    socket: tokio::net::UnixDatagram,
    dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = tokio::net::UnixDatagram::bind(dir.path().join("notify")).unwrap();
        Self { socket, dir }
    }
    fn path(&self) -> String {
        self.dir.path().join("notify").to_str().unwrap().to_owned()
    }
    /// Waits until this line is told; gives all that was told together with it.
    async fn told(&self, wanted: &str) -> String {
        let mut buf = vec![0; 4096];
        within(wanted, async {
            loop {
                let n = self.socket.recv(&mut buf).await.unwrap();
                let text = String::from_utf8_lossy(&buf[..n]);
                if text.lines().any(|l| l == wanted) {
                    return text.into_owned();
                }
            }
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told_what_becomes_of_both() {
    let (of_relay, of_edge) = (Manager::new(), Manager::new());
    let relay = Relay::builder()
        .var("NOTIFY_SOCKET", &of_relay.path())
        .var("WATCHDOG_USEC", "600000")
        .start()
        .await;
    of_relay.told("READY=1").await;
    let origin = Origin::start("o").await;
    let mut edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .var("NOTIFY_SOCKET", &of_edge.path())
        .var("WATCHDOG_USEC", "600000")
        .start()
        .await;
    of_edge.told("READY=1").await;
    of_edge.told("STATUS=registered with the relay").await;
    for _ in 0..2 {
        of_relay.told("WATCHDOG=1").await;
        of_edge.told("WATCHDOG=1").await;
    }
    // A reload has a beginning, with the time that systemd compares, and an end.
    let mut relay = relay;
    let mut before = 0;
    for _ in 0..2 {
        relay.daemon.signal("HUP");
        let text = of_relay.told("RELOADING=1").await;
        let at = text.lines().find_map(|l| l.strip_prefix("MONOTONIC_USEC="));
        let at: u64 = at.unwrap_or_else(|| panic!("no time in {text}")).parse().unwrap();
        assert!(at > before, "{at} {before}");
        before = at;
        of_relay.told("READY=1").await;
    }
    edge.daemon.terminate();
    of_edge.told("STOPPING=1").await;
    relay.daemon.terminate();
    of_relay.told("STOPPING=1").await;
    assert_eq!(edge.daemon.ended().await.code(), Some(0));
    assert_eq!(relay.daemon.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_said_in_one_line() {
    let relay = Relay::start().await;
    let taken = relay.public.port().to_string();
    let args = [
        "--bind",
        "127.0.0.1",
        "--control-port",
        "0",
        "--proxy-port",
        "0",
        "--public-port",
        &taken,
    ];
    let mut second = arp_testkit::daemon::Daemon::start("arps", &args.map(str::to_owned), &[]);
    assert_eq!(second.ended().await.code(), Some(1));
    let said = second.output();
    assert!(
        said.contains(&format!("port {taken}")) && said.contains("another copy running"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}
