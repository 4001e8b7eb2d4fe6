//! What goes on now: requests under way, and a line of events for whoever watches.

use crate::service::Service;
use crate::usage::Tokens;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast;

/// Events that wait for a slow watcher; one that is further behind is told to look anew.
const WAITING: usize = 256;
/// A request's progress is told at most this often.
const EVERY: Duration = Duration::from_millis(250);

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// An upstream is asked.
    Asking,
    /// Its answer comes.
    Streaming,
}

/// A request under way.
#[derive(Debug, Clone)]
pub struct Live {
    /// Its number; its record has the same.
    pub id: u64,
    /// When it came, in Unix milliseconds.
    pub at: i64,
    /// Whose API.
    pub service: Service,
    /// The agent's session.
    pub session: Option<String>,
    /// Method and path.
    pub path: String,
    /// Who is asked.
    pub upstream: Option<String>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The one that the upstream is asked for, where it is another one.
    pub routed: Option<String>,
    /// Where it stands.
    pub phase: Phase,
    /// Upstreams that failed so far.
    pub failed: u64,
    /// Tokens so far.
    pub tokens: Tokens,
    /// Secrets that were hidden.
    pub redacted: u64,
    begun: Instant,
    told: Option<Instant>,
}

impl Live {
    /// As the API shows it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id, "at": self.at, "service": self.service.name(), "session": self.session, "path": self.path,
            "upstream": self.upstream, "model": self.model, "routed": self.routed,
            "phase": match self.phase { Phase::Asking => "asking", Phase::Streaming => "streaming" },
            "failed": self.failed, "input": self.tokens.input, "cache_read": self.tokens.cache_read,
            "cache_write": self.tokens.cache_write, "output": self.tokens.output, "redacted": self.redacted,
            "millis": u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// Something happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its name.
    pub name: &'static str,
    /// What, as the API shows it.
    pub data: Value,
    /// The request that it is about, if it is about one.
    pub id: Option<u64>,
}

/// See the module. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    next: AtomicU64,
    live: Mutex<BTreeMap<u64, Live>>,
    events: broadcast::Sender<Arc<Event>>,
}

impl Default for Activity {
    fn default() -> Self {
        Self::after(0)
    }
}

/// Unix milliseconds.
#[must_use]
pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

impl Activity {
    /// Nothing yet; the first request gets the number after this one.
    #[must_use]
    pub fn after(last: u64) -> Self {
        Self(Arc::new(Shared {
            next: AtomicU64::new(last.saturating_add(1)),
            live: Mutex::default(),
            events: broadcast::Sender::new(WAITING),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Live>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything under way, the oldest first.
    #[must_use]
    pub fn live(&self) -> Vec<Live> {
        self.lock().values().cloned().collect()
    }

    /// What happens from now on.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.events.subscribe()
    }

    /// Tells the watchers, if there are any.
    pub fn tell(&self, name: &'static str, data: impl FnOnce() -> Value) {
        if self.0.events.receiver_count() > 0 {
            let _ = self.0.events.send(Arc::new(Event {
                name,
                data: data(),
                id: None,
            }));
        }
    }

    /// A request begins; its number.
    pub fn begin(
        &self,
        service: Service,
        session: Option<String>,
        model: Option<String>,
        path: String,
    ) -> u64 {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let live = Live {
            id,
            at: now_ms(),
            service,
            session,
            path,
            upstream: None,
            model,
            routed: None,
            phase: Phase::Asking,
            failed: 0,
            tokens: Tokens::default(),
            redacted: 0,
            begun: Instant::now(),
            told: None,
        };
        self.lock().insert(id, live);
        id
    }

    /// It has come further. What is `important` is told at once, progress now and then.
    pub fn change(&self, id: u64, important: bool, change: impl FnOnce(&mut Live)) {
        let mut all = self.lock();
        let Some(live) = all.get_mut(&id) else { return };
        change(live);
        if self.0.events.receiver_count() == 0 {
            return;
        }
        if important || live.told.is_none_or(|told| told.elapsed() >= EVERY) {
            live.told = Some(Instant::now());
            let data = live.to_json();
            drop(all);
            let _ = self.0.events.send(Arc::new(Event {
                name: "live",
                data,
                id: Some(id),
            }));
        }
    }

    /// It is over; `data` is what is left of it.
    pub fn end(&self, id: u64, data: impl FnOnce() -> Value) {
        self.lock().remove(&id);
        if self.0.events.receiver_count() > 0 {
            let _ = self.0.events.send(Arc::new(Event {
                name: "request",
                data: data(),
                id: Some(id),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_seen_and_its_end_is_told() {
        let activity = Activity::default();
        let id = activity.begin(
            Service::Claude,
            Some("s".into()),
            Some("m".into()),
            "POST /v1/messages".into(),
        );
        let mut watcher = activity.watch();
        activity.change(id, true, |live| live.upstream = Some("a".into()));
        activity.change(id, false, |live| live.tokens.output = 5);
        assert_eq!(activity.live()[0].tokens.output, 5);
        activity.end(id, || json!({"status": 200}));
        assert!(activity.live().is_empty());
        let first = watcher.try_recv().unwrap();
        assert_eq!((first.name, first.data["upstream"].as_str()), ("live", Some("a")));
        let last = watcher.try_recv().unwrap();
        assert_eq!(
            (last.name, last.id),
            ("request", Some(id)),
            "progress is not told twice within a moment"
        );
    }
}
