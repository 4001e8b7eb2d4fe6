//! The socket itself: how it comes about, and texts out of and into it, compressed where the client can do that.

use super::deflate::{self, Deflater};
use super::inflate::Inflating;
use crate::api::Answer;
use crate::api::body::{self, Body};
use crate::api::error::ApiError;
use crate::api::guard::wants_upgrade;
use crate::api::request::Call;
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::{Request, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

/// Largest message of a client, in bytes, when it is unpacked.
const MAX_MESSAGE: usize = 8 * 1024 * 1024;
/// How long the other side has to take notice of the end.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Our side of a WebSocket.
pub(in crate::api) struct Socket {
    stream: WebSocketStream<Inflating<TokioIo<Upgraded>>>,
    deflater: Option<Deflater>,
}

/// Answers 101, and runs the socket.
pub(in crate::api) fn upgrade<F>(call: Call, run: impl FnOnce(Socket) -> F + Send + 'static) -> Answer
where
    F: Future<Output = ()> + Send + 'static,
{
    let key = call
        .head
        .headers
        .get(SEC_WEBSOCKET_KEY)
        .filter(|_| wants_upgrade(&call.head));
    let Some(key) = key else {
        return Err(ApiError::new(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_required",
            "this path is a WebSocket; connect with a WebSocket client",
        ));
    };
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|error| ApiError::internal(error.to_string()))?;
    let (extensions, deflater) = match deflate::agree(&call.head.headers) {
        Some(agreed) => (Some(agreed.header), Some(agreed.deflater)),
        None => (None, None),
    };
    let upgraded = hyper::upgrade::on(Request::from_parts(call.head, call.body));
    tokio::spawn(async move {
        match upgraded.await {
            Ok(upgraded) => run(Socket::new(upgraded, deflater).await).await,
            Err(error) => tracing::debug!(%error, "a WebSocket did not come about"),
        }
    });
    let mut response: Response<Body> = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(extensions) = extensions {
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, extensions);
    }
    Ok(response)
}

impl Socket {
    async fn new(upgraded: Upgraded, deflater: Option<Deflater>) -> Self {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let inflating = Inflating::new(TokioIo::new(upgraded), deflater.is_some().then_some(MAX_MESSAGE));
        let stream = WebSocketStream::from_raw_socket(inflating, Role::Server, Some(config)).await;
        Self { stream, deflater }
    }

    /// The next message of the client; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Message, WsError>> {
        self.stream.next().await
    }

    /// Writes a text, to be sent with the next flush at the latest.
    pub(super) async fn feed(&mut self, text: String) -> Result<(), WsError> {
        let packed = match &mut self.deflater {
            Some(deflater) => deflater.frame(&text)?,
            None => None,
        };
        let message = packed.map_or_else(|| Message::Text(text.into()), Message::Frame);
        self.stream.feed(message).await
    }

    /// Sends what was written.
    pub(super) async fn flush(&mut self) -> Result<(), WsError> {
        self.stream.flush().await
    }

    /// Sends a text.
    pub(super) async fn send(&mut self, text: String) -> Result<(), WsError> {
        self.feed(text).await?;
        self.flush().await
    }

    /// Asks whether the other side is there.
    pub(super) async fn ping(&mut self) -> Result<(), WsError> {
        self.stream.send(Message::Ping(bytes::Bytes::new())).await
    }

    /// Says that it is over.
    pub(super) async fn close(&mut self) {
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: Utf8Bytes::from_static(""),
        };
        // The other side may be gone already.
        let _ = tokio::time::timeout(CLOSE_GRACE, self.stream.close(Some(frame))).await;
    }
}
