//! `/proxy/{port}/…`: other web services of this machine, by the same token; and `POST /proxy`, a raw connection to
//! one.
//!
//! Pages of a service are confined ([`headers`]): they share the console's address, and are not to act as it.

mod headers;
mod tunnel;

use super::body::{self, Body};
use super::error::ApiError;
use super::request::header;
use super::{Answer, State};
use crate::command::PeerInfo;
use arp_common::net;
use headers::{clean, confine, drop_secrets};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, HOST,
    HeaderValue, ORIGIN, UPGRADE,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub(super) use tunnel::open as tunnel;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) async fn handle(state: &Arc<State>, peer: PeerInfo, request: Request<Incoming>) -> Answer {
    let (mut head, body) = request.into_parts();
    let (port, rest) = target(head.uri.path())?;
    check_port(state, port)?;
    if header(&head.headers, "service-worker") == Some("script") {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "service_worker_refused",
            "a service of another port installs no service worker here: it would answer for the console too",
        ));
    }
    let opaque = is_opaque(&head);
    if opaque && head.method == Method::OPTIONS && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return Ok(preflight(&head));
    }
    let query = head
        .uri
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    head.uri = Uri::try_from(format!("{rest}{query}"))
        .map_err(|_| ApiError::bad_request("the address is malformed"))?;
    let upgrade = head
        .headers
        .get(UPGRADE)
        .cloned()
        .filter(|_| super::guard::wants_upgrade(&head));
    clean(&mut head.headers);
    drop_secrets(state.config.edge_key.as_deref(), &mut head.headers);
    if let Some(upgrade) = &upgrade {
        head.headers.insert(UPGRADE, upgrade.clone());
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if let Ok(host) = HeaderValue::from_str(&format!("localhost:{port}")) {
        let original = head.headers.insert(HOST, host);
        if let Some(original) = original {
            head.headers.entry("x-forwarded-host").or_insert(original);
        }
    }
    if let Some(addr) = peer.addr
        && let Ok(addr) = HeaderValue::from_str(&addr.ip().to_string())
    {
        head.headers.entry("x-forwarded-for").or_insert(addr);
    }
    if let Ok(prefix) = HeaderValue::from_str(&format!("/proxy/{port}")) {
        head.headers.insert("x-forwarded-prefix", prefix);
    }
    exchange(
        state,
        port,
        Request::from_parts(head, body),
        upgrade.is_some(),
        opaque,
    )
    .await
}

/// Port and remaining path of `/proxy/3000/a/b`.
fn target(path: &str) -> Result<(u16, String), ApiError> {
    let rest = path.strip_prefix("/proxy/").ok_or_else(ApiError::not_found)?;
    let (port, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let port = port
        .parse()
        .map_err(|_| ApiError::bad_request("the path is /proxy/PORT/…, and PORT a number"))?;
    Ok((port, format!("/{rest}")))
}

/// Is this asked for by a page that has an origin of its own, as those in our sandbox have?
pub(super) fn is_opaque(head: &Parts) -> bool {
    header(&head.headers, ORIGIN.as_str()) == Some("null")
}

/// What a sandboxed page may ask its own service: anything, without credentials.
fn preflight(head: &Parts) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let out = response.headers_mut();
    out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    out.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    for (asked, told) in [
        (ACCESS_CONTROL_REQUEST_METHOD, ACCESS_CONTROL_ALLOW_METHODS),
        (ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_ALLOW_HEADERS),
    ] {
        if let Some(value) = head.headers.get(asked) {
            out.insert(told, value.clone());
        }
    }
    response
}

fn check_port(state: &State, port: u16) -> Result<(), ApiError> {
    if state.config.proxy_ports.contains(&port) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "port_not_allowed",
        format!("port {port} is not open to visitors; the owner can open it with --proxy-ports {port}"),
    ))
}

/// The service on a port is no use, and why.
fn down(port: u16, why: &str) -> ApiError {
    ApiError::new(
        StatusCode::BAD_GATEWAY,
        "local_service_down",
        format!("the service on port {port} of this machine {why}; is it running?"),
    )
}

async fn exchange(
    state: &State,
    port: u16,
    mut request: Request<Incoming>,
    upgrade: bool,
    opaque: bool,
) -> Answer {
    let stream = connect(port).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| down(port, &format!("does not speak HTTP: {error}")))?;
    let stop = state.stop.clone();
    tokio::spawn(async move {
        if let Some(Err(error)) = stop.run_until_cancelled(connection.with_upgrades()).await {
            tracing::debug!(%error, "a connection to a local service ended early");
        }
    });
    let visitor = upgrade.then(|| hyper::upgrade::on(&mut request));
    let mut response = sender
        .send_request(request)
        .await
        .map_err(|error| down(port, &format!("broke off: {error}")))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(visitor) = visitor else {
            return Err(down(port, "switched protocols unasked"));
        };
        let service = hyper::upgrade::on(&mut response);
        let stop = state.stop.clone();
        tokio::spawn(async move {
            if let (Ok(visitor), Ok(service)) = tokio::join!(visitor, service) {
                splice(TokioIo::new(visitor), TokioIo::new(service), stop).await;
            }
        });
        let (mut head, _) = response.into_parts();
        confine(&mut head.headers, opaque);
        return Ok(Response::from_parts(head, body::empty()));
    }
    let (mut head, service_body) = response.into_parts();
    clean(&mut head.headers);
    confine(&mut head.headers, opaque);
    let body: Body = service_body.map_err(Into::into).boxed_unsync();
    Ok(Response::from_parts(head, body))
}

/// Carries bytes both ways until both sides, or everything, ended.
async fn splice(
    mut visitor: impl AsyncRead + AsyncWrite + Unpin,
    mut service: impl AsyncRead + AsyncWrite + Unpin,
    stop: CancellationToken,
) {
    let copied = tokio::io::copy_bidirectional(&mut visitor, &mut service);
    if let Some(Err(error)) = stop.run_until_cancelled(copied).await {
        tracing::debug!(%error, "a connection to a local service broke off");
    }
}

async fn connect(port: u16) -> Result<TcpStream, ApiError> {
    let connecting = async {
        match net::connect_to((Ipv4Addr::LOCALHOST, port).into()).await {
            Ok(stream) => Ok(stream),
            // Some services listen on ::1 only.
            Err(error) => net::connect_to((Ipv6Addr::LOCALHOST, port).into())
                .await
                .map_err(|_| error),
        }
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| down(port, "does not answer"))?
        .map_err(|error| down(port, &format!("cannot be reached: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_paths_are_told_apart() {
        assert_eq!(target("/proxy/3000/a%2Fb/c").unwrap(), (3000, "/a%2Fb/c".into()));
        assert_eq!(target("/proxy/80").unwrap(), (80, "/".into()));
        assert!(
            target("/proxy/99999/").is_err() && target("/proxy/x/").is_err() && target("/proxy").is_err()
        );
    }
}
