//! What a request leaves behind: noted once, however it ends.

use super::request::Work;
use crate::service::Service;
use crate::usage::Tokens;
use crate::usage::store::{Record, Usage};
use http::StatusCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Collects what is known of a request, and notes it when dropped.
#[derive(Debug)]
pub(crate) struct Log {
    record: Option<Record>,
    begun: Instant,
    generates: bool,
    usage: Usage,
}

impl Log {
    /// For a request that came now.
    pub(crate) fn new(service: Service, work: &Work, usage: Usage) -> Self {
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let record = Record {
            at: i64::try_from(at).unwrap_or(i64::MAX),
            service: service.name(),
            session: work.identity.session.clone(),
            agent: work.identity.agent.clone(),
            upstream: None,
            failed: Vec::new(),
            model: work.identity.model.clone(),
            routed: None,
            path: format!("{} {}", work.method, work.path)
                .chars()
                .take(200)
                .collect(),
            status: 0,
            millis: 0,
            first_millis: None,
            tokens: Tokens::default(),
            error: None,
        };
        Self {
            record: Some(record),
            begun: Instant::now(),
            generates: work.identity.generates,
            usage,
        }
    }

    fn edit(&mut self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut self.record {
            change(record);
        }
    }

    /// This upstream is asked now, perhaps for another model.
    pub(crate) fn asks(&mut self, upstream: &str, routed: Option<&str>) {
        self.edit(|r| {
            r.upstream = Some(upstream.to_owned());
            r.routed = routed.map(str::to_owned);
        });
    }

    /// It failed, and why.
    pub(crate) fn failed(&mut self, upstream: &str, message: &str) {
        self.edit(|r| r.failed.push((upstream.to_owned(), message.to_owned())));
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
    }

    /// The status that the agent gets.
    pub(crate) fn status(&mut self, status: StatusCode) {
        self.edit(|r| r.status = status.as_u16());
    }

    /// What was used, as far as is known.
    pub(crate) fn tokens(&mut self, tokens: Tokens) {
        self.edit(|r| r.tokens = tokens);
    }

    /// What went wrong.
    pub(crate) fn error(&mut self, message: &str) {
        self.edit(|r| r.error = Some(message.to_owned()));
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
        if let Some(mut record) = self.record.take() {
            record.millis = millis;
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
            // Lists and counts of tokens cost nothing; of them only what failed is of interest.
            if self.generates || record.status >= 400 {
                self.usage.note(record);
            }
        }
    }
}
