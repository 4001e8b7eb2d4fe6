//! The upstream's side: a socket of its own, kept from one turn to the next.

use super::super::attempt::{
    Answer, Begun, Failure, Rest, Route, is_upstreams, named_wait, prepared, refused, said, short,
};
use crate::clients::explain;
use crate::dialect::First;
use crate::forward::request::Work;
use crate::json::{self, Item};
use crate::service::Service;
use crate::sse::{self, Splitter};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{Method, StatusCode};
use reqwest::{Client, Upgraded};
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

/// How Codex names the protocol.
const BETA: (HeaderName, HeaderValue) = (
    HeaderName::from_static("openai-beta"),
    HeaderValue::from_static("responses_websockets=2026-02-06"),
);

/// An upstream's socket after a whole answer.
#[derive(Debug)]
pub(crate) struct Link {
    /// Whose it is.
    upstream: String,
    /// The response that it knows everything up to.
    response: String,
    socket: WebSocketStream<Upgraded>,
}

/// Where a link stands between two turns.
pub(crate) type Parking = Arc<Mutex<Option<Link>>>;

/// What a turn of a socket adds to its request.
#[derive(Debug)]
pub(crate) struct Turn {
    parking: Parking,
    /// The response that it goes on from.
    previous: Option<String>,
    /// So many items of the input were said before.
    known: usize,
}

impl Turn {
    pub(super) const fn new(parking: Parking, previous: Option<String>, known: usize) -> Self {
        Self {
            parking,
            previous,
            known,
        }
    }

    /// Its history is another one now: it can go on from nothing.
    pub(crate) fn begins_anew(&mut self) {
        self.previous = None;
    }

    /// The socket that can go on with this turn, if there is one. Any other is closed.
    fn link(&self, upstream: &str) -> Option<Link> {
        let link = self
            .parking
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        (link.upstream == upstream && Some(&link.response) == self.previous.as_ref()).then_some(link)
    }
}

/// The rest of an answer that comes over a socket, as server-sent events.
#[derive(Debug)]
pub(crate) struct TurnStream {
    upstream: String,
    socket: Option<WebSocketStream<Upgraded>>,
    parking: Parking,
}

impl TurnStream {
    /// The next event; `None` at the end. Nothing is lost when it is dropped while it waits.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let Some(socket) = &mut self.socket else {
                return Ok(None);
            };
            match socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    self.look(&text);
                    return Ok(Some(event(&text)));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | None => {
                    self.socket = None;
                    return Ok(None);
                }
                Some(Ok(_)) => return Err("it sent something that is no text".to_owned()),
                Some(Err(e)) => return Err(format!("the connection failed ({e})")),
            }
        }
    }

    /// After a whole answer the socket is there for the next turn; after any other end it is closed.
    fn look(&mut self, text: &str) {
        let kind = json::text_member(text.as_bytes(), "type").unwrap_or_default();
        if !matches!(
            kind.as_str(),
            "response.completed" | "response.incomplete" | "response.failed" | "error"
        ) {
            return;
        }
        let socket = self.socket.take();
        let told: Value = serde_json::from_str(text).unwrap_or_default();
        if kind == "response.completed"
            && let (Some(socket), Some(id)) = (socket, told["response"]["id"].as_str())
        {
            let link = Link {
                upstream: self.upstream.clone(),
                response: id.to_owned(),
                socket,
            };
            *self.parking.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
        }
    }
}

fn event(text: &str) -> Bytes {
    let mut out = String::with_capacity(text.len() + 8);
    for line in text.lines() {
        out.push_str("data: ");
        out.push_str(line);
        out.push('\n');
    }
    out.push('\n');
    out.into()
}

/// Why a socket gave no answer.
enum Miss {
    /// It speaks no WebSocket: over HTTP it may.
    NoSocket,
    /// The link from before is of no use any more: once more, with everything.
    Stale,
    Failed(Failure),
}

impl From<Failure> for Miss {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Asks over a socket. `None` when the upstream has none.
pub(crate) async fn ask(
    service: Service,
    route: &Route<'_>,
    client: &Client,
    work: &mut Work,
    deadline: Instant,
) -> Option<Result<Answer, Failure>> {
    let parked = work.turn.as_ref()?.link(&route.upstream.name);
    let again = parked.is_some();
    match once(service, route, client, work, parked, deadline).await {
        Err(Miss::Stale) if again => {}
        answered => return told(answered),
    }
    told(once(service, route, client, work, None, deadline).await)
}

fn told(answered: Result<Answer, Miss>) -> Option<Result<Answer, Failure>> {
    match answered {
        Ok(answer) => Some(Ok(answer)),
        Err(Miss::NoSocket) => None,
        Err(Miss::Failed(failure)) => Some(Err(failure)),
        Err(Miss::Stale) => Some(Err(Failure::upstreams(
            "it does not know what it answered before",
        ))),
    }
}

async fn once(
    service: Service,
    route: &Route<'_>,
    client: &Client,
    work: &mut Work,
    parked: Option<Link>,
    deadline: Instant,
) -> Result<Answer, Miss> {
    let late = || Miss::Failed(Failure::upstreams("it did not answer in time"));
    let going_on = parked.is_some();
    let mut socket = match parked {
        Some(link) => link.socket,
        None => connect(service, route, client, work, deadline).await?,
    };
    let frame = frame(work, route.model, going_on)
        .ok_or_else(|| Failure::upstreams("its request cannot be put into a frame"))?;
    // A socket that has died meanwhile is no fault of anybody.
    let lost = |why: String| {
        if going_on {
            Miss::Stale
        } else {
            Miss::Failed(Failure::upstreams(why))
        }
    };
    match timeout_at(deadline, socket.send(Message::text(frame))).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => return Err(lost(format!("the connection failed ({e})"))),
        Err(_) => return Err(late()),
    }
    let parking = work.turn.as_ref().map(|turn| turn.parking.clone());
    let mut rest = TurnStream {
        upstream: route.upstream.name.to_string(),
        socket: Some(socket),
        parking: parking.unwrap_or_default(),
    };
    let mut begun = Splitter::default();
    loop {
        let event = match timeout_at(deadline, rest.chunk()).await {
            Ok(Ok(Some(event))) => event,
            Ok(Ok(None)) => return Err(lost("it ended without an answer".to_owned())),
            Ok(Err(why)) => return Err(lost(why)),
            Err(_) => return Err(late()),
        };
        let data = sse::data(&event).unwrap_or_default();
        if json::text_member(&data, "type").as_deref() == Some("error") {
            return Err(refusal(&data, route.texts, going_on));
        }
        let first = service.first(&data);
        begun.push(&event);
        match first {
            First::Unclear => {}
            First::Answer => break,
            First::Error(message) => {
                return Err(Miss::Failed(Failure {
                    upstreams: !service.is_of_request(&message),
                    ..Failure::upstreams(format!("it answered with an error: {}", short(&message)))
                }));
            }
        }
    }
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"))]);
    Ok(Answer {
        status: StatusCode::OK,
        headers,
        begun: Begun::Events(begun),
        rest: Rest::Socket(Box::new(rest)),
    })
}

/// An `error` frame in place of an answer: the answer that HTTP would have given.
fn refusal(data: &[u8], texts: &[String], going_on: bool) -> Miss {
    let told: Value = serde_json::from_slice(data).unwrap_or_default();
    let code = told["error"]["code"].as_str().unwrap_or_default();
    if going_on
        && matches!(
            code,
            "previous_response_not_found" | "websocket_connection_limit_reached"
        )
    {
        return Miss::Stale;
    }
    let status = told["status"]
        .as_u64()
        .and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok())
        .filter(|status| status.is_client_error() || status.is_server_error())
        .unwrap_or(StatusCode::BAD_GATEWAY);
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    for (name, value) in told["headers"].as_object().into_iter().flatten() {
        if let (Ok(name), Some(Ok(value))) = (
            name.parse::<HeaderName>(),
            value.as_str().map(HeaderValue::from_str),
        ) {
            headers.insert(name, value);
        }
    }
    let body = Bytes::copy_from_slice(data);
    let named = texts
        .iter()
        .any(|text| !text.is_empty() && memchr::memmem::find(&body, text.as_bytes()).is_some());
    Miss::Failed(Failure {
        message: format!("it answered {}{}", status.as_u16(), said(&body)),
        upstreams: named || is_upstreams(status),
        wait: named_wait(&headers, &body),
        error: Some((status, headers, body)),
    })
}

/// The request as a frame; where the upstream knows what came before, only what is new.
fn frame(work: &Work, model: Option<&str>, going_on: bool) -> Option<String> {
    let body = work.kept_for(model);
    let turn = work.turn.as_ref()?;
    let mut text = String::from_utf8(body.to_vec()).ok()?;
    if going_on && let Some(previous) = &turn.previous {
        let mut seen = 0;
        let cut = json::with_items(text.as_bytes(), "input", |_| {
            seen += 1;
            if seen <= turn.known {
                Item::Drop
            } else {
                Item::Keep
            }
        });
        if let Some(cut) = cut {
            text = String::from_utf8(cut.to_vec()).ok()?;
        }
        let previous = Value::from(previous.as_str()).to_string();
        text = json::with_member(&text, "previous_response_id", &previous, 0)?;
    }
    json::with_member(&text, "type", "\"response.create\"", 0)
}

async fn connect(
    service: Service,
    route: &Route<'_>,
    client: &Client,
    work: &Work,
    deadline: Instant,
) -> Result<WebSocketStream<Upgraded>, Miss> {
    let (path, mut headers) = prepared(service, route, work);
    let url = route.upstream.origin.url_at(&path, work.query.as_deref());
    headers.remove(CONTENT_TYPE);
    headers.remove(http::header::ACCEPT);
    headers.remove(http::header::ACCEPT_ENCODING);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    if let Ok(key) = HeaderValue::from_str(&generate_key()) {
        headers.insert(SEC_WEBSOCKET_KEY, key);
    }
    let (name, value) = BETA;
    headers.insert(name, value);
    let request = client.request(Method::GET, url).headers(headers);
    let response = match timeout_at(deadline, request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(e)) => return Err(Failure::upstreams(explain(&e)).into()),
        Err(_) => return Err(Failure::upstreams("it did not answer in time").into()),
    };
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let upgraded = response
            .upgrade()
            .await
            .map_err(|e| Failure::upstreams(explain(&e)))?;
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(super::config())).await;
        return Ok(socket);
    }
    if matches!(status.as_u16(), 200..=399 | 404 | 405 | 426 | 501) {
        return Err(Miss::NoSocket);
    }
    Err(Miss::Failed(refused(response.into(), route.texts).await))
}
