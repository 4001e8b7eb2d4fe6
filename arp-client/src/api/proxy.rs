//! `/proxy/{port}/…`: other web services of this machine, by the same token.

use super::body::{self, Body};
use super::error::ApiError;
use super::{Answer, State};
use crate::command::PeerInfo;
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Headers that end at each hop (RFC 9110 §7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 4] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING];
/// The same, without names of constants.
const HOP_BY_HOP_TEXT: [&str; 3] = ["keep-alive", "proxy-connection", "proxy-authorization"];

pub(super) async fn handle(state: &Arc<State>, peer: PeerInfo, request: Request<Incoming>) -> Answer {
    let (mut head, body) = request.into_parts();
    let (port, rest) = target(head.uri.path())?;
    if !state.config.proxy_ports.contains(&port) {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "port_not_allowed",
            format!("port {port} is not open to visitors; the owner can open it with --proxy-ports {port}"),
        ));
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
    drop_secrets(state, &mut head.headers);
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
    exchange(port, Request::from_parts(head, body), upgrade.is_some()).await
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

async fn exchange(port: u16, mut request: Request<Incoming>, upgrade: bool) -> Answer {
    let down = |why: String| {
        ApiError::new(
            StatusCode::BAD_GATEWAY,
            "local_service_down",
            format!("the service on port {port} of this machine {why}; is it running?"),
        )
    };
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect(port))
        .await
        .map_err(|_| down("does not answer".into()))?
        .map_err(|error| down(format!("cannot be reached: {error}")))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| down(format!("does not speak HTTP: {error}")))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a local service ended early");
        }
    });
    let visitor = upgrade.then(|| hyper::upgrade::on(&mut request));
    let mut response = sender
        .send_request(request)
        .await
        .map_err(|error| down(format!("broke off: {error}")))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(visitor) = visitor else {
            return Err(down("switched protocols unasked".into()));
        };
        let service = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            if let (Ok(visitor), Ok(service)) = tokio::join!(visitor, service) {
                let (mut visitor, mut service) = (TokioIo::new(visitor), TokioIo::new(service));
                // Whoever ends first ends both.
                let _ = tokio::io::copy_bidirectional(&mut visitor, &mut service).await;
            }
        });
        let (head, _) = response.into_parts();
        return Ok(Response::from_parts(head, body::empty()));
    }
    let (mut head, service_body) = response.into_parts();
    clean(&mut head.headers);
    head.headers.remove(UPGRADE);
    let body: Body = service_body.map_err(Into::into).boxed_unsync();
    Ok(Response::from_parts(head, body))
}

async fn connect(port: u16) -> std::io::Result<TcpStream> {
    match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(stream) => Ok(stream),
        // Some services listen on ::1 only.
        Err(error) => TcpStream::connect(("::1", port)).await.map_err(|_| error),
    }
}

/// Takes away what ends at this hop.
fn clean(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in named {
        headers.remove(name.as_str());
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    for name in HOP_BY_HOP_TEXT {
        headers.remove(name);
    }
    headers.remove(UPGRADE);
}

/// Our own secrets are none of the service's business.
fn drop_secrets(state: &State, headers: &mut HeaderMap) {
    headers.remove("x-arp-token");
    let ours = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(super::guard::bearer_of)
        .is_some_and(|given| {
            state
                .config
                .edge_key
                .as_ref()
                .is_some_and(|key| super::same_secret(given, key))
        });
    if ours {
        headers.remove(AUTHORIZATION);
    }
    let cookies: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for cookie in cookies {
        let Ok(text) = cookie.to_str() else { continue };
        let kept: Vec<&str> = text
            .split(';')
            .map(str::trim)
            .filter(|pair| {
                let name = pair.split('=').next().unwrap_or_default();
                !arp_common::cookies::is_reserved(name.trim().as_bytes())
            })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&kept.join("; "))
            && !kept.is_empty()
        {
            headers.append(COOKIE, value);
        }
    }
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
