//! The protocol of one agent process as a state machine without I/O.
//!
//! The owner (a session) feeds what the process printed and what the user wants, and carries out the
//! [`Action`]s that come back. A driver is deterministic: fed the same output lines and the same sent lines
//! in the same order it arrives in the same state. That is how a session survives a restart of `arpc`: the
//! log holds both directions, and a fresh driver is brought up by [`Driver::replay_sent`] and
//! [`Driver::on_line`], whose `Send` actions are dropped while replaying. Both directions replayed give the
//! same events as they gave live, so a log of raw lines is all that has to be kept.
//!
//! A `Send` that comes up in the replay and has no line in the log was lost in a crash between reading and
//! writing: the owner sends it then. Prompts aside, what is sent depends on nothing but what was read, so a
//! comparison of the lines tells which.
//!
//! One driver serves one process. A session that outlives its process (parked and resumed) gets a new driver
//! with the new process, told by [`LaunchOptions::run`](crate::agent::LaunchOptions::run) that it is a later
//! one, so that the ids it makes do not repeat.

use crate::event::{Approval, ApprovalOutcome, Edited, Event};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

pub use crate::event::PermissionMode;

/// What the owner of a driver has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write this line (a newline is added) to the process's standard input.
    Send(String),
    /// Tell readers.
    Emit(Event),
    /// The agent's own id of this session became known.
    SessionId(String),
    /// The agent waits for a decision; answer with [`Command::Decide`]. Also told to readers by the owner
    /// (the driver does not emit [`Event::Approval`] besides).
    Ask(Approval),
    /// A question asked before no longer waits: a decision was sent ([`Command::Decide`] and its replay give
    /// this too), or it is void. Also told to readers by the owner (the driver does not emit
    /// [`Event::ApprovalResolved`] besides).
    Resolved {
        /// Which.
        approval_id: String,
        /// What became of it. A denial that the owner sent because time was up is `Denied` here; the owner
        /// knows better.
        outcome: ApprovalOutcome,
        /// The reason given with a denial.
        message: Option<String>,
        /// What was asked and what runs, where the arguments were changed.
        edited: Option<Edited>,
    },
    /// The agent is ready for the first prompt.
    Ready,
    /// The agent began a turn that nobody asked for (something it ran in the background reported back). It
    /// ends as any turn does; prompts wait until then.
    TurnBegan,
    /// A turn ended (the matching [`Event::TurnEnd`] is emitted besides); the next prompt may be sent.
    TurnEnded,
    /// The agent cannot go on with this session in another process, ever; the text says why.
    NeverResumes(String),
    /// The session cannot go on (unknown id to resume, protocol broken). The owner ends the process.
    Fatal(String),
}

/// What somebody wants of a running agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Begin the conversation (handshake of the protocol). Given once, before anything else.
    Start,
    /// The next turn. Only given when the driver is [`Action::Ready`] and no turn runs: the owner queues.
    Prompt {
        /// Idempotency id, for the event. It travels in the line that is sent, so a replay has it too.
        id: Option<String>,
        /// What the user says.
        text: String,
    },
    /// Stop the running turn, keep the session.
    Interrupt,
    /// Answer an approval.
    Decide {
        /// Which.
        approval_id: String,
        /// What.
        decision: Decision,
    },
    /// Use another model from the next turn on. (What was wanted at the launch and what was changed since is in
    /// the log; a replay needs neither. A later process is launched with the newest.)
    SetModel(String),
    /// Use another permission mode. [`PermissionMode::BypassPermissions`] is refused unless the options of
    /// the launch allowed it.
    SetPermissionMode(PermissionMode),
}

/// An answer to an approval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Go on.
    Allow {
        /// Remember it for the rest of the session.
        #[serde(default)]
        for_session: bool,
        /// Arguments to use in place of the agent's.
        #[serde(default)]
        updated_input: Option<Value>,
        /// Answers to the questions of an approval that asks some, by question text.
        #[serde(default)]
        answers: BTreeMap<String, String>,
        /// The permission mode to go on in: one of the approval's `modes`.
        #[serde(default)]
        permission_mode: Option<PermissionMode>,
    },
    /// Do not.
    Deny {
        /// Why; the agent is told.
        #[serde(default)]
        message: Option<String>,
        /// End the turn too.
        #[serde(default)]
        interrupt: bool,
    },
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommandError {
    /// This agent has no such ability; the text says which.
    #[error("{0}")]
    Unsupported(String),
    /// The machine's owner did not allow it; the text says what would.
    #[error("{0}")]
    Forbidden(String),
    /// No approval of that id waits.
    #[error("no approval {0} is waiting")]
    UnknownApproval(String),
    /// The session is not in a state for this (a turn runs, or none does).
    #[error("{0}")]
    WrongState(&'static str),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, if it exited by itself.
    pub code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
}

/// The protocol of one agent process.
pub trait Driver: Send {
    /// One line that the process printed on standard output, without its newline.
    fn on_line(&mut self, line: &str) -> Vec<Action>;

    /// Something the user wants. A refused command changes nothing.
    ///
    /// # Errors
    /// [`CommandError`] when this agent cannot do it, or not now.
    fn command(&mut self, command: Command) -> Result<Vec<Action>, CommandError>;

    /// While replaying a log: a line that an earlier driver sent to the process. Gives the actions that the
    /// command gave when it was live, without the `Send`.
    fn replay_sent(&mut self, line: &str) -> Vec<Action>;

    /// Did the line before only carry a fragment of what a later line tells as a whole? Such lines need not be kept
    /// once their turn is over.
    fn was_fragment(&self) -> bool {
        false
    }

    /// How tools are permitted now, by the agent's own word; `None` where it has not said so, or has a mode that
    /// is none of ours.
    fn mode(&self) -> Option<PermissionMode>;

    /// The process ended. Voids what waits, and ends a running turn as failed (or interrupted, if that was
    /// asked for); `stderr_tail` is for the message. A process that ends before it was ready is
    /// [`Action::Fatal`]: it told why on standard error, if anywhere.
    fn on_exit(&mut self, exit: Exit, stderr_tail: &str) -> Vec<Action>;
}
