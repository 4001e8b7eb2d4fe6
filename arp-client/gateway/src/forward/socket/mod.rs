//! Codex over WebSocket: each `response.create` of the agent becomes a request like any other, its answer's events the
//! frames that go back.
//!
//! A socket's later turns name the response before (`previous_response_id`) and say only what is new. What came before
//! is kept here, so that a turn can be asked anywhere, over HTTP too; an upstream that speaks WebSocket itself is told
//! only what is new, as long as it is the one that gave the response before ([`link`]).

mod conversation;
mod link;

pub(crate) use link::{Parking, Turn, TurnStream, ask};

use super::Gateway;
use super::body::Body;
use super::headers;
use crate::service::Service;
use bytes::Bytes;
use conversation::Conversation;
use http::header::{
    ACCEPT, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

/// Longest message of either side: a request that can be kept, or one event.
const MAX_MESSAGE: usize = 33 << 20;

fn config() -> WebSocketConfig {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MAX_MESSAGE);
    config.max_frame_size = Some(MAX_MESSAGE);
    config
}

impl Gateway {
    /// Is this Codex's WebSocket, and is it to be had?
    #[must_use]
    pub fn takes_socket(&self, service: Service, request: &Request<Incoming>) -> bool {
        service == Service::Codex
            && request.method() == http::Method::GET
            && request.headers().contains_key(UPGRADE)
            && request.headers().contains_key(SEC_WEBSOCKET_KEY)
            && !request.headers().contains_key(headers::HOP_MARK)
            && request.uri().path().ends_with("/responses")
            && self.snapshot(service).settings.codex.websocket
    }

    /// Answers the upgrade and serves the socket until its agent leaves, or `stop`.
    pub fn socket(
        self: Arc<Self>,
        service: Service,
        mut request: Request<Incoming>,
        stop: CancellationToken,
    ) -> Response<Body> {
        let key = request.headers().get(SEC_WEBSOCKET_KEY);
        let accept = key.map(|key| derive_accept_key(key.as_bytes()));
        let Ok(place) = self.sockets.clone().try_acquire_owned() else {
            let (_, body) = service.own_error("no_websocket", "there are too many sockets; use HTTP", true);
            return super::whole(StatusCode::UPGRADE_REQUIRED, body);
        };
        let Some(accept) = accept.and_then(|accept| HeaderValue::from_str(&accept).ok()) else {
            return super::own(service, "bad_upgrade", "the WebSocket's key cannot be used", true);
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let (mut head, _) = request.into_parts();
        head.headers = as_request(&head.headers);
        head.method = http::Method::POST;
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let socket =
                WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config())).await;
            let conversation = Conversation::new(self, service, head);
            stop.run_until_cancelled(conversation.run(socket)).await;
            drop(place);
        });
        switching(accept)
    }
}

/// What a handshake is answered with (RFC 6455 §4.2.2).
pub(crate) fn switching(accept: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::Whole(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// The fields of the handshake as those of a request over HTTP.
fn as_request(handshake: &HeaderMap) -> HeaderMap {
    let mut headers = handshake.clone();
    headers::drop_hop(&mut headers);
    for name in [
        SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_VERSION,
        SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_PROTOCOL,
        // The upgrade's own; `link` puts it in again.
        HeaderName::from_static("openai-beta"),
    ] {
        headers.remove(name);
    }
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}
