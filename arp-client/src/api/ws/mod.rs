//! WebSockets: a session's feed out, messages, interrupts and decisions in.

mod deflate;
mod inflate;
mod socket;

use super::approvals::resolved_json;
use super::error::ApiError;
use super::events::Named;
use super::feed::{self, Item, Until};
use super::input::{self, ChangeBody, DecisionBody, InterruptBody, MessageBody, RetryBody, frame_as};
use super::request::Call;
use super::sessions::accepted_json;
use super::{Answer, State, sse};
use arp_sessions::clock::rfc3339;
use arp_sessions::read::{Sequence, Start};
use http::StatusCode;
use serde_json::{Map, Value, json};
use socket::Socket;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;

pub(super) use socket::upgrade;

/// After the end of its session a socket stays open this long for a message that resumes it.
const STAY: Duration = Duration::from_secs(60);
/// Answers that wait for a slow reader.
const REPLIES: usize = 16;

/// `GET /api/sessions/{id}/ws`.
pub(super) fn session(state: &Arc<State>, call: Call) -> Answer {
    let view = state.sessions.get(call.param("id"))?;
    let sequence = match call.query.get("format") {
        // Over a WebSocket events are what is meant.
        None | Some("") => Sequence::Events,
        Some(_) => input::sequence(&call)?,
    };
    let request = input::stream(&call, sequence, &view, Start::At(1), Until::Removed)?;
    let request = feed::FeedRequest {
        until: Until::Removed,
        ..request
    };
    let items = feed::start(
        state.sessions.follow(&view.id)?,
        request,
        state.gateway.as_ref().map(|gateway| gateway.watch()),
    );
    let state = Arc::clone(state);
    let id = view.id.clone();
    upgrade(call, move |socket| {
        Conversation { state, id, sequence }.run(socket, items)
    })
}

struct Conversation {
    state: Arc<State>,
    id: String,
    sequence: Sequence,
}

/// Why a conversation ends.
enum Over {
    /// The other side is gone.
    Gone,
    /// We close it.
    Close,
}

impl From<WsError> for Over {
    fn from(_: WsError) -> Self {
        Self::Gone
    }
}

impl Conversation {
    async fn run(self, mut socket: Socket, mut items: mpsc::Receiver<Item>) {
        let (replies, mut answered) = mpsc::channel::<Value>(REPLIES);
        // Requests of one client are carried out one after the other, and do not hold up its feed.
        let (requests, asked) = mpsc::channel::<Map<String, Value>>(REPLIES);
        let conversation = Arc::new(self);
        let worker = tokio::spawn(Arc::clone(&conversation).work(asked, replies));
        let mut leave_at = None;
        let mut ping = tokio::time::interval(sse::PING_EVERY);
        ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ping.tick().await;
        loop {
            let leave = async {
                match leave_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let step = tokio::select! {
                item = items.recv() => match item {
                    Some(item) => conversation.item(&mut socket, item, &mut leave_at).await,
                    None => Err(Over::Close),
                },
                Some(reply) = answered.recv() => send(&mut socket, &reply).await,
                message = socket.next() => conversation.message(&mut socket, message, &requests).await,
                _ = ping.tick() => socket.ping().await.map_err(Over::from),
                () = leave => Err(Over::Close),
                () = conversation.state.stop.cancelled() => Err(Over::Close),
            };
            match step {
                Ok(()) => {}
                Err(Over::Gone) => break,
                Err(Over::Close) => {
                    socket.close().await;
                    break;
                }
            }
        }
        worker.abort();
    }

    async fn item(
        &self,
        socket: &mut Socket,
        item: Item,
        leave_at: &mut Option<tokio::time::Instant>,
    ) -> Result<(), Over> {
        match item {
            Item::Session(view) => {
                if view.status.is_live() {
                    *leave_at = None;
                }
                let session = super::gateway::joined(&self.state, &view);
                send(socket, &json!({"type": "session", "session": session})).await
            }
            Item::Entries(entries) => {
                for entry in entries {
                    // A frame is one piece; it is read when it is sent.
                    let loaded = if entry.large.is_some() {
                        tokio::task::spawn_blocking(move || entry.loaded()).await
                    } else {
                        Ok(Ok(entry))
                    };
                    let entry = match loaded {
                        Ok(Ok(entry)) => entry,
                        Ok(Err(error)) => {
                            tracing::error!(%error, "a feed ends early");
                            return Err(Over::Close);
                        }
                        Err(_) => return Err(Over::Close),
                    };
                    let text = match self.sequence {
                        Sequence::Events => {
                            format!("{{\"type\":\"event\",\"event\":{}}}", entry.event_json())
                        }
                        Sequence::Lines => {
                            let at = rfc3339(entry.time_ms);
                            json!({"type": "line", "line": entry.number, "at": at, "data": entry.text})
                                .to_string()
                        }
                    };
                    socket.feed(text).await?;
                }
                Ok(socket.flush().await?)
            }
            Item::Gateway(news) => send(socket, &news.data).await,
            Item::Approval(event) => {
                let event: Value = serde_json::from_str(&event).unwrap_or_default();
                let frame = if event["type"] == "approval" {
                    json!({"type": "approval", "approval": event})
                } else {
                    event
                };
                send(socket, &frame).await
            }
            Item::CaughtUp(seq) => send(socket, &json!({"type": "caught_up", "seq": seq})).await,
            Item::Completion(completion) => {
                *leave_at = Some(tokio::time::Instant::now() + STAY);
                send(socket, &completion).await
            }
            Item::Removed => {
                send(socket, &json!({"type": "removed"})).await?;
                Err(Over::Close)
            }
            Item::Failed(error) => {
                tracing::error!(%error, "a feed ends early");
                Err(Over::Close)
            }
        }
    }

    async fn message(
        &self,
        socket: &mut Socket,
        message: Option<Result<Message, WsError>>,
        requests: &mpsc::Sender<Map<String, Value>>,
    ) -> Result<(), Over> {
        let text = match message {
            None | Some(Err(_)) | Some(Ok(Message::Close(_))) => return Err(Over::Gone),
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Binary(_))) => {
                return send(socket, &bad_frame(None, "frames are JSON in text, not binary")).await;
            }
            Some(Ok(_)) => return Ok(()),
        };
        let Ok(Value::Object(frame)) = serde_json::from_str(&text) else {
            return send(
                socket,
                &bad_frame(None, "a frame is a JSON object with a \"type\""),
            )
            .await;
        };
        if frame.get("type").and_then(Value::as_str) == Some("ping") {
            return send(socket, &json!({"type": "pong"})).await;
        }
        let id = frame.get("id").cloned();
        match requests.try_send(frame) {
            Ok(()) => Ok(()),
            Err(_) => {
                let why = "too many requests at once; wait for the replies";
                send(
                    socket,
                    &refusal(
                        id,
                        &ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", why),
                    ),
                )
                .await
            }
        }
    }

    async fn work(
        self: Arc<Self>,
        mut asked: mpsc::Receiver<Map<String, Value>>,
        replies: mpsc::Sender<Value>,
    ) {
        while let Some(mut frame) = asked.recv().await {
            let id = frame.remove("id");
            let reply = match self.carry_out(frame).await {
                Ok(result) => with_id(json!({"type": "reply", "ok": true, "result": result}), id),
                Err(error) => refusal(id, &error),
            };
            if replies.send(reply).await.is_err() {
                return;
            }
        }
    }

    async fn carry_out(&self, mut frame: Map<String, Value>) -> Result<Value, ApiError> {
        let (sessions, id) = (&self.state.sessions, &self.id);
        let kind = frame.remove("type");
        match kind.as_ref().and_then(Value::as_str).unwrap_or_default() {
            "message" => {
                let body: MessageBody = frame_as(frame)?;
                let interrupt = body.interrupt;
                let (text, client_id) = body.parts()?;
                let accepted = sessions.message(id, text, client_id, interrupt).await?;
                Ok(accepted_json(id, &accepted))
            }
            "unqueue" => {
                let message = frame.get("message_id").or_else(|| frame.get("messageId"));
                let message = message.and_then(Value::as_str).unwrap_or_default();
                sessions.unqueue(id, message).await?;
                Ok(json!({"type": "message_removed", "session_id": id, "message_id": message}))
            }
            "retry" => {
                let body: RetryBody = frame_as(frame)?;
                Ok(accepted_json(id, &sessions.retry(id, body.id()?).await?))
            }
            "interrupt" => {
                let body: InterruptBody = frame_as(frame)?;
                let was_running = sessions.interrupt(id, body.clear_queue).await?;
                Ok(json!({"type": "session_interrupted", "session_id": id, "was_running": was_running}))
            }
            "decide" => {
                let approval = frame.remove("approval_id").or_else(|| frame.remove("approvalId"));
                let body: DecisionBody = frame_as(frame)?;
                let approval = approval.as_ref().and_then(Value::as_str).unwrap_or_default();
                Ok(resolved_json(
                    &sessions.decide(approval, body.into_decision()?).await?,
                ))
            }
            "set" => {
                let body: ChangeBody = frame_as(frame)?;
                let session = sessions.set(id, body.into_change()?).await?;
                let session = super::gateway::joined(&self.state, &session);
                Ok(json!({"type": "session", "session_id": id, "session": session}))
            }
            "cancel" => {
                let session = sessions.cancel(id).await?;
                let session = super::gateway::joined(&self.state, &session);
                Ok(json!({"type": "session_cancelled", "session_id": id, "session": session}))
            }
            other => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "bad_frame",
                format!("there is no frame of type {other:?}; docs/api.md lists them"),
            )),
        }
    }
}

/// `GET /api/events/ws`: events out, nothing but pings in.
pub(super) async fn inbox(mut socket: Socket, mut events: mpsc::Receiver<Named>, stop: CancellationToken) {
    let mut ping = tokio::time::interval(sse::PING_EVERY);
    ping.tick().await;
    loop {
        let step = tokio::select! {
            event = events.recv() => match event {
                Some((_, event)) => send(&mut socket, &event).await,
                None => Err(Over::Close),
            },
            message = socket.next() => match message {
                None | Some(Err(_)) | Some(Ok(Message::Close(_))) => Err(Over::Gone),
                Some(Ok(Message::Text(text))) => match serde_json::from_str::<Value>(&text) {
                    Ok(frame) if frame["type"] == "ping" => send(&mut socket, &json!({"type": "pong"})).await,
                    _ => send(&mut socket, &bad_frame(None, "this socket takes only pings")).await,
                },
                Some(Ok(_)) => Ok(()),
            },
            _ = ping.tick() => socket.ping().await.map_err(Over::from),
            () = stop.cancelled() => Err(Over::Close),
        };
        match step {
            Ok(()) => {}
            Err(Over::Gone) => return,
            Err(Over::Close) => return socket.close().await,
        }
    }
}

async fn send(socket: &mut Socket, frame: &Value) -> Result<(), Over> {
    Ok(socket.send(frame.to_string()).await?)
}

fn with_id(mut frame: Value, id: Option<Value>) -> Value {
    if let Some(id) = id {
        frame["id"] = id;
    }
    frame
}

fn refusal(id: Option<Value>, error: &ApiError) -> Value {
    let frame = json!({
        "type": "reply", "ok": false, "status": error.status.as_u16(), "code": error.code, "message": error.message,
    });
    with_id(frame, id)
}

fn bad_frame(id: Option<Value>, why: &str) -> Value {
    refusal(id, &ApiError::new(StatusCode::BAD_REQUEST, "bad_frame", why))
}
