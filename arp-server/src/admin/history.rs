//! Traffic of the last minutes in memory, and of the days in the store.

use super::shape::{Sample, TrafficNow};
use super::unix_now;
use crate::metrics::{Counter, Totals};
use crate::store::{Day, today};
use crate::tunnels::pool::Counts;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time between two samples.
pub(super) const STEP: Duration = Duration::from_secs(5);
/// Samples that are kept: ten minutes.
const SAMPLES: usize = 120;
/// How often the day is noted in the store; what a crash can lose.
const NOTE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct History(Mutex<State>);

#[derive(Debug)]
struct State {
    samples: VecDeque<Sample>,
    /// As they are in the store.
    days: Vec<Day>,
    /// Not yet in the store; all of one day.
    pending: Day,
    noted: Instant,
    last: [u64; 4],
}

/// What the samples are made of: requests, bytes in, bytes out, refusals.
fn sums(totals: &Totals) -> [u64; 4] {
    [
        totals.requests(),
        totals.get(Counter::BytesIn),
        totals.get(Counter::BytesOut),
        totals.refusals(),
    ]
}

impl History {
    pub(super) fn new(days: Vec<Day>) -> Self {
        Self(Mutex::new(State {
            samples: VecDeque::with_capacity(SAMPLES),
            days,
            pending: Day {
                day: today(),
                ..Day::default()
            },
            noted: Instant::now(),
            // Of this process; nothing has been counted for this relay before.
            last: sums(&Totals::now()),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sample(&self, totals: &Totals, edges: usize, tunnels: Counts) {
        let mut state = self.lock();
        let sums = sums(totals);
        let [requests, bytes_in, bytes_out, refused] =
            std::array::from_fn(|i| sums[i].saturating_sub(state.last[i]));
        state.last = sums;
        if state.samples.len() == SAMPLES {
            state.samples.pop_front();
        }
        state.samples.push_back(Sample {
            at: unix_now(),
            requests,
            bytes_in,
            bytes_out,
            refused,
            edges,
            used: tunnels.used,
            waiting: tunnels.waiting,
        });
        let day = &mut state.pending;
        day.requests += requests;
        day.bytes_in += bytes_in;
        day.bytes_out += bytes_out;
        day.refused += refused;
    }

    /// What is to be noted in the store now; `at_once` when there is no later.
    pub(super) fn due(&self, at_once: bool) -> Option<Day> {
        let state = self.lock();
        let empty = Day {
            day: state.pending.day,
            ..Day::default()
        };
        let due = at_once || state.noted.elapsed() >= NOTE || state.pending.day != today();
        (due && state.pending != empty).then_some(state.pending)
    }

    /// This is in the store now.
    pub(super) fn noted(&self, more: &Day) {
        let mut state = self.lock();
        match state.days.iter_mut().find(|d| d.day == more.day) {
            Some(day) => add(day, more),
            None => state.days.push(*more),
        }
        let pending = &mut state.pending;
        pending.requests -= more.requests;
        pending.bytes_in -= more.bytes_in;
        pending.bytes_out -= more.bytes_out;
        pending.refused -= more.refused;
        pending.day = today();
        state.noted = Instant::now();
    }

    pub(super) fn now(&self) -> TrafficNow {
        let state = self.lock();
        let mut days = state.days.clone();
        match days.iter_mut().find(|d| d.day == state.pending.day) {
            Some(day) => add(day, &state.pending),
            None => days.push(state.pending),
        }
        TrafficNow {
            step: STEP.as_secs(),
            samples: state.samples.iter().copied().collect(),
            days,
        }
    }
}

fn add(day: &mut Day, more: &Day) {
    day.requests += more.requests;
    day.bytes_in += more.bytes_in;
    day.bytes_out += more.bytes_out;
    day.refused += more.refused;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_counted_once() {
        let earlier = Day {
            day: today() - 1,
            requests: 7,
            ..Day::default()
        };
        let history = History::new(vec![earlier]);
        assert_eq!(history.due(true), None, "nothing happened yet");
        let add_requests = |n| {
            history.lock().pending.requests += n;
        };
        add_requests(3);
        assert_eq!(history.due(false), None, "not so soon");
        let due = history.due(true).unwrap();
        // What comes while the store writes stays for the next time.
        add_requests(2);
        history.noted(&due);
        let days = |h: &History| h.now().days.iter().map(|d| d.requests).collect::<Vec<_>>();
        assert_eq!(days(&history), [7, 5]);
        assert_eq!(history.due(true).unwrap().requests, 2);
    }

    #[test]
    fn samples_have_an_end() {
        let history = History::new(vec![]);
        for _ in 0..SAMPLES + 5 {
            history.sample(&Totals::default(), 1, Counts::default());
        }
        assert_eq!(history.now().samples.len(), SAMPLES);
    }
}
