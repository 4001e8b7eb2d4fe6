//! Attackers who want somebody else's name, or want to know which names there are.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use arp_common::tls::Identity;
use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::get;
use arp_testkit::origin::Origin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{Peer, register, try_register, with_join_key};

/// Runs `arps` on the data directory of a relay.
fn arps(relay: &Relay, args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_arps"))
        .args(args)
        .arg("--data-dir")
        .arg(relay.data.path())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_key_cannot_take_the_id_and_the_rightful_edge_keeps_serving() {
    let (mut relay, origin) = (Relay::start().await, Origin::start("rightful").await);
    let evil = Origin::start("evil").await;
    let mut edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--token", "alice"])
        .start()
        .await;
    for (id, token) in [
        ("demo", "x1"),
        ("DEMO", "x2"),
        ("alice", "x3"),
        ("thief", "alice"),
        ("thief", "demo"),
    ] {
        let mut thief = Edge::tcp_builder(&relay, id, evil.addr)
            .args(["--token", token])
            .spawn();
        assert_eq!(thief.daemon.ended().await.code(), Some(1), "{id} {token}");
        thief
            .daemon
            .line("why", |l| l.contains("belongs to another client").then_some(()))
            .await;
    }
    relay
        .daemon
        .line("the attempt", |l| {
            (l.contains("refused an edge agent") && l.contains("SHA256:")).then_some(())
        })
        .await;
    for token in ["demo", "alice"] {
        assert_eq!(
            get(relay.public, &format!("/?token={token}"), "").await.text(),
            "hello from rightful"
        );
    }
    // Nor when the rightful one is away.
    edge.daemon.terminate();
    edge.daemon.ended().await;
    let mut thief = Edge::tcp_builder(&relay, "demo", evil.addr).spawn();
    assert_eq!(thief.daemon.ended().await.code(), Some(1));
    assert_eq!(get(relay.public, "/?token=demo", "").await.status, 503);
    // The same key comes back at once, and a second one of the same key replaces it.
    let edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .home(edge.home)
        .start()
        .await;
    assert_eq!(
        get(relay.public, "/?token=demo", "").await.text(),
        "hello from rightful"
    );
    drop(edge);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_replaces_its_old_registration_at_once() {
    let relay = Relay::start().await;
    let identity = Identity::generate().unwrap();
    let (mut old, first) = try_register(&relay, &identity, register("demo")).await;
    let (_new, second) = try_register(&relay, &identity, register("demo")).await;
    assert!(first.success && second.success);
    let told = loop {
        match old.hear().await {
            Some(arp_common::protocol::Command::GoAway { reason }) => break reason,
            Some(_) => {}
            None => panic!("it was not told"),
        }
    };
    assert_eq!(told, arp_common::protocol::GoAwayReason::Replaced);
}

#[tokio::test(flavor = "multi_thread")]
async fn bindings_survive_a_restart_and_can_be_forgotten() {
    let (mut relay, origin) = (Relay::start().await, Origin::start("o").await);
    let mut edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--token", "alice"])
        .start()
        .await;
    edge.daemon.kill().await;
    relay.daemon.kill().await;
    let relay = Relay::builder().at(&relay).start().await;
    // Known, and offline: not "no such token".
    for token in ["demo", "alice"] {
        let answer = get(relay.public, &format!("/?token={token}"), "").await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (503, Some("offline")),
            "{token}"
        );
    }
    assert_eq!(get(relay.public, "/?token=bob", "").await.status, 404);
    let thief = Identity::generate().unwrap();
    let (_, result) = try_register(&relay, &thief, register("demo")).await;
    assert!(!result.success && result.fatal == Some(true), "{result:?}");
    let (_, said) = arps(&relay, &["clients"]);
    assert!(said.contains("demo") && said.contains("SHA256:"), "{said}");
    assert!(!arps(&relay, &["clients", "forget", "nobody"]).0);
    let (done, said) = arps(&relay, &["clients", "forget", "demo"]);
    assert!(done && said.contains("2 name"), "{said}");
    let (_link, result) = try_register(&relay, &thief, register("demo")).await;
    assert!(result.success, "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_edges_never_take_a_bound_name_and_hold_theirs_while_they_are_here() {
    let relay = Relay::start_plain().await;
    let identity = Identity::generate().unwrap();
    let (link, result) = try_register(&relay, &identity, register("demo")).await;
    assert!(result.success);
    let v1 = |id| arp_common::protocol::Register {
        version: None,
        ..register(id)
    };
    let result = Peer::plain(relay.control).await.register(v1("demo")).await;
    assert!(!result.success && result.fatal.is_none());
    drop(link);
    let result = Peer::plain(relay.control).await.register(v1("Demo")).await;
    assert!(!result.success, "nor when its owner is away");
    // A plain edge has its name only by being here.
    let mut old = Peer::plain(relay.control).await;
    assert!(old.register(v1("old")).await.success);
    let (_, result) = try_register(&relay, &identity, register("old")).await;
    assert!(!result.success);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_edges_that_know_the_join_key_register() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "correct horse\n").unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let relay = Relay::builder().args(["--join-key-file", &path]).start().await;
    let identity = Identity::generate().unwrap();
    for wrong in [
        register("demo"),
        with_join_key("demo", "correct hors"),
        with_join_key("demo", ""),
    ] {
        let (_, result) = try_register(&relay, &identity, wrong).await;
        assert!(!result.success && result.error.unwrap().contains("join key"));
    }
    let origin = Origin::start("o").await;
    let _edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .var("ARPC_JOIN_KEY", "correct horse")
        .start()
        .await;
    assert!(!relay.daemon.output().contains("horse"));
    let mut open = Relay::start().await;
    open.daemon
        .line("a notice", |l| {
            l.contains("any edge agent may register").then_some(())
        })
        .await;
    let full = Relay::builder().args(["--max-clients", "1"]).start().await;
    let (_link, result) = try_register(&full, &identity, register("one")).await;
    assert!(result.success);
    let (_, result) = try_register(&full, &identity, register("two")).await;
    assert!(!result.success && result.error.unwrap().contains("--max-clients"));
}

#[tokio::test(flavor = "multi_thread")]
async fn probing_for_names_tells_nothing_after_a_few_tries() {
    let relay = Relay::start().await;
    let (owner, spy) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (_link, result) = try_register(&relay, &owner, register("known")).await;
    assert!(result.success);
    let mut told = String::new();
    for _ in 0..30 {
        let (_, result) = try_register(&relay, &spy, register("known")).await;
        told = result.error.unwrap();
        if told.contains("too many") {
            break;
        }
    }
    assert!(told.contains("too many"), "{told}");
    // A name that is free gets the same answer, and the owner is let in from the same address.
    let (_, result) = try_register(&relay, &spy, register("free")).await;
    assert_eq!(result.error, Some(told));
    let (_again, result) = try_register(&relay, &owner, register("known")).await;
    assert!(result.success, "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_tokens_is_slowed_and_valid_visitors_do_not_notice() {
    const STRONG: &str = "0123456789ABCDEF0123456789abcdef";
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--token", "other", "--token", "third", "--token", STRONG])
        .start()
        .await;
    let mut seen = Vec::new();
    for n in 0..40 {
        seen.push(get(relay.public, &format!("/?token=guess-{n}"), "").await.status);
    }
    assert_eq!((seen[0], seen[39]), (404, 429));
    let answer = get(relay.public, "/?token=guess", "").await;
    assert_eq!(answer.json()["code"], "too_many_unknown_tokens");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(get(relay.public, "/?token=demo", "").await.status, 200);
    // A thousand guesses in one request are a thousand guesses, and a right one among them is not told.
    let many: String = (0..1000).map(|n| format!("&token=g{n}")).collect();
    assert_eq!(get(relay.public, &format!("/?a{many}"), "").await.status, 429);
    let hidden = "/?token=g1&token=g2&token=g3&token=g4&token=other";
    assert_eq!(get(relay.public, hidden, "").await.status, 429);
    // Now sixteen connections guess as fast as they can …
    let stop = tokio_util::sync::CancellationToken::new();
    let mut guessers = tokio::task::JoinSet::new();
    let answered = Arc::new(AtomicUsize::new(0));
    for n in 0..16 {
        let (stop, public, answered) = (stop.clone(), relay.public, answered.clone());
        guessers.spawn(async move {
            let mut told = 0;
            while !stop.is_cancelled() {
                let answer = get(public, &format!("/?token=guess-{n}-{told}"), "").await;
                assert_eq!(answer.status, 429);
                told += 1;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            told
        });
    }
    let start = Instant::now();
    // … and still every valid visitor there is served: who was in before, who has a name nobody could guess, …
    assert_eq!(get(relay.public, "/?token=demo", "").await.status, 200);
    assert_eq!(
        get(relay.public, &format!("/?token={STRONG}"), "").await.status,
        200
    );
    // … and who comes anew with a short name, in turn; from then on at once.
    let before = answered.load(Ordering::Relaxed);
    assert_eq!(get(relay.public, "/?token=other", "").await.status, 200);
    let (anew, passed) = (start.elapsed(), answered.load(Ordering::Relaxed) - before);
    for _ in 0..5 {
        assert_eq!(get(relay.public, "/?token=other", "").await.status, 200);
    }
    // Each guesser is in the line once: they come before a new visitor so often at most, and those in flight.
    assert!(passed <= 3 * 16, "{passed} guesses were answered before");
    // A right guess takes as long as a wrong one, and no more are told than fifty a second.
    while start.elapsed() < Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    let told: usize = guessers.join_all().await.into_iter().sum();
    let most = start.elapsed().as_secs_f64() * 50.0 + 2.0;
    println!(
        "{told} guesses answered in {:?}; a new visitor among them after {anew:?}",
        start.elapsed()
    );
    assert!(
        (told as f64) < most,
        "{told} guesses were answered, {most} at most"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_applications_own_token_parameter_is_no_guess() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    for fields in [
        "Cookie: arp_token=demo\r\n".to_owned(),
        "Referer: http://relay.test/?token=demo\r\n".to_owned(),
        "X-ARP-Token: demo\r\n".to_owned(),
    ] {
        for n in 0..30 {
            let target = format!("/echo?token=vite-{}", n % 4);
            assert_eq!(get(relay.public, &target, &fields).await.status, 200, "{fields}");
            assert_eq!(
                origin.seen().pop().unwrap().target,
                target,
                "it stays the application's"
            );
        }
    }
    // Signatures in an application's URLs may be new each time.
    for n in 0..600 {
        let target = format!("/echo?token={n:022}");
        let cookie = "Cookie: arp_token=demo\r\n";
        assert_eq!(get(relay.public, &target, cookie).await.status, 200);
    }
    assert_eq!(get(relay.public, "/?token=typo", "").await.status, 404, "no debt");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_client_of_his_own_does_not_guess_faster_through_it() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _mine = Edge::tcp(&relay, "mine", origin.addr).await;
    let guess = async |n: usize| {
        let cookie = "Cookie: arp_token=mine\r\n";
        get(relay.public, &format!("/echo?token=guess-{n}"), cookie)
            .await
            .status
    };
    for n in 0..550 {
        assert_eq!(guess(n).await, 200);
    }
    let start = Instant::now();
    for n in 1_000..1_020 {
        assert_eq!(guess(n).await, 200, "it is served, in turn");
    }
    assert!(
        start.elapsed() >= Duration::from_millis(18 * 20),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(guess(1_019).await, 200);
    assert_eq!(get(relay.public, "/echo?token=mine", "").await.status, 200);
    assert_eq!(get(relay.public, "/?token=typo", "").await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_relay_on_the_same_data_is_refused() {
    let relay = Relay::start().await;
    let (done, said) = arps(
        &relay,
        &["--control-port", "0", "--proxy-port", "0", "--public-port", "0"],
    );
    assert!(!done && said.contains("another arps uses"), "{said}");
}
