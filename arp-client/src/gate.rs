//! The edge's own gate: visitors must show a name and password, or a key, that only this machine knows.
//! So a token alone opens nothing, not even to the operator of the relay.
//!
//! With a gate each request on a tunnel is parsed here, checked, and sent on afresh over a connection of its
//! own to the local service: bytes that were not understood never pass.

use crate::local::LocalService;
use crate::trace::Traced;
use arp_common::error_body::ErrorBody;
use arp_common::protocol::Secret;
use arp_common::transport::Prefixed;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use subtle::{Choice, ConstantTimeEq};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Header for the key where the service wants `Authorization` for itself.
const KEY: HeaderName = HeaderName::from_static("x-arp-key");

/// What visitors must show; any one of it is enough.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    /// `user:password`.
    pub auth: Vec<Secret>,
    /// Keys.
    pub keys: Vec<Secret>,
}

/// What runs for one tunnel besides its own task.
#[derive(Debug, Clone, Default)]
struct Tasks {
    tracker: TaskTracker,
    end: CancellationToken,
}

impl Tasks {
    fn spawn<T>(&self, task: impl Future<Output = T> + Send + 'static) {
        let end = self.end.clone();
        // On the heap: an async block holds twice what it is given and waits for.
        let task = Box::pin(task);
        self.tracker.spawn(async move {
            tokio::select! {
                _ = task => {}
                () = end.cancelled() => {}
            }
        });
    }
}

type Body = BoxBody<Bytes, hyper::Error>;

impl Gate {
    /// Lets a request through and takes what was meant for us out of it. False if it shows nothing good.
    pub fn pass(&self, headers: &mut HeaderMap) -> bool {
        if headers
            .get_all(&KEY)
            .iter()
            .any(|v| one_of(&self.keys, v.as_bytes()))
        {
            headers.remove(&KEY);
            return true;
        }
        if headers
            .get_all(header::AUTHORIZATION)
            .iter()
            .any(|v| self.knows(v))
        {
            headers.remove(header::AUTHORIZATION);
            return true;
        }
        false
    }

    /// Does this open it? It is a key, or `user:password`.
    pub(crate) fn opens(&self, told: &Secret) -> bool {
        let told = told.expose().as_bytes();
        one_of(&self.keys, told) | one_of(&self.auth, told)
    }

    fn knows(&self, value: &HeaderValue) -> bool {
        let Some((scheme, rest)) = value.to_str().ok().and_then(|v| v.split_once(' ')) else {
            return false;
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            return one_of(&self.keys, rest.trim().as_bytes());
        }
        scheme.eq_ignore_ascii_case("basic")
            && STANDARD
                .decode(rest.trim())
                .is_ok_and(|told| one_of(&self.auth, &told))
    }

    /// What is answered to everybody else.
    pub fn refusal(&self) -> Response<Full<Bytes>> {
        let message = "this edge agent asks for more than a token: send the user and password, or the key, that \
                       its owner gave you (Authorization: Basic or Bearer, or X-ARP-Key)";
        let mut response = json(StatusCode::UNAUTHORIZED, "edge_auth_required", message);
        if !self.auth.is_empty() {
            let challenge = HeaderValue::from_static("Basic realm=\"arp\", charset=\"UTF-8\"");
            response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
        }
        if !self.keys.is_empty() {
            let challenge = HeaderValue::from_static("Bearer realm=\"arp\"");
            response.headers_mut().append(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }

    /// Serves a tunnel of HTTP exchanges in front of a local service, to its end.
    pub async fn serve<S>(&self, tunnel: S, head: BytesMut, local: &LocalService)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tasks = Tasks::default();
        // Whatever was started for this tunnel ends with it.
        let _guard: DropGuard = tasks.end.clone().drop_guard();
        let service = service_fn(|request| {
            let tasks = tasks.clone();
            async move { Ok::<_, Infallible>(self.exchange(request, local, tasks).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .preserve_header_case(true)
            .serve_connection(TokioIo::new(Traced::server(Prefixed::new(head, tunnel))), service)
            .with_upgrades();
        if let Err(e) = served.await {
            tracing::debug!("gated tunnel broke off: {e}");
            return;
        }
        // After a change of protocol the bytes go on in a task.
        tasks.tracker.close();
        tasks.tracker.wait().await;
    }

    async fn exchange(
        &self,
        mut request: Request<Incoming>,
        local: &LocalService,
        tasks: Tasks,
    ) -> Response<Body> {
        if !self.pass(request.headers_mut()) {
            return self.refusal().map(boxed);
        }
        let stream = match local.dial().await {
            Ok(stream) => stream,
            Err(e) => {
                let message = local.unreachable(&e);
                return json(StatusCode::BAD_GATEWAY, "local_service_unreachable", &message).map(boxed);
            }
        };
        forward(request, stream, tasks).await.unwrap_or_else(|e| {
            let message = format!("the local service broke off: {e}");
            json(StatusCode::BAD_GATEWAY, "local_service_failed", &message).map(boxed)
        })
    }
}

/// Sends a request over a connection of its own.
async fn forward(
    mut request: Request<Incoming>,
    stream: tokio::net::TcpStream,
    tasks: Tasks,
) -> Result<Response<Body>, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .handshake(TokioIo::new(stream))
        .await?;
    tasks.spawn(async move { connection.with_upgrades().await.ok() });
    let switching = request.headers().contains_key(header::UPGRADE);
    let outer = switching.then(|| hyper::upgrade::on(&mut request));
    if !switching {
        request.headers_mut().remove(header::CONNECTION);
    }
    let mut response = sender.send_request(request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let inner = hyper::upgrade::on(&mut response);
        if let Some(outer) = outer {
            tasks.spawn(async move {
                let (outer, inner) = tokio::try_join!(outer, inner).ok()?;
                let (mut outer, mut inner) = (TokioIo::new(outer), TokioIo::new(inner));
                tokio::io::copy_bidirectional(&mut outer, &mut inner).await.ok()
            });
        }
    } else {
        response.headers_mut().remove(header::CONNECTION);
        response.headers_mut().remove("keep-alive");
    }
    Ok(response.map(BodyExt::boxed))
}

fn boxed(body: Full<Bytes>) -> Body {
    body.map_err(|never| match never {}).boxed()
}

fn json(status: StatusCode, code: &'static str, message: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(ErrorBody::new(code, message).line())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-arp-error", HeaderValue::from_static(code));
    response
}

/// Is it one of these? All are compared, by digests of one length, so that time tells nothing.
fn one_of(secrets: &[Secret], told: &[u8]) -> bool {
    let told = Sha256::digest(told);
    let same = |s: &Secret| {
        Sha256::digest(s.expose().as_bytes())
            .as_slice()
            .ct_eq(told.as_slice())
    };
    secrets
        .iter()
        .map(same)
        .fold(Choice::from(0), |a, b| a | b)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(gate: &Gate, fields: &[(&'static str, &str)]) -> (bool, usize) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        (gate.pass(&mut headers), headers.len())
    }

    #[test]
    fn one_right_secret_opens_and_is_not_passed_on() {
        let gate = Gate {
            auth: vec![Secret::new("ann:s:cret")],
            keys: vec![Secret::new("k1"), Secret::new("k2")],
        };
        let basic = format!("Basic {}", STANDARD.encode("ann:s:cret"));
        for good in [
            ("authorization", basic.as_str()),
            ("authorization", "bearer k2"),
            ("x-arp-key", "k1"),
        ] {
            assert_eq!(passes(&gate, &[good]), (true, 0), "{good:?}");
        }
        // The service's own Authorization stays.
        assert_eq!(
            passes(&gate, &[("x-arp-key", "k1"), ("authorization", "Bearer own")]),
            (true, 1)
        );
        let wrong = format!("Basic {}", STANDARD.encode("ann:secret"));
        for bad in [
            ("authorization", wrong.as_str()),
            ("authorization", "Bearer k"),
            ("authorization", "k1"),
            ("x-arp-key", ""),
            ("x-arp-key", "ann:s:cret"),
            ("cookie", "k1"),
        ] {
            assert_eq!(passes(&gate, &[bad]), (false, 1), "{bad:?}");
        }
        assert!(!passes(&Gate::default(), &[("x-arp-key", "")]).0);
        assert_eq!(
            gate.refusal()
                .headers()
                .get_all("www-authenticate")
                .iter()
                .count(),
            2
        );
    }
}
