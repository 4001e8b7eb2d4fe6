//! All sessions of this machine: created, found, listed, asked, followed, and cleaned up.

mod approvals;
mod create;
mod follow;
mod remove;
mod resume;
mod retention;
mod steering;

pub use approvals::ExternalApproval;
pub use create::{Created, NewSession};
pub use follow::Follower;
pub use remove::{Deleted, History, Removal};
pub use steering::Steering;

use crate::core::{AgentSource, Core, PastSessions, SessionsConfig};
use crate::defaults::{BUS_CAPACITY, LOCK_WAIT};
use crate::error::SessionError;
use crate::model::{Meta, Problem, ProblemKind, Resolution, SessionView, Status};
use crate::session::{Accepted, Actor, Ask, Change, Handle};
use crate::store::{Filter, Store};
use approvals::External;
use arp_agents::driver::{Decision, PermissionMode};
use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, oneshot};

/// What is to become of running sessions when `arpc` stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// They are parked: no process stays behind, the next message resumes.
    Park,
    /// They run on; the next `arpc` finds them.
    RunOn,
}

/// All sessions of this machine.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    actors: Mutex<HashMap<String, Handle>>,
    external: Mutex<HashMap<String, External>>,
    closing: AtomicBool,
    /// One at a time counts live sessions and makes room.
    room: tokio::sync::Mutex<()>,
    /// Held as long as this arpc owns the data directory.
    _lock: File,
}

/// Takes the lock of the data directory. A killed `arpc` may have been starting a session host: until that has
/// begun its own program it holds what its parent held, so a lock that is taken is tried for a moment longer.
fn hold(lock: &File) -> Result<(), std::fs::TryLockError> {
    let patience = Instant::now() + LOCK_WAIT;
    loop {
        match lock.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < patience => {
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}

impl Sessions {
    /// Opens the data directory, and takes over the sessions that an earlier `arpc` left running. Must be
    /// called on a Tokio runtime.
    ///
    /// # Errors
    /// When the directory cannot be used, or another `arpc` uses it.
    pub fn open(
        config: SessionsConfig,
        agents: Arc<dyn AgentSource>,
        past: Arc<dyn PastSessions>,
    ) -> Result<Self, SessionError> {
        crate::ipc::private_dir(&config.data_dir)?;
        crate::ipc::private_dir(&config.data_dir.join("sessions"))?;
        let lock = File::create(config.data_dir.join("arpc.lock"))?;
        hold(&lock).map_err(|_| {
            SessionError::Internal(format!(
                "another arpc uses the data directory {}; stop it, or give this one its own",
                config.data_dir.display()
            ))
        })?;
        let store = Store::open(&config.data_dir.join("sessions.sqlite"))?;
        let (bus, _) = broadcast::channel(BUS_CAPACITY);
        let core = Arc::new(Core {
            config,
            store,
            agents,
            past,
            bus,
        });
        let sessions = Self(Arc::new(Inner {
            core,
            actors: Mutex::default(),
            external: Mutex::default(),
            closing: AtomicBool::new(false),
            room: tokio::sync::Mutex::default(),
            _lock: lock,
        }));
        let live = Status::ALL
            .into_iter()
            .filter(|status| status.is_live())
            .collect();
        let (left, _) = sessions.core().store.list(&Filter {
            status: live,
            limit: u64::MAX,
            ..Filter::default()
        })?;
        sessions.sweep()?;
        for mut meta in left {
            let id = meta.id.clone();
            if meta.runs == 0 && meta.starts_ms.is_none() {
                let why = "arpc was stopped before the agent was started; start it again";
                meta.status = Status::Failed;
                meta.error = Some(why.into());
                meta.problem = Some(Problem {
                    kind: ProblemKind::StartFailed,
                    message: why.into(),
                    api_status: None,
                    can_retry: true,
                });
                sessions.core().store.save(&meta)?;
                continue;
            }
            if let Err(error) = sessions.activate(meta) {
                tracing::error!(session = id, %error, "cannot take over a session");
            }
        }
        tokio::spawn(retention::run(Arc::downgrade(&sessions.0)));
        tokio::spawn(resume::run(Arc::downgrade(&sessions.0)));
        Ok(sessions)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &SessionsConfig {
        &self.core().config
    }

    /// Where agents come from.
    #[must_use]
    pub fn agents(&self) -> &Arc<dyn AgentSource> {
        &self.core().agents
    }

    /// Sessions, newest first, and how many there are without limit and offset.
    ///
    /// # Errors
    /// When the database fails.
    pub fn list(&self, filter: &Filter) -> Result<(Vec<Arc<SessionView>>, u64), SessionError> {
        let (metas, total) = self.core().store.list(filter)?;
        let views = metas
            .into_iter()
            .map(|meta| self.view_of(&meta))
            .collect::<Result<_, _>>()?;
        Ok((views, total))
    }

    /// A session by our id or the agent's.
    ///
    /// # Errors
    /// [`SessionError::NotFound`].
    pub fn get(&self, id: &str) -> Result<Arc<SessionView>, SessionError> {
        if let Some(handle) = self.actors().get(id) {
            return Ok(handle.shared.view());
        }
        let meta = self.meta(id)?;
        self.view_of(&meta)
    }

    /// How many agents are alive.
    #[must_use]
    pub fn live(&self) -> usize {
        self.actors()
            .values()
            .filter(|handle| handle.shared.view().status.is_live())
            .count()
    }

    /// Gives a session its next message.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn message(
        &self,
        id: &str,
        text: String,
        client_id: Option<String>,
        interrupt: bool,
    ) -> Result<Accepted, SessionError> {
        create::check_prompt(&text)?;
        self.make_room(id).await?;
        self.call(id, |reply| Ask::Message {
            text: text.clone(),
            client_id: client_id.clone(),
            interrupt,
            reply,
        })
        .await
    }

    /// Takes a message back that waits.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn unqueue(&self, id: &str, message_id: &str) -> Result<(), SessionError> {
        self.call(id, |reply| Ask::Unqueue {
            message_id: message_id.to_owned(),
            reply,
        })
        .await
    }

    /// Stops the running turn. Did one run?
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn interrupt(&self, id: &str, clear_queue: bool) -> Result<bool, SessionError> {
        self.call(id, |reply| Ask::Interrupt { clear_queue, reply }).await
    }

    /// Ends the process and all its tools; when this returns they are gone.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn cancel(&self, id: &str) -> Result<Arc<SessionView>, SessionError> {
        self.call(id, Ask::Cancel).await?;
        self.get(id)
    }

    /// Changes model, permission mode or title.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn set(&self, id: &str, change: Change) -> Result<Arc<SessionView>, SessionError> {
        if let Some(mode) = change.permission_mode {
            self.check_mode(mode)?;
        }
        self.call(id, |reply| Ask::Set {
            change: change.clone(),
            reply,
        })
        .await?;
        self.get(id)
    }

    /// Tries again what went wrong with a session ([`SessionView::problem`]).
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn retry(&self, id: &str, client_id: Option<String>) -> Result<Accepted, SessionError> {
        self.make_room(id).await?;
        self.call(id, |reply| Ask::Retry {
            client_id: client_id.clone(),
            reply,
        })
        .await
    }

    /// Answers an approval of a session or of an agent that asked over MCP.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn decide(&self, approval_id: &str, decision: Decision) -> Result<Resolution, SessionError> {
        if let Some(resolution) = self.decide_external(approval_id, &decision) {
            return resolution;
        }
        let unknown = || SessionError::ApprovalNotFound(approval_id.to_owned());
        let (session, _) = approval_id.split_once('.').ok_or_else(unknown)?;
        match self.meta(session) {
            Ok(_) => {}
            Err(SessionError::NotFound(_)) => return Err(unknown()),
            Err(error) => return Err(error),
        }
        let decided = self
            .call(session, |reply| Ask::Decide {
                approval_id: approval_id.to_owned(),
                decision: decision.clone(),
                reply,
            })
            .await;
        match decided {
            Err(SessionError::ApprovalNotFound(_)) => Err(self.why_not_waiting(approval_id).await),
            decided => decided,
        }
    }

    /// Stops looking after the sessions; returns when all is done.
    pub async fn shutdown(&self, leaving: Leaving) {
        self.0.closing.store(true, Ordering::SeqCst);
        let handles: Vec<Handle> = self.actors().values().cloned().collect();
        let mut waiting = Vec::new();
        for handle in handles {
            let (reply, answer) = oneshot::channel();
            let ask = match leaving {
                Leaving::Park => Ask::Park {
                    why: Some("arpc was stopped, and parked its sessions".into()),
                    reply,
                },
                Leaving::RunOn => Ask::Detach(reply),
            };
            if handle.asks.send(ask).await.is_ok() {
                waiting.push(answer);
            }
        }
        for answer in waiting {
            // Longer than all the graces of a host together.
            if tokio::time::timeout(Duration::from_secs(20), answer)
                .await
                .is_err()
            {
                tracing::warn!("a session did not end in time");
            }
        }
    }

    fn core(&self) -> &Arc<Core> {
        &self.0.core
    }

    fn actors(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.0.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meta(&self, id: &str) -> Result<Meta, SessionError> {
        self.core()
            .store
            .find(id)?
            .ok_or_else(|| SessionError::NotFound(id.to_owned()))
    }

    fn view_of(&self, meta: &Meta) -> Result<Arc<SessionView>, SessionError> {
        if let Some(handle) = self.actors().get(&meta.id) {
            return Ok(handle.shared.view());
        }
        let queue = self.core().store.queue(&meta.id)?;
        Ok(Arc::new(SessionView::new(meta, queue, Vec::new())))
    }

    fn check_mode(&self, mode: PermissionMode) -> Result<(), SessionError> {
        if mode == PermissionMode::BypassPermissions && !self.config().allow_bypass {
            return Err(SessionError::BypassNotAllowed(
                "skipping permissions is not allowed on this machine; its owner can allow it with --allow-bypass"
                    .into(),
            ));
        }
        Ok(())
    }

    /// The actor of a session, started if it is not there.
    fn handle(&self, id: &str) -> Result<Handle, SessionError> {
        if let Some(handle) = self.actors().get(id) {
            return Ok(handle.clone());
        }
        let meta = self.meta(id)?;
        self.activate(meta)
    }

    fn activate(&self, meta: Meta) -> Result<Handle, SessionError> {
        let mut actors = self.actors();
        if let Some(handle) = actors.get(&meta.id) {
            return Ok(handle.clone());
        }
        // Read again under the lock: an actor that just left has written since, or has deleted the session.
        let id = meta.id;
        let meta = self.core().store.find(&id)?.filter(|kept| kept.id == id);
        let meta = meta.ok_or_else(|| SessionError::NotFound(id.clone()))?;
        let inner = Arc::downgrade(&self.0);
        let handle = Actor::spawn(Arc::clone(self.core()), meta, move |id| {
            if let Some(inner) = inner.upgrade() {
                inner
                    .actors
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(id);
            }
        })?;
        actors.insert(id, handle.clone());
        Ok(handle)
    }

    /// Asks a session's actor. One that is just leaving is started again.
    async fn call<T>(
        &self,
        id: &str,
        ask: impl Fn(oneshot::Sender<Result<T, SessionError>>) -> Ask,
    ) -> Result<T, SessionError> {
        for _ in 0..100 {
            if self.0.closing.load(Ordering::SeqCst) {
                return Err(SessionError::ShuttingDown);
            }
            let handle = self.handle(id)?;
            let (reply, answer) = oneshot::channel();
            if handle.asks.send(ask(reply)).await.is_ok() {
                return match answer.await {
                    Ok(answer) => answer,
                    Err(_) => {
                        // Deleted by somebody who asked a moment earlier: then it is not found, as it is from now on.
                        self.meta(id)?;
                        Err(SessionError::Internal("the session went away".into()))
                    }
                };
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(SessionError::Internal("the session does not answer".into()))
    }
}
