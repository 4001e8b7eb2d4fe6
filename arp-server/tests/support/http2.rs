//! An HTTP/2 visitor that sends exactly the frames a test wants.

use arp_testkit::http::within;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use std::net::SocketAddr;
use tokio::net::TcpSocket;

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With its last piece.
    WithPiece,
    /// With an empty DATA frame.
    EmptyData,
    /// With trailers.
    Trailers,
}

/// Connects from `from`, with room for `window` bytes of each answer.
pub(crate) async fn connect_from(from: [u8; 4], to: SocketAddr, window: u32) -> SendRequest<Bytes> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let tcp = socket.connect(to).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(window)
        .initial_connection_window_size(window.saturating_mul(256).min(1 << 30));
    let (send, connection) = builder.handshake(tcp).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    within("the connection", send.ready()).await.unwrap()
}

pub(crate) fn request(method: &str, target: &str) -> Request<()> {
    let uri = format!("http://relay.test{target}");
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

/// Sends a body in these pieces, and gives status and content of the answer.
pub(crate) async fn post(
    client: &SendRequest<Bytes>,
    target: &str,
    pieces: &[&'static [u8]],
    end: End,
) -> Result<(u16, Vec<u8>), h2::Error> {
    let mut client = client.clone().ready().await?;
    let (response, mut stream) = client.send_request(request("POST", target), false)?;
    for (at, piece) in pieces.iter().enumerate() {
        let last = at + 1 == pieces.len() && end == End::WithPiece;
        stream.send_data(Bytes::from_static(piece), last)?;
        // Each piece is a frame of its own on the wire before the next one is made.
        tokio::task::yield_now().await;
    }
    match end {
        End::WithPiece => {}
        End::EmptyData => stream.send_data(Bytes::new(), true)?,
        End::Trailers => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "7".parse().unwrap());
            stream.send_trailers(trailers)?;
        }
    }
    read(response).await
}

/// Asks for something, and gives status and content of the answer.
pub(crate) async fn get(client: &SendRequest<Bytes>, target: &str) -> Result<(u16, Vec<u8>), h2::Error> {
    let mut client = client.clone().ready().await?;
    let (response, _) = client.send_request(request("GET", target), true)?;
    read(response).await
}

async fn read(response: ResponseFuture) -> Result<(u16, Vec<u8>), h2::Error> {
    let (head, mut body) = within("an answer", response).await?.into_parts();
    let mut content = Vec::new();
    while let Some(data) = within("the answer's body", body.data()).await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        content.extend_from_slice(&data);
    }
    Ok((head.status.as_u16(), content))
}
