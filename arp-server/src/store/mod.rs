//! What must survive a restart: which names are bound to which edge's key.
//!
//! SQLite, on a thread of its own; the registry in memory answers every request of a visitor. A flood of
//! registrations shares transactions, so that it costs few disk writes. Where nothing can be written (a full
//! disk), those who are known are recognised all the same, and nobody new is let in.

mod claim;
mod db;
mod ledger;

pub use claim::{Claim, Limit, Limits, Online, Verdict};
pub use db::{Binding, Db, Forget, StoreError};
pub use ledger::{Day, today};

use crate::defaults as d;
use arp_common::ids::ClientId;
use arp_common::tls::Fingerprint;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// Jobs that may wait for the thread.
const QUEUE: usize = 1024;
/// Claims of one transaction.
const BATCH: usize = 256;

type Other = Box<dyn FnOnce(&mut Db) -> Result<(), StoreError> + Send>;

enum Job {
    Claim(Claim, oneshot::Sender<Result<Verdict, StoreError>>),
    Seen(ClientId, Fingerprint, bool),
    /// Rare ones, of the operator and of the clock.
    Other(Other),
}

/// The open store of a running relay.
#[derive(Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    writable: Arc<AtomicBool>,
}

impl Store {
    /// Serves an open file, which is at `path`.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn start(db: Db, path: PathBuf, limits: Limits, online: Box<Online>) -> Result<Self, StoreError> {
        let (jobs, rx) = mpsc::channel(QUEUE);
        let writable = Arc::new(AtomicBool::new(db.is_kept()));
        let keeper = Keeper {
            writable: writable.clone(),
            db,
            path,
            limits,
            online,
            tried: Instant::now(),
        };
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || keeper.serve(rx))
            .map_err(StoreError::Thread)?;
        Ok(Self { jobs, writable })
    }

    /// Did the last write succeed?
    pub fn is_writable(&self) -> bool {
        self.writable.load(Relaxed)
    }

    /// Binds the names of a claim to its key, if nobody else's key holds one of them.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing is bound then.
    pub async fn claim(&self, claim: Claim) -> Result<Verdict, StoreError> {
        let (answer, verdict) = oneshot::channel();
        let job = Job::Claim(claim, answer);
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        verdict.await.map_err(|_| StoreError::Closed)?
    }

    /// Notes, some time, that a client is here, and whether a visitor has ever asked for it. Waits for nothing: when
    /// the disk is slow, this is what can be left out.
    pub fn seen(&self, client: ClientId, key: Fingerprint, used: bool) {
        let _ = self.jobs.try_send(Job::Seen(client, key, used));
    }
}

impl Store {
    /// Does something with the file, on the thread that owns it.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, done) = oneshot::channel();
        let work = move |db: &mut Db| {
            let result = work(db);
            let failed = matches!(result, Err(StoreError::Sql(_)));
            let _ = answer.send(result);
            // Told to the one who asked; here it only counts that it failed.
            if failed { Err(StoreError::Closed) } else { Ok(()) }
        };
        let job = Job::Other(Box::new(work));
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        done.await.map_err(|_| StoreError::Closed)?
    }

    /// Unbinds names; see [`Db::forget`].
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn forget(&self, what: Forget) -> Result<Vec<String>, StoreError> {
        self.with(move |db| db.forget(&what)).await
    }

    /// Bans, or no longer.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_ban(&self, ban: String, on: bool) -> Result<(), StoreError> {
        self.with(move |db| db.set_ban(&ban, on)).await
    }

    /// Adds to a day's traffic.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn add_traffic(&self, day: Day) -> Result<(), StoreError> {
        self.with(move |db| db.add_traffic(&day)).await
    }
}

/// The thread.
struct Keeper {
    db: Db,
    path: PathBuf,
    limits: Limits,
    online: Box<Online>,
    /// Did the last write succeed? It is said once when not.
    writable: Arc<AtomicBool>,
    /// When a file that could not be written to was tried last.
    tried: Instant,
}

impl Keeper {
    /// Ends when the relay has dropped its [`Store`].
    fn serve(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut batch = Vec::new();
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Claim(claim, answer) => batch.push((claim, answer)),
                    Job::Seen(client, key, used) => self.seen(&client, &key, used),
                    Job::Other(work) => {
                        if let Err(e) = work(&mut self.db) {
                            self.failed(&e);
                        }
                    }
                }
                next = (batch.len() < BATCH).then(|| jobs.try_recv().ok()).flatten();
            }
            self.decide(batch);
        }
    }

    fn decide(&mut self, batch: Vec<(Claim, oneshot::Sender<Result<Verdict, StoreError>>)>) {
        if batch.is_empty() {
            return;
        }
        self.open_again();
        if self.db.is_kept() {
            let claims: Vec<&Claim> = batch.iter().map(|(claim, _)| claim).collect();
            match self.db.claim_all(&claims, self.limits, &*self.online) {
                Ok(verdicts) => {
                    let wrote = verdicts
                        .iter()
                        .any(|v| matches!(v, Verdict::Granted(n) if *n > 0));
                    if wrote {
                        self.works();
                    }
                    for ((_, answer), verdict) in batch.into_iter().zip(verdicts) {
                        let _ = answer.send(Ok(verdict));
                    }
                    return;
                }
                Err(e) => self.failed(&e),
            }
        }
        for (claim, answer) in batch {
            let known = self.db.recognise(&claim);
            let _ = answer.send(known.and_then(|verdict| verdict.ok_or(StoreError::Closed)));
        }
    }

    fn seen(&mut self, client: &ClientId, key: &Fingerprint, used: bool) {
        if !self.db.is_kept() {
            return;
        }
        if let Err(e) = self.db.seen(client, key, used) {
            self.failed(&e);
        }
    }

    /// Tries a file again that could not be written to.
    fn open_again(&mut self) {
        if self.db.is_kept() || self.tried.elapsed() < d::STORE_RETRY {
            return;
        }
        self.tried = Instant::now();
        if let Ok(db) = Db::open(&self.path, true) {
            self.db = db;
        }
    }

    fn works(&mut self) {
        if !self.writable.swap(true, Relaxed) {
            tracing::info!("the relay can write to its store again");
        }
    }

    fn failed(&mut self, e: &StoreError) {
        if self.writable.swap(false, Relaxed) {
            tracing::error!("{}", cannot_write(&self.path, e));
        }
    }
}

/// What an operator is told when nothing can be written.
pub fn cannot_write(path: &std::path::Path, e: &StoreError) -> String {
    format!(
        "THE RELAY CANNOT WRITE TO {}: {e}. Edge agents that it knows are served; new names are refused until this \
         is mended. Is the disk full (df), or read-only?",
        path.display()
    )
}
