//! Which edge a request reaches, and what of the request does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::{RawClient, get};
use arp_testkit::origin::Origin;
use std::process::Command;

/// Runs the real curl and gives what it printed.
fn curl(args: &[&str]) -> String {
    let mut command = Command::new("curl");
    let output = command
        .args(["-sS", "--max-time", "20"])
        .args(args)
        .output()
        .expect("curl is installed");
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_work_literally() {
    let (relay, origin) = (Relay::start().await, Origin::start("demo").await);
    let _demo = Edge::tcp(&relay, "demo", origin.addr).await;
    let _ci = Edge::tcp(&relay, "ci-test", origin.addr).await;
    let base = relay.url("");
    for http in ["--http1.1", "--http2-prior-knowledge"] {
        for (args, method, target) in [
            (&[&format!("{base}/api/x?token=demo")][..], "GET", "/api/x"),
            (&[&format!("{base}?token=demo")], "GET", "/"),
            (
                &[
                    &"-X".into(),
                    &"POST".into(),
                    &format!("{base}/?token=ci-test/api/deploy"),
                ],
                "POST",
                "/api/deploy",
            ),
            (&[&format!("{base}/t/demo/v1/models")], "GET", "/v1/models"),
            (
                &[&"-H".into(), &"X-ARP-Token: demo".into(), &format!("{base}/")],
                "GET",
                "/",
            ),
        ] {
            let args: Vec<&str> = std::iter::once(http)
                .chain(args.iter().map(|a| a.as_str()))
                .collect();
            assert_eq!(curl(&args), "hello from demo", "{args:?}");
            let seen = origin.seen().pop().expect("it arrived");
            assert_eq!(
                (seen.method.as_str(), seen.target.as_str()),
                (method, target),
                "{args:?}"
            );
            assert!(seen.header("x-arp-token").is_none());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_requests_on_one_connection_go_to_two_clients() {
    let relay = Relay::start().await;
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let _a = Edge::tcp(&relay, "client-a", a.addr).await;
    let _b = Edge::tcp(&relay, "client-b", b.addr).await;
    let mut client = RawClient::connect(relay.public).await;
    for (id, name) in [("client-a", "a"), ("client-b", "b"), ("client-a", "a")] {
        client
            .send(&format!("GET /x?token={id} HTTP/1.1\r\nHost: r\r\n\r\n"))
            .await;
        assert_eq!(client.answer().await.text(), format!("hello from {name}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn further_tokens_reach_the_same_edge_and_nobody_elses() {
    let (relay, origin) = (Relay::start().await, Origin::start("shared").await);
    let builder =
        Edge::tcp_builder(&relay, "env-1", origin.addr).args(["--token", "alice", "--token", "bob"]);
    let mut edge = builder.start().await;
    for token in ["env-1", "alice", "bob"] {
        assert_eq!(
            get(relay.public, &format!("/?token={token}"), "").await.text(),
            "hello from shared"
        );
    }
    let mut thief = Edge::tcp_builder(&relay, "thief", origin.addr)
        .args(["--token", "bob"])
        .spawn();
    assert_eq!(thief.daemon.ended().await.code(), Some(1));
    assert!(
        thief.daemon.output().contains("belongs to another client"),
        "{}",
        thief.daemon.output()
    );
    assert_eq!(get(relay.public, "/?token=thief", "").await.status, 404);
    edge.daemon
        .line("its URL", |l| l.contains("?token=alice").then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_is_wrong() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let mut edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let none = get(relay.public, "/", "").await;
    assert_eq!(
        (none.status, none.json()["code"].as_str()),
        (401, Some("token_required"))
    );
    let page = get(relay.public, "/", "Accept: text/html\r\n").await;
    assert_eq!(page.status, 401);
    assert!(
        page.header("content-type")
            .is_some_and(|t| t.starts_with("text/html"))
    );
    assert!(page.text().contains("name=\"token\""));
    let unknown = get(relay.public, "/?token=nobody", "").await;
    assert_eq!(
        (unknown.status, unknown.json()["code"].as_str()),
        (404, Some("unknown_token"))
    );
    assert_eq!(get(relay.public, "/?token=demo", "").await.status, 200);
    edge.daemon.terminate();
    assert!(edge.daemon.ended().await.success());
    let offline = get(relay.public, "/?token=demo", "").await;
    assert_eq!(
        (offline.status, offline.json()["code"].as_str()),
        (503, Some("offline"))
    );
    assert!(offline.header("retry-after").is_some());
    assert_eq!(offline.json()["type"], "error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_keeps_its_client_by_cookie_and_referer() {
    let relay = Relay::start().await;
    let (a, b) = (Origin::start("a").await, Origin::start("b").await);
    let _a = Edge::tcp(&relay, "tab-a", a.addr).await;
    let _b = Edge::tcp(&relay, "tab-b", b.addr).await;
    let page = get(relay.public, "/?token=tab-a", "Accept: text/html\r\n").await;
    let cookie = page.header("set-cookie").expect("it is remembered");
    assert!(
        cookie.starts_with("arp_token=tab-a; Path=/; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    assert!(
        get(relay.public, "/?token=tab-a", "")
            .await
            .header("set-cookie")
            .is_none(),
        "a program wants none"
    );
    let cookie = "Cookie: theme=dark; arp_token=tab-a\r\n";
    let script = get(relay.public, "/app.js", cookie).await;
    assert_eq!(
        (script.text(), script.header("vary")),
        ("hello from a".into(), Some("Cookie"))
    );
    let seen = a.seen().pop().expect("it arrived");
    assert_eq!(seen.header("cookie"), Some("theme=dark"));
    // The page of the other tab asks: its Referer wins over the cookie that the first tab left.
    let both = "Cookie: arp_token=tab-a\r\nReferer: http://relay.test/x?token=tab-b&y=1\r\n";
    assert_eq!(get(relay.public, "/app.js", both).await.text(), "hello from b");
    assert_eq!(
        b.seen().pop().expect("it arrived").header("referer"),
        Some("http://relay.test/x?y=1")
    );
    // A browser that has opened both: of one URL each page has its own answer, in caches too.
    let opened = get(
        relay.public,
        "/?token=tab-b",
        "Cookie: arp_token=tab-a\r\nAccept: text/html\r\n",
    )
    .await;
    let had = opened.header("set-cookie").expect("a cookie");
    let had = had.split(';').next().expect("a value");
    assert!(had.starts_with("arp_token=tab-b:"), "{had}");
    let asked = format!("Cookie: {had}\r\nReferer: http://relay.test/x?token=tab-b\r\n");
    let script = get(relay.public, "/app.js", &asked).await;
    assert_eq!(script.header("vary"), Some("Cookie, Referer"));
    // A script of the first client, which has no token in its URL, loads another.
    let late = format!("Cookie: {had}\r\nReferer: http://relay.test/app.js\r\n");
    assert_eq!(get(relay.public, "/late.js", &late).await.text(), "hello from a");
    let foreign = "Cookie: arp_token=tab-a\r\nReferer: http://evil.test/?token=tab-b\r\n";
    assert_eq!(get(relay.public, "/app.js", foreign).await.text(), "hello from a");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_landing_page_has_a_script_that_takes_no_path_from_any_client() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let path = "/.well-known/arp/scan.js";
    let script = get(relay.public, path, "").await;
    assert_eq!(
        (
            script.status,
            script.header("content-type"),
            script.header("x-arp-error")
        ),
        (200, Some("text/javascript; charset=utf-8"), None)
    );
    assert!(script.text().contains("ScriptDetector"));
    assert_eq!(
        get(relay.public, "/.well-known/arp/other.js", "").await.status,
        401
    );
    get(relay.public, path, "Cookie: arp_token=demo\r\n").await;
    assert_eq!(origin.seen().pop().expect("it arrived").target, path);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_gives_each_client_an_origin_of_its_own() {
    let relay = Relay::builder().args(["--domain", "arp.test"]).start().await;
    let origin = Origin::start("o").await;
    let _edge = Edge::tcp(&relay, "Demo", origin.addr).await;
    let mut client = RawClient::connect(relay.public).await;
    client
        .send("GET /x HTTP/1.1\r\nHost: demo.arp.test:17003\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.text(), "hello from o");
    client
        .send("GET /p?token=Demo&q=1 HTTP/1.1\r\nHost: arp.test:17003\r\nAccept: text/html\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (307, Some("http://Demo.arp.test:17003/p?q=1"))
    );
    client
        .send("GET /p?token=Demo HTTP/1.1\r\nHost: arp.test:17003\r\nAccept: */*\r\n\r\n")
        .await;
    assert_eq!(
        client.answer().await.status,
        200,
        "a program is served where it is"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_fields_are_ours_unless_a_trusted_proxy_sends_them() {
    let origin = Origin::start("o").await;
    let lies = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Real-IP: 6.6.6.6\r\n\
                Forwarded: for=6.6.6.6\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n\
                Proxy-Authorization: Basic x\r\n";
    for trusted in [false, true] {
        let flags: &[&str] = if trusted {
            &["--trusted-proxy", "127.0.0.0/8"]
        } else {
            &[]
        };
        let relay = Relay::builder().args(flags.iter().copied()).start().await;
        let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
        assert_eq!(get(relay.public, "/?token=demo", lies).await.status, 200);
        let seen = origin.seen().pop().expect("it arrived");
        let told = |name: &str| seen.header(name);
        if trusted {
            assert_eq!(told("x-forwarded-for"), Some("6.6.6.6, 127.0.0.1"));
            assert_eq!(
                (told("x-forwarded-proto"), told("x-forwarded-host")),
                (Some("https"), Some("evil"))
            );
        } else {
            assert_eq!(told("x-forwarded-for"), Some("127.0.0.1"));
            assert_eq!(
                (told("x-forwarded-proto"), told("x-forwarded-host")),
                (Some("http"), Some("relay.test"))
            );
            assert_eq!((told("x-real-ip"), told("forwarded")), (None, None));
        }
        assert_eq!((told("via"), told("host")), (Some("1.1 arp"), Some("relay.test")));
        for gone in ["x-secret", "keep-alive", "proxy-authorization", "connection"] {
            assert_eq!(told(gone), None, "{gone}");
        }
    }
}
