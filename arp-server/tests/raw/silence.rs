//! Who says nothing is greeted as MySQL's clients expect; browsers, who open sockets for later, are harmed as little
//! as can be.

use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::http::{RawClient, get, within};
use arp_testkit::origin::Origin;
use arp_testkit::services::echo;
use std::io::ErrorKind;
use std::net::SocketAddr;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

/// A connection that says nothing, from an address of 127.0.0.0/8.
async fn silent(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Waits for the relay's greeting.
async fn greeted(mut stream: TcpStream) -> TcpStream {
    let mut start = [0; 14];
    within("a greeting", stream.read_exact(&mut start)).await.unwrap();
    assert_eq!(&start[3..], b"\0\n8.0.0-arp");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_nobody_uses_is_reset_after_its_greeting() {
    let (relay, web) = (Relay::start().await, Origin::start("web").await);
    let service = format!("web={}", web.addr.port());
    let edge = Edge::tcp_builder(&relay, "db", echo().await);
    let _edge = edge
        .args(["--protocol", "mysql", "--service", &service])
        .start()
        .await;
    let mut socket = greeted(silent([127, 0, 0, 2], relay.public).await).await;
    // An orderly end would leave the greeting to be read: for a browser that is an answer, and a reset is none.
    let mut rest = Vec::new();
    let end = within("a reset", socket.read_to_end(&mut rest))
        .await
        .unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);

    // Who speaks HTTP on one connection is given more time on the others, also on those that were there before.
    let (early, stranger) = (
        silent([127, 0, 0, 3], relay.public).await,
        silent([127, 0, 0, 4], relay.public).await,
    );
    let mut page = RawClient::connect_from([127, 0, 0, 3], relay.public).await;
    page.send("GET /?token=web HTTP/1.1\r\nHost: r\r\n\r\n").await;
    assert_eq!(page.answer().await.text(), "hello from web");
    let late = silent([127, 0, 0, 3], relay.public).await;
    let (mut early, mut late) = (Box::pin(greeted(early)), Box::pin(greeted(late)));
    tokio::select! {
        biased;
        _ = greeted(stranger) => {}
        _ = &mut early => panic!("greeted like a stranger"),
        _ = &mut late => panic!("greeted like a stranger"),
    }
    tokio::join!(early, late);
    assert_eq!(
        get(relay.public, "/?token=web", "").await.text(),
        "hello from web"
    );
}
