//! What a person has chosen for one session: its upstream, its model; and how the session stands.

use crate::service::Service;
use crate::usage::store::Choice;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sessions that are remembered; the one that was heard of least recently goes first.
const MAX_SESSIONS: usize = 10_000;

/// How a session stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whose API it speaks.
    pub service: Option<&'static str>,
    /// Who answered last.
    pub upstream: Option<String>,
    /// The model that was asked for last.
    pub model: Option<String>,
    /// Requests that went on elsewhere.
    pub failovers: u64,
    /// Secrets that were hidden.
    pub redacted: u64,
    /// All accounts are used up until then (Unix milliseconds).
    pub waits_until: Option<i64>,
}

#[derive(Debug, Default)]
struct Inner {
    choices: HashMap<String, Choice>,
    standings: HashMap<String, (Standing, u64)>,
    clock: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Choices(Mutex<Inner>);

impl Choices {
    /// With what was kept from before.
    #[must_use]
    pub fn new(kept: Vec<(String, Choice)>) -> Self {
        Self(Mutex::new(Inner {
            choices: kept.into_iter().collect(),
            ..Inner::default()
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was chosen for a session.
    #[must_use]
    pub fn of(&self, session: &str) -> Choice {
        self.lock().choices.get(session).cloned().unwrap_or_default()
    }

    /// Keeps a choice.
    pub fn choose(&self, session: &str, choice: Choice) {
        let mut inner = self.lock();
        if choice == Choice::default() {
            inner.choices.remove(session);
        } else if inner.choices.len() < MAX_SESSIONS || inner.choices.contains_key(session) {
            inner.choices.insert(session.to_owned(), choice);
        }
    }

    /// An upstream has another name now.
    pub fn rename(&self, service: Service, from: &str, to: &str) {
        let mut inner = self.lock();
        let Inner {
            choices, standings, ..
        } = &mut *inner;
        let new = |name: &mut Option<String>| {
            if name.as_deref() == Some(from) {
                *name = Some(to.to_owned());
            }
        };
        for (session, choice) in choices {
            // Names are of one service; of which one a session is, is known once it was heard of.
            let of = standings.get(session).and_then(|(standing, _)| standing.service);
            if of.is_none_or(|of| of == service.name()) {
                new(&mut choice.upstream);
            }
        }
        for (standing, _) in standings.values_mut() {
            if standing.service == Some(service.name()) {
                new(&mut standing.upstream);
            }
        }
    }

    /// How a session stands, if anything was heard of it since the gateway runs.
    #[must_use]
    pub fn standing(&self, session: &str) -> Option<Standing> {
        self.lock()
            .standings
            .get(session)
            .map(|(standing, _)| standing.clone())
    }

    /// Something was heard of it.
    pub fn heard(&self, session: &str, change: impl FnOnce(&mut Standing)) {
        let mut inner = self.lock();
        inner.clock += 1;
        let clock = inner.clock;
        if inner.standings.len() >= MAX_SESSIONS && !inner.standings.contains_key(session) {
            let oldest = inner
                .standings
                .iter()
                .min_by_key(|(_, (_, at))| *at)
                .map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                inner.standings.remove(&oldest);
            }
        }
        let (standing, at) = inner.standings.entry(session.to_owned()).or_default();
        *at = clock;
        change(standing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_kept_until_it_is_taken_back() {
        let chosen = Choice {
            upstream: Some("a".into()),
            model: None,
        };
        let choices = Choices::new(vec![("s".into(), chosen.clone())]);
        assert_eq!(choices.of("s"), chosen);
        choices.rename(Service::Claude, "a", "b");
        assert_eq!(choices.of("s").upstream.as_deref(), Some("b"));
        choices.choose("s", Choice::default());
        assert_eq!(choices.of("s"), Choice::default());
        assert!(choices.standing("s").is_none());
        choices.heard("s", |standing| standing.failovers += 1);
        assert_eq!(choices.standing("s").unwrap().failovers, 1);
    }
}
