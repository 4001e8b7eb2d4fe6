//! Server-sent events.

use super::State;
use super::body::{self, Body};
use super::feed::{self, FeedRequest, Item};
use crate::command::gateway::Gateway;
use arp_sessions::Follower;
use arp_sessions::log::Large;
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
/// A large entry is sent in pieces of this many bytes.
const PIECE: usize = 32 * 1024;

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
pub(crate) fn session(
    state: &State,
    follower: Follower,
    request: FeedRequest,
    status: StatusCode,
) -> Response<Body> {
    let (out, response) = response(status);
    let gateway = state.gateway.clone();
    let news = gateway.as_ref().map(|gateway| gateway.watch());
    let items = feed::start(follower, request, news);
    tokio::spawn(run(items, out, request, gateway));
    response
}

async fn run(
    mut items: mpsc::Receiver<Item>,
    out: mpsc::Sender<Bytes>,
    request: FeedRequest,
    gateway: Option<Arc<Gateway>>,
) {
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
                let session = super::gateway::joined_by(gateway.as_deref(), &view);
                write_json(
                    &mut bytes,
                    Some("session"),
                    &json!({"type": "session", "session": session}),
                );
            }
            Item::Entries(entries) => {
                for entry in entries {
                    match entry.large.clone() {
                        None if raw => write(&mut bytes, None, Some(entry.number), &entry.text),
                        None => write(&mut bytes, None, Some(entry.number), &entry.event_json()),
                        Some(large) => {
                            let before = std::mem::take(&mut bytes);
                            if pieces(before, &entry, large, raw, &out).await.is_none() {
                                return;
                            }
                        }
                    }
                }
            }
            Item::Gateway(news) => write_json(&mut bytes, Some(news.name), &news.data),
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

/// Sends a large entry in pieces, after what was written before it. `None`: the reader is gone, or the disk says no.
async fn pieces(
    mut bytes: Vec<u8>,
    entry: &Entry,
    large: Large,
    raw: bool,
    out: &mpsc::Sender<Bytes>,
) -> Option<()> {
    bytes.extend_from_slice(format!("id: {}\ndata: ", entry.number).as_bytes());
    let mut from = 0;
    if !raw {
        // The event's own brace is ours.
        bytes.extend_from_slice(entry.event_head().as_bytes());
        bytes.push(b',');
        from = 1;
    }
    let mut rest = Vec::new();
    while from < large.len() {
        let piece = {
            let large = large.clone();
            tokio::task::spawn_blocking(move || large.piece(from, PIECE)).await
        };
        let piece = match piece {
            Ok(Ok(piece)) if !piece.is_empty() => piece,
            Ok(Err(error)) => {
                tracing::error!(%error, "a stream ends early");
                return None;
            }
            _ => return None,
        };
        from += piece.len();
        rest.extend_from_slice(&piece);
        append_text(&mut bytes, &mut rest, from >= large.len());
        out.send(Bytes::from(std::mem::take(&mut bytes))).await.ok()?;
    }
    out.send(Bytes::from_static(b"\n\n")).await.ok()
}

/// Appends what is whole of a text that comes in pieces, as [`write`] would; a character that was cut stays in `rest`.
fn append_text(out: &mut Vec<u8>, rest: &mut Vec<u8>, last: bool) {
    let cut = if last { 0 } else { cut_character(rest) };
    let whole = rest.len() - cut;
    for character in String::from_utf8_lossy(&rest[..whole]).split_inclusive(['\n', '\r']) {
        match character.strip_suffix(['\n', '\r']) {
            Some(line) => {
                out.extend_from_slice(line.as_bytes());
                out.extend_from_slice(b"\ndata: ");
            }
            None => out.extend_from_slice(character.as_bytes()),
        }
    }
    rest.drain(..whole);
}

/// Bytes at the end that are the beginning of a character.
fn cut_character(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let needs = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if needs > back { back } else { 0 };
    }
    0
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

    #[test]
    fn a_text_in_pieces_is_the_same_as_in_one() {
        let text = "größe\r€uro 😀 end\u{fffd}";
        let mut whole = Vec::new();
        super::write(&mut whole, None, Some(1), text);
        for size in 1..text.len() {
            let (mut out, mut rest) = (b"id: 1\ndata: ".to_vec(), Vec::new());
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            for (number, piece) in pieces.iter().enumerate() {
                rest.extend_from_slice(piece);
                super::append_text(&mut out, &mut rest, number + 1 == pieces.len());
            }
            out.extend_from_slice(b"\n\n");
            assert_eq!(
                String::from_utf8(out).unwrap(),
                String::from_utf8(whole.clone()).unwrap(),
                "{size}"
            );
        }
    }
}
