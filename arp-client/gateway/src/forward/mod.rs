//! One request of an agent: to one upstream after another, until one answers; and its answer back, as it comes.
//!
//! Until the first event of an answer is there, the next upstream can be asked without the agent noticing. After it
//! never: two answers must not be mixed. A stream that breaks then is ended in the way that makes the agent at hand
//! ask again by itself, and that request goes elsewhere.

mod attempt;
pub mod body;
mod carry;
pub mod flow;
mod headers;
mod hide;
mod models;
mod pump;
mod record;
mod request;
mod seals;
pub(crate) mod socket;

pub(crate) use attempt::extra;
pub use headers::HOP_MARK;
pub(crate) use headers::without;

use crate::activity::{Activity, now_ms};
use crate::choices::Choices;
use crate::clients::Clients;
use crate::dialect::Ending;
use crate::health::Health;
use crate::live::{Live, Renamed, Snapshot};
use crate::redact::placeholder::Key;
use crate::service::Service;
use crate::usage::budgets::{self, Spent};
use crate::usage::record::Record;
use crate::usage::store::{Choice, Usage};
use body::{Body, Cut};
use bytes::Bytes;
use flow::{Flow, Head};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use pump::Output;
use request::Work;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Silence after which the agent is told that the line is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Sockets of agents at a time; whoever comes then uses HTTP.
const MAX_SOCKETS: usize = 1_024;
/// What all requests share.
#[derive(Debug)]
pub struct Gateway {
    live: Arc<Live>,
    health: [Health; 3],
    clients: Clients,
    usage: Usage,
    activity: Activity,
    choices: Choices,
    spent: Spent,
    key: Key,
    /// Places for sockets of agents, which stay open as long as their sessions.
    sockets: Arc<Semaphore>,
    /// Lists of models that upstreams have given.
    models: models::Models,
    /// Sessions whose history goes without seals from now on, and since when.
    unsealed: Mutex<HashMap<String, Instant>>,
}

impl Gateway {
    /// Over these files and counts; with what was chosen and spent before.
    #[must_use]
    pub fn new(live: Arc<Live>, usage: Usage) -> Self {
        let kept = usage.choices().unwrap_or_else(|e| {
            tracing::warn!("what was chosen for sessions cannot be read: {e}");
            Vec::new()
        });
        let spent = usage.spent(&budgets::day_of(now_ms())).unwrap_or_else(|e| {
            tracing::warn!("what was spent cannot be read, budgets begin at 0: {e}");
            Spent::default()
        });
        let key = Key::open(&live.home().redaction_key()).unwrap_or_else(|e| {
            tracing::warn!("placeholders will be others after a restart: {e}");
            Key::random()
        });
        // Requests under way and those that are over have one row of numbers, over restarts, too.
        let last = usage.last_id().unwrap_or_else(|e| {
            tracing::warn!("the requests that are over cannot be read: {e}");
            0
        });
        Self {
            live,
            health: Default::default(),
            clients: Clients::default(),
            usage,
            activity: Activity::after(last),
            choices: Choices::new(kept),
            spent,
            key,
            sockets: Arc::new(Semaphore::new(MAX_SOCKETS)),
            models: models::Models::default(),
            unsealed: Mutex::default(),
        }
    }

    /// What goes on now.
    #[must_use]
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// What was spent.
    #[must_use]
    pub fn spent(&self) -> &Spent {
        &self.spent
    }

    /// What placeholders are made from.
    #[must_use]
    pub fn redaction_key(&self) -> &Key {
        &self.key
    }

    /// What was chosen for sessions, and how they stand.
    #[must_use]
    pub fn choices(&self) -> &Choices {
        &self.choices
    }

    /// Connections to upstreams.
    #[must_use]
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Keeps a person's choice for a session: it counts from its next request.
    pub fn choose(&self, session: &str, choice: Choice) {
        self.choices.choose(session, choice.clone());
        self.usage.choose(session, choice);
        self.tell_session(session);
    }

    fn tell_session(&self, session: &str) {
        self.activity.tell("session", || {
            let standing = self.choices.standing(session).unwrap_or_default();
            json!({
                "session": session, "upstream": standing.upstream, "model": standing.model,
                "choice": self.choices.of(session), "waits_until": standing.waits_until,
            })
        });
    }

    /// A request of a session is over.
    pub(crate) fn heard(&self, record: &Record, wait: Option<Duration>) {
        let Some(session) = &record.session else { return };
        let waits_until = wait
            .filter(|_| record.status == 429)
            .and_then(|wait| Some(now_ms().saturating_add(i64::try_from(wait.as_millis()).ok()?)));
        let mut news = false;
        self.choices.heard(session, |standing| {
            news = standing.upstream != record.upstream || standing.waits_until != waits_until;
            standing.service = Some(record.service);
            standing.upstream.clone_from(&record.upstream);
            standing.model.clone_from(&record.model);
            standing.failovers += u64::from(
                record
                    .failed
                    .iter()
                    .any(|(name, _)| record.upstream.as_ref() != Some(name)),
            );
            standing.redacted += record.redacted;
            standing.waits_until = waits_until;
        });
        if news {
            self.tell_session(session);
        }
    }

    /// The configuration.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// How a service's upstreams stand.
    #[must_use]
    pub fn health(&self, service: Service) -> &Health {
        &self.health[service.index()]
    }

    /// The counts.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// What counts for a request of `service` that comes now. What is remembered of an upstream that has another name
    /// since is remembered under that one.
    pub(crate) fn snapshot(&self, service: Service) -> Snapshot {
        let now = self.live.snapshot(service);
        self.live.each_renamed(|Renamed { service, from, to }| {
            self.choices.rename(service, &from, &to);
            self.health(service).rename(&from, &to);
            self.spent.rename(&from, &to);
            // Whoever gave the name has told the counts, too, unless it was an editor: twice is as once.
            self.usage.rename(service, &from, &to);
        });
        now
    }

    /// Answers a request that came on the port of `service`.
    pub async fn handle(self: Arc<Self>, service: Service, request: Request<Incoming>) -> Response<Body> {
        let (head, incoming) = request.into_parts();
        let (_, path) = request::session_prefix(head.uri.path());
        if head.headers.contains_key(HOP_MARK) {
            return own(
                service,
                "loop",
                "this request has come through the gateway already: an upstream's base_url leads back to the gateway \
                 itself; see `arpc gateway list`",
                true,
            );
        }
        // Codex asks for a WebSocket first; after this answer it uses HTTP at once, without a word.
        if service == Service::Codex
            && head.method == Method::GET
            && head.headers.contains_key(http::header::UPGRADE)
        {
            let (_, body) = service.own_error("no_websocket", "this gateway speaks HTTP here", true);
            return whole(StatusCode::UPGRADE_REQUIRED, body);
        }
        // What agents send at their start, to see whether anybody is there.
        if matches!(head.method, Method::HEAD | Method::GET) && matches!(path, "/" | "/api/hello") {
            return whole(StatusCode::OK, Bytes::from_static(b"{\"gateway\":\"arp\"}"));
        }
        if models::is_list(service, &head) {
            return self.models(service, &head).await;
        }
        let Ok(work) = Work::read(service, head, incoming).await else {
            return own(
                service,
                "no_body",
                "the request's body did not come in time",
                false,
            );
        };
        let mut flow = self.flow(service, work);
        match flow.head().await {
            Some(Head { status, headers }) => {
                let mut response = Response::new(Body::Flow(flow));
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                response
            }
            None => own(
                service,
                "internal",
                "the gateway gave up this request; try again",
                false,
            ),
        }
    }

    /// The answer to a request, which is made as it is taken.
    fn flow(self: Arc<Self>, service: Service, work: Work) -> Flow {
        Flow::new(move |out| self.carry(service, work, Output::new(service, out)))
    }
}

fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

fn whole(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Whole(body));
    *response.status_mut() = status;
    *response.headers_mut() = json_headers();
    response
}

/// An answer of our own, in the form of the service's API.
pub fn own(service: Service, code: &str, message: &str, fatal: bool) -> Response<Body> {
    let (status, body) = service.own_error(code, message, fatal);
    whole(status, body)
}

impl From<Ending> for Result<Bytes, Cut> {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Cut => Err(Cut),
            Ending::Events(bytes) => Ok(bytes),
        }
    }
}
