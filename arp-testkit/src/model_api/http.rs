//! The server: which API a request speaks, the stream of its answer, and the steering paths.

use super::script::{Ask, Reply};
use super::{Recorded, State, anthropic, gemini, openai};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest that a held answer waits to be released.
const HOLD_LIMIT: Duration = Duration::from_secs(120);

/// Headers whose values are keys.
const SECRET_HEADERS: [&str; 4] = ["authorization", "x-api-key", "x-goog-api-key", "cookie"];

type Body = BoxBody<Bytes, io::Error>;

/// One event of a streamed answer.
#[derive(Debug)]
pub(super) struct Piece {
    /// The name of the event, where the API names them.
    pub(super) event: Option<String>,
    pub(super) data: Value,
    /// For a word of the text: its place among them and their number.
    pub(super) word: Option<(usize, usize)>,
}

impl Piece {
    /// An event that comes at once.
    pub(super) fn now(event: Option<&str>, data: Value) -> Self {
        Self {
            event: event.map(str::to_owned),
            data,
            word: None,
        }
    }

    /// An event that carries a word.
    pub(super) fn word(event: Option<&str>, data: Value, place: usize, of: usize) -> Self {
        Self {
            word: Some((place, of)),
            ..Self::now(event, data)
        }
    }
}

/// What differs between the APIs.
struct Dialect {
    ask: fn(&Value) -> Ask,
    error: fn(u16, &str) -> Value,
    message: fn(&Value, &Reply) -> Value,
    stream: fn(&Value, &Reply) -> Vec<Piece>,
}

const ANTHROPIC: Dialect = Dialect {
    ask: anthropic::ask,
    error: anthropic::error,
    message: anthropic::message,
    stream: anthropic::stream,
};

const OPENAI: Dialect = Dialect {
    ask: openai::ask,
    error: openai::error,
    message: openai::message,
    stream: openai::stream,
};

const GEMINI: Dialect = Dialect {
    ask: gemini::ask,
    error: gemini::error,
    message: gemini::message,
    stream: gemini::stream,
};

/// Serves until `stop`; then every connection is dropped.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let socket = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                Err(_) => continue,
            },
        };
        let (state, stop) = (Arc::clone(&state), stop.clone());
        connections.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = connection(socket, state) => {}
            }
        });
    }
}

async fn connection(socket: TcpStream, state: Arc<State>) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(request, state).await) }
    });
    // A CLI that hangs up in the middle is what a cancelled turn looks like.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return not_found("the body broke off");
    };
    let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    let path = parts.uri.path().to_owned();
    if let Some(order) = path.strip_prefix("/__fake/") {
        return steer(order, &body, &state);
    }
    if parts.method == Method::GET || parts.method == Method::HEAD {
        return match path.ends_with("/models") {
            true => plain(
                StatusCode::OK,
                &json!({"object": "list", "data": [], "models": []}),
            ),
            false => plain(StatusCode::OK, &json!({})),
        };
    }
    state.record(&parts, &body);
    if path.ends_with("/count_tokens") {
        return plain(StatusCode::OK, &json!({"input_tokens": 100}));
    }
    if path.ends_with(":countTokens") {
        return plain(StatusCode::OK, &json!({"totalTokens": 100}));
    }
    let wants_stream = body.get("stream").and_then(Value::as_bool).unwrap_or(false);
    if path.ends_with("/messages") {
        return model(&ANTHROPIC, body, wants_stream, &state);
    }
    if path.ends_with("/responses") {
        return model(&OPENAI, body, wants_stream, &state);
    }
    match path.rsplit('/').next().and_then(|last| last.split_once(':')) {
        Some((name, method @ ("generateContent" | "streamGenerateContent"))) => {
            let mut body = body;
            body["model"] = json!(name);
            model(&GEMINI, body, method.starts_with("stream"), &state)
        }
        _ => not_found(&path),
    }
}

fn model(dialect: &Dialect, body: Value, wants_stream: bool, state: &Arc<State>) -> Response<Body> {
    let reply = state.script.lock().unwrap().reply(&(dialect.ask)(&body));
    if let Some(status) = reply.error {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return plain(status, &(dialect.error)(status.as_u16(), &reply.text));
    }
    if !wants_stream {
        return plain(StatusCode::OK, &(dialect.message)(&body, &reply));
    }
    let pieces = (dialect.stream)(&body, &reply).into_iter();
    let state = Arc::clone(state);
    let events = stream::unfold(Some((pieces, reply, state)), |going| async {
        let (mut pieces, reply, state) = going?;
        let piece = pieces.next()?;
        if let Some((place, of)) = piece.word
            && let Err(cut) = pace(&reply, &state, place, of).await
        {
            return Some((Err(cut), None));
        }
        let name = piece
            .event
            .map(|event| format!("event: {event}\n"))
            .unwrap_or_default();
        let frame = Frame::data(Bytes::from(format!("{name}data: {}\n\n", piece.data)));
        Some((Ok(frame), Some((pieces, reply, state))))
    });
    Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .header(header::CACHE_CONTROL, "no-cache")
        .body(BodyExt::boxed(StreamBody::new(sync(events))))
        .expect("a fixed response is valid")
}

/// Boxed bodies must be `Sync`, which a stream of futures is not by itself.
fn sync<S>(stream: S) -> impl futures_util::Stream<Item = S::Item> + Send + Sync
where
    S: futures_util::Stream + Send + 'static,
    S::Item: Send + 'static,
{
    use futures_util::StreamExt;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut stream = Box::pin(stream);
        while let Some(item) = stream.next().await {
            if sender.send(item).await.is_err() {
                return;
            }
        }
    });
    stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|item| (item, receiver))
    })
}

/// Waits before a word, or breaks the answer off.
async fn pace(reply: &Reply, state: &State, place: usize, of: usize) -> io::Result<()> {
    let halfway = place == (of / 2).max(1);
    if reply.cut && halfway {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    if reply.hold && halfway {
        let mut releases = state.releases.subscribe();
        let _held = Held::new(state);
        let _ = tokio::time::timeout(HOLD_LIMIT, releases.changed()).await;
    }
    if !reply.spread.is_zero() {
        tokio::time::sleep(reply.spread / u32::try_from(of).unwrap_or(1)).await;
    }
    Ok(())
}

/// Counts an answer as held, until it goes on or its reader hangs up.
struct Held<'a>(&'a State);

impl<'a> Held<'a> {
    fn new(state: &'a State) -> Self {
        state.held.send_modify(|count| *count += 1);
        Self(state)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.send_modify(|count| *count -= 1);
    }
}

fn steer(order: &str, body: &Value, state: &State) -> Response<Body> {
    match order {
        "queue" => {
            let specs = body
                .as_array()
                .map_or_else(|| std::slice::from_ref(body), Vec::as_slice);
            let mut script = state.script.lock().unwrap();
            specs
                .iter()
                .map(Reply::from_json)
                .for_each(|reply| script.push(reply));
        }
        "release" => state.release(),
        "reset" => state.reset(),
        "requests" => return plain(StatusCode::OK, &json!({"requests": state.recorded()})),
        _ => return not_found(order),
    }
    plain(StatusCode::OK, &json!({"ok": true}))
}

impl State {
    fn record(&self, parts: &hyper::http::request::Parts, body: &Value) {
        let headers = parts.headers.iter().map(|(name, value)| {
            let secret = SECRET_HEADERS.contains(&name.as_str());
            let value = if secret {
                "***".into()
            } else {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            };
            (name.as_str().to_owned(), value)
        });
        let path = parts
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default();
        let recorded = Recorded {
            path,
            headers: headers.collect(),
            body: body.clone(),
        };
        self.requests.lock().unwrap().push(recorded);
    }

    fn recorded(&self) -> Vec<Value> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .map(|r| json!({"path": r.path, "headers": r.headers, "body": r.body}))
            .collect()
    }
}

fn not_found(what: &str) -> Response<Body> {
    plain(
        StatusCode::NOT_FOUND,
        &json!({"error": {"message": format!("no such path: {what}")}}),
    )
}

fn plain(status: StatusCode, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .body(BodyExt::boxed(body))
        .expect("a fixed response is valid")
}
