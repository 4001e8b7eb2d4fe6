//! One session: what it is ([`projection`], a function of its raw log), the actor that does the I/O around it, and
//! what others may hold of it.
//!
//! The actor reads the raw log that the session host writes, in order, and feeds the projection; what comes of a
//! record goes into the event log. An actor that is made anew after a restart of `arpc` reads the log again and
//! arrives in the same state, without repeating an event: each event remembers the raw record it came from.

mod actor;
mod asks;
mod clocks;
mod folding;
mod hosting;
mod launch;
mod link;
mod mending;
mod projection;

pub(crate) use actor::Actor;

use crate::core::PastEvent;
use crate::error::SessionError;
use crate::model::{ApprovalView, Message, Resolution, SessionView};
use arp_agents::driver::{Decision, PermissionMode};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

/// How far a session's two sequences reach, for readers that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tail {
    /// Newest event.
    pub seq: u64,
    /// Newest line.
    pub lines: u64,
    /// Changes whenever the session object does.
    pub revision: u64,
    /// The session was deleted.
    pub removed: bool,
}

/// What an actor shows to others.
#[derive(Debug)]
pub(crate) struct Shared {
    view: Mutex<Arc<SessionView>>,
    pub(crate) tail: watch::Sender<Tail>,
}

impl Shared {
    pub(crate) fn new(view: SessionView) -> Self {
        let tail = Tail {
            seq: view.last_seq,
            lines: view.total_lines,
            revision: 0,
            removed: false,
        };
        Self {
            view: Mutex::new(Arc::new(view)),
            tail: watch::Sender::new(tail),
        }
    }

    pub(crate) fn view(&self) -> Arc<SessionView> {
        Arc::clone(&self.view.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// First the object, then the wake-up: who is woken sees the new object.
    pub(crate) fn publish(&self, view: Arc<SessionView>) {
        let (seq, lines) = (view.last_seq, view.total_lines);
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
        self.tail.send_modify(|tail| {
            tail.seq = seq;
            tail.lines = lines;
            tail.revision += 1;
        });
    }
}

/// What others hold of a session whose actor runs.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) asks: mpsc::Sender<Ask>,
    pub(crate) shared: Arc<Shared>,
}

type Reply<T> = oneshot::Sender<Result<T, SessionError>>;

/// What is asked of a session.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Start the first process; tell first what came before.
    Begin { past: Vec<PastEvent>, reply: Reply<()> },
    /// Accept a message.
    Message {
        text: String,
        client_id: Option<String>,
        interrupt: bool,
        reply: Reply<Accepted>,
    },
    /// Take a message back.
    Unqueue { message_id: String, reply: Reply<()> },
    /// Stop the turn.
    Interrupt { clear_queue: bool, reply: Reply<bool> },
    /// End the process, and say when it is gone.
    Cancel(Reply<()>),
    /// End the process so that it can go on later, and say when it is gone.
    Park {
        /// Why, in words.
        why: Option<String>,
        reply: Reply<()>,
    },
    /// Try again what went wrong.
    Retry {
        client_id: Option<String>,
        reply: Reply<Accepted>,
    },
    /// Go on with what waits, if the session is parked.
    Resume(Reply<()>),
    /// Answer an approval.
    Decide {
        approval_id: String,
        decision: Decision,
        reply: Reply<Resolution>,
    },
    /// Change what can be changed.
    Set { change: Change, reply: Reply<()> },
    /// Remove all records of the session, if this can be done first.
    Remove { first: RemoveFirst, reply: Reply<()> },
    /// Make events again that were damaged on disk.
    Mend(Reply<()>),
    /// Stop looking after the session, leave its process running.
    Detach(Reply<()>),
}

/// What has to come about before our records of a session are removed; if it does not, they stay.
pub(crate) struct RemoveFirst(pub(crate) Box<dyn FnOnce() -> Result<(), SessionError> + Send>);

impl std::fmt::Debug for RemoveFirst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RemoveFirst")
    }
}

/// Changes of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Another model.
    pub model: Option<String>,
    /// Another permission mode.
    pub permission_mode: Option<PermissionMode>,
    /// Another title.
    pub title: Option<String>,
}

/// A message was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// As it stands.
    pub message: Message,
    /// It had been accepted before, by the same `client_id`.
    pub duplicate: bool,
    /// Number of the turn that ran or was begun when it was accepted.
    pub turns: u64,
    /// How far the session's sequences reached then.
    pub tail: Tail,
}

/// Something happened to some session.
#[derive(Debug, Clone)]
pub enum BusEvent {
    /// A session is new or changed.
    Session(Arc<SessionView>),
    /// A session is gone.
    Removed(String),
    /// An approval waits.
    Approval(Arc<ApprovalView>),
    /// An approval no longer waits.
    Resolved(Arc<Resolution>),
}
