//! A relay that somebody else wrote, from the protocol's description alone: version 1.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arp_testkit::daemon::Edge;
use arp_testkit::http::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn send(stream: &mut TcpStream, json: &str) {
    stream.write_u32(json.len() as u32).await.unwrap();
    stream.write_all(json.as_bytes()).await.unwrap();
}

async fn receive(stream: &mut TcpStream) -> serde_json::Value {
    let len = within("a frame", stream.read_u32()).await.unwrap();
    let mut json = vec![0; len as usize];
    stream.read_exact(&mut json).await.unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// A relay's two ports, an edge in front of `local` that registered there, and its control channel.
async fn setup(local: u16) -> (TcpListener, TcpStream, Edge) {
    let control = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let builder = Edge::builder().relay_at(control.local_addr().unwrap(), proxy.local_addr().unwrap());
    let mut edge = builder
        .args([
            "--client-id",
            "demo",
            "--local-port",
            &local.to_string(),
            "--plaintext",
        ])
        .spawn();
    let (mut link, _) = within("the edge", control.accept()).await.unwrap();
    let register = receive(&mut link).await;
    assert_eq!(register["Register"]["client_id"], "demo");
    send(&mut link, r#"{"RegisterResult":{"success":true,"error":null}}"#).await;
    let url = edge
        .daemon
        .line("its URL", |l| l.strip_prefix("Public URL: ").map(str::to_owned))
        .await;
    assert_eq!(url, "http://127.0.0.1:17003/?token=demo");
    (proxy, link, edge)
}

/// Asks for a tunnel and waits for it.
async fn tunnel(link: &mut TcpStream, proxy: &TcpListener, id: &str) -> TcpStream {
    send(
        link,
        &format!(r#"{{"RequestNewProxyConn":{{"proxy_conn_id":"{id}"}}}}"#),
    )
    .await;
    let (mut tunnel, _) = within("the tunnel", proxy.accept()).await.unwrap();
    let hello = receive(&mut tunnel).await;
    assert_eq!(
        hello,
        serde_json::json!({"NewProxyConn": {"proxy_conn_id": id, "client_id": "demo"}})
    );
    tunnel
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_bytes_and_half_closes_pass_both_ways() {
    let local = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (proxy, mut link, _edge) = setup(local.local_addr().unwrap().port()).await;
    // The visitor's side ends first; the service still answers.
    let mut outside = tunnel(&mut link, &proxy, "any text will do").await;
    outside.write_all(b"question").await.unwrap();
    let (mut inside, _) = within("the local connection", local.accept()).await.unwrap();
    outside.shutdown().await.unwrap();
    let mut asked = String::new();
    within("the question", inside.read_to_string(&mut asked))
        .await
        .unwrap();
    assert_eq!(asked, "question");
    inside.write_all(b"answer").await.unwrap();
    drop(inside);
    let mut answered = String::new();
    within("the answer", outside.read_to_string(&mut answered))
        .await
        .unwrap();
    assert_eq!(answered, "answer");
    // And the other way round: the service ends first, the visitor still speaks.
    let mut outside = tunnel(&mut link, &proxy, "2").await;
    outside.write_all(b"hi").await.unwrap();
    let (mut inside, _) = within("the local connection", local.accept()).await.unwrap();
    inside.write_all(b"bye").await.unwrap();
    inside.shutdown().await.unwrap();
    let mut answered = String::new();
    within("the answer", outside.read_to_string(&mut answered))
        .await
        .unwrap();
    assert_eq!(answered, "bye");
    outside.write_all(b" there").await.unwrap();
    drop(outside);
    let mut asked = String::new();
    within("the question", inside.read_to_string(&mut asked))
        .await
        .unwrap();
    assert_eq!(asked, "hi there");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_dialed_at_the_first_byte_and_not_before() {
    let local = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (proxy, mut link, _edge) = setup(local.local_addr().unwrap().port()).await;
    let idle = tunnel(&mut link, &proxy, "1").await;
    let mut used = tunnel(&mut link, &proxy, "2").await;
    used.write_all(b"x").await.unwrap();
    let (mut inside, _) = within("the local connection", local.accept()).await.unwrap();
    assert_eq!(inside.read_u8().await.unwrap(), b'x');
    // Only the used tunnel has a connection: no second one is waiting to be accepted.
    assert!(futures_none(&local).await, "an idle tunnel dialed the service");
    drop(idle);
}

async fn futures_none(listener: &TcpListener) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(listener.poll_accept(cx).is_pending())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_breaks_off_is_told_as_a_reset() {
    let local = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (proxy, mut link, _edge) = setup(local.local_addr().unwrap().port()).await;
    let mut outside = tunnel(&mut link, &proxy, "1").await;
    outside.write_all(b"x").await.unwrap();
    let (inside, _) = within("the local connection", local.accept()).await.unwrap();
    inside.set_zero_linger().unwrap();
    drop(inside);
    let error = within("the end", outside.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_that_version_1_does_not_know() {
    let (_proxy, mut link, mut edge) = setup(1).await;
    edge.daemon.terminate();
    let mut rest = Vec::new();
    within("the end", link.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"", "no heartbeat, no goodbye");
    assert!(edge.daemon.ended().await.success());
}

/// Well within the 90 s.
const PERIOD: std::time::Duration = std::time::Duration::from_secs(60);

async fn receive_within(time: std::time::Duration, stream: &mut TcpStream) -> Option<serde_json::Value> {
    let len = tokio::time::timeout(time, stream.read_u32()).await.ok()?.ok()?;
    let mut json = vec![0; len as usize];
    stream.read_exact(&mut json).await.ok()?;
    serde_json::from_slice(&json).ok()
}

/// Real time: the relays that this is about forget who is silent for 90 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_forgets_silent_clients_hears_of_us_in_time() {
    let control = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut edge = Edge::builder()
        .relay_at(control.local_addr().unwrap(), proxy.local_addr().unwrap())
        .args(["--client-id", "demo", "--local-port", "1", "--plaintext"])
        .spawn();
    let welcome = r#"{"RegisterResult":{"success":true,"error":null}}"#;
    let registered = |frame: serde_json::Value| assert_eq!(frame["Register"]["client_id"], "demo");
    let (mut link, _) = within("the edge", control.accept()).await.unwrap();
    registered(receive(&mut link).await);
    send(&mut link, welcome).await;
    // It is told again on the same connection; an answer to it does no harm, and tunnels are opened all the same.
    let frame = receive_within(PERIOD, &mut link)
        .await
        .expect("a second registration");
    registered(frame);
    send(&mut link, welcome).await;
    let _tunnel = tunnel(&mut link, &proxy, "1").await;
    // Another relay takes that for a fault and closes: then there is a new connection each time, at once …
    let frame = receive_within(PERIOD, &mut link)
        .await
        .expect("a third registration");
    registered(frame);
    drop(link);
    let (mut second, _) = within("a new connection", control.accept()).await.unwrap();
    registered(receive(&mut second).await);
    send(&mut second, welcome).await;
    // … and later before the old one is closed.
    let (mut third, _) = tokio::time::timeout(PERIOD, control.accept())
        .await
        .expect("a further connection")
        .unwrap();
    registered(receive(&mut third).await);
    let mut byte = [0];
    let open = tokio::time::timeout(std::time::Duration::from_millis(200), second.read(&mut byte)).await;
    assert!(open.is_err(), "nothing is said on the old one, and it is open");
    send(&mut third, welcome).await;
    assert_eq!(within("its end", second.read(&mut byte)).await.unwrap(), 0);
    let _tunnel = tunnel(&mut third, &proxy, "2").await;
    assert!(
        !edge.daemon.output().contains("WARN lost"),
        "{}",
        edge.daemon.output()
    );
    edge.daemon.terminate();
    assert!(edge.daemon.ended().await.success());
}
