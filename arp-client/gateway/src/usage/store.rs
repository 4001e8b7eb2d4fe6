//! Counts and request records, in SQLite: one row a request, and sums a day that outlive the rows.
//!
//! One thread owns the database. What a request leaves is handed over through a bounded queue; a queue that is full
//! (a disk that hangs) loses records, never a request.

use super::Tokens;
use crate::service::Service;
use rusqlite::{Connection, params};
use serde::Serialize;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Records that may wait for the disk.
const QUEUE: usize = 4_096;
/// Rows that are kept; sums stay.
const MAX_ROWS: u32 = 50_000;
/// Rows are thinned out once in so many.
const THIN_EVERY: u32 = 1_000;

/// What is known of a request once it is over.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// When it came, in Unix milliseconds.
    pub at: i64,
    /// Whose API.
    pub service: &'static str,
    /// The agent's session, where it says.
    pub session: Option<String>,
    /// Its sub-agent, where it says.
    pub agent: Option<String>,
    /// Who answered, or was asked last.
    pub upstream: Option<String>,
    /// Those that were asked before and failed, with what they said.
    pub failed: Vec<(String, String)>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The model that the upstream was asked for, where it is another one.
    pub routed: Option<String>,
    /// Method and path, without the query.
    pub path: String,
    /// Status that the agent got; 0 when it left before.
    pub status: u16,
    /// Milliseconds to the end.
    pub millis: u64,
    /// Milliseconds to the first byte of the answer.
    pub first_millis: Option<u64>,
    /// Tokens.
    pub tokens: Tokens,
    /// What went wrong, if anything did.
    pub error: Option<String>,
}

/// Hands records over; the thread ends when the last one is gone.
#[derive(Debug, Clone)]
pub struct Usage {
    queue: SyncSender<Message>,
    reader: Arc<Mutex<Connection>>,
}

#[derive(Debug)]
enum Message {
    Record(Box<Record>),
    Flush(SyncSender<()>),
}

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the counts in {path} cannot be opened: {source}")]
pub struct OpenError {
    path: String,
    source: rusqlite::Error,
}

/// Sums over requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Sum {
    /// What is summed, for example an upstream's name.
    pub key: String,
    /// Requests.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
    /// Tokens.
    #[serde(flatten)]
    pub tokens: Tokens,
}

/// What sums are by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// One sum of all.
    All,
    /// By upstream.
    Upstream,
    /// By model.
    Model,
    /// By day (`YYYY-MM-DD`, UTC).
    Day,
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
        db.execute_batch(SCHEMA).map_err(failed)?;
        let reader = Connection::open(path).map_err(failed)?;
        reader
            .busy_timeout(std::time::Duration::from_secs(5))
            .map_err(failed)?;
        let (queue, records) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("usage".to_owned())
            .spawn(move || write(db, &records))
            .map_err(|e| failed(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))?;
        let usage = Self {
            queue,
            reader: Arc::new(Mutex::new(reader)),
        };
        Ok((usage, thread))
    }

    /// Notes a request that is over. Never waits.
    pub fn note(&self, record: Record) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Message::Record(Box::new(record))) {
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

    /// Sums of a service (or of all), the largest first; days in order.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn sums(&self, service: Option<Service>, by: By) -> rusqlite::Result<Vec<Sum>> {
        let (key, order) = match by {
            By::All => ("'all'", "1"),
            By::Upstream => ("upstream", "7 DESC"),
            By::Model => ("model", "7 DESC"),
            By::Day => ("day", "1"),
        };
        let sql = format!(
            "SELECT {key}, sum(requests), sum(failures), sum(input), sum(cache_write), sum(cache_read), sum(output), \
             sum(reasoning) FROM totals WHERE ?1 IS NULL OR service = ?1 GROUP BY 1 ORDER BY {order}"
        );
        let db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = db.prepare_cached(&sql)?;
        let rows = statement.query_map([service.map(Service::name)], |row| {
            Ok(Sum {
                key: row.get(0)?,
                requests: count(row, 1)?,
                failures: count(row, 2)?,
                tokens: Tokens {
                    input: count(row, 3)?,
                    cache_write: count(row, 4)?,
                    cache_read: count(row, 5)?,
                    output: count(row, 6)?,
                    reasoning: count(row, 7)?,
                },
            })
        })?;
        rows.collect()
    }

    /// The newest requests, the newest first.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn newest(&self, limit: u32) -> rusqlite::Result<Vec<serde_json::Value>> {
        let db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = db.prepare_cached(
            "SELECT at, service, session, agent, upstream, failed, model, routed, path, status, millis, first_millis, \
             input, cache_write, cache_read, output, reasoning, error, id FROM requests ORDER BY id DESC LIMIT ?1",
        )?;
        let rows = statement.query_map([limit], |row| {
            let failed: String = row.get(5)?;
            Ok(serde_json::json!({
                "id": row.get::<_, i64>(18)?,
                "at": row.get::<_, i64>(0)?,
                "service": row.get::<_, String>(1)?,
                "session": row.get::<_, Option<String>>(2)?,
                "agent": row.get::<_, Option<String>>(3)?,
                "upstream": row.get::<_, Option<String>>(4)?,
                "failed": serde_json::from_str::<serde_json::Value>(&failed).unwrap_or_default(),
                "model": row.get::<_, Option<String>>(6)?,
                "routed": row.get::<_, Option<String>>(7)?,
                "path": row.get::<_, String>(8)?,
                "status": row.get::<_, u16>(9)?,
                "millis": count(row, 10)?,
                "first_millis": row.get::<_, Option<i64>>(11)?,
                "input": count(row, 12)?,
                "cache_write": count(row, 13)?,
                "cache_read": count(row, 14)?,
                "output": count(row, 15)?,
                "reasoning": count(row, 16)?,
                "error": row.get::<_, Option<String>>(17)?,
            }))
        })?;
        rows.collect()
    }
}

fn count(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0))
}

fn write(db: Connection, records: &Receiver<Message>) {
    let mut since_thinned = 0;
    while let Ok(message) = records.recv() {
        match message {
            Message::Flush(done) => drop(done.send(())),
            Message::Record(record) => {
                if let Err(e) = insert(&db, &record) {
                    tracing::warn!("a request was not counted: {e}");
                }
                since_thinned += 1;
                if since_thinned >= THIN_EVERY {
                    since_thinned = 0;
                    let thin = "DELETE FROM requests WHERE id <= (SELECT max(id) FROM requests) - ?1";
                    if let Err(e) = db.execute(thin, [MAX_ROWS]) {
                        tracing::warn!("old request records were not removed: {e}");
                    }
                }
            }
        }
    }
}

fn insert(db: &Connection, record: &Record) -> rusqlite::Result<()> {
    let failed = serde_json::to_string(&record.failed).unwrap_or_default();
    let t = &record.tokens;
    let counts = [t.input, t.cache_write, t.cache_read, t.output, t.reasoning]
        .map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    let millis = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let transaction = db.unchecked_transaction()?;
    db.prepare_cached(
        "INSERT INTO requests (at, service, session, agent, upstream, failed, model, routed, path, status, millis, \
         first_millis, input, cache_write, cache_read, output, reasoning, error) \
         VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18)",
    )?
    .execute(params![
        record.at,
        record.service,
        record.session,
        record.agent,
        record.upstream,
        failed,
        record.model,
        record.routed,
        record.path,
        record.status,
        millis(record.millis),
        record.first_millis.map(millis),
        counts[0],
        counts[1],
        counts[2],
        counts[3],
        counts[4],
        record.error,
    ])?;
    let failure = i64::from(record.error.is_some() || record.status >= 400);
    db.prepare_cached(
        "INSERT INTO totals VALUES (date(?1 / 1000, 'unixepoch'), ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8, ?9, ?10) \
         ON CONFLICT DO UPDATE SET requests = requests + 1, failures = failures + excluded.failures, \
         input = input + excluded.input, cache_write = cache_write + excluded.cache_write, \
         cache_read = cache_read + excluded.cache_read, output = output + excluded.output, \
         reasoning = reasoning + excluded.reasoning",
    )?
    .execute(params![
        record.at,
        record.service,
        record.upstream.as_deref().unwrap_or_default(),
        record
            .routed
            .as_deref()
            .or(record.model.as_deref())
            .unwrap_or_default(),
        failure,
        counts[0],
        counts[1],
        counts[2],
        counts[3],
        counts[4],
    ])?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_counts_once_and_sums_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data/gateway.db");
        let (usage, thread) = Usage::open(&path).unwrap();
        for n in 0..3_u64 {
            usage.note(Record {
                at: 1_800_000_000_000,
                service: "claude",
                session: Some("s".into()),
                agent: None,
                upstream: Some(if n == 0 { "a" } else { "b" }.into()),
                failed: vec![("x".into(), "503".into())],
                model: Some("m".into()),
                routed: None,
                path: "POST /v1/messages".into(),
                status: if n == 2 { 500 } else { 200 },
                millis: 5,
                first_millis: Some(1),
                tokens: Tokens {
                    input: n,
                    output: 10,
                    ..Tokens::default()
                },
                error: None,
            });
        }
        usage.flush();
        let all = usage.sums(None, By::All).unwrap();
        assert_eq!(
            (
                all[0].requests,
                all[0].failures,
                all[0].tokens.input,
                all[0].tokens.output
            ),
            (3, 1, 3, 30)
        );
        let by: Vec<_> = usage.sums(Some(Service::Claude), By::Upstream).unwrap();
        assert_eq!(
            by.iter()
                .map(|s| (s.key.as_str(), s.requests))
                .collect::<Vec<_>>(),
            [("b", 2), ("a", 1)]
        );
        assert!(usage.sums(Some(Service::Codex), By::Day).unwrap().is_empty());
        assert_eq!(usage.newest(2).unwrap()[0]["status"], 500);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        drop(usage);
        thread.join().unwrap();
    }
}
