//! The agents of this machine behind a tunnel, without a relay; a relay as a tunnel; the name that others know.

use super::machine::{Machine, connected};
use arp_testkit::daemon::Relay;
use arp_testkit::origin::Origin;
use serde_json::{Value, json};
use std::path::Path;

const SETTINGS: &str = r#"
[tunnel]
backend = "custom"
health_check_interval = 1
[tunnel.custom]
command = "mytunnel {port}"
url_pattern = "at (http\\S+)"
startup_timeout_secs = 20
"#;

/// Asks for it, with the token of the machine or without.
async fn get(url: &str, token: Option<&str>) -> (u16, Value) {
    let mut request = arp_testkit::client::client().get(url);
    if let Some(token) = token {
        request = request.header("x-arp-token", token);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn command_mode_with_a_tunnel_needs_no_relay_and_asks_for_the_token() {
    let machine = Machine::with(&["mytunnel"]);
    let settings = machine.settings(SETTINGS);
    let args = [&settings[0], &settings[1], "--command-mode", "--no-qr"];
    let mut arpc = machine.start(&args, &[("SCRIPT", "")]);
    let url = arpc
        .line("its URL", |line| {
            line.strip_prefix("Public URL: ").map(str::to_owned)
        })
        .await;
    assert!(url.ends_with("/?token=machine"), "{url}");
    assert!(!arpc.output().contains("Relay:"), "{}", arpc.output());
    let base = url.split("/?").next().unwrap();
    let info = format!("{base}/api/info");
    for token in [None, Some("wrong")] {
        let (status, error) = get(&info, token).await;
        assert_eq!((status, &error["code"]), (401, &json!("token_required")));
    }
    let (status, told) = get(&info, Some("machine")).await;
    assert_eq!(
        (status, &told["tunnel"]["state"]),
        (200, &json!("connected")),
        "{told:#}"
    );
    assert_eq!(told["tunnel"]["public_url"], base);
    assert_eq!(told["tunnel"].get("log"), None);
    // The console too.
    let page = arp_testkit::client::get(&url).await.unwrap();
    assert!(page.status().is_success() && page.text().await.unwrap().contains("<html"));
    // Tokens are added and taken back without a relay.
    assert_eq!(machine.run(&["tokens", "add", "guest-token"], &[]).await.0, 0);
    assert_eq!(get(&info, Some("guest-token")).await.0, 200);
    assert_eq!(machine.run(&["tokens", "revoke", "guest-token"], &[]).await.0, 0);
    assert_eq!(get(&info, Some("guest-token")).await.0, 401);
    let (code, report) = machine.status().await;
    assert_eq!(
        (code, &report["local"]),
        (0, &json!("the agents of this machine"))
    );
    assert!(report["requests"]["total"].as_u64().unwrap() >= 5);
    arpc.terminate();
    assert!(arpc.ended().await.success());
    machine.until_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_daemon_leaves_no_tunnel() {
    let machine = Machine::with(&["mytunnel"]);
    let settings = machine.settings(SETTINGS);
    let args = [&settings[0], &settings[1], "--command-mode", "--no-qr"];
    let mut arpc = machine.start(&args, &[("SCRIPT", "forks")]);
    arpc.line("its URL", |line| {
        line.strip_prefix("Public URL: ").map(str::to_owned)
    })
    .await;
    arpc.kill().await;
    machine.until_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_of_its_own_process_reaches_the_running_agents() {
    let machine = Machine::with(&["mytunnel"]);
    let relay = Relay::start().await;
    let (control, proxy) = (relay.control.port().to_string(), relay.proxy.port().to_string());
    let daemon = [
        "--command-mode",
        "--no-qr",
        "--control-port",
        &control,
        "--proxy-port",
        &proxy,
    ];
    let mut arpc = machine.start(&daemon, &[]);
    arpc.line("that it is registered", |line| {
        line.starts_with("Registered").then_some(())
    })
    .await;
    let settings = machine.settings(SETTINGS);
    let args = [&settings[0], &settings[1], "tunnel", "start", "--no-qr"];
    let mut tunnel = machine.start(&args, &[("SCRIPT", "")]);
    let url = connected(&mut tunnel).await;
    let info = format!("{url}/api/info");
    assert_eq!(get(&info, None).await.0, 401);
    let (status, told) = get(&info, Some("machine")).await;
    assert_eq!((status, &told["type"]), (200, &json!("info")));
    assert_eq!(machine.run(&["tunnel", "stop"], &[]).await.0, 0);
    arpc.terminate();
    assert!(arpc.ended().await.success());
    machine.until_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_is_a_tunnel_too() {
    let (machine, relay, origin) = (Machine::with(&[]), Relay::start().await, Origin::start("o").await);
    let settings = machine.settings(&format!(
        "[tunnel.arp]\nserver_addr = \"127.0.0.1\"\ncontrol_port = {}\nproxy_port = {}\nclient_id = \"home\"\n",
        relay.control.port(),
        relay.proxy.port()
    ));
    let port = origin.addr.port().to_string();
    let args = [
        &settings[0],
        &settings[1],
        "tunnel",
        "start",
        "--backend",
        "arp",
        "--local-port",
        &port,
    ];
    let mut arpc = machine.start(&args, &[]);
    let url = connected(&mut arpc).await;
    assert_eq!(
        url,
        format!("http://127.0.0.1:{}/?token=home", relay.public.port())
    );
    let report = machine.status().await.1;
    assert_eq!(report["health"]["proven"], true, "{report:#}");
    assert_eq!(arp_testkit::client::get(&url).await.unwrap().status(), 200);
    assert_eq!(origin.seen()[0].header("x-forwarded-for"), Some("127.0.0.1"));
    arpc.terminate();
    assert!(arpc.ended().await.success());
    machine.until_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_the_tunnel_are_told_with_all_others() {
    let machine = Machine::with(&[]);
    let (code, said) = machine
        .run(
            &["--command-mode", "--tunnel", "ngork", "--reconnect-interval", "0"],
            &[],
        )
        .await;
    assert!(
        code == 2 && said.contains("ngork") && said.contains("--reconnect-interval"),
        "{said}"
    );
    let (code, said) = machine
        .run(&["--command-mode", "--tunnel", "arp", "--check-config"], &[])
        .await;
    assert!(code == 2 && said.contains("--server-addr"), "{said}");
    let gated = [
        "--local-port",
        "1",
        "--require-key",
        "a-key-of-some-length",
        "--tunnel",
        "bore",
    ];
    let (code, said) = machine.run(&gated, &[]).await;
    assert!(code == 2 && said.contains("basic_auth"), "{said}");
    let (code, said) = machine
        .run(&["--command-mode", "--tunnel", "cloudflare"], &[])
        .await;
    assert!(
        code == 1 && said.contains("cloudflared is not installed"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_prx_work_literally() {
    // `cargo test -p arpc` builds arpc alone; the whole workspace has it.
    let prx = Path::new(env!("CARGO_BIN_EXE_arpc")).with_file_name("prx");
    if !prx.is_file() {
        arp_testkit::skip("prx is not built: cargo build -p arp-shims");
        return;
    }
    let machine = Machine::with(&["mytunnel"]);
    let [flag, file] = machine.settings(&SETTINGS.replace("[tunnel]\n", "[tunnel]\nlocal_port = 3000\n"));
    assert_eq!(flag, "--tunnel-config");
    for start in [
        &["start"][..],
        &["tunnel", "start"],
        &["tunnel", "start", "--backend", "custom"],
    ] {
        let prx = |args: &[&str]| {
            let mut command = tokio::process::Command::new(&prx);
            for (name, value) in machine.environment() {
                command.env(name, value);
            }
            command
                .args(args)
                .env("ARPC_TUNNEL_CONFIG", &file)
                .env("SCRIPT", "");
            command.kill_on_drop(true);
            command
        };
        let mut running = prx(start).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let lines = tokio::io::BufReader::new(running.stdout.take().unwrap());
        let mut lines = tokio::io::AsyncBufReadExt::lines(lines);
        loop {
            let line = lines.next_line().await.unwrap().expect("it connects");
            if line.starts_with("[INFO] Tunnel connected: http://127.0.0.1:") {
                assert!(line.ends_with(" -> localhost:3000"), "{line}");
                break;
            }
        }
        for command in ["status", "health", "stop"] {
            let ended = prx(&["tunnel", command]).output().await.unwrap();
            assert!(ended.status.success(), "{command}: {ended:?}");
        }
        assert!(running.wait().await.unwrap().success());
    }
}
