//! Which edge a request reaches, and what of the request does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use arp_common::protocol::{Command as Say, Register};
use arp_common::tls::Identity;
use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::{Answer, RawClient, get};
use arp_testkit::origin::Origin;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{register, try_register};

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
        cookie.starts_with("arp_token=tab-a; Path=/; Max-Age=7776000; HttpOnly; SameSite=Lax"),
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

/// One request under a host name, on a connection of its own.
async fn at(relay: &Relay, host: &str, target: &str, fields: &str) -> Answer {
    let mut client = RawClient::connect(relay.public).await;
    let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n");
    client.send(&text).await;
    client.answer().await
}

/// The same by HTTP/2: status and location.
fn h2(relay: &Relay, host: &str, target: &str, fields: &str) -> String {
    let url = format!("http://{host}:{}{target}", relay.public.port());
    let resolve = format!("{host}:{}:127.0.0.1", relay.public.port());
    let mut args = vec![
        "--http2-prior-knowledge",
        "--path-as-is",
        "--resolve",
        &resolve,
        "-o",
        "/dev/null",
    ];
    args.extend(["-w", "%{http_code} %{redirect_url}"]);
    for field in fields.split_terminator("\r\n") {
        args.extend(["-H", field]);
    }
    args.push(&url);
    curl(&args)
}

const PAGE: &str = "Sec-Fetch-Mode: navigate\r\nAccept: text/html\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn on_a_clients_own_host_name_nobody_else_answers() {
    let relay = Relay::builder().args(["--domain", "arp.test"]).start().await;
    let (good, evil) = (Origin::start("good").await, Origin::start("evil").await);
    let _good = Edge::tcp(&relay, "good", good.addr).await;
    let _evil = Edge::tcp(&relay, "evil", evil.addr).await;
    let port = relay.public.port();
    for (target, fields) in [
        ("/x?token=evil", ""),
        ("/x?arp_token=evil", ""),
        ("/t/evil/x", ""),
        ("/t/%65vil/x", ""),
        ("/x", "X-ARP-Token: evil\r\n"),
    ] {
        for host in ["good.arp.test", "GOOD.arp.test.", "good.arp.test:80"] {
            let answer = at(&relay, host, target, fields).await;
            assert_eq!(
                (answer.status, answer.header("x-arp-error")),
                (404, Some("other_host")),
                "{host}{target}"
            );
            let answer = at(&relay, host, target, &format!("{PAGE}{fields}")).await;
            let location = answer
                .header("location")
                .expect("a browser is sent to the other's host");
            assert!(
                answer.status == 307 && location.starts_with("http://evil.arp.test"),
                "{location}"
            );
            assert!(location.ends_with("/x"), "{location}");
        }
        assert_eq!(h2(&relay, "good.arp.test", target, fields), "404 ");
        let sent = h2(&relay, "good.arp.test", target, &format!("{PAGE}{fields}"));
        assert_eq!(sent, format!("307 http://evil.arp.test:{port}/x"));
    }
    // In absolute form, too.
    let absolute = at(&relay, "good.arp.test", "http://good.arp.test/x?token=evil", "").await;
    assert_eq!(absolute.status, 404);
    // A page and a cookie lead nowhere else.
    let browser = "Referer: http://good.arp.test/?token=evil\r\nCookie: arp_token=evil\r\n";
    assert_eq!(
        at(&relay, "good.arp.test", "/x", browser).await.text(),
        "hello from good"
    );
    let seen = good.seen().pop().expect("it arrived");
    assert_eq!(
        (seen.header("referer"), seen.header("cookie")),
        (Some("http://good.arp.test/"), None)
    );
    // What is the client's own comes as it was sent.
    at(&relay, "good.arp.test", "/lab?token=own", PAGE).await;
    assert_eq!(good.seen().pop().expect("it arrived").target, "/lab?token=own");
    // The bare domain shows nobody's page, however it is asked for.
    for fields in [PAGE, "Sec-Fetch-Mode: navigate\r\nCookie: arp_token=evil\r\n"] {
        let target = if fields == PAGE { "/x?token=evil" } else { "/x" };
        let answer = at(&relay, "arp.test", target, fields).await;
        assert_eq!(
            answer.header("location"),
            Some("http://evil.arp.test/x"),
            "{target}"
        );
    }
    let mut form = RawClient::connect(relay.public).await;
    form.send("POST /x?token=evil HTTP/1.1\r\nHost: arp.test\r\nSec-Fetch-Mode: navigate\r\nContent-Length: 1\r\n\r\na")
        .await;
    assert_eq!(form.answer().await.status, 307);
    assert!(evil.seen().is_empty(), "{:?}", evil.seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_speaks_for_no_other() {
    let relay = Relay::builder().args(["--domain", "arp.test"]).start().await;
    let evil = Origin::start("evil").await;
    let _evil = Edge::tcp(&relay, "evil", evil.addr).await;
    let say = "X-Say: set-cookie: sid=1; Path=/\r\nX-Say: set-cookie: up=1; Domain=arp.test\r\n\
               X-Say: set-cookie: arp_token=evil; Path=/\r\nX-Say: set-cookie: =arp_token=evil\r\n\
               X-Say: set-cookie: arp_edge=x\r\nX-Say: clear-site-data: \"*\"\r\n\
               X-Say: strict-transport-security: max-age=9\r\nX-Say: alt-svc: h3=\":1\"\r\n\
               X-Say: service-worker-allowed: /\r\nX-ARP-Token: evil\r\n";
    let speaks = [
        "clear-site-data",
        "strict-transport-security",
        "alt-svc",
        "service-worker-allowed",
    ];
    for (host, own) in [("evil.arp.test", true), ("relay.test", false)] {
        let answer = at(&relay, host, "/x", say).await;
        let cookies: Vec<_> = answer.headers.iter().filter(|(n, _)| n == "set-cookie").collect();
        assert_eq!(cookies.len(), 1, "{cookies:?}");
        assert_eq!(answer.header("set-cookie"), Some("sid=1; Path=/"));
        for name in speaks {
            assert_eq!(answer.header(name).is_some(), own, "{host} {name}");
        }
        let port = relay.public.port();
        let mut args = vec![
            "--http2-prior-knowledge".to_owned(),
            "-D-".into(),
            "-o/dev/null".into(),
        ];
        args.extend([
            "--resolve".into(),
            format!("{host}:{port}:127.0.0.1"),
            format!("http://{host}:{port}/x"),
        ]);
        for field in say.split_terminator("\r\n") {
            args.extend(["-H".into(), field.to_owned()]);
        }
        let head = curl(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(head.matches("set-cookie").count(), 1, "{head}");
        for name in speaks {
            assert_eq!(head.contains(&format!("{name}:")), own, "{head}");
        }
    }
}

/// Whatever still asks for the name `old` reaches nobody, though the browser has opened `other`, too.
async fn gone(relay: &Relay, other: &Origin) {
    let cookie = "Cookie: arp_token=other\r\n";
    for (target, fields) in [
        ("/x?token=old", String::new()),
        ("/x?arp_token=old", String::new()),
        ("/t/old/x", String::new()),
        ("/x", "X-ARP-Token: old\r\n".to_owned()),
        ("/x", "Referer: http://relay.test/?token=old\r\n".to_owned()),
        ("/x", "Referer: http://relay.test/t/old/\r\n".to_owned()),
        ("/x", "Cookie: arp_token=old\r\n".to_owned()),
        // Mistyped, in a place that is ours alone.
        ("/x?arp_token=odl", String::new()),
        ("/t/odl/x", String::new()),
        ("/x", "X-ARP-Token: odl\r\n".to_owned()),
        ("/x", "Referer: http://relay.test/?arp_token=odl\r\n".to_owned()),
        ("/?token=odl", PAGE.to_owned()),
    ] {
        let answer = get(relay.public, target, &format!("{fields}{cookie}")).await;
        assert_eq!(
            (answer.status, answer.header("x-arp-error")),
            (404, Some("unknown_token")),
            "{target} {fields}"
        );
    }
    assert!(other.seen().is_empty(), "{:?}", other.seen());
    let told = get(relay.public, "/x?token=old", "").await;
    assert!(told.text().contains("revoked or has expired"), "{}", told.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_gone_does_not_become_another() {
    let mut relay = Relay::start().await;
    let other = Origin::start("other").await;
    let mut edge = Edge::tcp(&relay, "other", other.addr).await;
    let identity = Identity::generate().unwrap();
    let asks = Register {
        tokens: vec!["old".parse().unwrap()],
        ..register("machine")
    };
    let (mut machine, result) = try_register(&relay, &identity, asks).await;
    assert!(result.success, "{result:?}");
    // A browser opened first the one, then the other.
    let (tokens, id_token) = (vec![], true);
    machine.say(&Say::SetTokens { tokens, id_token }).await;
    while !matches!(machine.hear().await, Some(Say::TokensSet { error: None })) {}
    let cookie = "Cookie: arp_token=other\r\n";
    gone(&relay, &other).await;
    // Nor when the relay has forgotten all that it does not write down.
    relay.daemon.kill().await;
    relay.daemon.ended().await;
    relay = Relay::builder().at(&relay).start().await;
    edge.daemon
        .nth_line("that it is back", 1, |line| {
            line.contains("registered again").then_some(())
        })
        .await;
    gone(&relay, &other).await;
    // Two machines in one request are none.
    let both = get(relay.public, "/x?arp_token=other", "X-ARP-Token: machine\r\n").await;
    assert_eq!(
        (both.status, both.header("x-arp-error")),
        (400, Some("token_conflict"))
    );
    // An application's own parameter goes on, and the page for a mistyped address has a link.
    assert_eq!(
        get(relay.public, "/lab?token=jupyter", cookie).await.text(),
        "hello from other"
    );
    let page = get(relay.public, "/?token=jupyter", &format!("{PAGE}{cookie}"))
        .await
        .text();
    assert!(
        page.contains("<a href=\"/?token=jupyter&amp;arp_token=*\">"),
        "{page}"
    );
    let on = get(
        relay.public,
        "/?token=jupyter&arp_token=*",
        &format!("{PAGE}{cookie}"),
    )
    .await;
    assert_eq!(on.text(), "hello from other");
    assert_eq!(other.seen().pop().expect("it arrived").target, "/?token=jupyter");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_redirect_leads_to_another_host() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _a = Edge::tcp(&relay, "tab-a", origin.addr).await;
    let _b = Edge::tcp(&relay, "tab-b", origin.addr).await;
    let tabs =
        "Referer: http://relay.test/?token=tab-a\r\nCookie: arp_token=tab-b\r\nSec-Fetch-Mode: navigate\r\n";
    for (target, there) in [
        ("//evil.example/x", "/.//evil.example/x?arp_token=tab-a"),
        ("/\\evil.example/x", "/./\\evil.example/x?arp_token=tab-a"),
        ("/x", "/x?arp_token=tab-a"),
    ] {
        let answer = get(relay.public, target, tabs).await;
        assert_eq!((answer.status, answer.header("location")), (307, Some(there)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_family_of_forwarding_fields_is_ours_in_any_spelling() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let names = [
        "X-Forwarded-For",
        "X_Forwarded_For",
        "X-Forwarded_For",
        "x_forwarded-host",
        "X-Forwarded-Server",
        "X-Forwarded-User",
        "X_Forwarded_Proto",
        "X-Forwarded-Ssl",
        "X-Forwarded-Prefix",
        "X-Forwarded",
        "X_Forwarded",
        "Forwarded",
        "X-Real-IP",
        "X_Real_IP",
        "x-real_ip",
        "X_ARP_Token",
    ];
    let lies: String = names.iter().map(|name| format!("{name}: 6.6.6.6\r\n")).collect();
    assert_eq!(get(relay.public, "/?token=demo", &lies).await.status, 200);
    let seen = origin.seen().pop().expect("it arrived");
    assert!(!format!("{seen:?}").contains("6.6.6.6"), "{seen:?}");
    // Of a trusted proxy the fields are believed, but not the spelling that no proxy writes.
    let relay = Relay::builder()
        .args(["--trusted-proxy", "127.0.0.0/8"])
        .start()
        .await;
    let _edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let told =
        "X-Forwarded-User: me\r\nX-Real-IP: 192.0.2.1\r\nX_Forwarded_User: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\n";
    get(relay.public, "/?token=demo", told).await;
    let seen = origin.seen().pop().expect("it arrived");
    assert_eq!(
        (seen.header("x-forwarded-user"), seen.header("x-real-ip")),
        (Some("me"), Some("192.0.2.1"))
    );
    assert!(!format!("{seen:?}").contains("6.6.6.6"), "{seen:?}");
}

/// Names that a visitor may ask for in vain before he has to wait, and those after that he can ask for in a second.
const FREE: usize = 500;
const A_SECOND: u32 = 50;

/// However somebody asks for names, after the free ones it is fifty a second.
#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_bounded_whichever_way_it_is_done() {
    let origin = Origin::start("o").await;
    type Way = fn(&str) -> (String, String);
    let ways: [(&str, Way); 8] = [
        ("the query alone", |g| {
            (format!("/?token={g}"), "Host: r\r\n".into())
        }),
        ("the query beside a client", |g| {
            (
                format!("/?token={g}"),
                "Host: r\r\nCookie: arp_token=known\r\n".into(),
            )
        }),
        ("the query beside a strict name", |g| {
            (format!("/?token={g}&arp_token=known"), "Host: r\r\n".into())
        }),
        ("the page that asks", |g| {
            (
                "/".into(),
                format!("Host: r\r\nReferer: http://r/?token={g}\r\nCookie: arp_token=known\r\n"),
            )
        }),
        ("the page alone", |g| {
            ("/".into(), format!("Host: r\r\nReferer: http://r/?token={g}\r\n"))
        }),
        ("a host name", |g| {
            (
                "/".into(),
                format!("Host: {g}.arp.test\r\nCookie: arp_token=known\r\n"),
            )
        }),
        ("a header", |g| {
            (
                "/".into(),
                format!("Host: r\r\nX-ARP-Token: {g}\r\nCookie: arp_token=known\r\n"),
            )
        }),
        ("on another's host name", |g| {
            (format!("/?token={g}"), "Host: known.arp.test\r\n".into())
        }),
    ];
    for (name, way) in ways {
        let relay = Relay::builder().args(["--domain", "arp.test"]).start().await;
        let _edge = Edge::tcp(&relay, "known", origin.addr).await;
        let mut visitor = RawClient::connect(relay.public).await;
        let mut ask = async |n: usize| {
            let (target, fields) = way(&format!("guess{n}"));
            visitor
                .send(&format!("GET {target} HTTP/1.1\r\n{fields}\r\n"))
                .await;
            visitor.answer().await
        };
        for n in 0..FREE + 40 {
            ask(n).await;
        }
        let start = Instant::now();
        for n in 0..A_SECOND {
            ask(10_000 + n as usize).await;
        }
        // One answer may have been free.
        let least = Duration::from_millis(20) * (A_SECOND - 2);
        assert!(start.elapsed() >= least, "{name}: {:?}", start.elapsed());
    }
}

/// A known token must not tell what others there are: neither what the service sees, nor a cookie that we make.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_exists_looks_like_one_that_does_not() {
    let (relay, origin) = (Relay::start().await, Origin::start("o").await);
    let _known = Edge::tcp(&relay, "known", origin.addr).await;
    let _other = Edge::tcp(&relay, "other", origin.addr).await;
    let mut seen = Vec::new();
    for guess in ["other", "nobody"] {
        let referer = format!("X-ARP-Token: known\r\nReferer: http://relay.test/p?token={guess}&a=1\r\n");
        assert_eq!(get(relay.public, "/x", &referer).await.status, 200);
        let referer = origin
            .seen()
            .pop()
            .expect("it arrived")
            .header("referer")
            .map(str::to_owned);
        // A mark of a name that is not there would tell, when it is used, whether it has come.
        let opened = get(
            relay.public,
            "/?token=known",
            &format!("{PAGE}Cookie: arp_token={guess}\r\n"),
        )
        .await;
        seen.push((referer, opened.header("set-cookie").map(str::to_owned)));
    }
    assert_eq!(seen[0].0, seen[1].0);
    assert_eq!(seen[0].0.as_deref(), Some("http://relay.test/p?a=1"));
    let cookie = |at: usize| seen[at].1.as_deref().unwrap_or_default();
    assert!(
        cookie(0).starts_with("arp_token=known:") && cookie(1).starts_with("arp_token=known;"),
        "{seen:?}"
    );
}

/// A page of any client on a shared origin, or of a sibling, can fill a browser with cookies.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_cookies_does_not_lock_a_browser_out() {
    let relay = Relay::start().await;
    let cookies: Vec<String> = (0..60).map(|n| format!("c{n}={}", "x".repeat(3000))).collect();
    let target = "/t/demo/?a=1";
    let freed = |answer: &Answer| {
        let set = answer.headers.iter().filter(|(name, _)| name == "set-cookie");
        let set: Vec<_> = set.map(|(_, value)| value.as_str()).collect();
        assert_eq!(answer.status, 431);
        assert!(set.contains(&"c7=; Path=/; Max-Age=0"), "{set:?}");
        assert_eq!(answer.header("clear-site-data"), Some("\"cookies\""));
    };
    let all = cookies.join("; ");
    let answer = get(
        relay.public,
        target,
        &format!("Accept: text/html\r\nCookie: {all}\r\n"),
    )
    .await;
    freed(&answer);
    assert!(
        answer.text().contains("href=\"/t/demo/?a=1\""),
        "{}",
        answer.text()
    );
    // Nothing else is answered with that.
    let program = get(relay.public, target, &format!("Cookie: {all}\r\n")).await;
    assert_eq!((program.status, program.header("set-cookie")), (431, None));

    let tcp = tokio::net::TcpStream::connect(relay.public).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    let connection = tokio::spawn(connection);
    // As many as a browser keeps for one site, and as large.
    let cookies: Vec<String> = (0..180).map(|n| format!("c{n}={}", "x".repeat(4090))).collect();
    let mut request = http::Request::get(format!("http://relay.test{target}")).header("accept", "text/html");
    for cookie in &cookies {
        request = request.header("cookie", cookie);
    }
    let mut client = client.ready().await.unwrap();
    let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
    let response = arp_testkit::http::within("an answer", response).await.unwrap();
    let fields = response.headers().iter();
    let headers = fields.map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()));
    freed(&Answer {
        status: response.status().as_u16(),
        headers: headers.collect(),
        ..Answer::default()
    });
    connection.abort();
}
