//! What must survive a restart: which names are bound to which edge's key.
//!
//! SQLite, on a thread of its own; the registry in memory answers every request of a visitor. A flood of
//! registrations shares transactions, so that it costs few disk writes.

mod db;

pub use db::{Binding, Claim, Db, StoreError, Verdict};

use std::path::Path;
use tokio::sync::{mpsc, oneshot};

/// Claims that may wait for the thread.
const QUEUE: usize = 1024;
/// Claims of one transaction.
const BATCH: usize = 256;

struct Job {
    claim: Claim,
    answer: oneshot::Sender<Result<Verdict, StoreError>>,
}

/// The open store of a running relay.
#[derive(Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
}

impl Store {
    /// Opens the store and gives what it knows: the `max` bindings of the clients seen last.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(path: &Path, max_names: usize, max: usize) -> Result<(Self, Vec<Binding>), StoreError> {
        let db = Db::open(path)?;
        let known = db.bindings(max)?;
        let (jobs, rx) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || serve(db, rx, max_names))
            .map_err(StoreError::Thread)?;
        Ok((Self { jobs }, known))
    }

    /// Binds the names of a claim to its key, if nobody else's key holds one of them.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing is bound then.
    pub async fn claim(&self, claim: Claim) -> Result<Verdict, StoreError> {
        let (answer, verdict) = oneshot::channel();
        let job = Job { claim, answer };
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        verdict.await.map_err(|_| StoreError::Closed)?
    }
}

/// The thread: ends when the relay has dropped its [`Store`].
fn serve(mut db: Db, mut jobs: mpsc::Receiver<Job>, max_names: usize) {
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = jobs.try_recv()
        {
            batch.push(next);
        }
        let claims: Vec<&Claim> = batch.iter().map(|j| &j.claim).collect();
        match db.claim_all(&claims, max_names) {
            Ok(verdicts) => {
                for (job, verdict) in batch.into_iter().zip(verdicts) {
                    let _ = job.answer.send(Ok(verdict));
                }
            }
            Err(e) => {
                tracing::error!("cannot keep key bindings: {e}");
                for job in batch {
                    let _ = job.answer.send(Err(StoreError::Closed));
                }
            }
        }
    }
}
