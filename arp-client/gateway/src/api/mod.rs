//! The gateway's own HTTP API, on the port of its page: docs/gateway.md describes it. [`clp`] is the API that CLP's
//! scripts know, beside it.

mod clp;
mod events;
mod filters;
mod machine;
mod money;
pub mod probe;
mod realtime;
mod recording;
mod requests;
mod sessions;
mod upstreams;

pub use realtime::serve as realtime;

use crate::forward::Gateway;
use crate::forward::body::Body;
use crate::guard::{self, Doors, Refused};
use crate::process::Running;
use crate::service::Service;
use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use http::{Method, Request, Response, StatusCode, request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Longest body of a request to the API.
const MAX_BODY: usize = 4 << 20;
/// Time for it.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Where our own endpoints are.
pub const PREFIX: &str = "/api/gateway";

/// The files of the page: a path and request headers in, an answer out.
pub type Pages = fn(&str, &HeaderMap) -> Option<Response<&'static [u8]>>;

/// See the module.
#[derive(Debug)]
pub struct Api {
    gateway: Arc<Gateway>,
    running: Running,
    pages: Option<Pages>,
    doors: Arc<Doors>,
}

/// Why a request of the API was not carried out.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message.to_string())
    }
}

impl From<crate::files::FileError> for ApiError {
    fn from(e: crate::files::FileError) -> Self {
        Self::new(StatusCode::CONFLICT, "file_unusable", e.to_string())
    }
}

impl From<crate::files::upstreams::ChangeError> for ApiError {
    fn from(e: crate::files::upstreams::ChangeError) -> Self {
        use crate::files::upstreams::ChangeError;
        match &e {
            ChangeError::File(_) => Self::new(StatusCode::CONFLICT, "file_unusable", e.to_string()),
            ChangeError::Unknown { .. } => Self::not_found(e.to_string()),
            ChangeError::Invalid(_) => Self::invalid(e.to_string()),
        }
    }
}

impl From<rusqlite::Error> for ApiError {
    fn from(e: rusqlite::Error) -> Self {
        Self::internal(format!("the counts cannot be read: {e}"))
    }
}

type Answer = Result<Response<Body>, ApiError>;

/// A request of the API, taken apart.
struct Call {
    method: Method,
    /// What follows the prefix, decoded.
    path: Vec<String>,
    query: Vec<(String, String)>,
    body: Bytes,
}

impl Call {
    fn query(&self, name: &str) -> Option<&str> {
        let found = self
            .query
            .iter()
            .find(|(n, value)| n == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let body = if self.body.trim_ascii().is_empty() {
            &b"{}"[..]
        } else {
            &self.body
        };
        serde_json::from_slice(body).map_err(|e| ApiError::invalid(format!("the body: {e}")))
    }

    fn service(text: &str) -> Result<Service, ApiError> {
        text.parse()
            .map_err(|e: crate::service::UnknownService| ApiError::not_found(e.to_string()))
    }

    fn service_query(&self) -> Result<Option<Service>, ApiError> {
        self.query("service").map(Self::service).transpose()
    }
}

impl Api {
    /// Over this gateway. Without `pages` there is the API only.
    #[must_use]
    pub fn new(gateway: Arc<Gateway>, running: Running, pages: Option<Pages>, doors: Arc<Doors>) -> Self {
        Self {
            gateway,
            running,
            pages,
            doors,
        }
    }

    /// Answers a request that came from `peer`.
    pub async fn handle(self: Arc<Self>, peer: IpAddr, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        match self.answer(peer, &head, body).await {
            Ok(response) => response,
            Err(e) => error(e.status, e.code, &e.message),
        }
    }

    async fn answer(self: &Arc<Self>, peer: IpAddr, head: &request::Parts, body: Incoming) -> Answer {
        if let Some(entered) = self.enter(peer, head)? {
            return Ok(entered);
        }
        let path = head.uri.path();
        if !is_under(path, "/api") {
            return self.page(head);
        }
        let mut call = Call {
            method: head.method.clone(),
            path: Vec::new(),
            query: head.uri.query().map(pairs).unwrap_or_default(),
            body: read(body).await?,
        };
        if call.method == Method::HEAD {
            call.method = Method::GET;
        }
        if is_under(path, PREFIX) {
            call.path = segments(&path[PREFIX.len()..])?;
            return self.own(&call).await;
        }
        if call.method == Method::GET {
            match path {
                "/api/health" => return machine::health(self),
                "/api/info" => return machine::info(self),
                "/api/events" => return Ok(machine::events()),
                // Lists of what there is none of here.
                "/api/sessions" | "/api/approvals" => {
                    let name = path.trim_start_matches("/api/");
                    return ok(&json!({"type": name, name: [], "total": 0}));
                }
                _ => {}
            }
        }
        call.path = segments(&path["/api".len()..])?;
        clp::answer(self, &call).await
    }

    /// Lets in whoever may come; an answer for somebody who just showed the key in the address of a page.
    fn enter(&self, peer: IpAddr, head: &request::Parts) -> Result<Option<Response<Body>>, ApiError> {
        let refused = |r: Refused| ApiError::new(StatusCode::FORBIDDEN, r.code, r.message);
        guard::own_origin(&head.headers).map_err(refused)?;
        match guard::check(&self.doors, peer, &head.headers) {
            Ok(()) => Ok(None),
            Err(r) if r.code == "key_required" => {
                let Some(key) = &self.doors.key else {
                    return Err(refused(r));
                };
                if guard::has_cookie(key, &head.headers) {
                    return Ok(None);
                }
                let given = head.uri.query().map(pairs).unwrap_or_default();
                let given = given
                    .iter()
                    .find(|(name, _)| name == "key")
                    .map(|(_, value)| value.as_str());
                if head.method == Method::GET && given.is_some_and(|given| guard::is_key(key, given)) {
                    let mut response = plain(StatusCode::FOUND, "text/plain", Bytes::new());
                    response
                        .headers_mut()
                        .insert(LOCATION, HeaderValue::from_static("/"));
                    if let Ok(cookie) = HeaderValue::from_str(&guard::cookie(key)) {
                        response.headers_mut().insert(SET_COOKIE, cookie);
                    }
                    return Ok(Some(response));
                }
                Err(ApiError::new(
                    StatusCode::UNAUTHORIZED,
                    "key_required",
                    "the gateway's key is needed: open /?key=KEY once, or send it as Authorization: Bearer",
                ))
            }
            Err(r) => Err(refused(r)),
        }
    }

    fn page(&self, head: &request::Parts) -> Answer {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return Err(ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "pages are read with GET",
            ));
        }
        let page = self.pages.and_then(|pages| pages(head.uri.path(), &head.headers));
        let page =
            page.ok_or_else(|| ApiError::not_found("there is nothing here; the API is under /api/gateway"))?;
        let is_head = head.method == Method::HEAD;
        Ok(page.map(|bytes| {
            Body::Whole(if is_head {
                Bytes::new()
            } else {
                Bytes::from_static(bytes)
            })
        }))
    }

    async fn own(self: &Arc<Self>, call: &Call) -> Answer {
        let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
        match (call.method.as_str(), path.as_slice()) {
            ("GET", []) => requests::overview(self).await,
            ("GET", ["events"]) => Ok(events::stream(self)),
            ("GET", ["upstreams"]) => upstreams::list(self).await,
            ("PUT", ["upstreams", service, name]) => {
                upstreams::put(self, Call::service(service)?, name, call).await
            }
            ("DELETE", ["upstreams", service, name]) => {
                upstreams::remove(self, Call::service(service)?, name)
            }
            ("POST", ["upstreams", service, name, verb]) => {
                upstreams::act(self, Call::service(service)?, name, verb, call).await
            }
            ("PUT", ["balance", service]) => upstreams::balance(self, Call::service(service)?, call),
            ("GET", ["routes"]) => upstreams::routes(self),
            ("PUT", ["routes"]) => upstreams::put_routes(self, call),
            ("GET", ["filters"]) => filters::get(self),
            ("PUT", ["filters"]) => filters::put(self, call),
            ("POST", ["filters", "dry-run"]) => filters::dry_run(self, call).await,
            ("GET", ["recording"]) => recording::get(self).await,
            ("PUT", ["recording"]) => recording::put(self, call).await,
            ("DELETE", ["recording"]) => recording::forget(self).await,
            ("GET", ["requests", id, "body"]) => recording::body(self, id).await,
            ("GET", ["requests"]) => requests::list(self, call).await,
            ("DELETE", ["requests"]) => requests::clear(self).await,
            ("GET", ["usage"]) => requests::usage(self, call).await,
            ("GET", ["budgets"]) => money::budgets(self),
            ("PUT", ["budgets"]) => money::put_budgets(self, call),
            ("GET", ["prices"]) => money::prices(self),
            ("PUT", ["prices"]) => money::put_prices(self, call),
            ("GET", ["sessions", id]) => sessions::get(self, id).await,
            ("PUT", ["sessions", id]) => sessions::put(self, id, call).await,
            _ => Err(ApiError::not_found(
                "the gateway's API has no such endpoint; docs/gateway.md lists them",
            )),
        }
    }

    /// Reads the counts, off the threads that carry requests.
    async fn counts<T: Send + 'static>(
        &self,
        read: impl FnOnce(&crate::usage::store::Usage) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ApiError> {
        let usage = self.gateway.usage().clone();
        let read = tokio::task::spawn_blocking(move || read(&usage)).await;
        Ok(read.map_err(ApiError::internal)??)
    }

    fn upstreams_changed(&self) {
        self.gateway.activity().tell("upstreams", || json!({}));
    }
}

fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn segments(path: &str) -> Result<Vec<String>, ApiError> {
    path.split('/')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let part = percent_decode_str(part).decode_utf8();
            part.map(std::borrow::Cow::into_owned)
                .map_err(|_| ApiError::invalid("the path is not UTF-8"))
        })
        .collect()
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        percent_decode_str(&text.replace('+', " "))
            .decode_utf8_lossy()
            .into_owned()
    };
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

async fn read(mut body: Incoming) -> Result<Bytes, ApiError> {
    let reading = async {
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ApiError::invalid("the body broke off"))?;
            if let Ok(data) = frame.into_data() {
                all.extend_from_slice(&data);
            }
            if all.len() > MAX_BODY {
                return Err(ApiError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too_large",
                    "the body is longer than 4 MiB",
                ));
            }
        }
        Ok(all.freeze())
    };
    match tokio::time::timeout(BODY_TIME, reading).await {
        Ok(read) => read,
        Err(_) => Err(ApiError::invalid("the body did not come in time")),
    }
}

fn plain(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Whole(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

fn ok(value: &Value) -> Answer {
    Ok(plain(
        StatusCode::OK,
        "application/json",
        value.to_string().into(),
    ))
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    // CLP's scripts look for `error`.
    let body = json!({"type": "error", "code": code, "message": message, "error": message});
    plain(status, "application/json", body.to_string().into())
}
