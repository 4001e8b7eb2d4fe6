//! `/api/gateway/events`: what goes on, as it happens.

use super::Api;
use crate::forward::body::{Body, Owner};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

/// A comment says in silence that the line is alive.
const ALIVE: Duration = Duration::from_secs(15);
/// Events that wait for a slow reader.
const WAITING: usize = 16;

pub(super) fn stream(api: &Arc<Api>) -> Response<Body> {
    let (pieces, body) = mpsc::channel(WAITING);
    let activity = api.gateway.activity().clone();
    // First the line, then the state: nothing falls between them.
    let mut events = activity.watch();
    let task = tokio::spawn(async move {
        let written =
            |name: &str, data: &serde_json::Value| Bytes::from(format!("event: {name}\ndata: {data}\n\n"));
        let mut all: Vec<Bytes> = vec![Bytes::from_static(b": gateway\n\n")];
        all.extend(
            activity
                .live()
                .iter()
                .map(|live| written("live", &live.to_json())),
        );
        loop {
            for piece in all.drain(..) {
                if pieces.send(Ok(piece)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => all.push(written(event.name, &event.data)),
                    // Too far behind: what is shown is to be asked for again.
                    Err(RecvError::Lagged(_)) => all.push(written("upstreams", &serde_json::json!({}))),
                    Err(RecvError::Closed) => return,
                },
                () = tokio::time::sleep(ALIVE) => all.push(Bytes::from_static(b": alive\n\n")),
                () = pieces.closed() => return,
            }
        }
    });
    let mut response = Response::new(Body::Stream(body, Owner(task.abort_handle())));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
