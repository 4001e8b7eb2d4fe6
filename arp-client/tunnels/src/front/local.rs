//! From the front to a local port.

use super::{Body, Inner};
use crate::defaults as d;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::time::Duration;

/// Idle connections to the local service are kept this long; many close theirs after 5 s.
const KEEP: Duration = Duration::from_secs(4);

/// Connections to the local service.
pub(super) struct Local {
    client: Client<HttpConnector, Body>,
}

impl Local {
    pub(super) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(d::LOCAL_DIAL));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEEP)
            .set_host(false)
            .build(connector);
        Self { client }
    }

    /// Sends a request on. The error says what the service did.
    pub(super) async fn forward(
        &self,
        host: &str,
        port: u16,
        mut request: Request<Incoming>,
        inner: &Inner,
    ) -> Result<Response<Body>, String> {
        let switching = wants_switch(request.headers());
        let outer = switching.then(|| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        let path = head
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        if !head.headers.contains_key(HOST)
            && let Some(host) = head
                .uri
                .authority()
                .and_then(|it| HeaderValue::from_str(it.as_str()).ok())
        {
            head.headers.insert(HOST, host);
        }
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        head.uri = format!("http://{host}:{port}{path}")
            .parse::<Uri>()
            .map_err(|error| format!("has no address that can be asked: {error}"))?;
        head.version = Version::HTTP_11;
        hop_by_hop(&mut head.headers, switching);
        let request = Request::from_parts(head, body.map_err(Into::into).boxed_unsync());
        let mut response = self.client.request(request).await.map_err(|error| said(&error))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let back = hyper::upgrade::on(&mut response);
            let stop = inner.stop.clone();
            if let Some(outer) = outer {
                inner.tasks.spawn(stop.run_until_cancelled_owned(async move {
                    let Ok((outer, back)) = tokio::try_join!(outer, back) else {
                        return;
                    };
                    let (mut outer, mut back) = (TokioIo::new(outer), TokioIo::new(back));
                    let _ = tokio::io::copy_bidirectional(&mut outer, &mut back).await;
                }));
            }
        } else {
            hop_by_hop(response.headers_mut(), false);
        }
        Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
    }
}

fn wants_switch(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// Takes out what is between two neighbours only.
fn hop_by_hop(headers: &mut HeaderMap, switching: bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !(switching && *name == UPGRADE))
        // Who is asked, and how long the body is, is not for a neighbour to take out.
        .filter(|name| *name != HOST && *name != http::header::CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "proxy-authorization", "te"] {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    if switching {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(UPGRADE);
    }
}

fn said(error: &hyper_util::client::legacy::Error) -> String {
    let mut why: &dyn std::error::Error = error;
    while let Some(deeper) = why.source() {
        why = deeper;
    }
    if error.is_connect() {
        format!("cannot be reached: {why}; is it running, and is local_port its port?")
    } else {
        format!("broke off: {why}")
    }
}
