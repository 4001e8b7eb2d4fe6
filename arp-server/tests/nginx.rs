//! A real nginx in front of the public port, with the configuration of `deploy/nginx.conf`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use arp_testkit::daemon::{Edge, PATIENCE, Relay};
use arp_testkit::http::within;
use arp_testkit::origin::Origin;
use arp_testkit::web::{self, Scenario};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// Where Debian puts nginx, which is not in everybody's `PATH`.
const SBIN: &str = "/usr/sbin/nginx";

struct Nginx {
    https: SocketAddr,
    http: SocketAddr,
    /// Connections that it has opened to the relay.
    upstream: Arc<AtomicUsize>,
    _child: Child,
    _home: TempDir,
}

impl Nginx {
    /// Starts one in front of `relay`; `None` if this machine has none.
    async fn start(relay: &Relay) -> Option<Self> {
        let program =
            arp_testkit::in_path("nginx").or_else(|| Path::new(SBIN).is_file().then(|| SBIN.into()));
        let (Some(program), Some(_)) = (program, arp_testkit::in_path("openssl")) else {
            arp_testkit::skip("nginx or openssl was not found. `apt-get install nginx-light openssl curl`.");
            return None;
        };
        let home = tempfile::tempdir().unwrap();
        let (counted, upstream) = counted(relay.public).await;
        let (https, http) = (free_port(), free_port());
        let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
        certificate(&path("key.pem"), &path("cert.pem")).await;
        let example = include_str!("../../deploy/nginx.conf");
        let live = "/etc/letsencrypt/live/relay.example";
        let mut conf = example.to_owned();
        for (from, to) in [
            ("    listen [::]:443 ssl http2;\n", String::new()),
            ("    listen [::]:80;\n", String::new()),
            ("listen 443 ", format!("listen {https} ")),
            ("listen 80;", format!("listen {http};")),
            ("server 127.0.0.1:17003;", format!("server {counted};")),
            (&format!("{live}/fullchain.pem"), path("cert.pem")),
            (&format!("{live}/privkey.pem"), path("key.pem")),
        ] {
            assert!(conf.contains(from), "the example holds {from}");
            conf = conf.replace(from, &to);
        }
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {};\n", path(kind)))
            .concat();
        // One process: all visitors share its connections to the relay, and nothing is left when it is killed.
        let whole = format!(
            "daemon off;\nmaster_process off;\npid {};\nerror_log stderr;\nevents {{}}\nhttp {{\n{temp}{conf}}}\n",
            path("pid")
        );
        std::fs::write(path("nginx.conf"), whole).unwrap();
        let mut child = Command::new(program);
        child.args(["-p", &path(""), "-e", "stderr", "-c", &path("nginx.conf")]);
        let child = child.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        within("nginx to listen", async {
            while TcpStream::connect(https).await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        Some(Self {
            https,
            http,
            upstream,
            _child: child,
            _home: home,
        })
    }

    /// A URL behind it.
    fn url(&self, target: &str) -> String {
        format!("https://{}{target}", self.https)
    }
}

/// Passes connections on to `to`, and counts them.
async fn counted(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut there = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut there).await;
            });
        }
    });
    (addr, count)
}

fn free_port() -> SocketAddr {
    ([127, 0, 0, 1], arp_testkit::ports::free()).into()
}

async fn certificate(key: &str, cert: &str) {
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args([
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=relay.example",
            "-keyout",
            key,
            "-out",
            cert,
        ])
        .output();
    let made = made.await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn curl(args: &[&str]) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-sk", "--max-time", "60"])
        .args(args)
        .kill_on_drop(true);
    curl
}

async fn output(mut command: Command) -> String {
    let done = command.output().await.expect("curl is installed");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

async fn two_clients(relay: &Relay) -> [(Origin, Edge); 2] {
    let client = async |name| {
        let origin = Origin::start(name).await;
        let edge = Edge::tcp(relay, name, origin.addr).await;
        (origin, edge)
    };
    [client("alice").await, client("bob").await]
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_two_clients_share_an_upstream_connection_and_do_not_mix() {
    let relay = Relay::start().await;
    let Some(nginx) = Nginx::start(&relay).await else {
        return;
    };
    let _clients = two_clients(&relay).await;
    let names = ["alice", "bob"];
    for version in ["--http1.1", "--http2"] {
        let urls: Vec<_> = (0..40)
            .map(|n| nginx.url(&format!("/{n}?token={}", names[n % 2])))
            .collect();
        let mut one_by_one = curl(&[version, "-w", "\\n"]);
        one_by_one.args(&urls);
        assert_eq!(
            output(one_by_one).await,
            "hello from alice\nhello from bob\n".repeat(20)
        );
    }
    assert_eq!(
        nginx.upstream.load(Ordering::SeqCst),
        1,
        "all of them on one connection"
    );

    let dir = tempfile::tempdir().unwrap();
    let mut at_once = curl(&["--parallel", "--parallel-immediate", "--parallel-max", "20"]);
    for n in 0..100 {
        at_once.arg("-o").arg(dir.path().join(n.to_string()));
        at_once.arg(nginx.url(&format!("/echo?token={}&n={n}", names[n % 2])));
    }
    at_once.args(["-w", "%{filename_effective}: %{http_code} %{errormsg}\\n"]);
    let told = output(at_once).await;
    for n in 0..100 {
        let text = std::fs::read_to_string(dir.path().join(n.to_string())).unwrap();
        assert!(!text.is_empty(), "answer {n} is empty:\n{told}");
        let echo: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(echo["target"], format!("/echo?n={n}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_tells_who_the_visitor_is_and_how_he_came() {
    let relay = Relay::builder()
        .args(["--trusted-proxy", "127.0.0.0/8"])
        .start()
        .await;
    let Some(nginx) = Nginx::start(&relay).await else {
        return;
    };
    let [(alice, _edge), _] = two_clients(&relay).await;
    let page = nginx.url("/?token=alice");
    let claims = "X-Forwarded-For: 203.0.113.9";
    let answer = output(curl(&["-i", "-H", "Accept: text/html", "-H", claims, &page])).await;
    let seen = alice.seen().pop().unwrap();
    // nginx sets it afresh, and the relay adds nginx.
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1, 127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    let host = nginx.https.to_string();
    assert_eq!(seen.header("x-forwarded-host"), Some(host.as_str()));
    assert_eq!(seen.header("host"), Some(host.as_str()));
    let cookie = answer
        .lines()
        .find(|l| l.to_ascii_lowercase().starts_with("set-cookie: arp_token=alice"));
    assert!(cookie.is_some_and(|c| c.contains("Secure")), "{answer}");

    let plain = format!("http://{}/x?token=alice", nginx.http);
    let moved = output(curl(&[
        "-w",
        "%{http_code} %{redirect_url}",
        "-o",
        "/dev/null",
        &plain,
    ]))
    .await;
    assert!(moved.starts_with("301 https://"), "{moved}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_not_trusted_is_not_believed() {
    let relay = Relay::start().await;
    let Some(nginx) = Nginx::start(&relay).await else {
        return;
    };
    let [(alice, _edge), _] = two_clients(&relay).await;
    output(curl(&[&nginx.url("/?token=alice")])).await;
    let seen = alice.seen().pop().unwrap();
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_through_nginx_one_by_one() {
    let relay = Relay::start().await;
    let Some(nginx) = Nginx::start(&relay).await else {
        return;
    };
    let [(alice, _edge), _] = two_clients(&relay).await;
    for version in ["--http1.1", "--http2"] {
        let url = nginx.url("/sse?token=alice");
        let mut curl = curl(&["-N", version, &url])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
        for n in 0..5 {
            // The next event is not sent before this one has arrived.
            alice.release(1);
            let want = format!("data: event {n}");
            within("the event", async {
                while lines.next_line().await.unwrap().expect("it goes on") != want {}
            })
            .await;
        }
        curl.kill().await.unwrap();
        tokio::time::timeout(PATIENCE, alice.given_up(1))
            .await
            .expect("the end is passed on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_come_through_nginx() {
    for scenario in ["messages", "closing", "many"] {
        // Each scenario brings an edge with a key of its own, and a relay keeps a name for the first key.
        let relay = Relay::start().await;
        let Some(nginx) = Nginx::start(&relay).await else {
            return;
        };
        if !web::ready() {
            return;
        }
        Scenario::new("websocket.js", scenario)
            .at(nginx.url(""))
            .var("NODE_TLS_REJECT_UNAUTHORIZED", "0")
            .run(&relay, &["demo"])
            .await;
    }
}
