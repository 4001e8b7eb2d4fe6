//! A session's host: taken over from an earlier `arpc`, told to end, lost and found, and mourned.

use super::actor::Actor;
use super::link::Link;
use crate::defaults::{CLOSE_GRACE, PARK_DEADLINE, PARK_GRACE, STOP_DEADLINE, TERM_GRACE};
use crate::error::SessionError;
use crate::host::{RunEnd, StopReason, ToHost};
use crate::hostlink::{self, HostLink, Recovered};
use crate::log::{Kind, LogReader};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::time::Duration;

const LOST: &str = "the session's host process was killed, and the agent with it; everything it printed is kept. \
                    Send a message to go on";
const UNREACHABLE: &str = "the session's host process could not be reached (its socket was gone), so it was ended; \
                           everything it printed is kept. Send a message to go on";

impl Actor {
    /// Reads what an earlier `arpc` left, and goes on with its process if there is one.
    pub(super) async fn take_over(&mut self) -> Result<(), SessionError> {
        let end = LogReader::end_of(&self.dir.raw_log())?;
        if !self.is_live() && end.seq <= self.state.seen() {
            // All is told already; what comes is new.
            self.log.seek_seq(end.seq + 1)?;
            return Ok(());
        }
        let live = self.is_live();
        // Numbers that readers have seen; they are not given to anything else.
        let seen = self.state.meta.last_seq;
        if live {
            match HostLink::connect(&self.dir).await {
                Ok(link) => self.link = Link::Up(link),
                Err(error) if hostlink::host_lives(&self.dir) => {
                    tracing::warn!(session = self.state.meta.id, %error, "the session host does not answer");
                    self.link = Link::recover(&self.dir, &self.state.meta.id);
                }
                Err(_) => {}
            }
        }
        self.state.replay();
        self.seek_to_news()?;
        while let Some(record) = self.log.next_record()? {
            let step = self.state.record(&record);
            self.carry_out(step)?;
            if self.events.pending() > crate::defaults::PAGE_BYTES {
                self.events.flush()?;
            }
        }
        self.events.flush()?;
        self.events.raise(seen, 0);
        match &self.link {
            Link::Recovering(_) => {}
            Link::Up(_) if self.state.run.is_some() || !live => {
                let step = self.state.caught_up(true);
                self.carry_out(step)?;
            }
            _ => {
                let step = self.state.caught_up(false);
                self.carry_out(step)?;
                if live && (self.state.run.is_some() || self.state.meta.status.is_live()) {
                    self.link = Link::None;
                    self.mourn(LOST).await?;
                }
            }
        }
        self.changed();
        Ok(())
    }

    /// The connection to the host ended: the process did, or only the connection, or the host.
    pub(super) async fn host_gone(&mut self) -> Result<(), SessionError> {
        self.link = Link::None;
        while self.pump().await? {}
        if self.state.run.is_some() {
            self.link = Link::recover(&self.dir, &self.state.meta.id);
        }
        Ok(())
    }

    /// It is known what became of the host.
    pub(super) async fn recovered(&mut self, recovered: Recovered) -> Result<(), SessionError> {
        let reason = match recovered {
            Recovered::Connected(link) => {
                self.link = Link::Up(link);
                let step = if self.state.is_replaying() {
                    self.state.caught_up(true)
                } else {
                    self.state.reconnected()
                };
                return self.carry_out(step);
            }
            Recovered::Ended => LOST,
            Recovered::Unreachable => UNREACHABLE,
        };
        self.link = Link::None;
        // It may have written how it ended.
        while self.pump().await? {}
        if self.state.is_replaying() {
            let step = self.state.caught_up(false);
            self.carry_out(step)?;
        }
        if self.state.run.is_some() || self.state.meta.status.is_live() {
            self.mourn(reason).await?;
        }
        Ok(())
    }

    /// The process is gone, and its end was never recorded: that is done here.
    async fn mourn(&mut self, reason: &str) -> Result<(), SessionError> {
        hostlink::clean_up(&self.dir, &self.state.meta.id, &[]).await;
        let mut end = RunEnd::unseen(reason.to_owned());
        let raw = LogReader::end_of(&self.dir.raw_log())?;
        if raw.seq < self.state.seen() {
            // The power failed: readers know more than the log does.
            let known = Known::read(&self.dir)?;
            let waiting = self.state.view().approvals;
            end.resolved = waiting
                .into_iter()
                .map(|view| view.approval.id)
                .filter(|id| known.resolved.contains(id))
                .collect();
            end.void = known.approvals.into_iter().collect();
            end.cut_turn = known.in_turn;
        }
        self.write_own(Kind::RunEnd, &end)?;
        while self.pump().await? {}
        Ok(())
    }

    /// Ends a host that did not end its agent in time.
    pub(super) fn kill_host(&mut self) {
        tracing::warn!(
            session = self.state.meta.id,
            "the session host does not end its agent; it is ended itself"
        );
        self.link = Link::kill(&self.dir, &self.state.meta.id);
    }

    pub(super) fn tell_host_to_end(&mut self, keep_tools: bool) {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (close, deadline) = if keep_tools {
            (PARK_GRACE, PARK_DEADLINE)
        } else {
            (CLOSE_GRACE, STOP_DEADLINE)
        };
        self.link.send(ToHost::Stop {
            close_ms: ms(close),
            term_ms: ms(TERM_GRACE),
            keep_tools,
        });
        self.clocks.ends_within(deadline);
    }

    pub(super) async fn park(&mut self, why: Option<String>) {
        let step = self.state.stop(StopReason::Parked, why);
        self.carry_out_or_give_up(step).await;
    }

    /// The session cannot be looked after any more: its log cannot be read, or not be written.
    pub(super) async fn give_up(&mut self, error: &SessionError) {
        tracing::error!(session = self.state.meta.id, %error, "a session cannot go on");
        if self.state.run.is_some() || self.state.meta.status.is_live() {
            self.link = Link::None;
            // Nobody would ever look after it again.
            hostlink::kill_host(&self.dir, &self.state.meta.id).await;
            let told = self.write_own(Kind::RunEnd, &RunEnd::unseen(error.to_string()));
            let read = match told {
                Ok(()) => self.log.next_record(),
                Err(error) => {
                    tracing::error!(session = self.state.meta.id, %error, "its end cannot be written down");
                    Ok(None)
                }
            };
            if let Ok(Some(record)) = read {
                let step = self.state.record(&record);
                if let Err(error) = self.carry_out(step) {
                    tracing::error!(session = self.state.meta.id, %error, "cannot write events");
                }
            }
            self.state.run = None;
            self.fail(error);
        }
        let step = self.state.caught_up(false);
        drop(step);
        self.publish();
        self.save();
        self.ended.append(&mut self.waiting);
        for waiting in self.ended.drain(..) {
            let _ = waiting.send(Ok(()));
        }
    }
}

/// What the events say of a session whose raw log lost its end.
#[derive(Default)]
struct Known {
    /// Approvals that wait.
    approvals: BTreeSet<String>,
    /// Approvals that ended.
    resolved: BTreeSet<String>,
    in_turn: bool,
}

impl Known {
    fn read(dir: &crate::host::SessionDir) -> Result<Self, SessionError> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(rename = "type")]
            kind: String,
            #[serde(default)]
            id: Option<String>,
        }
        let mut known = Self::default();
        let mut events = LogReader::open(&dir.event_log())?;
        while let Some(record) = events.next_record()? {
            let Ok(head) = serde_json::from_slice::<Head>(&record.payload) else {
                continue;
            };
            match (head.kind.as_str(), head.id) {
                ("approval", Some(id)) => {
                    known.approvals.insert(id);
                }
                ("approval_resolved", Some(id)) => {
                    known.approvals.remove(&id);
                    known.resolved.insert(id);
                }
                ("user_message", _) => known.in_turn = true,
                ("turn_end", _) => known.in_turn = false,
                _ => {}
            }
        }
        Ok(known)
    }
}
