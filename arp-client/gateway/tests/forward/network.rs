//! How an upstream is reached: proxies, authorities, fields, times; and what is said when it cannot be.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::support::*;
use super::{ASK, PATH};
use arp_gateway::service::Service;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Accepts until it is dropped, and does this with each connection.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl Server {
    pub(super) async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let (count, stopped) = (connections.clone(), stop.clone());
        tokio::spawn(async move {
            while let Some(Ok((tcp, _))) = stopped.run_until_cancelled(listener.accept()).await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(tcp));
            }
        });
        Self {
            address,
            connections,
            _stop: stop.drop_guard(),
        }
    }

    /// TLS in front of another server; and the certificate to trust.
    async fn tls(to: SocketAddr) -> (Self, String) {
        Self::tls_speaking(to, &[]).await
    }

    /// The same, with these protocols to choose from.
    pub(super) async fn tls_speaking(to: SocketAddr, protocols: &[&[u8]]) -> (Self, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let server = Self::start(move |tcp| {
            let acceptor = acceptor.clone();
            async move {
                let (Ok(mut tls), Ok(mut out)) = (acceptor.accept(tcp).await, TcpStream::connect(to).await)
                else {
                    return;
                };
                let _ = copy_bidirectional(&mut tls, &mut out).await;
            }
        })
        .await;
        (server, made.cert.pem())
    }

    /// SOCKS5 without a login.
    async fn socks() -> Self {
        Self::start(|mut tcp| async move {
            let mut hello = [0; 3];
            tcp.read_exact(&mut hello).await.unwrap();
            tcp.write_all(&[5, 0]).await.unwrap();
            let mut head = [0; 4];
            tcp.read_exact(&mut head).await.unwrap();
            assert_eq!(head, [5, 1, 0, 1], "an IPv4 address to connect to");
            let mut address = [0; 6];
            tcp.read_exact(&mut address).await.unwrap();
            let port = u16::from_be_bytes([address[4], address[5]]);
            let ip = std::net::Ipv4Addr::new(address[0], address[1], address[2], address[3]);
            let mut out = TcpStream::connect((ip, port)).await.unwrap();
            tcp.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
            let _ = copy_bidirectional(&mut tcp, &mut out).await;
        })
        .await
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// A gateway with one upstream there, reached like this.
pub(super) async fn with(url: &str, network: &str) -> Running {
    let gateway = Running::start(Service::Claude, &file(&[("a", url, 0)])).await;
    std::fs::write(gateway.home.settings(), format!("[upstream.claude.a]\n{network}")).unwrap();
    gateway
}

/// What is said of the upstream that was asked first.
pub(super) async fn why(gateway: &Running) -> String {
    gateway.post(PATH, ASK, None).await;
    gateway.gateway.usage().flush();
    let newest = gateway.gateway.usage().newest(1).unwrap();
    newest[0]["failed"][0][1].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn an_upstream_is_reached_through_each_kind_of_proxy_with_fields_of_its_own() {
    // Names that nobody knows: only the proxy can have asked for them.
    let proxy = Upstream::start(|_| Say::Events(message("through it"))).await;
    let url = proxy.url().replace("://", "://me:secret@");
    let gateway = with(
        "http://models.invalid/base",
        &format!("proxy = \"{url}\"\nheaders = {{ X-Team = \"blue\", anthropic-beta = \"mine\" }}\n"),
    )
    .await;
    assert!(gateway.post(PATH, ASK, None).await.body.contains("through it"));
    let asked = &proxy.asked()[0];
    assert_eq!(
        asked.line,
        "POST http://models.invalid/base/v1/messages?beta=true HTTP/1.1"
    );
    assert_eq!(asked.header("proxy-authorization"), Some("Basic bWU6c2VjcmV0"));
    assert_eq!(
        (asked.header("x-team"), asked.header("anthropic-beta")),
        (Some("blue"), Some("mine"))
    );
    let (_, all) = gateway.ask("GET", "/api/gateway/upstreams", "").await;
    let shown: &Value = &all["services"]["claude"]["upstreams"][0]["proxy"];
    assert!(
        shown.is_string() && !shown.to_string().contains("secret"),
        "{shown}"
    );

    // The proxy itself over TLS, with an authority of its own.
    let (tls, pem) = Server::tls(proxy.address).await;
    let ca = gateway.home.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    let network = format!(
        "proxy = \"https://localhost:{}\"\nca_file = \"{}\"\n",
        tls.address.port(),
        ca.display()
    );
    let secure = with("http://models.invalid", &network).await;
    assert!(secure.post(PATH, ASK, None).await.body.contains("through it"));
    assert_eq!(tls.connections(), 1);

    let upstream = Upstream::start(|_| Say::Events(message("behind socks"))).await;
    let socks = Server::socks().await;
    let gateway = with(
        &upstream.url(),
        &format!("proxy = \"socks5://{}\"\n", socks.address),
    )
    .await;
    assert!(gateway.post(PATH, ASK, None).await.body.contains("behind socks"));
    assert_eq!(socks.connections(), 1);
}

#[tokio::test]
async fn an_authority_of_a_company_is_trusted_where_it_is_named_and_faults_are_told_in_words() {
    let upstream = Upstream::start(|_| Say::Events(message("over TLS"))).await;
    let (tls, pem) = Server::tls(upstream.address).await;
    let url = format!("https://localhost:{}", tls.address.port());
    let gateway = with(&url, "").await;
    let said = why(&gateway).await;
    assert!(
        said.contains("certificate is not trusted") && said.contains("ca_file"),
        "{said}"
    );
    let ca = gateway.home.path().join("ca.pem");
    std::fs::write(&ca, pem).unwrap();
    std::fs::write(
        gateway.home.settings(),
        format!("[upstream.claude.a]\nca_file = \"{}\"\n", ca.display()),
    )
    .unwrap();
    assert!(gateway.post(PATH, ASK, None).await.body.contains("over TLS"));

    // As web servers answer what is no HTTP.
    let plain = Server::start(|mut tcp| async move {
        let mut some = [0; 64];
        let _ = tcp.read(&mut some).await;
        let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    for (url, network, wanted) in [
        (
            "http://no-such-host.invalid".to_owned(),
            "",
            "its name cannot be resolved",
        ),
        (
            format!("https://{}", plain.address),
            "",
            "it does not speak TLS as expected",
        ),
        ("http://127.0.0.1:1".to_owned(), "", "nothing listens there"),
        (
            upstream.url(),
            "ca_file = \"/no/such/file\"\n",
            "ca_file /no/such/file",
        ),
        (
            upstream.url(),
            "proxy = \"nonsense://x\"\n",
            "the proxy cannot be used",
        ),
    ] {
        let said = why(&with(&url, network).await).await;
        assert!(said.contains(wanted), "{url} {network}: {said}");
    }
}

#[tokio::test]
async fn one_that_falls_silent_is_given_up_after_its_own_times() {
    let silent = Upstream::start(|_| Say::Silent).await;
    let other = Upstream::start(|_| Say::Events(message("the other one"))).await;
    let stalled = Upstream::start(|_| Say::Stalled(message("x")[..3].to_vec())).await;
    let gateway = Running::start(
        Service::Claude,
        &file(&[("silent", &silent.url(), 2), ("other", &other.url(), 1)]),
    )
    .await;
    let times = "first_byte_timeout_secs = 1\nidle_timeout_secs = 1\n";
    std::fs::write(
        gateway.home.settings(),
        format!("[upstream.claude.silent]\n{times}"),
    )
    .unwrap();
    let got = gateway.post(PATH, ASK, None).await;
    assert!(got.body.contains("the other one"), "{got:?}");
    let gateway = with(&stalled.url(), times).await;
    let got = gateway.post(PATH, ASK, None).await;
    assert!(
        got.cut,
        "no block was finished: it is cut, so that the agent asks again: {got:?}"
    );
}

/// An address that takes no connection and refuses none: its queue is full, and nobody accepts. Linux drops what comes
/// then.
#[cfg(target_os = "linux")]
async fn black_hole() -> (tokio::net::TcpListener, TcpStream, String) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let only = TcpStream::connect(address).await.unwrap();
    (listener, only, format!("http://{address}"))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_upstream_that_takes_no_connection_is_given_up_after_its_own_time_and_the_next_is_asked() {
    let (_listener, _only, url) = black_hole().await;
    // Were the time to connect not counted for itself, that of the first byte would be over first, with other words.
    let times = "connect_timeout_secs = 1\nfirst_byte_timeout_secs = 8\n";
    let said = why(&with(&url, times).await).await;
    assert!(
        said.contains("no connection to it came about in time") && said.contains("connect_timeout_secs"),
        "{said}"
    );
    assert!(!said.contains("127.0.0.1"), "never the URL: {said}");

    let other = Upstream::start(|_| Say::Events(message("the other one"))).await;
    let gateway = Running::start(
        Service::Claude,
        &file(&[("hole", &url, 2), ("other", &other.url(), 1)]),
    )
    .await;
    std::fs::write(
        gateway.home.settings(),
        format!("[upstream.claude.hole]\n{times}"),
    )
    .unwrap();
    let got = gateway.post(PATH, ASK, None).await;
    assert!(got.body.contains("the other one"), "{got:?}");
    // It is there, but silent: that is not the time to connect.
    let silent = Upstream::start(|_| Say::Silent).await;
    let times = "connect_timeout_secs = 8\nfirst_byte_timeout_secs = 1\n";
    assert_eq!(
        why(&with(&silent.url(), times).await).await,
        "it did not answer in time"
    );
}
