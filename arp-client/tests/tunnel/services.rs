//! The services whose programs cannot be had in a test, by programs that print and fail as they do. Their public
//! names lead nowhere here, so that the public URL is not asked (probe = false).

use super::machine::{Machine, connected};
use serde_json::json;

const ONCE: &str = "[tunnel]\nprobe = false\n[tunnel.reconnect]\nenabled = false\n";

fn start<'a>(settings: &'a [String; 2], backend: &'a str) -> Vec<&'a str> {
    let [flag, file] = settings;
    vec![
        flag,
        file,
        "tunnel",
        "start",
        "--backend",
        backend,
        "--local-port",
        "3999",
        "--no-qr",
    ]
}

/// The arguments of the last call.
fn last_args(machine: &Machine) -> Vec<String> {
    serde_json::from_value(machine.calls().last().unwrap()["args"].clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudflare_quick_is_found_among_other_links_and_has_our_own_settings() {
    let machine = Machine::with(&["cloudflared"]);
    let settings = machine.settings(ONCE);
    let mut arpc = machine.start(
        &start(&settings, "cloudflare"),
        &[("TUNNEL_TOKEN", "somebody-elses-token")],
    );
    assert_eq!(
        connected(&mut arpc).await,
        "https://quiet-lamp-1.trycloudflare.com"
    );
    let args = last_args(&machine);
    let config = &args[args.iter().position(|arg| arg == "--config").unwrap() + 1];
    assert_eq!(std::fs::read_to_string(config).unwrap(), "no-autoupdate: true\n");
    assert!(
        !machine.calls()[0]["secrets"]
            .to_string()
            .contains("somebody-elses-token")
    );
    let (code, said) = machine.run(&["tunnel", "health"], &[]).await;
    assert!(
        code == 0 && said.contains("1 connections to Cloudflare") && said.contains("not asked"),
        "{said}"
    );
    let report = machine.status().await.1;
    assert_eq!(report["health"]["proven"], false);
    arpc.terminate();
    assert!(arpc.ended().await.success());
    machine.until_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudflare_goes_to_http2_where_udp_is_blocked() {
    let machine = Machine::with(&["cloudflared"]);
    let settings = machine.settings(ONCE);
    let mut arpc = machine.start(&start(&settings, "cloudflare"), &[("SCRIPT", "udp-blocked")]);
    assert_eq!(
        connected(&mut arpc).await,
        "https://quiet-lamp-2.trycloudflare.com"
    );
    assert!(
        last_args(&machine)
            .windows(2)
            .any(|two| two == ["--protocol", "http2"])
    );
    arpc.terminate();
    arpc.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudflare_says_what_is_wrong_with_token_and_service() {
    let machine = Machine::with(&["cloudflared"]);
    let token = [("CLOUDFLARE_TUNNEL_TOKEN", "eyJhIjoidGhlLXNlY3JldCJ9")];
    // Tries are left, but none is made.
    let settings = machine.settings("tunnel.probe = false");
    let vars = [&token[..], &[("SCRIPT", "bad-token")]].concat();
    let (code, said) = machine.run(&start(&settings, "cloudflare"), &vars).await;
    assert!(
        code == 1 && said.contains("does not accept the tunnel's token"),
        "{said}"
    );
    let calls = machine.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["secrets"]["TUNNEL_TOKEN"], token[0].1);
    assert!(!calls[0]["args"].to_string().contains(token[0].1) && !said.contains(token[0].1));

    let settings = machine.settings(ONCE);
    let (code, said) = machine
        .run(&start(&settings, "cloudflare"), &[("SCRIPT", "rate-limited")])
        .await;
    assert!(code == 1 && said.contains("asked too often"), "{said}");

    let elsewhere = [&token[..], &[("SERVICE", "http://localhost:4000")]].concat();
    let (code, said) = machine.run(&start(&settings, "cloudflare"), &elsewhere).await;
    assert!(
        code == 1 && said.contains("http://localhost:4000") && said.contains("front_port"),
        "{said}"
    );
    let straight = [&token[..], &[("SERVICE", "http://localhost:3999")]].concat();
    let mut arpc = machine.start(&start(&settings, "cloudflare"), &straight);
    assert_eq!(connected(&mut arpc).await, "https://agent.example.com");
    let report = machine.status().await.1;
    assert_eq!(report["through_front"], false);
    assert!(
        report["note"].as_str().unwrap().contains("past arpc"),
        "{report:#}"
    );
    arpc.terminate();
    arpc.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tailscale_gets_one_mapping_that_goes_even_when_we_are_killed() {
    let machine = Machine::with(&["tailscale"]);
    let settings = machine.settings(ONCE);
    let mapping = machine.path("calls/tailscale-serve");
    for kill in [false, true] {
        let mut arpc = machine.start(&start(&settings, "tailscale"), &[]);
        assert_eq!(connected(&mut arpc).await, "https://box.tail1234.ts.net");
        assert!(mapping.exists());
        assert_eq!(machine.run(&["tunnel", "health"], &[]).await.0, 0);
        if kill {
            arpc.kill().await;
        } else {
            arpc.terminate();
            assert!(arpc.ended().await.success());
        }
        machine.until_empty().await;
        assert!(!mapping.exists(), "killed: {kill}");
    }
    // What others mapped is left alone.
    let theirs =
        json!({"Web": {"box.tail1234.ts.net:443": {"Handlers": {"/": {"Proxy": "http://127.0.0.1:80"}}}}});
    std::fs::write(&mapping, theirs.to_string()).unwrap();
    let (code, said) = machine.run(&start(&settings, "tailscale"), &[]).await;
    assert!(code == 1 && said.contains("funnel_port = 8443"), "{said}");
    assert_eq!(std::fs::read_to_string(&mapping).unwrap(), theirs.to_string());
    assert!(
        machine
            .calls()
            .iter()
            .all(|call| !call["args"].to_string().contains("reset"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tailscale_says_what_it_waits_for() {
    let machine = Machine::with(&["tailscale"]);
    let settings = machine.settings(ONCE);
    let (code, said) = machine
        .run(&start(&settings, "tailscale"), &[("SCRIPT", "logged-out")])
        .await;
    assert!(code == 1 && said.contains("tailscale up"), "{said}");
    let (code, said) = machine
        .run(&start(&settings, "tailscale"), &[("SCRIPT", "not-enabled")])
        .await;
    assert!(
        code == 1 && said.contains("https://login.tailscale.com/f/funnel?node=n1"),
        "{said}"
    );
    machine.until_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ngrok_opens_a_tunnel_and_its_fatal_codes_are_the_end() {
    let machine = Machine::with(&["ngrok"]);
    let token = ("NGROK_AUTHTOKEN", "2abcdefghijklmnop");
    let settings =
        machine.settings("tunnel.probe = false\ntunnel.ngrok.domain = \"my-agent.ngrok-free.app\"");
    let mut arpc = machine.start(&start(&settings, "ngrok"), &[token]);
    assert_eq!(connected(&mut arpc).await, "https://my-agent.ngrok-free.app");
    let (code, said) = machine.run(&["tunnel", "health"], &[]).await;
    assert!(code == 0 && said.contains("has the tunnel open"), "{said}");
    let calls = machine.calls();
    assert_eq!(calls[0]["secrets"]["NGROK_AUTHTOKEN"], token.1);
    assert!(!calls[0]["args"].to_string().contains(token.1));
    arpc.terminate();
    arpc.ended().await;
    let (code, said) = machine
        .run(&start(&settings, "ngrok"), &[token, ("SCRIPT", "bad-token")])
        .await;
    assert!(
        code == 1 && said.contains("ERR_NGROK_107") && said.contains("NGROK_AUTHTOKEN"),
        "{said}"
    );
    assert_eq!(machine.calls().len(), 2);
    let (code, said) = machine.run(&start(&settings, "ngrok"), &[]).await;
    assert!(code == 1 && said.contains("ngrok has no authtoken"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_takes_what_can_be_used_and_says_why_not_the_others() {
    let machine = Machine::with(&["tailscale", "ngrok"]);
    let settings = machine.settings(ONCE);
    let logged_out = ("SCRIPT", "logged-out");
    let (code, said) = machine.run(&start(&settings, "auto"), &[logged_out]).await;
    assert_eq!(code, 1);
    for part in [
        "cloudflared is not installed",
        "Tailscale is not logged in",
        "ngrok has no authtoken",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let mut arpc = machine.start(
        &start(&settings, "auto"),
        &[logged_out, ("NGROK_AUTHTOKEN", "2abcdefghi")],
    );
    assert_eq!(connected(&mut arpc).await, "https://ab12.ngrok-free.app");
    let (_, said) = machine.run(&["tunnel", "list"], &[logged_out]).await;
    assert!(
        said.contains("cloudflared is not installed") && said.contains("connected"),
        "{said}"
    );
    arpc.terminate();
    arpc.ended().await;
}
