//! The MCP server: agents ask here for permission, and can start and follow sessions of this machine.
//!
//! Two ways in: streamable HTTP on 127.0.0.1, with a bearer token and checked Host and Origin; and the local
//! socket that `arpc mcp` connects standard input and output with. Both serve the same [`tools::Tools`].

mod caller;
mod prompt;
mod tools;

use crate::api::{ApiError, Body, bearer_of, same_secret};
use crate::command::{CommandError, McpConfig, State};
use arp_common::net;
use arp_sessions::ipc;
use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::ServiceExt;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tools::Tools;

pub(crate) use caller::Caller;

/// Claude gives up on a tool call after 60 s unless something comes: a comment in the stream this often.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const AN_HOUR: Duration = Duration::from_secs(3600);
const A_DAY: Duration = Duration::from_secs(24 * 3600);
/// A head of a request has to arrive within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest body of a request.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// The first line on the local socket has to come within this.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the local socket is found.
pub(crate) fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("mcp")
}

/// Where the bearer token of the HTTP server is kept, for this user only.
pub(crate) fn token_file(data_dir: &Path) -> PathBuf {
    data_dir.join("mcp.token")
}

type Http = StreamableHttpService<Tools, LocalSessionManager>;

/// Starts the HTTP server.
pub(crate) async fn listen(
    state: &Arc<State>,
    config: McpConfig,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<SocketAddr, CommandError> {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, config.port));
    let failed = |source| CommandError::Listen {
        at: at.to_string(),
        source,
    };
    let listener = net::listen_at(at).map_err(failed)?;
    let at = listener.local_addr().map_err(failed)?;
    let token: Arc<str> = token(&state.config.data_dir).map_err(failed)?.into();

    let service = service(state, stop);
    let (connections, stop) = (tasks.clone(), stop.clone());
    tasks.spawn(async move {
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "cannot take a connection for MCP");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                () = stop.cancelled() => return,
            };
            let (service, token, stop) = (service.clone(), Arc::clone(&token), stop.clone());
            connections.spawn(async move { stop.run_until_cancelled(serve(stream, service, token)).await });
        }
    });
    Ok(at)
}

/// What answers requests.
fn service(state: &Arc<State>, stop: &CancellationToken) -> Http {
    let mut settings = StreamableHttpServerConfig::default().enforce_origin_validation();
    settings.sse_keep_alive = Some(KEEP_ALIVE);
    settings.cancellation_token = stop.child_token();
    settings.max_request_body_bytes = MAX_BODY;
    let tools = Tools::new(Arc::clone(state), Caller::default());
    // A prompt may wait for as long as an approval does, and a caller that gave no token for progress hears nothing
    // meanwhile: that is no reason to take its session for dead.
    let mut manager = LocalSessionManager::default();
    let patience = state.config.approval_timeout.unwrap_or(A_DAY);
    manager.session_config.keep_alive = Some(patience.max(AN_HOUR) + 2 * KEEP_ALIVE);
    StreamableHttpService::new(move || Ok(tools.clone()), Arc::new(manager), settings)
}

async fn serve<S>(stream: S, service: Http, token: Arc<str>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request: Request<Incoming>| {
        let (service, token) = (service.clone(), Arc::clone(&token));
        async move { Ok::<_, Infallible>(answer(&service, &token, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), answer).await {
        tracing::debug!(%error, "a connection of MCP ended early");
    }
}

async fn answer(service: &Http, token: &str, request: Request<Incoming>) -> Response<Body> {
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(bearer_of);
    if !given.is_some_and(|given| same_secret(given, token)) {
        let mut refusal = ApiError::new(
            StatusCode::UNAUTHORIZED,
            "token_required",
            "the MCP server asks for its bearer token; `arpc mcp --print-config` prints how to give it",
        )
        .response();
        refusal
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return refusal;
    }
    if request.uri().path().trim_end_matches('/') != "/mcp" {
        return ApiError::new(StatusCode::NOT_FOUND, "not_found", "the MCP server is at /mcp").response();
    }
    service
        .handle(request)
        .await
        .map(|body| body.map_err(|never| match never {}).boxed_unsync())
}

/// The bearer token, made at the first start.
fn token(data_dir: &Path) -> std::io::Result<String> {
    let file = token_file(data_dir);
    match std::fs::read_to_string(&file) {
        Ok(token) if token.trim().len() >= 32 => Ok(token.trim().to_owned()),
        _ => {
            let token = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
            ipc::write_private(&file, token.as_bytes())?;
            Ok(token)
        }
    }
}

/// Serves one connection of the local socket: a line that says who calls, then MCP.
pub(crate) async fn serve_local(state: Arc<State>, stream: ipc::Stream) {
    let proven = session_of(&state, &stream).await;
    let (read, write) = tokio::io::split(stream);
    let mut read = BufReader::new(read);
    let mut hello = String::new();
    let greeted = tokio::time::timeout(HELLO_TIMEOUT, read.read_line(&mut hello)).await;
    let caller: Caller = match greeted {
        Ok(Ok(_)) => serde_json::from_str(&hello).unwrap_or_default(),
        _ => return,
    };
    let caller = Caller { proven, ..caller };
    match Tools::new(state, caller).serve((read, write)).await {
        Ok(running) => {
            if let Err(error) = running.waiting().await {
                tracing::debug!(%error, "an MCP client broke off");
            }
        }
        Err(error) => tracing::debug!(%error, "an MCP client did not begin"),
    }
}

/// The session of ours that the process at the other end belongs to, where the system tells.
async fn session_of(state: &Arc<State>, stream: &ipc::Stream) -> Option<String> {
    let pid = ipc::peer(stream)?;
    let above = tokio::task::spawn_blocking(move || arp_sessions::procs::sessions_above(pid))
        .await
        .ok()?;
    // Ours may itself run in a session of another arpc.
    let known = |id: &String| state.sessions.get(id).is_ok_and(|view| view.id == *id);
    above.into_iter().find(known)
}
