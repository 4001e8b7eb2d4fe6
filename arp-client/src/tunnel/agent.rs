//! The way from a tunnel in a process of its own to the agents that a running `arpc --command-mode` serves: over a
//! socket that only this user can open. There the token is asked for.

use arp_sessions::ipc;
use arp_tunnels::{Body, Service, Target};
use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The socket of command mode for visitors of tunnels.
pub(crate) fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("visitors")
}

/// Does an `arpc --command-mode` run with this data directory?
pub(crate) async fn is_there(data_dir: &Path) -> bool {
    ipc::connect(&socket(data_dir)).await.is_ok()
}

/// Requests go to that `arpc`.
pub(crate) fn target(data_dir: &Path) -> Target {
    let socket = Arc::new(socket(data_dir));
    let service: Service = Arc::new(move |request, _| {
        let socket = Arc::clone(&socket);
        Box::pin(async move {
            pass_on(&socket, request).await.unwrap_or_else(|why| {
                let text =
                    format!("{{\"type\":\"error\",\"code\":\"agent_unreachable\",\"message\":\"{why}\"}}\n");
                let mut response = Response::new(whole(text));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            })
        })
    });
    Target::Service(service)
}

async fn pass_on(socket: &Path, mut request: Request<Incoming>) -> Result<Response<Body>, &'static str> {
    let stream = ipc::connect(socket)
        .await
        .map_err(|_| "arpc --command-mode does not run on this machine now; start it")?;
    let broken = |_| "arpc --command-mode broke off";
    let (mut sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with the exchange, or with what it was switched to.
    tokio::spawn(connection.with_upgrades());
    let switching = request.headers().contains_key(UPGRADE);
    let outer = switching.then(|| hyper::upgrade::on(&mut request));
    if !switching {
        request.headers_mut().remove(CONNECTION);
    }
    let mut response = sender.send_request(request).await.map_err(broken)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let inner = hyper::upgrade::on(&mut response);
        if let Some(outer) = outer {
            tokio::spawn(async move {
                let (outer, inner) = tokio::try_join!(outer, inner).ok()?;
                let (mut outer, mut inner) = (TokioIo::new(outer), TokioIo::new(inner));
                tokio::io::copy_bidirectional(&mut outer, &mut inner).await.ok()
            });
        }
    } else {
        response.headers_mut().remove(CONNECTION);
    }
    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
}

fn whole(text: String) -> Body {
    Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync()
}
