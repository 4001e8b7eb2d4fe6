//! What a person sees when arpc starts, or cannot.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_testkit::daemon::{Daemon, Edge, Relay};
use arp_testkit::origin::Origin;
use tokio::net::TcpListener;

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
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
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
    assert!(said.contains("connecting again in"), "{said}");
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
    std::fs::write(&path, "local-prot = 3000\n").unwrap();
    let (code, said) = run(&["--config", file, "--check-config"]).await;
    assert!(code == Some(2) && said.contains("local-prot"), "{said}");
    let mut relay = Daemon::start(
        "arps",
        &["--check-config", "--head-timeout", "0"].map(str::to_owned),
        &[],
    );
    assert_eq!(relay.ended().await.code(), Some(2));
}
