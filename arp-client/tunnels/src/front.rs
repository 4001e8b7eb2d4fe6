//! The front: a small proxy on loopback that every backend is pointed at, between the tunnel and what is exposed.
//!
//! It answers probes, takes out headers by which a visitor could pose as somebody, puts the visitor's address in,
//! and counts. Only what it was made for can be reached through it: the tunnel's program knows no other port.

mod headers;
mod local;

use crate::defaults as d;
use crate::probe::{HEADER, Nonces};
use crate::{Backend, config};
use arp_common::error_body::ErrorBody;
use arp_common::protocol::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A streamed body.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Answers requests in this process. The visitor's address is what the backend tells of it.
pub type Service = Arc<
    dyn Fn(Request<Incoming>, Option<VisitorAddress>) -> BoxFuture<'static, Response<Body>> + Send + Sync,
>;

/// Where a visitor comes from, as the tunnel's service tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisitorAddress(pub std::net::IpAddr);

/// What visitors reach.
#[derive(Clone)]
pub enum Target {
    /// A local port.
    Port {
        /// Host name or address, without brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// Something in this process, which asks visitors itself who they are.
    Service(Service),
}

/// How a front is made.
#[derive(Clone)]
pub struct FrontConfig {
    /// What visitors reach.
    pub target: Target,
    /// Its port on 127.0.0.1; any free one if `None`.
    pub port: Option<u16>,
    /// Visitors must show this (`user:password`).
    pub basic_auth: Option<Secret>,
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    /// Requests that came in, without our own probes.
    pub total: u64,
    /// Of these, under way.
    pub in_flight: u64,
    /// Of these, those that the local service could not be reached for.
    pub unreachable: u64,
    /// Of these, those that were refused here.
    pub refused: u64,
    /// Probes of our own.
    pub probes: u64,
    /// When the last request came in.
    #[serde(serialize_with = "maybe_rfc3339")]
    pub last_at: Option<OffsetDateTime>,
}

fn maybe_rfc3339<S: serde::Serializer>(at: &Option<OffsetDateTime>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => crate::status::rfc3339(at, to),
        None => to.serialize_none(),
    }
}

#[derive(Debug, Default)]
struct Counters {
    total: AtomicU64,
    in_flight: AtomicU64,
    unreachable: AtomicU64,
    refused: AtomicU64,
    probes: AtomicU64,
    /// Seconds since 1970; 0 for never.
    last: AtomicU64,
}

/// A running front.
#[derive(Clone)]
pub struct Front {
    inner: Arc<Inner>,
}

struct Inner {
    address: SocketAddr,
    target: Target,
    local: local::Local,
    basic_auth: Option<Secret>,
    nonces: Nonces,
    counters: Counters,
    /// Who carries the requests, and so which headers can be believed.
    carrier: RwLock<Carrier>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What is known of the tunnel that requests come through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carrier {
    pub(crate) backend: Backend,
    /// Only members of the tailnet come, and Tailscale says who.
    pub(crate) tailnet: bool,
    pub(crate) https: bool,
}

impl Front {
    /// Listens on loopback and serves until `stop`.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn start(
        config: FrontConfig,
        nonces: Nonces,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port.unwrap_or(0))).await?;
        let inner = Arc::new(Inner {
            address: listener.local_addr()?,
            local: local::Local::new(),
            target: config.target,
            basic_auth: config.basic_auth,
            nonces,
            counters: Counters::default(),
            carrier: RwLock::new(Carrier {
                backend: Backend::None,
                tailnet: false,
                https: false,
            }),
            tasks: TaskTracker::new(),
            stop,
        });
        let accepting = Arc::clone(&inner);
        inner.tasks.spawn(async move {
            let stop = accepting.stop.clone();
            stop.run_until_cancelled(accept(listener, accepting)).await;
        });
        Ok(Self { inner })
    }

    /// Where backends send requests to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// What was counted so far.
    #[must_use]
    pub fn requests(&self) -> Requests {
        let counters = &self.inner.counters;
        let last = i64::try_from(counters.last.load(Relaxed)).unwrap_or(0);
        Requests {
            total: counters.total.load(Relaxed),
            in_flight: counters.in_flight.load(Relaxed),
            unreachable: counters.unreachable.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            probes: counters.probes.load(Relaxed),
            last_at: (last != 0)
                .then(|| OffsetDateTime::from_unix_timestamp(last).ok())
                .flatten(),
        }
    }

    /// Says who carries requests from now on.
    pub fn carried_by(&self, config: &config::TunnelConfig, backend: Backend, public_url: &str) {
        let carrier = Carrier {
            backend,
            tailnet: backend == Backend::Tailscale && !config.tailscale.funnel,
            https: public_url.starts_with("https://"),
        };
        *self.inner.carrier.write().unwrap_or_else(PoisonError::into_inner) = carrier;
    }

    /// Waits, after `stop`, for what is under way, within limits.
    pub async fn ended(&self) {
        self.inner.tasks.close();
        let _ = tokio::time::timeout(2 * d::DRAIN, self.inner.tasks.wait()).await;
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    let room = Arc::new(Semaphore::new(d::CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = Arc::clone(&inner);
                inner.tasks.spawn(async move {
                    serve(stream, serving).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(target: "tunnel", %error, "cannot take a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, inner: Arc<Inner>) {
    let _ = stream.set_nodelay(true);
    let stop = inner.stop.clone();
    let service = service_fn(move |request| {
        let inner = Arc::clone(&inner);
        async move { Ok::<_, Infallible>(answer(inner, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(d::HEAD)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(d::DRAIN, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(target: "tunnel", %error, "a connection ended early");
    }
}

/// Counts a request while it is under way.
struct InFlight(Arc<Inner>);

impl InFlight {
    fn new(inner: &Arc<Inner>) -> Self {
        let counters = &inner.counters;
        counters.total.fetch_add(1, Relaxed);
        counters.in_flight.fetch_add(1, Relaxed);
        let now = OffsetDateTime::now_utc().unix_timestamp();
        counters.last.store(u64::try_from(now).unwrap_or(0), Relaxed);
        Self(Arc::clone(inner))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.counters.in_flight.fetch_sub(1, Relaxed);
    }
}

async fn answer(inner: Arc<Inner>, mut request: Request<Incoming>) -> Response<Body> {
    if request.method() == Method::GET
        && let Some(answer) = inner.nonces.arrived(request.uri().path())
    {
        inner.counters.probes.fetch_add(1, Relaxed);
        return proof(answer);
    }
    let under_way = InFlight::new(&inner);
    let carrier = *inner.carrier.read().unwrap_or_else(PoisonError::into_inner);
    let visitor = headers::cleanse(request.headers_mut(), carrier);
    if let Some(auth) = &inner.basic_auth {
        let shown = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        if !shown.is_some_and(|shown| is_basic(shown, auth)) {
            inner.counters.refused.fetch_add(1, Relaxed);
            return unauthorized();
        }
        request.headers_mut().remove(AUTHORIZATION);
    }
    let response = match &inner.target {
        Target::Service(service) => service(request, visitor).await,
        Target::Port { host, port } => match inner.local.forward(host, *port, request, &inner).await {
            Ok(response) => response,
            Err(why) => {
                inner.counters.unreachable.fetch_add(1, Relaxed);
                let message = format!("the local service at {host}:{port} {why}");
                refusal(StatusCode::BAD_GATEWAY, "local_service_unreachable", &message)
            }
        },
    };
    // Under way until its body is sent or dropped.
    response.map(|body| {
        body.map_frame(move |frame| {
            let _ = &under_way;
            frame
        })
        .boxed_unsync()
    })
}

fn proof(answer: String) -> Response<Body> {
    let mut response = Response::new(whole(answer.clone()));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if let Ok(value) = HeaderValue::from_str(&answer) {
        headers.insert(HEADER, value);
    }
    response
}

/// Is this the right `Basic …`? Takes as long whatever it is.
fn is_basic(shown: &[u8], auth: &Secret) -> bool {
    let wanted = format!("Basic {}", STANDARD.encode(auth.expose()));
    shown.ct_eq(wanted.as_bytes()).into()
}

fn unauthorized() -> Response<Body> {
    let message = "this tunnel asks for a user and password (Authorization: Basic)";
    let mut response = refusal(StatusCode::UNAUTHORIZED, "auth_required", message);
    let challenge = HeaderValue::from_static("Basic realm=\"arp\", charset=\"UTF-8\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

pub(crate) fn refusal(status: StatusCode, code: &'static str, message: &str) -> Response<Body> {
    let mut response = Response::new(whole(ErrorBody::new(code, message).line()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-arp-error", HeaderValue::from_static(code));
    response
}

fn whole(text: String) -> Body {
    Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync()
}
