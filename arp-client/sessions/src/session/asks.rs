//! What is asked of a session, and its answers.

use super::actor::{Actor, Next};
use super::{Accepted, Ask, Change, RemoveFirst, Reply};
use crate::clock;
use crate::defaults::{EFFECT_PATIENCE, MAX_QUEUE};
use crate::error::SessionError;
use crate::hostlink;
use crate::model::{Message, MessageStatus, ProblemKind, Status, Time, shortened, title_of};
use arp_agents::driver::Decision;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What a turn that was cut is gone on with.
const GO_ON: &str = "Go on where you were cut off.";

impl Actor {
    pub(super) async fn ask(&mut self, ask: Ask) -> Next {
        // An asker that went away does not need its answer.
        match ask {
            Ask::Begin { past, reply } => {
                let done = self.begin(past).await;
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
            Ask::Retry { client_id, reply } => {
                let done = self.retry(client_id).await;
                self.answer(reply, done).await;
            }
            Ask::Resume(reply) => {
                let done = self.resume().await;
                self.answer(reply, done).await;
            }
            Ask::Unqueue { message_id, reply } => {
                let done = self.unqueue(&message_id);
                self.answer(reply, done).await;
            }
            Ask::Interrupt { clear_queue, reply } => {
                let done = self.interrupt(clear_queue);
                self.answer(reply, done).await;
            }
            Ask::Cancel(reply) => self.cancel(reply).await,
            Ask::Park { why, reply } => {
                if self.state.run.is_some() {
                    self.park(why).await;
                    self.waiting.push(reply);
                } else {
                    let done = self.put_off_no_more(Status::Parked).await;
                    let _ = reply.send(done);
                }
            }
            Ask::Decide {
                approval_id,
                decision,
                reply,
            } => self.decide(&approval_id, decision, reply),
            Ask::Set { change, reply } => self.set(change, reply).await,
            Ask::Remove { first, reply } => {
                let removed = self.remove(first).await;
                let leave = removed.is_ok();
                let _ = reply.send(removed);
                if leave {
                    return Next::Leave;
                }
            }
            Ask::Mend(reply) => {
                let done = self.mend().await;
                if let Err(error) = &done {
                    tracing::warn!(session = self.state.meta.id, %error, "cannot make damaged events again");
                }
                let _ = reply.send(done);
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
    async fn answer<T>(&mut self, reply: Reply<T>, done: Result<T, SessionError>) {
        if let Err(error) = self.settle().await {
            self.give_up(&error).await;
        }
        let _ = reply.send(done);
    }

    async fn begin(&mut self, past: Vec<crate::core::PastEvent>) -> Result<(), SessionError> {
        if self.state.run.is_some() || self.state.meta.starts_ms.is_some() {
            return Ok(());
        }
        self.tell_past(past)?;
        self.start().await
    }

    /// A parked session with messages that wait goes on.
    async fn resume(&mut self) -> Result<(), SessionError> {
        let parked = self.state.meta.status == Status::Parked && !self.state.queue.is_empty();
        if !parked || self.state.run.is_some() || self.state.meta.starts_ms.is_some() {
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
        let tail = *self.shared.tail.borrow();
        let meta = &mut self.state.meta;
        if let Some(client_id) = &client_id
            && let Some(known) = self.core.store.message(&meta.id, client_id, true)?
        {
            if known.text != text {
                return Err(SessionError::ClientIdReused(client_id.clone()));
            }
            return Ok(Accepted {
                message: known,
                duplicate: true,
                turns: meta.turns,
                tail,
            });
        }
        if self.state.queue.len() >= MAX_QUEUE {
            return Err(SessionError::QueueFull(MAX_QUEUE));
        }
        if self.state.run.is_none()
            && meta.runs > 0
            && let Some(why) = meta.cannot_resume()
        {
            return Err(SessionError::CannotResume(why));
        }
        let message = Message {
            id: format!("m-{}", uuid::Uuid::new_v4().simple()),
            client_id,
            text,
            created_at: Time(clock::now_ms()),
            status: MessageStatus::Queued,
        };
        self.core.store.add_message(&meta.id, &message, interrupt)?;
        if meta.first_message.is_none() {
            meta.first_message = Some(shortened(&message.text, 500));
        }
        if meta.title.is_none() {
            meta.title = title_of(&message.text);
        }
        if interrupt {
            self.state.queue.push_front(message.clone());
        } else {
            self.state.queue.push_back(message.clone());
        }
        self.changed();
        let stopping = self.state.run.as_ref().is_some_and(|run| run.stop.is_some());
        self.wake |= stopping;
        let waits = self.state.meta.starts_ms.is_some() || !self.link.is_none();
        if self.state.run.is_none() && !waits {
            if let Err(error) = self.start().await {
                self.drop_message(&message.id)?;
                return Err(error);
            }
        } else if interrupt && !stopping {
            self.interrupt_turn()?;
        }
        let turns = self.state.meta.turns;
        self.settle().await?;
        let sent = !self.state.queue.iter().any(|queued| queued.id == message.id)
            || self
                .state
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
            tail,
        })
    }

    /// Tries again what went wrong: what waits is sent, a turn that was cut is gone on with, one that failed is
    /// said again.
    async fn retry(&mut self, client_id: Option<String>) -> Result<Accepted, SessionError> {
        let meta = &self.state.meta;
        let nothing = || SessionError::WrongState("nothing went wrong here that could be tried again".into());
        let problem = meta.problem.as_ref().ok_or_else(nothing)?;
        if !problem.can_retry {
            return Err(SessionError::CannotResume(problem.message.clone()));
        }
        let cut = problem.kind == ProblemKind::TurnCut;
        if let Some(waits) = self.state.queue.front().cloned() {
            let tail = *self.shared.tail.borrow();
            if self.state.run.is_none() && self.state.meta.starts_ms.is_none() {
                self.start().await?;
            }
            return Ok(Accepted {
                message: waits,
                duplicate: false,
                turns: self.state.meta.turns,
                tail,
            });
        }
        let text = if cut {
            GO_ON.to_owned()
        } else {
            self.core
                .store
                .last_sent(&meta.id)?
                .map(|message| message.text)
                .ok_or_else(nothing)?
        };
        self.message(text, client_id, false).await
    }

    /// Makes events again that were damaged on disk. After that the log has no damage, whatever could be made again:
    /// nobody has it looked at twice.
    async fn mend(&mut self) -> Result<(), SessionError> {
        self.flush_events()?;
        let (events, raw) = (self.dir.event_log(), self.dir.raw_log());
        let (meta, settings) = (self.state.meta.clone(), self.state.settings().clone());
        let missing =
            tokio::task::spawn_blocking(move || super::mending::missing(&events, &raw, &meta, &settings))
                .await
                .map_err(|error| SessionError::Internal(error.to_string()))??;
        if let Some(missing) = missing {
            tracing::warn!(
                session = self.state.meta.id,
                events = missing.len(),
                "the event log was damaged; events were made again"
            );
            self.events.restore(missing)?;
        }
        Ok(())
    }

    fn drop_message(&mut self, id: &str) -> Result<(), SessionError> {
        self.state.queue.retain(|message| message.id != id);
        Ok(self.core.store.remove_message(id)?)
    }

    fn unqueue(&mut self, id: &str) -> Result<(), SessionError> {
        let run = self.state.run.as_ref();
        let dispatching = run.and_then(|run| run.dispatching.as_deref()) == Some(id);
        match self.core.store.message(&self.state.meta.id, id, false)? {
            None => Err(SessionError::MessageNotFound(id.to_owned())),
            Some(message) if dispatching || message.status == MessageStatus::Sent => {
                Err(SessionError::AlreadySent(id.to_owned()))
            }
            Some(_) => self.drop_message(id),
        }
    }

    fn interrupt(&mut self, clear_queue: bool) -> Result<bool, SessionError> {
        if clear_queue {
            let run = self.state.run.as_ref();
            let dispatching = run.and_then(|run| run.dispatching.clone());
            for message in self.state.queue.clone() {
                if Some(&message.id) != dispatching.as_ref() {
                    self.drop_message(&message.id)?;
                }
            }
        }
        self.interrupt_turn()
    }

    fn interrupt_turn(&mut self) -> Result<bool, SessionError> {
        let Some(step) = self.state.interrupt()? else {
            return Ok(false);
        };
        self.carry_out(step)?;
        self.clocks.interrupted();
        Ok(true)
    }

    async fn cancel(&mut self, reply: oneshot::Sender<Result<(), SessionError>>) {
        for message in std::mem::take(&mut self.state.queue) {
            if let Err(error) = self.core.store.remove_message(&message.id) {
                tracing::warn!(%error, "cannot drop a message");
            }
        }
        let ends = self.state.run.is_some() || !self.link.is_none();
        if ends {
            let parking = self.state.run.as_ref().is_some_and(|run| run.stop.is_some());
            let step = self.state.stop(crate::host::StopReason::Cancelled, None);
            self.carry_out_or_give_up(step).await;
            if parking {
                // It is being parked, with more patience and less force.
                self.tell_host_to_end(false);
            }
            self.clocks.ends_within(crate::defaults::STOP_DEADLINE);
            self.waiting.push(reply);
            return;
        }
        let done = match self.state.meta.status {
            Status::Parked => self.cancel_parked().await,
            _ => self.put_off_no_more(Status::Cancelled).await,
        };
        self.answer(reply, done).await;
    }

    fn decide(&mut self, approval_id: &str, decision: Decision, reply: Reply<crate::model::Resolution>) {
        match self.state.decide(approval_id, decision) {
            Ok((resolution, step)) => {
                // It is answered when the log shows what became of it: the agent may die in this moment.
                self.await_decision(resolution, reply);
                if let Err(error) = self.carry_out(step) {
                    tracing::error!(session = self.state.meta.id, %error, "cannot send a decision");
                }
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    async fn set(&mut self, change: Change, reply: Reply<()>) {
        match self.change(change) {
            Ok(None) => self.answer(reply, Ok(())).await,
            Ok(Some(mode)) => self.changing.push(super::actor::Changing {
                mode,
                reply,
                until: Instant::now() + EFFECT_PATIENCE,
            }),
            Err(error) => self.answer(reply, Err(error)).await,
        }
    }

    /// Changes what can be changed. Gives the mode that the agent was told of, and has to confirm.
    fn change(&mut self, change: Change) -> Result<Option<arp_agents::driver::PermissionMode>, SessionError> {
        let mut told = None;
        if let Some(mode) = change.permission_mode
            && mode != self.state.meta.permission_mode
        {
            let (agent_was_told, step) = self.state.set_mode(mode)?;
            self.carry_out(step)?;
            told = agent_was_told.then_some(mode);
        }
        if let Some(model) = change.model {
            let step = self.state.set_model(model)?;
            self.carry_out(step)?;
        }
        let meta = &mut self.state.meta;
        if let Some(title) = change.title {
            meta.title = Some(shortened(title.trim(), 200)).filter(|title| !title.is_empty());
        }
        meta.updated_ms = clock::now_ms();
        self.save();
        Ok(told)
    }

    /// Removes all records of the session, all or none: the directory is put aside, then what has to come first
    /// is done, which may be refused, then the row goes and what was put aside.
    async fn remove(&mut self, first: RemoveFirst) -> Result<(), SessionError> {
        if self.state.run.is_some() || !self.link.is_none() {
            return Err(SessionError::WrongState(
                "the session is running; cancel it first".into(),
            ));
        }
        // What it left running when it was parked has nobody left that could end it.
        hostlink::clean_up(&self.dir, &self.state.meta.id, &[]).await;
        self.state.meta.starts_ms = None;
        let aside = self.dir.aside();
        std::fs::rename(self.dir.path(), &aside)?;
        let (core, id) = (self.core.clone(), self.state.meta.id.clone());
        let removed = tokio::task::spawn_blocking(move || {
            core.store.probe()?;
            first.0()?;
            Ok(core.store.delete(&id)?)
        })
        .await
        .map_err(|error| SessionError::Internal(error.to_string()))
        .flatten();
        if let Err(error) = removed {
            std::fs::rename(&aside, self.dir.path())?;
            return Err(error);
        }
        self.removed();
        // A remainder is found at the next start.
        if let Err(error) = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(&aside))
            .await
            .map_err(std::io::Error::other)
            .flatten()
        {
            tracing::warn!(session = self.state.meta.id, %error, "cannot remove the files of a session");
        }
        Ok(())
    }
}
