//! What somebody asks of a running process. The answer is effects; the state changes when the log shows that they
//! came about.

use super::run::Flight;
use super::{Effect, Projection, Step};
use crate::error::SessionError;
use crate::host::{Mark, StopReason};
use crate::model::{Resolution, Turn, shortened};
use arp_agents::driver::{Action, Command, CommandError, Decision, PermissionMode};
use arp_agents::event::{ApprovalOutcome, Edited};

impl Projection {
    /// Gives the agent the next message, if it can take one. `true`: it was given one.
    pub(in crate::session) fn dispatch(&mut self, now_ms: u64) -> Option<Step> {
        let run = self.run.as_mut()?;
        let busy = self.replaying || !run.ready || run.dispatching.is_some() || run.stop.is_some();
        if busy || self.meta.turn.is_some() {
            return None;
        }
        let message = self.queue.front()?.clone();
        let id = message.client_id.clone().unwrap_or_else(|| message.id.clone());
        let prompt = Command::Prompt {
            id: Some(id),
            text: message.text.clone(),
        };
        let actions = match run.driver.command(prompt) {
            Ok(actions) => actions,
            Err(error) => {
                tracing::warn!(session = self.meta.id, %error, "the agent does not take a message now");
                return None;
            }
        };
        run.dispatching = Some(message.id.clone());
        self.meta.turns += 1;
        self.meta.turn = Some(Turn {
            number: self.meta.turns,
            started: now_ms,
            prompt: shortened(&message.text, 200),
        });
        self.carry(actions, Some(Mark::Message { id: message.id }), true);
        Some(self.step(0, now_ms))
    }

    /// Stops the running turn. `None`: none runs.
    pub(in crate::session) fn interrupt(&mut self) -> Result<Option<Step>, SessionError> {
        let Some(run) = &mut self.run else { return Ok(None) };
        let Some(turn) = &self.meta.turn else {
            return Ok(None);
        };
        let actions = run.driver.command(Command::Interrupt)?;
        run.interrupted_turn = Some(turn.started);
        self.carry(actions, None, false);
        Ok(Some(self.step(0, 0)))
    }

    /// Ends the process for this reason.
    pub(in crate::session) fn stop(&mut self, why: StopReason, message: Option<String>) -> Step {
        match self.run.as_mut().map(|run| &mut run.stop) {
            // A stop for another reason is under way; who cancels has the last word.
            Some(Some(stop)) if why == StopReason::Cancelled => *stop = (why, message),
            Some(Some(_)) | None => {}
            Some(None) => self.begin_stop(why, message),
        }
        self.step(0, 0)
    }

    pub(super) fn begin_stop(&mut self, why: StopReason, message: Option<String>) {
        let Some(run) = &mut self.run else { return };
        if run.stop.is_some() {
            return;
        }
        run.stop = Some((why, message.clone()));
        if self.replaying {
            return;
        }
        let interrupt = if self.meta.turn.is_some() {
            // What is not running is not interrupted; the end comes anyway.
            run.driver.command(Command::Interrupt).unwrap_or_default()
        } else {
            Vec::new()
        };
        self.carry(interrupt, Some(Mark::Stop { why, message }), false);
        let keep_tools = why == StopReason::Parked;
        self.effects.push(Effect::End { keep_tools });
    }

    /// Another model, from the next turn on.
    pub(in crate::session) fn set_model(&mut self, model: String) -> Result<Step, SessionError> {
        if let Some(run) = self.talking() {
            let actions = run.driver.command(Command::SetModel(model.clone()))?;
            self.carry(actions, None, false);
        }
        self.meta.model = Some(model);
        self.meta.model_chosen = true;
        Ok(self.step(0, 0))
    }

    /// Another permission mode. `true`: the agent was told, and its own word decides.
    pub(in crate::session) fn set_mode(
        &mut self,
        mode: PermissionMode,
    ) -> Result<(bool, Step), SessionError> {
        let told = match self.talking() {
            Some(run) => {
                let actions = run.driver.command(Command::SetPermissionMode(mode))?;
                self.carry(actions, None, false);
                true
            }
            None => {
                self.meta.permission_mode = mode;
                false
            }
        };
        Ok((told, self.step(0, 0)))
    }

    fn talking(&mut self) -> Option<&mut super::Run> {
        self.run.as_mut().filter(|run| run.stop.is_none())
    }

    /// Answers an approval. Gives what the answer will have been if it arrives.
    pub(in crate::session) fn decide(
        &mut self,
        approval_id: &str,
        decision: Decision,
    ) -> Result<(Resolution, Step), SessionError> {
        let unknown = if self.was_resolved(approval_id) {
            SessionError::ApprovalResolved(approval_id.to_owned())
        } else {
            SessionError::ApprovalNotFound(approval_id.to_owned())
        };
        let Some(run) = &mut self.run else {
            return Err(unknown);
        };
        let waiting = run
            .approvals
            .iter()
            .find(|waiting| waiting.view.approval.id == approval_id);
        let Some(waiting) = waiting else {
            return Err(unknown);
        };
        let approval = &waiting.view.approval;
        let (outcome, message, ran) = match &decision {
            Decision::Allow {
                for_session: true, ..
            } if !approval.can_allow_session => {
                return Err(SessionError::Unsupported(
                    "this approval cannot be given for the session; allow it once".into(),
                ));
            }
            Decision::Allow {
                updated_input: Some(_),
                ..
            } if !approval.can_edit => {
                return Err(SessionError::Unsupported(
                    "the arguments of this approval cannot be changed; allow it as it is or deny it".into(),
                ));
            }
            Decision::Allow {
                for_session,
                updated_input,
                ..
            } => {
                let outcome = if *for_session {
                    ApprovalOutcome::AllowedForSession
                } else {
                    ApprovalOutcome::Allowed
                };
                (outcome, None, updated_input.clone())
            }
            Decision::Deny { message, .. } => (ApprovalOutcome::Denied, message.clone(), None),
        };
        let edited = ran.filter(|ran| *ran != approval.input).map(|ran| Edited {
            asked: approval.input.clone(),
            ran,
        });
        let command = Command::Decide {
            approval_id: waiting.driver_id.clone(),
            decision,
        };
        let actions = match run.driver.command(command) {
            Ok(actions) => actions,
            // It waits here until the answer is in the log; the driver has it already.
            Err(CommandError::UnknownApproval(_)) => {
                return Err(SessionError::ApprovalResolved(approval_id.to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        self.carry(actions, None, true);
        let resolution = Resolution {
            id: approval_id.to_owned(),
            session_id: Some(self.meta.id.clone()),
            outcome,
            message,
            edited,
        };
        Ok((resolution, self.step(0, 0)))
    }

    /// Denies an approval that nobody answered in time.
    pub(in crate::session) fn time_out(&mut self, driver_id: &str) -> Step {
        if let Some(run) = &mut self.run
            && !run.timed_out.contains(driver_id)
        {
            let command = Command::Decide {
                approval_id: driver_id.to_owned(),
                decision: Decision::Deny {
                    message: Some("Nobody answered in time, so this was denied.".into()),
                    interrupt: false,
                },
            };
            match run.driver.command(command) {
                Ok(actions) => {
                    run.timed_out.insert(driver_id.to_owned());
                    let approval = driver_id.to_owned();
                    self.carry(actions, Some(Mark::TimedOut { approval }), true);
                }
                Err(error) => tracing::debug!(%error, "an approval that expired was answered meanwhile"),
            }
        }
        self.step(0, 0)
    }

    /// Sends what a command gave. What it gave besides is done when the last line is in the log.
    pub(super) fn carry(&mut self, actions: Vec<Action>, mark: Option<Mark>, sync: bool) {
        let (mut lines, mut rest) = (Vec::new(), Vec::new());
        for action in actions {
            match action {
                Action::Send(line) => lines.push(line),
                other => rest.push(other),
            }
        }
        if let Some(run) = &mut self.run {
            let mut first = mark.clone();
            let last = lines.len();
            for (number, line) in lines.iter().enumerate() {
                run.in_flight.push_back(Flight {
                    mark: first.take(),
                    line: line.clone(),
                    actions: if number + 1 == last {
                        std::mem::take(&mut rest)
                    } else {
                        Vec::new()
                    },
                });
            }
        }
        if !lines.is_empty() || mark.is_some() {
            self.effects.push(Effect::Send { mark, lines, sync });
        }
        if !rest.is_empty() {
            // Nothing is sent for it, so the log will not show it: a change of the state alone.
            let fresh = std::mem::replace(&mut self.fresh, false);
            self.apply(rest);
            self.fresh = fresh;
        }
    }
}
