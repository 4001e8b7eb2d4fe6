//! The actor: I/O around the projection. It reads the raw log, writes events, talks to the host, and hears what is
//! asked and what time it is.

use super::clocks::Clocks;
use super::link::Link;
use super::projection::{Effect, Projection, Settings, Step};
use super::{Ask, BusEvent, Handle, Reply, Shared, Tail};
use crate::clock;
use crate::core::Core;
use crate::defaults::{EFFECT_PATIENCE, FULL_RETRY, PAGE_BYTES};
use crate::error::SessionError;
use crate::host::{SessionDir, ToHost};
use crate::hostlink::HostState;
use crate::log::{Kind, LogError, LogReader, LogWriter};
use crate::model::{Meta, Problem, ProblemKind, Resolution, SessionView, Status};
use arp_agents::driver::PermissionMode;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// One session at work.
pub(crate) struct Actor {
    pub(super) core: Arc<Core>,
    pub(super) shared: Arc<Shared>,
    pub(super) dir: SessionDir,
    /// What the session is.
    pub(super) state: Projection,
    pub(super) events: LogWriter,
    /// The raw log.
    pub(super) log: LogReader,
    pub(super) link: Link,
    pub(super) clocks: Clocks,
    /// The disk takes no events: nothing is read until it does.
    full: bool,
    /// The host says that the disk is full.
    host_full: bool,
    dirty: bool,
    /// A message came while the process was being ended on purpose: another one is started for it.
    pub(super) wake: bool,
    told: Option<Arc<SessionView>>,
    /// Askers who wait for the end of the process.
    pub(super) waiting: Vec<oneshot::Sender<Result<(), SessionError>>>,
    /// Have waited for it, and it came.
    pub(super) ended: Vec<oneshot::Sender<Result<(), SessionError>>>,
    /// Decisions that are on their way to the agent.
    pub(super) deciding: Vec<Deciding>,
    /// Those that arrived, with what became of them.
    decided: Vec<(Reply<Resolution>, Resolution)>,
    /// Changes of mode that the agent was told of.
    pub(super) changing: Vec<Changing>,
    asks: mpsc::Receiver<Ask>,
}

/// A decision that is on its way to the agent.
pub(super) struct Deciding {
    /// What it will have been if it arrives.
    pub(super) resolution: Resolution,
    pub(super) reply: Reply<Resolution>,
    pub(super) until: Instant,
}

/// A change of mode that the agent was told of.
pub(super) struct Changing {
    pub(super) mode: PermissionMode,
    pub(super) reply: Reply<()>,
    pub(super) until: Instant,
}

/// What an actor does after an ask.
pub(super) enum Next {
    Go,
    /// End the actor.
    Leave,
}

impl Actor {
    /// Starts the actor of a session. When it ends, `gone` is called.
    pub(crate) fn spawn(
        core: Arc<Core>,
        mut meta: Meta,
        gone: impl FnOnce(&str) + Send + 'static,
    ) -> Result<Handle, SessionError> {
        let dir = SessionDir::new(core.config.session_dir(&meta.id));
        crate::ipc::private_dir(dir.path())?;
        let events = LogWriter::open(&dir.event_log(), true)?;
        if !dir.raw_log().exists() {
            LogWriter::open(&dir.raw_log(), false)?;
        }
        let log = LogReader::open(&dir.raw_log())?;
        // Readers may have seen more than was saved of the session.
        let lines = LogReader::end_of(&dir.raw_log())?.line;
        meta.total_lines = meta.total_lines.max(lines);
        meta.last_seq = meta.last_seq.max(events.end().seq);
        let queue: VecDeque<_> = core.store.queue(&meta.id)?.into();
        let settings = Settings {
            agent: core.agents.known(&meta.executor),
            approval_timeout: core.config.approval_timeout,
            allow_bypass: core.config.allow_bypass,
        };
        let state = Projection::new(meta, queue, settings, events.end().line);
        let (sender, asks) = mpsc::channel(64);
        let shared = Arc::new(Shared::new(state.view()));
        let actor = Self {
            clocks: Clocks::new(&core.config),
            core,
            shared: Arc::clone(&shared),
            dir,
            state,
            events,
            log,
            link: Link::None,
            full: false,
            host_full: false,
            dirty: false,
            wake: false,
            told: None,
            waiting: Vec::new(),
            ended: Vec::new(),
            deciding: Vec::new(),
            decided: Vec::new(),
            changing: Vec::new(),
            asks,
        };
        let handle = Handle { asks: sender, shared };
        tokio::spawn(async move {
            let id = actor.state.meta.id.clone();
            actor.live().await;
            gone(&id);
        });
        Ok(handle)
    }

    async fn live(mut self) {
        if let Err(error) = self.take_over().await {
            self.give_up(&error).await;
        }
        let mut more = true;
        loop {
            if more {
                match self.pump().await {
                    Ok(again) => more = again,
                    Err(error) => {
                        self.give_up(&error).await;
                        more = false;
                    }
                }
                if more {
                    // Let others have a go; what was asked meanwhile is heard below.
                    tokio::task::yield_now().await;
                }
            }
            let due = self.due();
            tokio::select! {
                biased;
                ask = self.asks.recv() => {
                    let Some(ask) = ask else { break };
                    if matches!(self.ask(ask).await, Next::Leave) {
                        break;
                    }
                    more = true;
                }
                state = self.link.changed() => {
                    more = true;
                    self.link_changed(state).await;
                }
                () = std::future::ready(()), if more => {}
                () = tokio::time::sleep_until(due) => {
                    if self.on_time().await {
                        break;
                    }
                    more = true;
                }
            }
        }
        self.save();
    }

    async fn link_changed(&mut self, state: super::link::Changed) {
        match state {
            super::link::Changed::Host(HostState::News { full }) => self.host_full = full,
            super::link::Changed::Host(HostState::Gone) => {
                self.host_full = false;
                if let Err(error) = self.host_gone().await {
                    self.give_up(&error).await;
                }
            }
            super::link::Changed::Recovered(recovered) => {
                if let Err(error) = self.recovered(recovered).await {
                    self.give_up(&error).await;
                }
            }
        }
    }

    /// Reads what is new in the raw log. Is there more?
    pub(super) async fn pump(&mut self) -> Result<bool, SessionError> {
        let (mut bytes, mut read) = (0, 0);
        let mut more = false;
        self.flush_events()?;
        while !self.full {
            let Some(record) = self.log.next_record()? else {
                break;
            };
            bytes += record.payload.len();
            read = record.seq;
            let had_run = self.state.run.is_some();
            let step = self.state.record(&record);
            self.carry_out(step)?;
            if had_run && self.state.run.is_none() {
                self.run_over();
            }
            if self.events.pending() > PAGE_BYTES {
                self.flush_events()?;
            }
            if bytes > PAGE_BYTES {
                more = true;
                break;
            }
        }
        if read > 0 {
            self.link.send(ToHost::Read { seq: read });
        }
        self.settle().await?;
        Ok(more)
    }

    /// Does what the projection wants.
    pub(super) fn carry_out(&mut self, step: Step) -> Result<(), SessionError> {
        let last = step.events.len();
        // The events of one record together: after a crash either all are there or none.
        for (number, json) in step.events.into_iter().enumerate() {
            let ends = number + 1 == last;
            self.state.meta.last_seq =
                self.events
                    .append(Kind::Event, step.from, ends, step.time_ms, json.as_bytes())?;
        }
        for effect in step.effects {
            match effect {
                Effect::Send { mark, lines, sync } => {
                    self.link.send(ToHost::Input { mark, lines, sync });
                }
                Effect::End { keep_tools } => self.tell_host_to_end(keep_tools),
                Effect::EndTools { since_ms } => self.link.send(ToHost::EndTools { since_ms }),
                Effect::Tell(event) => {
                    if let BusEvent::Resolved(resolution) = &event {
                        self.decision_arrived(resolution);
                    }
                    self.core.tell(event);
                }
                Effect::Sent(id) => self.core.store.message_sent(&id)?,
                Effect::Sync => self.sync()?,
                Effect::FoldLines(drop) => self.link.send(ToHost::Fold { drop }),
                Effect::FoldEvents => self.fold_events()?,
            }
        }
        Ok(())
    }

    fn decision_arrived(&mut self, resolution: &Resolution) {
        for at in (0..self.deciding.len()).rev() {
            if self.deciding[at].resolution.id == resolution.id {
                let deciding = self.deciding.swap_remove(at);
                self.decided.push((deciding.reply, resolution.clone()));
            }
        }
    }

    /// Both logs are to survive a power cut. Nobody waits for it: what the event log loses is made again.
    fn sync(&mut self) -> Result<(), SessionError> {
        self.link.send(ToHost::Sync);
        self.flush_events()?;
        let file = self.events.handle()?;
        tokio::task::spawn_blocking(move || {
            if let Err(error) = file.sync_data() {
                tracing::warn!(%error, "cannot sync an event log");
            }
        });
        Ok(())
    }

    fn fold_events(&mut self) -> Result<(), SessionError> {
        self.flush_events()?;
        if self.full {
            return Ok(());
        }
        let drop = super::folding::fragments(&self.dir.event_log())?;
        if !drop.is_empty() {
            self.events.fold(&drop)?;
        }
        Ok(())
    }

    /// Puts events on disk; on a full one they wait.
    pub(super) fn flush_events(&mut self) -> Result<(), SessionError> {
        match self.events.flush() {
            Ok(()) => self.full = false,
            Err(error) if error.is_full() => {
                if !std::mem::replace(&mut self.full, true) {
                    tracing::error!(
                        session = self.state.meta.id,
                        "the disk is full; the session waits"
                    );
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// After each step: what follows from the state, on disk and to readers.
    pub(super) async fn settle(&mut self) -> Result<(), SessionError> {
        if self.state.wants_process() {
            // It ended with work left to do: resume it, once for each end that came after it was ready.
            self.state.process_wanted();
            if let Err(error) = Box::pin(self.start()).await {
                tracing::warn!(session = self.state.meta.id, %error, "cannot resume a session for its queue");
            }
        }
        if let Some(step) = self.state.dispatch(clock::now_ms()) {
            // First that it is sent, then the sending: a count too high is better than a turn twice.
            self.save();
            self.carry_out(step)?;
        }
        self.flush_events()?;
        if self.state.update_status() {
            self.clocks.status_changed(self.state.meta.status);
            self.dirty = true;
        }
        self.publish();
        for waiting in self.ended.drain(..) {
            let _ = waiting.send(Ok(()));
        }
        for (reply, resolution) in self.decided.drain(..) {
            let _ = reply.send(Ok(resolution));
        }
        let mode = self.state.meta.permission_mode;
        let (done, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.changing)
            .into_iter()
            .partition(|changing| changing.mode == mode || changing.until <= Instant::now());
        self.changing = left;
        for changing in done {
            let _ = changing.reply.send(Ok(()));
        }
        Ok(())
    }

    /// Shows the state to readers and the bus, and keeps it.
    pub(super) fn publish(&mut self) {
        // While a log is read again readers see the state as it was kept.
        if self.state.is_replaying() {
            return;
        }
        let mut view = self.state.view();
        self.clocks.approvals(&self.state, &view.approvals);
        if self.full || self.host_full {
            view.problem = Some(Problem {
                kind: ProblemKind::DiskFull,
                message:
                    "the disk of this machine is full: the agent waits, and goes on by itself once there is \
                          room"
                        .into(),
                api_status: None,
                can_retry: false,
            });
        }
        let before = self.shared.view();
        if *before == view {
            return;
        }
        let view = Arc::new(view);
        let important = self.told.as_ref().is_none_or(|told| {
            told.status != view.status
                || told.pending_approvals != view.pending_approvals
                || told.title != view.title
                || told.queue.len() != view.queue.len()
                || told.turns != view.turns
                || told.problem != view.problem
        });
        self.shared.publish(Arc::clone(&view));
        if important || self.clocks.may_tell() {
            self.tell(view);
        }
        if self.dirty || important {
            self.save();
        }
    }

    fn tell(&mut self, view: Arc<SessionView>) {
        self.clocks.told();
        self.told = Some(Arc::clone(&view));
        self.core.tell(BusEvent::Session(view));
    }

    /// What readers see is newer than what the bus was told.
    fn untold(&self) -> bool {
        let current = self.shared.view();
        self.told
            .as_ref()
            .is_some_and(|told| !Arc::ptr_eq(told, &current))
    }

    pub(super) fn save(&mut self) {
        if self.shared.tail.borrow().removed {
            return;
        }
        self.dirty = false;
        self.clocks.saved();
        if let Err(error) = self.core.store.save(&self.state.meta) {
            tracing::error!(session = self.state.meta.id, %error, "cannot save a session");
        }
    }

    /// The session object changed in a way that is to be kept.
    pub(super) fn changed(&mut self) {
        self.dirty = true;
    }

    /// When something is to be done even if nothing happens.
    fn due(&self) -> Instant {
        let mut due = self.clocks.due(&self.state, self.untold());
        if self.full {
            due = due.min(Instant::now() + FULL_RETRY);
        }
        for deciding in &self.deciding {
            due = due.min(deciding.until);
        }
        for changing in &self.changing {
            due = due.min(changing.until);
        }
        due.max(Instant::now() + std::time::Duration::from_millis(1))
    }

    /// Time has passed. Should the actor go?
    async fn on_time(&mut self) -> bool {
        if self.untold() && self.clocks.may_tell() {
            let current = self.shared.view();
            self.tell(current);
            self.save();
        }
        self.start_if_due().await;
        for driver_id in self.clocks.expired() {
            let step = self.state.time_out(&driver_id);
            self.carry_out_or_give_up(step).await;
        }
        if self.clocks.interrupt_again() {
            match self.state.interrupt() {
                Ok(Some(step)) => self.carry_out_or_give_up(step).await,
                Ok(None) | Err(_) => self.clocks.interrupted_enough(),
            }
        }
        let late = Instant::now();
        for at in (0..self.deciding.len()).rev() {
            if self.deciding[at].until <= late {
                let deciding = self.deciding.swap_remove(at);
                self.decided.push((deciding.reply, deciding.resolution));
            }
        }
        if self.clocks.should_park(self.state.meta.status) {
            if self.state.meta.cannot_resume().is_none() {
                self.park(None).await;
            } else {
                // Its process is all there is of it.
                self.clocks.not_yet();
            }
        }
        if self.clocks.end_is_late() && self.state.run.is_some() {
            self.kill_host();
        }
        let idle = self.state.run.is_none()
            && self.state.meta.starts_ms.is_none()
            && self.link.is_none()
            && self.clocks.is_retired();
        if idle && self.shared.tail.receiver_count() == 0 && self.asks.is_empty() {
            self.asks.close();
            return true;
        }
        if idle {
            self.clocks.not_yet();
        }
        false
    }

    pub(super) async fn carry_out_or_give_up(&mut self, step: Step) {
        if let Err(error) = self.carry_out(step) {
            self.give_up(&error).await;
        }
    }

    /// The process ended. Who waited for that is answered when the new state is shown.
    fn run_over(&mut self) {
        self.link = Link::None;
        self.clocks.run_over();
        self.dirty = true;
        self.ended.append(&mut self.waiting);
        if std::mem::take(&mut self.wake) {
            self.state.want_process();
        }
        // What was decided when it died did not arrive, or was never asked: the record says so.
        for deciding in std::mem::take(&mut self.deciding) {
            self.decided.push((deciding.reply, deciding.resolution));
        }
    }

    /// Waits for a decision to arrive.
    pub(super) fn await_decision(&mut self, resolution: Resolution, reply: Reply<Resolution>) {
        self.deciding.push(Deciding {
            resolution,
            reply,
            until: Instant::now() + EFFECT_PATIENCE,
        });
    }

    /// Tells readers that the session is gone.
    pub(super) fn removed(&self) {
        self.shared
            .tail
            .send_modify(|tail: &mut Tail| tail.removed = true);
        self.core.tell(BusEvent::Removed(self.state.meta.id.clone()));
    }

    /// Appends a record of ours to the raw log. Only while no host lives, which would be the writer.
    pub(super) fn write_own(
        &mut self,
        kind: Kind,
        payload: &impl serde::Serialize,
    ) -> Result<(), SessionError> {
        let payload =
            serde_json::to_vec(payload).map_err(|error| SessionError::Internal(error.to_string()))?;
        let mut raw = self.raw_writer()?;
        let line = raw.end().line;
        raw.append(kind, line, true, clock::now_ms(), &payload)?;
        raw.flush()?;
        raw.sync()?;
        Ok(())
    }

    /// The raw log for writing, with numbers above all that anybody has seen.
    pub(super) fn raw_writer(&self) -> Result<LogWriter, LogError> {
        let mut raw = LogWriter::open(&self.dir.raw_log(), false)?;
        raw.raise(self.state.seen(), self.state.meta.total_lines);
        Ok(raw)
    }

    /// Is the session one that has a process, or had when `arpc` stopped?
    pub(super) fn is_live(&self) -> bool {
        let meta = &self.state.meta;
        meta.status.is_live() && meta.runs > 0 && meta.starts_ms.is_none()
    }

    pub(super) fn fail(&mut self, error: &SessionError) {
        let meta = &mut self.state.meta;
        meta.status = Status::Failed;
        meta.error = Some(error.to_string());
        meta.turn = None;
        meta.ended_ms = Some(clock::now_ms());
        meta.problem = Some(Problem {
            kind: ProblemKind::AgentEnded,
            message: error.to_string(),
            api_status: None,
            can_retry: true,
        });
    }
}
