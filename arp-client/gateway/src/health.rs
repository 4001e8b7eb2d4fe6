//! Who can be asked, and in which order: failures in a row, rest, the probe after it, and the upstream that a session
//! stays with.

use crate::files::balance::{Mode, Rules};
use crate::files::upstreams::{Upstream, Upstreams};
use rand::RngExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::macros::format_description;

/// Sessions that are remembered; the one that was quiet longest goes first.
const MAX_SESSIONS: usize = 10_000;
/// A session that has been quiet for so long has lost its prompt cache (5 minutes at all three), so it may go home.
const PAUSE: Duration = Duration::from_secs(300);
/// No `retry-after` keeps an upstream away for longer; then it is asked again.
const MAX_REST: Duration = Duration::from_secs(6 * 3600);

/// The state of one service's upstreams. Times are given by the caller, so that tests need not wait.
#[derive(Debug, Default)]
pub struct Health {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    upstreams: HashMap<Arc<str>, State>,
    sessions: HashMap<Arc<str>, Stay>,
    /// What the file said last, so that a change of it by hand is noticed.
    file: HashMap<String, f64>,
    changed: bool,
}

#[derive(Debug, Default, Clone)]
struct State {
    failures: u32,
    rest: Option<Rest>,
    probing: bool,
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    /// When it began, as the file has it.
    since: SystemTime,
    until: Instant,
}

#[derive(Debug)]
struct Stay {
    upstream: Arc<str>,
    /// Who was the active one when the session came to this upstream: another choice of a person counts at once.
    chosen: Option<Arc<str>>,
    last: Instant,
}

/// How an upstream stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is asked.
    Good {
        /// Failures since the last success.
        failures: u32,
    },
    /// It rests for so long.
    Resting(Duration),
    /// A person has switched it off, until the end of this day.
    Disabled(String),
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom to ask, in this order. Whoever rests or is switched off is left out, unless nobody else is there.
    pub fn order(
        &self,
        all: &Upstreams,
        rules: &Rules,
        session: Option<&str>,
        assigned: Option<&str>,
        now: Instant,
    ) -> Vec<Arc<Upstream>> {
        // Most people have switched nothing off until a day, and then nobody needs to know which one it is.
        let today = if rules.disabled_until.is_empty() {
            String::new()
        } else {
            today()
        };
        let mut inner = self.lock();
        inner.follow(rules, now);
        let enabled: Vec<_> = all
            .list
            .iter()
            .filter(|u| !disabled(rules, &u.name, &today))
            .collect();
        let active = all.active().filter(|u| !disabled(rules, &u.name, &today));
        let mut order: Vec<Arc<Upstream>> = match rules.mode {
            Mode::ActiveFirst => {
                // The others help out only where a person has given them a weight: else a request would go to an
                // account that nobody chose.
                let mut rest: Vec<_> = enabled
                    .into_iter()
                    .filter(|u| u.weight > 0.0 && active.is_none_or(|a| a.name != u.name))
                    .collect();
                by_weight(&mut rest);
                active.into_iter().chain(rest).cloned().collect()
            }
            Mode::WeightBased => {
                let mut sorted = enabled;
                by_weight(&mut sorted);
                sorted.into_iter().cloned().collect()
            }
            Mode::Proportional => shuffled(enabled),
        };
        let assigned = assigned
            .and_then(|name| all.get(name))
            .filter(|u| !disabled(rules, &u.name, &today));
        if let Some(assigned) = assigned {
            to_front(&mut order, assigned);
        } else if let Some(stay) = session.and_then(|id| inner.sessions.get(id)) {
            let chosen = all.active().map(|u| &u.name);
            let home = order
                .iter()
                .find(|u| inner.is_good(&u.name, now))
                .map(|u| &u.name);
            let quiet = now.saturating_duration_since(stay.last) >= PAUSE;
            let stays = match rules.mode {
                // Its home is the one that a person chose; it goes back there when it pauses.
                Mode::ActiveFirst | Mode::WeightBased => {
                    stay.chosen.as_ref() == chosen && (!quiet || home == Some(&stay.upstream))
                }
                Mode::Proportional => true,
            };
            if stays && let Some(upstream) = order.iter().find(|u| u.name == stay.upstream).cloned() {
                to_front(&mut order, &upstream);
            }
        }
        let (good, resting): (Vec<_>, Vec<_>) = order.into_iter().partition(|u| inner.is_good(&u.name, now));
        if good.is_empty() {
            return resting;
        }
        good
    }

    /// A request is about to go to `name`. After a rest only one does, to find out how it is; the others go on to the
    /// next.
    pub fn try_ask(&self, name: &Arc<str>, now: Instant) -> bool {
        let mut inner = self.lock();
        let Some(state) = inner.upstreams.get_mut(name) else {
            return true;
        };
        match state.rest {
            Some(rest) if rest.until <= now => !std::mem::replace(&mut state.probing, true),
            _ => true,
        }
    }

    /// It answered as it should. The session stays with it.
    pub fn succeeded(&self, name: &Arc<str>, session: Option<&str>, active: Option<&Arc<str>>, now: Instant) {
        let mut inner = self.lock();
        if let Some(state) = inner.upstreams.remove(name) {
            inner.changed |= state.failures > 0 || state.rest.is_some();
        }
        let Some(id) = session else { return };
        if inner.sessions.len() >= MAX_SESSIONS && !inner.sessions.contains_key(id) {
            let oldest = inner
                .sessions
                .iter()
                .min_by_key(|(_, stay)| stay.last)
                .map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                inner.sessions.remove(&oldest);
            }
        }
        inner.sessions.insert(
            id.into(),
            Stay {
                upstream: name.clone(),
                chosen: active.cloned(),
                last: now,
            },
        );
    }

    /// It failed through its own fault. After `rules.threshold` failures in a row, or when it named a time itself, it
    /// rests. Returns whether it rests now.
    pub fn failed(&self, name: &Arc<str>, rules: &Rules, wait: Option<Duration>, now: Instant) -> bool {
        let mut inner = self.lock();
        inner.changed = true;
        let state = inner.upstreams.entry(name.clone()).or_default();
        state.failures = state.failures.saturating_add(1);
        let probed = std::mem::take(&mut state.probing);
        let rest = match wait {
            Some(wait) => Some(wait.min(MAX_REST)),
            None if probed || state.failures >= rules.threshold => {
                Some(Duration::from_secs_f64(rules.rest_secs.clamp(0.0, 1e7)))
            }
            None => None,
        };
        if let Some(time) = rest {
            state.rest = Some(Rest {
                since: SystemTime::now(),
                until: now + time,
            });
        }
        rest.is_some()
    }

    /// The request to it was given up (the agent left): nothing is learnt from it.
    pub fn gave_up(&self, name: &Arc<str>) {
        if let Some(state) = self.lock().upstreams.get_mut(name) {
            state.probing = false;
        }
    }

    /// The session is to go elsewhere next time: its stream broke here.
    pub fn leave(&self, session: &str) {
        self.lock().sessions.remove(session);
    }

    /// An upstream has another name now: sessions stay with it, and what is known of it goes on.
    pub fn rename(&self, from: &str, to: &Arc<str>) {
        let mut inner = self.lock();
        if let Some(state) = inner.upstreams.remove(from) {
            inner.upstreams.entry(to.clone()).or_insert(state);
            inner.changed = true;
        }
        for stay in inner.sessions.values_mut() {
            if &*stay.upstream == from {
                stay.upstream = to.clone();
            }
            if stay.chosen.as_deref() == Some(from) {
                stay.chosen = Some(to.clone());
            }
        }
    }

    /// Forgets the failures of one upstream, or of all.
    pub fn reset(&self, name: Option<&str>) {
        let mut inner = self.lock();
        inner.changed = true;
        match name {
            Some(name) => drop(inner.upstreams.remove(name)),
            None => inner.upstreams.clear(),
        }
    }

    /// How an upstream stands now.
    pub fn standing(&self, name: &str, rules: &Rules, now: Instant) -> Standing {
        if disabled(rules, name, &today()) {
            return Standing::Disabled(rules.disabled_until.get(name).cloned().unwrap_or_default());
        }
        let mut inner = self.lock();
        inner.follow(rules, now);
        let state = inner.upstreams.get(name).cloned().unwrap_or_default();
        match state.rest {
            Some(rest) if rest.until > now => Standing::Resting(rest.until - now),
            _ => Standing::Good {
                failures: state.failures,
            },
        }
    }

    /// Has anything changed that belongs into the file?
    pub fn has_changes(&self) -> bool {
        self.lock().changed
    }

    /// What belongs into the file, if anything has changed since the last call: failures, and who rests since when.
    #[allow(clippy::type_complexity)]
    pub fn changes(&self) -> Option<(Vec<(String, u32)>, Vec<(String, f64)>)> {
        let mut inner = self.lock();
        if !std::mem::take(&mut inner.changed) {
            return None;
        }
        let mut failures = Vec::new();
        let mut resting = Vec::new();
        for (name, state) in &inner.upstreams {
            if state.failures > 0 {
                failures.push((name.to_string(), state.failures));
            }
            if let Some(rest) = state.rest {
                let since = rest
                    .since
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_secs_f64();
                resting.push((name.to_string(), since));
            }
        }
        failures.sort();
        resting.sort_by(|a, b| a.0.cmp(&b.0));
        inner.file = resting.iter().cloned().collect();
        Some((failures, resting))
    }
}

impl Inner {
    fn is_good(&self, name: &Arc<str>, now: Instant) -> bool {
        self.upstreams
            .get(name)
            .is_none_or(|s| s.rest.is_none_or(|rest| rest.until <= now && !s.probing))
    }

    /// Takes over what somebody else has written into the file: at the start, or by hand.
    fn follow(&mut self, rules: &Rules, now: Instant) {
        if self.file == rules.excluded || self.changed {
            return;
        }
        for (name, since) in &rules.excluded {
            if self.file.get(name) == Some(since) {
                continue;
            }
            let since = UNIX_EPOCH + Duration::try_from_secs_f64(*since).unwrap_or_default();
            let age = since.elapsed().unwrap_or_default();
            let rest = Duration::from_secs_f64(rules.rest_secs.clamp(0.0, 1e7));
            let state = self.upstreams.entry(name.as_str().into()).or_default();
            state.failures = state.failures.max(rules.threshold);
            state.rest = Some(Rest {
                since,
                until: now + rest.saturating_sub(age),
            });
        }
        for name in self.file.keys() {
            if !rules.excluded.contains_key(name) {
                self.upstreams.remove(name.as_str());
            }
        }
        self.file.clone_from(&rules.excluded);
    }
}

/// The highest weight first, equals by name, as CLP has it.
fn by_weight(list: &mut [&Arc<Upstream>]) {
    list.sort_by(|a, b| b.weight.total_cmp(&a.weight).then_with(|| a.name.cmp(&b.name)));
}

/// In an order that chance decides, so that each comes first as often as its weight says. Where nobody has a weight,
/// all are equal; else who has none is only there for when the others fail.
fn shuffled(list: Vec<&Arc<Upstream>>) -> Vec<Arc<Upstream>> {
    let even = list.iter().all(|u| u.weight == 0.0);
    let mut rng = rand::rng();
    let mut keyed: Vec<(f64, &Arc<Upstream>)> = list
        .into_iter()
        .map(|u| {
            let weight = if even { 1.0 } else { u.weight };
            // The first of exponential times with rates as the weights is each with its weight's chance.
            let draw: f64 = rng.random_range(f64::MIN_POSITIVE..1.0);
            let time = if weight > 0.0 {
                -draw.ln() / weight
            } else {
                f64::INFINITY
            };
            (time, u)
        })
        .collect();
    keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
    keyed.into_iter().map(|(_, u)| u.clone()).collect()
}

fn to_front(order: &mut Vec<Arc<Upstream>>, upstream: &Arc<Upstream>) {
    order.retain(|u| u.name != upstream.name);
    order.insert(0, upstream.clone());
}

fn disabled(rules: &Rules, name: &str, today: &str) -> bool {
    // Dates of this form are ordered as texts are. CLP counts the day itself as off.
    rules
        .disabled_until
        .get(name)
        .is_some_and(|until| until.as_str() >= today)
}

fn today() -> String {
    let now = OffsetDateTime::now_local().unwrap_or_else(|_| OffsetDateTime::now_utc());
    now.format(format_description!("[year]-[month]-[day]"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn upstreams(list: &[(&str, f64)], active: &str) -> Upstreams {
        let entries: Vec<String> = list
            .iter()
            .map(|(name, weight)| {
                format!(
                    r#""{name}":{{"base_url":"http://x","auth_token":"","weight":{weight},"active":{}}}"#,
                    *name == active
                )
            })
            .collect();
        Upstreams::parse(Path::new("x"), &format!("{{{}}}", entries.join(","))).unwrap()
    }

    fn rules(mode: Mode) -> Rules {
        Rules {
            mode,
            ..Rules::default()
        }
    }

    fn names(order: &[Arc<Upstream>]) -> Vec<&str> {
        order.iter().map(|u| &*u.name).collect()
    }

    #[test]
    fn the_order_follows_the_mode() {
        let all = upstreams(&[("a", 1.0), ("b", 9.0), ("c", 0.0), ("d", 9.0)], "c");
        let health = Health::default();
        let now = Instant::now();
        let order = |mode| health.order(&all, &rules(mode), None, None, now);
        assert_eq!(names(&order(Mode::ActiveFirst)), ["c", "b", "d", "a"]);
        assert_eq!(names(&order(Mode::WeightBased)), ["b", "d", "a", "c"]);
        let mut first = HashMap::new();
        for _ in 0..2_000 {
            let order = order(Mode::Proportional);
            assert_eq!(
                names(&order)[3],
                "c",
                "without a weight it is only there for when all fail"
            );
            *first.entry(order[0].name.to_string()).or_insert(0) += 1;
        }
        assert!((50..=180).contains(&first["a"]), "about 2000/19 times: {first:?}");
        let assigned = health.order(&all, &rules(Mode::WeightBased), None, Some("a"), now);
        assert_eq!(names(&assigned), ["a", "b", "d", "c"]);
    }

    #[test]
    fn who_fails_rests_and_one_request_finds_out_how_it_is() {
        let all = upstreams(&[("a", 2.0), ("b", 1.0)], "a");
        let rules = rules(Mode::WeightBased);
        let health = Health::default();
        let (a, start) = (all.list[0].name.clone(), Instant::now());
        let order = |now| health.order(&all, &rules, None, None, now);
        for _ in 0..2 {
            assert!(!health.failed(&a, &rules, None, start));
        }
        assert_eq!(names(&order(start)), ["a", "b"]);
        assert!(health.failed(&a, &rules, None, start));
        assert_eq!(names(&order(start)), ["b"]);
        let later = start + Duration::from_secs(601);
        assert_eq!(names(&order(later)), ["a", "b"]);
        assert!(
            health.try_ask(&a, later) && !health.try_ask(&a, later),
            "one probe"
        );
        assert_eq!(names(&order(later)), ["b"], "the others wait for it");
        assert!(
            health.failed(&a, &rules, None, later),
            "one failure is enough now"
        );
        let again = later + Duration::from_secs(601);
        assert!(health.try_ask(&a, again));
        health.gave_up(&a);
        assert!(health.try_ask(&a, again));
        health.succeeded(&a, None, None, again);
        assert_eq!(names(&order(again)), ["a", "b"]);
        assert!(
            health.failed(&a, &rules, Some(Duration::from_secs(30)), again),
            "it named a time itself"
        );
        assert_eq!(
            health.standing("a", &rules, again),
            Standing::Resting(Duration::from_secs(30))
        );
        assert!(health.failed(&all.list[1].name, &rules, Some(Duration::from_secs(9)), again));
        assert_eq!(
            names(&order(again)),
            ["a", "b"],
            "when nobody is left, all are asked"
        );
    }

    #[test]
    fn a_session_stays_where_its_cache_is_until_it_pauses_or_a_person_switches() {
        let all = upstreams(&[("a", 2.0), ("b", 1.0)], "a");
        let rules = rules(Mode::ActiveFirst);
        let health = Health::default();
        let (a, b, now) = (all.list[0].name.clone(), all.list[1].name.clone(), Instant::now());
        health.succeeded(&b, Some("s"), Some(&a), now);
        let order = |all: &Upstreams, now| names_of(health.order(all, &rules, Some("s"), None, now));
        assert_eq!(order(&all, now + Duration::from_secs(9)), ["b", "a"]);
        assert_eq!(order(&all, now + PAUSE), ["a", "b"], "home again");
        let switched = upstreams(&[("a", 2.0), ("b", 1.0), ("c", 0.0)], "c");
        assert_eq!(
            order(&switched, now),
            ["c", "a", "b"],
            "a person's choice counts at once"
        );
        health.leave("s");
        assert_eq!(order(&all, now), ["a", "b"]);
    }

    #[test]
    fn another_name_moves_no_session() {
        let all = upstreams(&[("a", 2.0), ("b", 1.0)], "a");
        let (a, b, now) = (all.list[0].name.clone(), all.list[1].name.clone(), Instant::now());
        let (rules, health) = (rules(Mode::ActiveFirst), Health::default());
        health.succeeded(&b, Some("s"), Some(&a), now);
        health.failed(&a, &rules, Some(Duration::from_secs(30)), now);
        let renamed = upstreams(&[("n", 2.0), ("m", 1.0)], "n");
        health.rename("a", &renamed.list[0].name);
        health.rename("b", &renamed.list[1].name);
        let later = now + Duration::from_secs(31);
        assert_eq!(
            names_of(health.order(&renamed, &rules, Some("s"), None, later)),
            ["m", "n"]
        );
        assert!(matches!(health.standing("n", &rules, now), Standing::Resting(_)));
        assert_eq!(health.standing("a", &rules, now), Standing::Good { failures: 0 });
    }

    fn names_of(order: Vec<Arc<Upstream>>) -> Vec<String> {
        order.iter().map(|u| u.name.to_string()).collect()
    }

    #[test]
    fn the_file_is_followed_and_told() {
        let all = upstreams(&[("a", 2.0), ("b", 1.0)], "a");
        let mut rules = rules(Mode::WeightBased);
        let epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        rules.excluded = HashMap::from([("a".to_owned(), epoch - 60.0), ("gone".to_owned(), 0.0)]);
        rules.disabled_until = HashMap::from([("b".to_owned(), "2999-01-01".to_owned())]);
        let health = Health::default();
        let now = Instant::now();
        assert!(matches!(health.standing("a", &rules, now), Standing::Resting(t) if t.as_secs() <= 540));
        assert!(matches!(health.standing("b", &rules, now), Standing::Disabled(_)));
        assert_eq!(
            names(&health.order(&all, &rules, None, None, now)),
            ["a"],
            "nobody else is there"
        );
        rules.excluded.clear();
        assert!(matches!(
            health.standing("a", &rules, now),
            Standing::Good { failures: 0 }
        ));
        rules.disabled_until = HashMap::from([("b".to_owned(), "2000-01-01".to_owned())]);
        assert_eq!(names(&health.order(&all, &rules, None, None, now)), ["a", "b"]);
        assert!(health.changes().is_none());
        health.failed(&all.list[0].name, &rules, Some(Duration::from_secs(5)), now);
        let (failures, resting) = health.changes().unwrap();
        assert_eq!(failures, [("a".to_owned(), 1)]);
        assert_eq!(resting[0].0, "a");
        assert!(health.changes().is_none());
    }
}
