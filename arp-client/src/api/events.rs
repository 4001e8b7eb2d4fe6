//! `/api/events`: what happens to all sessions and approvals, for an inbox.

use super::body::Body;
use super::request::Call;
use super::{Answer, State, sse, ws};
use crate::command::gateway::News;
use arp_sessions::BusEvent;
use arp_sessions::store::Filter;
use arp_tunnels::Snapshot;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};

/// Ended sessions in a snapshot.
const NEWEST: u64 = 100;
/// Events that wait for a slow reader before it gets a new snapshot.
const WAITING: usize = 16;

/// One event: its name and its object.
pub(super) type Named = (&'static str, Value);

/// SSE.
pub(super) fn stream(state: &Arc<State>) -> Answer {
    let (out, response): (_, Response<Body>) = sse::response(StatusCode::OK);
    let mut events = start(state);
    tokio::spawn(async move {
        while let Some((name, event)) = sse::keep_open(&mut events, &out).await {
            let mut bytes = Vec::new();
            sse::write_json(&mut bytes, Some(name), &event);
            if out.send(Bytes::from(bytes)).await.is_err() {
                return;
            }
        }
    });
    Ok(response)
}

/// The same over a WebSocket.
pub(super) fn websocket(state: &Arc<State>, call: Call) -> Answer {
    let events = start(state);
    let stop = state.stop.clone();
    ws::upgrade(call, move |socket| ws::inbox(socket, events, stop))
}

/// Starts the sequence of events. It stops when its reader does.
fn start(state: &Arc<State>) -> mpsc::Receiver<Named> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let state = Arc::clone(state);
    tokio::spawn(async move {
        let stop = state.stop.clone();
        stop.run_until_cancelled(run(&state, sender)).await;
    });
    receiver
}

async fn run(state: &Arc<State>, sender: mpsc::Sender<Named>) {
    loop {
        // First the subscription, then the snapshot: nothing falls between them.
        let mut bus = state.sessions.subscribe();
        let mut tunnel = state.tunnel.get().cloned();
        let mut gateway = state.gateway.as_ref().map(|gateway| gateway.watch());
        let snapshot = match snapshot(state) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::error!(error = error.message, "no snapshot of the sessions");
                return;
            }
        };
        if sender.send(("snapshot", snapshot)).await.is_err() {
            return;
        }
        loop {
            let event = tokio::select! {
                event = bus.recv() => event,
                () = sender.closed() => return,
                news = of_gateway(&mut gateway) => {
                    if sender.send((news.name, news.data.clone())).await.is_err() {
                        return;
                    }
                    continue;
                }
                news = news_of(&mut tunnel) => {
                    let event = ("tunnel", json!({"type": "tunnel", "tunnel": news}));
                    if sender.send(event).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            match event {
                Ok(event) => {
                    if sender.send(named(state, &event)).await.is_err() {
                        return;
                    }
                }
                // Too far behind: begin anew.
                Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// The next that the gateway says of any session. What a slow reader missed it reads with the session.
pub(super) async fn of_gateway(gateway: &mut Option<broadcast::Receiver<Arc<News>>>) -> Arc<News> {
    while let Some(news) = gateway {
        match news.recv().await {
            Ok(news) => return news,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => *gateway = None,
        }
    }
    std::future::pending().await
}

/// Waits until the tunnel, if there is one, stands otherwise.
async fn news_of(tunnel: &mut Option<watch::Receiver<Snapshot>>) -> Value {
    let Some(view) = tunnel else {
        return std::future::pending().await;
    };
    if view.changed().await.is_err() {
        *tunnel = None;
        return std::future::pending().await;
    }
    crate::tunnel::report::public(&view.borrow_and_update())
}

fn named(state: &State, event: &BusEvent) -> Named {
    match event {
        BusEvent::Session(session) => {
            let session = super::gateway::joined(state, session);
            ("session", json!({"type": "session", "session": session}))
        }
        BusEvent::Removed(id) => (
            "session_removed",
            json!({"type": "session_removed", "session_id": id}),
        ),
        BusEvent::Approval(approval) => ("approval", json!({"type": "approval", "approval": approval})),
        BusEvent::Resolved(resolution) => ("approval_resolved", super::approvals::resolved_json(resolution)),
    }
}

fn snapshot(state: &Arc<State>) -> Result<Value, super::ApiError> {
    use arp_sessions::model::Status;
    let live = Status::ALL
        .into_iter()
        .filter(|status| status.is_live())
        .collect();
    let (mut sessions, _) = state.sessions.list(&Filter {
        status: live,
        limit: u64::MAX,
        ..Filter::default()
    })?;
    let (newest, total) = state.sessions.list(&Filter {
        limit: NEWEST,
        ..Filter::default()
    })?;
    for session in newest {
        if sessions.iter().all(|known| known.id != session.id) {
            sessions.push(session);
        }
    }
    sessions.sort_by_key(|session| std::cmp::Reverse(session.updated_at));
    let approvals = state.sessions.approvals(None);
    let sessions: Vec<Value> = sessions
        .iter()
        .map(|session| super::gateway::joined(state, session))
        .collect();
    Ok(json!({"type": "snapshot", "sessions": sessions, "approvals": approvals, "total": total}))
}
