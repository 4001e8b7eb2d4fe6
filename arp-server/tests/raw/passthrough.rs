//! TLS by host name that the relay does not read.

use super::{run, text};
use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::{RawClient, get, within};
use arp_testkit::origin::Origin;
use arp_testkit::services::{Server, echo, has};
use arp_testkit::web;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate for these names in files, whose names begin with this; and flags with which a daemon shows it.
struct Shown {
    cert: CertificateDer<'static>,
    flags: [String; 4],
}

impl Shown {
    fn new(dir: &Path, name: &str, hosts: &[&str]) -> Self {
        let hosts: Vec<_> = hosts.iter().map(|&host| host.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(hosts).unwrap();
        let path = |end: &str| dir.join(format!("{name}-{end}.pem")).to_str().unwrap().to_owned();
        std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(path("cert"), made.cert.pem()).unwrap();
        Self {
            cert: made.cert.der().clone(),
            flags: ["--tls-cert".into(), path("cert"), "--tls-key".into(), path("key")],
        }
    }

    fn flags(&self) -> impl Iterator<Item = &str> {
        self.flags.iter().map(String::as_str)
    }

    /// The file of the certificate.
    fn file(&self) -> &str {
        &self.flags[1]
    }

    /// Speaks TLS with whoever has this certificate and no other.
    async fn dial(&self, to: SocketAddr, host: &str, alpn: &[u8]) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.cert.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(arp_common::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        if !alpn.is_empty() {
            config.alpn_protocols = vec![b"h2".to_vec(), alpn.to_vec()];
        }
        let tcp = TcpStream::connect(to).await?;
        let connect = TlsConnector::from(Arc::new(config)).connect(host.to_owned().try_into().unwrap(), tcp);
        within("a handshake", connect).await
    }
}

/// The first bytes of a visitor who speaks TLS with this host.
pub(super) fn hello(host: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(arp_common::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = host.to_owned().try_into().unwrap();
    let mut session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).unwrap();
    bytes
}

async fn told(stream: &mut TlsStream<TcpStream>, n: usize) -> String {
    let mut got = vec![0; n];
    within("bytes", stream.read_exact(&mut got)).await.unwrap();
    String::from_utf8(got).unwrap()
}

/// One request on a connection of its own, and all of the answer.
async fn ask(stream: io::Result<TlsStream<TcpStream>>, host: &str, path: &str) -> String {
    let mut stream = stream.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Proto: http\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within("an answer", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The alert of a failed handshake.
fn alert(e: &io::Error) -> String {
    let of = e.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    of.map_or_else(|| e.to_string(), |e| format!("{e:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_goes_to_the_edge_that_has_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::builder().args(["--domain", "arp.test"]).start().await;
    let (web, raw) = (Origin::start("web").await, echo().await);
    let shown = Shown::new(dir.path(), "edge", &["web.arp.test", "raw.arp.test"]);
    let service = format!("raw={raw}");
    let _other = Edge::tcp(&relay, "other", raw).await;
    let mut edge = Edge::tcp_builder(&relay, "web", web.addr)
        .args(shown.flags())
        .args(["--service", &service])
        .start()
        .await;
    let url = edge
        .daemon
        .line("its URL", |l| l.strip_prefix("Public URL: ").map(str::to_owned));
    let port = relay.public.port();
    assert_eq!(url.await, format!("https://web.arp.test:{port}/"));
    let host = format!("web.arp.test:{port}");
    // Half a hello, then the rest; the name in capitals.
    for alpn in [&b"http/1.1"[..], b"h3", b""] {
        let stream = shown.dial(relay.public, "WEB.arp.test", alpn).await;
        let agreed = stream
            .as_ref()
            .unwrap()
            .get_ref()
            .1
            .alpn_protocol()
            .map(<[u8]>::to_vec);
        assert_eq!(agreed, (alpn == b"http/1.1").then(|| alpn.to_vec()));
        let answer = ask(stream, &host, "/").await;
        assert!(answer.contains("hello from web"), "{answer}");
    }
    let mut stream = shown
        .dial(relay.public, "raw.arp.test", b"postgresql")
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"postgresql"[..]));
    stream.write_all(b"ping").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    within("an end", stream.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"hello\npingbye\n", "half-close goes through");
    // What the relay could read it does not take.
    let mut visitor = RawClient::connect(relay.public).await;
    let request = format!("GET /x?y=z HTTP/1.1\r\nHost: {host}\r\n\r\n");
    visitor.send(&request).await;
    let answer = visitor.answer().await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (308, Some(&*format!("https://{host}/x?y=z")))
    );
    let answer = get(relay.public, "/t/raw/", "").await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (421, Some("passthrough_only"))
    );
    let mut visitor = RawClient::connect(relay.public).await;
    visitor.send("?token=raw\n").await;
    assert_eq!(
        visitor.exactly(6).await,
        b"hello\n",
        "raw connections are as before"
    );
    // Without a certificate of the relay's, everything else is an alert.
    for (host, why) in [
        ("other.arp.test", "UnrecognisedName"),
        ("nobody.arp.test", "UnrecognisedName"),
        ("arp.test", "UnrecognisedName"),
        ("192.0.2.1", "UnrecognisedName"),
    ] {
        let e = shown.dial(relay.public, host, b"").await.unwrap_err();
        assert_eq!(alert(&e), format!("AlertReceived({why})"), "{host}");
    }
    let mut visitor = RawClient::connect(relay.public).await;
    visitor.send_bytes(&[22, 3, 1, 0, 4, 20, 0, 0, 0]).await;
    assert_eq!(visitor.rest().await[..2], [21, 3], "an alert");
    // A name that is guessed at costs the same here as in a URL, and one that is there does not.
    for n in 0..30 {
        let _ = shown.dial(relay.public, &format!("guess{n}.arp.test"), b"").await;
    }
    let answer = get(relay.public, "/t/guess/", "").await;
    assert_eq!(answer.status, 429);
    let mut stream = shown.dial(relay.public, "raw.arp.test", b"").await.unwrap();
    assert_eq!(told(&mut stream, 6).await, "hello\n");
    // The files change: new visitors see what is new, and who is here stays.
    let renewed = Shown::new(dir.path(), "edge", &["web.arp.test", "raw.arp.test"]);
    within("the new certificate", async {
        while renewed.dial(relay.public, "raw.arp.test", b"").await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    stream.write_all(b"still").await.unwrap();
    assert_eq!(told(&mut stream, 5).await, "still");
    // The edge leaves.
    drop(edge);
    within("it is offline", async {
        loop {
            match renewed.dial(relay.public, "raw.arp.test", b"").await {
                Err(e) if alert(&e) == "AlertReceived(InternalError)" => return,
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relays_own_certificate_is_for_all_other_names() {
    let dir = tempfile::tempdir().unwrap();
    let own = Shown::new(dir.path(), "relay", &["arp.test", "*.arp.test"]);
    let relay = Relay::builder()
        .args(["--domain", "arp.test"])
        .args(own.flags())
        .start()
        .await;
    let web = Origin::start("web").await;
    let shown = Shown::new(dir.path(), "edge", &["console.arp.test"]);
    let _plain = Edge::tcp(&relay, "plain", web.addr).await;
    let _console = Edge::builder()
        .relay_at(relay.control, relay.proxy)
        .args(["--client-id", "console", "--command-mode"])
        .args(shown.flags())
        .start()
        .await;
    let port = relay.public.port();
    // The console, by the edge's certificate; what it is told of itself is not the visitor's to say.
    let host = format!("console.arp.test:{port}");
    let answer = ask(
        shown.dial(relay.public, "console.arp.test", b"http/1.1").await,
        &host,
        "/api/health",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Others by the relay's: known, unknown, and a browser that takes one connection for all names.
    for (name, host, status) in [
        ("plain.arp.test", "plain.arp.test", "200"),
        ("nobody.arp.test", "nobody.arp.test", "404"),
        ("arp.test", "arp.test", "401"),
        ("plain.arp.test", &*host, "421"),
    ] {
        let answer = ask(own.dial(relay.public, name, b"http/1.1").await, host, "/").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{name} {host}: {answer}"
        );
    }
    let stream = own.dial(relay.public, "plain.arp.test", b"").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), None);
    let stream = own.dial(relay.public, "plain.arp.test", b"x").await.unwrap();
    assert_eq!(
        stream.get_ref().1.alpn_protocol(),
        Some(&b"h2"[..]),
        "HTTP/2 as before"
    );
    // Raw connections find nothing but HTTP at the console.
    let told = super::say(relay.public, b"?token=console\n").await;
    assert!(told.starts_with("http_only: "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_in_tls_that_the_edge_or_the_server_ends() {
    if !(has("psql") && has("initdb")) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::builder().args(["--domain", "arp.test"]).start().await;
    let shown = Shown::new(dir.path(), "edge", &["db.arp.test", "own.arp.test"]);
    let server = Server::postgres_with_tls(Path::new(&shown.flags[1]), Path::new(&shown.flags[3])).await;
    let file = dir.path().join("arpc.toml");
    let port = server.addr.port();
    let tables = format!(
        "[services.own]\nport = {port}\nprotocol = \"postgres\"\ntls-passthrough = true\n\
         [services.old]\nport = {port}\ntls-passthrough = false\n"
    );
    std::fs::write(&file, tables).unwrap();
    let _edge = Edge::tcp_builder(&relay, "db", server.addr)
        .args(shown.flags())
        .args(["--config", file.to_str().unwrap()])
        .start()
        .await;
    let port = relay.public.port();
    let psql = async |dsn: &str| {
        let dsn = format!("hostaddr=127.0.0.1 port={port} dbname=postgres gssencmode=disable {dsn}");
        let query = "select 'tls at the server: ' || ssl from pg_stat_ssl where pid = pg_backend_pid()";
        let vars = [("PGPASSWORD", "s3cret"), ("HOME", dir.path().to_str().unwrap())];
        text(
            &run(
                "psql",
                &[&dsn, "-X", "-w", "-At", "-c", query, "-c", "\\conninfo"],
                &vars,
            )
            .await,
        )
    };
    let root = shown.file();
    for (dsn, at_server, sealed) in [
        (
            format!("host=db.arp.test user=bob sslmode=verify-full sslrootcert='{root}'"),
            "false",
            true,
        ),
        (
            format!("host=own.arp.test user=bob sslmode=verify-full sslrootcert='{root}'"),
            "true",
            true,
        ),
        // By token, without a certificate of the relay's: the handshake ends in an alert, and psql comes anew.
        (
            "host=arp.test user=bob?token=db sslmode=prefer".into(),
            "false",
            false,
        ),
        (
            "host=127.0.0.1 user=bob?token=own sslmode=prefer".into(),
            "false",
            false,
        ),
    ] {
        let told = psql(&dsn).await;
        assert!(
            told.contains(&format!("tls at the server: {at_server}")),
            "{dsn}: {told}"
        );
        assert_eq!(told.contains("SSL connection"), sealed, "{dsn}: {told}");
    }
    // From the first byte, by a driver that can.
    if web::ready() {
        let vars = [
            ("ARP_TEST_NAME", "db.arp.test"),
            ("ARP_TEST_CA", root),
            ("ARP_TEST_USER", "bob"),
        ];
        super::drivers::scenario("direct", &relay, &vars).await;
    }
    let told = psql("host=old.arp.test user=bob sslmode=require").await;
    assert!(told.contains("unrecognized name"), "{told}");
}
