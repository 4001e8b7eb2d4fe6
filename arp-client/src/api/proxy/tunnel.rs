//! `POST /proxy`: one request becomes a raw TCP connection to an allowed port, for what does not speak HTTP.

use super::{check_port, connect, splice};
use crate::api::error::ApiError;
use crate::api::request::Call;
use crate::api::{Answer, State, body, guard};
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::sync::Arc;

/// What is spoken after the upgrade: whatever the service speaks.
const PROTOCOL: &str = "tcp";

#[derive(Deserialize)]
struct Target {
    port: u16,
    #[serde(default)]
    host: Option<String>,
}

/// Opens the connection, answers 101, and carries bytes from then on.
pub(in crate::api) async fn open(state: &Arc<State>, mut call: Call) -> Answer {
    let target: Target = call.json().await?;
    let host = target.host.as_deref().unwrap_or("localhost");
    if !guard::is_loopback(host) && host != "::1" {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "host_not_allowed",
            "only services of this machine are reached this way; leave \"host\" out",
        ));
    }
    let port = target.port;
    check_port(state, port)?;
    let wanted = call.header(UPGRADE.as_str()).unwrap_or_default();
    if !guard::wants_upgrade(&call.head) || !wanted.eq_ignore_ascii_case(PROTOCOL) {
        let mut refusal = ApiError::new(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_required",
            format!(
                "this becomes a raw TCP connection: send Connection: Upgrade and Upgrade: tcp; a web service is \
                 reached at /proxy/{port}/ without that"
            ),
        );
        refusal.set_header(UPGRADE, HeaderValue::from_static(PROTOCOL));
        return Err(refusal);
    }
    let service = connect(port).await?;
    let visitor = hyper::upgrade::on(Request::from_parts(call.head, call.body));
    let stop = state.stop.clone();
    tokio::spawn(async move {
        match visitor.await {
            Ok(visitor) => splice(TokioIo::new(visitor), service, stop).await,
            Err(error) => tracing::debug!(%error, "a raw connection did not come about"),
        }
    });
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    Ok(response)
}
