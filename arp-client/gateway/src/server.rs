//! The ports: connections of agents, each served until it ends or the gateway stops.

use crate::api::{self, Api};
use crate::forward::{Gateway, own};
use crate::guard::{self, Doors};
use crate::service::Service;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
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
    let for_sockets = stop.clone();
    let open = tasks(listener, &stop, move |tcp, peer, stop| {
        connection(
            tcp,
            peer,
            service,
            gateway.clone(),
            doors.clone(),
            for_sockets.clone(),
            stop,
        )
    })
    .await;
    if open > 0 {
        tracing::info!(%service, "stopped with {open} connections open");
    }
}

/// Serves the gateway's page and API until `stop`.
pub async fn serve_page(listener: TcpListener, api: Arc<Api>, stop: CancellationToken) {
    tasks(listener, &stop, move |tcp, peer, stop| {
        let api = api.clone();
        async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(api.handle(peer.ip(), request).await) }
            });
            let served = builder().serve_connection(TokioIo::new(tcp), answer);
            let mut served = std::pin::pin!(served);
            tokio::select! {
                _ = served.as_mut() => {}
                // Whoever watches events watches them for ever.
                () = stop.cancelled() => {}
            }
        }
    })
    .await;
}

/// Accepts connections until `stop`; those that are open have some seconds then. How many were open still?
async fn tasks<F>(
    listener: TcpListener,
    stop: &CancellationToken,
    serve: impl Fn(TcpStream, SocketAddr, CancellationToken) -> F,
) -> usize
where
    F: Future<Output = ()> + Send + 'static,
{
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
        // On the heap: an async block holds twice what it is given and waits for.
        let served = Box::pin(serve(tcp, peer, stop.clone()));
        tasks.spawn(async move {
            served.await;
            drop(place);
        });
    }
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_ok() {
        return 0;
    }
    tasks.len()
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(200);
    builder
}

async fn connection(
    tcp: TcpStream,
    peer: SocketAddr,
    service: Service,
    gateway: Arc<Gateway>,
    doors: Arc<Doors>,
    sockets: CancellationToken,
    stop: CancellationToken,
) {
    let _ = tcp.set_nodelay(true);
    let answer = service_fn(move |request: Request<Incoming>| {
        let (gateway, doors, sockets) = (gateway.clone(), doors.clone(), sockets.clone());
        async move {
            if let Err(refused) = guard::check(&doors, peer.ip(), request.headers()) {
                return Ok::<_, Infallible>(own(service, refused.code, refused.message, true));
            }
            if request.uri().path() == "/ws/realtime" && guard::own_origin(request.headers()).is_ok() {
                return Ok(api::realtime(
                    service,
                    gateway.activity().clone(),
                    request,
                    sockets,
                ));
            }
            if gateway.takes_socket(service, &request) {
                return Ok(gateway.socket(service, request, sockets));
            }
            Ok(gateway.handle(service, request).await)
        }
    });
    let served = builder()
        .serve_connection(TokioIo::new(tcp), answer)
        .with_upgrades();
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
