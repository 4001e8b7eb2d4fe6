//! Whatever a program does, by a command of one's own whose "public" address is the front itself.

use super::machine::{Machine, connected};
use arp_testkit::http::{self, RawClient};
use arp_testkit::origin::{Origin, checksum, pattern};
use serde_json::json;

const SETTINGS: &str = r#"
[tunnel]
backend = "custom"
health_check_interval = 1
[tunnel.reconnect]
max_attempts = 1
backoff_base_ms = 10
backoff_max_ms = 20
[tunnel.custom]
command = "mytunnel {port}"
url_pattern = "at (http\\S+)"
startup_timeout_secs = 20
"#;

fn start<'a>(settings: &'a [String; 2], port: &'a str) -> Vec<&'a str> {
    let [flag, file] = settings;
    vec![flag, file, "tunnel", "start", "--local-port", port, "--no-qr"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_proven_counted_found_again_and_stopped() {
    let (machine, origin) = (Machine::with(&["mytunnel"]), Origin::start("o").await);
    let settings = machine.settings(SETTINGS);
    let port = origin.addr.port().to_string();
    let mut arpc = machine.start(&start(&settings, &port), &[("SCRIPT", "")]);
    let url = connected(&mut arpc).await;
    assert!(
        arpc.output().contains(&format!("-> localhost:{port}")),
        "{}",
        arpc.output()
    );

    let answer = arp_testkit::client::client()
        .get(format!("{url}/hello?x=1"))
        .header("X-Forwarded-For", "10.1.2.3")
        .header("Tailscale-User-Login", "boss@example.com")
        .header("X-Forwarded-User", "boss")
        .header("X-Own", "kept")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    let seen = origin.seen();
    assert_eq!((seen.len(), seen[0].target.as_str()), (1, "/hello?x=1"));
    for forged in ["x-forwarded-for", "tailscale-user-login", "x-forwarded-user"] {
        assert_eq!(seen[0].header(forged), None);
    }
    assert_eq!(seen[0].header("x-own"), Some("kept"));

    let (code, report) = machine.status().await;
    assert_eq!(
        (code, &report["state"], &report["requests"]["total"]),
        (0, &json!("connected"), &json!(1))
    );
    assert_eq!(report["health"]["proven"], true, "{report:#}");
    assert_eq!(report["public_url"], url.as_str());
    let (code, said) = machine.run(&["tunnel", "health"], &[]).await;
    assert!(code == 0 && said.starts_with("healthy"), "{said}");
    // Probes are no visitors.
    assert_eq!(machine.status().await.1["requests"]["total"], 1);

    let (code, said) = machine.run(&start(&settings, &port), &[]).await;
    assert!(code == 5 && said.contains("runs already"), "{code} {said}");
    let (code, said) = machine.run(&["tunnel", "stop"], &[]).await;
    assert_eq!((code, said.as_str()), (0, "Tunnel stopped."));
    assert!(arpc.ended().await.success());
    assert_eq!(machine.children(), Vec::<String>::new());
    for command in ["status", "stop", "health"] {
        let (code, said) = machine.run(&["tunnel", command], &[]).await;
        assert!(code == 3 && said.contains("no tunnel runs"), "{code} {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_big_bodies_and_changes_of_protocol_pass() {
    let (machine, origin) = (Machine::with(&["mytunnel"]), Origin::start("o").await);
    let settings = machine.settings(SETTINGS);
    let port = origin.addr.port().to_string();
    let mut arpc = machine.start(&start(&settings, &port), &[("SCRIPT", "")]);
    let url = connected(&mut arpc).await;
    let front = url.trim_start_matches("http://").parse().unwrap();
    // A changed protocol: what the service says first, and an echo.
    let mut raw = RawClient::connect(front).await;
    raw.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        .await;
    let head = raw.head().await;
    assert_eq!((head.status, head.header("upgrade")), (101, Some("echo")));
    assert_eq!(raw.exactly(6).await, b"hello\n");
    raw.send("ping").await;
    assert_eq!(raw.exactly(4).await, b"ping");
    // Each event as it happens.
    let mut raw = RawClient::connect(front).await;
    raw.send("GET /sse HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(raw.head().await.status, 200);
    for n in 0..3 {
        origin.release(1);
        let mut event = Vec::new();
        raw.chunk(&mut event).await;
        assert_eq!(
            String::from_utf8(event).unwrap(),
            format!("id: {n}\ndata: event {n}\n\n")
        );
    }
    assert_eq!(machine.status().await.1["requests"]["in_flight"], 1);
    drop(raw);
    // Bodies of both kinds, both ways.
    for path in ["/bytes/3000000", "/chunked/3000000"] {
        let body = http::get(front, path, "").await.body;
        assert_eq!(
            checksum(0, 0, &body),
            checksum(0, 0, &pattern(0, 3_000_000)),
            "{path}"
        );
    }
    let sent = pattern(0, 3_000_000);
    let told = arp_testkit::client::client()
        .post(format!("{url}/sink"))
        .body(sent.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(
        told.text().await.unwrap(),
        format!("3000000 {}", checksum(0, 0, &sent))
    );
    arpc.terminate();
    assert!(arpc.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_it_leaves_no_child_and_is_noticed() {
    let (machine, origin) = (Machine::with(&["mytunnel"]), Origin::start("o").await);
    let settings = machine.settings(SETTINGS);
    let port = origin.addr.port().to_string();
    let mut arpc = machine.start(&start(&settings, &port), &[("SCRIPT", "forks")]);
    connected(&mut arpc).await;
    let until = std::time::Instant::now() + super::machine::PATIENCE;
    while machine
        .children()
        .iter()
        .filter(|line| line.starts_with("sleep "))
        .count()
        != 3
    {
        assert!(std::time::Instant::now() < until, "{:#?}", machine.children());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    arpc.kill().await;
    machine.until_empty().await;
    let (code, said) = machine.run(&["tunnel", "status"], &[]).await;
    assert!(code == 3 && said.contains("ended without a word"), "{said}");
    // The place is free again.
    let mut arpc = machine.start(&start(&settings, &port), &[("SCRIPT", "forks")]);
    connected(&mut arpc).await;
    arpc.terminate();
    assert!(arpc.ended().await.success());
    assert_eq!(machine.children(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_guard_too_leaves_no_program() {
    let machine = Machine::with(&["mytunnel"]);
    let settings = machine.settings(SETTINGS);
    let mut arpc = machine.start(&start(&settings, "1"), &[("SCRIPT", "stubborn")]);
    connected(&mut arpc).await;
    let (_, report) = machine.status().await;
    assert_eq!(report["restarts"], 0);
    // The guard alone: its program goes with it, and is started again.
    let guard = guard_of(arpc.pid());
    kill(guard);
    machine
        .until("a restart", |report| {
            report["restarts"] == 1 && report["state"] == "connected"
        })
        .await;
    kill(guard_of(arpc.pid()));
    arpc.kill().await;
    machine.until_empty().await;
}

/// The child of this process.
fn guard_of(pid: u32) -> String {
    let parent_of = |stat: &str| stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok();
    let of_it = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        (parent_of(&stat) == Some(pid)).then(|| entry.file_name().into_string().unwrap())
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .find_map(of_it)
        .unwrap()
}

fn kill(pid: String) {
    assert!(
        std::process::Command::new("kill")
            .args(["-KILL", &pid])
            .status()
            .unwrap()
            .success()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ignores_sigterm_ends_all_the_same() {
    let machine = Machine::with(&["mytunnel"]);
    let settings = machine.settings(SETTINGS);
    let mut arpc = machine.start(&start(&settings, "1"), &[("SCRIPT", "stubborn")]);
    connected(&mut arpc).await;
    assert_eq!(machine.run(&["tunnel", "stop"], &[]).await.0, 0);
    assert!(arpc.ended().await.success());
    assert_eq!(machine.children(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_dies_at_once_is_tried_again_and_given_up_with_its_last_words() {
    let machine = Machine::with(&["mytunnel"]);
    let settings = machine.settings(SETTINGS);
    let (code, said) = machine.run(&start(&settings, "1"), &[("SCRIPT", "dies")]).await;
    assert_eq!((code, machine.calls().len()), (1, 2), "{said}");
    assert!(
        said.contains("given up after 1 tries") && said.contains("no such luck"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_tells_its_address_is_given_up() {
    let machine = Machine::with(&["mytunnel"]);
    let settings =
        machine.settings(&SETTINGS.replace("startup_timeout_secs = 20", "startup_timeout_secs = 1"));
    let (code, said) = machine.run(&start(&settings, "1"), &[("SCRIPT", "slow")]).await;
    assert!(
        code == 1 && said.contains("did not print an address within 1 s"),
        "{said}"
    );
    assert_eq!(machine.children(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_output_harms_nobody() {
    let machine = Machine::with(&["mytunnel"]);
    let settings = machine.settings(SETTINGS);
    let mut arpc = machine.start(&start(&settings, "1"), &[("SCRIPT", "flood")]);
    connected(&mut arpc).await;
    let report = machine
        .until("the flood", |report| {
            report["log"].as_array().is_some_and(|log| log.len() == 200)
        })
        .await;
    assert_eq!(report["state"], "connected");
    assert_eq!(machine.run(&["tunnel", "health"], &[]).await.0, 0);
    assert!(arpc.rss_kib() < 200_000, "{} KiB", arpc.rss_kib());
    arpc.terminate();
    assert!(arpc.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_address_is_told() {
    let machine = Machine::with(&["mytunnel"]);
    let settings = machine.settings(SETTINGS);
    let mut arpc = machine.start(&start(&settings, "1"), &[("SCRIPT", "moves")]);
    let before = connected(&mut arpc).await;
    std::fs::write(machine.path("calls/move"), "").unwrap();
    arpc.line("the change", |line| {
        line.contains("Your address changed: http://localhost")
            .then_some(())
    })
    .await;
    let (_, report) = machine.status().await;
    assert_eq!(
        (&report["previous_url"], &report["restarts"]),
        (&json!(before), &json!(0))
    );
    arpc.terminate();
    arpc.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_page_is_not_taken_for_ours() {
    let (machine, stranger) = (Machine::with(&["mytunnel"]), Origin::start("stranger").await);
    let settings = machine.settings(SETTINGS);
    let url = format!("http://{}", stranger.addr);
    let arpc = machine.start(
        &start(&settings, "1"),
        &[("SCRIPT", "stranger"), ("STRANGER", &url)],
    );
    let told = |report: &serde_json::Value| {
        report["progress"]
            .as_str()
            .is_some_and(|text| text.contains("does not lead here yet"))
    };
    let report = machine.until("the doubt", told).await;
    assert_eq!(report["state"], "connecting");
    assert_eq!(machine.status().await.0, 4);
    arpc.terminate();
    machine.until_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_run_is_told_to_the_visitor_and_counted() {
    let machine = Machine::with(&["mytunnel"]);
    let settings = machine.settings(SETTINGS);
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let mut arpc = machine.start(&start(&settings, &free), &[("SCRIPT", "")]);
    let url = connected(&mut arpc).await;
    let answer = arp_testkit::client::get(&url).await.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(answer.text().await.unwrap().contains("local_service_unreachable"));
    assert_eq!(machine.status().await.1["requests"]["unreachable"], 1);
    arpc.terminate();
    arpc.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_background_it_outlives_the_command_that_started_it() {
    let machine = Machine::with(&["mytunnel"]);
    let settings = machine.settings(SETTINGS);
    let args = [start(&settings, "1"), vec!["--detach"]].concat();
    let (code, said) = machine.run(&args, &[("SCRIPT", "")]).await;
    assert!(
        code == 0 && said.contains("Tunnel connected") && said.contains("background"),
        "{code} {said}"
    );
    assert_eq!(machine.status().await.0, 0);
    let (code, said) = machine.run(&["tunnel", "list", "--json"], &[]).await;
    let list: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (code, &list["tunnels"][0]["name"]),
        (0, &json!("default")),
        "{said}"
    );
    assert_eq!(machine.run(&["tunnel", "stop"], &[]).await.0, 0);
    machine.until_empty().await;
    let (code, said) = machine.run(&args, &[("SCRIPT", "dies")]).await;
    assert!(code == 1 && said.contains("no such luck"), "{code} {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_the_tunnel_is_asked_for() {
    let (machine, origin) = (Machine::with(&["mytunnel"]), Origin::start("o").await);
    let settings =
        machine.settings(&SETTINGS.replace("[tunnel]\n", "[tunnel]\nbasic_auth = \"ann:secret-word\"\n"));
    let port = origin.addr.port().to_string();
    let mut arpc = machine.start(&start(&settings, &port), &[("SCRIPT", "")]);
    let url = connected(&mut arpc).await;
    let client = arp_testkit::client::client();
    assert_eq!(client.get(&url).send().await.unwrap().status(), 401);
    let wrong = client
        .get(&url)
        .basic_auth("ann", Some("secret"))
        .send()
        .await
        .unwrap();
    assert_eq!((wrong.status().as_u16(), origin.seen().len()), (401, 0));
    let right = client
        .get(&url)
        .basic_auth("ann", Some("secret-word"))
        .send()
        .await
        .unwrap();
    assert_eq!(right.status(), 200);
    assert_eq!(origin.seen()[0].header("authorization"), None);
    assert_eq!(machine.status().await.1["requests"]["refused"], 2);
    arpc.terminate();
    arpc.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_told_all_at_once() {
    let machine = Machine::with(&[]);
    let settings =
        machine.settings("tunnel.backend = \"none\"\ntunnel.local_prot = 1\ntunnel.max_failures = 0");
    let (code, said) = machine.run(&start(&settings, "1"), &[]).await;
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("local_prot") && said.contains("max_failures"),
        "{said}"
    );
    let settings = machine.settings("tunnel.backend = \"none\"");
    assert_eq!(machine.run(&start(&settings, "1"), &[]).await.0, 2);
    let (code, said) = machine.run(&["tunnel", "start", "--backend", "ngork"], &[]).await;
    assert!(
        code == 2 && said.contains("cloudflare, tailscale, ngrok"),
        "{said}"
    );
}
