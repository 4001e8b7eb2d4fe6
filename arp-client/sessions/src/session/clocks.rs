//! When an actor has to do something though nothing happens. Times are monotone: a wall clock that jumps expires
//! and parks nothing.

use super::projection::Projection;
use crate::clock;
use crate::core::SessionsConfig;
use crate::defaults::{APPROVAL_FLOOR, INTERRUPT_AGAIN, INTERRUPTS, PUT_OFF};
use crate::model::{ApprovalView, Status};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// The session object is written to the database at most this late.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// The bus hears of a change that is no change of state at most this often.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// An actor without a process that nobody asked anything of for this long goes.
const RETIRE_AFTER: Duration = Duration::from_secs(60);

/// The times of one actor.
pub(super) struct Clocks {
    park_after: Option<Duration>,
    approval_timeout: Option<Duration>,
    idle_since: Instant,
    saved_at: Instant,
    told_at: Instant,
    /// When approvals that wait are denied, by the driver's id.
    deadlines: HashMap<String, Instant>,
    /// When an interrupt is to be repeated, and how many more times.
    interrupt_again: Option<(Instant, u32)>,
    /// When a process that is being ended must be gone.
    end_by: Option<Instant>,
}

impl Clocks {
    pub(super) fn new(config: &SessionsConfig) -> Self {
        let now = Instant::now();
        Self {
            park_after: config.park_after,
            approval_timeout: config.approval_timeout,
            idle_since: now,
            saved_at: now,
            told_at: now.checked_sub(TELL_EVERY).unwrap_or(now),
            deadlines: HashMap::new(),
            interrupt_again: None,
            end_by: None,
        }
    }

    /// When something is due at the latest.
    pub(super) fn due(&self, state: &Projection, untold: bool) -> Instant {
        let now = Instant::now();
        let mut due = now + RETIRE_AFTER;
        if untold {
            due = due.min(self.told_at + TELL_EVERY).min(self.saved_at + SAVE_EVERY);
        }
        for at in self.deadlines.values().chain(&self.end_by) {
            due = due.min(*at);
        }
        if let Some((at, _)) = self.interrupt_again {
            due = due.min(at);
        }
        if state.run.is_some() {
            if let Some(after) = self.park_after.filter(|_| state.meta.status == Status::Idle) {
                due = due.min(self.idle_since + after);
            }
        } else if let Some(at) = state.meta.starts_ms {
            due = due.min(now + put_off(at, clock::now_ms()));
        } else {
            due = due.min(self.idle_since + RETIRE_AFTER);
        }
        due
    }

    /// Gives the approvals that wait their deadlines.
    pub(super) fn approvals(&mut self, state: &Projection, waiting: &[ApprovalView]) {
        if waiting.is_empty() {
            self.deadlines.clear();
            return;
        }
        let Some((timeout, run)) = self.approval_timeout.zip(state.run.as_ref()) else {
            return;
        };
        let ids: Vec<&String> = run.approvals.iter().map(|one| &one.driver_id).collect();
        self.deadlines.retain(|id, _| ids.contains(&id));
        for one in &run.approvals {
            if !self.deadlines.contains_key(&one.driver_id) {
                // One that was asked before a restart has waited already, as far as the clock can be believed.
                let waited = clock::now_ms().saturating_sub(one.view.created_at.0);
                let left = timeout
                    .saturating_sub(Duration::from_millis(waited))
                    .max(timeout.min(APPROVAL_FLOOR));
                self.deadlines
                    .insert(one.driver_id.clone(), Instant::now() + left);
            }
        }
    }

    /// Approvals whose time is up.
    pub(super) fn expired(&self) -> Vec<String> {
        let now = Instant::now();
        let expired = self.deadlines.iter().filter(|(_, at)| **at <= now);
        expired.map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn status_changed(&mut self, status: Status) {
        if status == Status::Idle {
            self.idle_since = Instant::now();
        }
        if !status.is_busy() {
            self.interrupt_again = None;
        }
    }

    pub(super) fn should_park(&self, status: Status) -> bool {
        status == Status::Idle
            && self.end_by.is_none()
            && self
                .park_after
                .is_some_and(|after| self.idle_since.elapsed() >= after)
    }

    pub(super) fn is_retired(&self) -> bool {
        self.idle_since.elapsed() >= RETIRE_AFTER
    }

    pub(super) fn not_yet(&mut self) {
        self.idle_since = Instant::now();
    }

    pub(super) fn run_over(&mut self) {
        self.idle_since = Instant::now();
        self.interrupt_again = None;
        self.end_by = None;
        self.deadlines.clear();
    }

    pub(super) fn may_tell(&self) -> bool {
        self.told_at.elapsed() >= TELL_EVERY
    }

    pub(super) fn told(&mut self) {
        self.told_at = Instant::now();
    }

    pub(super) fn saved(&mut self) {
        self.saved_at = Instant::now();
    }

    /// A turn was interrupted. An agent that was told so just before it began (Claude) does not hear it: it is told
    /// again.
    pub(super) fn interrupted(&mut self) {
        self.interrupt_again = Some((Instant::now() + INTERRUPT_AGAIN, INTERRUPTS));
    }

    pub(super) fn interrupted_enough(&mut self) {
        self.interrupt_again = None;
    }

    /// Is it time to interrupt once more?
    pub(super) fn interrupt_again(&mut self) -> bool {
        let Some((at, left)) = self.interrupt_again else {
            return false;
        };
        if at > Instant::now() {
            return false;
        }
        self.interrupt_again = left
            .checked_sub(1)
            .map(|left| (Instant::now() + INTERRUPT_AGAIN, left));
        true
    }

    /// The process is being ended.
    pub(super) fn ends_within(&mut self, time: Duration) {
        let by = Instant::now() + time;
        self.end_by = Some(self.end_by.map_or(by, |before| before.min(by)));
    }

    /// Should it have ended by now? Asked once.
    pub(super) fn end_is_late(&mut self) -> bool {
        self.end_by.take_if(|at| *at <= Instant::now()).is_some()
    }
}

/// How long a start is still put off that was to be at this time, both in milliseconds since 1970.
pub(super) fn put_off(at_ms: u64, now_ms: u64) -> Duration {
    let left = Duration::from_millis(at_ms.saturating_sub(now_ms));
    if left > PUT_OFF { Duration::ZERO } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostprogram::HostProgram;
    use crate::session::projection::tests::waiting_since;

    /// What is left of the time of an approval that was asked at this moment by the wall clock.
    fn left(asked_ms: u64) -> Duration {
        let host = HostProgram::only("/bin/false".into(), Vec::new());
        let mut config = SessionsConfig::new("/".into(), host);
        config.approval_timeout = Some(Duration::from_secs(3600));
        let mut clocks = Clocks::new(&config);
        let state = waiting_since(asked_ms);
        let view = state.view();
        assert_eq!(view.approvals.len(), 1);
        clocks.approvals(&state, &view.approvals);
        assert!(clocks.expired().is_empty());
        let at = *clocks.deadlines.values().next().unwrap();
        // The wall clock may jump as it likes from here on: the deadline is monotone.
        clocks.approvals(&state, &view.approvals);
        assert_eq!(clocks.deadlines.values().next(), Some(&at));
        at.saturating_duration_since(Instant::now())
    }

    #[test]
    fn a_clock_that_jumps_puts_off_no_start() {
        assert_eq!(put_off(61_000, 1_000), Duration::from_secs(60));
        assert_eq!(put_off(1_000, 61_000), Duration::ZERO);
        // It was set back by a year since.
        assert_eq!(put_off(31_536_061_000, 1_000), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_expires_no_approval() {
        let now = clock::now_ms();
        let minute = Duration::from_secs(60);
        // Forwards by years, while arpc was off: there is a floor.
        assert_eq!(left(1_000), minute);
        // Backwards: it waits no longer than its whole time.
        assert_eq!(left(now + 1_000_000_000), 60 * minute);
        let half = left(now - 1_800_000);
        assert!(half > 29 * minute && half <= 30 * minute, "{half:?}");
    }
}
