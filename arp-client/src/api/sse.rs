//! Server-sent events.

use super::body::{self, Body};
use super::feed::{self, FeedRequest, Item};
use arp_sessions::Follower;
use arp_sessions::model::SessionView;
use arp_sessions::read::{Entry, Sequence};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A comment keeps the line open this often.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(15);
const PING: &[u8] = b": ping\n\n";

/// An SSE answer and where its content is written to.
pub(crate) fn response(status: StatusCode) -> (mpsc::Sender<Bytes>, Response<Body>) {
    let (sender, body) = body::stream();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // nginx buffers answers unless it is told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    (sender, response)
}

/// One event. Line breaks in the data become several `data:` lines, which the reader joins again.
pub(crate) fn write(out: &mut Vec<u8>, name: Option<&str>, id: Option<u64>, data: &str) {
    if let Some(name) = name {
        out.extend_from_slice(format!("event: {name}\n").as_bytes());
    }
    if let Some(id) = id {
        out.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    for line in data.split(['\n', '\r']) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// One event whose data is JSON.
pub(crate) fn write_json(out: &mut Vec<u8>, name: Option<&str>, data: &impl Serialize) {
    match serde_json::to_string(data) {
        Ok(data) => write(out, name, None, &data),
        Err(error) => tracing::error!(%error, "cannot write an event"),
    }
}

/// Sends from this sender whatever comes, and a comment when nothing does. `false`: the reader is gone.
pub(crate) async fn keep_open<T>(items: &mut mpsc::Receiver<T>, out: &mpsc::Sender<Bytes>) -> Option<T> {
    loop {
        match tokio::time::timeout(PING_EVERY, items.recv()).await {
            Ok(item) => return item,
            Err(_) => out.send(Bytes::from_static(PING)).await.ok()?,
        }
    }
}

/// The stream of one session.
pub(crate) fn session(follower: Follower, request: FeedRequest, status: StatusCode) -> Response<Body> {
    let (out, response) = response(status);
    let items = feed::start(follower, request);
    tokio::spawn(run(items, out, request));
    response
}

async fn run(mut items: mpsc::Receiver<Item>, out: mpsc::Sender<Bytes>, request: FeedRequest) {
    let raw = request.sequence == Sequence::Lines;
    let mut first = true;
    let mut told = None;
    while let Some(item) = keep_open(&mut items, &out).await {
        let mut bytes = Vec::new();
        match item {
            Item::Session(view) if raw => {
                status(&mut bytes, &view, &mut told);
                if std::mem::take(&mut first) {
                    for approval in &view.approvals {
                        write_json(
                            &mut bytes,
                            Some("approval"),
                            &json!({"type": "approval", "approval": approval}),
                        );
                    }
                }
            }
            Item::Session(view) => {
                write_json(
                    &mut bytes,
                    Some("session"),
                    &json!({"type": "session", "session": view}),
                );
            }
            Item::Entries(entries) => write_entries(&mut bytes, &entries, raw),
            Item::Approval(event) => approval(&mut bytes, &event),
            Item::CaughtUp(seq) if !raw => {
                write_json(
                    &mut bytes,
                    Some("caught_up"),
                    &json!({"type": "caught_up", "seq": seq}),
                );
            }
            Item::CaughtUp(_) => continue,
            Item::Completion(completion) => write_json(&mut bytes, None, &completion),
            Item::Removed => write_json(&mut bytes, Some("removed"), &json!({"type": "removed"})),
            Item::Failed(error) => {
                tracing::error!(%error, "a stream ends early");
                return;
            }
        }
        if !bytes.is_empty() && out.send(bytes.into()).await.is_err() {
            return;
        }
    }
}

fn status(out: &mut Vec<u8>, view: &Arc<SessionView>, told: &mut Option<arp_sessions::model::Status>) {
    if told.replace(view.status) == Some(view.status) {
        return;
    }
    let data = json!({
        "type": "status",
        "session_id": view.id,
        "status": view.status,
        "error": view.error,
    });
    write_json(out, Some("status"), &data);
}

fn write_entries(out: &mut Vec<u8>, entries: &[Entry], raw: bool) {
    for entry in entries {
        if raw {
            write(out, None, Some(entry.number), &entry.text);
        } else {
            write(out, None, Some(entry.number), &entry.event_json());
        }
    }
}

/// An approval event in a stream of lines.
fn approval(out: &mut Vec<u8>, event: &str) {
    let Ok(event) = serde_json::from_str::<serde_json::Value>(event) else {
        return;
    };
    if event["type"] == "approval" {
        write_json(
            out,
            Some("approval"),
            &json!({"type": "approval", "approval": event}),
        );
    } else {
        write_json(out, Some("approval_resolved"), &event);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn data_with_line_breaks_stays_one_event() {
        let mut out = Vec::new();
        super::write(&mut out, Some("x"), Some(3), "a\rb\nc");
        assert_eq!(out, b"event: x\nid: 3\ndata: a\ndata: b\ndata: c\n\n");
    }
}
