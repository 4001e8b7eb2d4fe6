//! The requests of the admin port, and what each is answered.

use super::Admin;
use super::guard::{Denied, Guard, only, same_site};
use super::prometheus;
use super::shape::BanLists;
use crate::bans::Ban;
use crate::metrics::Totals;
use crate::store::{Forget, StoreError};
use arp_common::error_body::ErrorBody;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Response, StatusCode, request};
use percent_encoding::percent_decode_str;
use serde::Serialize;

/// The page has its script and style beside it, and speaks with this port alone.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("page/index.html");
const SCRIPT: &str = include_str!("page/admin.js");
const STYLE: &str = include_str!("page/admin.css");

/// An answer that is whole.
pub(super) type Answer = Response<Bytes>;

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum From<'a> {
    /// The socket, which only the relay's user can open.
    Socket,
    /// The port.
    Port(&'a Guard),
}

/// Why a request got something else than what it asked for.
struct Failure(u16, &'static str, String);

impl std::convert::From<StoreError> for Failure {
    fn from(e: StoreError) -> Self {
        Self(503, "store", format!("{e}; the relay's log says more"))
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// Answers one request. Bodies are not read: nothing here needs one.
pub(super) async fn answer(admin: &Admin, from: From<'_>, head: &request::Parts) -> Answer {
    let path = head.uri.path();
    let allowed = match (from, path) {
        (From::Socket, _) => Ok(()),
        // For probes, which come by whatever name and have no key. It says nothing but yes or no.
        (From::Port(_), "/healthz" | "/readyz") => {
            same_site(&head.headers, only(&head.headers, &HOST).unwrap_or_default())
        }
        (From::Port(guard), "/" | "/admin.js" | "/admin.css") => guard.site(&head.headers),
        (From::Port(guard), _) => match guard.site(&head.headers) {
            Ok(()) => guard.key(&head.headers).await,
            denied => denied,
        },
    };
    let mut answer = match allowed {
        Ok(()) => match route(admin, head).await {
            Ok(answer) => answer,
            Err(Failure(status, code, message)) => failure(status, code, &message),
        },
        Err(denied) => {
            let (status, code, message) = denied.told();
            if matches!(denied, Denied::WrongKey | Denied::TooMany) {
                crate::metrics::refused("admin", code);
            }
            failure(status, code, message)
        }
    };
    let fields = answer.headers_mut();
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    fields.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    fields.insert("referrer-policy", HeaderValue::from_static("no-referrer"));
    fields.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    answer
}

async fn route(admin: &Admin, head: &request::Parts) -> Result<Answer> {
    let segments: Vec<String> = head
        .uri
        .path()
        .trim_start_matches('/')
        .split('/')
        .map(|s| percent_decode_str(s).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let get = head.method == Method::GET || head.method == Method::HEAD;
    match (&segments[..], &head.method) {
        ([""], _) if get => Ok(text(PAGE, "text/html; charset=utf-8")),
        (["admin.js"], _) if get => Ok(text(SCRIPT, "text/javascript; charset=utf-8")),
        (["admin.css"], _) if get => Ok(text(STYLE, "text/css; charset=utf-8")),
        (["healthz"], _) if get => Ok(text("ok\n", "text/plain")),
        (["readyz"], _) if get => {
            if admin.stop.is_cancelled() {
                return Err(Failure(
                    503,
                    "stopping",
                    "the relay takes no new requests".to_owned(),
                ));
            }
            Ok(text("ready\n", "text/plain"))
        }
        (["metrics"], _) if get => {
            let days = admin.history.now().days;
            let metrics = prometheus::text(&admin.status(), &Totals::now(), &admin.clients(), &days);
            Ok(text(metrics, "text/plain; version=0.0.4; charset=utf-8"))
        }
        (["api", "status"], _) if get => json(&admin.status()),
        (["api", "clients"], _) if get => json(&admin.clients()),
        (["api", "traffic"], _) if get => json(&admin.history.now()),
        (["api", "bans"], _) if get => {
            let (settings, given) = admin.admission.bans().all();
            let texts = |bans: Vec<Ban>| bans.iter().map(Ban::to_string).collect();
            json(&BanLists {
                settings: texts(settings),
                given: texts(given),
            })
        }
        (["api", "reload"], &Method::POST) => match admin.reload().await {
            Some(Ok(done)) => json(&done),
            Some(Err(faults)) => Err(Failure(422, "bad_settings", faults.join("\n"))),
            None => Err(Failure(503, "stopping", "the relay is stopping".to_owned())),
        },
        (["api", "reload"], _) => Ok(method("POST")),
        (["api", "clients", id, "kick"], &Method::POST) => {
            if !admin.kick(id) {
                return Err(offline());
            }
            tracing::info!("an operator disconnected a client");
            done("disconnected; it will come back by itself unless it is banned")
        }
        (["api", "clients", id, "ban"], &Method::POST) => ban_client(admin, id).await,
        (["api", "clients", id, "forget"], &Method::POST) => {
            let what = Forget {
                patterns: vec![exactly(id)],
                ..Forget::default()
            };
            let names = admin.admission.store().forget(what).await?;
            if names.is_empty() {
                return Err(Failure(
                    404,
                    "not_known",
                    "no name like this is bound to a key".to_owned(),
                ));
            }
            tracing::info!(names = names.len(), "an operator freed names");
            done(&format!("forgot {} name(s)", names.len()))
        }
        // Networks have a slash in them.
        (["api", "bans", ban @ ..], &Method::PUT) if !ban.is_empty() => {
            let ban = parse(&ban.join("/"))?;
            let gone = admin.ban(&ban).await?;
            tracing::info!(gone, "an operator banned somebody");
            done(&format!("banned; {gone} disconnected"))
        }
        (["api", "bans", ban @ ..], &Method::DELETE) if !ban.is_empty() => {
            if !admin.unban(&parse(&ban.join("/"))?).await? {
                let text = "no such ban was given; those of the settings (--ban) end there";
                return Err(Failure(404, "not_banned", text.to_owned()));
            }
            tracing::info!("an operator ended a ban");
            done("no longer banned")
        }
        (["api", "clients", _, "kick" | "ban" | "forget"], _) => Ok(method("POST")),
        (["api", "bans", ..], _) => Ok(method("GET, PUT, DELETE")),
        ([""] | ["healthz" | "readyz" | "metrics"] | ["api", "status" | "clients" | "traffic"], _) => {
            Ok(method("GET"))
        }
        _ => Err(Failure(
            404,
            "not_found",
            "there is nothing here; the page is at /".to_owned(),
        )),
    }
}

/// By its key, which it cannot change without losing its names, or by its id where it has none.
async fn ban_client(admin: &Admin, id: &str) -> Result<Answer> {
    let client = admin.registry().by_id(id);
    let client = client.ok_or_else(|| Failure(404, "not_known", "no client has this id".to_owned()))?;
    let mut bans = vec![parse(client.id.as_str())?];
    if let Some(key) = client.key() {
        bans.push(parse(&key.to_string())?);
    }
    let mut gone = 0;
    for ban in &bans {
        gone += admin.ban(ban).await?;
    }
    tracing::info!(client = %client.id, gone, "an operator banned a client");
    done(&format!("banned its id and its key; {gone} disconnected"))
}

fn parse(ban: &str) -> Result<Ban> {
    ban.parse().map_err(|e| Failure(400, "bad_ban", e))
}

/// A pattern that only this name fits.
fn exactly(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '*' | '?' | '[' => format!("[{c}]"),
            c => c.to_string(),
        })
        .collect()
}

fn offline() -> Failure {
    Failure(404, "offline", "no client with this id is connected".to_owned())
}

fn done(message: &str) -> Result<Answer> {
    #[derive(Serialize)]
    struct Done<'a> {
        message: &'a str,
    }
    json(&Done { message })
}

fn json(value: &impl Serialize) -> Result<Answer> {
    let text = serde_json::to_vec(value).map_err(|e| Failure(500, "internal", e.to_string()))?;
    Ok(text_of(text, "application/json"))
}

fn text(text: impl Into<Bytes>, kind: &'static str) -> Answer {
    text_of(text, kind)
}

fn text_of(body: impl Into<Bytes>, kind: &'static str) -> Answer {
    let mut answer = Response::new(body.into());
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn failure(status: u16, code: &str, message: &str) -> Answer {
    let mut answer = text_of(ErrorBody::new(code, message).line(), "application/json");
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status == 401 {
        let fields = answer.headers_mut();
        fields.insert("www-authenticate", HeaderValue::from_static("Bearer"));
    }
    answer
}

fn method(allowed: &'static str) -> Answer {
    let mut answer = failure(405, "method_not_allowed", "this address takes other methods");
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}
