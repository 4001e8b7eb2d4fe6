//! What the relay keeps on disk: a disk that is full, files that are lost, and tables that somebody fills.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use arp_common::protocol::{Register, RegisterResult};
use arp_common::tls::Identity;
use arp_testkit::daemon::{PATIENCE, Relay};
use arp_testkit::http::get;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Peer, register, try_register};

/// Runs `arps clients …` on the data directory of a relay.
fn clients(dir: &std::path::Path, args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_arps"))
        .arg("clients")
        .args(args)
        .arg("--data-dir")
        .arg(dir)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

async fn result_of(relay: &Relay, identity: &Identity, register: Register) -> RegisterResult {
    try_register(relay, identity, register).await.1
}

/// Known edges register and new ones do not; the operator has been told once, and loudly.
async fn serves_whom_it_knows(relay: &Relay, known: &Identity) {
    let (_link, result) = try_register(relay, known, register("known")).await;
    assert!(result.success, "{result:?}");
    let stranger = Identity::generate().unwrap();
    for id in ["new-1", "new-2"] {
        let result = result_of(relay, &stranger, register(id)).await;
        assert!(!result.success && result.fatal == Some(false), "{result:?}");
        assert!(result.error.unwrap().contains("cannot write"));
    }
    // What is bound is still bound.
    let result = result_of(relay, &stranger, register("known")).await;
    assert!(result.error.unwrap().contains("another client"));
    let output = relay.daemon.output();
    assert_eq!(output.matches("CANNOT WRITE").count(), 1, "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_known_edges_register_and_the_relay_restarts() {
    let known = Identity::generate().unwrap();
    let mut relay = Relay::builder().on_small_disk(false).start().await;
    assert!(result_of(&relay, &known, register("known")).await.success);
    relay.daemon.disk(true);
    serves_whom_it_knows(&relay, &known).await;
    // When there is room again, the next one is let in.
    relay.daemon.disk(false);
    let other = Identity::generate().unwrap();
    assert!(result_of(&relay, &other, register("other")).await.success);
    relay
        .daemon
        .line("that it is over", |l| {
            l.contains("can write to its store again").then_some(())
        })
        .await;
    // It restarts with nothing to spare, after a proper end and after none.
    for end in ["TERM", "KILL"] {
        relay.daemon.signal(end);
        relay.daemon.ended().await;
        relay = Relay::builder().at(&relay).on_small_disk(true).start().await;
        serves_whom_it_knows(&relay, &known).await;
        let answer = get(relay.public, "/?token=other", "").await;
        assert_eq!(answer.json()["code"], "offline", "it knows who is away");
    }
    relay.daemon.disk(false);
    let (start, third) = (Instant::now(), Identity::generate().unwrap());
    while !result_of(&relay, &third, register("third")).await.success {
        assert!(start.elapsed() < PATIENCE, "it notices that there is room again");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_store_is_refused_and_never_made_anew() {
    let owner = Identity::generate().unwrap();
    let mut relay = Relay::start().await;
    assert!(result_of(&relay, &owner, register("demo")).await.success);
    relay.daemon.terminate();
    relay.daemon.ended().await;
    let store = relay.data.path().join("store.db");
    for emptied in [false, true] {
        for file in ["store.db", "store.db-wal", "store.db-shm"] {
            let _ = std::fs::remove_file(relay.data.path().join(file));
        }
        if emptied {
            std::fs::write(&store, b"").unwrap();
        }
        // Whatever else is done with the directory does not make it look whole.
        let (ok, said) = clients(relay.data.path(), &[]);
        assert!(!ok && said.contains("store.db is"), "{said}");
        assert!(!clients(relay.data.path(), &["forget", "demo"]).0);
        for _ in 0..2 {
            let (mut daemon, _) = Relay::builder().at(&relay).spawn();
            assert_eq!(daemon.ended().await.code(), Some(1));
            let said = daemon.output();
            assert!(
                said.contains("from a backup") && said.contains("names-key"),
                "{said}"
            );
            assert!(
                said.contains(if emptied { "is empty" } else { "is missing" }),
                "{said}"
            );
        }
    }
    // The way out that it names.
    std::fs::remove_file(relay.data.path().join("names-key")).unwrap();
    let relay = Relay::builder().at(&relay).start().await;
    let thief = Identity::generate().unwrap();
    assert!(result_of(&relay, &thief, register("demo")).await.success);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_use_up_the_names() {
    let relay = Relay::builder()
        .args(["--max-new-names-per-ip", "3"])
        .start()
        .await;
    let mut refused = 0;
    for n in 0..6 {
        // A key costs nothing, so each comes with another.
        let result = result_of(&relay, &Identity::generate().unwrap(), register(&format!("n{n}"))).await;
        if let Some(error) = result.error {
            assert!(error.contains("--max-new-names-per-ip 3"), "{error}");
            assert_eq!(result.fatal, Some(false), "it may try later");
            refused += 1;
        }
    }
    assert_eq!(refused, 3);
    // With a join key they are no strangers.
    let args = ["--max-new-names-per-ip", "1", "--join-key", "correct horse"];
    let relay = Relay::builder().args(args).start().await;
    for n in 0..3 {
        let register = support::with_join_key(&format!("n{n}"), "correct horse");
        assert!(
            result_of(&relay, &Identity::generate().unwrap(), register)
                .await
                .success
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_name_is_let_in_whatever_others_of_its_address_did() {
    let relay = Relay::builder()
        .args(["--max-new-names-per-ip", "2"])
        .start()
        .await;
    let owner = Identity::generate().unwrap();
    assert!(result_of(&relay, &owner, register("mine")).await.success);
    while result_of(
        &relay,
        &Identity::generate().unwrap(),
        register(&format!("f{}", rand_name())),
    )
    .await
    .success
    {}
    assert!(result_of(&relay, &owner, register("mine")).await.success);
}

fn rand_name() -> String {
    Identity::generate().unwrap().fingerprint().to_string()[7..15].replace(['+', '/'], "x")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_all_places() {
    let relay = Relay::builder().args(["--max-edges-per-ip", "2"]).start().await;
    let mut held = Vec::new();
    for n in 0..2 {
        let (peer, result) =
            try_register(&relay, &Identity::generate().unwrap(), register(&format!("n{n}"))).await;
        assert!(result.success);
        held.push(peer);
    }
    let third = Identity::generate().unwrap();
    let error = result_of(&relay, &third, register("third")).await.error.unwrap();
    assert!(error.contains("--max-edges-per-ip 2"), "{error}");
    held.pop();
    let start = Instant::now();
    while !result_of(&relay, &third, register("third")).await.success {
        assert!(start.elapsed() < PATIENCE, "a place that was left is free");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_listed_with_who_is_online_and_forgotten_by_pattern() {
    let mut relay = Relay::start_plain().await;
    let dir = relay.data.path().to_owned();
    let (ci, prod) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    for id in ["ci-1", "ci-2"] {
        assert!(result_of(&relay, &ci, register(id)).await.success);
    }
    let (_link, result) = try_register(&relay, &prod, register("prod")).await;
    assert!(result.success);
    let mut plain = Peer::plain(relay.control).await;
    assert!(plain.register(register("bare")).await.success);
    let start = Instant::now();
    let said = loop {
        // The relay hears of their end when it comes.
        let (ok, said) = clients(&dir, &[]);
        assert!(ok, "{said}");
        if said.matches("offline").count() == 2 {
            break said;
        }
        assert!(start.elapsed() < PATIENCE, "{said}");
    };
    let line = |id: &str| {
        said.lines()
            .find(|l| l.starts_with(id))
            .unwrap_or_else(|| panic!("{id} in {said}"))
    };
    assert!(
        line("prod").contains("online") && line("prod").contains("127.0.0.1:"),
        "{said}"
    );
    assert!(
        line("ci-1").contains("offline") && line("bare").contains("plaintext"),
        "{said}"
    );
    assert!(line("prod").contains(" no "), "nobody asked for it yet: {said}");
    assert!(!clients(&dir, &["forget"]).0, "not everybody by mistake");
    let (ok, said) = clients(&dir, &["forget", "ci-*", "--dry-run"]);
    assert!(
        ok && said.contains("ci-1\nci-2\n") && said.contains("would be"),
        "{said}"
    );
    assert!(
        !clients(&dir, &["forget", "ci-*", "--older-than", "2d"]).0,
        "they were just here"
    );
    assert!(!clients(&dir, &["forget", "ci-*", "--older-than", "1m"]).0);
    let (ok, said) = clients(&dir, &["forget", "ci-*"]);
    assert!(ok && said.contains("forgot 2 name(s)"), "{said}");
    relay.daemon.terminate();
    relay.daemon.ended().await;
    let (_, said) = clients(&dir, &[]);
    assert!(
        said.contains("no relay runs") && said.contains("prod") && !said.contains("ci-1"),
        "{said}"
    );
    let nobody = tempfile::tempdir().unwrap();
    let (ok, said) = clients(nobody.path(), &[]);
    assert!(ok && said.contains("no client is known yet"), "{said}");
    assert_eq!(
        std::fs::read_dir(nobody.path()).unwrap().count(),
        0,
        "asking makes nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_opens_what_the_settings_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("not-a-directory");
    std::fs::write(&file, "x").unwrap();
    let pem = file.to_str().unwrap();
    let check = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_arps"))
            .arg("--check-config")
            .args(args)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap(),
        )
    };
    let data = dir.path().join("data");
    let (code, said) = check(&["--data-dir", data.to_str().unwrap()]);
    assert!(code == Some(0) && !data.exists(), "{said}");
    let (code, said) = check(&["--data-dir", pem, "--tls-cert", pem, "--tls-key", pem]);
    assert_eq!(code, Some(2), "{said}");
    for part in ["--data-dir: ", "--tls-cert", "PEM"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let relay = Relay::start().await;
    let running = relay.data.path().to_str().unwrap();
    assert_eq!(check(&["--data-dir", running]).0, Some(0), "while it runs");
    std::fs::write(relay.data.path().join("relay-key.pem"), "x").unwrap();
    let (code, said) = check(&["--data-dir", running]);
    assert!(code == Some(2) && said.contains("relay-key.pem"), "{said}");
}
