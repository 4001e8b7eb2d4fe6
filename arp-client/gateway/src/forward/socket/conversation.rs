//! The agent's side of a socket: one turn after the other.

use super::{Parking, Turn};
use crate::forward::Gateway;
use crate::forward::body::Cut;
use crate::forward::flow::{Flow, Head};
use crate::forward::request::Work;
use crate::json;
use crate::service::Service;
use crate::sse::{self, Splitter};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::{StatusCode, request};
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

/// Longest history that is kept, in bytes; beyond it the agent says all anew, on another socket.
const MAX_HISTORY: usize = 32 << 20;
/// Silence between two turns after which the agent is asked whether it is there.
const PING: Duration = Duration::from_secs(60);
/// Longest error that is read from an answer that is no stream.
const MAX_ERROR: usize = 256 << 10;

/// One agent's socket.
pub(super) struct Conversation {
    gateway: Arc<Gateway>,
    service: Service,
    /// What the handshake said, as the head of a request over HTTP.
    head: request::Parts,
    /// Everything said up to `last`, as the items of an `input`.
    history: Vec<String>,
    /// The response that the history ends with.
    last: Option<String>,
    /// The upstream's socket between two turns.
    parking: Parking,
}

/// The agent has left, or is to leave.
struct Over;

type Sink<S> = SplitSink<WebSocketStream<S>, Message>;
type Source<S> = SplitStream<WebSocketStream<S>>;

/// What of a frame matters here.
#[derive(Deserialize)]
struct Create<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    previous_response_id: Option<String>,
    #[serde(borrow, default)]
    input: Vec<&'a RawValue>,
    generate: Option<bool>,
}

/// What of an event matters here.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    item: Option<&'a RawValue>,
    response: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    id: Option<String>,
}

impl Conversation {
    pub(super) fn new(gateway: Arc<Gateway>, service: Service, head: request::Parts) -> Self {
        Self {
            gateway,
            service,
            head,
            history: Vec::new(),
            last: None,
            parking: Parking::default(),
        }
    }

    /// Until the agent leaves.
    pub(super) async fn run<S>(mut self, socket: WebSocketStream<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sink, mut source) = socket.split();
        loop {
            // An agent whose machine is gone says nothing any more, and does not leave either.
            let Ok(said) = timeout(PING, source.next()).await else {
                if sink.send(Message::Ping(Bytes::new())).await.is_err() {
                    break;
                }
                continue;
            };
            let Some(Ok(message)) = said else { break };
            let Message::Text(text) = message else {
                if matches!(message, Message::Close(_)) {
                    break;
                }
                // Pings are answered by themselves.
                continue;
            };
            if self.create(&text, &mut sink, &mut source).await.is_err() {
                break;
            }
        }
        let _ = sink.close().await;
    }

    async fn create<S>(&mut self, text: &str, sink: &mut Sink<S>, source: &mut Source<S>) -> Result<(), Over>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let create: Create<'_> = match serde_json::from_str(text) {
            Ok(create) => create,
            Err(e) => return refuse(sink, 400, "invalid_frame", &format!("the frame: {e}")).await,
        };
        if create.kind != "response.create" {
            let message = format!(
                "the gateway knows no frame of type {:?}, but response.create",
                create.kind
            );
            return refuse(sink, 400, "unknown_frame", &message).await;
        }
        let new: Vec<String> = create.input.iter().map(|item| item.get().to_owned()).collect();
        match &create.previous_response_id {
            None => self.history.clear(),
            Some(id) if Some(id) == self.last.as_ref() => {}
            // The agent then comes anew, with all that was said.
            Some(_) => {
                let message = "the response before is not known here";
                return refuse(sink, 400, "previous_response_not_found", message).await;
            }
        }
        let known = self.history.len();
        self.history.extend(new);
        if self.history.iter().map(String::len).sum::<usize>() > MAX_HISTORY {
            self.last = None;
            let message = "the conversation is longer than what is kept (32 MiB)";
            return refuse(sink, 400, "previous_response_not_found", message).await;
        }
        if create.generate == Some(false) {
            return self.warmed_up(sink).await;
        }
        let Some(body) = self.body(text) else {
            return refuse(sink, 400, "invalid_frame", "the frame is no object with an input").await;
        };
        let turn = Turn::new(self.parking.clone(), create.previous_response_id, known);
        let work = Work::of_frame(self.service, &self.head, body, turn);
        self.turn(work, sink, source).await
    }

    /// The frame as the body of a request over HTTP.
    fn body(&self, frame: &str) -> Option<Bytes> {
        let mut text = frame.to_owned();
        for name in ["type", "previous_response_id", "generate"] {
            text = json::without_member(&text, name);
        }
        let input = format!("[{}]", self.history.join(","));
        let text = json::with_member(&text, "input", &input, 0)?;
        json::with_member(&text, "stream", "true", 0).map(Bytes::from)
    }

    /// Nothing was asked: what comes next goes on from here.
    async fn warmed_up<S>(&mut self, sink: &mut Sink<S>) -> Result<(), Over>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let id = format!("resp_{}", uuid::Uuid::new_v4().simple());
        let usage = json!({
            "input_tokens": 0, "input_tokens_details": null, "output_tokens": 0, "output_tokens_details": null,
            "total_tokens": 0,
        });
        let created = json!({"type": "response.created", "response": {"id": id, "output": []}});
        let completed =
            json!({"type": "response.completed", "response": {"id": id, "output": [], "usage": usage}});
        say(sink, created.to_string()).await?;
        say(sink, completed.to_string()).await?;
        self.last = Some(id);
        Ok(())
    }

    /// One turn, to its end.
    async fn turn<S>(&mut self, work: Work, sink: &mut Sink<S>, source: &mut Source<S>) -> Result<(), Over>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut flow = self.gateway.clone().flow(self.service, work);
        // Until it is known how this one ends, nothing can go on from it.
        self.last = None;
        let head = loop {
            tokio::select! {
                head = flow.head() => break head,
                said = source.next() => listening(sink, said).await?,
            }
        };
        let Some(Head { status, headers }) = head else {
            return refuse(sink, 503, "internal", "the gateway gave up this request").await;
        };
        let events = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        if status != StatusCode::OK || !events {
            return whole(sink, status, &headers, flow).await;
        }
        let mut splitter = Splitter::default();
        let mut made = Vec::new();
        loop {
            let piece = tokio::select! {
                piece = flow.piece() => piece,
                said = source.next() => {
                    listening(sink, said).await?;
                    continue;
                }
            };
            match piece {
                Some(Ok(bytes)) => splitter.push(&bytes),
                // As an upstream that breaks off.
                Some(Err(Cut)) => return Err(Over),
                None => break,
            }
            while let Some(event) = splitter.next_event() {
                self.event(&event, &mut made, sink).await?;
            }
        }
        Ok(())
    }

    /// An event of the answer becomes a frame; what it adds to the history is kept.
    async fn event<S>(&mut self, event: &[u8], made: &mut Vec<String>, sink: &mut Sink<S>) -> Result<(), Over>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(data) = sse::data(event).filter(|data| **data != *b"[DONE]") else {
            return Ok(());
        };
        let Ok(text) = String::from_utf8(data.into_owned()) else {
            return Ok(());
        };
        let matters = ["response.output_item.done", "response.completed"];
        if matters
            .iter()
            .any(|kind| memmem::find(text.as_bytes(), kind.as_bytes()).is_some())
            && let Ok(told) = serde_json::from_str::<Told<'_>>(&text)
        {
            match &*told.kind {
                "response.output_item.done" => {
                    made.extend(told.item.map(|item| item.get().to_owned()));
                }
                "response.completed" => {
                    self.history.append(made);
                    self.last = told.response.and_then(|response| response.id);
                }
                _ => {}
            }
        }
        say(sink, text).await
    }
}

/// What an agent says in the middle of a turn: nothing but that it leaves.
async fn listening<S>(
    sink: &mut Sink<S>,
    said: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
) -> Result<(), Over>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match said {
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
        Some(Ok(Message::Text(_) | Message::Binary(_))) => {
            let close = CloseFrame {
                code: CloseCode::Policy,
                reason: "one request at a time".into(),
            };
            let _ = sink.send(Message::Close(Some(close))).await;
            Err(Over)
        }
        _ => Err(Over),
    }
}

/// An answer that is no stream, as a frame: an error, which Codex goes by the status of.
async fn whole<S>(
    sink: &mut Sink<S>,
    status: StatusCode,
    headers: &HeaderMap,
    mut flow: Flow,
) -> Result<(), Over>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut all = BytesMut::new();
    while let Some(Ok(bytes)) = flow.piece().await {
        if all.len() < MAX_ERROR {
            all.extend_from_slice(&bytes);
        }
    }
    let told: Value = serde_json::from_slice(&all).unwrap_or_default();
    let error = match &told["error"] {
        Value::Object(error) => Value::Object(error.clone()),
        _ => json!({"code": "upstream_failed", "message": "the upstream gave no stream of events"}),
    };
    // A whole answer with 200 is nothing that Codex would understand here.
    let status = if status.is_success() { 502 } else { status.as_u16() };
    let mut frame = json!({"type": "error", "status": status, "error": error});
    if let Some(wait) = headers.get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()) {
        frame["headers"] = json!({"retry-after": wait});
    }
    say(sink, frame.to_string()).await
}

async fn refuse<S>(sink: &mut Sink<S>, status: u16, code: &str, message: &str) -> Result<(), Over>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let frame = json!({"type": "error", "status": status, "error": {"code": code, "message": message}});
    say(sink, frame.to_string()).await
}

async fn say<S>(sink: &mut Sink<S>, text: String) -> Result<(), Over>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    sink.send(Message::text(text)).await.map_err(|_| Over)
}
