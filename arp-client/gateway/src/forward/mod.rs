//! One request of an agent: to one upstream after another, until one answers; and its answer back, as it comes.
//!
//! Until the first event of an answer is there, the next upstream can be asked without the agent noticing. After it
//! never: two answers must not be mixed. A stream that breaks then is ended in the way that makes the agent at hand
//! ask again by itself, and that request goes elsewhere.

mod attempt;
pub mod body;
mod headers;
mod pump;
mod record;
mod request;

pub use headers::HOP_MARK;

use crate::clients::Clients;
use crate::dialect::Ending;
use crate::files::upstreams::Upstream;
use crate::health::Health;
use crate::live::{Live, Snapshot};
use crate::service::Service;
use crate::usage::store::Usage;
use attempt::{Answer, Failure};
use body::{Body, Cut, Owner};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use pump::{Head, Output};
use record::Log;
use request::Work;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Pieces of an answer that may wait for a slow agent.
const PIECES: usize = 16;
/// Silence after which the agent is told that the line is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Sessions known to be refused elsewhere for what an earlier upstream has sealed.
const MAX_UNSEALED: usize = 10_000;

/// What all requests share.
#[derive(Debug)]
pub struct Gateway {
    live: Arc<Live>,
    health: [Health; 3],
    clients: Clients,
    usage: Usage,
    /// Sessions whose history goes without seals from now on, and since when.
    unsealed: Mutex<HashMap<String, Instant>>,
}

impl Gateway {
    /// Over these files and counts.
    #[must_use]
    pub fn new(live: Arc<Live>, usage: Usage) -> Self {
        Self {
            live,
            health: Default::default(),
            clients: Clients::default(),
            usage,
            unsealed: Mutex::default(),
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

    /// Answers a request that came on the port of `service`.
    pub async fn handle(self: Arc<Self>, service: Service, request: Request<Incoming>) -> Response<Body> {
        let (head, incoming) = request.into_parts();
        let path = head.uri.path();
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
        let Ok(work) = Work::read(service, head, incoming).await else {
            return own(
                service,
                "no_body",
                "the request's body did not come in time",
                false,
            );
        };
        let (head_tx, head_rx) = oneshot::channel();
        let (body_tx, body_rx) = mpsc::channel(PIECES);
        let output = Output::new(service, head_tx, body_tx);
        let task = tokio::spawn(self.carry(service, work, output));
        let owner = Owner(task.abort_handle());
        match head_rx.await {
            Ok(Head { status, headers }) => {
                let mut response = Response::new(Body::Stream(body_rx, owner));
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                response
            }
            Err(_) => own(
                service,
                "internal",
                "the gateway gave up this request; try again",
                false,
            ),
        }
    }

    /// Asks one upstream after another and passes on what the first good one says.
    async fn carry(self: Arc<Self>, service: Service, mut work: Work, mut output: Output) {
        let now = self.live.snapshot(service);
        let mut log = Log::new(service, &work, self.usage.clone());
        let health = self.health(service);
        let session = work.identity.session.clone();
        let model = work.identity.model.clone().unwrap_or_default();
        let assigned = now.routes().upstream_for(&model).map(str::to_owned);
        let order = health.order(
            &now.upstreams,
            now.balance(),
            session.as_deref(),
            assigned.as_deref(),
            Instant::now(),
        );
        if order.is_empty() {
            let message = self.nobody(service, &now);
            log.error("no upstream is configured");
            let (status, body) = service.own_error("no_upstream", &message, true);
            return output.whole(status, json_headers(), body).await;
        }
        if session.as_deref().is_some_and(|id| self.is_unsealed(id)) {
            work.unseal(service);
        }
        let mut last: Option<Failure> = None;
        for upstream in order {
            if !health.try_ask(&upstream.name, Instant::now()) {
                continue;
            }
            let asked = Asked {
                health,
                upstream: &upstream,
                known: false,
            };
            match self
                .ask(service, &now, &upstream, &mut work, &mut output, &mut log)
                .await
            {
                Ok(Some(answer)) => {
                    let good = self
                        .pass_on(service, &now, &upstream, &work, answer, &mut output, &mut log)
                        .await;
                    asked.learnt(good, &now, session.as_deref());
                    return;
                }
                // The agent has left.
                Ok(None) => return,
                Err(failure) => {
                    log.failed(&upstream.name, &failure.message);
                    if failure.upstreams {
                        tracing::warn!(%service, upstream = %upstream.name, "{}", failure.message);
                        asked.failed(&now, failure.wait);
                    } else {
                        // A fault of the request itself: nobody else would answer it either, and it counts against
                        // nobody.
                        asked.learnt(Some(true), &now, None);
                    }
                    let next = failure.upstreams && work.is_kept();
                    last = Some(failure);
                    if !next {
                        break;
                    }
                }
            }
        }
        self.give_up(service, last, &mut output, &mut log).await;
    }

    /// One upstream. `None` when the agent has left meanwhile.
    async fn ask(
        &self,
        service: Service,
        now: &Snapshot,
        upstream: &Upstream,
        work: &mut Work,
        output: &mut Output,
        log: &mut Log,
    ) -> Result<Option<Answer>, Failure> {
        let network = now.settings.network(service, &upstream.name);
        let client = self.clients.get(&network).map_err(|e| Failure {
            message: e.to_string(),
            error: None,
            upstreams: true,
            wait: None,
        })?;
        let model = work.identity.model.clone().unwrap_or_default();
        let routed = now.routes().model_for(&upstream.name, &model).map(str::to_owned);
        log.asks(&upstream.name, routed.as_deref());
        let texts = &now.settings.failover_texts;
        let mut unsealed = false;
        loop {
            let asking = attempt::ask(
                service,
                &client,
                upstream,
                &network,
                work,
                routed.as_deref(),
                texts,
            );
            let Some(result) = output.while_waiting(asking).await else {
                return Ok(None);
            };
            match result {
                Ok(answer) => return Ok(Some(answer)),
                Err(failure) => {
                    let refused = failure.error.as_ref().is_some_and(|(status, _, body)| {
                        *status == StatusCode::BAD_REQUEST && service.refuses_seals(body)
                    });
                    // What another account has signed or sealed is refused here: once more without it, and from now
                    // on without it for this session.
                    if refused && !std::mem::replace(&mut unsealed, true) && work.unseal(service) {
                        if let Some(id) = &work.identity.session {
                            self.remember_unsealed(id);
                        }
                        log.unsealed();
                        continue;
                    }
                    return Err(failure);
                }
            }
        }
    }

    /// Passes an answer on. `Some(true)` when it came whole, `Some(false)` when the upstream broke it off, `None` when
    /// the agent left.
    #[allow(clippy::too_many_arguments)]
    async fn pass_on(
        &self,
        service: Service,
        now: &Snapshot,
        upstream: &Upstream,
        work: &Work,
        answer: Answer,
        output: &mut Output,
        log: &mut Log,
    ) -> Option<bool> {
        let mut headers = headers::to_agent(&answer.headers);
        if let (Some(model), true) = (&work.identity.model, log.is_routed())
            && headers.contains_key("openai-model")
        {
            // Codex tells people that their account was flagged when another model answers than was asked.
            match HeaderValue::from_str(model) {
                Ok(model) => drop(headers.insert("openai-model", model)),
                Err(_) => drop(headers.remove("openai-model")),
            }
        }
        let idle = now.settings.network(service, &upstream.name).idle_timeout();
        log.answers(answer.status);
        let end = pump::pump(service, work, answer, headers, idle, output, log).await;
        if end == Some(false)
            && let Some(session) = &work.identity.session
        {
            self.health(service).leave(session);
        }
        end
    }

    /// Nobody gave an answer: the last error is passed on, in a form that the agent survives where it may pass.
    async fn give_up(&self, service: Service, last: Option<Failure>, output: &mut Output, log: &mut Log) {
        let message = last.as_ref().map_or_else(
            || "all upstreams are being tried by other requests; try again".to_owned(),
            |failure| failure.message.clone(),
        );
        log.error(&message);
        if output.has_head() {
            return output.end(service.late_error(&message)).await;
        }
        match last.and_then(|failure| failure.error) {
            Some((mut status, headers, body)) => {
                let mut headers = headers::to_agent(&headers);
                headers.remove(http::header::CONTENT_LENGTH);
                service.soften(&mut status, &mut headers, &body);
                log.status(status);
                output.whole(status, headers, body).await;
            }
            None => {
                let message = format!("no upstream of {service} could be reached; the last one: {message}");
                let (status, body) = service.own_error("upstreams_failed", &message, false);
                log.status(status);
                output.whole(status, json_headers(), body).await;
            }
        }
    }

    /// What to do when nobody can be asked.
    fn nobody(&self, service: Service, now: &Snapshot) -> String {
        let file = self.live.home().upstreams(service);
        if now.upstreams.list.is_empty() {
            format!(
                "the gateway has no upstream for {service} yet. Add one: arpc gateway add {service} NAME --base-url \
                 https://… --token …   (or edit {})",
                file.display()
            )
        } else {
            format!("all upstreams of {service} are switched off; see `arpc gateway list {service}`")
        }
    }

    fn is_unsealed(&self, session: &str) -> bool {
        self.unsealed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(session)
    }

    fn remember_unsealed(&self, session: &str) {
        let mut all = self.unsealed.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_UNSEALED {
            let oldest = all.iter().min_by_key(|(_, at)| **at).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                all.remove(&oldest);
            }
        }
        all.insert(session.to_owned(), Instant::now());
    }
}

impl Work {
    /// Takes out what an earlier upstream has signed or sealed. Was there any?
    fn unseal(&mut self, service: Service) -> bool {
        // A turn's routing mark belongs to the upstream that gave it.
        self.headers.remove("x-codex-turn-state");
        match service.without_seals(self.kept()) {
            Some(body) => {
                self.replace(body);
                true
            }
            None => false,
        }
    }
}

/// An upstream that is being asked. Whatever happens, the probe that this may be is given back.
struct Asked<'a> {
    health: &'a Health,
    upstream: &'a Upstream,
    known: bool,
}

impl Asked<'_> {
    fn learnt(mut self, good: Option<bool>, now: &Snapshot, session: Option<&str>) {
        match good {
            Some(true) => {
                self.known = true;
                let active = now.upstreams.active().map(|u| &u.name);
                self.health
                    .succeeded(&self.upstream.name, session, active, Instant::now());
            }
            Some(false) => self.failed(now, None),
            None => {}
        }
    }

    fn failed(mut self, now: &Snapshot, wait: Option<Duration>) {
        self.known = true;
        let name = &self.upstream.name;
        if self.health.failed(name, now.balance(), wait, Instant::now()) {
            tracing::warn!(upstream = %name, "it rests now");
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.known {
            self.health.gave_up(&self.upstream.name);
        }
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
