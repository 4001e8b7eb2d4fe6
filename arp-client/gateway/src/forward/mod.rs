//! One request of an agent: to one upstream after another, until one answers; and its answer back, as it comes.
//!
//! Until the first event of an answer is there, the next upstream can be asked without the agent noticing. After it
//! never: two answers must not be mixed. A stream that breaks then is ended in the way that makes the agent at hand
//! ask again by itself, and that request goes elsewhere.

mod attempt;
pub mod body;
mod headers;
mod models;
mod pump;
mod record;
mod request;
pub(crate) mod socket;

pub(crate) use attempt::{extra, url_at};
pub use headers::HOP_MARK;

use crate::activity::{Activity, now_ms};
use crate::choices::Choices;
use crate::clients::Clients;
use crate::dialect::Ending;
use crate::files::upstreams::Upstream;
use crate::health::Health;
use crate::live::{Live, Snapshot};
use crate::redact;
use crate::redact::placeholder::{Hidden, Key};
use crate::redact::recorded::Masker;
use crate::service::Service;
use crate::usage::budgets::{self, Spent};
use crate::usage::record::Record;
use crate::usage::store::{Choice, Usage};
use attempt::{Answer, Failure, Route};
use body::{Body, Cut, Owner};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use pump::{Head, Output};
use record::Log;
use request::Work;
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Pieces of an answer that may wait for a slow agent.
const PIECES: usize = 16;
/// Silence after which the agent is told that the line is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Sockets of agents at a time; whoever comes then uses HTTP.
const MAX_SOCKETS: usize = 1_024;
/// Sessions known to be refused elsewhere for what an earlier upstream has sealed.
const MAX_UNSEALED: usize = 10_000;

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
        let mut log = Log::new(service, &work, self.clone(), now.settings.clone());
        let health = self.health(service);
        let session = work.identity.session.clone();
        let model = work.identity.model.clone().unwrap_or_default();
        if now.settings.recording.on && work.identity.generates {
            log.keeps(work.readable(), Masker::new(&now.filters, &now.settings.redact));
        }
        let hidden = match self.hide(service, &now, &mut work) {
            Ok(hidden) => hidden,
            Err((code, message)) => {
                log.error(&message);
                let (status, body) = service.own_error(code, &message, true);
                log.status(status);
                return output.whole(status, json_headers(), body).await;
            }
        };
        log.redacted(hidden.len());
        output.restore(hidden);
        let today = budgets::day_of(now_ms());
        if work.identity.generates
            && let Some(budget) = self
                .spent
                .refusing(&now.settings.budget, &today, None, session.as_deref())
        {
            let message = format!(
                "the budget {:?} is used up ({:.2} dollars); raise it in {} or with the gateway's page",
                budget.name,
                budget.usd,
                self.live.home().settings().display()
            );
            log.error(&message);
            let (status, body) = service.own_error("budget_reached", &message, true);
            log.status(status);
            return output.whole(status, json_headers(), body).await;
        }
        let choice = session
            .as_deref()
            .map(|id| self.choices.of(id))
            .unwrap_or_default();
        let id = &work.identity;
        let route = now
            .settings
            .route
            .iter()
            .find(|route| route.fits(service, &model, id.agent.is_some(), id.class.as_deref()));
        let assigned = choice
            .upstream
            .clone()
            .or_else(|| route?.upstream.clone())
            .or_else(|| now.routes().upstream_for(&model).map(str::to_owned));
        // The models to ask for, one after the other; `None` leaves it to CLP's routes.
        let models: Vec<Option<String>> = match (&choice.model, route) {
            (Some(model), _) => vec![Some(model.clone())],
            (None, Some(route)) if !route.to.is_empty() => route.to.iter().cloned().map(Some).collect(),
            _ => vec![None],
        };
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
        let mut tries = Vec::with_capacity(models.len() * order.len());
        for model in &models {
            tries.extend(order.iter().map(|upstream| (model.clone(), upstream.clone())));
        }
        for (asked_for, upstream) in tries {
            if work.identity.generates
                && let Some(budget) =
                    self.spent
                        .refusing(&now.settings.budget, &today, Some(&upstream.name), None)
            {
                let message = format!(
                    "its budget {:?} is used up ({:.2} dollars a day)",
                    budget.name, budget.usd
                );
                log.failed(&upstream.name, &message);
                last = last.or(Some(Failure::upstreams(message)));
                continue;
            }
            if !health.try_ask(&upstream.name, Instant::now()) {
                continue;
            }
            let asked = Asked {
                health,
                upstream: &upstream,
                known: false,
            };
            match self
                .ask(
                    service,
                    &now,
                    &upstream,
                    asked_for.as_deref(),
                    &mut work,
                    &mut output,
                    &mut log,
                )
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
                Err(mut failure) => {
                    failure.message = upstream.without_keys(&failure.message);
                    log.failed(&upstream.name, &failure.message);
                    log.waits(failure.wait);
                    if failure.upstreams {
                        tracing::warn!(%service, upstream = %upstream.name, "{}", failure.message);
                        asked.failed(&now, failure.wait);
                    } else {
                        // A fault of the request itself: nobody else would answer it either, and it counts against
                        // nobody.
                        asked.learnt(Some(true), &now, None);
                    }
                    // Where a person has named other models, one that is not known here is no reason to give up.
                    let unknown = models.len() > 1
                        && failure
                            .error
                            .as_ref()
                            .is_some_and(|(status, ..)| *status == StatusCode::NOT_FOUND);
                    let next = (failure.upstreams || unknown) && work.is_kept();
                    last = Some(failure);
                    if !next {
                        break;
                    }
                }
            }
        }
        let patient = work.identity.joined;
        self.give_up(service, last, patient, &mut output, &mut log).await;
    }

    /// Hides what the upstreams are not to see.
    ///
    /// # Errors
    /// Code and message, when nobody can tell what would be seen.
    fn hide(
        &self,
        service: Service,
        now: &Snapshot,
        work: &mut Work,
    ) -> Result<Hidden, (&'static str, String)> {
        let mut hidden = Hidden::of(work.identity.session.as_deref().unwrap_or_default());
        if let Some(fault) = &now.unsafe_because {
            return Err((
                "filters_unusable",
                format!(
                    "the rules for what is hidden cannot be used, so nothing is sent: {fault}. Mend the file, or set \
                     fail_open = true under [redaction] in gateway.toml"
                ),
            ));
        }
        let redaction = now.settings.redact.is_on(service).then_some(&now.settings.redact);
        if redaction.is_none() && now.filters.rules.is_empty() {
            return Ok(hidden);
        }
        let open = now.settings.redaction.fail_open;
        if !work.is_kept() || work.is_coded() {
            if open {
                return Ok(hidden);
            }
            return Err((
                "cannot_be_filtered",
                "this request is too long (32 MiB) or compressed, so that nobody can see what is in it, and filters are \
                 on; nothing was sent"
                    .to_owned(),
            ));
        }
        // Codex tells here, too, where it works; the body has the same text, and both are to stay the same.
        let name = "x-codex-turn-metadata";
        let text = work.headers.get(name).and_then(|value| value.to_str().ok());
        let new =
            text.and_then(|text| redact::hide_text(&now.filters, redaction, &self.key, &mut hidden, text));
        if let Some(value) = new.and_then(|new| HeaderValue::from_str(&new).ok()) {
            work.headers.insert(name, value);
        }
        if work.kept().trim_ascii().is_empty() {
            return Ok(hidden);
        }
        match redact::hide(&now.filters, redaction, &self.key, &mut hidden, work.kept()) {
            Ok(Some(body)) => {
                work.replace(body);
                Ok(hidden)
            }
            Ok(None) => Ok(hidden),
            Err(_) if open => Ok(hidden),
            Err(e) => Err((
                "cannot_be_filtered",
                format!("filters are on, and this request's body is {e}; nothing was sent"),
            )),
        }
    }

    /// One upstream. `None` when the agent has left meanwhile.
    #[allow(clippy::too_many_arguments)]
    async fn ask(
        &self,
        service: Service,
        now: &Snapshot,
        upstream: &Upstream,
        chosen: Option<&str>,
        work: &mut Work,
        output: &mut Output,
        log: &mut Log,
    ) -> Result<Option<Answer>, Failure> {
        let network = now.settings.network(service, &upstream.name);
        let client = match work.turn {
            // Upgrades are a thing of HTTP/1.1.
            Some(_) if network.websocket => self.clients.get_http1(&network),
            _ => self.clients.get(&network),
        };
        let client = client.map_err(|e| Failure::upstreams(e.to_string()))?;
        let model = work.identity.model.clone().unwrap_or_default();
        let routed = chosen.or_else(|| now.routes().model_for(&upstream.name, &model));
        let routed = routed.filter(|routed| *routed != model).map(str::to_owned);
        log.asks(upstream, routed.as_deref());
        let route = Route {
            client: &client,
            upstream,
            network: &network,
            model: routed.as_deref(),
            texts: &now.settings.failover_texts,
        };
        let mut unsealed = false;
        loop {
            let asking = attempt::ask(service, &route, work);
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
        if output.restores() {
            // Secrets are longer or shorter than what stands for them.
            headers.remove(http::header::CONTENT_LENGTH);
        }
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
    async fn give_up(
        &self,
        service: Service,
        last: Option<Failure>,
        patient: bool,
        output: &mut Output,
        log: &mut Log,
    ) {
        let message = last.as_ref().map_or_else(
            || "all upstreams are being tried by other requests; try again".to_owned(),
            |failure| failure.message.clone(),
        );
        log.error(&message);
        if output.has_head() {
            return output.end(service.late_error(&message)).await;
        }
        let wait = last.as_ref().and_then(|failure| failure.wait);
        match last.and_then(|failure| failure.error) {
            Some((mut status, headers, mut body)) => {
                log.hears_whole(&body);
                let mut headers = headers::to_agent(&headers);
                headers.remove(http::header::CONTENT_LENGTH);
                let wait = wait.filter(|_| patient);
                service.soften(&mut status, &mut headers, &mut body, wait);
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
                if let Some(turn) = &mut self.turn {
                    turn.begins_anew();
                }
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
