//! Attackers on the way between edge and relay, and at the relay's edge ports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use arp_common::protocol::Command;
use arp_common::tls::Identity;
use arp_testkit::daemon::{Daemon, Edge, Relay};
use arp_testkit::http::{RawClient, get, within};
use arp_testkit::origin::Origin;
use std::time::{Duration, Instant};
use support::{Peer, register, try_register};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Runs a program of ours to its end: exit code and everything it said.
async fn run(name: &'static str, args: &[&str], home: &std::path::Path) -> (Option<i32>, String) {
    let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
    let home = home.to_str().unwrap();
    let vars = [
        ("HOME".to_owned(), home.to_owned()),
        ("XDG_DATA_HOME".to_owned(), format!("{home}/data")),
    ];
    let mut daemon = Daemon::start(name, &args, &vars);
    let code = daemon.ended().await.code();
    // The last lines may be on their way still.
    for _ in 0..100 {
        if !daemon.output().is_empty() {
            break;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (code, daemon.output())
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_edges_are_refused_with_a_reason_unless_allowed() {
    let relay = Relay::start().await;
    let mut peer = Peer::plain(relay.control).await;
    let result = peer.register(register("demo")).await;
    assert!(!result.success && result.fatal == Some(true));
    assert!(result.error.unwrap().contains("TLS"));
    assert!(peer.hear().await.is_none());
    let mut tunnel = Peer::plain(relay.proxy).await;
    tunnel.present("00000000000000000000000000000000", "demo").await;
    assert!(tunnel.hear().await.is_none());
    // The real edge says it to its user, and a warning with it.
    let origin = Origin::start("o").await;
    let mut edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--plaintext"])
        .spawn();
    assert_eq!(edge.daemon.ended().await.code(), Some(1));
    edge.daemon
        .line("why", |l| {
            (l.contains("arpc: ") && l.contains("only TLS")).then_some(())
        })
        .await;
    edge.daemon
        .line("a warning", |l| l.contains("can read and change").then_some(()))
        .await;
    let plain = Relay::start_plain().await;
    let _edge = Edge::tcp_builder(&plain, "demo", origin.addr)
        .args(["--plaintext"])
        .start()
        .await;
    assert_eq!(get(plain.public, "/?token=demo", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_readable_is_on_the_wire() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    // A listener in between that keeps what it sees.
    let tap = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = tap.local_addr().unwrap();
    let (tx, mut seen) = tokio::sync::mpsc::unbounded_channel::<Vec<u8>>();
    let to = relay.proxy;
    tokio::spawn(async move {
        while let Ok((from, _)) = tap.accept().await {
            let tx = tx.clone();
            tokio::spawn(async move {
                let (mut a, mut b) = from.into_split();
                let (mut c, mut d) = TcpStream::connect(to).await.unwrap().into_split();
                let other = tx.clone();
                let up = async move {
                    let mut buf = vec![0; 4096];
                    while let Ok(n @ 1..) = a.read(&mut buf).await {
                        let _ = tx.send(buf[..n].to_vec());
                        let _ = d.write_all(&buf[..n]).await;
                    }
                };
                let down = async move {
                    let mut buf = vec![0; 4096];
                    while let Ok(n @ 1..) = c.read(&mut buf).await {
                        let _ = other.send(buf[..n].to_vec());
                        let _ = b.write_all(&buf[..n]).await;
                    }
                };
                tokio::join!(up, down);
            });
        }
    });
    let port = origin.addr.port().to_string();
    let _edge = Edge::builder()
        .relay_at(relay.control, at)
        .args(["--client-id", "very-secret-id", "--local-port", &port])
        .start()
        .await;
    let answer = get(
        relay.public,
        "/echo?token=very-secret-id",
        "X-Secret: hunter2\r\n",
    )
    .await;
    assert_eq!(answer.status, 200);
    let mut all = Vec::new();
    while let Ok(bytes) = seen.try_recv() {
        all.extend(bytes);
    }
    assert!(all.len() > 1000, "the tap saw the traffic");
    for secret in [&b"very-secret-id"[..], b"hunter2", b"HTTP/1.1", b"NewProxyConn"] {
        assert!(!all.windows(secret.len()).any(|w| w == secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_is_refused_until_it_is_forgotten_on_purpose() {
    let (mut relay, origin) = (Relay::start().await, Origin::start("o").await);
    let mut edge = Edge::tcp(&relay, "demo", origin.addr).await;
    edge.daemon.terminate();
    edge.daemon.ended().await;
    relay.daemon.kill().await;
    // Somebody else answers at the same address.
    let thief = Relay::builder().ports_of(&relay).start().await;
    assert_ne!(thief.fingerprint, relay.fingerprint);
    let mut edge = Edge::tcp_builder(&thief, "demo", origin.addr)
        .home(edge.home)
        .spawn();
    assert_eq!(edge.daemon.ended().await.code(), Some(1));
    let address = format!("127.0.0.1:{}", thief.control.port());
    for part in ["ANOTHER KEY", &relay.fingerprint, &thief.fingerprint, &address] {
        edge.daemon
            .line("what happened", |l| l.contains(part).then_some(()))
            .await;
    }
    assert_eq!(get(thief.public, "/?token=demo", "").await.status, 404);
    let (code, said) = run("arpc", &["forget-server", &address], edge.home.path()).await;
    assert_eq!(code, Some(0), "{said}");
    let edge = Edge::tcp_builder(&thief, "demo", origin.addr)
        .home(edge.home)
        .start()
        .await;
    assert_eq!(get(thief.public, "/?token=demo", "").await.status, 200);
    let (code, said) = run("arpc", &["forget-server", "elsewhere"], edge.home.path()).await;
    assert!(code == Some(1) && said.contains("no key of elsewhere"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_pin_is_no_first_contact() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let mut edge = Edge::tcp(&relay, "demo", origin.addr).await;
    edge.daemon.terminate();
    edge.daemon.ended().await;
    let pins = edge.home.path().join("data/arpc/known_relays");
    let whole = std::fs::read_to_string(&pins).unwrap();
    std::fs::write(&pins, &whole[..whole.len() - 5]).unwrap();
    let mut edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .home(edge.home)
        .spawn();
    assert_eq!(edge.daemon.ended().await.code(), Some(1));
    let said = edge.daemon.output();
    assert!(
        said.contains("line 1 is damaged") && !said.contains("first contact with"),
        "{said}"
    );
    std::fs::write(&pins, whole).unwrap();
    let _edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .home(edge.home)
        .start()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_named_up_front_is_the_only_one_accepted() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let home = tempfile::tempdir().unwrap();
    let dir = relay.data.path().to_str().unwrap();
    let (_, told) = run("arps", &["fingerprint", "--data-dir", dir], home.path()).await;
    assert_eq!(told.trim(), relay.fingerprint);
    let other = Identity::generate().unwrap().fingerprint().to_string();
    let mut edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--server-fingerprint", &other])
        .spawn();
    assert_eq!(edge.daemon.ended().await.code(), Some(1));
    let _edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--server-fingerprint", &relay.fingerprint])
        .start()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_pins_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let data = edge.home.path().join("data/arpc");
    for file in [
        relay.data.path().join("relay-key.pem"),
        relay.data.path().join("store.db"),
        data.join("edge-key.pem"),
        data.join("known_relays"),
    ] {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", file.display());
    }
    let logged = format!("{}{}", relay.daemon.output(), edge.daemon.output());
    assert!(!logged.contains("PRIVATE KEY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_taken_once_and_only_from_the_key_that_was_asked() {
    let relay = Relay::builder().args(["--pool-size", "0"]).start().await;
    let (owner, thief) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (mut link, result) = try_register(&relay, &owner, register("owner")).await;
    assert!(result.success);
    let (_other, result) = try_register(&relay, &thief, register("thief")).await;
    assert!(result.success);
    let public = relay.public;
    let visit = tokio::spawn(async move { get(public, "/?token=owner", "").await });
    let id = link.asked().await;
    // The id has leaked. Neither the thief's key nor the owner's with another name can use it.
    for (who, name) in [(&thief, "owner"), (&thief, "thief"), (&owner, "thief")] {
        let mut stolen = Peer::secure(relay.proxy, who).await;
        stolen.present(&id, name).await;
        assert!(stolen.hear().await.is_none(), "{name}");
    }
    let mut tunnel = Peer::secure(relay.proxy, &owner).await;
    tunnel.present(&id, "owner").await;
    assert!(matches!(tunnel.hear().await, Some(Command::Open { .. })));
    tunnel
        .wr
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nowner")
        .await
        .unwrap();
    tunnel.wr.flush().await.unwrap();
    assert_eq!(within("the answer", visit).await.unwrap().text(), "owner");
    let mut again = Peer::secure(relay.proxy, &owner).await;
    again.present(&id, "owner").await;
    assert!(again.hear().await.is_none(), "an id is good once");
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_half_open_connections_cost_others_nothing() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let before = relay.daemon.rss_kib();
    // More than the relay lets wait; half of them silent, half of them in the middle of a handshake.
    let mut held = Vec::new();
    for n in 0..5000 {
        let to = if n % 2 == 0 { relay.control } else { relay.proxy };
        let mut tcp = TcpStream::connect(to).await.unwrap();
        if n % 4 < 2 {
            tcp.write_all(&[0x16, 3, 1]).await.unwrap();
        }
        held.push(tcp);
    }
    let start = Instant::now();
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    assert_eq!(get(relay.public, "/?token=demo", "").await.status, 200);
    println!(
        "under a flood: registered and served in {:?}; the relay grew by {} KiB",
        start.elapsed(),
        relay.daemon.rss_kib().saturating_sub(before)
    );
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_lying_peers_are_cut_off() {
    let relay = Relay::start().await;
    // One byte, and then nothing.
    let mut slow = TcpStream::connect(relay.control).await.unwrap();
    slow.write_all(&[0x16]).await.unwrap();
    let mut other = RawClient::connect(relay.proxy).await;
    other.send("GET / HTTP/1.1\r\n\r\n").await;
    assert!(other.rest().await.is_empty());
    // A length of 4 GiB, inside TLS.
    let identity = Identity::generate().unwrap();
    let before = relay.daemon.rss_kib();
    for port in [relay.control, relay.proxy] {
        let mut liar = support::secure(port, &identity).await;
        liar.write_all(&[0xff; 4]).await.unwrap();
        liar.flush().await.unwrap();
        let (mut byte, start) = ([0], Instant::now());
        assert!(!matches!(within("the end", liar.read(&mut byte)).await, Ok(1)));
        // At once, not when the deadline of silent peers is over.
        let took = start.elapsed();
        assert!(took < arp_common::defaults::HANDSHAKE, "{took:?}");
    }
    assert!(relay.daemon.rss_kib() < before + 8 * 1024);
    let mut byte = [0];
    assert!(!matches!(within("the end", slow.read(&mut byte)).await, Ok(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_needs_no_privileges_and_writes_only_to_its_data_directory() {
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| dir.path().join(name);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_arps"));
    for name in ["data", "cwd", "home", "tmp"] {
        std::fs::create_dir(of(name)).unwrap();
    }
    if std::fs::metadata(dir.path()).unwrap().uid() == 0 {
        // We are root: it becomes somebody who may do nothing, and who must be able to read the program.
        std::fs::copy(env!("CARGO_BIN_EXE_arps"), of("arps")).unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for name in ["data", "cwd", "home", "tmp"] {
            chown(of(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        command = std::process::Command::new(of("arps"));
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut relay = command
        .args([
            "--bind",
            "127.0.0.1",
            "--control-port",
            "0",
            "--proxy-port",
            "0",
            "--public-port",
            "0",
        ])
        .arg("--data-dir")
        .arg(of("data"))
        .current_dir(of("cwd"))
        .env("HOME", of("home"))
        .env("TMPDIR", of("tmp"))
        .env_remove("XDG_DATA_HOME")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (out, err) = (relay.stdout.take().unwrap(), relay.stderr.take().unwrap());
    let (said, lines) = std::sync::mpsc::channel();
    let other = said.clone();
    std::thread::spawn(move || {
        BufReader::new(out)
            .lines()
            .map_while(Result::ok)
            .for_each(|l| drop(said.send(l)))
    });
    std::thread::spawn(move || {
        BufReader::new(err)
            .lines()
            .map_while(Result::ok)
            .for_each(|l| drop(other.send(l)))
    });
    let port = |line: &str| {
        let rest = line.split_once("control ")?.1;
        rest.split([',', ' '])
            .next()?
            .parse::<std::net::SocketAddr>()
            .ok()
    };
    let control = loop {
        let line = lines.recv_timeout(Duration::from_secs(30)).expect("it is up");
        if let Some(control) = port(&line).filter(|_| line.contains("is up")) {
            break control;
        }
    };
    let mut edge = Peer::secure(control, &Identity::generate().unwrap()).await;
    assert!(edge.register(register("demo")).await.success);
    assert!(of("data").join("store.db").exists());
    for name in ["cwd", "home", "tmp"] {
        let left: Vec<_> = std::fs::read_dir(of(name)).unwrap().collect();
        assert!(left.is_empty(), "{name}: {left:?}");
    }
    relay.kill().unwrap();
    relay.wait().unwrap();
}
