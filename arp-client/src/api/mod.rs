//! The HTTP API (docs/api.md): one request in, one answer out.
//!
//! [`handle`] checks who asks ([`guard`]), finds the endpoint ([`router`]) and calls its handler. Handlers are
//! sorted by resource. Nothing here knows how the connection came to be.

mod approvals;
mod body;
mod compress;
mod directories;
mod edge;
mod error;
mod events;
mod feed;
mod fs;
mod gateway;
mod guard;
mod history;
mod info;
mod input;
mod openapi;
mod overview;
mod preview;
mod proxy;
mod request;
mod router;
mod sessions;
mod sse;
mod stop;
mod ws;

pub(crate) use body::{Body, full};
pub(crate) use error::ApiError;
pub(crate) use guard::{bearer_of, same_secret};

use crate::command::{PeerInfo, State};
use compress::Packing;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use request::{Call, Query};
use router::{Found, Op};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

type Answer = Result<Response<Body>, ApiError>;

/// Answers one request.
pub(crate) async fn handle(state: Arc<State>, peer: PeerInfo, request: Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let method = request.method().clone();
    let (mut head, body) = request.into_parts();
    let guarded = guard::check(&state, peer, &mut head).await;
    // Without its query, which may hold a token.
    let path = head.uri.path().to_owned();
    let (answer, finish) = match guarded {
        Ok(pass) => {
            let answer = match pass.answer {
                Some(answer) => Ok(answer),
                None => answer(&state, peer, head, body).await,
            };
            (answer, pass.finish)
        }
        Err(error) => (Err(error), guard::Finish::default()),
    };
    let mut response = answer.unwrap_or_else(|error| error.response());
    finish.apply(&mut response);
    if method == Method::HEAD {
        *response.body_mut() = body::empty();
    }
    let status = response.status().as_u16();
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(%method, path, status, ms, via = ?peer.via, "request");
    response
}

async fn answer(state: &Arc<State>, peer: PeerInfo, head: http::request::Parts, body: Incoming) -> Answer {
    let path = head.uri.path();
    if path.starts_with("/proxy/") {
        return proxy::handle(state, peer, Request::from_parts(head, body)).await;
    }
    if is_api(path) {
        edge::check(&state.edge_id, &head)?;
    }
    if gateway::is_path(path) {
        return gateway::pass(state, head, body).await;
    }
    let (op, params) = match router::find(&head.method, path) {
        Found::Op(op, params) => (op, params),
        Found::OtherMethod(allow) if head.method == Method::OPTIONS => return guard::options(&allow),
        Found::OtherMethod(allow) => return Err(ApiError::method_not_allowed(&allow)),
        Found::Nothing if is_api(path) => return Err(ApiError::not_found()),
        Found::Nothing => return page(&head),
    };
    let packing = Packing::wanted(op, &head);
    let query = Query::parse(head.uri.query());
    let call = Call {
        peer,
        head,
        params,
        query,
        body,
    };
    Ok(packing.apply(dispatch(state, peer, op, call).await?).await)
}

/// Is this a path of the API (and not of the console)?
fn is_api(path: &str) -> bool {
    ["/api", "/sessions", "/proxy"].iter().any(|prefix| {
        path.strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

async fn dispatch(state: &Arc<State>, peer: PeerInfo, op: Op, call: Call) -> Answer {
    match op {
        Op::Health => info::health(state),
        Op::Info => info::info(state, &call).await,
        Op::OpenApi => openapi::serve(),
        Op::Login => guard::login(state, call).await,
        Op::Logout => guard::logout(state, call).await,
        Op::Events => events::stream(state),
        Op::EventsWs => events::websocket(state, call),
        Op::SessionList => sessions::list(state, &call),
        Op::SessionCreate => sessions::create(state, call).await,
        Op::SessionGet => sessions::get(state, &call).await,
        Op::SessionPatch => sessions::patch(state, call).await,
        Op::SessionDelete => sessions::delete(state, &call).await,
        Op::SessionEvents => sessions::events(state, &call).await,
        Op::SessionWs => ws::session(state, call),
        Op::MessageCreate => sessions::message(state, call).await,
        Op::MessageDelete => sessions::unqueue(state, &call).await,
        Op::Interrupt => sessions::interrupt(state, call).await,
        Op::Cancel => sessions::cancel(state, call).await,
        Op::Fork => sessions::fork(state, call).await,
        Op::Retry => sessions::retry(state, call).await,
        Op::Stop => stop::stop(state, peer, call).await,
        Op::ApprovalList => approvals::list(state, &call),
        Op::ApprovalGet => approvals::get(state, &call).await,
        Op::ApprovalDecide => approvals::decide(state, call).await,
        Op::SessionGateway | Op::SessionGatewayChoose => gateway::session(state, call).await,
        Op::SessionFs => fs::session(state, &call).await,
        Op::ProxyTunnel => proxy::tunnel(state, call).await,
        Op::Fs => fs::machine(state, &call).await,
        Op::Directories => directories::list(state, &call).await,
        Op::Overview => overview::list(state, &call).await,
        Op::Projects => history::projects(state, &call).await,
        Op::WorkingDirectories => history::directories(state, &call).await,
        Op::ProjectSessions | Op::HistoryList => history::list(state, &call).await,
        Op::HistoryGet => history::get(state, &call).await,
        Op::HistoryDelete => history::delete(state, &call).await,
    }
}

/// A page of the console.
fn page(head: &http::request::Parts) -> Answer {
    if head.method != Method::GET && head.method != Method::HEAD {
        return Err(ApiError::method_not_allowed("GET, HEAD"));
    }
    let page = crate::console::respond(head.uri.path(), &head.headers);
    page.map(|page| page.map(full)).ok_or_else(ApiError::not_found)
}

/// An answer in JSON.
fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let text = serde_json::to_string(value)
        .map_err(|error| ApiError::internal(format!("an answer cannot be written as JSON: {error}")))?;
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// 200 with JSON.
fn ok(value: &impl Serialize) -> Answer {
    json(StatusCode::OK, value)
}
