//! One request is one request for the service, and one answer one answer for the visitor, however the bytes are
//! cut; and what failed looks like it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use arp_common::net;
use arp_common::transport::Stream;
use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::{RawClient, get, within};
use arp_testkit::origin::Origin;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use support::http2::{self, End};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// A relay with one tunnel for its client: whatever is left over on it shows at once.
async fn one_tunnel(origin: &Origin) -> (Relay, Edge) {
    let relay = Relay::builder()
        .args(["--max-tunnels", "1", "--pool-size", "1"])
        .start()
        .await;
    let edge = Edge::tcp(&relay, "demo", origin.addr).await;
    (relay, edge)
}

/// A local service that sends back the content of a request in chunks, or tells what else came with it.
async fn strict() -> SocketAddr {
    async fn answer(stream: &mut TcpStream) -> io::Result<()> {
        let head = read_head(stream).await?;
        let mut content = Vec::new();
        while head.contains("chunked") {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(stream.read_u8().await?);
            }
            let size = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
            let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
            if size == 0 {
                // Trailers, and an empty line.
                let mut rest = b"\r\n".to_vec();
                while !rest.ends_with(b"\r\n\r\n") {
                    rest.push(stream.read_u8().await?);
                }
                break;
            }
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await?;
            assert_eq!(chunk.split_off(size), b"\r\n");
            content.extend(chunk);
        }
        let mut more = [0; 64];
        if let Ok(n) = timeout(Duration::from_millis(50), stream.read(&mut more)).await {
            content = format!("more came: {:?}", String::from_utf8_lossy(&more[..n?])).into_bytes();
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&content).await
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { while answer(&mut stream).await.is_ok() {} });
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http2_upload_is_one_request_wherever_its_empty_frames_are() {
    let relay = Relay::start().await;
    let _edge = Edge::tcp(&relay, "demo", strict().await).await;
    let client = http2::connect_from([127, 0, 0, 1], relay.public, 1 << 20).await;
    let bodies: &[&[&[u8]]] = &[
        &[],
        &[b""],
        &[b"", b""],
        &[b"a"],
        &[b"", b"ab"],
        &[b"ab", b""],
        &[b"a", b"", b"", b"b"],
        &[b"", b"a", b"", b"b", b"", b"c"],
        &[b"0\r\n\r\n", b"", b"GET /smuggled HTTP/1.1\r\n\r\n"],
    ];
    for pieces in bodies {
        for end in [End::WithPiece, End::EmptyData, End::Trailers] {
            if pieces.is_empty() && end == End::WithPiece {
                continue;
            }
            let answer = http2::post(&client, "/?token=demo", pieces, end).await;
            let (status, content) = answer.unwrap_or_else(|e| panic!("{pieces:?} {end:?}: {e}"));
            let content = String::from_utf8(content).unwrap();
            let want = String::from_utf8(pieces.concat()).unwrap();
            assert_eq!((status, content), (200, want), "{pieces:?} {end:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http1_upload_is_one_request_wherever_it_is_cut() {
    let origin = Origin::start("o").await;
    let (relay, _edge) = one_tunnel(&origin).await;
    let mut client = RawClient::connect(relay.public).await;
    let mut sent = 0;
    for (fields, body) in [
        ("Content-Length: 7", "abc\r\n0\r"),
        (
            "Transfer-Encoding: chunked",
            "3\r\nabc\r\n4\r\n\r\n0\r\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked",
            "7;x=y\r\nabc\r\n0\r\r\n0\r\nX-Sum: 7\r\n\r\n",
        ),
    ] {
        let request = format!("POST /echo?token=demo HTTP/1.1\r\nHost: r\r\n{fields}\r\n\r\n{body}");
        for at in 1..request.len() {
            client.send(&request[..at]).await;
            tokio::task::yield_now().await;
            client.send(&request[at..]).await;
            let echo = client.answer().await.json();
            assert_eq!(echo["body"].as_str(), Some("abc\r\n0\r"), "{fields}, cut at {at}");
            sent += 1;
        }
    }
    assert_eq!(get(relay.public, "/?token=demo", "").await.text(), "hello from o");
    assert_eq!(origin.seen().len(), sent + 1);
}

/// A local service that answers every request with these bytes, cut at the place that the target tells; then it
/// closes, if it is told to.
async fn cutting(answer: &'static [u8], closes: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                loop {
                    let Ok(head) = read_head(&mut stream).await else {
                        return;
                    };
                    let at: usize = head
                        .split('/')
                        .nth(1)
                        .unwrap()
                        .split(' ')
                        .next()
                        .unwrap()
                        .parse()
                        .unwrap();
                    stream.write_all(&answer[..at]).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    stream.write_all(&answer[at..]).await.unwrap();
                    if closes {
                        return;
                    }
                }
            });
        }
    });
    addr
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_one_answer_wherever_it_is_cut() {
    for (answer, closes) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nabc\r\n0\r"[..], false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\n\r\n0\r\r\n0\r\nX-Sum: 7\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\n\r\nabc\r\n0\r", true),
    ] {
        let relay = Relay::start().await;
        let _edge = Edge::tcp(&relay, "demo", cutting(answer, closes).await).await;
        let mut client = RawClient::connect(relay.public).await;
        let h2 = http2::connect_from([127, 0, 0, 1], relay.public, 1 << 20).await;
        for at in 1..answer.len() {
            client.send(&format!("GET /{at}?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")).await;
            let got = client.answer().await;
            assert_eq!((got.status, &got.body[..]), (200, &b"abc\r\n0\r"[..]), "cut at {at}");
            let target = format!("/{at}?token=demo");
            let got = http2::get(&h2, &target).await.unwrap();
            assert_eq!(got, (200, b"abc\r\n0\r".to_vec()), "HTTP/2, cut at {at}");
            let mut old = RawClient::connect(relay.public).await;
            old.send(&format!("GET /{at}?token=demo HTTP/1.0\r\n\r\n")).await;
            assert_eq!(old.answer().await.body, b"abc\r\n0\r", "HTTP/1.0, cut at {at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_is_passed_on_whole_before_the_next_one_is_there() {
    let relay = Relay::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _edge = Edge::tcp(&relay, "demo", listener.local_addr().unwrap()).await;
    let mut client = RawClient::connect(relay.public).await;
    client
        .send("POST /?token=demo HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    let (mut service, _) = within("a connection", listener.accept()).await.unwrap();
    within("the head", read_head(&mut service)).await.unwrap();
    let mut chunk = [0; 8];
    within("the whole chunk", service.read_exact(&mut chunk))
        .await
        .unwrap();
    assert_eq!(&chunk, b"3\r\nabc\r\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_line_before_a_request_is_skipped_however_it_is_cut() {
    let origin = Origin::start("o").await;
    let (relay, _edge) = one_tunnel(&origin).await;
    let mut client = RawClient::connect(relay.public).await;
    for pieces in [
        &["\r\nGET"][..],
        &["\r", "\nGET"],
        &["\r\n", "GET"],
        &["\r\n\r", "\n", "GET"],
        &["\r", "\n", "\r", "\nG", "ET"],
    ] {
        for piece in pieces {
            client.send(piece).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        client.send(" /?token=demo HTTP/1.1\r\nHost: r\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200, "{pieces:?}");
    }
}

/// The ways in which a relay is reached by its edges and visitors.
struct Setting {
    relay: Relay,
    tls_visitor: bool,
    plain_link: bool,
    certificate: CertificateDer<'static>,
    _dir: tempfile::TempDir,
}

impl Setting {
    async fn new(plain_link: bool, tls_visitor: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["relay.test".into()]).unwrap();
        let certificate = cert.der().clone();
        std::fs::write(path("key.pem"), signing_key.serialize_pem()).unwrap();
        std::fs::write(path("cert.pem"), cert.pem()).unwrap();
        let (cert_file, key_file) = (path("cert.pem"), path("key.pem"));
        let mut builder = Relay::builder().args(["--allow-plaintext"]);
        if tls_visitor {
            builder = builder.args(["--tls-cert", &cert_file, "--tls-key", &key_file]);
        }
        Self {
            relay: builder.start().await,
            tls_visitor,
            plain_link,
            certificate,
            _dir: dir,
        }
    }

    async fn edge(&self, id: &str, local: SocketAddr) -> Edge {
        let builder = Edge::tcp_builder(&self.relay, id, local);
        if self.plain_link {
            builder.args(["--plaintext"]).start().await
        } else {
            builder.start().await
        }
    }

    async fn tls(&self) -> Stream {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpStream::connect(self.relay.public).await.unwrap();
        let name = ServerName::try_from("relay.test").unwrap();
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .unwrap();
        Stream::Tls(Box::new(tls.into()))
    }

    /// Sends a request, lets the service fail once the answer has begun, and reads to the end of the connection:
    /// how does it end?
    async fn read_to_end(
        &self,
        request: &str,
        fail: &mpsc::UnboundedSender<()>,
    ) -> (Vec<u8>, io::Result<()>) {
        let mut stream: Stream = if self.tls_visitor {
            self.tls().await
        } else {
            Stream::Plain(TcpStream::connect(self.relay.public).await.unwrap())
        };
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let (mut got, mut failed) = (Vec::new(), false);
        loop {
            match within("the end", stream.read_buf(&mut got)).await {
                Ok(0) => return (got, Ok(())),
                Ok(_) if !failed && got.windows(5).any(|w| w == b"begin") => {
                    failed = true;
                    fail.send(()).unwrap();
                }
                Ok(_) => {}
                Err(e) => return (got, Err(e)),
            }
        }
    }
}

/// A local service that gives the beginning of an answer, waits for a word, and fails.
async fn failing(begin: &'static str) -> (SocketAddr, mpsc::UnboundedSender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (tx, mut rx) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if read_head(&mut stream).await.is_err() {
                continue;
            }
            stream.write_all(begin.as_bytes()).await.unwrap();
            rx.recv().await;
            net::reset_on_drop(&stream);
        }
    });
    (addr, tx)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_cut_never_ends_like_a_whole_one() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n";
    const UNTIL_EOF: &str = "HTTP/1.1 200 OK\r\n\r\nbegin";
    for (plain_link, tls_visitor) in [(true, false), (true, true), (false, false), (false, true)] {
        let setting = Setting::new(plain_link, tls_visitor).await;
        for (id, begin) in [("chunked", CHUNKED), ("until-eof", UNTIL_EOF)] {
            let (local, fail) = failing(begin).await;
            let _edge = setting.edge(id, local).await;
            for version in ["1.0", "1.1"] {
                let request = format!("GET /?token={id} HTTP/{version}\r\nHost: relay.test\r\n\r\n");
                let (got, end) = setting.read_to_end(&request, &fail).await;
                let text = String::from_utf8_lossy(&got);
                let what =
                    format!("plain link {plain_link}, TLS visitor {tls_visitor}, {begin:?}, {request:?}");
                assert!(text.contains("200 OK"), "{what}: {text}");
                assert!(!text.ends_with("0\r\n\r\n"), "{what}: {text}");
                let error = end.expect_err(&what);
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{what}");
            }
        }
    }
}

/// The visitor's side of an answer without a length, when a daemon dies in the middle of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_leaves_no_answer_that_looks_whole() {
    const UNTIL_EOF: &str = "HTTP/1.1 200 OK\r\n\r\nbegin";
    for (plain_link, edge_dies) in [(true, true), (false, true), (true, false)] {
        let mut setting = Setting::new(plain_link, false).await;
        let (local, _fail) = failing(UNTIL_EOF).await;
        let mut edge = setting.edge("demo", local).await;
        let mut client = RawClient::connect(setting.relay.public).await;
        client.send("GET /?token=demo HTTP/1.0\r\n\r\n").await;
        assert_eq!(client.head().await.status, 200);
        assert_eq!(client.exactly(5).await, b"begin");
        if edge_dies {
            edge.daemon.kill().await;
        } else {
            setting.relay.daemon.kill().await;
        }
        let end = within("the end", client.stream.read(&mut [0; 8])).await;
        assert_eq!(
            end.expect_err("an end that looks whole").kind(),
            io::ErrorKind::ConnectionReset,
            "plain link {plain_link}, the edge dies {edge_dies}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_who_is_cut_off_is_no_proper_end_for_the_service() {
    for plain_link in [true, false] {
        let setting = Setting::new(plain_link, false).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _edge = setting.edge("demo", listener.local_addr().unwrap()).await;
        let mut client = RawClient::connect(setting.relay.public).await;
        client
            .send("GET /?token=demo HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
            .await;
        let (mut service, _) = within("a connection", listener.accept()).await.unwrap();
        read_head(&mut service).await.unwrap();
        service
            .write_all(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(client.head().await.status, 101);
        client.send("words").await;
        service.read_exact(&mut [0; 5]).await.unwrap();
        net::reset_on_drop(&client.stream);
        drop(client);
        let end = within("the end", service.read(&mut [0; 8])).await;
        assert_eq!(
            end.expect_err("an end that looks proper").kind(),
            io::ErrorKind::ConnectionReset,
            "plain link {plain_link}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pauses_for_a_minute_gets_the_rest() {
    const SIZE: usize = 60_000_000;
    let (relay, origin) = (Relay::start_plain().await, Origin::start("o").await);
    let _tls = Edge::tcp(&relay, "tls", origin.addr).await;
    let plain = Edge::tcp_builder(&relay, "plain", origin.addr).args(["--plaintext"]);
    let _plain = plain.start().await;
    let mut all = Vec::new();
    for (token, kind) in [("plain", "bytes"), ("plain", "chunked"), ("tls", "bytes")] {
        let mut client = RawClient::connect(relay.public).await;
        client
            .send(&format!(
                "GET /{kind}/{SIZE}?token={token} HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n"
            ))
            .await;
        client.head().await;
        all.push(client);
    }
    // The kernel's time cannot be turned forward.
    tokio::time::sleep(Duration::from_secs(60)).await;
    for client in &mut all {
        let (mut total, mut buf) = (0, vec![0; 1 << 20]);
        loop {
            match within("more", client.stream.read(&mut buf)).await {
                Ok(0) => break,
                Ok(n) => total += n,
                Err(e) => panic!("cut after {total} bytes: {e}"),
            }
        }
        // What came with the head is not counted.
        assert!(total > SIZE - 1_000_000, "{total}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_download_that_nobody_reads_any_more_ends_soon() {
    for args in [&[][..], &["--plaintext"]] {
        let relay = Relay::start_plain().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = listener.local_addr().unwrap();
        let _edge = Edge::tcp_builder(&relay, "demo", local)
            .args(args.iter().copied())
            .start()
            .await;
        let mut client = RawClient::connect(relay.public).await;
        client.send("GET /?token=demo HTTP/1.1\r\nHost: r\r\n\r\n").await;
        let (mut service, _) = within("a connection", listener.accept()).await.unwrap();
        read_head(&mut service).await.unwrap();
        let sending: JoinHandle<io::Result<()>> = tokio::spawn(async move {
            service
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000000\r\n\r\n")
                .await?;
            loop {
                service.write_all(&[7; 65536]).await?;
            }
        });
        client.head().await;
        // It says that it will not ask again, and reads nothing.
        client.stream.shutdown().await.unwrap();
        // Long before a write may be given up.
        let end = within("the end of the download", sending).await.unwrap();
        assert!(end.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_of_a_visitor_who_left_is_not_sent() {
    let origin = Origin::start("o").await;
    let (relay, _edge) = one_tunnel(&origin).await;
    let mut busy = RawClient::connect(relay.public).await;
    busy.send("GET /hold?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
        .await;
    within("the request", origin.arrived(1)).await;
    let mut leaving = RawClient::connect(relay.public).await;
    leaving
        .send("POST /left?token=demo HTTP/1.1\r\nHost: r\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    let mut large = RawClient::connect(relay.public).await;
    large
        .send("POST /left?token=demo HTTP/1.1\r\nHost: r\r\nContent-Length: 200000\r\n\r\n")
        .await;
    large.send_bytes(&[b'x'; 100_000]).await;
    let mut h2 = http2::connect_from([127, 0, 0, 1], relay.public, 1 << 20).await;
    let (_answer, mut stream) = h2
        .send_request(http2::request("POST", "/left?token=demo"), false)
        .unwrap();
    // One that closes its sending side at once may still want its answer; these leave later.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    drop((leaving, large));
    stream.send_reset(h2::Reason::CANCEL);
    let mut staying = RawClient::connect(relay.public).await;
    staying
        .send("GET /stays?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
        .await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    origin.release(1);
    assert_eq!(busy.answer().await.status, 200);
    assert_eq!(staying.answer().await.status, 200);
    let seen: Vec<_> = origin.seen().into_iter().map(|s| s.target).collect();
    assert_eq!(seen, ["/hold", "/stays"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_who_closes_its_sending_side_at_once_is_waited_for() {
    let origin = Origin::start("o").await;
    let (relay, _edge) = one_tunnel(&origin).await;
    let mut busy = RawClient::connect(relay.public).await;
    busy.send("GET /hold?token=demo HTTP/1.1\r\nHost: r\r\n\r\n")
        .await;
    within("the request", origin.arrived(1)).await;
    let mut client = RawClient::connect(relay.public).await;
    client.send("GET /?token=demo HTTP/1.1\r\nHost: r\r\n\r\n").await;
    client.stream.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    origin.release(1);
    assert_eq!(client.answer().await.text(), "hello from o");
}
