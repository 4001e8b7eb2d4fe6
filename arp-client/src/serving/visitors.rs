//! Visitors who come through a tunnel of somebody else's service: from a front in this process, or from one in a
//! process of its own over a socket that only this user can open. Nobody on their way has asked for the token.

use super::CommandMode;
use crate::api;
use crate::command::{PeerInfo, State, Via};
use arp_tunnels::{Body, Handle, Service, VisitorAddress};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// A request without a valid token is answered this late: guessing takes its time …
const REFUSED: Duration = Duration::from_millis(500);
/// … and only so many are answered at a time; others are turned away at once.
const REFUSALS: usize = 16;
static REFUSING: Semaphore = Semaphore::const_new(REFUSALS);

impl CommandMode {
    /// Shows a tunnel of this process to those who use the API.
    pub fn show_tunnel(&self, tunnel: &Handle) {
        let _ = self.state.tunnel.set(tunnel.watch());
    }

    /// What a tunnel's front gives requests to.
    #[must_use]
    pub fn visitors(&self) -> Service {
        let state = Arc::clone(&self.state);
        Arc::new(move |request, visitor| {
            let state = Arc::clone(&state);
            let address = visitor.map(|VisitorAddress(ip)| SocketAddr::new(ip, 0));
            Box::pin(async move { answer(state, address, request).await })
        })
    }
}

/// Puts in place what a relay says of a request that it can read, in a request that it could not: nothing of that kind
/// is the visitor's to say.
pub(super) fn say_how_it_came<B>(request: &mut Request<B>, addr: Option<SocketAddr>) {
    let headers = request.headers_mut();
    for name in [
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-real-ip",
        "forwarded",
    ] {
        headers.remove(name);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    if let Some(value) = addr.and_then(|addr| HeaderValue::from_str(&addr.ip().to_string()).ok()) {
        headers.insert("x-forwarded-for", value);
    }
}

/// Answers one request of a visitor.
pub(super) async fn answer(
    state: Arc<State>,
    addr: Option<SocketAddr>,
    request: Request<Incoming>,
) -> Response<Body> {
    let peer = PeerInfo {
        via: Via::Tunnel,
        addr,
    };
    let response = api::handle(state, peer, request).await;
    if response.status() != StatusCode::UNAUTHORIZED {
        return response;
    }
    match REFUSING.try_acquire() {
        Ok(_turn) => {
            tokio::time::sleep(REFUSED).await;
            response
        }
        Err(_) => {
            let text =
                "too many requests without a valid token come through the tunnel; try again a little later";
            let error = api::ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_refusals", text);
            error.response()
        }
    }
}
