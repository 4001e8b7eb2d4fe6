//! TLS on the public port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_testkit::daemon::{Edge, PATIENCE, Relay};
use arp_testkit::http::get;
use arp_testkit::origin::Origin;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Writes a certificate for `relay.test` and its key.
fn certificate(dir: &Path) -> String {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["relay.test".into()]).unwrap();
    std::fs::write(dir.join("key.pem"), signing_key.serialize_pem()).unwrap();
    std::fs::write(dir.join("cert.pem"), cert.pem()).unwrap();
    cert.pem()
}

/// Runs curl against `relay.test`, trusting `ca`.
fn curl(relay: &Relay, ca: &Path, args: &[&str]) -> (bool, String) {
    let port = relay.public.port();
    let output = Command::new("curl")
        .args([
            "-sS",
            "--max-time",
            "20",
            "--resolve",
            &format!("relay.test:{port}:127.0.0.1"),
        ])
        .arg("--cacert")
        .arg(ca)
        .args(args)
        .output()
        .expect("curl is installed");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn visitors_come_by_https_and_are_sent_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let first = certificate(dir.path());
    let relay = Relay::builder()
        .args([
            "--tls-cert",
            &path("cert.pem"),
            "--tls-key",
            &path("key.pem"),
            "--hsts",
            "3600",
        ])
        .start()
        .await;
    let origin = Origin::start("o").await;
    let mut edge = Edge::tcp(&relay, "demo", origin.addr).await;
    edge.daemon
        .line("its URL", |l| l.starts_with("Public URL: https://").then_some(()))
        .await;
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, first).unwrap();
    let url = format!(
        "https://relay.test:{}/bytes/100000?token=demo",
        relay.public.port()
    );
    for version in ["--http1.1", "--http2"] {
        let (ok, said) = curl(
            &relay,
            &ca,
            &[
                version,
                "-w",
                "%{http_version} %{size_download}",
                "-D-",
                "-o",
                "/dev/null",
                &url,
            ],
        );
        assert!(ok, "{said}");
        let told = if version == "--http2" {
            "2 100000"
        } else {
            "1.1 100000"
        };
        assert!(said.contains(told), "{said}");
        assert!(
            said.to_ascii_lowercase()
                .contains("strict-transport-security: max-age=3600"),
            "{said}"
        );
        assert_eq!(
            origin.seen().pop().unwrap().header("x-forwarded-proto"),
            Some("https")
        );
    }
    let plain = get(relay.public, "/x?token=demo&y=1", "").await;
    assert_eq!(
        (plain.status, plain.header("location")),
        (308, Some("https://relay.test/x?token=demo&y=1"))
    );
    assert!(plain.header("strict-transport-security").is_none());
    // The relay's own answers say it too: refusals, the landing page, redirects, and 101.
    let at = format!("https://relay.test:{}", relay.public.port());
    let upgrade = [
        "-H",
        "Connection: Upgrade",
        "-H",
        "Upgrade: websocket",
        "-H",
        "Sec-WebSocket-Version: 13",
        "-H",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "--http1.1",
        "-m1",
    ];
    let html = ["-H", "Accept: text/html"];
    for (target, flags, status) in [
        ("/", &[][..], "401"),
        ("/", &html[..], "401"),
        ("/?token=nobody", &[][..], "404"),
        ("/t/demo", &html[..], "307"),
        ("/", &["-X", "TRACE", "--http1.1"][..], "405"),
        ("/upgrade?token=demo", &upgrade[..], "101"),
    ] {
        for version in ["--http1.1", "--http2"] {
            if version == "--http2" && flags.contains(&"--http1.1") {
                continue;
            }
            let url = format!("{at}{target}");
            let mut args = vec![version, "-D-", "-o", "/dev/null", &url];
            args.extend(flags);
            let said = curl(&relay, &ca, &args).1.to_ascii_lowercase();
            assert!(said.contains(&format!(" {status}")), "{target} {version}: {said}");
            let told = said.matches("strict-transport-security: max-age=3600").count();
            assert_eq!(told, 1, "{target} {version}: {said}");
        }
    }
    // A new certificate is used without a restart; half of one changes nothing.
    std::fs::write(dir.path().join("cert.pem"), "half").unwrap();
    assert!(curl(&relay, &ca, &[&url, "-o", "/dev/null"]).0);
    let second = certificate(dir.path());
    std::fs::write(&ca, second).unwrap();
    let start = Instant::now();
    while !curl(&relay, &ca, &[&url, "-o", "/dev/null"]).0 {
        assert!(start.elapsed() < PATIENCE, "the new certificate is not used");
    }
    // An edge may ask for that certificate in place of a pinned key. Here no name fits, which it says.
    let mut picky = Edge::tcp_builder(&relay, "picky", origin.addr)
        .args(["--server-ca", ca.to_str().unwrap()])
        .spawn();
    assert_eq!(picky.daemon.ended().await.code(), Some(1));
    picky
        .daemon
        .line("why", |l| l.contains("is not accepted").then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_can_trust_an_authority_in_place_of_a_pin() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let made = generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    let relay = Relay::builder()
        .args(["--tls-cert", &path("cert.pem"), "--tls-key", &path("key.pem")])
        .start()
        .await;
    let origin = Origin::start("o").await;
    let edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .args(["--server-ca", &path("cert.pem")])
        .start()
        .await;
    assert!(!edge.home.path().join("data/arpc/known_relays").exists());
    // A relay without one is told so.
    let bare = Relay::start().await;
    let mut edge = Edge::tcp_builder(&bare, "demo", origin.addr)
        .args(["--server-ca", &path("cert.pem")])
        .spawn();
    assert_eq!(edge.daemon.ended().await.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_used_is_told_at_start() {
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path());
    let other = tempfile::tempdir().unwrap();
    certificate(other.path());
    for (cert, key) in [
        (dir.path().join("cert.pem"), other.path().join("key.pem")),
        (dir.path().join("key.pem"), dir.path().join("key.pem")),
        (dir.path().join("none.pem"), dir.path().join("key.pem")),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_arps"))
            .args([
                "--control-port",
                "0",
                "--proxy-port",
                "0",
                "--public-port",
                "0",
                "--data-dir",
            ])
            .arg(dir.path().join("data"))
            .arg("--tls-cert")
            .arg(cert)
            .arg("--tls-key")
            .arg(key)
            .output()
            .unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        // Behind what was logged before.
        assert!(said.lines().any(|l| l.starts_with("arps: ")), "{said}");
    }
}
