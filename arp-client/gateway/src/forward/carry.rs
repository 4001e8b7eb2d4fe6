//! The way of one request: to one upstream after another, until one answers or nobody is left.

use super::attempt::{self, Answer, Failure, Route};
use super::pump::{self, Output};
use super::record::Log;
use super::request::Work;
use super::{Gateway, headers, json_headers};
use crate::activity::now_ms;
use crate::clients::NetworkError;
use crate::files::upstreams::Upstream;
use crate::health::Health;
use crate::live::Snapshot;
use crate::redact::recorded::Masker;
use crate::service::Service;
use crate::usage::budgets;
use http::StatusCode;
use http::header::HeaderValue;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Gateway {
    /// Asks one upstream after another and passes on what the first good one says.
    pub(super) async fn carry(self: Arc<Self>, service: Service, mut work: Work, mut output: Output) {
        let now = self.snapshot(service);
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
        // Most people have none, and then nobody needs to know the day.
        let today = match now.settings.budget.as_slice() {
            [] => String::new(),
            _ => budgets::day_of(now_ms()),
        };
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
            let answered = self
                .ask(
                    service,
                    &now,
                    &upstream,
                    asked_for.as_deref(),
                    &mut work,
                    &mut output,
                    &mut log,
                )
                .await;
            match answered {
                Ok(answer) => {
                    let good = self
                        .pass_on(service, &now, &upstream, &work, answer, &mut output, &mut log)
                        .await;
                    asked.learnt(good, &now, session.as_deref());
                    return;
                }
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
                        asked.learnt(true, &now, None);
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

    /// One upstream.
    #[allow(clippy::too_many_arguments)]
    async fn ask(
        &self,
        service: Service,
        now: &Snapshot,
        upstream: &Arc<Upstream>,
        chosen: Option<&str>,
        work: &mut Work,
        output: &mut Output,
        log: &mut Log,
    ) -> Result<Answer, Failure> {
        let network = now.settings.network(service, &upstream.name);
        let unusable = |e: NetworkError| Failure::upstreams(e.to_string());
        let client = self.clients.get(network, &upstream.origin).map_err(unusable)?;
        // Upgrades are a thing of HTTP/1.1.
        let sockets = match work.turn {
            Some(_) if network.websocket => Some(self.clients.get_http1(network).map_err(unusable)?),
            _ => None,
        };
        let model = work.identity.model.clone().unwrap_or_default();
        let routed = chosen.or_else(|| now.routes().model_for(&upstream.name, &model));
        let routed = routed.filter(|routed| *routed != model).map(str::to_owned);
        log.asks(upstream, routed.as_deref());
        let route = Route {
            client: &client,
            sockets: sockets.as_ref(),
            upstream,
            network,
            model: routed.as_deref(),
            texts: &now.settings.failover_texts,
        };
        let mut unsealed = false;
        loop {
            let asked = {
                // In one place from here on: what a future is given by value lies in it a second time.
                let asking = pin!(attempt::ask(service, &route, work));
                output.while_waiting(asking).await
            };
            match asked {
                Ok(answer) => return Ok(answer),
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

    /// Passes an answer on. Did it come whole, or did the upstream break it off?
    #[allow(clippy::too_many_arguments)]
    async fn pass_on(
        &self,
        service: Service,
        now: &Snapshot,
        upstream: &Upstream,
        work: &Work,
        mut answer: Answer,
        output: &mut Output,
        log: &mut Log,
    ) -> bool {
        log.hears_of(&answer.headers);
        let mut headers = headers::to_agent(std::mem::take(&mut answer.headers));
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
        let good = pump::pump(service, work, answer, headers, idle, output, log).await;
        if !good && let Some(session) = &work.identity.session {
            self.health(service).leave(session);
        }
        good
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
                log.hears_of(&headers);
                log.hears_whole(&body);
                let mut headers = headers::to_agent(headers);
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
    pub(super) fn nobody(&self, service: Service, now: &Snapshot) -> String {
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
}

/// An upstream that is being asked. Whatever happens, the probe that this may be is given back.
struct Asked<'a> {
    health: &'a Health,
    upstream: &'a Upstream,
    known: bool,
}

impl Asked<'_> {
    fn learnt(mut self, good: bool, now: &Snapshot, session: Option<&str>) {
        if !good {
            return self.failed(now, None);
        }
        self.known = true;
        let active = now.upstreams.active().map(|u| &u.name);
        self.health
            .succeeded(&self.upstream.name, session, active, Instant::now());
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
