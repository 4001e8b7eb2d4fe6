//! Command mode behind the plainest nginx: the relay does not learn how its visitors call it. Pages of our own work all the
//! same, and those of others do not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

mod support;

use arp_testkit::http::{Answer, RawClient, within};
use arp_testkit::web;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use support::{Edge, TOKEN};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Where Debian puts nginx, which is not in everybody's `PATH`.
const SBIN: &str = "/usr/sbin/nginx";
/// As the browser calls the site.
const PAGE: &str = "https://relay.example";
const KEY: &str = "an-edge-key-of-some-length";

/// The block as people write it, with a second port without TLS, for tests that look at single requests.
const CONF: &str = r#"
server {
    listen {https} ssl;
    listen {http};
    ssl_certificate {cert};
    ssl_certificate_key {key};
    location / {
        proxy_pass http://{relay};
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
    }
}
"#;

struct Nginx {
    https: SocketAddr,
    http: SocketAddr,
    _child: Child,
    _home: TempDir,
}

impl Nginx {
    /// Starts one in front of the relay of `edge`; `None` if this machine has none.
    async fn start(edge: &Edge) -> Option<Self> {
        let found = arp_testkit::in_path("nginx").or_else(|| Path::new(SBIN).is_file().then(|| SBIN.into()));
        let Some(program) = found else {
            arp_testkit::skip("nginx was not found. `apt-get install nginx-light`.");
            return None;
        };
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
        let made = rcgen::generate_simple_self_signed(vec!["relay.example".into()]).unwrap();
        std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("cert.pem"), made.cert.pem()).unwrap();
        let (https, http) = (free_port(), free_port());
        let relay = edge.base.trim_start_matches("http://").trim_end_matches('/');
        let mut conf = CONF.to_owned();
        for (name, value) in [
            ("{https}", https.to_string()),
            ("{http}", http.to_string()),
            ("{cert}", path("cert.pem")),
            ("{key}", path("key.pem")),
            ("{relay}", relay.to_owned()),
        ] {
            conf = conf.replace(name, &value);
        }
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {};\n", path(kind)))
            .concat();
        let whole = format!(
            "daemon off;\nmaster_process off;\npid {};\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{temp}{conf}}}\n",
            path("pid")
        );
        std::fs::write(path("nginx.conf"), whole).unwrap();
        let mut child = Command::new(program);
        child.args(["-p", &path(""), "-e", "stderr", "-c", &path("nginx.conf")]);
        let child = child.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        within("nginx to listen", async {
            while TcpStream::connect(http).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        Some(Self {
            https,
            http,
            _child: child,
            _home: home,
        })
    }

    /// One request as a browser would send it, without TLS.
    async fn ask(&self, first: &str, fields: &str, body: &str) -> Answer {
        let mut client = RawClient::connect(self.http).await;
        let length = if body.is_empty() {
            String::new()
        } else {
            format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            )
        };
        let text = format!(
            "{first} HTTP/1.1\r\nHost: relay.example\r\nX-ARP-Token: {TOKEN}\r\n{length}{fields}\r\n{body}"
        );
        client.send(&text).await;
        client.head().await
    }
}

fn free_port() -> SocketAddr {
    ([127, 0, 0, 1], arp_testkit::ports::free()).into()
}

async fn edge() -> Edge {
    let claude = format!(
        "--agent-path=claude={}",
        support::example("scripted_claude").display()
    );
    Edge::launch_through_relay(vec![claude, format!("--edge-key={KEY}")], Vec::new()).await
}

/// The cookies of an answer, as a request brings them back.
fn cookies(answer: &Answer) -> String {
    let set = answer.headers.iter().filter(|(name, _)| name == "set-cookie");
    let pairs = set.filter_map(|(_, value)| value.split(';').next());
    pairs
        .filter(|pair| !pair.ends_with('='))
        .collect::<Vec<_>>()
        .join("; ")
}

const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_our_own_work_behind_it_and_those_of_others_do_not() {
    let edge = edge().await;
    let Some(nginx) = Nginx::start(&edge).await else {
        return;
    };
    let login = format!(r#"{{"edge_key":"{KEY}"}}"#);
    let own = format!("Origin: {PAGE}\r\nSec-Fetch-Site: same-origin\r\n");
    // Somebody else's page, whatever browser shows it, and a sibling's.
    for foreign in [
        "Origin: https://evil.example\r\nSec-Fetch-Site: cross-site\r\n".to_owned(),
        "Origin: https://evil.relay.example\r\nSec-Fetch-Site: same-site\r\n".to_owned(),
        "Origin: https://evil.example\r\n".to_owned(),
        format!("Origin: {PAGE}\r\nSec-Fetch-Site: cross-site\r\n"),
        "Origin: null\r\nSec-Fetch-Site: cross-site\r\n".to_owned(),
    ] {
        let refused = nginx.ask("POST /api/login", &foreign, &login).await;
        assert_eq!(refused.status, 403, "{foreign}");
        let refused = nginx
            .ask("GET /api/events/ws", &format!("{foreign}{WEBSOCKET}"), "")
            .await;
        assert_eq!(refused.status, 403, "{foreign}");
    }
    let answer = nginx.ask("POST /api/login", &own, &login).await;
    assert_eq!(answer.status, 200);
    let given = cookies(&answer);
    assert!(
        given.contains("arp_edge_") && given.contains("__Host-arp_origin_"),
        "{given}"
    );
    assert!(!format!("{answer:?}").contains(KEY), "the key is in no cookie");

    // A WebSocket of Chromium tells no more than the origin of its page: the cookie vouches for that, and for no other.
    let socket = |origin: &str, cookie: &str| format!("Origin: {origin}\r\nCookie: {cookie}\r\n{WEBSOCKET}");
    let opened = nginx.ask("GET /api/events/ws", &socket(PAGE, &given), "").await;
    assert_eq!(opened.status, 101);
    for (origin, cookie) in [
        ("https://evil.example", given.as_str()),
        ("https://evil.relay.example", &given),
        ("http://relay.example", &given),
        (
            PAGE,
            given
                .split("; ")
                .find(|pair| pair.starts_with("arp_edge_"))
                .unwrap(),
        ),
        (PAGE, "__Host-arp_origin_0=1"),
    ] {
        let refused = nginx.ask("GET /api/events/ws", &socket(origin, cookie), "").await;
        assert_eq!(refused.status, 403, "{origin} {cookie}");
    }
    // Events come as they are.
    let stream = format!("Cookie: {given}\r\nAccept: text/event-stream\r\nSec-Fetch-Site: same-origin\r\n");
    let mut events = RawClient::connect(nginx.http).await;
    events
        .send(&format!(
            "GET /api/events HTTP/1.1\r\nHost: relay.example\r\nX-ARP-Token: {TOKEN}\r\n{stream}\r\n"
        ))
        .await;
    assert_eq!(events.head().await.status, 200);
    let mut body = Vec::new();
    assert!(events.chunk(&mut body).await > 0);
}

/// The key of one machine is nobody else's business, and a login can be taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_a_cookie_of_one_machine_that_can_be_taken_back() {
    let mut edge = edge().await;
    let host = edge
        .base
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let relay: SocketAddr = host.parse().unwrap();
    let ask = async |first: &str, fields: &str, body: &str| {
        let mut client = RawClient::connect(relay).await;
        let text = format!(
            "{first} HTTP/1.1\r\nHost: {host}\r\nX-ARP-Token: {TOKEN}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{fields}\r\n{body}",
            body.len()
        );
        client.send(&text).await;
        client.answer().await
    };
    let answer = ask("POST /api/login", "", &format!(r#"{{"edge_key":"{KEY}"}}"#)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let set: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie")
        .collect();
    assert!(
        set.iter()
            .any(|(_, v)| v.starts_with("arp_edge=;") && v.contains("Max-Age=0")),
        "{set:?}"
    );
    assert!(!format!("{set:?}").contains(KEY));
    let login = cookies(&answer);
    let with = |cookie: &str| format!("Cookie: {cookie}\r\n");
    assert_eq!(ask("GET /api/sessions", &with(&login), "").await.status, 200);
    // The key itself is no cookie any more, under no name.
    let name = login.split('=').next().unwrap();
    for cookie in [
        format!("arp_edge={KEY}"),
        format!("{name}={KEY}"),
        format!("{name}="),
        String::new(),
    ] {
        assert_eq!(
            ask("GET /api/sessions", &with(&cookie), "").await.status,
            401,
            "{cookie}"
        );
    }
    // It outlives a restart of the edge.
    edge.terminate();
    edge.restart();
    assert_eq!(ask("GET /api/sessions", &with(&login), "").await.status, 200);
    let out = ask("POST /api/logout", &with(&login), "").await;
    assert_eq!(out.status, 200);
    assert_eq!(ask("GET /api/sessions", &with(&login), "").await.status, 401);
}

/// A real browser on the console: what its page sends is taken, over fetch, events and a WebSocket, in two tabs.
#[tokio::test(flavor = "multi_thread")]
async fn the_console_works_behind_it_in_chromium() {
    let (true, Some(chromium)) = (web::ready(), web::chromium()) else {
        return;
    };
    let edge = edge().await;
    let Some(nginx) = Nginx::start(&edge).await else {
        return;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/web/plain_nginx.js");
    let mut run = Command::new("node");
    run.arg(script)
        .env("ARP_TEST_CHROMIUM", chromium)
        .env("ARP_TEST_URL", format!("https://{}", nginx.https))
        .env("ARP_TEST_TOKEN", TOKEN)
        .env("ARP_TEST_KEY", KEY)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let done = tokio::time::timeout(support::PATIENCE * 6, run.output()).await;
    let done = done.expect("it ends in time").unwrap();
    let said = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&said));
}
