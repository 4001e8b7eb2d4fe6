//! bore for real, both ends, on loopback addresses that no other test has.

use super::machine::{Machine, connected};
use arp_testkit::origin::Origin;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::{Child, Command};

/// The real program, as scripts/test.sh installs it.
fn real() -> Option<PathBuf> {
    let told = std::env::var_os("ARP_TEST_BORE").map(PathBuf::from);
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/bore/bin/bore");
    let found = told
        .or_else(|| own.canonicalize().ok())
        .filter(|path| path.is_file());
    if found.is_none() {
        arp_testkit::skip("bore is missing: cargo install bore-cli --root .cache/bore");
    }
    found
}

/// A bore server at this address. Its control port is always the same.
async fn server(bore: &Path, address: &str, secret: Option<&str>) -> Child {
    let mut command = Command::new(bore);
    command.args(["server", "--bind-addr", address, "--min-port", "20000"]);
    command.env_remove("BORE_SECRET");
    if let Some(secret) = secret {
        command.env("BORE_SECRET", secret);
    }
    let child = command.stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let until = std::time::Instant::now() + super::machine::PATIENCE;
    while tokio::net::TcpStream::connect((address, 7835)).await.is_err() {
        assert!(
            std::time::Instant::now() < until,
            "the bore server does not listen"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    child
}

/// An address of loopback that is this test's alone.
fn address(n: u8) -> String {
    let pid = std::process::id();
    format!("127.{n}.{}.{}", (pid >> 8) & 0xff, (pid & 0xff).clamp(1, 254))
}

#[tokio::test(flavor = "multi_thread")]
async fn bore_carries_requests_and_comes_back_when_its_server_does() {
    let Some(bore) = real() else { return };
    let (machine, origin) = (Machine::with(&[]), Origin::start("o").await);
    machine.link("bore", &bore);
    let at = address(77);
    let mut far = server(&bore, &at, Some("shared-secret-word")).await;
    let settings = machine.settings(&format!(
        "[tunnel]\nhealth_check_interval = 1\n[tunnel.reconnect]\nbackoff_base_ms = 100\nbackoff_max_ms = 300\n\
         max_attempts = 0\n[tunnel.bore]\nserver = \"{at}\"\nsecret = \"${{MY_BORE_SECRET}}\"\n"
    ));
    let port = origin.addr.port().to_string();
    let args = [
        &settings[0],
        &settings[1],
        "tunnel",
        "start",
        "--backend",
        "bore",
        "--local-port",
        &port,
    ];
    let secret = ("MY_BORE_SECRET", "shared-secret-word");
    let mut arpc = machine.start(&args, &[secret]);
    let url = connected(&mut arpc).await;
    assert!(url.starts_with(&format!("http://{at}:")), "{url}");
    let report = machine.status().await.1;
    assert_eq!(report["health"]["proven"], true, "{report:#}");
    let posted = arp_testkit::client::client()
        .post(format!("{url}/hook"))
        .header("x-forwarded-for", "10.0.0.1")
        .body("{\"event\":\"push\"}")
        .send()
        .await
        .unwrap();
    assert_eq!(posted.status(), 200);
    let seen = origin.seen();
    assert_eq!(
        (seen[0].method.as_str(), seen[0].target.as_str()),
        ("POST", "/hook")
    );
    assert_eq!(
        seen[0].header("x-forwarded-for"),
        None,
        "bore tells no address, and the visitor's word is not one"
    );
    // The secret is nowhere to be seen.
    for line in machine.children() {
        assert!(!line.contains("shared-secret-word"), "{line}");
    }
    assert!(
        !machine
            .status()
            .await
            .1
            .to_string()
            .contains("shared-secret-word")
    );

    far.kill().await.unwrap();
    machine
        .until("that it is lost", |report| report["state"] == "reconnecting")
        .await;
    let _far = server(&bore, &at, Some("shared-secret-word")).await;
    let report = machine
        .until("that it is back", |report| report["state"] == "connected")
        .await;
    let url = report["public_url"].as_str().unwrap();
    assert_eq!(arp_testkit::client::get(url).await.unwrap().status(), 200);
    arpc.terminate();
    assert!(arpc.ended().await.success());
    machine.until_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bore_says_when_secret_or_server_are_wrong() {
    let Some(bore) = real() else { return };
    let machine = Machine::with(&[]);
    machine.link("bore", &bore);
    let at = address(78);
    let far = server(&bore, &at, Some("shared-secret-word")).await;
    let text = format!("tunnel.reconnect.enabled = false\ntunnel.bore.server = \"{at}\"");
    let settings = machine.settings(&text);
    let args = [&settings[0], &settings[1], "tunnel", "start", "--backend", "bore"];
    for vars in [&[][..], &[("BORE_SECRET", "another-secret")]] {
        let (code, said) = machine.run(&args, vars).await;
        assert!(code == 1 && said.contains("does not accept the secret"), "{said}");
    }
    drop(far);
    let settings = machine.settings(&text.replace(&at, &address(79)));
    let (code, said) = machine
        .run(
            &[&settings[0], &settings[1], "tunnel", "start", "--backend", "bore"],
            &[],
        )
        .await;
    assert!(code == 1 && said.contains("cannot be reached"), "{said}");
}
