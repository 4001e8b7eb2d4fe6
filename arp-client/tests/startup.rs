//! What a person sees when arpc starts, or cannot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "startup/gateway.rs"]
mod gateway;

use arp_testkit::daemon::{Daemon, Edge, Relay};
use arp_testkit::origin::Origin;
use tokio::net::TcpListener;

/// An address where nobody listens, and nobody else will as long as the socket is kept.
fn nobody() -> (tokio::net::TcpSocket, std::net::SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Runs arpc to its end: exit code and everything it said.
async fn run(args: &[&str]) -> (Option<i32>, String) {
    let mut edge = Edge::builder().args(args.iter().copied()).spawn();
    let status = edge.daemon.ended().await;
    (status.code(), edge.daemon.output())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_edge_says_who_it_is_and_where_it_is_reached() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--token", "alice"])
        .start()
        .await;
    let mut edge = edge;
    let base = format!("http://127.0.0.1:{}", relay.public.port());
    edge.daemon
        .line("the second URL", |l| {
            l.contains(&format!("{base}/?token=alice")).then_some(())
        })
        .await;
    let said = edge.daemon.output();
    for part in [
        "Client id:  demo",
        "TCP, local service 127.0.0.1:",
        "Registered",
        &format!("Public URL: {base}/?token=demo"),
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains('█'), "no QR code where nobody looks");
    // The log file is there, and holds no token.
    edge.daemon.terminate();
    assert!(edge.daemon.ended().await.success());
    let logs = edge.home.path().join("data/arpc/logs");
    let file = std::fs::read_dir(&logs).unwrap().next().unwrap().unwrap();
    let name = file.file_name().into_string().unwrap();
    assert!(
        name.starts_with("arpc.log.20") && name.len() == "arpc.log.2026-01-01".len(),
        "{name}"
    );
    assert!(!std::fs::read_to_string(file.path()).unwrap().contains("token="));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_derived_client_id_is_the_same_each_time() {
    let relay = Relay::start().await;
    let mut ids = Vec::new();
    let mut home = None;
    for _ in 0..2 {
        let mut builder = Edge::builder()
            .relay_at(relay.control, relay.proxy)
            .args(["--local-port", "1"]);
        if let Some(home) = home.take() {
            builder = builder.home(home);
        }
        let mut edge = builder.start().await;
        ids.push(
            edge.daemon
                .line("its id", |l| l.strip_prefix("Client id:  ").map(str::to_owned))
                .await,
        );
        edge.daemon.terminate();
        edge.daemon.ended().await;
        home = Some(edge.home);
    }
    assert_eq!(ids[0], ids[1]);
    assert!(
        ids[0].len() == 32
            && ids[0]
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
    );
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn no_token_goes_to_the_journal() {
    use std::os::unix::fs::MetadataExt;
    let relay = Relay::start().await;
    let dir = tempfile::tempdir().unwrap();
    let journal = std::fs::File::create(dir.path().join("journal")).unwrap();
    let about = journal.metadata().unwrap();
    let mut arpc = tokio::process::Command::new(env!("CARGO_BIN_EXE_arpc"))
        .args([
            "--local-port",
            "1",
            "--client-id",
            "laptop-of-ann",
            "--token",
            "a-lasting-token",
        ])
        .args(["--control-port", &relay.control.port().to_string()])
        .args(["--proxy-port", &relay.proxy.port().to_string()])
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .env("HOME", dir.path())
        .env("XDG_DATA_HOME", dir.path())
        .env("JOURNAL_STREAM", format!("{}:{}", about.dev(), about.ino()))
        .stderr(journal.try_clone().unwrap())
        .stdout(journal)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let until = std::time::Instant::now() + arp_testkit::daemon::PATIENCE;
    let said = loop {
        let said = std::fs::read_to_string(dir.path().join("journal")).unwrap();
        if said.contains("arpc tokens list") {
            break said;
        }
        assert!(std::time::Instant::now() < until, "{said}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert!(
        said.contains("Client id:  lapt…") && said.contains("/?token=lapt…"),
        "{said}"
    );
    assert!(
        !said.contains("laptop-of-ann") && !said.contains("a-lasting-token"),
        "{said}"
    );
    arpc.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_flags_are_told_in_one_line_each_with_exit_code_2() {
    for (args, part) in [
        (&[][..], "--local-port is missing"),
        (
            &["--command-mode", "--local-port", "3000"],
            "choose one of the two modes",
        ),
        (
            &["--local-port", "3000", "--enable-mcp"],
            "--enable-mcp only goes with --command-mode",
        ),
        (
            &["--local-port", "3000", "--client-id", "a/b"],
            "--client-id may only have",
        ),
        (&["--local-port", "70000"], "70000"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--config", "/no/such/file"], "/no/such/file"),
    ] {
        let (code, said) = run(args).await;
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(said.contains(part), "{part:?} in {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_relay_is_told_with_what_to_check() {
    let (_kept, nobody) = nobody();
    let nobody = nobody.port().to_string();
    let base = [
        "--local-port",
        "1",
        "--plaintext",
        "--auto-reconnect=false",
        "--control-port",
        &nobody,
    ];
    let (code, said) = run(&base).await;
    assert_eq!(code, Some(1));
    let last = said.lines().find(|l| l.starts_with("arpc: ")).expect(&said);
    assert!(
        last.contains("cannot reach the relay") && last.contains(&nobody) && last.contains("check"),
        "{last}"
    );
    let (code, said) = run(&[
        "--local-port",
        "1",
        "--plaintext",
        "--auto-reconnect=false",
        "--server-addr",
        "no.such.host.invalid",
    ])
    .await;
    assert_eq!(code, Some(1), "{said}");
    // With reconnecting on, the first connection is tried for a while and then given up.
    let (code, said) = run(&[
        "--local-port",
        "1",
        "--plaintext",
        "--reconnect-interval",
        "1",
        "--control-port",
        &nobody,
    ])
    .await;
    assert_eq!(code, Some(1));
    assert_eq!(
        said.matches("connecting again until it is back").count(),
        1,
        "{said}"
    );
    assert_eq!(said.matches("cannot reach the relay").count(), 2, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_auto_reconnect_a_lost_relay_ends_it() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let mut relay = relay;
    let mut edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--auto-reconnect=false"])
        .start()
        .await;
    relay.daemon.kill().await;
    assert_eq!(edge.daemon.ended().await.code(), Some(1));
    assert!(
        edge.daemon.output().contains("lost the relay"),
        "{}",
        edge.daemon.output()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_file_is_read_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("arpc.toml");
    let file = path.to_str().unwrap();
    std::fs::write(&path, "local-port = 3000\nclient-id = \"from-file\"\n").unwrap();
    let (code, said) = run(&["--config", file, "--check-config"]).await;
    assert_eq!((code, said.contains("is good")), (Some(0), true), "{said}");
    std::fs::write(&path, "local-prot = 3000\ncontrol-port = \"x\"\n").unwrap();
    let (code, said) = run(&["--config", file, "--check-config"]).await;
    assert_eq!(code, Some(2));
    for part in [
        "line 1: there is no setting called local-prot; did you mean local-port?",
        "line 2: control-port has to be a whole number from 0 to 65535, and is a text",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let mut relay = Daemon::start(
        "arps",
        &["--check-config", "--head-timeout", "0"].map(str::to_owned),
        &[],
    );
    assert_eq!(relay.ended().await.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_opens_what_the_settings_name() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data/arpc");
    std::fs::create_dir_all(&data).unwrap();
    for file in ["edge-key.pem", "known_relays"] {
        std::fs::write(data.join(file), "nonsense").unwrap();
    }
    let args = [
        "--check-config",
        "--command-mode",
        "--enable-fs",
        "--fs-root",
        "/no/such/directory",
    ];
    let mut edge = Edge::builder().args(args).home(home).spawn();
    assert_eq!(edge.daemon.ended().await.code(), Some(2));
    let said = edge.daemon.output();
    for part in [
        "edge-key.pem",
        "line 1 is damaged",
        "--fs-root /no/such/directory",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_relay_is_told_once_in_words_and_then_quietly() {
    let (mut relay, origin) = (Relay::start().await, Origin::start("o").await);
    let mut edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--reconnect-interval", "1"])
        .start()
        .await;
    relay.daemon.kill().await;
    edge.daemon
        .line("that it is lost", |l| {
            (l.contains("lost the relay: ") && l.contains("until it is back")).then_some(())
        })
        .await;
    // Some tries later; they are told at debug only.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    let said = edge.daemon.output();
    assert!(
        !said.contains("cannot reach") && !said.contains("os error"),
        "{said}"
    );
    let relay = Relay::builder().at(&relay).start().await;
    edge.daemon
        .line("that it is back", |l| {
            l.contains("registered again with the relay").then_some(())
        })
        .await;
    assert_eq!(
        edge.daemon.output().matches("WARN").count(),
        1,
        "{}",
        edge.daemon.output()
    );
    drop(relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_proxy_port_is_one_warning_that_names_its_flag() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let (_kept, nobody) = nobody();
    let mut edge = Edge::builder()
        .relay_at(relay.control, nobody)
        .args([
            "--client-id",
            "demo",
            "--local-port",
            &origin.addr.port().to_string(),
        ])
        .start()
        .await;
    edge.daemon
        .line("the warning", |l| {
            (l.contains("--proxy-port") && l.contains("nothing listens there")).then_some(())
        })
        .await;
    let answer = arp_testkit::http::get(relay.public, "/?token=demo", "").await;
    assert_eq!(answer.status, 504);
    let said = edge.daemon.output();
    assert_eq!(said.matches("cannot open tunnels").count(), 1, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_id_is_read_from_a_small_file_by_the_command_that_was_promised() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let edge = Edge::tcp(&relay, "my-id", origin.addr).await;
    let host = relay.public.to_string();
    let line = format!(r#"echo "http://{host}/?token=$(grep client-id ~/.arp-client/config)""#);
    let told = std::process::Command::new("sh")
        .args(["-c", &line])
        .env("HOME", edge.home.path())
        .output()
        .unwrap();
    let url = String::from_utf8(told.stdout).unwrap();
    let target = url.trim().strip_prefix(&format!("http://{host}")).unwrap();
    assert_eq!(target, "/?token=client-id=my-id");
    for target in [target, "/?token=client-id=my-id/hello"] {
        let answer = arp_testkit::http::get(relay.public, target, "").await;
        assert_eq!(answer.text(), "hello from o", "{target}");
    }
    assert!(!origin.seen().pop().unwrap().target.contains("my-id"));
    use std::os::unix::fs::PermissionsExt;
    let file = edge.home.path().join(".arp-client/config");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o077, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_name_that_nobody_has_is_told_what_its_owner_must_type() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let answer = arp_testkit::http::get(relay.public, "/x?token=alice", "").await;
    let told = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(
        answer.status == 404 && told.contains("arpc tokens add NAME"),
        "{told}"
    );
    let arpc = |args: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_arpc"))
            .args(["--client-id", "demo", "tokens"])
            .args(args)
            .env("HOME", edge.home.path())
            .env("XDG_DATA_HOME", edge.home.path().join("data"))
            .status()
            .unwrap()
            .success()
    };
    assert!(arpc(&["add", "alice"]));
    let answer = arp_testkit::http::get(relay.public, "/x?token=alice", "").await;
    assert_eq!(answer.status, 200);
    // Taken back, it was no typing error.
    assert!(arpc(&["revoke", "alice"]));
    let answer = arp_testkit::http::get(relay.public, "/x?token=alice", "").await;
    let told = answer.json()["message"].as_str().unwrap().to_owned();
    assert!(
        told.contains("revoked or has expired") && !told.contains("typing"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn command_mode_lists_the_agents_and_what_to_do_about_the_missing_ones() {
    let relay = Relay::start().await;
    let mut edge = Edge::builder()
        .relay_at(relay.control, relay.proxy)
        .args(["--command-mode"])
        .var("PATH", "/nonexistent")
        .start()
        .await;
    edge.daemon
        .line("what was looked for", |l| {
            l.starts_with("Agents found on this machine:").then_some(())
        })
        .await;
    for agent in ["Claude", "Codex", "Gemini"] {
        edge.daemon
            .line("what to do", |l| {
                (l.contains(agent) && l.contains("was not found") && l.contains("nstall")).then_some(())
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn debug_shows_each_request_on_both_sides_and_never_a_token() {
    let relay = Relay::builder().var("RUST_LOG", "debug").start().await;
    let mut relay = relay;
    let origin = Origin::start("o").await;
    let mut edge = Edge::tcp_builder(&relay, "very-secret-name", origin.addr)
        .var("RUST_LOG", "debug")
        .start()
        .await;
    for target in [
        "/t/very-secret-name/one?secret=7",
        "/two?token=very-secret-name",
        "/two?token=very-secret-name",
    ] {
        assert_eq!(arp_testkit::http::get(relay.public, target, "").await.status, 200);
    }
    assert_eq!(
        arp_testkit::http::get(relay.public, "/t/very-secret-typo/x", "")
            .await
            .status,
        404
    );
    for daemon in [&mut relay.daemon, &mut edge.daemon] {
        for (path, tunnel) in [("/one", "fresh"), ("/two", "reused")] {
            daemon
                .line("the request", |l| {
                    let parts = [
                        "method=\"GET\"",
                        &format!("path=\"{path}\""),
                        "status=200",
                        "ms=",
                        &format!("tunnel=\"{tunnel}\""),
                    ];
                    parts.iter().all(|p| l.contains(p)).then_some(())
                })
                .await;
        }
    }
    relay
        .daemon
        .line("the refusal", |l| {
            (l.contains("unknown_token") && l.contains("404")).then_some(())
        })
        .await;
    assert!(
        !relay.daemon.output().contains("secret-"),
        "{}",
        relay.daemon.output()
    );
    let logged = edge.daemon.output();
    let logged = logged
        .lines()
        .filter(|l| l.contains("DEBUG") || l.contains("INFO"));
    for line in logged {
        assert!(!line.contains("secret-") && !line.contains("secret=7"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_under_way_are_counted_when_it_stops_and_idle_tunnels_are_not() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let mut edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let answer = arp_testkit::http::get(relay.public, "/?token=demo", "").await;
    assert_eq!(answer.status, 200);
    edge.daemon.terminate();
    assert!(edge.daemon.ended().await.success());
    assert!(
        !edge.daemon.output().contains("waiting up to"),
        "{}",
        edge.daemon.output()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_says_which_flag_chooses_a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for flag in ["--control-port", "--proxy-port", "--public-port"] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().to_str().unwrap();
        let mut args = vec!["--bind", "127.0.0.1", "--data-dir", data];
        for other in ["--control-port", "--proxy-port", "--public-port"] {
            args.extend([other, if other == flag { &port } else { "0" }]);
        }
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let mut relay = Daemon::start("arps", &args, &[]);
        assert_eq!(relay.ended().await.code(), Some(1));
        let said = relay.output();
        assert!(
            said.contains(&format!("({flag})")) && said.contains(&format!("with {flag}")),
            "{said}"
        );
        assert_eq!(said.matches("cannot listen").count(), 1, "told once: {said}");
    }
}

/// One request with these fields; its answer is of no interest here.
async fn visit(at: std::net::SocketAddr, method: &str, target: &str, fields: &str, body: &str) -> u16 {
    let mut client = arp_testkit::http::RawClient::connect(at).await;
    let length = body.len();
    client
        .send(&format!(
            "{method} {target} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
        ))
        .await;
    client.answer().await.status
}

/// Registration, requests that name the client in each way, a session, the admin port: all at the level that says most.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_logged_at_any_level() {
    const JOIN: &str = "join-3f9c1a77e2b04d";
    const ID: &str = "edge-7c2f8d11aa95be";
    const TOKEN: &str = "name-5b1d9e0c4af327";
    const MISTYPED: &str = "name-5b1d9e0c4af32x";
    let mut relay = Relay::builder()
        .args(["--join-key", JOIN])
        .var("RUST_LOG", "trace")
        .start()
        .await;
    let claude = std::path::Path::new(env!("CARGO_BIN_EXE_arpc")).with_file_name("examples/scripted_claude");
    let claude = format!("--agent-path=claude={}", claude.display());
    let project = tempfile::tempdir().unwrap();
    let mut edge = Edge::builder()
        .relay_at(relay.control, relay.proxy)
        .args([
            "--command-mode",
            "--client-id",
            ID,
            "--token",
            TOKEN,
            "--join-key",
            JOIN,
            &claude,
        ])
        .var("RUST_LOG", "trace")
        .start()
        .await;
    let wrong = Edge::builder().relay_at(relay.control, relay.proxy);
    let wrong = wrong.args([
        "--local-port",
        "1",
        "--client-id",
        "other",
        "--join-key",
        "join-wrong-8801aa",
    ]);
    let mut wrong = wrong.var("RUST_LOG", "trace").spawn();
    assert_eq!(wrong.daemon.ended().await.code(), Some(1));

    let public = relay.public;
    for (target, fields, status) in [
        (format!("/api/health?token={TOKEN}"), String::new(), 200),
        (format!("/?token={ID}/api/health"), String::new(), 200),
        (format!("/t/{TOKEN}/api/health"), String::new(), 200),
        ("/api/health".to_owned(), format!("X-ARP-Token: {ID}\r\n"), 200),
        (
            "/api/health".to_owned(),
            format!("Referer: http://{public}/?token={TOKEN}\r\n"),
            200,
        ),
        (format!("/api/health?token={MISTYPED}"), String::new(), 404),
        (format!("/t/{MISTYPED}/"), String::new(), 404),
    ] {
        assert_eq!(
            visit(public, "GET", &target, &fields, "").await,
            status,
            "{target} {fields}"
        );
    }
    let body = format!(
        r#"{{"executor":"claude","prompt":"say hello","project_path":{:?}}}"#,
        project.path()
    );
    let fields = format!("X-ARP-Token: {TOKEN}\r\nContent-Type: application/json\r\n");
    assert_eq!(visit(public, "POST", "/api/sessions", &fields, &body).await, 201);
    let admin = relay.admin().await;
    let key = std::fs::read_to_string(relay.data.path().join("admin-key"))
        .unwrap()
        .trim()
        .to_owned();
    let fields = format!("Authorization: Bearer {key}\r\n");
    assert_eq!(visit(admin, "GET", "/api/clients", &fields, "").await, 200);
    // What has to be there for the test to mean anything.
    let request = |l: &str| (l.contains("DEBUG") && l.contains("/api/sessions")).then_some(());
    relay.daemon.line("the request in its log", request).await;

    // With its session's agent, which would outlive it.
    let parked = std::process::Command::new(env!("CARGO_BIN_EXE_arpc"))
        .args(["stop", "--park"])
        .env("HOME", edge.home.path())
        .env("XDG_DATA_HOME", edge.home.path().join("data"))
        .status()
        .unwrap();
    assert!(parked.success());
    edge.daemon.ended().await;
    relay.daemon.terminate();
    relay.daemon.ended().await;
    let logs = edge.home.path().join("data/arpc/logs");
    let file = std::fs::read_dir(&logs).unwrap().next().unwrap().unwrap();
    let edge_log = std::fs::read_to_string(file.path()).unwrap();
    assert!(
        edge_log.contains("DEBUG") && edge_log.lines().count() > 10,
        "{edge_log}"
    );
    // The greeting on its standard output names them, for the person who started it.
    let printed = edge.daemon.output();
    let lines = printed.lines().filter(|l| {
        ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"]
            .iter()
            .any(|w| l.contains(w))
    });
    let printed = lines.collect::<Vec<_>>().join("\n");
    let key_line = |dir: &std::path::Path, name: &str| {
        let text = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        text.lines().nth(1).unwrap_or("no such key").to_owned()
    };
    let private = key_line(relay.data.path(), "relay-key.pem");
    for (whose, log) in [
        ("relay", relay.daemon.output()),
        ("edge", edge_log),
        ("edge's terminal", printed),
        ("refused edge", wrong.daemon.output()),
    ] {
        for secret in [JOIN, ID, TOKEN, MISTYPED, "join-wrong-8801aa", &key, &private] {
            let found = log.lines().find(|l| l.contains(secret));
            assert_eq!(found, None, "in the log of the {whose}");
        }
    }
}

/// All that both say, at the level that says most, read as a program reads it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_for_programs_is_json_in_every_line() {
    use serde_json::Value;
    const JOIN: &str = "join-2b04d3f9c1a77e";
    const ID: &str = "edge-11aa95be7c2f8d";
    let (data, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let start = |program: &'static str, args: &[&str]| {
        let args: Vec<_> = args
            .iter()
            .chain(&["--log-format", "json"])
            .map(ToString::to_string)
            .collect();
        let vars = [
            ("HOME".to_owned(), home.path().to_str().unwrap().to_owned()),
            ("RUST_LOG".to_owned(), "trace".to_owned()),
        ];
        Daemon::start(program, &args, &vars)
    };
    let event = |wanted: &'static str| {
        move |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["fields"]["message"] == wanted).then_some(line["fields"].clone())
        }
    };
    let dir = data.path().join("relay");
    let ports = [
        "--control-port",
        "0",
        "--proxy-port",
        "0",
        "--public-port",
        "0",
        "--admin-port",
        "0",
    ];
    let local = [
        "--bind",
        "127.0.0.1",
        "--join-key",
        JOIN,
        "--data-dir",
        dir.to_str().unwrap(),
    ];
    let mut relay = start("arps", &[&ports[..], &local].concat());
    let up = relay.line("that it serves", event("serving")).await;
    let at = |name: &str| {
        up[name]
            .as_str()
            .unwrap()
            .parse::<std::net::SocketAddr>()
            .unwrap()
    };
    assert!(up["version"].as_str().unwrap().starts_with("0."), "{up}");
    assert!(up["fingerprint"].as_str().unwrap().starts_with("SHA256:"), "{up}");
    assert_ne!(at("admin").port(), 0);
    let (control, proxy) = (at("control").port().to_string(), at("proxy").port().to_string());
    let edge = |dir: &str, key: &str| {
        let dir = data.path().join(dir);
        let there = [
            "--server-addr",
            "127.0.0.1",
            "--control-port",
            &control,
            "--proxy-port",
            &proxy,
        ];
        let own = [
            "--client-id",
            ID,
            "--local-port",
            "1",
            "--join-key",
            key,
            "--data-dir",
            dir.to_str().unwrap(),
        ];
        start("arpc", &[&there[..], &own].concat())
    };
    let mut refused = edge("refused", "join-wrong-01aa88");
    assert_eq!(refused.ended().await.code(), Some(1));
    let mut served = edge("edge", JOIN);
    let told = served
        .line("that it is registered", event("registered with the relay"))
        .await;
    assert_eq!(told["relay"], "127.0.0.1", "{told}");
    // Nobody listens behind it: a failure is an event, too.
    assert_eq!(
        visit(at("public"), "GET", &format!("/?token={ID}"), "", "").await,
        502
    );
    served.terminate();
    served.ended().await;
    relay.terminate();
    relay.ended().await;
    for (whose, said) in [
        ("relay", relay.output()),
        ("edge", served.output()),
        ("refused edge", refused.output()),
    ] {
        assert!(said.lines().count() > 2, "{whose}: {said}");
        for line in said.lines() {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{whose}: {e}: {line}"));
            assert!(
                event["timestamp"].is_string() && event["level"].is_string(),
                "{whose}: {line}"
            );
            assert!(
                event["fields"]["message"].as_str().is_some_and(|m| !m.is_empty()),
                "{whose}: {line}"
            );
            for secret in [JOIN, ID, "join-wrong-01aa88"] {
                assert!(!line.contains(secret), "{whose}: {line}");
            }
        }
    }
    let refusal = refused.output();
    assert!(
        refusal
            .lines()
            .any(|l| l.contains("ERROR") && l.contains("join key")),
        "{refusal}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_how_it_does_and_its_exit_code_too() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let mut edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let data = edge.home.path().join("data/arpc");
    let status = |json: bool| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_arpc"));
        command
            .arg("--data-dir")
            .arg(&data)
            .args(["--client-id", "demo", "status"]);
        let done = command.args(json.then_some("--json")).output().unwrap();
        (
            done.status.code(),
            String::from_utf8([done.stdout, done.stderr].concat()).unwrap(),
        )
    };
    let (code, said) = status(false);
    assert!(code == Some(0) && said.contains("registered  for"), "{said}");
    let told: serde_json::Value = serde_json::from_str(&status(true).1).unwrap();
    assert_eq!(
        (&told["registered"], told["registrations"].as_u64()),
        (&true.into(), Some(1))
    );
    let mut relay = relay;
    relay.daemon.kill().await;
    edge.daemon
        .line("that it is lost", |l| l.contains("lost the relay").then_some(()))
        .await;
    let (code, said) = status(false);
    assert!(code == Some(1) && said.contains("NO: "), "{said}");
    edge.daemon.terminate();
    edge.daemon.ended().await;
    assert_eq!(status(false).0, Some(3));
}

/// A user's systemd that writes down what it is told.
#[cfg(target_os = "linux")]
#[test]
fn a_service_is_set_up_and_removed_by_the_means_of_the_system() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let (bin, calls) = (home.path().join("bin"), home.path().join("calls"));
    std::fs::create_dir(&bin).unwrap();
    let script = format!("#!/bin/sh\necho \"$@\" >> {}\n", calls.display());
    std::fs::write(bin.join("systemctl"), script).unwrap();
    std::fs::set_permissions(bin.join("systemctl"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = |args: &[&str]| {
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let done = std::process::Command::new(env!("CARGO_BIN_EXE_arpc"))
            .args([&["service"], args].concat())
            .env("HOME", home.path())
            .env("XDG_CONFIG_HOME", home.path().join(".config"))
            .env("PATH", path)
            .output()
            .unwrap();
        (
            done.status.code(),
            String::from_utf8([done.stdout, done.stderr].concat()).unwrap(),
        )
    };
    let unit = home.path().join(".config/systemd/user/arpc.service");
    let (code, said) = run(&["install"]);
    assert!(
        code == Some(1) && said.contains("arpc config example"),
        "without settings: {said}"
    );
    assert_eq!(run(&["install", "--", "--join-key", "secret-key"]).0, Some(1));
    assert_eq!(run(&["uninstall"]).0, Some(1));
    let (code, said) = run(&[
        "install",
        "--",
        "--server-addr",
        "relay.example",
        "--command-mode",
    ]);
    assert_eq!(code, Some(0), "{said}");
    let text = std::fs::read_to_string(&unit).unwrap();
    assert!(
        text.contains("\"--server-addr\" \"relay.example\" \"--command-mode\"\n"),
        "{text}"
    );
    let told = std::fs::read_to_string(&calls).unwrap();
    for call in [
        "--user daemon-reload",
        "--user enable arpc",
        "--user restart arpc",
    ] {
        assert!(told.lines().any(|l| l == call), "{told}");
    }
    assert_eq!(run(&["status"]).0, Some(0));
    assert_eq!(run(&["uninstall"]).0, Some(0));
    assert!(!unit.exists());
}
