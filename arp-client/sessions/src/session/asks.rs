//! What is asked of a session, and its answers.

use super::actor::{Actor, Next};
use super::{Accepted, Ask, Change};
use crate::clock;
use crate::defaults::{INTERRUPT_AGAIN, INTERRUPTS, MAX_QUEUE};
use crate::error::SessionError;
use crate::host::{Mark, StopReason};
use crate::model::{Message, MessageStatus, Resolution, Status, Time, Turn, shortened, title_of};
use arp_agents::driver::{Command, Decision};
use arp_agents::event::ApprovalOutcome;
use tokio::sync::oneshot;
use tokio::time::Instant;

impl Actor {
    pub(super) async fn ask(&mut self, ask: Ask) -> Next {
        self.fresh = true;
        self.now_ms = clock::now_ms();
        // An asker that went away does not need its answer.
        match ask {
            Ask::Begin(reply) => {
                let done = self.begin().await;
                self.answer(reply, done).await;
            }
            Ask::Message {
                text,
                client_id,
                interrupt,
                reply,
            } => {
                let done = self.message(text, client_id, interrupt).await;
                self.answer(reply, done).await;
            }
            Ask::Unqueue { message_id, reply } => {
                let done = self.unqueue(&message_id);
                self.answer(reply, done).await;
            }
            Ask::Interrupt { clear_queue, reply } => {
                let done = self.interrupt(clear_queue).await;
                self.answer(reply, done).await;
            }
            Ask::Cancel(reply) => self.cancel(reply).await,
            Ask::Park(reply) => {
                if self.run.is_some() {
                    self.park().await;
                    self.waiting.push(reply);
                } else {
                    let _ = reply.send(self.put_off_no_more(Status::Parked));
                }
            }
            Ask::Decide {
                approval_id,
                decision,
                reply,
            } => {
                let done = self.decide(&approval_id, decision).await;
                self.answer(reply, done).await;
            }
            Ask::Set { change, reply } => {
                let done = self.set(change).await;
                self.answer(reply, done).await;
            }
            Ask::Remove(reply) => {
                let removed = self.remove();
                let leave = removed.is_ok();
                let _ = reply.send(removed);
                if leave {
                    return Next::Leave;
                }
            }
            Ask::Detach(reply) => {
                self.save();
                let _ = reply.send(Ok(()));
                return Next::Leave;
            }
        }
        if let Err(error) = self.settle().await {
            self.give_up(&error).await;
        }
        Next::Go
    }

    /// First the new state is shown, then the asker hears that it is done: who looks after that sees it.
    async fn answer<T>(
        &mut self,
        reply: oneshot::Sender<Result<T, SessionError>>,
        done: Result<T, SessionError>,
    ) {
        if let Err(error) = self.settle().await {
            self.give_up(&error).await;
        }
        let _ = reply.send(done);
    }

    async fn begin(&mut self) -> Result<(), SessionError> {
        if self.run.is_some() || self.meta.starts_ms.is_some() {
            return Ok(());
        }
        self.start().await
    }

    async fn message(
        &mut self,
        text: String,
        client_id: Option<String>,
        interrupt: bool,
    ) -> Result<Accepted, SessionError> {
        if let Some(client_id) = &client_id
            && let Some(known) = self.core.store.message(&self.meta.id, client_id, true)?
        {
            if known.text != text {
                return Err(SessionError::ClientIdReused(client_id.clone()));
            }
            return Ok(Accepted {
                message: known,
                duplicate: true,
                turns: self.meta.turns,
            });
        }
        if self.queue.len() >= MAX_QUEUE {
            return Err(SessionError::QueueFull(MAX_QUEUE));
        }
        if self.run.is_none() && self.meta.turns > 0 && self.meta.agent_session_id.is_none() {
            return Err(SessionError::CannotResume(
                "the agent never said what it calls this session, so it cannot be resumed; start a new one"
                    .into(),
            ));
        }
        let message = Message {
            id: format!("m-{}", uuid::Uuid::new_v4().simple()),
            client_id,
            text,
            created_at: Time(clock::now_ms()),
            status: MessageStatus::Queued,
        };
        self.core.store.add_message(&self.meta.id, &message, interrupt)?;
        if interrupt {
            self.queue.push_front(message.clone());
        } else {
            self.queue.push_back(message.clone());
        }
        if self.meta.first_message.is_none() {
            self.meta.first_message = Some(shortened(&message.text, 500));
        }
        if self.meta.title.is_none() {
            self.meta.title = title_of(&message.text);
        }
        self.dirty = true;
        let stopping = self.run.as_ref().is_some_and(|run| run.stop.is_some());
        if self.run.is_none() && self.meta.starts_ms.is_none() {
            if let Err(error) = self.start().await {
                self.drop_message(&message.id)?;
                return Err(error);
            }
        } else if interrupt && !stopping && self.meta.turn.is_some() {
            self.interrupt_turn().await?;
        }
        let turns = self.meta.turns;
        self.settle().await?;
        let sent = !self.queue.iter().any(|queued| queued.id == message.id)
            || self
                .run
                .as_ref()
                .is_some_and(|run| run.dispatching.as_ref() == Some(&message.id));
        let status = if sent {
            MessageStatus::Sent
        } else {
            MessageStatus::Queued
        };
        Ok(Accepted {
            message: Message { status, ..message },
            duplicate: false,
            turns,
        })
    }

    fn drop_message(&mut self, id: &str) -> Result<(), SessionError> {
        self.queue.retain(|message| message.id != id);
        Ok(self.core.store.remove_message(id)?)
    }

    fn unqueue(&mut self, id: &str) -> Result<(), SessionError> {
        let dispatching = self.run.as_ref().and_then(|run| run.dispatching.as_deref()) == Some(id);
        match self.core.store.message(&self.meta.id, id, false)? {
            None => Err(SessionError::MessageNotFound(id.to_owned())),
            Some(message) if dispatching || message.status == MessageStatus::Sent => {
                Err(SessionError::AlreadySent(id.to_owned()))
            }
            Some(_) => self.drop_message(id),
        }
    }

    /// Gives the agent the next message, if it can take one.
    pub(super) async fn dispatch(&mut self) -> Result<(), SessionError> {
        if self.run.is_none() && self.ended_by_itself && !self.queue.is_empty() {
            // It ended with work left to do: resume it, once for each end that came after it was ready.
            self.ended_by_itself = false;
            if let Err(error) = self.start().await {
                tracing::warn!(session = self.meta.id, %error, "cannot resume a session for its queue");
            }
        }
        let Some(run) = &mut self.run else { return Ok(()) };
        let busy = run.replaying || !run.ready || run.dispatching.is_some() || run.stop.is_some();
        if busy || self.meta.turn.is_some() {
            return Ok(());
        }
        let Some(message) = self.queue.front().cloned() else {
            return Ok(());
        };
        let id = message.client_id.clone().unwrap_or_else(|| message.id.clone());
        let actions = match run.driver.command(Command::Prompt {
            id: Some(id),
            text: message.text.clone(),
        }) {
            Ok(actions) => actions,
            Err(error) => {
                tracing::warn!(session = self.meta.id, %error, "the agent does not take a message now");
                return Ok(());
            }
        };
        run.dispatching = Some(message.id.clone());
        self.meta.turns += 1;
        self.meta.turn = Some(Turn {
            number: self.meta.turns,
            started: clock::now_ms(),
            prompt: shortened(&message.text, 200),
        });
        // First that it is sent, then the sending: a count too high is better than a turn twice.
        self.save();
        self.carry_out(actions, Some(Mark::Message { id: message.id }))
            .await;
        Ok(())
    }

    async fn interrupt(&mut self, clear_queue: bool) -> Result<bool, SessionError> {
        if clear_queue {
            let dispatching = self.run.as_ref().and_then(|run| run.dispatching.clone());
            for message in self.queue.clone() {
                if Some(&message.id) != dispatching.as_ref() {
                    self.drop_message(&message.id)?;
                }
            }
        }
        if self.meta.turn.is_none() {
            return Ok(false);
        }
        self.interrupt_turn().await?;
        Ok(true)
    }

    async fn interrupt_turn(&mut self) -> Result<(), SessionError> {
        let Some(run) = &mut self.run else { return Ok(()) };
        run.interrupted_turn = self.meta.turn.as_ref().map(|turn| turn.started);
        let actions = run.driver.command(Command::Interrupt)?;
        run.interrupt_again = Some((Instant::now() + INTERRUPT_AGAIN, INTERRUPTS));
        self.carry_out(actions, None).await;
        Ok(())
    }

    /// An agent that was told to stop just before it began (Claude) does not hear it: it is told again.
    pub(super) async fn repeat_interrupt(&mut self) {
        let Some(run) = &mut self.run else { return };
        let Some((at, left)) = run.interrupt_again else {
            return;
        };
        if at > Instant::now() {
            return;
        }
        run.interrupt_again = left
            .checked_sub(1)
            .map(|left| (Instant::now() + INTERRUPT_AGAIN, left));
        match run.driver.command(Command::Interrupt) {
            Ok(actions) => self.carry_out(actions, None).await,
            Err(_) => run.interrupt_again = None,
        }
    }

    async fn cancel(&mut self, reply: oneshot::Sender<Result<(), SessionError>>) {
        for message in std::mem::take(&mut self.queue) {
            if let Err(error) = self.core.store.remove_message(&message.id) {
                tracing::warn!(%error, "cannot drop a message");
            }
        }
        if self.run.is_some() {
            self.stop(StopReason::Cancelled, None).await;
            if let Some(run) = &mut self.run {
                // A stop for another reason may be under way.
                run.stop = Some((StopReason::Cancelled, None));
            }
            self.waiting.push(reply);
            return;
        }
        if self.meta.status == Status::Parked {
            self.meta.status = Status::Cancelled;
            self.dirty = true;
        }
        let _ = reply.send(self.put_off_no_more(Status::Cancelled));
    }

    async fn decide(&mut self, approval_id: &str, decision: Decision) -> Result<Resolution, SessionError> {
        let waiting = self.run.as_ref().and_then(|run| {
            run.approvals
                .iter()
                .find(|waiting| waiting.view.approval.id == approval_id)
        });
        let Some(waiting) = waiting else {
            return Err(if self.resolved.iter().any(|resolved| resolved == approval_id) {
                SessionError::ApprovalResolved(approval_id.to_owned())
            } else {
                SessionError::ApprovalNotFound(approval_id.to_owned())
            });
        };
        let approval = &waiting.view.approval;
        let outcome = match &decision {
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
                for_session: true, ..
            } => ApprovalOutcome::AllowedForSession,
            Decision::Allow { .. } => ApprovalOutcome::Allowed,
            Decision::Deny { .. } => ApprovalOutcome::Denied,
        };
        let message = match &decision {
            Decision::Deny { message, .. } => message.clone(),
            Decision::Allow { .. } => None,
        };
        let driver_id = waiting.driver_id.clone();
        let Some(run) = &mut self.run else {
            return Err(SessionError::ApprovalResolved(approval_id.to_owned()));
        };
        let command = Command::Decide {
            approval_id: driver_id,
            decision,
        };
        let actions = match run.driver.command(command) {
            Ok(actions) => actions,
            // It waits here until the answer is in the log; the driver has it already.
            Err(arp_agents::driver::CommandError::UnknownApproval(_)) => {
                return Err(SessionError::ApprovalResolved(approval_id.to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        self.carry_out(actions, None).await;
        let session_id = Some(self.meta.id.clone());
        Ok(Resolution {
            id: approval_id.to_owned(),
            session_id,
            outcome,
            message,
        })
    }

    /// Denies what nobody answered in time.
    pub(super) async fn deny_expired(&mut self) {
        let now = clock::now_ms();
        let Some(run) = &self.run else { return };
        let expired: Vec<String> = run
            .approvals
            .iter()
            .filter(|waiting| waiting.view.expires_at.is_some_and(|at| at.0 <= now))
            .filter(|waiting| !run.timed_out.contains(&waiting.driver_id))
            .map(|waiting| waiting.driver_id.clone())
            .collect();
        for driver_id in expired {
            let Some(run) = &mut self.run else { return };
            let decision = Decision::Deny {
                message: Some("Nobody answered in time, so this was denied.".into()),
                interrupt: false,
            };
            let command = Command::Decide {
                approval_id: driver_id.clone(),
                decision,
            };
            match run.driver.command(command) {
                Ok(actions) => {
                    run.timed_out.insert(driver_id.clone());
                    self.carry_out(actions, Some(Mark::TimedOut { approval: driver_id }))
                        .await;
                }
                Err(error) => tracing::debug!(%error, "an approval that expired was answered meanwhile"),
            }
        }
    }

    async fn set(&mut self, change: Change) -> Result<(), SessionError> {
        let stopping = self.run.as_ref().is_none_or(|run| run.stop.is_some());
        if let Some(mode) = change.permission_mode
            && mode != self.meta.permission_mode
        {
            if !stopping && let Some(run) = &mut self.run {
                let actions = run.driver.command(Command::SetPermissionMode(mode))?;
                self.carry_out(actions, None).await;
            }
            self.meta.permission_mode = mode;
        }
        if let Some(model) = change.model {
            if !stopping && let Some(run) = &mut self.run {
                let actions = run.driver.command(Command::SetModel(model.clone()))?;
                self.carry_out(actions, None).await;
            }
            self.meta.model = Some(model);
            self.meta.model_chosen = true;
        }
        if let Some(title) = change.title {
            self.meta.title = Some(shortened(title.trim(), 200)).filter(|title| !title.is_empty());
        }
        self.meta.updated_ms = clock::now_ms();
        self.save();
        Ok(())
    }

    fn remove(&mut self) -> Result<(), SessionError> {
        if self.run.is_some() {
            return Err(SessionError::WrongState(
                "the session is running; cancel it first".into(),
            ));
        }
        self.meta.starts_ms = None;
        self.core.store.delete(&self.meta.id)?;
        std::fs::remove_dir_all(self.dir.path())?;
        self.removed();
        Ok(())
    }
}
