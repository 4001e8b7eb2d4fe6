//! The operator's side: what the admin port tells, whom it lets in, and what the command line does with a running
//! relay.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::{Answer, RawClient, get, within};
use arp_testkit::origin::Origin;
use std::net::SocketAddr;
use std::path::Path;

/// Runs `arps …` on a data directory: exit code, and all that it said.
fn arps(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_arps"))
        .args(args)
        .arg("--data-dir")
        .arg(dir)
        .output()
        .unwrap();
    let text = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8(text).unwrap())
}

fn key_of(relay: &Relay) -> String {
    let path = relay.data.path().join("admin-key");
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// Asks the admin port as a program on the same machine would.
async fn ask(at: SocketAddr, method: &str, path: &str, fields: &str) -> Answer {
    let mut client = RawClient::connect(at).await;
    client
        .send(&format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\n{fields}\r\n"))
        .await;
    client.answer().await
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_takes_its_key_and_no_web_page() {
    let mut relay = Relay::start().await;
    let (at, key) = (relay.admin().await, key_of(&relay));
    {
        use std::os::unix::fs::PermissionsExt;
        let file = std::fs::metadata(relay.data.path().join("admin-key")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }
    assert!(!relay.daemon.output().contains(&key), "a key is nothing to print");
    let auth = bearer(&key);
    for (path, fields, status) in [
        ("/healthz", "", 200),
        ("/readyz", "", 200),
        ("/healthz", "Origin: https://evil.example\r\n", 403),
        ("/", "", 200),
        ("/metrics", "", 401),
        ("/api/status", "", 401),
        (
            "/api/status",
            "Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n",
            401,
        ),
        ("/api/status", auth.as_str(), 200),
        ("/api/status?x=1", auth.as_str(), 200),
        ("/api/nothing", auth.as_str(), 404),
        ("/api/status", &format!("{auth}Origin: http://{at}\r\n"), 200),
        (
            "/api/status",
            &format!("{auth}Origin: https://evil.example\r\n"),
            403,
        ),
        ("/api/status", &format!("{auth}Origin: null\r\n"), 403),
        (
            "/api/status",
            &format!("{auth}Sec-Fetch-Site: cross-site\r\n"),
            403,
        ),
        ("/", "Sec-Fetch-Site: cross-site\r\n", 403),
    ] {
        let answer = ask(at, "GET", path, fields).await;
        assert_eq!(answer.status, status, "{path} {fields}: {}", answer.text());
    }
    // What a page gets whose own name was made to point here.
    let rebound = get(at, "/api/status", &auth).await;
    assert_eq!(
        (rebound.status, rebound.json()["code"].as_str()),
        (403, Some("host_not_allowed"))
    );
    // A page cannot send these without being asked about them first, and that is not answered.
    assert_eq!(ask(at, "OPTIONS", "/api/status", &auth).await.status, 405);
    assert_eq!(ask(at, "GET", "/api/clients/demo/kick", &auth).await.status, 405);
    let page = ask(at, "GET", "/", "").await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    for part in ["/", "/admin.js", "/admin.css"] {
        let text = ask(at, "GET", part, "").await.text();
        let urls: Vec<_> = text.match_indices("http").map(|(at, _)| &text[at..]).collect();
        assert!(
            urls.iter()
                .all(|u| !u.starts_with("http://") && !u.starts_with("https://")
                    || u.starts_with("http://www.w3.org/2000/svg")),
            "{part} needs nothing from elsewhere"
        );
        assert!(!text.contains(" style=") && !text.contains("onclick="), "{part}");
    }
}

/// The value of a series.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{metrics}"))
        .parse()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted_and_survives_a_restart() {
    let origin = Origin::start("o").await;
    let mut relay = Relay::start().await;
    let (at, auth) = (relay.admin().await, bearer(&key_of(&relay)));
    let _edge = Edge::tcp(&relay, "a-very-secret-name", origin.addr).await;
    for _ in 0..3 {
        assert_eq!(
            get(relay.public, "/?token=a-very-secret-name", "").await.status,
            200
        );
    }
    assert_eq!(get(relay.public, "/?token=nobody", "").await.status, 404);
    assert_eq!(get(relay.public, "/", "").await.status, 401);
    let mut posted = RawClient::connect(relay.public).await;
    posted
        .send("POST /?token=a-very-secret-name HTTP/1.1\r\nHost: r\r\nContent-Length: 1000\r\n\r\n")
        .await;
    posted.send(&"x".repeat(1000)).await;
    assert_eq!(posted.answer().await.status, 200);
    // The answer may be here before it is counted.
    let metrics = within("the requests to be counted", async {
        loop {
            let answer = ask(at, "GET", "/metrics", &auth).await;
            assert_eq!(
                answer.header("content-type").unwrap().split(';').next(),
                Some("text/plain")
            );
            let text = answer.text();
            if value(&text, "arp_request_duration_seconds_count{class=\"2xx\"}") >= 4.0 {
                return text;
            }
        }
    })
    .await;
    let told = |series: &str| value(&metrics, series);
    assert_eq!(told("arp_edges_online"), 1.0);
    assert_eq!(told("arp_registrations_total"), 1.0);
    let tunnels = told("arp_checkouts_total{result=\"hit\"}") + told("arp_checkouts_total{result=\"miss\"}");
    assert_eq!(tunnels, 4.0);
    assert_eq!(told("arp_checkouts_total{result=\"timeout\"}"), 0.0);
    assert_eq!(told("arp_bytes_total{direction=\"in\"}"), 1000.0);
    assert!(told("arp_bytes_total{direction=\"out\"}") >= 4.0 * "hello from o".len() as f64);
    assert_eq!(
        told("arp_refused_total{what=\"request\",reason=\"unknown_token\"}"),
        1.0
    );
    assert_eq!(
        told("arp_refused_total{what=\"request\",reason=\"token_required\"}"),
        1.0
    );
    assert_eq!(
        told("arp_request_duration_seconds_bucket{class=\"2xx\",le=\"+Inf\"}"),
        4.0
    );
    assert_eq!(told("arp_store_writable"), 1.0);
    assert!(told("process_resident_memory_bytes") > 1e6 && told("arp_tunnels{state=\"idle\"}") >= 1.0);
    assert!(
        !metrics.contains("secret"),
        "whoever reads the metrics cannot visit anybody"
    );
    for line in metrics.lines().filter(|l| !l.starts_with('#')) {
        let (series, number) = line.rsplit_once(' ').unwrap();
        assert!(
            number.parse::<f64>().is_ok() && series.starts_with(|c: char| c.is_ascii_lowercase()),
            "{line}"
        );
    }
    // Raw connections, while they are open and when they have ended.
    let mut raw = RawClient::connect(relay.public).await;
    raw.send("?token=a-very-secret-name\nGET / HTTP/1.1\r\nHost: r\r\n\r\n")
        .await;
    raw.answer().await;
    for (ended, raw) in [(false, Some(raw)), (true, None)] {
        within("it to be counted", async {
            loop {
                let text = ask(at, "GET", "/metrics", &auth).await.text();
                let came = value(&text, "arp_bytes_total{direction=\"in\"}") - 1000.0;
                let open = value(&text, "arp_raw_connections");
                if came == 27.0 && (open == 0.0) == ended {
                    let all = value(&text, "arp_raw_connections_total{protocol=\"preamble\"}");
                    assert_eq!(all, 1.0);
                    return;
                }
            }
        })
        .await;
        drop(raw);
    }

    relay.daemon.terminate();
    assert_eq!(relay.daemon.ended().await.code(), Some(0));
    let mut relay = Relay::builder().at(&relay).start().await;
    let at = relay.admin().await;
    let traffic = ask(at, "GET", "/api/traffic", &auth).await.json();
    let sum = |of: &str| -> u64 {
        let days = traffic["days"].as_array().unwrap();
        days.iter().map(|d| d[of].as_u64().unwrap()).sum()
    };
    assert_eq!((sum("requests"), sum("bytes_in"), sum("refused")), (4, 1027, 2));
    let text = ask(at, "GET", "/metrics", &auth).await.text();
    assert_eq!(value(&text, "arp_lifetime_total{of=\"requests\"}"), 4.0);
    // Nothing of who came: neither address nor path nor name.
    let store = std::fs::read(relay.data.path().join("store.db")).unwrap();
    let store = String::from_utf8_lossy(&store);
    assert!(!store.contains("127.0.0.1") && !store.contains("nobody"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_disconnected_banned_and_forgotten_while_the_relay_runs() {
    let origin = Origin::start("o").await;
    let relay = Relay::start().await;
    let dir = relay.data.path().to_owned();
    let run = |args: &[&str]| arps(&dir, args);
    let mut edge = Edge::tcp(&relay, "demo", origin.addr).await;
    let (code, said) = run(&["status"]);
    assert!(code == Some(0) && said.contains("1 online, 1 known"), "{said}");
    let (code, said) = run(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, status["edges"]["online"].as_u64()), (Some(0), Some(1)));

    assert_eq!(run(&["clients", "kick", "nobody"]).0, Some(1));
    let (code, said) = run(&["clients", "kick", "demo"]);
    assert_eq!(code, Some(0), "{said}");
    let back = |l: &str| l.contains("registered again").then_some(());
    edge.daemon.line("that it is back", back).await;
    assert_eq!(get(relay.public, "/?token=demo", "").await.status, 200);

    let (code, said) = run(&["clients", "ban", "demo"]);
    assert!(code == Some(0) && said.contains("banned"), "{said}");
    assert_eq!(edge.daemon.ended().await.code(), Some(1));
    assert!(
        edge.daemon.output().contains("has banned this edge agent"),
        "{}",
        edge.daemon.output()
    );
    let (_, bans) = run(&["clients", "bans"]);
    assert!(
        bans.lines().any(|l| l == "demo") && bans.contains("SHA256:"),
        "{bans}"
    );

    // Under another name with the same key; and after a restart of the relay.
    let home = edge.home;
    let data = home.path().join("data/arpc").to_str().unwrap().to_owned();
    let mut other = Edge::tcp_builder(&relay, "other", origin.addr)
        .args(["--data-dir", &data])
        .spawn();
    assert_eq!(other.daemon.ended().await.code(), Some(1));
    let mut relay = relay;
    relay.daemon.kill().await;
    let relay = Relay::builder().at(&relay).start().await;
    let mut again = Edge::tcp_builder(&relay, "demo", origin.addr).home(home).spawn();
    assert_eq!(again.daemon.ended().await.code(), Some(1));

    for ban in bans.lines() {
        assert_eq!(run(&["clients", "unban", ban]).0, Some(0), "{ban}");
    }
    assert_eq!(
        run(&["clients", "unban", "demo"]).0,
        Some(1),
        "there is none any more"
    );
    let edge = Edge::tcp_builder(&relay, "demo", origin.addr)
        .home(again.home)
        .start()
        .await;
    assert_eq!(run(&["clients", "ban", "127.0.0.0/8"]).0, Some(0));
    let mut edge = edge;
    edge.daemon.ended().await;
    assert_eq!(run(&["clients", "unban", "127.0.0.0/8"]).0, Some(0));
    let (code, said) = run(&["clients", "forget", "demo"]);
    assert!(code == Some(0) && said.contains("forgot 1 name"), "{said}");
    // Its name is free for somebody with another key.
    Edge::tcp(&relay, "demo", origin.addr).await;

    let nobody = tempfile::tempdir().unwrap();
    let (code, said) = arps(nobody.path(), &["status"]);
    assert_eq!(code, Some(3), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bans_of_the_settings_hold_and_a_taken_port_is_done_without() {
    let mut relay = Relay::builder()
        .args(["--ban", "demo,203.0.113.0/24"])
        .start()
        .await;
    let at = relay.admin().await;
    let origin = Origin::start("o").await;
    let mut edge = Edge::tcp_builder(&relay, "demo", origin.addr).spawn();
    assert_eq!(edge.daemon.ended().await.code(), Some(1));
    assert_eq!(arps(relay.data.path(), &["clients", "unban", "demo"]).0, Some(1));
    // By number it must be had.
    let port = at.port().to_string();
    let (mut second, _data) = Relay::builder().args(["--admin-port", &port]).spawn();
    assert_eq!(second.ended().await.code(), Some(1));
    assert!(second.output().contains("--admin-port"), "{}", second.output());
    let off = Relay::builder().args(["--admin=false"]).start().await;
    let (code, said) = arps(off.data.path(), &["status"]);
    assert!(code == Some(0) && said.contains("closed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_read_again_without_dropping_anybody() {
    let home = tempfile::tempdir().unwrap();
    let (file, key_file) = (home.path().join("arps.toml"), home.path().join("join-key"));
    let write = |text: &str, key: &str| {
        std::fs::write(&key_file, key).unwrap();
        let text = format!("{text}\njoin-key-file = {:?}\n", key_file.to_str().unwrap());
        std::fs::write(&file, text).unwrap();
    };
    write("max-waiting = 7", "the first key");
    let mut relay = Relay::builder()
        .args(["--config", file.to_str().unwrap()])
        .start()
        .await;
    let dir = relay.data.path().to_owned();
    let origin = Origin::start("o").await;
    let with_key = |id: &str, key: &str| Edge::tcp_builder(&relay, id, origin.addr).args(["--join-key", key]);
    let _edge = with_key("demo", "the first key").start().await;
    let mut busy = RawClient::connect(relay.public).await;
    busy.send("GET /hold?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
        .await;
    within("the request", origin.arrived(1)).await;

    let (code, said) = arps(&dir, &["reload"]);
    assert!(code == Some(0) && said.contains("nothing has changed"), "{said}");

    // Everything that is wrong is told, and none of the rest is used.
    write("max-waiting = 8\nmax-conns = 0\nban = [\"no spaces\"]", "short");
    let (code, said) = arps(&dir, &["reload"]);
    assert_eq!(code, Some(1), "{said}");
    for fault in ["--max-conns", "--ban", "join key"] {
        assert!(said.contains(fault), "{said}");
    }
    assert!(!said.contains("short"), "a key is told to nobody");
    let _other = with_key("other", "the first key").start().await;

    write(
        "max-waiting = 8\nban = [\"other\"]\npublic-port = 1",
        "the second key",
    );
    let (code, said) = arps(&dir, &["reload"]);
    assert_eq!(code, Some(0), "{said}");
    for changed in ["--max-waiting", "--join-key", "--ban"] {
        assert!(said.contains(changed), "{said}");
    }
    assert!(!said.contains("--max-conns"), "{said}");
    assert_eq!(
        get(relay.public, "/?token=demo", "").await.status,
        200,
        "it knew the first key, and stays"
    );
    assert_eq!(
        get(relay.public, "/?token=other", "").await.status,
        503,
        "it is banned"
    );
    let mut late = with_key("late", "the first key").spawn();
    assert_eq!(late.daemon.ended().await.code(), Some(1));
    let _late = with_key("late", "the second key").start().await;

    // By signal, which tells the log.
    write("max-waiting = 9", "the second key");
    relay.daemon.signal("HUP");
    let read =
        |l: &str| (l.contains("settings read again") && l.contains("--max-waiting --ban")).then_some(());
    relay.daemon.line("that it has read them", read).await;
    write("max-waiting = true", "the second key");
    relay.daemon.signal("HUP");
    let bad = |l: &str| l.contains("max-waiting has to be").then_some(());
    relay.daemon.line("what is wrong", bad).await;

    origin.release(1);
    assert_eq!(busy.answer().await.text(), "released o", "nobody was dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_keep_nobody_from_the_admin_port() {
    let mut relay = Relay::start().await;
    let at = relay.admin().await;
    let mut silent = Vec::new();
    for _ in 0..3 * 64 {
        silent.push(tokio::net::TcpStream::connect(at).await.unwrap());
    }
    assert_eq!(ask(at, "GET", "/healthz", "").await.status, 200);
    // The first ones gave way, the last one is still there.
    let mut byte = [0];
    let first = silent.first_mut().unwrap();
    let ended = within(
        "the end of the first",
        tokio::io::AsyncReadExt::read(first, &mut byte),
    )
    .await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let last = silent.last_mut().unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {at}\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(last, request.as_bytes())
        .await
        .unwrap();
    assert_eq!(
        within("an answer", tokio::io::AsyncReadExt::read(last, &mut byte))
            .await
            .unwrap(),
        1
    );
}
