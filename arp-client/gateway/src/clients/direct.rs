//! Connections to one host without a proxy: those that wait for their next request, and new ones.

use super::answer::Reply;
use super::line::{Io, Line};
use super::origin::Origin;
use super::sent::Sent;
use super::{AskError, NetworkError, told};
use crate::settings::Network;
use http::header::{ACCEPT, HOST, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use hyper::client::conn::http2;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tower_service::Service;

/// Connections that wait for a request, at most.
const MAX_IDLE: usize = 64;
/// So long one waits.
const IDLE: Duration = Duration::from_secs(90);
/// Those that wait are looked at this often: has the upstream closed one, is another's time over?
const SWEEP: Duration = Duration::from_secs(10);
/// Time for the rest of a request whose answer has come already.
const LATE_BODY: Duration = Duration::from_secs(60);
/// Pause before a silent connection is asked whether the other side is still there, and between two such questions.
const PROBE: Duration = Duration::from_secs(15);
/// Questions without an answer until it counts as dead.
const PROBES: u32 = 3;
/// What was sent and is not acknowledged for so long ends the connection.
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub struct Pool {
    origin: Origin,
    connector: Connector,
    connect_timeout: Duration,
    waiting: Mutex<Waiting>,
    itself: Weak<Self>,
}

#[derive(Debug, Clone)]
enum Connector {
    Plain(HttpConnector),
    Secure(HttpsConnector<HttpConnector>),
}

/// What waits for a request.
#[derive(Default)]
struct Waiting {
    /// The one that was used last is at the end, and is used next.
    lines: Vec<(Box<Line>, Instant)>,
    /// A connection for many requests at a time. It has a task of its own, which ends when neither this nor an answer
    /// needs it any more.
    shared: Option<(http2::SendRequest<Sent>, Instant)>,
    sweeper: Option<AbortOnDropHandle<()>>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting")
            .field("lines", &self.lines.len())
            .finish_non_exhaustive()
    }
}

/// A new connection.
enum New {
    Own(Box<Line>),
    Shared(http2::SendRequest<Sent>),
}

impl Pool {
    /// For this host, reached in this way.
    ///
    /// # Errors
    /// What is wrong with the settings, in words.
    pub(super) fn new(origin: &Origin, network: &Network) -> Result<Arc<Self>, NetworkError> {
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(network.connect_timeout()));
        http.set_nodelay(true);
        http.set_keepalive(Some(PROBE));
        http.set_keepalive_interval(Some(PROBE));
        http.set_keepalive_retries(Some(PROBES));
        #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
        http.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        // A file that cannot be used is told of, whether it is needed or not.
        let extra = network
            .ca_file
            .as_deref()
            .map(authorities)
            .transpose()?
            .unwrap_or_default();
        let connector = if origin.is_secure() {
            http.enforce_http(false);
            Connector::Secure(HttpsConnector::from((http, tls(extra)?)))
        } else {
            Connector::Plain(http)
        };
        Ok(Arc::new_cyclic(|itself| Self {
            origin: origin.clone(),
            connector,
            connect_timeout: network.connect_timeout(),
            waiting: Mutex::default(),
            itself: itself.clone(),
        }))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request, and waits for the head of its answer. It is sent once: another time only where nothing of it
    /// has left, because the connection that had waited was found closed.
    ///
    /// # Errors
    /// In words.
    pub(super) async fn send(
        &self,
        method: Method,
        path: PathAndQuery,
        mut headers: HeaderMap,
        body: Sent,
    ) -> Result<Reply, AskError> {
        headers
            .entry(ACCEPT)
            .or_insert_with(|| HeaderValue::from_static("*/*"));
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        loop {
            // Each is looked at before it is used; one that cannot be used is closed.
            while let Some(mut line) = self.take() {
                if !line.is_idle() {
                    continue;
                }
                self.address_own(&mut request, &path);
                match line.ask(request).await {
                    Ok(response) => return Ok(self.reply(response, line)),
                    Err(mut e) => match e.take_message() {
                        Some(unsent) => request = unsent,
                        None => return Err(AskError::of(&e.into_error())),
                    },
                }
            }
            if let Some(mut shared) = self.take_shared() {
                self.address_shared(&mut request, &path);
                match shared.try_send_request(request).await {
                    Ok(response) => return Ok(Reply::shared(response)),
                    Err(mut e) => match e.take_message() {
                        Some(unsent) => {
                            self.forget_shared();
                            request = unsent;
                            continue;
                        }
                        None => return Err(AskError::of(&e.into_error())),
                    },
                }
            }
            // Seldom, and large: apart, so that what each request carries along is small.
            match Box::pin(self.connect()).await? {
                New::Own(mut line) => {
                    self.address_own(&mut request, &path);
                    return match line.ask(request).await {
                        Ok(response) => Ok(self.reply(response, line)),
                        Err(e) => Err(AskError::of(&e.into_error())),
                    };
                }
                New::Shared(mut shared) => {
                    self.address_shared(&mut request, &path);
                    return match shared.try_send_request(request).await {
                        Ok(response) => Ok(Reply::shared(response)),
                        Err(e) => Err(AskError::of(&e.into_error())),
                    };
                }
            }
        }
    }

    fn reply(&self, response: http::Response<hyper::body::Incoming>, line: Box<Line>) -> Reply {
        Reply::own(response, line, self.itself.clone())
    }

    /// As HTTP/1.1 says where a request goes.
    fn address_own(&self, request: &mut Request<Sent>, path: &PathAndQuery) {
        *request.uri_mut() = Uri::from(path.clone());
        request
            .headers_mut()
            .entry(HOST)
            .or_insert_with(|| self.origin.host().clone());
    }

    /// As HTTP/2 does.
    fn address_shared(&self, request: &mut Request<Sent>, path: &PathAndQuery) {
        let mut parts = self.origin.uri().clone().into_parts();
        parts.path_and_query = Some(path.clone());
        // Of these parts each was good alone, and none is missing.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        request.headers_mut().remove(HOST);
    }

    fn take(&self) -> Option<Box<Line>> {
        let mut waiting = self.waiting();
        while let Some((line, since)) = waiting.lines.pop() {
            if since.elapsed() < IDLE {
                return Some(line);
            }
            // Those below have waited for longer.
            waiting.lines.clear();
        }
        None
    }

    fn take_shared(&self) -> Option<http2::SendRequest<Sent>> {
        let mut waiting = self.waiting();
        let (shared, used) = waiting.shared.as_mut()?;
        if shared.is_closed() || used.elapsed() >= IDLE {
            waiting.shared = None;
            return None;
        }
        *used = Instant::now();
        Some(shared.clone())
    }

    fn forget_shared(&self) {
        self.waiting().shared = None;
    }

    /// A connection whose answer has come whole waits for the next request.
    pub(super) fn put_back(&self, mut line: Box<Line>) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if !line.is_idle() {
            // It has ended; or the upstream has answered before it had the whole request, and the agent, which still
            // sends it, is not to be cut off.
            if line.is_open() {
                runtime.spawn(async move { timeout(LATE_BODY, line.rest()).await });
            }
            return;
        }
        let mut waiting = self.waiting();
        if waiting.lines.len() < MAX_IDLE {
            waiting.lines.push((line, Instant::now()));
        }
        self.watch(&mut waiting, &runtime);
    }

    /// Looks at what waits as long as anything does.
    fn watch(&self, waiting: &mut Waiting, runtime: &Handle) {
        if waiting.sweeper.is_some() {
            return;
        }
        let pool = self.itself.clone();
        let sweeper = runtime.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                if pool.upgrade().is_none_or(|pool| !pool.sweep()) {
                    return;
                }
            }
        });
        waiting.sweeper = Some(AbortOnDropHandle::new(sweeper));
    }

    /// Closes what has waited for too long or was closed by the upstream. Does anything still wait?
    fn sweep(&self) -> bool {
        let mut waiting = self.waiting();
        waiting
            .lines
            .retain_mut(|(line, since)| since.elapsed() < IDLE && line.is_idle());
        let over = |(shared, used): &(http2::SendRequest<Sent>, Instant)| {
            shared.is_closed() || used.elapsed() >= IDLE
        };
        if waiting.shared.as_ref().is_some_and(over) {
            waiting.shared = None;
        }
        let any = !waiting.lines.is_empty() || waiting.shared.is_some();
        if !any {
            // Whoever comes next begins another one.
            waiting.sweeper = None;
            waiting.lines.shrink_to_fit();
        }
        any
    }

    async fn connect(&self) -> Result<New, AskError> {
        let connected = match timeout(self.connect_timeout, self.connected()).await {
            Ok(connected) => connected?,
            Err(_) => return Err(AskError(told(&[], true, true))),
        };
        if !connected.connected().is_negotiated_h2() {
            let line = Line::over(connected).await.map_err(|e| AskError::of(&e))?;
            return Ok(New::Own(Box::new(line)));
        }
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        let (shared, connection) = builder.handshake(connected).await.map_err(|e| AskError::of(&e))?;
        let runtime = Handle::current();
        runtime.spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!("an upstream's connection ended: {e}");
            }
        });
        let mut waiting = self.waiting();
        let other = waiting.shared.as_mut().filter(|(other, _)| !other.is_closed());
        let shared = match other {
            // Somebody else was faster: one is enough.
            Some((other, _)) => other.clone(),
            None => {
                waiting.shared = Some((shared.clone(), Instant::now()));
                shared
            }
        };
        self.watch(&mut waiting, &runtime);
        Ok(New::Shared(shared))
    }

    async fn connected(&self) -> Result<Io, AskError> {
        let to = self.origin.uri().clone();
        // Neither has to be asked whether it is ready: both always are.
        match self.connector.clone() {
            Connector::Plain(mut http) => {
                let tcp = http.call(to).await.map_err(|e| AskError::connecting(&e))?;
                Ok(MaybeHttpsStream::Http(tcp))
            }
            Connector::Secure(mut https) => {
                https.call(to).await.map_err(|e| AskError::connecting(e.as_ref()))
            }
        }
    }
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, NetworkError> {
    let unusable = |e: &dyn std::fmt::Display| NetworkError(format!("ca_file {}: {e}", path.display()));
    let pem = std::fs::read(path).map_err(|e| unusable(&e))?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|e| unusable(&e))?;
    if all.is_empty() {
        return Err(unusable(&"it holds no certificate"));
    }
    Ok(all)
}

/// TLS that trusts whom the system trusts, and these.
fn tls(extra: Vec<CertificateDer<'static>>) -> Result<ClientConfig, NetworkError> {
    let unusable = |e: rustls::Error| NetworkError(format!("TLS cannot be used: {e}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider.clone());
    let verifier = verifier.map_err(unusable)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
