//! Raw connections through the public port: any protocol by token, with real clients and servers where there are
//! some.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "raw/drivers.rs"]
mod drivers;
#[path = "raw/passthrough.rs"]
mod passthrough;
#[path = "raw/silence.rs"]
mod silence;
mod support;

use arp_common::protocol::{Command as Say, Service, TlsBegun, TunnelKind};
use arp_common::tls::Identity;
use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::{RawClient, get, within};
use arp_testkit::origin::Origin;
use arp_testkit::services::{Server, echo, has};
use std::net::SocketAddr;
use std::process::Output;
use support::{register, try_register};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

/// Sends bytes and gives everything that comes back to the end.
async fn say(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let read = within("an end", stream.read_to_end(&mut answer)).await;
    if let Err(e) = read {
        answer.extend(format!("<{:?}>", e.kind()).bytes());
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Runs a program to its end.
async fn run(program: &str, args: &[&str], vars: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command.args(args).envs(vars.iter().copied()).kill_on_drop(true);
    command.stdin(std::process::Stdio::null());
    within(program, command.output()).await.unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_behind_the_line_is_the_services() {
    let (relay, service) = (Relay::start().await, echo().await);
    let _edge = Edge::tcp(&relay, "demo", service).await;
    // The service speaks first, and half-close goes through both ways.
    let mut visitor = TcpStream::connect(relay.public).await.unwrap();
    for byte in b"?token=demo\r\n" {
        visitor.write_all(&[*byte]).await.unwrap();
    }
    let mut greeting = [0; 6];
    within("a greeting", visitor.read_exact(&mut greeting))
        .await
        .unwrap();
    assert_eq!(&greeting, b"hello\n");
    let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 + n / 251) as u8).collect();
    let (mut rd, mut wr) = visitor.split();
    let send = async {
        wr.write_all(&sent).await.unwrap();
        wr.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let ((), read) = within("an end", async { tokio::join!(send, rd.read_to_end(&mut got)) }).await;
    read.unwrap();
    assert!(got[..sent.len()] == sent && got[sent.len()..] == *b"bye\n");
    // What comes with the line is not lost, and HTTP is as before.
    let mut visitor = RawClient::connect(relay.public).await;
    visitor.send("?token=demo\nGET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(visitor.exactly(24).await, b"hello\nGET / HTTP/1.1\r\n\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_understands_gets_a_line_of_text() {
    let relay = Relay::start().await;
    for bytes in [
        &[0xff, 0xfb, 0x1f][..],
        b"{\"a\":1}\n",
        b"\x03\0\0\x13",
        b"?tok\n",
    ] {
        let told = say(relay.public, bytes).await;
        assert!(
            told.starts_with("this port understands HTTP") && told.ends_with("\r\n"),
            "{told}"
        );
        assert_eq!(told.lines().count(), 1);
    }
    let told = say(relay.public, b"?token=nobody\n").await;
    assert!(told.starts_with("unknown_token: "), "{told}");
    let told = say(relay.public, b"?name=x&token=y\n").await;
    assert!(told.starts_with("this port understands"), "{told}");
    assert!(say(relay.public, b"SSH-2.0-x\r\n").await.contains("ProxyCommand"));
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_reaches_a_service_by_its_name() {
    let relay = Relay::builder().args(["--domain", "arp.test"]).start().await;
    let service = echo().await;
    let edge = Edge::tcp(&relay, "demo", service).await;
    for target in ["demo:22", "DEMO:1", "demo.arp.test:443"] {
        let mut visitor = RawClient::connect(relay.public).await;
        visitor
            .send(&format!(
                "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\nping"
            ))
            .await;
        assert_eq!(visitor.head().await.status, 200, "{target}");
        assert_eq!(visitor.exactly(10).await, b"hello\nping");
    }
    let refused = async |target: &str| {
        let mut visitor = RawClient::connect(relay.public).await;
        visitor
            .send(&format!("CONNECT {target} HTTP/1.1\r\nHost: r\r\n\r\n"))
            .await;
        let answer = visitor.answer().await;
        (
            answer.status,
            answer.json()["code"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(refused("nobody:22").await, (404, "unknown_token".into()));
    // A name that is guessed at costs the same here as in a URL.
    for n in 0..21 {
        refused(&format!("guess{n}:22")).await;
    }
    assert_eq!(
        refused("nobody:22").await,
        (429, "too_many_unknown_tokens".into())
    );
    drop(edge);
    within("it is offline", async {
        while refused("demo:22").await != (503, "offline".into()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_there_is_told_in_each_protocols_words() {
    let relay = Relay::start().await;
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let _edge = Edge::tcp(&relay, "demo", nobody).await;
    let told = say(relay.public, b"?token=demo\n").await;
    assert!(told.starts_with("local_service_unreachable: "), "{told}");
    let told = say(relay.public, b"CONNECT demo:1 HTTP/1.0\r\n\r\n").await;
    assert!(
        told.starts_with("HTTP/1.1 502 ") && told.contains("local_service_unreachable"),
        "{told}"
    );
    let told = say(relay.public, b"*2\r\n$4\r\nAUTH\r\n$11\r\n?token=demo\r\n").await;
    assert!(told.starts_with("-ERR local_service_unreachable: "), "{told}");
    let told = say(relay.public, b"\0\0\0\x1b\0\x03\0\0user\0u?token=demo\0\0").await;
    assert!(told.starts_with("E\0") && told.contains("C08006\0"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_name_ends_its_open_connections_and_no_others() {
    let relay = Relay::builder().args(["--domain", "arp.test"]).start().await;
    let mut asks = register("machine");
    (asks.version, asks.tokens) = (Some(3), vec!["old".parse().unwrap(), "new".parse().unwrap()]);
    asks.services = vec![Service {
        passthrough: true,
        ..Service::default()
    }];
    let identity = Identity::generate().unwrap();
    let (mut machine, result) = try_register(&relay, &identity, asks).await;
    assert_eq!((result.success, result.version), (true, Some(3)));
    // By the line, and as TLS that the relay does not read.
    let line = |name: &str| format!("?token={name}\n").into_bytes();
    let mut open = Vec::new();
    for (first, begun) in [
        (line("old"), None),
        (passthrough::hello("old.arp.test"), Some(TlsBegun::Direct)),
        (line("new"), None),
        (passthrough::hello("new.arp.test"), Some(TlsBegun::Direct)),
    ] {
        let mut visitor = TcpStream::connect(relay.public).await.unwrap();
        visitor.write_all(&first).await.unwrap();
        let id = machine.asked().await;
        let mut tunnel = support::Peer::secure(relay.proxy, &identity).await;
        tunnel.present(&id, "machine").await;
        let Some(Say::Open {
            kind, service, tls, ..
        }) = tunnel.hear().await
        else {
            panic!()
        };
        assert_eq!((kind, service, tls), (TunnelKind::Tcp, None, begun));
        tunnel.say(&Say::Opened { error: None }).await;
        tunnel.wr.write_all(b"x").await.unwrap();
        tunnel.wr.flush().await.unwrap();
        let mut byte = [0];
        within("a byte", visitor.read_exact(&mut byte)).await.unwrap();
        open.push((visitor, tunnel));
    }
    machine
        .say(&Say::SetTokens {
            tokens: vec!["new".parse().unwrap()],
            id_token: true,
        })
        .await;
    for (mut visitor, _tunnel) in open.drain(..2) {
        let end = within("the end", visitor.read(&mut [0; 8])).await;
        assert!(end.is_err(), "a cut must not look like an end: {end:?}");
    }
    for (mut visitor, mut tunnel) in open {
        tunnel.wr.write_all(b"y").await.unwrap();
        tunnel.wr.flush().await.unwrap();
        let mut byte = [0];
        within("the other goes on", visitor.read_exact(&mut byte))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_and_long_ones_end_where_the_operator_says_so() {
    for flag in ["--raw-idle", "--raw-total"] {
        let relay = Relay::builder().args([flag, "1"]).start().await;
        let service = echo().await;
        let _edge = Edge::tcp(&relay, "demo", service).await;
        let told = say(relay.public, b"?token=demo\n").await;
        assert!(told.starts_with("hello\n<"), "{flag}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_of_one_edge_are_told_apart_by_their_names() {
    let relay = Relay::builder().args(["--pool-size", "2"]).start().await;
    let (one, two, three) = (
        Origin::start("one").await,
        Origin::start("two").await,
        echo().await,
    );
    let services = [format!("two={}", two.addr.port()), format!("three={three}")];
    let edge = Edge::tcp_builder(&relay, "one", one.addr);
    let edge = edge
        .args(["--service", &services[0], "--service", &services[1]])
        .start()
        .await;
    // In turn and at once, through tunnels that were used before.
    for _ in 0..20 {
        for name in ["one", "two"] {
            let answer = get(relay.public, &format!("/?token={name}"), "").await;
            assert_eq!(answer.text(), format!("hello from {name}"));
        }
        let mut visitor = RawClient::connect(relay.public).await;
        visitor.send("?token=three\n").await;
        assert_eq!(visitor.exactly(6).await, b"hello\n");
    }
    drop(edge);
    // Without a service of all names there is none by the client id.
    let edge = Edge::builder().relay_at(relay.control, relay.proxy);
    let flags = [
        "--client-id",
        "only",
        "--service",
        &services[1].replace("three", "four"),
    ];
    let _edge = edge.args(flags).start().await;
    let told = say(relay.public, b"?token=only\n").await;
    assert!(told.starts_with("unknown_token: "), "{told}");
    let mut visitor = RawClient::connect(relay.public).await;
    visitor.send("?token=four\n").await;
    assert_eq!(visitor.exactly(6).await, b"hello\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edges_gate_stands_in_front_of_raw_connections_too() {
    let (relay, service) = (Relay::start().await, echo().await);
    let _edge = Edge::tcp_builder(&relay, "demo", service)
        .args(["--require-key", "k3y", "--require-auth", "ann:pw"])
        .start()
        .await;
    for (line, opens) in [
        ("?token=demo\n", false),
        ("?token=demo&key=wrong\n", false),
        ("?token=demo&key=k3y\n", true),
        ("?token=demo&key=ann:pw\n", true),
    ] {
        let mut visitor = RawClient::connect(relay.public).await;
        visitor.send(line).await;
        let told = visitor.exactly(6).await;
        assert_eq!(told == b"hello\n", opens, "{line}");
    }
    let mut visitor = RawClient::connect(relay.public).await;
    visitor.send("CONNECT demo:1 HTTP/1.1\r\n\r\n").await;
    let answer = visitor.answer().await;
    assert_eq!(answer.status, 407);
    assert!(answer.header("proxy-authenticate").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_by_token_with_real_clients() {
    if !(has("psql") && has("initdb")) {
        return;
    }
    let (relay, server) = (Relay::start().await, Server::postgres().await);
    let edge = Edge::tcp_builder(&relay, "postgres-db", server.addr);
    let _edge = edge.args(["--default-user", "bob"]).start().await;
    let port = relay.public.port().to_string();
    let psql = async |args: &[&str], query: &str| {
        let all = [args, &["-w", "-X", "-At", "-c", query]].concat();
        run(
            "psql",
            &all,
            &[("PGPASSWORD", "s3cret"), ("PGCONNECT_TIMEOUT", "30")],
        )
        .await
    };
    let at = format!("host=127.0.0.1 port={port}");
    let place: &[&[&str]] = &[
        &[
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-d",
            "postgres",
            "?token=postgres-db",
        ],
        &[&format!("{at} dbname=postgres user=bob?token=postgres-db")],
        &[&format!("{at} dbname=postgres?token=postgres-db user=bob")],
        &[&format!(
            "{at} dbname=postgres user=bob options='?token=postgres-db'"
        )],
        &[&format!(
            "{at} dbname=postgres user=bob options='-c geqo=off ?token=postgres-db' sslmode=prefer"
        )],
        &[&format!(
            "{at} dbname=postgres user=bob?token=postgres-db gssencmode=prefer"
        )],
        &[&format!(
            "postgresql://bob%3Ftoken=postgres-db@127.0.0.1:{port}/postgres"
        )],
        &[&format!(
            "postgresql://bob@127.0.0.1:{port}/postgres?options=%3Ftoken%3Dpostgres-db"
        )],
    ];
    for args in place {
        let done = psql(args, "select current_user || '@' || current_database()").await;
        assert_eq!(text(&done), "bob@postgres\n", "{args:?}");
    }
    for (args, told) in [
        (
            format!("{at} dbname=postgres user=bob"),
            "this address needs a token",
        ),
        (
            format!("{at} dbname=postgres user=bob?token=nobody"),
            "no edge agent has registered this token",
        ),
        (
            format!("{at} dbname=d?token=a user=bob?token=postgres-db"),
            "names two different clients",
        ),
        (format!("{at} user=bob?token=postgres-db sslmode=require"), "SSL"),
    ] {
        let done = psql(&[&args], "select 1").await;
        assert!(
            !done.status.success() && text(&done).contains(told),
            "{args}: {}",
            text(&done)
        );
    }
    // Ctrl-C: the cancel request is a connection of its own, and finds its server.
    let dsn = format!("{at} dbname=postgres user=bob?token=postgres-db");
    let mut sleeper = Command::new("psql");
    sleeper
        .args([&dsn, "-X", "-w", "-c", "select pg_sleep(600)"])
        .env("PGPASSWORD", "s3cret");
    sleeper
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true);
    let sleeper = sleeper.spawn().unwrap();
    let sleeps =
        "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";
    within("it sleeps", async {
        while text(&psql(&[&dsn], sleeps).await) != "1\n" {}
    })
    .await;
    let pid = sleeper.id().unwrap().to_string();
    assert!(run("kill", &["-INT", &pid], &[]).await.status.success());
    let done = within("the query is cancelled", sleeper.wait_with_output())
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&done.stderr).contains("canceling statement due to user request"));
    // Bulk in both directions.
    let count = "create temp table t as select generate_series(1, 200000) as n; copy t to stdout";
    let done = psql(&[&dsn], count).await;
    assert_eq!(done.stdout.iter().filter(|b| **b == b'\n').count(), 200_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_by_token_with_real_clients() {
    if !(has("redis-cli") && has("redis-server")) {
        return;
    }
    let relay = Relay::start().await;
    let (open, closed) = (Server::redis(None).await, Server::redis(Some("s3cret")).await);
    let _one = Edge::tcp(&relay, "cache", open.addr).await;
    let _two = Edge::tcp(&relay, "vault", closed.addr).await;
    let port = relay.public.port().to_string();
    let cli = async |args: &[&str]| {
        let all = [&["-h", "127.0.0.1", "-p", &port, "--no-auth-warning"], args].concat();
        text(&run("redis-cli", &all, &[]).await)
    };
    for auth in [
        &["-a", "?token=cache"][..],
        &["--user", "default", "-a", "?token=cache"],
        &["-3", "-a", "?token=cache"],
        &["-a", "s3cret?token=vault"],
        &["--user", "default?token=vault", "-a", "s3cret"],
    ] {
        assert_eq!(
            cli(&[auth, &["set", "k", "v"]].concat()).await,
            "OK\n",
            "{auth:?}"
        );
        assert_eq!(cli(&[auth, &["get", "k"]].concat()).await, "v\n");
    }
    assert!(
        cli(&["-a", "wrong?token=vault", "ping"])
            .await
            .contains("WRONGPASS")
    );
    assert!(
        cli(&["-a", "?token=nobody", "ping"])
            .await
            .contains("unknown_token")
    );
    assert!(cli(&["ping"]).await.contains("NOAUTH this address needs a token"));
    // A subscriber hears what another connection publishes.
    let mut listener = Command::new("redis-cli");
    listener.args([
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "--no-auth-warning",
        "-a",
        "?token=cache",
        "subscribe",
        "c",
    ]);
    listener
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true);
    let mut listener = listener.spawn().unwrap();
    let mut heard = listener.stdout.take().unwrap();
    let mut got = Vec::new();
    within("the subscription", async {
        while cli(&["-a", "?token=cache", "publish", "c", "news"]).await != "1\n" {}
        while !String::from_utf8_lossy(&got).contains("news") {
            assert!(heard.read_buf(&mut got).await.unwrap() > 0);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arpc_connect_is_a_pipe_and_a_local_port() {
    let (relay, service) = (Relay::start().await, echo().await);
    let _edge = Edge::tcp_builder(&relay, "demo", service)
        .args(["--require-key", "k3y"])
        .start()
        .await;
    let port = relay.public.port().to_string();
    let base = ["connect", "--public-port", &port];
    let args = |more: &[&str]| {
        [&base[..], more]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let vars = [("ARPC_GATE".to_owned(), "k3y".to_owned())];
    // With nothing on standard input the service hears the end at once.
    let mut pipe = arp_testkit::daemon::Daemon::start("arpc", &args(&["demo", "--stdio"]), &vars);
    assert!(pipe.ended().await.success());
    assert_eq!(pipe.output(), "hello\nbye");
    let mut port =
        arp_testkit::daemon::Daemon::start("arpc", &args(&["demo", "--listen", "127.0.0.1:0"]), &vars);
    let at = port
        .line("its address", |l| {
            l.strip_prefix("Listening on ")?.parse::<SocketAddr>().ok()
        })
        .await;
    for _ in 0..3 {
        let mut visitor = RawClient::connect(at).await;
        visitor.send("ping").await;
        assert_eq!(visitor.exactly(10).await, b"hello\nping");
    }
    for (name, vars, told) in [
        ("demo", &[][..], "asks for more than a token"),
        ("nobody", &vars, "no edge agent has registered this token"),
    ] {
        let mut failed = arp_testkit::daemon::Daemon::start("arpc", &args(&[name]), vars);
        assert_eq!(failed.ended().await.code(), Some(1));
        assert!(failed.output().contains(told), "{}", failed.output());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_its_own_is_kept_over_restarts_and_given_to_nobody_else() {
    let port = arp_testkit::ports::free();
    let range = format!("{port}-{port}");
    let builder = || Relay::builder().args(["--remote-ports", &range]);
    let mut relay = builder().start().await;
    let service = echo().await;
    let told = |l: &str| l.strip_prefix("Port:       127.0.0.1:")?.parse::<u16>().ok();
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let mut edge = Edge::tcp_builder(&relay, "one", service)
        .args(["--remote-port", "auto"])
        .start()
        .await;
    assert_eq!(edge.daemon.line("its port", told).await, port);
    let mut visitor = RawClient::connect(at).await;
    visitor.send("ping").await;
    assert_eq!(visitor.exactly(10).await, b"hello\nping");
    // Neither while it is here nor while it is away.
    let home = edge.home;
    edge.daemon.kill().await;
    relay.daemon.kill().await;
    let relay = builder().at(&relay).start().await;
    let other = Edge::tcp_builder(&relay, "two", service);
    let mut other = other.args(["--remote-port", &port.to_string()]).start().await;
    let refused = |l: &str| l.contains("is reserved for another service").then_some(());
    other.daemon.line("the refusal", refused).await;
    let edge = Edge::tcp_builder(&relay, "one", service).home(home);
    let mut edge = edge.args(["--remote-port", "auto"]).start().await;
    assert_eq!(edge.daemon.line("its port", told).await, port);
    let mut visitor = RawClient::connect(at).await;
    assert_eq!(visitor.exactly(6).await, b"hello\n");
    // One that is out of range, or of a relay that gives none, is told and keeps nobody away.
    let plain = Relay::start().await;
    let edge = Edge::tcp_builder(&plain, "three", service).args(["--remote-port", "auto"]);
    let mut edge = edge.start().await;
    let none = |l: &str| l.contains("ask its operator for --remote-ports").then_some(());
    edge.daemon.line("the refusal", none).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_the_visitor_is_goes_from_the_balancer_to_the_service() {
    let relay = Relay::builder()
        .args(["--proxy-protocol-from", "127.0.0.1"])
        .start()
        .await;
    let service = echo().await;
    let edge = Edge::tcp_builder(&relay, "demo", service);
    let _edge = edge.args(["--proxy-protocol", "v1"]).start().await;
    let header = "PROXY TCP4 192.0.2.7 10.0.0.1 5 6\r\n";
    let mut visitor = RawClient::connect(relay.public).await;
    visitor.send(&format!("{header}?token=demo\n")).await;
    let want = format!("hello\nPROXY TCP4 192.0.2.7 127.0.0.1 5 {}\r\n", service.port());
    assert_eq!(
        String::from_utf8(visitor.exactly(want.len()).await).unwrap(),
        want
    );
    // In two pieces, and HTTP behind it; without it nothing is served.
    let mut visitor = RawClient::connect(relay.public).await;
    visitor.send(&header[..9]).await;
    visitor
        .send(&format!("{}GET /x HTTP/1.1\r\nHost: r\r\n\r\n", &header[9..]))
        .await;
    assert_eq!(visitor.answer().await.status, 401);
    let told = say(relay.public, b"GET / HTTP/1.1\r\nHost: r\r\n\r\n").await;
    assert!(told.is_empty() || told.starts_with('<'), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_cannot_read_what_goes_from_end_to_end() {
    let (relay, service) = (Relay::start().await, echo().await);
    let mut edge = Edge::tcp(&relay, "demo", service).await;
    let key = edge
        .daemon
        .line("its key", |l| l.strip_prefix("Own key:    ").map(str::to_owned))
        .await;
    let port = relay.public.port().to_string();
    let start = |key: &str| {
        let args = [
            "connect",
            "--public-port",
            &port,
            "--e2e",
            "demo",
            "--fingerprint",
            key,
        ];
        let args: Vec<String> = args.map(str::to_owned).into();
        arp_testkit::daemon::Daemon::start("arpc", &args, &[])
    };
    let mut pipe = start(&key);
    assert!(pipe.ended().await.success(), "{}", pipe.output());
    assert_eq!(pipe.output(), "hello\nbye");
    // All of it in one, as the QR code has it.
    let url = format!("http://{}/?token=demo#:~:e2e={key}", relay.public);
    let mut pipe = arp_testkit::daemon::Daemon::start("arpc", &["connect".into(), url], &[]);
    assert!(pipe.ended().await.success(), "{}", pipe.output());
    assert_eq!(pipe.output(), "hello\nbye");
    // Another key than the edge's is refused before anything is sent: the relay's own, for one.
    let mut wrong = start(&relay.fingerprint);
    assert_eq!(wrong.ended().await.code(), Some(1));
    assert!(wrong.output().contains("no TLS with the edge agent") && wrong.output().contains(&key));
    // What the relay is given to carry is a handshake, and nothing is said in plain before it.
    let mut visitor = RawClient::connect(relay.public).await;
    visitor
        .send("CONNECT demo:1 HTTP/1.1\r\nX-ARP-E2E: 1\r\n\r\nplain text!")
        .await;
    assert_eq!(visitor.head().await.status, 200);
    let rest = visitor.rest().await;
    assert!(!String::from_utf8_lossy(&rest).contains("hello"), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_by_token_with_real_clients() {
    if !(has("mariadb") && has("mariadb-install-db")) {
        return;
    }
    let (relay, server, web) = (
        Relay::start().await,
        Server::mariadb().await,
        Origin::start("web").await,
    );
    // An idle connection of a browser, from before.
    let mut idle = RawClient::connect(relay.public).await;
    let service = format!("web={},odd={}", web.addr.port(), echo().await.port());
    let edge = Edge::tcp_builder(&relay, "mysql-db", server.addr);
    let _edge = edge
        .args([
            "--protocol",
            "mysql",
            "--default-user",
            "bob",
            "--service",
            &service,
        ])
        .start()
        .await;
    let port = relay.public.port().to_string();
    let mysql = async |args: &[&str], query: &str| {
        let base = [
            "--no-defaults",
            "-h",
            "127.0.0.1",
            "-P",
            &port,
            "-ps3cret",
            "-N",
            "-B",
            "-e",
            query,
        ];
        text(&run("mariadb", &[&base, args].concat(), &[]).await)
    };
    for (args, told) in [
        (&["-u", "bob", "?token=mysql-db"][..], "bob\tNULL\n"),
        (&["-u", "bob", "shop?token=mysql-db"], "bob\tshop\n"),
        (&["-u", "bob?token=mysql-db", "shop"], "bob\tshop\n"),
        (&["-u", "?token=mysql-db", "shop"], "bob\tshop\n"),
        (&["-u", "ann", "shop?token=mysql-db"], "ann\tshop\n"),
    ] {
        let got = mysql(args, "select substring_index(current_user(), '@', 1), database()").await;
        assert_eq!(got, told, "{args:?}");
    }
    let rows = mysql(
        &["-u", "bob", "shop?token=mysql-db"],
        "select seq from seq_1_to_100000",
    )
    .await;
    assert_eq!(
        rows.lines().count(),
        100_000,
        "{}",
        rows.get(..500).unwrap_or(&rows)
    );
    for (args, told) in [
        (
            &["-u", "bob", "?token=nobody"][..],
            "no edge agent has registered this token",
        ),
        (&["-u", "bob", "shop"], "this address needs a token"),
        (
            &["-u", "eve", "shop?token=mysql-db"],
            "Access denied for user 'eve'",
        ),
        (&["-u", "bob", "?token=odd"], "does not speak MySQL's protocol"),
    ] {
        let got = mysql(args, "select 1").await;
        assert!(got.contains(told), "{args:?}: {got}");
    }
    // Whoever was here before and speaks at last, and whoever speaks at once, is served as ever.
    idle.send("GET /?token=web HTTP/1.1\r\nHost: r\r\n\r\n").await;
    assert_eq!(idle.answer().await.text(), "hello from web");
    assert_eq!(
        get(relay.public, "/?token=web", "").await.text(),
        "hello from web"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_certificate_the_same_port_takes_both_plain_and_tls() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    let relay = Relay::builder()
        .args(["--tls-cert", &path("cert.pem"), "--tls-key", &path("key.pem")])
        .start()
        .await;
    let service = echo().await;
    let _edge = Edge::tcp(&relay, "demo", service).await;
    let port = relay.public.port().to_string();
    let mut visitor = RawClient::connect(relay.public).await;
    visitor.send("?token=demo\n").await;
    assert_eq!(visitor.exactly(6).await, b"hello\n");
    let args = [
        "connect",
        "demo",
        "--public-port",
        &port,
        "--tls",
        "--tls-ca",
        &path("cert.pem"),
    ];
    let args: Vec<String> = args.map(str::to_owned).into();
    let mut pipe = arp_testkit::daemon::Daemon::start("arpc", &args, &[]);
    assert!(pipe.ended().await.success(), "{}", pipe.output());
    assert_eq!(pipe.output(), "hello\nbye");
    if !(has("psql") && has("initdb")) {
        return;
    }
    let server = Server::postgres().await;
    let _db = Edge::tcp(&relay, "db", server.addr).await;
    let query = "select 'through ' || current_user";
    for (mode, root) in [
        ("disable", ""),
        ("require", ""),
        ("verify-full", &*path("cert.pem")),
    ] {
        let dsn = format!(
            "host=127.0.0.1 port={port} dbname=postgres user=bob?token=db sslmode={mode} sslrootcert='{root}'"
        );
        let vars = [("PGPASSWORD", "s3cret"), ("HOME", dir.path().to_str().unwrap())];
        let done = run(
            "psql",
            &[&dsn, "-X", "-w", "-At", "-c", query, "-c", "\\conninfo"],
            &vars,
        )
        .await;
        let told = text(&done);
        assert!(told.contains("through bob"), "{mode}: {told}");
        assert_eq!(told.contains("SSL connection"), mode != "disable", "{told}");
    }
}
