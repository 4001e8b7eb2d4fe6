//! What the page asks any machine that it is loaded from: here there are no agents and no sessions, only the gateway.

use super::{Answer, Api, ok};
use crate::forward::body::{Body, Owner};
use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A comment says that the line is alive.
const ALIVE: Duration = Duration::from_secs(15);

pub(super) fn health(api: &Arc<Api>) -> Answer {
    ok(&json!({"type": "health", "status": "ok", "version": api.running.version, "live_sessions": 0}))
}

pub(super) fn info(api: &Arc<Api>) -> Answer {
    ok(&json!({
        "type": "info", "version": api.running.version, "host_name": null, "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH, "edge_id": "gateway", "client_id": null, "home_dir": null, "agents": [],
        "fs_enabled": false, "mcp_enabled": false, "allow_bypass": false, "edge_key_required": false,
        "proxy_ports": [], "tunnel": null, "gateway": true, "gateway_only": true,
        "defaults": {"executor": null, "project_path": null, "permission_mode": "default"},
        "limits": {"max_live_sessions": 0, "max_body_bytes": 0, "approval_timeout_secs": null, "park_after_secs": null},
    }))
}

/// Nothing happens to sessions where there are none; the line stays open all the same, so that the page counts the
/// machine as there.
pub(super) fn events() -> Response<Body> {
    let (pieces, body) = mpsc::channel(1);
    let task = tokio::spawn(async move {
        let snapshot = json!({"type": "snapshot", "sessions": [], "approvals": [], "total": 0});
        let mut next = Bytes::from(format!("event: snapshot\ndata: {snapshot}\n\n"));
        while pieces.send(Ok(next)).await.is_ok() {
            next = Bytes::from_static(b": alive\n\n");
            tokio::select! {
                () = tokio::time::sleep(ALIVE) => {}
                () = pieces.closed() => return,
            }
        }
    });
    let mut response = Response::new(Body::Stream(body, Owner(task.abort_handle())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
