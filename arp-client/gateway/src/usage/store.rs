//! The file of counts and request records, in SQLite: one row a request, and sums a day that outlive the rows; and the
//! handle to it.
//!
//! One thread owns the database ([`super::writer`]). What a request leaves is handed over through a bounded queue; a queue that is full
//! (a disk that hangs) loses records, never a request.

use super::bodies::{Pending, ToKeep};
use super::record::Record;
use super::writer;
use crate::service::Service;
use rusqlite::Connection;
use serde::Serialize;
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Records that may wait for the disk.
const QUEUE: usize = 4_096;

/// Hands records over; the thread ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct Usage {
    queue: SyncSender<Message>,
    pub(super) reader: Arc<Mutex<Connection>>,
    pub(super) pending: Pending,
}

#[derive(Debug)]
pub(super) enum Message {
    Record(Box<(Record, Option<ToKeep>)>),
    Rename(Service, String, String),
    ForgetBodies(SyncSender<rusqlite::Result<()>>),
    Choice(String, Choice),
    Import(Box<super::import::Imported>, SyncSender<rusqlite::Result<bool>>),
    ClearTotals(SyncSender<rusqlite::Result<()>>),
    ClearRequests(SyncSender<rusqlite::Result<()>>),
    Flush(SyncSender<()>),
}

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the counts in {path} cannot be opened: {source}")]
pub struct OpenError {
    path: String,
    source: rusqlite::Error,
}

/// What a person has chosen for a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// The upstream.
    pub upstream: Option<String>,
    /// The model.
    pub model: Option<String>,
}

const SCHEMA: &str = "
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS requests (
  id INTEGER PRIMARY KEY, at INTEGER NOT NULL, service TEXT NOT NULL, session TEXT, agent TEXT, upstream TEXT,
  failed TEXT NOT NULL, model TEXT, routed TEXT, path TEXT NOT NULL, status INTEGER NOT NULL, millis INTEGER NOT NULL,
  first_millis INTEGER, input INTEGER NOT NULL, cache_write INTEGER NOT NULL, cache_read INTEGER NOT NULL,
  output INTEGER NOT NULL, reasoning INTEGER NOT NULL, error TEXT);
CREATE INDEX IF NOT EXISTS requests_session ON requests (session, id) WHERE session IS NOT NULL;
CREATE TABLE IF NOT EXISTS totals (
  day TEXT NOT NULL, service TEXT NOT NULL, upstream TEXT NOT NULL, model TEXT NOT NULL,
  requests INTEGER NOT NULL, failures INTEGER NOT NULL, input INTEGER NOT NULL, cache_write INTEGER NOT NULL,
  cache_read INTEGER NOT NULL, output INTEGER NOT NULL, reasoning INTEGER NOT NULL,
  PRIMARY KEY (day, service, upstream, model)) WITHOUT ROWID;
";

/// What came later, one step a version of the file.
const STEPS: [&str; 3] = [
    "
ALTER TABLE requests ADD COLUMN cost REAL;
ALTER TABLE requests ADD COLUMN redacted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE requests ADD COLUMN project TEXT;
ALTER TABLE totals ADD COLUMN cost REAL NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN unpriced INTEGER NOT NULL DEFAULT 0;
CREATE TABLE choices (session TEXT PRIMARY KEY, upstream TEXT, model TEXT, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE imports (file TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
",
    "
CREATE TABLE bodies (request INTEGER PRIMARY KEY, until INTEGER NOT NULL, body TEXT NOT NULL, cut INTEGER NOT NULL);
",
    "
ALTER TABLE bodies ADD COLUMN answer TEXT;
ALTER TABLE bodies ADD COLUMN answer_cut INTEGER NOT NULL DEFAULT 0;
",
];

fn migrate(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(SCHEMA)?;
    let version: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    for (at, step) in (0_u32..).zip(STEPS) {
        if at >= version {
            db.execute_batch(&format!("BEGIN;{step}PRAGMA user_version = {};COMMIT;", at + 1))?;
        }
    }
    Ok(())
}

impl Usage {
    /// Opens (or creates) the database and starts its thread.
    ///
    /// # Errors
    /// When it cannot be opened, read or created.
    pub fn open(path: &Path) -> Result<(Self, JoinHandle<()>), OpenError> {
        let failed = |source| OpenError {
            path: path.display().to_string(),
            source,
        };
        // Before SQLite makes it with the permissions of everybody's files.
        if let Some(dir) = path.parent() {
            arp_common::private::create_dir(dir)
                .and_then(|()| arp_common::private::create(path, b""))
                .map_err(|e| failed(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))?;
        }
        let db = Connection::open(path).map_err(failed)?;
        db.busy_timeout(std::time::Duration::from_secs(5))
            .map_err(failed)?;
        migrate(&db).map_err(failed)?;
        // A recorded body that is deleted is to be gone.
        db.pragma_update(None, "secure_delete", true).map_err(failed)?;
        let reader = Connection::open(path).map_err(failed)?;
        // Negative: kilobytes. The system keeps what of the file is read often, for both and only once.
        for (connection, kilobytes) in [(&db, 512), (&reader, 256)] {
            connection
                .pragma_update(None, "cache_size", -kilobytes)
                .map_err(failed)?;
        }
        reader
            .busy_timeout(std::time::Duration::from_secs(5))
            .map_err(failed)?;
        let (queue, records) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("usage".to_owned())
            .spawn(move || writer::write(db, &records))
            .map_err(|e| failed(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))?;
        let usage = Self {
            queue,
            reader: Arc::new(Mutex::new(reader)),
            pending: Pending::default(),
        };
        Ok((usage, thread))
    }

    /// Notes a request that is over, with its body and answer where they are to be kept. Never waits.
    pub fn note(&self, record: Record, body: Option<ToKeep>) {
        let message = Message::Record(Box::new((record, body)));
        if let Err(TrySendError::Full(_)) = self.queue.try_send(message) {
            tracing::warn!("the disk does not keep up: a request was not counted");
        }
    }

    /// Waits until all that was noted is on disk. Blocks the thread.
    pub fn flush(&self) {
        let (done, flushed) = sync_channel(1);
        if self.queue.send(Message::Flush(done)).is_ok() {
            let _ = flushed.recv();
        }
    }

    /// Keeps what somebody has chosen for a session.
    pub fn choose(&self, session: &str, choice: Choice) {
        if self
            .queue
            .try_send(Message::Choice(session.to_owned(), choice))
            .is_err()
        {
            tracing::warn!("the disk does not keep up: a session's choice is lost at the next start");
        }
    }

    /// An upstream has another name now: what was counted of it is counted on.
    pub fn rename(&self, service: Service, from: &str, to: &str) {
        let message = Message::Rename(service, from.to_owned(), to.to_owned());
        if self.queue.try_send(message).is_err() {
            tracing::warn!("the disk does not keep up: what {from} has used stays counted under that name");
        }
    }

    /// Takes over what another program has counted, once for each file. Was it new? Blocks the thread.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn import(&self, imported: super::import::Imported) -> rusqlite::Result<bool> {
        self.ask(|done| Message::Import(Box::new(imported), done))
    }

    /// Forgets all sums. Blocks the thread.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn clear_totals(&self) -> rusqlite::Result<()> {
        self.ask(Message::ClearTotals)
    }

    /// Forgets all request records; sums stay. Blocks the thread.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn clear_requests(&self) -> rusqlite::Result<()> {
        self.ask(Message::ClearRequests)
    }

    pub(super) fn ask<T>(
        &self,
        message: impl FnOnce(SyncSender<rusqlite::Result<T>>) -> Message,
    ) -> rusqlite::Result<T> {
        let (done, answer) = sync_channel(1);
        // The thread ends only with the last sender, which we are.
        let gone = || rusqlite::Error::InvalidQuery;
        self.queue.send(message(done)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Tokens;
    use super::super::query::{By, Wanted};
    use super::*;

    /// A request with this number.
    pub(in crate::usage) fn record(id: i64) -> Record {
        Record {
            id,
            at: 1_800_000_000_000,
            service: "claude",
            session: None,
            agent: None,
            upstream: None,
            failed: vec![],
            model: None,
            routed: None,
            path: "POST /v1/messages".into(),
            status: 200,
            millis: 5,
            first_millis: Some(1),
            tokens: Tokens::default(),
            cost: None,
            redacted: 0,
            project: None,
            error: None,
        }
    }

    #[test]
    fn each_request_counts_once_and_sums_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data/gateway.db");
        let (usage, thread) = Usage::open(&path).unwrap();
        for n in 0..3_u64 {
            let noted = Record {
                session: Some("s".into()),
                upstream: Some(if n == 0 { "a" } else { "b" }.into()),
                failed: vec![("x".into(), "503".into())],
                model: Some("m".into()),
                status: if n == 2 { 500 } else { 200 },
                tokens: Tokens {
                    input: n,
                    output: 10,
                    ..Tokens::default()
                },
                cost: (n > 0).then_some(0.25),
                ..record(0)
            };
            usage.note(noted, None);
        }
        usage.flush();
        let all = usage.sums(None, None, By::All).unwrap();
        assert_eq!(
            (
                all[0].requests,
                all[0].failures,
                all[0].tokens.input,
                all[0].tokens.output
            ),
            (3, 1, 3, 30)
        );
        let by: Vec<_> = usage
            .sums(Some(Service::Claude), Some("2027-01-01"), By::Upstream)
            .unwrap();
        assert_eq!(
            by.iter()
                .map(|s| (s.key.as_str(), s.requests))
                .collect::<Vec<_>>(),
            [("b", 2), ("a", 1)]
        );
        assert!(
            usage
                .sums(Some(Service::Codex), None, By::Day)
                .unwrap()
                .is_empty()
        );
        assert_eq!(usage.newest(2).unwrap()[0]["status"], 500);
        usage.rename(Service::Claude, "a", "b");
        usage.flush();
        let by = usage.sums(None, None, By::Upstream).unwrap();
        assert_eq!((by.len(), by[0].key.as_str(), by[0].requests), (1, "b", 3));
        assert_eq!((all[0].cost, all[0].unpriced), (0.5, 1));
        let session = usage.session("s").unwrap();
        assert_eq!((session.requests, session.cost), (3, 0.5));
        assert_eq!(usage.session("nobody").unwrap().requests, 0);
        let wanted = Wanted {
            failed: true,
            upstream: Some("b".into()),
            text: Some("MESSAGES".into()),
            limit: 9,
            ..Wanted::default()
        };
        assert_eq!(usage.requests(&wanted).unwrap().len(), 3);
        assert_eq!(usage.sums(None, None, By::Session).unwrap()[0].key, "s");
        let choice = Choice {
            upstream: Some("b".into()),
            model: None,
        };
        usage.choose("s", choice.clone());
        usage.flush();
        assert_eq!(usage.choices().unwrap(), [("s".to_owned(), choice)]);
        usage.choose("s", Choice::default());
        usage.clear_requests().unwrap();
        assert!(usage.choices().unwrap().is_empty() && usage.newest(9).unwrap().is_empty());
        assert_eq!(usage.sums(None, None, By::All).unwrap()[0].requests, 3);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        drop(usage);
        thread.join().unwrap();
    }

    #[test]
    fn of_many_that_come_at_once_none_is_lost_and_none_counted_twice() {
        let dir = tempfile::tempdir().unwrap();
        let (usage, thread) = Usage::open(&dir.path().join("gateway.db")).unwrap();
        for n in 1..=2_000 {
            usage.note(record(n), None);
            // A number that is taken: this one cannot be written, those around it can.
            if n % 500 == 0 {
                usage.note(record(n - 1), None);
            }
        }
        usage.flush();
        assert_eq!(usage.sums(None, None, By::All).unwrap()[0].requests, 2_000);
        assert_eq!(usage.last_id().unwrap(), 2_000);
        let all = Wanted {
            limit: 5_000,
            ..Wanted::default()
        };
        assert_eq!(usage.requests(&all).unwrap().len(), 2_000);
        drop(usage);
        thread.join().unwrap();
    }
}
