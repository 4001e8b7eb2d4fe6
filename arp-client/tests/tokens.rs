//! Tokens that come and go while the edge runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_testkit::daemon::{Daemon, Edge, PATIENCE, Relay};
use arp_testkit::http::get;
use arp_testkit::origin::Origin;
use std::process::Command;
use std::time::{Duration, Instant};

/// `arpc tokens …` of the user who runs `edge`.
fn tokens(edge: &Edge, args: &[&str]) -> (bool, String) {
    arpc(edge, &[&["--client-id", "demo", "tokens"], args].concat())
}

/// `arpc …` of the user who runs `edge`.
fn arpc(edge: &Edge, args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_arpc"))
        .args(args)
        .env("HOME", edge.home.path())
        .env("XDG_DATA_HOME", edge.home.path().join("data"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

async fn status(relay: &Relay, token: &str) -> u16 {
    get(relay.public, &format!("/?token={token}"), "").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_added_revoked_and_expire_while_running() {
    let (mut relay, origin) = (Relay::start().await, Origin::start("o").await);
    let edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--no-id-token"])
        .start()
        .await;
    assert_eq!(status(&relay, "demo").await, 404, "the id is no token");
    assert_eq!(status(&relay, "alice").await, 404);
    assert_eq!(
        tokens(&edge, &["add", "alice", "--expires", "7d"]),
        (true, "alice\n".into())
    );
    assert_eq!(status(&relay, "alice").await, 200);
    let (ok, random) = tokens(&edge, &["add"]);
    assert!(ok && random.trim().len() == 32);
    assert_eq!(status(&relay, random.trim()).await, 200);
    assert!(!tokens(&edge, &["add", "alice"]).0);
    assert!(!tokens(&edge, &["add", "a/b"]).0);
    assert!(!tokens(&edge, &["add", "x", "--expires", "soon"]).0);
    let (_, list) = tokens(&edge, &["list"]);
    assert!(
        // A moment has passed since, or none that counts.
        (list.contains("alice  (expires in 6 d 23 h)") || list.contains("alice  (expires in 7 d 0 h)"))
            && !list.contains("demo"),
        "{list}"
    );
    assert_eq!(tokens(&edge, &["revoke", "alice"]), (true, "revoked\n".into()));
    assert_eq!(status(&relay, "alice").await, 404);
    assert!(!tokens(&edge, &["revoke", "alice"]).0);
    // What another client has is refused, and nothing of it stays.
    let _other = Edge::tcp(&relay, "other", origin.addr).await;
    let (ok, said) = tokens(&edge, &["add", "other"]);
    assert!(!ok && said.contains("belongs to another client"), "{said}");
    assert!(!tokens(&edge, &["list"]).1.contains("other"));
    // A short life.
    assert!(tokens(&edge, &["add", "brief", "--expires", "2s"]).0);
    assert_eq!(status(&relay, "brief").await, 200);
    let start = Instant::now();
    while status(&relay, "brief").await != 404 {
        assert!(start.elapsed() < PATIENCE, "it does not expire");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // They outlive both daemons.
    relay.daemon.kill().await;
    let relay = Relay::builder().at(&relay).start().await;
    let start = Instant::now();
    while status(&relay, random.trim()).await != 200 {
        assert!(start.elapsed() < PATIENCE, "it does not come back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!format!("{}{}", relay.daemon.output(), edge.daemon.output()).contains(random.trim()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_token_that_is_listed_can_be_revoked_and_let_in_again() {
    let (mut relay, origin) = (Relay::start().await, Origin::start("o").await);
    let edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--token", "Alice"])
        .start()
        .await;
    // Without a word more they are listed.
    let (ok, list) = tokens(&edge, &[]);
    assert!(
        ok && list == "demo  (client id)\nAlice  (configuration)\n",
        "{list}"
    );
    for line in list.lines() {
        let token = line.split_whitespace().next().unwrap();
        assert_eq!(status(&relay, token).await, 200);
        assert_eq!(tokens(&edge, &["revoke", token]), (true, "revoked\n".into()));
        assert_eq!(status(&relay, token).await, 404);
    }
    assert!(tokens(&edge, &[]).1.contains("Alice  (configuration, revoked)"));
    // They stay away when the relay comes back.
    relay.daemon.kill().await;
    let relay = Relay::builder().at(&relay).start().await;
    assert!(
        tokens(&edge, &["add", "bob"]).0 || {
            tokio::time::sleep(Duration::from_secs(6)).await;
            tokens(&edge, &["add", "bob"]).0
        }
    );
    assert_eq!(status(&relay, "bob").await, 200);
    assert_eq!(status(&relay, "Alice").await, 404);
    assert_eq!(tokens(&edge, &["add", "alice"]), (true, "alice\n".into()));
    assert_eq!(status(&relay, "Alice").await, 200);
    assert_eq!(status(&relay, "demo").await, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_running_arpc_it_is_said_what_to_do() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let mut edge = Edge::tcp(&relay, "demo", origin.addr).await;
    assert!(tokens(&edge, &["list"]).1.contains("demo  (client id)"));
    // The only one that runs is meant when none is named, whatever its id.
    assert!(arpc(&edge, &["tokens"]).1.contains("demo  (client id)"));
    assert!(arpc(&edge, &["status"]).0);
    let home = edge.home.path();
    let mut other = Edge::tcp_builder(&relay, "other", origin.addr)
        .var("HOME", home.to_str().unwrap())
        .var("XDG_DATA_HOME", home.join("data").to_str().unwrap())
        .start()
        .await;
    let asked = |args: &[&str], wanted: &str| {
        let (ok, said) = arpc(&edge, args);
        assert!(!ok && said.contains(wanted), "{said}");
    };
    asked(&["tokens"], "2 arpc run here");
    asked(&["status"], "say which one by --client-id");
    // What was left behind by one that was killed counts for nothing.
    other.daemon.kill().await;
    assert!(arpc(&edge, &["tokens"]).1.contains("demo  (client id)"));
    edge.daemon.terminate();
    edge.daemon.ended().await;
    assert!(!arpc(&edge, &["tokens"]).0);
    let (ok, said) = tokens(&edge, &["list"]);
    assert!(
        !ok && said.contains("no arpc with this client id runs here"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_relay_gave_away_meanwhile_is_dropped_and_the_edge_serves_on() {
    let (mut relay, origin) = (Relay::start().await, Origin::start("o").await);
    let mut edge = Edge::tcp(&relay, "demo", origin.addr).await;
    for token in ["alice", "bob"] {
        assert!(tokens(&edge, &["add", token]).0);
    }
    // While the relay is away its operator frees one of the names, and somebody else is faster.
    edge.daemon.signal("STOP");
    relay.daemon.kill().await;
    let data = relay.data.path().to_str().unwrap();
    let forget = ["clients", "forget", "alice", "--data-dir", data].map(str::to_owned);
    assert!(Daemon::start("arps", &forget, &[]).ended().await.success());
    let relay = Relay::builder().at(&relay).start().await;
    let other = Origin::start("other").await;
    let _faster = Edge::tcp_builder(&relay, "faster", other.addr)
        .args(["--token", "alice"])
        .start()
        .await;
    edge.daemon.signal("CONT");
    edge.daemon
        .line("which token was dropped", |l| {
            (l.contains("was dropped") && l.contains("refused")).then_some(())
        })
        .await;
    let hello = |token: &str| {
        let target = format!("/?token={token}");
        async move { get(relay.public, &target, "").await.text() }
    };
    assert_eq!(hello("demo").await, "hello from o");
    assert_eq!(hello("alice").await, "hello from other");
    let start = Instant::now();
    while hello("bob").await != "hello from o" {
        assert!(start.elapsed() < PATIENCE, "the other token comes back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (_, list) = tokens(&edge, &["list"]);
    assert!(list.contains("bob") && !list.contains("alice"), "{list}");
    // A token of the configuration is another matter: who asks for it is told, and stops.
    let mut edge = Edge::tcp_builder(&relay, "third", origin.addr)
        .args(["--token", "alice"])
        .spawn();
    assert_eq!(edge.daemon.ended().await.code(), Some(1));
}
