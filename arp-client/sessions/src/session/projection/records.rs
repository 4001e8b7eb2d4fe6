//! Records of the raw log: what each changes, and what readers are told of it.

use super::events::OwnEvent;
use super::run::Waiting;
use super::{Effect, FOLD_AT, Projection, REMEMBER_RESOLVED, Run, Step};
use crate::host::{Mark, NO_EXIT, RunEnd, RunStart, StopReason};
use crate::log::{Kind, Record};
use crate::model::{
    ApprovalSource, ApprovalView, Problem, ProblemKind, Resolution, Status, Time, Turn, shortened,
};
use crate::session::BusEvent;
use arp_agents::driver::{Action, Exit};
use arp_agents::event::{Approval, ApprovalOutcome, Edited, Event, Grant};
use std::sync::Arc;

impl Projection {
    /// Takes one record of the raw log.
    pub(in crate::session) fn record(&mut self, record: &Record) -> Step {
        self.meta.total_lines = self.meta.total_lines.max(record.line);
        self.now_ms = record.time_ms;
        self.fresh = record.seq > self.events_from;
        let text = String::from_utf8_lossy(&record.payload);
        match record.kind {
            Kind::Out => {
                if let Some(run) = &mut self.run {
                    let actions = run.driver.on_line(&text);
                    let fragment = run.driver.was_fragment();
                    self.apply(actions);
                    if fragment {
                        self.lines_to_fold.push(record.seq);
                        self.bytes_to_fold += record.payload.len();
                    }
                }
            }
            Kind::In => {
                let actions = self.sent(&text);
                self.apply(actions);
            }
            Kind::Err => {
                if let Some(run) = &mut self.run {
                    run.add_stderr(&text);
                }
                self.emit(&OwnEvent::Stderr {
                    text: &shortened(&text, 2000),
                });
            }
            Kind::Mark => match serde_json::from_str(&text) {
                Ok(mark) => self.mark(mark),
                Err(error) => tracing::warn!(%error, "a mark in the log cannot be read"),
            },
            Kind::RunStart => match serde_json::from_str(&text) {
                Ok(start) => self.run_started(start),
                Err(error) => tracing::warn!(%error, "a start in the log cannot be read"),
            },
            Kind::RunEnd => {
                let end = serde_json::from_str(&text).unwrap_or_else(|error| {
                    tracing::warn!(%error, "an end in the log cannot be read");
                    RunEnd::unseen(String::new())
                });
                self.run_ended(end);
            }
            Kind::Event => {}
        }
        self.follow_mode();
        if self.fresh {
            self.events_from = record.seq;
        }
        if !self.told.events.is_empty() {
            self.meta.updated_ms = self.now_ms;
        }
        self.step(record.seq, record.time_ms)
    }

    /// The session's mode is the one that the agent has, however it came to it.
    fn follow_mode(&mut self) {
        if let Some(mode) = self
            .run
            .as_ref()
            .filter(|run| run.ready)
            .and_then(|run| run.driver.mode())
        {
            self.meta.permission_mode = mode;
        }
    }

    fn run_started(&mut self, start: RunStart) {
        // A process whose end was lost with the machine: what it waited for is over.
        if self.run.is_some() {
            self.run_ended(RunEnd::unseen("the machine stopped".into()));
        }
        let Some(agent) = self.settings.agent.clone() else {
            return;
        };
        let options = start
            .options
            .unwrap_or_else(|| self.options(start.run, agent.as_ref()));
        self.run = Some(Run::new(start.run, agent.driver(&options)));
        self.meta.left_running.clear();
        if start.run > 0 {
            self.set_status(Status::Starting, None, NO_EXIT);
        }
        if !self.replaying {
            self.start_talking();
        }
    }

    /// A line reached the agent's input.
    fn sent(&mut self, line: &str) -> Vec<Action> {
        let Some(run) = &mut self.run else {
            return Vec::new();
        };
        run.anything_sent = true;
        if run.in_flight.front().is_some_and(|flight| flight.line == line) {
            return run
                .in_flight
                .pop_front()
                .map(|flight| flight.actions)
                .unwrap_or_default();
        }
        if let Some(at) = run.owed.iter().position(|owed| owed == line) {
            run.owed.remove(at);
        }
        run.driver.replay_sent(line)
    }

    fn mark(&mut self, mark: Mark) {
        match mark {
            Mark::Message { id } => {
                self.effects.push(Effect::Sent(id.clone()));
                self.queue.retain(|message| message.id != id);
                self.meta.problem = None;
                self.meta.error = None;
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
                let in_turn = self.meta.turn.is_some();
                if let Some(run) = &mut self.run {
                    run.cut |= in_turn && why != StopReason::Cancelled;
                    // Who cancels while it is being parked is not overruled.
                    let cancelled = matches!(run.stop, Some((StopReason::Cancelled, _)));
                    if !cancelled {
                        run.stop = Some((why, message));
                    }
                }
            }
            Mark::Past { event } => {
                if self.fresh {
                    self.told.events.push(event);
                }
            }
            Mark::Status { status, message } => {
                if status == Status::Failed {
                    let kind = if self.meta.runs == 0 {
                        ProblemKind::StartFailed
                    } else {
                        ProblemKind::ResumeFailed
                    };
                    self.set_problem(kind, message.clone().unwrap_or_default(), None);
                }
                if status == Status::Starting {
                    self.meta.problem = None;
                    self.meta.activity.clone_from(&message);
                }
                self.set_status(status, message, NO_EXIT);
            }
        }
    }

    /// Carries out what the driver wants.
    pub(super) fn apply(&mut self, actions: Vec<Action>) {
        let mut lines = Vec::new();
        for action in actions {
            match action {
                Action::Send(line) => lines.push(Action::Send(line)),
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
                } => self.resolved(&approval_id, outcome, message, edited),
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
                Action::TurnEnded => self.turn_ended(),
                Action::NeverResumes(why) => self.meta.never_resumes = Some(why),
                Action::Fatal(why) => self.begin_stop(StopReason::Failed, Some(why)),
            }
        }
        if lines.is_empty() {
            return;
        }
        match &mut self.run {
            Some(run) if self.replaying => run.owed.extend(lines.into_iter().filter_map(|line| match line {
                Action::Send(line) => Some(line),
                _ => None,
            })),
            _ => self.carry(lines, None, false),
        }
    }

    fn turn_ended(&mut self) {
        let began = self.meta.turn.take();
        let (now, fresh) = (self.now_ms, self.fresh);
        let Some(run) = &mut self.run else { return };
        let interrupted = run.interrupted_turn.take();
        if let Some(began) = interrupted.filter(|_| fresh && self.meta.executor == "codex") {
            // Codex lets a running command live on when a turn is interrupted.
            let since_ms = now.saturating_sub(began);
            self.effects.push(Effect::EndTools { since_ms });
        }
        if !fresh || began.is_none() {
            return;
        }
        self.effects.push(Effect::Sync);
        if self.told.fragments > FOLD_AT {
            self.told.fragments = 0;
            self.effects.push(Effect::FoldEvents);
        }
        if self.bytes_to_fold > FOLD_AT {
            self.bytes_to_fold = 0;
            let drop = std::mem::take(&mut self.lines_to_fold);
            self.effects.push(Effect::FoldLines(drop));
        }
    }

    fn asked(&mut self, mut approval: Approval) {
        let Some(run) = &mut self.run else { return };
        let driver_id = std::mem::take(&mut approval.id);
        approval.id = format!("{}.{}.{driver_id}", self.meta.id, run.number);
        let timeout_ms = self
            .settings
            .approval_timeout
            .map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        let view = ApprovalView {
            session_id: Some(self.meta.id.clone()),
            agent_session_id: self.meta.agent_session_id.clone(),
            session_title: self.meta.title.clone(),
            executor: self.meta.executor.clone(),
            project_path: Some(self.meta.project_path.clone()),
            source: ApprovalSource::Session,
            created_at: Time(self.now_ms),
            expires_at: timeout_ms.map(|ms| Time(self.now_ms.saturating_add(ms))),
            approval,
        };
        let event = Event::Approval(view.approval.clone());
        if self.fresh {
            self.effects
                .push(Effect::Tell(BusEvent::Approval(Arc::new(view.clone()))));
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
        let Approval {
            id, session_grants, ..
        } = run.approvals.remove(at).view.approval;
        let timed_out = run.timed_out.remove(driver_id);
        let outcome = if outcome == ApprovalOutcome::Denied && timed_out {
            ApprovalOutcome::TimedOut
        } else {
            outcome
        };
        if outcome == ApprovalOutcome::AllowedForSession {
            self.grant(&session_grants);
        }
        self.tell_resolved(id, outcome, message, edited);
    }

    /// The session may do more unasked from now on. What an agent forgets with its process stays here: it only keeps
    /// others from steering it.
    fn grant(&mut self, grants: &[Grant]) {
        for grant in grants {
            let Ok(mut granted) = serde_json::to_string(grant) else {
                continue;
            };
            match grant {
                // The mode is followed by itself.
                Grant::Mode { .. } => continue,
                Grant::Tool { .. } => {}
                // What it means is this session's own, and no other has the same.
                _ => granted.push_str(&format!(" of {}", self.meta.id)),
            }
            if !self.meta.granted.contains(&granted) {
                self.meta.granted.push(granted);
            }
        }
    }

    fn tell_resolved(
        &mut self,
        id: String,
        outcome: ApprovalOutcome,
        message: Option<String>,
        edited: Option<Edited>,
    ) {
        if self.resolved.len() >= REMEMBER_RESOLVED {
            self.resolved.pop_front();
        }
        self.resolved.push_back(id.clone());
        if self.fresh {
            let resolution = Resolution {
                id: id.clone(),
                session_id: Some(self.meta.id.clone()),
                outcome,
                message: message.clone(),
                edited: edited.clone(),
            };
            self.effects
                .push(Effect::Tell(BusEvent::Resolved(Arc::new(resolution))));
            self.effects.push(Effect::Sync);
        }
        self.emit_event(&Event::ApprovalResolved {
            id,
            outcome,
            message,
            edited,
        });
    }

    /// A turn failed while its process lives on.
    pub(super) fn turn_failed(&mut self, message: Option<&str>, api_status: Option<u16>) {
        let kind = if api_status.is_some() {
            ProblemKind::ApiError
        } else {
            ProblemKind::TurnFailed
        };
        let message = message.unwrap_or("the turn failed, and the agent did not say why");
        self.set_problem(kind, shortened(message, 500), api_status);
    }

    fn set_problem(&mut self, kind: ProblemKind, message: String, api_status: Option<u16>) {
        // A turn that failed in a process that lives can be said again there.
        let alive = matches!(kind, ProblemKind::ApiError | ProblemKind::TurnFailed);
        let cannot = self.meta.never_resumes.is_some() && !alive;
        self.meta.problem = Some(Problem {
            kind: if cannot { ProblemKind::CannotResume } else { kind },
            message,
            api_status,
            can_retry: !cannot,
        });
    }

    /// The process ended: what the session is now.
    fn run_ended(&mut self, end: RunEnd) {
        let cut = self.run.as_ref().is_some_and(|run| run.cut);
        let had_turn = cut || self.meta.turn.is_some() || end.cut_turn;
        let problem_before = self.meta.problem.take();
        if let Some(run) = &mut self.run {
            // Readers know how these ended.
            run.approvals
                .retain(|waiting| !end.resolved.contains(&waiting.view.approval.id));
            let stderr = run.stderr().to_owned();
            let actions = run.driver.on_exit(end.exit, &stderr);
            let never_ready = !run.ready;
            self.apply(actions);
            // A decision that was on its way when the agent died did not arrive.
            let left: Vec<String> = self
                .run
                .iter()
                .flat_map(|run| run.approvals.iter().map(|one| one.driver_id.clone()))
                .collect();
            for driver_id in left {
                self.resolved(&driver_id, ApprovalOutcome::Void, None, None);
            }
            self.tell_status_of_end(&end, had_turn, never_ready, problem_before);
        } else {
            self.tell_status_of_end(&end, had_turn, false, problem_before);
        }
        for id in end.void {
            if !self.was_resolved(&id) {
                self.tell_resolved(id, ApprovalOutcome::Void, None, None);
            }
        }
        for whole in self.texts.finish() {
            self.emit(&whole);
        }
        self.run = None;
        self.meta.left_running = end.left;
        if self.fresh {
            self.effects.push(Effect::Sync);
        }
    }

    fn tell_status_of_end(
        &mut self,
        end: &RunEnd,
        had_turn: bool,
        never_ready: bool,
        problem_before: Option<Problem>,
    ) {
        let (stop, words, ready, number) = match &mut self.run {
            Some(run) => {
                let words = run.last_words().map(|line| shortened(line, 500));
                (run.stop.take(), words, run.ready, run.number)
            }
            None => (None, None, false, 0),
        };
        let (status, error) = match (stop, &end.reason) {
            (Some((StopReason::Failed, why)), _) => (Status::Failed, why.or(words)),
            (Some((StopReason::Cancelled, _)), None) => (Status::Cancelled, None),
            (Some((StopReason::Cancelled, _)), Some(_)) => (Status::Cancelled, None),
            (Some((StopReason::Parked, why)), None) => (Status::Parked, why),
            (_, Some(reason)) => (Status::Failed, Some(reason.clone())),
            (None, None) if end.exit.code == Some(0) && ready => (Status::Completed, None),
            (None, None) => (Status::Failed, Some(describe(end.exit, words))),
        };
        self.ended_by_itself = status == Status::Completed;
        let why = error
            .clone()
            .or_else(|| self.meta.problem.as_ref().map(|problem| problem.message.clone()));
        let why = why.unwrap_or_else(|| "its process ended".into());
        // What `on_exit` said of the turn is known better here.
        self.meta.problem = None;
        match status {
            Status::Cancelled => {}
            _ if had_turn => self.set_problem(ProblemKind::TurnCut, format!("the turn was cut: {why}"), None),
            Status::Failed if never_ready && number > 0 => {
                self.set_problem(ProblemKind::ResumeFailed, why, None)
            }
            Status::Failed if never_ready => self.set_problem(ProblemKind::StartFailed, why, None),
            Status::Failed => self.set_problem(ProblemKind::AgentEnded, why, None),
            _ => self.meta.problem = problem_before,
        }
        if !self.queue.is_empty()
            && let Some(why) = self.meta.cannot_resume()
        {
            self.meta.never_resumes = Some(why.clone());
            self.set_problem(ProblemKind::CannotResume, why, None);
        }
        self.set_status(status, error, end.exit);
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
