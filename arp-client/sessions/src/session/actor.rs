//! The actor's loop: what is asked, what the log says, what time it is.

use super::run::Run;
use super::{Ask, BusEvent, Handle, Shared, Tail};
use crate::clock;
use crate::core::Core;
use crate::defaults::PAGE_BYTES;
use crate::error::SessionError;
use crate::host::SessionDir;
use crate::hostlink::HostState;
use crate::log::LogWriter;
use crate::model::{Message, Meta, SessionView, Status, Turn};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// The session object is written to the database at most this late.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// The bus hears of a change that is no change of state at most this often.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// An actor without a process that nobody asked anything of for this long goes.
const RETIRE_AFTER: Duration = Duration::from_secs(60);
/// Approvals decided lately that are remembered, to tell a late answer from a wrong id.
const REMEMBER_RESOLVED: usize = 256;

/// One session at work.
pub(crate) struct Actor {
    pub(super) core: Arc<Core>,
    pub(super) shared: Arc<Shared>,
    pub(super) dir: SessionDir,
    pub(super) meta: Meta,
    pub(super) queue: VecDeque<Message>,
    pub(super) events: LogWriter,
    /// Records of the raw log up to this one have given their events.
    pub(super) events_from: u64,
    /// Events of the record at hand.
    pub(super) batch: Vec<String>,
    /// Is the record at hand a new one (or one whose events were given already)?
    pub(super) fresh: bool,
    /// The time of the record at hand.
    pub(super) now_ms: u64,
    pub(super) run: Option<Run>,
    /// The process ended; `run` is to be dropped.
    pub(super) over: bool,
    pub(super) ended_by_itself: bool,
    pub(super) saved_turn: Option<Turn>,
    pub(super) text_id: String,
    pub(super) text: String,
    pub(super) leaves_tools: bool,
    pub(super) resolved: VecDeque<String>,
    /// Waiting for the end of the process.
    pub(super) waiting: Vec<oneshot::Sender<Result<(), SessionError>>>,
    /// Have waited for it, and it came.
    pub(super) ended: Vec<oneshot::Sender<Result<(), SessionError>>>,
    pub(super) dirty: bool,
    idle_since: Instant,
    saved_at: Instant,
    told_at: Instant,
    told: Option<Arc<SessionView>>,
    asks: mpsc::Receiver<Ask>,
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
        meta: Meta,
        gone: impl FnOnce(&str) + Send + 'static,
    ) -> Result<Handle, SessionError> {
        let dir = SessionDir::new(core.config.session_dir(&meta.id));
        crate::ipc::private_dir(dir.path())?;
        let events = LogWriter::open(&dir.event_log(), true)?;
        let queue: VecDeque<Message> = core.store.queue(&meta.id)?.into();
        let mut meta = meta;
        meta.last_seq = events.end().seq;
        let (sender, asks) = mpsc::channel(64);
        let view = SessionView::new(&meta, queue.iter().cloned().collect(), Vec::new());
        let shared = Arc::new(Shared::new(view));
        let now = Instant::now();
        let actor = Self {
            // Codex lets a running command live on when a turn is interrupted.
            leaves_tools: meta.executor == "codex",
            core,
            shared: Arc::clone(&shared),
            dir,
            queue,
            events_from: events.end().line,
            events,
            batch: Vec::new(),
            fresh: true,
            now_ms: clock::now_ms(),
            run: None,
            over: false,
            ended_by_itself: false,
            saved_turn: None,
            text_id: String::new(),
            text: String::new(),
            resolved: VecDeque::new(),
            waiting: Vec::new(),
            ended: Vec::new(),
            dirty: false,
            idle_since: now,
            saved_at: now,
            told_at: now - TELL_EVERY,
            told: None,
            asks,
            meta,
        };
        let handle = Handle { asks: sender, shared };
        tokio::spawn(async move {
            let id = actor.meta.id.clone();
            actor.live().await;
            gone(&id);
        });
        Ok(handle)
    }

    async fn live(mut self) {
        if self.meta.status.is_live()
            && self.meta.runs > 0
            && self.meta.starts_ms.is_none()
            && let Err(error) = self.take_over().await
        {
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
                () = std::future::ready(()), if more => {}
                state = link_changed(&mut self.run), if self.run.is_some() => {
                    more = true;
                    if state == HostState::Gone {
                        self.lost_host().await;
                    }
                }
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

    /// Reads what is new in the raw log. Is there more?
    async fn pump(&mut self) -> Result<bool, SessionError> {
        let mut bytes = 0;
        let mut more = false;
        while let Some(run) = &mut self.run {
            let Some(record) = run.log.next_record()? else {
                break;
            };
            bytes += record.payload.len();
            self.record(&record).await?;
            if self.over {
                self.end_run();
                break;
            }
            if bytes > PAGE_BYTES {
                more = true;
                break;
            }
        }
        self.settle().await?;
        Ok(more)
    }

    /// After each step: what follows from the state, on disk and to readers.
    pub(super) async fn settle(&mut self) -> Result<(), SessionError> {
        self.fresh = true;
        self.now_ms = clock::now_ms();
        self.dispatch().await?;
        self.events.flush()?;
        self.update_status();
        self.publish();
        for waiting in self.ended.drain(..) {
            let _ = waiting.send(Ok(()));
        }
        Ok(())
    }

    fn update_status(&mut self) {
        let Some(run) = &self.run else { return };
        if run.replaying {
            return;
        }
        let status = match (&self.meta.turn, run.ready) {
            _ if !run.approvals.is_empty() => Status::Waiting,
            (Some(_), _) => Status::Running,
            (None, true) => Status::Idle,
            (None, false) => Status::Starting,
        };
        if status != self.meta.status {
            if status == Status::Idle {
                self.idle_since = Instant::now();
            }
            self.meta.status = status;
            self.dirty = true;
        }
    }

    /// Shows the state to readers and the bus, and keeps it.
    pub(super) fn publish(&mut self) {
        // While a log is read again readers see the state as it was kept.
        if self.run.as_ref().is_some_and(|run| run.replaying) {
            return;
        }
        let approvals = self
            .run
            .iter()
            .flat_map(|run| run.approvals.iter().map(|one| one.view.clone()));
        let dispatching = self.run.as_ref().and_then(|run| run.dispatching.as_ref());
        let queue = self
            .queue
            .iter()
            .filter(|message| Some(&message.id) != dispatching)
            .cloned()
            .collect();
        let view = SessionView::new(&self.meta, queue, approvals.collect());
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
        });
        self.shared.publish(Arc::clone(&view));
        if important || self.told_at.elapsed() >= TELL_EVERY {
            self.tell(view);
        }
        if self.dirty || important {
            self.save();
        }
    }

    fn tell(&mut self, view: Arc<SessionView>) {
        self.told_at = Instant::now();
        self.told = Some(Arc::clone(&view));
        self.core.tell(BusEvent::Session(view));
    }

    pub(super) fn save(&mut self) {
        if self.shared.tail.borrow().removed {
            return;
        }
        self.dirty = false;
        self.saved_at = Instant::now();
        if let Err(error) = self.core.store.save(&self.meta) {
            tracing::error!(session = self.meta.id, %error, "cannot save a session");
        }
    }

    /// When something is to be done even if nothing happens.
    fn due(&self) -> Instant {
        let mut due = Instant::now() + Duration::from_secs(60);
        let current = self.shared.view();
        if self
            .told
            .as_ref()
            .is_some_and(|told| !Arc::ptr_eq(told, &current))
        {
            due = due.min(self.told_at + TELL_EVERY).min(self.saved_at + SAVE_EVERY);
        }
        if let Some(run) = &self.run {
            for expires in run.approvals.iter().filter_map(|waiting| waiting.view.expires_at) {
                let left = expires.0.saturating_sub(clock::now_ms());
                due = due.min(Instant::now() + Duration::from_millis(left));
            }
            if let Some((at, _)) = run.interrupt_again {
                due = due.min(at);
            }
            if let Some(after) = self.core.config.park_after
                && self.meta.status == Status::Idle
            {
                due = due.min(self.idle_since + after);
            }
        } else if let Some(at) = self.meta.starts_ms {
            let left = at.saturating_sub(clock::now_ms());
            due = due.min(Instant::now() + Duration::from_millis(left));
        } else {
            due = due.min(self.idle_since + RETIRE_AFTER);
        }
        due.max(Instant::now() + Duration::from_millis(1))
    }

    /// Time has passed. Should the actor go?
    async fn on_time(&mut self) -> bool {
        let current = self.shared.view();
        if self
            .told
            .as_ref()
            .is_some_and(|told| !Arc::ptr_eq(told, &current))
            && self.told_at.elapsed() >= TELL_EVERY
        {
            self.tell(current);
            self.save();
        }
        self.start_if_due().await;
        self.deny_expired().await;
        self.repeat_interrupt().await;
        if let Some(after) = self.core.config.park_after
            && self.meta.status == Status::Idle
            && self.idle_since.elapsed() >= after
        {
            self.park().await;
        }
        let idle =
            self.run.is_none() && self.meta.starts_ms.is_none() && self.idle_since.elapsed() >= RETIRE_AFTER;
        if idle && self.shared.tail.receiver_count() == 0 && self.asks.is_empty() {
            self.asks.close();
            return true;
        }
        if idle {
            self.idle_since = Instant::now();
        }
        false
    }

    /// Drops the process that ended. Who waited for that is answered when the new state is shown.
    pub(super) fn end_run(&mut self) {
        self.over = false;
        self.run = None;
        self.idle_since = Instant::now();
        self.ended.append(&mut self.waiting);
    }

    pub(super) fn remember_resolved(&mut self, id: String) {
        if self.resolved.len() >= REMEMBER_RESOLVED {
            self.resolved.pop_front();
        }
        self.resolved.push_back(id);
    }

    /// Tells readers that the session is gone.
    pub(super) fn removed(&self) {
        self.shared
            .tail
            .send_modify(|tail: &mut Tail| tail.removed = true);
        self.core.tell(BusEvent::Removed(self.meta.id.clone()));
    }
}

async fn link_changed(run: &mut Option<Run>) -> HostState {
    match run.as_mut().and_then(|run| run.link.as_mut()) {
        Some(link) => link.changed().await,
        None => std::future::pending().await,
    }
}
