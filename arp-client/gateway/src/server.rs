//! The ports: connections of agents, each served until it ends or the gateway stops.

use crate::forward::{Gateway, own};
use crate::guard::{self, Doors};
use crate::service::Service;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at a time on one port; agents open a handful each.
const MAX_CONNECTIONS: usize = 4_096;
/// Time for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest head: Codex sends a kilobyte of metadata, and cookies of company gateways come on top.
const MAX_HEAD: usize = 256 << 10;
/// Time that requests under way have when the gateway stops.
const GRACE: Duration = Duration::from_secs(10);
/// Pause after an accept that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves one port until `stop`; requests under way have some seconds to end.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    gateway: Arc<Gateway>,
    doors: Arc<Doors>,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!("cannot accept a connection: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // One too many is closed at once; an agent tries again.
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let (gateway, doors, stop) = (gateway.clone(), doors.clone(), stop.clone());
        tasks.spawn(async move {
            connection(tcp, peer, service, gateway, doors, stop).await;
            drop(place);
        });
    }
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::info!(%service, "stopped with {} connections open", tasks.len());
    }
}

async fn connection(
    tcp: TcpStream,
    peer: SocketAddr,
    service: Service,
    gateway: Arc<Gateway>,
    doors: Arc<Doors>,
    stop: CancellationToken,
) {
    let _ = tcp.set_nodelay(true);
    let answer = service_fn(move |request: Request<Incoming>| {
        let (gateway, doors) = (gateway.clone(), doors.clone());
        async move {
            if let Err(refused) = guard::check(&doors, peer.ip(), request.headers()) {
                return Ok::<_, Infallible>(own(service, refused.code, refused.message, true));
            }
            Ok(gateway.handle(service, request).await)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(200)
        .serve_connection(TokioIo::new(tcp), answer);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(%peer, "connection ended: {e}");
    }
}
