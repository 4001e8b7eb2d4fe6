//! One request to one upstream, up to the point where its answer can be judged.

use super::headers::HOP_MARK;
use super::request::Work;
use super::socket::{self, TurnStream};
use crate::clients::{Client, Reply};
use crate::dialect::First;
use crate::files::upstreams::Upstream;
use crate::service::Service;
use crate::settings::Network;
use crate::sse::{self, Splitter};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use std::borrow::Cow;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Longest error that is read, to be judged and passed on.
const MAX_ERROR: usize = 256 << 10;
/// Longest part of a whole answer that is looked at before it is passed on.
const MAX_LOOK: usize = 1 << 20;
/// Time for the body of an error.
const ERROR_BODY: Duration = Duration::from_secs(10);

/// An answer that can be passed on.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its fields.
    pub(crate) headers: HeaderMap,
    /// What of it was read already.
    pub(crate) begun: Begun,
    /// The rest.
    pub(crate) rest: Rest,
}

/// Where the rest of an answer comes from.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Nearly all are of the large kind: a box for each would cost more than it spares.
pub(crate) enum Rest {
    /// The body of an answer over HTTP.
    Http(Reply),
    /// An upstream's socket.
    Socket(Box<TurnStream>),
}

impl Rest {
    /// The next bytes; `None` at the end. Nothing is lost when it is dropped while it waits.
    ///
    /// # Errors
    /// In words, when it broke off.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        match self {
            Self::Http(reply) => reply.chunk().await.map_err(|e| e.to_string()),
            Self::Socket(turn) => turn.chunk().await,
        }
    }
}

/// Whom to ask, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route<'a> {
    /// Connections to it.
    pub(crate) client: &'a Client,
    /// Connections for sockets, where it is asked for one.
    pub(crate) sockets: Option<&'a reqwest::Client>,
    /// The upstream.
    pub(crate) upstream: &'a Upstream,
    /// How it is reached.
    pub(crate) network: &'a Network,
    /// The model that is asked for, where it is another one than the agent named.
    pub(crate) model: Option<&'a str>,
    /// Texts in an error's body that send the request on.
    pub(crate) texts: &'a [String],
}

/// What of an answer was read to judge it.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Events; none was taken yet.
    Events(Splitter),
    /// The begin of a body that is no stream of events; `true` if that is all.
    Bytes(Bytes, bool),
}

/// Why an upstream gave no answer that can be passed on.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// In words, for records and for the person.
    pub(crate) message: String,
    /// Its own error, to be passed on when nobody else has a better answer.
    pub(crate) error: Option<(StatusCode, HeaderMap, Bytes)>,
    /// Is it the upstream's fault (so that the next is asked), or the request's?
    pub(crate) upstreams: bool,
    /// The time that it named itself.
    pub(crate) wait: Option<Duration>,
}

impl Failure {
    /// It is the upstream's, with nothing of its own to pass on.
    pub(crate) fn upstreams(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            error: None,
            upstreams: true,
            wait: None,
        }
    }
}

/// Statuses for which another upstream may do better: it is busy, broken, or does not know this key (any more).
pub(super) fn is_upstreams(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 402 | 403 | 408 | 429 | 500..=599)
}

/// Puts in the fields that a person has given an upstream.
pub(crate) fn extra(headers: &mut HeaderMap, network: &Network) {
    for (name, value) in &network.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
}

/// The path and the header fields of a request to an upstream; another path where another model stands in it.
pub(super) fn prepared<'w>(service: Service, route: &Route<'_>, work: &'w Work) -> (Cow<'w, str>, HeaderMap) {
    let Route {
        upstream, network, ..
    } = route;
    let path = route
        .model
        .and_then(|model| service.path_with_model(&work.path, model))
        .map_or(Cow::Borrowed(&*work.path), Cow::Owned);
    let mut headers = work.headers.clone();
    service.credentials(&mut headers, upstream);
    extra(&mut headers, network);
    // Only a machine's own addresses can lead back here; nobody else needs to know.
    if upstream.origin.is_own() {
        headers.insert(HOP_MARK, HeaderValue::from_static("1"));
    }
    (path, headers)
}

/// Asks an upstream.
pub(crate) async fn ask(service: Service, route: &Route<'_>, work: &mut Work) -> Result<Answer, Failure> {
    let deadline = Instant::now() + route.network.first_byte_timeout();
    // What has none is asked over HTTP, as all others are.
    if let Some(sockets) = route.sockets
        // Few need it, and it is large: apart, so that the others are small.
        && let Some(answered) = Box::pin(socket::ask(service, route, sockets, work, deadline)).await
    {
        return answered;
    }
    let (path, mut headers) = prepared(service, route, work);
    let origin = &route.upstream.origin;
    let Some(there) = origin.at(&path, work.query.as_deref()) else {
        return Err(Failure::upstreams("no request can carry this path"));
    };
    let body = work.body_for(route.model, &mut headers);
    let sent = {
        let client = route.client;
        let sending = pin!(client.send(origin, work.method.clone(), there, headers, body));
        timeout_at(deadline, sending).await
    };
    let response = match sent {
        Ok(Ok(response)) => response,
        Ok(Err(e)) => return Err(Failure::upstreams(e.to_string())),
        Err(_) => return Err(Failure::upstreams("it did not answer in time")),
    };
    judge(service, response, work, route.texts, deadline).await
}

/// What an answer says that is an error.
pub(super) async fn refused(mut response: Reply, texts: &[String]) -> Failure {
    let status = response.status;
    let headers = std::mem::take(&mut response.headers);
    let body = timeout(ERROR_BODY, read_up_to(&mut response, MAX_ERROR)).await;
    let body = body.map(|(body, _)| body).unwrap_or_default();
    let named = texts
        .iter()
        .any(|text| !text.is_empty() && memchr::memmem::find(&body, text.as_bytes()).is_some());
    let wait = (status != StatusCode::REQUEST_TIMEOUT)
        .then(|| named_wait(&headers, &body))
        .flatten();
    Failure {
        message: format!("it answered {}{}", status.as_u16(), said(&body)),
        upstreams: named || is_upstreams(status),
        wait,
        error: Some((status, headers, body)),
    }
}

async fn judge(
    service: Service,
    mut response: Reply,
    work: &Work,
    texts: &[String],
    deadline: Instant,
) -> Result<Answer, Failure> {
    let status = response.status;
    if status.is_client_error() || status.is_server_error() {
        return Err(Box::pin(refused(response, texts)).await);
    }
    let headers = std::mem::take(&mut response.headers);
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .trim();
    let events_are = "text/event-stream";
    if kind
        .get(..events_are.len())
        .is_some_and(|kind| kind.eq_ignore_ascii_case(events_are))
    {
        return events(service, response, status, headers, work, deadline).await;
    }
    if !work.identity.generates || work.method != Method::POST {
        let begun = Begun::Bytes(Bytes::new(), false);
        return Ok(Answer {
            status,
            headers,
            begun,
            rest: Rest::Http(response),
        });
    }
    // A page, an empty text or an error with 200: relay sites that have run dry do this.
    let html = kind.contains("html");
    let Ok((body, ended)) = timeout_at(deadline, read_up_to(&mut response, MAX_LOOK)).await else {
        return Err(Failure::upstreams("it did not answer in time"));
    };
    let is_answer = match (ended, serde_json::from_slice::<serde_json::Value>(&body)) {
        (Ended::Broken, _) => return Err(Failure::upstreams("it broke off in the middle of its answer")),
        (Ended::More, _) => {
            body.trim_ascii_start().starts_with(b"{") || body.trim_ascii_start().starts_with(b"[")
        }
        (Ended::Whole, Ok(serde_json::Value::Object(o))) => {
            !o.is_empty() && o.get("error").is_none_or(|e| e.is_null())
        }
        (Ended::Whole, Ok(serde_json::Value::Array(a))) => !a.is_empty(),
        (Ended::Whole, _) => false,
    };
    if html || !is_answer {
        return Err(Failure::upstreams(format!(
            "it answered 200 with something that is no answer of the API{}",
            said(&body)
        )));
    }
    Ok(Answer {
        status,
        headers,
        begun: Begun::Bytes(body, ended == Ended::Whole),
        rest: Rest::Http(response),
    })
}

/// Reads on until the first event that says what the stream is.
async fn events(
    service: Service,
    mut response: Reply,
    status: StatusCode,
    headers: HeaderMap,
    work: &Work,
    deadline: Instant,
) -> Result<Answer, Failure> {
    let mut splitter = Splitter::default();
    // Of a stream that costs nothing, nothing is judged.
    let mut clear = !work.identity.generates;
    loop {
        clear |= splitter.held() > MAX_LOOK;
        while !clear && let Some(event) = splitter.look() {
            match sse::data(event).map_or(First::Unclear, |data| service.first(&data)) {
                First::Unclear => {}
                First::Answer => clear = true,
                First::Error(message) => {
                    return Err(Failure {
                        upstreams: !service.is_of_request(&message),
                        ..Failure::upstreams(format!("it answered with an error: {}", short(&message)))
                    });
                }
            }
        }
        if clear {
            splitter.again();
            return Ok(Answer {
                status,
                headers,
                begun: Begun::Events(splitter),
                rest: Rest::Http(response),
            });
        }
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(bytes))) => splitter.push(&bytes),
            Ok(Ok(None)) => return Err(Failure::upstreams("it ended without an answer")),
            Ok(Err(e)) => return Err(Failure::upstreams(e.to_string())),
            Err(_) => return Err(Failure::upstreams("it did not answer in time")),
        }
    }
}

/// How reading up to a limit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// That was all.
    Whole,
    /// There is more.
    More,
    /// It broke off.
    Broken,
}

async fn read_up_to(response: &mut Reply, max: usize) -> (Bytes, Ended) {
    let mut all = BytesMut::new();
    while all.len() < max {
        match response.chunk().await {
            Ok(Some(bytes)) => all.extend_from_slice(&bytes),
            Ok(None) => return (all.freeze(), Ended::Whole),
            Err(_) => return (all.freeze(), Ended::Broken),
        }
    }
    (all.freeze(), Ended::More)
}

/// Seconds or a date (RFC 9110 §10.2.3), from now.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(secs) = text.parse() {
        return Some(Duration::from_secs(secs));
    }
    let format = time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let at = time::PrimitiveDateTime::parse(text, format).ok()?.assume_utc();
    Some(
        (at - time::OffsetDateTime::now_utc())
            .try_into()
            .unwrap_or(Duration::ZERO),
    )
}

/// The time until an account has something left again, as it says in whichever of the known ways.
pub(crate) fn named_wait(headers: &HeaderMap, body: &[u8]) -> Option<Duration> {
    if let Some(wait) = retry_after(headers) {
        return Some(wait);
    }
    let until = |unix: u64| {
        let now = u64::try_from(crate::activity::now_ms() / 1000).unwrap_or(0);
        Duration::from_secs(unix.saturating_sub(now))
    };
    let reset = headers.get("anthropic-ratelimit-unified-reset");
    if let Some(reset) = reset.and_then(|value| value.to_str().ok()?.trim().parse().ok()) {
        return Some(until(reset));
    }
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let error = value.get("error")?;
    if let Some(secs) = error.get("resets_in_seconds").and_then(serde_json::Value::as_u64) {
        return Some(Duration::from_secs(secs));
    }
    error
        .get("resets_at")
        .and_then(serde_json::Value::as_u64)
        .map(until)
}

/// The message in an error's body, in short.
pub(super) fn said(body: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let message = ["/error/message", "/message", "/error", "/detail"]
        .iter()
        .find_map(|at| value.pointer(at)?.as_str());
    message.map_or_else(String::new, |message| format!(": {}", short(message)))
}

/// No more than a line of somebody else's words.
pub(super) fn short(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect();
    clean.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_wait_is_seconds_or_a_date() {
        let headers =
            |value: &str| HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).unwrap())]);
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after(&headers("Wed, 21 Oct 2015 07:28:00 GMT")),
            Some(Duration::ZERO)
        );
        assert!(
            retry_after(&headers("Tue, 01 Jan 2999 00:00:00 GMT")).is_some_and(|d| d.as_secs() > 1_000_000)
        );
        assert_eq!(retry_after(&headers("soon")), None);
    }

    #[test]
    fn an_account_that_is_used_up_says_when_it_is_not_any_more() {
        let none = HeaderMap::new();
        let body = br#"{"error":{"type":"usage_limit_reached","resets_in_seconds":90}}"#;
        assert_eq!(named_wait(&none, body), Some(Duration::from_secs(90)));
        let past = br#"{"error":{"resets_at":5}}"#;
        assert_eq!(named_wait(&none, past), Some(Duration::ZERO));
        assert_eq!(named_wait(&none, b"{}"), None);
        let mut headers = HeaderMap::new();
        headers.insert(
            "anthropic-ratelimit-unified-reset",
            HeaderValue::from_static("99999999999"),
        );
        assert!(named_wait(&headers, b"").is_some_and(|wait| wait.as_secs() > 1_000_000));
    }
}
