//! One process of a session.

use crate::defaults::STDERR_TAIL;
use crate::host::{Mark, StopReason};
use crate::model::{ApprovalView, ending};
use arp_agents::driver::{Action, Driver};
use std::collections::{HashSet, VecDeque};

/// A process that runs, or whose log is being read again.
pub(in crate::session) struct Run {
    /// The how-manieth of the session.
    pub(super) number: u32,
    pub(super) driver: Box<dyn Driver>,
    /// Lines that were sent and are not in the log yet.
    pub(super) in_flight: VecDeque<Flight>,
    /// While replaying: lines that the driver wanted sent and that are not in the log yet.
    pub(super) owed: Vec<String>,
    /// Was anything sent to this process?
    pub(super) anything_sent: bool,
    /// Does the agent take prompts?
    pub(super) ready: bool,
    /// Our id of the message that was sent and is not in the log yet.
    pub(in crate::session) dispatching: Option<String>,
    /// Approvals that wait, oldest first.
    pub(in crate::session) approvals: Vec<Waiting>,
    /// The driver's ids of approvals that are denied because time was up.
    pub(super) timed_out: HashSet<String>,
    /// Why the process is being ended, if it is.
    pub(in crate::session) stop: Option<(StopReason, Option<String>)>,
    /// Did a turn run when it was told to end?
    pub(super) cut: bool,
    /// When the turn that was interrupted began, in milliseconds since 1970.
    pub(super) interrupted_turn: Option<u64>,
    stderr: String,
}

/// A line on its way to the agent.
pub(super) struct Flight {
    /// What goes into the log before it.
    pub(super) mark: Option<Mark>,
    pub(super) line: String,
    /// What is to be done when it has arrived.
    pub(super) actions: Vec<Action>,
}

/// An approval that waits.
pub(in crate::session) struct Waiting {
    /// The driver's id.
    pub(in crate::session) driver_id: String,
    pub(in crate::session) view: ApprovalView,
}

impl Run {
    pub(super) fn new(number: u32, driver: Box<dyn Driver>) -> Self {
        Self {
            number,
            driver,
            in_flight: VecDeque::new(),
            owed: Vec::new(),
            anything_sent: false,
            ready: false,
            dispatching: None,
            approvals: Vec::new(),
            timed_out: HashSet::new(),
            stop: None,
            cut: false,
            interrupted_turn: None,
            stderr: String::new(),
        }
    }

    /// Is it being parked? Then what its tools left running on purpose goes on.
    pub(super) fn keeps_tools(&self) -> bool {
        matches!(self.stop, Some((StopReason::Parked, _)))
    }

    /// Keeps the end of standard error for messages.
    pub(super) fn add_stderr(&mut self, line: &str) {
        self.stderr.push_str(line);
        self.stderr.push('\n');
        if self.stderr.len() > 2 * STDERR_TAIL {
            self.stderr = ending(&self.stderr, STDERR_TAIL).to_owned();
        }
    }

    pub(super) fn stderr(&self) -> &str {
        ending(&self.stderr, STDERR_TAIL)
    }

    /// The last line of it that says something.
    pub(super) fn last_words(&self) -> Option<&str> {
        self.stderr()
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())
    }
}
