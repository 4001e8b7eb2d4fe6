//! CLP's `/ws/realtime` on the ports of the services: requests as they come and go.

use crate::activity::{Activity, Event, Live};
use crate::forward::body::Body;
use crate::forward::socket::switching;
use crate::service::Service;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{HeaderValue, SEC_WEBSOCKET_KEY};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

/// As CLP says it.
const PING: Duration = Duration::from_secs(30);
/// Nothing that a watcher says is of interest.
const MAX_MESSAGE: usize = 4096;

/// Answers the upgrade and serves the socket until its watcher leaves, or `stop`.
pub fn serve(
    service: Service,
    activity: Activity,
    mut request: Request<Incoming>,
    stop: CancellationToken,
) -> Response<Body> {
    let key = request
        .headers()
        .get(SEC_WEBSOCKET_KEY)
        .map(|key| derive_accept_key(key.as_bytes()));
    let Some(accept) = key.and_then(|key| HeaderValue::from_str(&key).ok()) else {
        let mut response = Response::new(Body::Whole(Bytes::from_static(
            b"{\"error\":\"a WebSocket is served here\"}",
        )));
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut config = WebSocketConfig::default();
        config.max_message_size = Some(MAX_MESSAGE);
        config.max_frame_size = Some(MAX_MESSAGE);
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        stop.run_until_cancelled(watch(service, &activity, socket)).await;
    });
    switching(accept)
}

async fn watch<S>(service: Service, activity: &Activity, mut socket: WebSocketStream<S>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut events = activity.watch();
    let mut known = HashSet::new();
    let mut all: Vec<Value> = activity
        .live()
        .iter()
        .filter(|live| live.service == service)
        .map(|live| {
            known.insert(live.id);
            clp(&live.to_json())
        })
        .collect();
    let mut out = vec![json!({"type": "snapshot", "requests": std::mem::take(&mut all)})];
    loop {
        for message in out.drain(..) {
            if socket.send(Message::text(message.to_string())).await.is_err() {
                return;
            }
        }
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => out.extend(translate(service, &mut known, &event)),
                Err(RecvError::Lagged(_)) => {
                    let live: Vec<Live> = activity.live().into_iter().filter(|live| live.service == service).collect();
                    known = live.iter().map(|live| live.id).collect();
                    let live: Vec<Value> = live.iter().map(|live| clp(&live.to_json())).collect();
                    out.push(json!({"type": "snapshot", "requests": live}));
                }
                Err(RecvError::Closed) => return,
            },
            said = socket.next() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            () = tokio::time::sleep(PING) => out.push(json!({"type": "ping"})),
        }
    }
}

/// CLP's words for an event of ours, if it has any.
fn translate(service: Service, known: &mut HashSet<u64>, event: &Event) -> Option<Value> {
    let id = event.id?;
    if event.data["service"] != service.name() {
        return None;
    }
    let request = clp(&event.data);
    match event.name {
        "live" if known.insert(id) => {
            Some(json!({"type": "started", "request_id": id.to_string(), "request": request}))
        }
        "live" => Some(json!({
            "type": "progress", "request_id": id.to_string(), "status": request["status"],
            "duration_ms": request["duration_ms"], "request": request,
        })),
        "request" => {
            known.remove(&id);
            let good = event.data["error"].is_null()
                && event.data["status"]
                    .as_u64()
                    .is_some_and(|s| (200..400).contains(&s));
            let (kind, status) = if good {
                ("completed", "COMPLETED")
            } else {
                ("failed", "FAILED")
            };
            let mut request = request;
            request["status"] = status.into();
            Some(json!({
                "type": kind, "request_id": id.to_string(), "status": status, "status_code": event.data["status"],
                "duration_ms": event.data["millis"], "error": event.data["error"], "request": request,
            }))
        }
        _ => None,
    }
}

fn clp(data: &Value) -> Value {
    let (method, path) = data["path"]
        .as_str()
        .and_then(|p| p.split_once(' '))
        .unwrap_or(("", ""));
    json!({
        "request_id": data["id"].to_string(), "service": data["service"], "channel": data["upstream"], "method": method,
        "path": path, "start_time": data["at"], "duration_ms": data["millis"],
        "status": if data["phase"] == "streaming" { "STREAMING" } else { "PENDING" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_clps_words() {
        let mut known = HashSet::new();
        let event = |name, data| Event {
            name,
            data,
            id: Some(7),
        };
        let live = json!({"id": 7, "service": "claude", "path": "POST /v1/messages", "phase": "asking", "upstream": "a"});
        let told = translate(Service::Claude, &mut known, &event("live", live.clone())).unwrap();
        assert_eq!(
            (told["type"].as_str(), told["request"]["status"].as_str()),
            (Some("started"), Some("PENDING"))
        );
        assert_eq!(told["request"]["channel"], "a");
        assert!(translate(Service::Codex, &mut known, &event("live", live.clone())).is_none());
        assert_eq!(
            translate(Service::Claude, &mut known, &event("live", live)).unwrap()["type"],
            "progress"
        );
        let over = json!({"id": 7, "service": "claude", "path": "POST /x", "status": 500, "error": "x"});
        let told = translate(Service::Claude, &mut known, &event("request", over)).unwrap();
        assert_eq!(
            (told["type"].as_str(), told["request_id"].as_str()),
            (Some("failed"), Some("7"))
        );
        assert!(known.is_empty());
    }
}
