//! What the log says becomes what readers see: records to the driver, its actions to events and state.

use super::BusEvent;
use super::actor::Actor;
use super::run::Waiting;
use crate::clock;
use crate::error::SessionError;
use crate::host::{Mark, RunEnd, StopReason};
use crate::log::{Kind, Record};
use crate::model::{ApprovalSource, ApprovalView, Resolution, Status, Time, Turn, ending, shortened};
use arp_agents::driver::{Action, Exit};
use arp_agents::event::{ApprovalOutcome, Edited, Event};
use serde::Serialize;
use std::sync::Arc;

/// Events of ours, beside those of the agents.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum OwnEvent<'a> {
    /// The session's process came or went.
    Status {
        status: Status,
        message: Option<&'a str>,
        exit_code: Option<i32>,
        exit_signal: Option<i32>,
    },
    /// A line of standard error.
    Stderr { text: &'a str },
}

impl Actor {
    /// Takes one record of the raw log.
    pub(super) async fn record(&mut self, record: &Record) -> Result<(), SessionError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        run.cursor = record.seq;
        self.meta.total_lines = record.line;
        self.now_ms = record.time_ms;
        self.fresh = record.seq > self.events_from;
        let text = String::from_utf8_lossy(&record.payload);
        let mut ended = None;
        let actions = match record.kind {
            Kind::Out => run.driver.on_line(&text),
            Kind::In => self.sent(&text),
            Kind::Err => {
                run.complain(&text);
                self.emit(&OwnEvent::Stderr {
                    text: &shortened(&text, 2000),
                });
                Vec::new()
            }
            Kind::Mark => {
                self.mark(&text)?;
                Vec::new()
            }
            Kind::RunEnd => {
                let end: RunEnd = serde_json::from_str(&text).unwrap_or_else(|error| {
                    tracing::warn!(%error, "an end in the log cannot be read");
                    RunEnd {
                        exit: Exit {
                            code: None,
                            signal: None,
                        },
                        reason: None,
                    }
                });
                let stderr = run.stderr().to_owned();
                let actions = run.driver.on_exit(end.exit, &stderr);
                ended = Some(end);
                actions
            }
            Kind::RunStart | Kind::Event => Vec::new(),
        };
        self.apply(actions).await?;
        if let Some(end) = ended {
            self.process_ended(&end);
        }
        self.end_batch(record.seq)
    }

    /// A line reached the agent's input.
    fn sent(&mut self, line: &str) -> Vec<Action> {
        let Some(run) = &mut self.run else {
            return Vec::new();
        };
        run.anything_sent = true;
        if run.in_flight.front().is_some_and(|(sent, _)| sent == line) {
            return run
                .in_flight
                .pop_front()
                .map(|(_, actions)| actions)
                .unwrap_or_default();
        }
        if let Some(at) = run.owed.iter().position(|owed| owed == line) {
            run.owed.remove(at);
        }
        run.driver.replay_sent(line)
    }

    fn mark(&mut self, text: &str) -> Result<(), SessionError> {
        let mark: Mark = match serde_json::from_str(text) {
            Ok(mark) => mark,
            Err(error) => {
                tracing::warn!(%error, "a mark in the log cannot be read");
                return Ok(());
            }
        };
        match mark {
            Mark::Message { id } => {
                self.core.store.message_sent(&id)?;
                self.queue.retain(|message| message.id != id);
                if self.meta.turn.is_none() {
                    // A replay: the turn was counted when the message was sent.
                    let saved = self.saved_turn.take();
                    let (number, started) = (self.meta.turns, self.now_ms);
                    self.meta.turn = saved.or_else(|| {
                        Some(Turn {
                            number,
                            started,
                            prompt: String::new(),
                        })
                    });
                }
                if let Some(run) = &mut self.run
                    && run.dispatching.as_ref() == Some(&id)
                {
                    run.dispatching = None;
                }
            }
            Mark::TimedOut { approval } => {
                if let Some(run) = &mut self.run {
                    run.timed_out.insert(approval);
                }
            }
            Mark::Stop { why, message } => {
                if let Some(run) = &mut self.run {
                    run.stop = Some((why, message));
                }
            }
        }
        Ok(())
    }

    /// Carries out what the driver wants.
    pub(super) async fn apply(&mut self, actions: Vec<Action>) -> Result<(), SessionError> {
        let mut lines = Vec::new();
        for action in actions {
            match action {
                Action::Send(line) => lines.push(line),
                Action::Emit(event) => self.emit_event(&event),
                Action::SessionId(id) => {
                    self.meta.agent_session_id = Some(id);
                    self.meta.opened_ms = self.now_ms;
                }
                Action::Ask(approval) => self.asked(approval),
                Action::Resolved {
                    approval_id,
                    outcome,
                    message,
                    edited,
                } => {
                    self.resolved(&approval_id, outcome, message, edited);
                }
                Action::Ready => {
                    if let Some(run) = &mut self.run {
                        run.ready = true;
                    }
                }
                Action::TurnBegan => {
                    if self.fresh {
                        self.meta.turns += 1;
                    }
                    let (number, started) = (self.meta.turns, self.now_ms);
                    self.meta.turn = Some(Turn {
                        number,
                        started,
                        prompt: String::new(),
                    });
                }
                Action::TurnEnded => self.turn_ended().await,
                Action::Fatal(why) => self.stop(StopReason::Failed, Some(why)).await,
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        match &mut self.run {
            Some(run) if run.replaying => run.owed.extend(lines),
            _ => self.send_lines(None, lines, Vec::new()).await,
        }
        Ok(())
    }

    async fn turn_ended(&mut self) {
        self.meta.turn = None;
        self.text_id.clear();
        let Some(run) = &mut self.run else { return };
        run.interrupt_again = None;
        if let (Some(began), Some(link), false) = (run.interrupted_turn.take(), &mut run.link, run.replaying)
            && self.leaves_tools
        {
            let since_ms = clock::now_ms().saturating_sub(began);
            if let Err(error) = link.send(&crate::host::ToHost::EndTools { since_ms }).await {
                tracing::debug!(%error, "the host is gone");
            }
        }
    }

    fn asked(&mut self, mut approval: arp_agents::event::Approval) {
        let Some(run) = &mut self.run else { return };
        let driver_id = std::mem::take(&mut approval.id);
        approval.id = format!("{}.{}.{driver_id}", self.meta.id, run.number);
        let view = ApprovalView {
            session_id: Some(self.meta.id.clone()),
            agent_session_id: self.meta.agent_session_id.clone(),
            session_title: self.meta.title.clone(),
            executor: self.meta.executor.clone(),
            project_path: Some(self.meta.project_path.clone()),
            source: ApprovalSource::Session,
            created_at: Time(self.now_ms),
            expires_at: self.core.config.approval_timeout.map(|timeout| {
                Time(
                    self.now_ms
                        .saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
                )
            }),
            approval,
        };
        let event = Event::Approval(view.approval.clone());
        if self.fresh {
            self.core.tell(BusEvent::Approval(Arc::new(view.clone())));
        }
        // An id that comes again replaces.
        run.approvals.retain(|waiting| waiting.driver_id != driver_id);
        run.approvals.push(Waiting { driver_id, view });
        self.emit_event(&event);
    }

    fn resolved(
        &mut self,
        driver_id: &str,
        outcome: ApprovalOutcome,
        message: Option<String>,
        edited: Option<Edited>,
    ) {
        let Some(run) = &mut self.run else { return };
        let Some(at) = run
            .approvals
            .iter()
            .position(|waiting| waiting.driver_id == driver_id)
        else {
            return;
        };
        let id = run.approvals.remove(at).view.approval.id;
        let outcome = if outcome == ApprovalOutcome::Denied && run.timed_out.remove(driver_id) {
            ApprovalOutcome::TimedOut
        } else {
            outcome
        };
        self.remember_resolved(id.clone());
        if self.fresh {
            self.core.tell(BusEvent::Resolved(Arc::new(Resolution {
                id: id.clone(),
                session_id: Some(self.meta.id.clone()),
                outcome,
                message: message.clone(),
                edited: edited.clone(),
            })));
        }
        self.emit_event(&Event::ApprovalResolved {
            id,
            outcome,
            message,
            edited,
        });
    }

    fn emit_event(&mut self, event: &Event) {
        match event {
            Event::Init { model, models, .. } => {
                if model.is_some() {
                    self.meta.model.clone_from(model);
                }
                if !models.is_empty() {
                    self.meta.models.clone_from(models);
                }
            }
            Event::Text { id, text, delta, .. } => self.text_activity(id, text, *delta),
            Event::Thinking { .. } => self.set_activity("Thinking…"),
            Event::ToolCall { name, title, .. } => {
                let line = if title.is_empty() {
                    name.clone()
                } else {
                    format!("{name}: {title}")
                };
                self.set_activity(&line);
            }
            Event::Error { message, .. } => self.set_activity(message),
            Event::TurnEnd { status, .. } => self.meta.last_turn = Some(*status),
            Event::Usage(usage) => self.meta.usage = Some(usage.clone()),
            _ => {}
        }
        self.emit(event);
    }

    /// The last line of the text that is being written.
    fn text_activity(&mut self, id: &str, text: &str, delta: bool) {
        if !delta || self.text_id != id {
            id.clone_into(&mut self.text_id);
            self.text.clear();
        }
        self.text.push_str(text);
        if self.text.len() > 4096 {
            self.text = ending(&self.text, 2048).to_owned();
        }
        if let Some(line) = self
            .text
            .lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())
        {
            self.meta.activity = Some(shortened(line, 140));
        }
    }

    fn set_activity(&mut self, line: &str) {
        let line = line.lines().next().unwrap_or_default();
        self.meta.activity = Some(shortened(line, 140));
    }

    /// Adds an event to the batch of this record.
    pub(super) fn emit(&mut self, event: &impl Serialize) {
        if !self.fresh {
            return;
        }
        match serde_json::to_string(event) {
            Ok(json) => self.batch.push(json),
            Err(error) => tracing::error!(%error, "an event cannot be written as JSON"),
        }
    }

    /// Appends the events of one record together: after a crash either all are there or none.
    pub(super) fn end_batch(&mut self, from: u64) -> Result<(), SessionError> {
        let last = self.batch.len();
        for (number, json) in std::mem::take(&mut self.batch).into_iter().enumerate() {
            let ends = number + 1 == last;
            self.meta.last_seq = self
                .events
                .append(Kind::Event, from, ends, self.now_ms, json.as_bytes())?;
            self.meta.updated_ms = self.now_ms;
        }
        if self.fresh {
            self.events_from = self.events_from.max(from);
        }
        if self.events.pending() > crate::defaults::PAGE_BYTES {
            self.events.flush()?;
        }
        Ok(())
    }

    /// The process ended: what the session is now.
    pub(super) fn process_ended(&mut self, end: &RunEnd) {
        let Some(run) = &mut self.run else { return };
        let words = run.last_words().map(|line| shortened(line, 500));
        let (status, error) = match (run.stop.take(), &end.reason) {
            (Some((StopReason::Failed, why)), _) => (Status::Failed, why.or(words)),
            (_, Some(reason)) => (Status::Failed, Some(reason.clone())),
            (Some((StopReason::Cancelled, _)), _) => (Status::Cancelled, None),
            (Some((StopReason::Parked, _)), _) => (Status::Parked, None),
            (None, None) if end.exit.code == Some(0) && run.ready => (Status::Completed, None),
            (None, None) => (Status::Failed, Some(describe(end.exit, words))),
        };
        self.ended_by_itself = status == Status::Completed;
        self.over = true;
        self.set_status(status, error, end.exit);
    }

    pub(super) fn set_status(&mut self, status: Status, error: Option<String>, exit: Exit) {
        self.meta.status = status;
        self.meta.error = error;
        self.meta.exit_code = exit.code;
        self.meta.exit_signal = exit.signal;
        self.meta.ended_ms = (!status.is_live()).then_some(self.now_ms);
        if !status.is_live() {
            self.meta.turn = None;
        }
        let message = self.meta.error.clone();
        self.emit(&OwnEvent::Status {
            status,
            message: message.as_deref(),
            exit_code: exit.code,
            exit_signal: exit.signal,
        });
        self.dirty = true;
    }
}

fn describe(exit: Exit, words: Option<String>) -> String {
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("the agent ended with exit code {code}"),
        (None, Some(signal)) => format!("the agent was ended by signal {signal}"),
        (None, None) => "the agent ended".to_owned(),
    };
    match words {
        Some(words) => format!("{how}: {words}"),
        None => how,
    }
}
