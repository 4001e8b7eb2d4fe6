//! What a request leaves behind: noted once, however it ends.

use super::Gateway;
use super::request::Work;
use crate::activity::{Phase, now_ms};
use crate::files::upstreams::Upstream;
use crate::redact::recorded::Masker;
use crate::service::Service;
use crate::settings::Settings;
use crate::usage::answers::Heard;
use crate::usage::record::Record;
use crate::usage::{Tokens, budgets, prices};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, HeaderMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Characters of a path that are noted.
const MAX_PATH: usize = 196;

/// Collects what is known of a request, shows it to whoever watches, and notes it when dropped.
#[derive(Debug)]
pub(crate) struct Log {
    record: Option<Record>,
    begun: Instant,
    generates: bool,
    gateway: Arc<Gateway>,
    settings: Arc<Settings>,
    id: u64,
    /// Who is asked: what it says is noted without its keys.
    asked: Option<Arc<Upstream>>,
    /// The last upstream's own time to wait.
    wait: Option<Duration>,
    /// What is to be kept beside the record.
    kept: Option<Kept>,
}

/// What is to be kept of a request and its answer.
#[derive(Debug)]
struct Kept {
    body: Option<Bytes>,
    /// None where nobody could read it.
    answer: Option<Heard>,
    masker: Masker,
}

impl Log {
    /// For a request that came now.
    pub(crate) fn new(service: Service, work: &Work, gateway: Arc<Gateway>, settings: Arc<Settings>) -> Self {
        let way = if work.turn.is_some() {
            "WS"
        } else {
            work.method.as_str()
        };
        let end = work.path.char_indices().nth(MAX_PATH).map(|(at, _)| at);
        let path = [way, " ", &work.path[..end.unwrap_or(work.path.len())]].concat();
        let id = gateway.activity().begin(
            service,
            work.identity.session.clone(),
            work.identity.model.clone(),
            path.clone(),
        );
        let record = Record {
            id: i64::try_from(id).unwrap_or(0),
            at: now_ms(),
            service: service.name(),
            session: work.identity.session.clone(),
            agent: work.identity.agent.clone(),
            upstream: None,
            failed: Vec::new(),
            model: work.identity.model.clone(),
            routed: None,
            path,
            status: 0,
            millis: 0,
            first_millis: None,
            tokens: Tokens::default(),
            cost: None,
            redacted: 0,
            project: work.identity.project.clone(),
            error: None,
        };
        Self {
            record: Some(record),
            begun: Instant::now(),
            generates: work.identity.generates,
            gateway,
            settings,
            id,
            asked: None,
            wait: None,
            kept: None,
        }
    }

    /// This body, if there is one that can be read, and the answer are to be kept beside the record, without what the
    /// masker finds.
    pub(crate) fn keeps(&mut self, body: Option<Bytes>, masker: Masker) {
        let answer = Some(self.gateway.usage().hears());
        self.kept = Some(Kept { body, answer, masker });
    }

    /// An answer with these fields comes. One that is compressed (we asked for none) is not kept: nobody could see what
    /// is in it.
    pub(crate) fn hears_of(&mut self, headers: &HeaderMap) {
        if let Some(kept) = &mut self.kept
            && headers
                .get(CONTENT_ENCODING)
                .is_some_and(|coding| coding != "identity")
        {
            kept.answer = None;
        }
    }

    fn heard(&mut self) -> Option<&mut Heard> {
        self.kept.as_mut()?.answer.as_mut()
    }

    /// The upstream said this event.
    pub(crate) fn hears(&mut self, event: &[u8]) {
        if let Some(heard) = self.heard() {
            heard.event(event);
        }
    }

    /// It says more than is looked at.
    pub(crate) fn hears_no_more(&mut self) {
        if let Some(heard) = self.heard() {
            heard.cut();
        }
    }

    /// The upstream said this, which is no stream.
    pub(crate) fn hears_whole(&mut self, text: &[u8]) {
        if let Some(heard) = self.heard() {
            heard.whole(text);
        }
    }

    fn edit(&mut self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            change(record);
        }
    }

    /// So many secrets were hidden.
    pub(crate) fn redacted(&mut self, count: usize) {
        let count = count as u64;
        self.edit(|r| r.redacted = count);
        self.gateway
            .activity()
            .change(self.id, false, |live| live.redacted = count);
    }

    /// The upstream named a time to wait.
    pub(crate) fn waits(&mut self, wait: Option<Duration>) {
        self.wait = wait;
    }

    /// This upstream is asked now, perhaps for another model.
    pub(crate) fn asks(&mut self, upstream: &Arc<Upstream>, routed: Option<&str>) {
        self.asked = Some(upstream.clone());
        let upstream = &*upstream.name;
        self.edit(|r| {
            r.upstream = Some(upstream.to_owned());
            r.routed = routed.map(str::to_owned);
        });
        self.gateway.activity().change(self.id, true, |live| {
            live.upstream = Some(upstream.to_owned());
            live.routed = routed.map(str::to_owned);
            live.phase = Phase::Asking;
        });
    }

    /// It failed, and why.
    pub(crate) fn failed(&mut self, upstream: &str, message: &str) {
        self.edit(|r| r.failed.push((upstream.to_owned(), message.to_owned())));
        self.gateway
            .activity()
            .change(self.id, true, |live| live.failed += 1);
    }

    /// What another account had sealed was taken out.
    pub(crate) fn unsealed(&mut self) {
        self.edit(|r| {
            let name = r.upstream.clone().unwrap_or_default();
            r.failed.push((
                name,
                "it refused what another account has sealed: taken out".to_owned(),
            ));
        });
    }

    /// An answer begins.
    pub(crate) fn answers(&mut self, status: StatusCode) {
        let millis = self.millis();
        self.edit(|r| {
            r.status = status.as_u16();
            r.first_millis = Some(millis);
        });
        self.gateway
            .activity()
            .change(self.id, true, |live| live.phase = Phase::Streaming);
    }

    /// The status that the agent gets.
    pub(crate) fn status(&mut self, status: StatusCode) {
        self.edit(|r| r.status = status.as_u16());
    }

    /// What was used, as far as is known.
    pub(crate) fn tokens(&mut self, tokens: Tokens) {
        let known = self.record.as_ref().is_some_and(|r| r.tokens == tokens);
        if !known {
            self.edit(|r| r.tokens = tokens);
            self.gateway
                .activity()
                .change(self.id, false, |live| live.tokens = tokens);
        }
    }

    /// What went wrong.
    pub(crate) fn error(&mut self, message: &str) {
        let message = match &self.asked {
            Some(upstream) => upstream.without_keys(message),
            None => message.to_owned(),
        };
        self.edit(|r| r.error = Some(message));
    }

    /// Is another model asked for than the agent named?
    pub(crate) fn is_routed(&self) -> bool {
        self.record.as_ref().is_some_and(|r| r.routed.is_some())
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let millis = self.millis();
        let Some(mut record) = self.record.take() else {
            return;
        };
        record.millis = millis;
        let asked = record.routed.as_deref().or(record.model.as_deref());
        record.cost = if record.tokens == Tokens::default() {
            // What used nothing costs nothing, whatever it would have cost.
            Some(0.0)
        } else {
            let price = asked.and_then(|model| prices::price(&self.settings.prices, model));
            price.map(|price| price.of(&record.tokens))
        };
        tracing::debug!(
            service = record.service,
            upstream = record.upstream.as_deref(),
            model = record.model.as_deref(),
            path = record.path,
            status = record.status,
            millis,
            tokens = record.tokens.total(),
            "request"
        );
        let id = self.id;
        self.gateway.activity().end(id, || record.to_json());
        // Lists and counts of tokens cost nothing; of them only what failed is of interest.
        if !self.generates && record.status < 400 {
            return;
        }
        if self.generates {
            self.gateway.heard(&record, self.wait);
        }
        if let Some(usd) = record.cost.filter(|usd| *usd > 0.0) {
            let (today, day) = (budgets::day_of(now_ms()), budgets::day_of(record.at));
            self.gateway.spent().add(
                &today,
                &day,
                record.upstream.as_deref(),
                record.session.as_deref(),
                usd,
            );
        }
        let usage = self.gateway.usage();
        // Whoever has switched it off meanwhile wants no more to be kept, of what was under way either.
        let wanted = |_: &Kept| self.gateway.live().settings().recording.on;
        let kept = self.kept.take().filter(wanted).and_then(|kept| {
            let answer = kept.answer.map(|heard| (heard, self.asked.take()));
            usage.to_keep(kept.body, answer, kept.masker, self.settings.recording)
        });
        usage.note(record, kept);
    }
}
