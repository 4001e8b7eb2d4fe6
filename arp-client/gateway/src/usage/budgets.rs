//! Limits on what is spent, per day, session or upstream: told when they are reached, or kept.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Sessions whose spending is remembered; the one that spent least recently goes first.
const MAX_SESSIONS: usize = 10_000;

/// What a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// All that is spent on one day (UTC).
    Day,
    /// All of one session.
    Session,
    /// What one upstream costs on one day (UTC).
    Upstream,
}

/// What happens when it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// It is told.
    #[default]
    Warn,
    /// Requests are refused (an upstream's: go elsewhere).
    Refuse,
}

/// One `[[budget]]` of `gateway.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// What it is called in messages.
    pub name: String,
    /// What it is for.
    pub per: Per,
    /// Only this upstream (or, per session, this session); each without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// Dollars.
    pub usd: f64,
    /// What happens then.
    #[serde(default)]
    pub then: Then,
}

impl Budget {
    /// What is wrong with it, if anything is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if !(self.usd.is_finite() && self.usd >= 0.0) {
            return Some(format!("budget {:?}: usd is a number from 0 up", self.name));
        }
        (self.name.trim().is_empty()).then(|| "a budget needs a name".to_owned())
    }
}

/// What was spent so far, in dollars.
#[derive(Debug, Default)]
pub struct Spent(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    day: String,
    all: f64,
    upstreams: HashMap<String, f64>,
    /// With a count that says who spent last.
    sessions: HashMap<String, (f64, u64)>,
    clock: u64,
}

impl Spent {
    fn with<T>(&self, today: &str, look: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.day != today {
            today.clone_into(&mut inner.day);
            inner.all = 0.0;
            inner.upstreams.clear();
        }
        look(&mut inner)
    }

    /// Adds what a request has cost on `day`; an earlier day than today's adds to sessions only.
    pub fn add(&self, today: &str, day: &str, upstream: Option<&str>, session: Option<&str>, usd: f64) {
        self.with(today, |inner| {
            if day == today {
                inner.all += usd;
                if let Some(upstream) = upstream {
                    *inner.upstreams.entry(upstream.to_owned()).or_default() += usd;
                }
            }
            let Some(session) = session else { return };
            inner.clock += 1;
            let clock = inner.clock;
            if inner.sessions.len() >= MAX_SESSIONS && !inner.sessions.contains_key(session) {
                let oldest = inner
                    .sessions
                    .iter()
                    .min_by_key(|(_, (_, at))| *at)
                    .map(|(id, _)| id.clone());
                if let Some(oldest) = oldest {
                    inner.sessions.remove(&oldest);
                }
            }
            let spent = inner.sessions.entry(session.to_owned()).or_default();
            *spent = (spent.0 + usd, clock);
        });
    }

    /// An upstream has another name now.
    pub fn rename(&self, from: &str, to: &str) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(usd) = inner.upstreams.remove(from) {
            *inner.upstreams.entry(to.to_owned()).or_default() += usd;
        }
    }

    /// What counts against a budget, for this upstream and session.
    #[must_use]
    pub fn of(&self, budget: &Budget, today: &str, upstream: Option<&str>, session: Option<&str>) -> f64 {
        self.with(today, |inner| match budget.per {
            Per::Day => inner.all,
            Per::Upstream => {
                let upstream = budget.of.as_deref().or(upstream);
                upstream
                    .and_then(|u| inner.upstreams.get(u))
                    .copied()
                    .unwrap_or(0.0)
            }
            Per::Session => {
                let session = budget.of.as_deref().or(session);
                session
                    .and_then(|s| inner.sessions.get(s))
                    .map_or(0.0, |(usd, _)| *usd)
            }
        })
    }

    /// The budget that refuses a request of this session, if one does. Those of upstreams are looked at when
    /// `upstream` is given, the others when it is not.
    #[must_use]
    pub fn refusing<'a>(
        &self,
        budgets: &'a [Budget],
        today: &str,
        upstream: Option<&str>,
        session: Option<&str>,
    ) -> Option<&'a Budget> {
        budgets.iter().find(|budget| {
            let applies = match budget.per {
                Per::Upstream => upstream.is_some_and(|u| budget.of.as_deref().is_none_or(|of| of == u)),
                Per::Session => {
                    upstream.is_none()
                        && session.is_some_and(|s| budget.of.as_deref().is_none_or(|of| of == s))
                }
                Per::Day => upstream.is_none(),
            };
            applies && budget.then == Then::Refuse && self.of(budget, today, upstream, session) >= budget.usd
        })
    }
}

/// A day as budgets have it: `YYYY-MM-DD`, UTC.
#[must_use]
pub fn day_of(unix_ms: i64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1000))
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    at.format(time::macros::format_description!("[year]-[month]-[day]"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_is_reached_refuses_and_a_new_day_begins_anew() {
        let budget = |per, of: Option<&str>, then| Budget {
            name: "b".into(),
            per,
            of: of.map(str::to_owned),
            usd: 1.0,
            then,
        };
        let spent = Spent::default();
        spent.add("d1", "d1", Some("a"), Some("s"), 0.6);
        let day = [budget(Per::Day, None, Then::Refuse)];
        assert!(spent.refusing(&day, "d1", None, None).is_none());
        spent.add("d1", "d1", Some("b"), Some("s"), 0.5);
        assert!(spent.refusing(&day, "d1", None, None).is_some());
        assert!(
            spent
                .refusing(&[budget(Per::Day, None, Then::Warn)], "d1", None, None)
                .is_none()
        );
        let session = [budget(Per::Session, None, Then::Refuse)];
        assert!(
            spent.refusing(&session, "d2", None, Some("s")).is_some(),
            "a session has no days"
        );
        assert!(spent.refusing(&session, "d2", None, Some("t")).is_none());
        let upstream = [budget(Per::Upstream, Some("a"), Then::Refuse)];
        spent.add("d2", "d2", Some("a"), None, 2.0);
        assert!(spent.refusing(&upstream, "d2", Some("a"), None).is_some());
        assert!(spent.refusing(&upstream, "d2", Some("b"), None).is_none());
        assert!(spent.refusing(&upstream, "d3", Some("a"), None).is_none());
        assert_eq!(day_of(1_800_000_000_000), "2027-01-15");
    }
}
