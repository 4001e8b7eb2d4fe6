//! One process of a session as its actor sees it.

use crate::defaults::STDERR_TAIL;
use crate::host::StopReason;
use crate::hostlink::HostLink;
use crate::log::LogReader;
use crate::model::{ApprovalView, ending};
use arp_agents::driver::{Action, Driver};
use std::collections::{HashSet, VecDeque};
use tokio::time::Instant;

/// A process that runs, or whose log is being read again.
pub(super) struct Run {
    /// The how-manieth of the session.
    pub(super) number: u32,
    pub(super) driver: Box<dyn Driver>,
    /// The connection to its host; none while there is no host to talk to.
    pub(super) link: Option<HostLink>,
    pub(super) log: LogReader,
    /// The raw record that was read last.
    pub(super) cursor: u64,
    /// Is the log of an earlier `arpc` being read?
    pub(super) replaying: bool,
    /// Lines that were sent and are not in the log yet, with what is to be done when they are.
    pub(super) in_flight: VecDeque<(String, Vec<Action>)>,
    /// While replaying: lines that the driver wanted sent and that are not in the log yet.
    pub(super) owed: Vec<String>,
    /// Was anything sent to this process?
    pub(super) anything_sent: bool,
    /// Does the agent take prompts?
    pub(super) ready: bool,
    /// Our id of the message that was sent and is not in the log yet.
    pub(super) dispatching: Option<String>,
    /// Approvals that wait, oldest first.
    pub(super) approvals: Vec<Waiting>,
    /// The driver's ids of approvals that are denied because time was up.
    pub(super) timed_out: HashSet<String>,
    /// Why the process is being ended, if it is.
    pub(super) stop: Option<(StopReason, Option<String>)>,
    /// When the turn that was interrupted began, in milliseconds since 1970.
    pub(super) interrupted_turn: Option<u64>,
    /// When an interrupt is to be repeated, and how many more times.
    pub(super) interrupt_again: Option<(Instant, u32)>,
    stderr: String,
}

/// An approval that waits.
pub(super) struct Waiting {
    /// The driver's id.
    pub(super) driver_id: String,
    pub(super) view: ApprovalView,
}

impl Run {
    pub(super) fn new(number: u32, driver: Box<dyn Driver>, log: LogReader, cursor: u64) -> Self {
        Self {
            number,
            driver,
            link: None,
            log,
            cursor,
            replaying: false,
            in_flight: VecDeque::new(),
            owed: Vec::new(),
            anything_sent: false,
            ready: false,
            dispatching: None,
            approvals: Vec::new(),
            timed_out: HashSet::new(),
            stop: None,
            interrupted_turn: None,
            interrupt_again: None,
            stderr: String::new(),
        }
    }

    /// Keeps the end of standard error for messages.
    pub(super) fn complain(&mut self, line: &str) {
        self.stderr.push_str(line);
        self.stderr.push('\n');
        if self.stderr.len() > 2 * STDERR_TAIL {
            self.stderr = ending(&self.stderr, STDERR_TAIL).to_owned();
        }
    }

    pub(super) fn stderr(&self) -> &str {
        ending(&self.stderr, STDERR_TAIL)
    }

    /// The last thing it complained about.
    pub(super) fn last_words(&self) -> Option<&str> {
        self.stderr()
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())
    }
}
