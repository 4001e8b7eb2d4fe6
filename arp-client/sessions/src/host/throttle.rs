//! How fast an agent may print: not faster than `arpc` reads, and not without end.

use crate::defaults::{BACKLOG, FREE_OUTPUT, OUTPUT_RATE};
use crate::log::Position;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Flushes that are remembered.
const MOST: usize = 4096;

/// Counts what was written and what was read.
pub(super) struct Throttle {
    /// Newest record of each flush that was not read yet, and the bytes written when it was.
    unread: VecDeque<(u64, u64)>,
    /// The newest record that is known to be written, and the size of the log then.
    last: (u64, Option<u64>),
    /// Bytes written, and bytes that were read of them.
    written: u64,
    read: u64,
    /// Somebody tells what it reads. (An older arpc does not.)
    told: bool,
    /// Bytes since the last input, and since when they count.
    since_input: u64,
    over_since: Option<Instant>,
}

impl Throttle {
    pub(super) fn new(seq: u64) -> Self {
        Self {
            unread: VecDeque::new(),
            last: (seq, None),
            written: 0,
            read: 0,
            told: false,
            since_input: 0,
            over_since: None,
        }
    }

    /// The log reaches to here now.
    pub(super) fn wrote(&mut self, end: Position) {
        let before = self.last.1.unwrap_or(end.offset);
        if end.seq == self.last.0 && self.last.1.is_some() {
            return;
        }
        // A log that was folded is shorter than before.
        let bytes = end.offset.saturating_sub(before);
        self.last = (end.seq, Some(end.offset));
        self.written += bytes;
        self.since_input += bytes;
        // Nobody tells what it reads: what is remembered stays small.
        if self.unread.len() >= MOST {
            self.unread.pop_back();
        }
        self.unread.push_back((end.seq, self.written));
    }

    /// Read up to this record.
    pub(super) fn read(&mut self, seq: u64) {
        self.told = true;
        while let Some((newest, written)) = self.unread.front().copied()
            && newest <= seq
        {
            self.read = written;
            self.unread.pop_front();
        }
    }

    /// The agent was given something: what it prints now was asked for.
    pub(super) fn input(&mut self) {
        self.since_input = 0;
        self.over_since = None;
    }

    /// How long the agent has to wait; `None` until more was read. With nobody there only the budget counts.
    pub(super) fn wait(&mut self, alone: bool) -> Option<Duration> {
        if alone {
            self.told = false;
            self.unread.clear();
            self.read = self.written;
        }
        if self.told && self.written - self.read > BACKLOG {
            return None;
        }
        let Some(over) = self.since_input.checked_sub(FREE_OUTPUT) else {
            return Some(Duration::ZERO);
        };
        let since = *self.over_since.get_or_insert_with(Instant::now);
        let due = since + Duration::from_millis(over.saturating_mul(1000) / OUTPUT_RATE);
        Some(due.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64, offset: u64) -> Position {
        Position { offset, seq, line: 0 }
    }

    #[test]
    fn an_agent_waits_for_its_reader() {
        let mut throttle = Throttle::new(0);
        throttle.wrote(at(1, 0));
        throttle.read(1);
        throttle.wrote(at(2, BACKLOG / 2));
        throttle.wrote(at(3, BACKLOG + 1));
        assert_eq!(throttle.wait(false), None);
        throttle.read(2);
        assert_eq!(throttle.wait(false), Some(Duration::ZERO));
        throttle.wrote(at(4, 2 * BACKLOG));
        assert_eq!(throttle.wait(true), Some(Duration::ZERO), "nobody reads");
    }

    #[test]
    fn what_prints_without_end_is_slowed_down_until_it_is_asked_again() {
        let mut throttle = Throttle::new(0);
        throttle.wrote(at(1, 0));
        throttle.wrote(at(2, FREE_OUTPUT + 100 * OUTPUT_RATE));
        let wait = throttle.wait(false).unwrap();
        assert!(
            wait > Duration::from_secs(50) && wait <= Duration::from_secs(100),
            "{wait:?}"
        );
        throttle.input();
        assert_eq!(throttle.wait(false), Some(Duration::ZERO));
    }
}
