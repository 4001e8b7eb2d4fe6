//! What a session is, as a function of its raw log: records in, state, events and effects out. No I/O, no clock.
//!
//! Everything that readers are told comes from a record: what the agent printed, what it was given, what `arpc`
//! noted. So a log that is read again after a restart gives the same events with the same numbers, and an actor
//! that comes late arrives in the same state. What somebody asks ([`commands`](self)) gives effects alone; the
//! record of what was sent, which comes back through the log, changes the state.

mod commands;
mod events;
mod records;
mod run;
mod texts;

pub(super) use run::Run;

use crate::host::Mark;
use crate::model::{ApprovalView, Message, Meta, SessionView, Status};
use crate::session::BusEvent;
use arp_agents::agent::{Agent, LaunchOptions, Resume};
use arp_agents::driver::{Action, Command};
use events::Told;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use texts::Texts;

/// Approvals decided lately that are remembered, to tell a late answer from a wrong id.
const REMEMBER_RESOLVED: usize = 256;
/// Fragments are folded once they take this many bytes.
const FOLD_AT: usize = 1024 * 1024;

/// What the actor has to do.
#[derive(Debug)]
pub(super) enum Effect {
    /// Give these lines to the agent, the mark before them into the log.
    Send {
        mark: Option<Mark>,
        lines: Vec<String>,
        /// The log must survive a power cut before the agent gets them.
        sync: bool,
    },
    /// Have the host end the process.
    End { keep_tools: bool },
    /// Have the host end what an interrupted turn's tools left behind.
    EndTools { since_ms: u64 },
    /// Tell everybody.
    Tell(BusEvent),
    /// The agent has this message.
    Sent(String),
    /// See to it that both logs survive a power cut.
    Sync,
    /// Have the host drop these lines: later ones say the same.
    FoldLines(crate::log::Spans),
    /// Fold the events.
    FoldEvents,
}

/// Events of one record, and what is to be done.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) events: Vec<String>,
    /// The record they come from, and its time.
    pub(super) from: u64,
    pub(super) time_ms: u64,
    pub(super) effects: Vec<Effect>,
}

/// What does not change while the actor lives.
#[derive(Clone)]
pub(super) struct Settings {
    /// The agent; none if it is no longer configured.
    pub(super) agent: Option<Arc<dyn Agent>>,
    pub(super) approval_timeout: Option<Duration>,
    pub(super) allow_bypass: bool,
}

/// One session, as far as its log was read.
pub(super) struct Projection {
    pub(super) meta: Meta,
    /// Messages that the agent does not have.
    pub(super) queue: VecDeque<Message>,
    pub(super) run: Option<Run>,
    settings: Settings,
    /// Records of the raw log up to this one have given their events.
    events_from: u64,
    /// Does the record at hand give events?
    fresh: bool,
    now_ms: u64,
    /// Is the log of an earlier `arpc` being read?
    replaying: bool,
    told: Told,
    effects: Vec<Effect>,
    texts: Texts,
    resolved: VecDeque<String>,
    /// The agent ended by itself with work left to do.
    ended_by_itself: bool,
    /// The running turn as it was kept, for the replay.
    saved_turn: Option<crate::model::Turn>,
    /// Lines that only held fragments of what later lines say as a whole.
    lines_to_fold: crate::log::Spans,
    bytes_to_fold: usize,
}

impl Projection {
    pub(super) fn new(meta: Meta, queue: VecDeque<Message>, settings: Settings, events_from: u64) -> Self {
        Self {
            meta,
            queue,
            run: None,
            settings,
            events_from,
            fresh: true,
            now_ms: 0,
            replaying: false,
            told: Told::default(),
            effects: Vec::new(),
            texts: Texts::default(),
            resolved: VecDeque::new(),
            ended_by_itself: false,
            saved_turn: None,
            lines_to_fold: crate::log::Spans::default(),
            bytes_to_fold: 0,
        }
    }

    /// The log is read again from the beginning of its newest process.
    pub(super) fn replay(&mut self) {
        self.replaying = true;
        self.saved_turn = self.meta.turn.take();
    }

    /// Is a log being read again?
    pub(super) fn is_replaying(&self) -> bool {
        self.replaying
    }

    /// All that an earlier `arpc` left was read. With a `host` the process goes on.
    pub(super) fn caught_up(&mut self, host: bool) -> Step {
        self.replaying = false;
        self.saved_turn = None;
        let Some(run) = &mut self.run else {
            return self.step(0, 0);
        };
        let owed = std::mem::take(&mut run.owed);
        if !host {
            return self.step(0, 0);
        }
        if run.stop.is_some() {
            let keep_tools = run.keeps_tools();
            self.effects.push(Effect::End { keep_tools });
        } else if !run.anything_sent && !run.ready {
            // The earlier arpc died before it had said a word.
            self.start_talking();
        } else if !owed.is_empty() {
            self.carry(owed.into_iter().map(Action::Send).collect(), None, false);
        }
        self.step(0, 0)
    }

    /// The handshake.
    fn start_talking(&mut self) {
        let Some(run) = &mut self.run else { return };
        match run.driver.command(Command::Start) {
            Ok(actions) => self.carry(actions, None, false),
            Err(error) => tracing::error!(session = self.meta.id, %error, "cannot start to talk to an agent"),
        }
    }

    /// The connection to the host is new: what it never got is sent again.
    pub(super) fn reconnected(&mut self) -> Step {
        let Some(run) = &self.run else {
            return self.step(0, 0);
        };
        for flight in &run.in_flight {
            self.effects.push(Effect::Send {
                mark: flight.mark.clone(),
                lines: vec![flight.line.clone()],
                sync: flight.mark.is_some(),
            });
        }
        if run.stop.is_some() {
            let keep_tools = run.keeps_tools();
            self.effects.push(Effect::End { keep_tools });
        }
        self.step(0, 0)
    }

    /// What the next process of the session is started with.
    pub(super) fn options(&self, number: u32, agent: &dyn Agent) -> LaunchOptions {
        let meta = &self.meta;
        // A session that never had a turn is not on the agent's disk: it begins as it did.
        let resume = match (&meta.agent_session_id, meta.turns) {
            (Some(id), 1..) if number > 0 => Resume::Session {
                id: id.clone(),
                fork: false,
            },
            _ => match meta.beginning.clone() {
                crate::model::Beginning::New => Resume::New,
                crate::model::Beginning::Session { id, fork } => Resume::Session { id, fork },
                crate::model::Beginning::Last { fork } => Resume::Last { fork },
            },
        };
        let session_id = (agent.capabilities().session_id && resume == Resume::New).then(|| {
            if number == 0 {
                meta.id.clone()
            } else {
                uuid::Uuid::new_v4().to_string()
            }
        });
        LaunchOptions {
            project_path: meta.project_path.clone(),
            model: meta.model.clone().filter(|_| meta.model_chosen),
            resume,
            permission_mode: meta.permission_mode,
            allowed_tools: meta.allowed_tools.clone(),
            session_id,
            allow_bypass: self.settings.allow_bypass,
            run: number,
            used_before: meta.used_before.clone(),
        }
    }

    /// The session object.
    pub(super) fn view(&self) -> SessionView {
        let approvals: Vec<ApprovalView> = self
            .run
            .iter()
            .flat_map(|run| run.approvals.iter().map(|one| one.view.clone()))
            .collect();
        let dispatching = self.run.as_ref().and_then(|run| run.dispatching.as_ref());
        let queue = self
            .queue
            .iter()
            .filter(|message| Some(&message.id) != dispatching)
            .cloned()
            .collect();
        SessionView::new(&self.meta, queue, approvals)
    }

    /// Where the session stands while it has a process. Has that changed?
    pub(super) fn update_status(&mut self) -> bool {
        let Some(run) = &self.run else { return false };
        if self.replaying {
            return false;
        }
        let status = match (&self.meta.turn, run.ready) {
            _ if !run.approvals.is_empty() => Status::Waiting,
            (Some(_), _) => Status::Running,
            (None, true) => Status::Idle,
            (None, false) => Status::Starting,
        };
        std::mem::replace(&mut self.meta.status, status) != status
    }

    /// Is there work for a process that is not there?
    pub(super) fn wants_process(&self) -> bool {
        self.run.is_none() && self.ended_by_itself && !self.queue.is_empty()
    }

    /// There is.
    pub(super) fn want_process(&mut self) {
        self.ended_by_itself = true;
    }

    /// It was seen to.
    pub(super) fn process_wanted(&mut self) {
        self.ended_by_itself = false;
    }

    /// What does not change while the actor lives.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The newest record that anybody may have seen something of.
    pub(super) fn seen(&self) -> u64 {
        self.events_from
    }

    /// Was this approval decided, or void, not long ago?
    pub(super) fn was_resolved(&self, approval_id: &str) -> bool {
        self.resolved.iter().any(|resolved| resolved == approval_id)
    }

    /// Takes what has come together.
    fn step(&mut self, from: u64, time_ms: u64) -> Step {
        Step {
            events: std::mem::take(&mut self.told.events),
            from,
            time_ms,
            effects: std::mem::take(&mut self.effects),
        }
    }
}

#[cfg(test)]
pub(in crate::session) mod tests;
