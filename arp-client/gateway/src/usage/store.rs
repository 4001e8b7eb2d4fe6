//! Counts and request records, in SQLite: one row a request, and sums a day that outlive the rows.
//!
//! One thread owns the database. What a request leaves is handed over through a bounded queue; a queue that is full
//! (a disk that hangs) loses records, never a request.

use super::Tokens;
use super::bodies::{self, Pending, ToKeep};
use crate::service::Service;
use rusqlite::{Connection, params};
use serde::Serialize;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Records that may wait for the disk.
const QUEUE: usize = 4_096;
/// Rows that are kept; sums stay.
const MAX_ROWS: u32 = 50_000;
/// Rows are thinned out once in so many.
const THIN_EVERY: u32 = 1_000;
/// Recorded bodies whose time is over are looked for this often.
const SWEEP: Duration = Duration::from_secs(60);

/// What is known of a request once it is over.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// Its number; 0 where it is to get one.
    pub id: i64,
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
    /// Dollars, where the model has a price.
    pub cost: Option<f64>,
    /// Secrets that were hidden from the upstream.
    pub redacted: u64,
    /// Where the agent works, where it says.
    pub project: Option<String>,
    /// What went wrong, if anything did.
    pub error: Option<String>,
}

impl Record {
    /// As the API shows it.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let t = &self.tokens;
        serde_json::json!({
            "id": self.id, "at": self.at, "service": self.service, "session": self.session, "agent": self.agent,
            "project": self.project, "upstream": self.upstream, "failed": self.failed, "model": self.model,
            "routed": self.routed, "path": self.path, "status": self.status, "millis": self.millis,
            "first_millis": self.first_millis, "input": t.input, "cache_write": t.cache_write,
            "cache_read": t.cache_read, "output": t.output, "reasoning": t.reasoning, "cost": self.cost,
            "redacted": self.redacted, "error": self.error, "recorded": false,
        })
    }
}

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
    /// Dollars, as far as prices are known.
    pub cost: f64,
    /// Requests whose model has no price.
    pub unpriced: u64,
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
    /// By service.
    Service,
    /// By session; of the requests that are kept.
    Session,
    /// By project; of the requests that are kept.
    Project,
}

impl By {
    /// As the API calls it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "all" => Self::All,
            "upstream" => Self::Upstream,
            "model" => Self::Model,
            "day" => Self::Day,
            "service" => Self::Service,
            "session" => Self::Session,
            "project" => Self::Project,
            _ => return None,
        })
    }
}

/// Which requests are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this service.
    pub service: Option<String>,
    /// Of this upstream.
    pub upstream: Option<String>,
    /// Of this session.
    pub session: Option<String>,
    /// For this model.
    pub model: Option<String>,
    /// Only those that failed, or went to another upstream than the first.
    pub failed: bool,
    /// With this text in path, model, upstream or error.
    pub text: Option<String>,
    /// Older than this number.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
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

/// Choices that are kept; the oldest go first.
const MAX_CHOICES: u32 = 10_000;

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

    /// Sums of a service (or of all) since a day (`YYYY-MM-DD`, or of all days), the largest first; days in order.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn sums(&self, service: Option<Service>, since: Option<&str>, by: By) -> rusqlite::Result<Vec<Sum>> {
        let (key, order) = match by {
            By::All => ("'all'", "1"),
            By::Upstream => ("upstream", "7 DESC"),
            By::Model => ("model", "7 DESC"),
            By::Service => ("service", "7 DESC"),
            By::Day => ("day", "1"),
            By::Session => ("coalesce(session, '')", "7 DESC"),
            By::Project => ("coalesce(project, '')", "7 DESC"),
        };
        let sql = match by {
            By::Session | By::Project => format!(
                "SELECT {key}, count(*), sum(error IS NOT NULL OR status >= 400), sum(input), sum(cache_write), \
                 sum(cache_read), sum(output), sum(reasoning), sum(coalesce(cost, 0)), sum(cost IS NULL) FROM requests \
                 WHERE (?1 IS NULL OR service = ?1) AND (?2 IS NULL OR at >= unixepoch(?2) * 1000) \
                 GROUP BY 1 ORDER BY {order} LIMIT 1000"
            ),
            _ => format!(
                "SELECT {key}, sum(requests), sum(failures), sum(input), sum(cache_write), sum(cache_read), \
                 sum(output), sum(reasoning), sum(cost), sum(unpriced) FROM totals \
                 WHERE (?1 IS NULL OR service = ?1) AND (?2 IS NULL OR day >= ?2) GROUP BY 1 ORDER BY {order}"
            ),
        };
        let db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = db.prepare_cached(&sql)?;
        let rows = statement.query_map(params![service.map(Service::name), since], sum)?;
        rows.collect()
    }

    /// The sum of one session's requests, as far as they are kept.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn session(&self, session: &str) -> rusqlite::Result<Sum> {
        let db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = db.prepare_cached(
            "SELECT ?1, count(*), coalesce(sum(error IS NOT NULL OR status >= 400), 0), coalesce(sum(input), 0), \
             coalesce(sum(cache_write), 0), coalesce(sum(cache_read), 0), coalesce(sum(output), 0), \
             coalesce(sum(reasoning), 0), coalesce(sum(cost), 0.0), coalesce(sum(cost IS NULL), 0) \
             FROM requests WHERE session = ?1",
        )?;
        statement.query_row([session], sum)
    }

    /// Sums of one service by upstream, as CLP's history has them (all days).
    ///
    /// # Errors
    /// As SQLite says.
    pub fn by_upstream(&self, service: Service) -> rusqlite::Result<Vec<Sum>> {
        self.sums(Some(service), None, By::Upstream)
    }

    /// Requests, the newest first.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn requests(&self, wanted: &Wanted) -> rusqlite::Result<Vec<serde_json::Value>> {
        let db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = db.prepare_cached(
            "SELECT at, service, session, agent, upstream, failed, model, routed, path, status, millis, first_millis, \
             input, cache_write, cache_read, output, reasoning, error, id, cost, redacted, project, \
             EXISTS (SELECT 1 FROM bodies WHERE request = id AND until > ?9) FROM requests \
             WHERE (?1 IS NULL OR service = ?1) AND (?2 IS NULL OR upstream = ?2) AND (?3 IS NULL OR session = ?3) \
             AND (?4 IS NULL OR model = ?4 OR routed = ?4) \
             AND (NOT ?5 OR error IS NOT NULL OR status >= 400 OR failed <> '[]') \
             AND (?6 IS NULL OR instr(lower(path || ' ' || coalesce(model, '') || ' ' || coalesce(upstream, '') \
                  || ' ' || coalesce(error, '') || ' ' || coalesce(project, '')), lower(?6)) > 0) \
             AND (?7 IS NULL OR id < ?7) ORDER BY id DESC LIMIT ?8",
        )?;
        let rows = statement.query_map(
            params![
                wanted.service,
                wanted.upstream,
                wanted.session,
                wanted.model,
                wanted.failed,
                wanted.text,
                wanted.before,
                wanted.limit,
                crate::activity::now_ms(),
            ],
            request,
        )?;
        rows.collect()
    }

    /// The newest requests, the newest first.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn newest(&self, limit: u32) -> rusqlite::Result<Vec<serde_json::Value>> {
        self.requests(&Wanted {
            limit,
            ..Wanted::default()
        })
    }

    /// What was spent: dollars by day, upstream and session, of the requests that are kept.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn spent(&self, today: &str) -> rusqlite::Result<super::budgets::Spent> {
        let spent = super::budgets::Spent::default();
        let db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = db.prepare("SELECT upstream, sum(cost) FROM totals WHERE day = ?1 GROUP BY 1")?;
        let mut rows = statement.query([today])?;
        while let Some(row) = rows.next()? {
            let upstream: String = row.get(0)?;
            spent.add(today, today, Some(&upstream), None, row.get(1)?);
        }
        let mut statement = db.prepare(
            "SELECT session, sum(coalesce(cost, 0)) FROM requests WHERE session IS NOT NULL GROUP BY 1 ORDER BY max(id)",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let session: String = row.get(0)?;
            spent.add(today, "", None, Some(&session), row.get(1)?);
        }
        Ok(spent)
    }

    /// What people have chosen for sessions.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn choices(&self) -> rusqlite::Result<Vec<(String, Choice)>> {
        let db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = db.prepare("SELECT session, upstream, model FROM choices ORDER BY at")?;
        let rows = statement.query_map([], |row| {
            let choice = Choice {
                upstream: row.get(1)?,
                model: row.get(2)?,
            };
            Ok((row.get(0)?, choice))
        })?;
        rows.collect()
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

    /// The number of the newest request; 0 when there is none.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn last_id(&self) -> rusqlite::Result<u64> {
        let db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        db.query_row("SELECT coalesce(max(id), 0) FROM requests", [], |row| {
            count(row, 0)
        })
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

fn sum(row: &rusqlite::Row<'_>) -> rusqlite::Result<Sum> {
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
        cost: row.get(8)?,
        unpriced: count(row, 9)?,
    })
}

fn request(row: &rusqlite::Row<'_>) -> rusqlite::Result<serde_json::Value> {
    let failed: String = row.get(5)?;
    Ok(serde_json::json!({
        "id": row.get::<_, i64>(18)?,
        "at": row.get::<_, i64>(0)?,
        "service": row.get::<_, String>(1)?,
        "session": row.get::<_, Option<String>>(2)?,
        "agent": row.get::<_, Option<String>>(3)?,
        "project": row.get::<_, Option<String>>(21)?,
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
        "cost": row.get::<_, Option<f64>>(19)?,
        "redacted": count(row, 20)?,
        "error": row.get::<_, Option<String>>(17)?,
        "recorded": row.get::<_, bool>(22)?,
    }))
}

fn count(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(at)?).unwrap_or(0))
}

fn write(db: Connection, records: &Receiver<Message>) {
    let mut since_thinned = 0;
    bodies::sweep(&db);
    let mut swept = Instant::now();
    loop {
        if swept.elapsed() >= SWEEP {
            bodies::sweep(&db);
            swept = Instant::now();
        }
        let message = match records.recv_timeout(SWEEP) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        match message {
            Message::Flush(done) => drop(done.send(())),
            Message::Choice(session, choice) => {
                if let Err(e) = keep_choice(&db, &session, &choice) {
                    tracing::warn!("a session's choice was not kept: {e}");
                }
            }
            Message::Rename(service, from, to) => {
                if let Err(e) = rename(&db, service, &from, &to) {
                    tracing::warn!("what {from} has used stays counted under that name: {e}");
                }
            }
            Message::Import(imported, done) => drop(done.send(super::import::store(&db, &imported))),
            Message::ClearTotals(done) => {
                let cleared = db.execute_batch(
                    "BEGIN; DELETE FROM totals; DELETE FROM bodies; DELETE FROM requests; COMMIT;",
                );
                bodies::empty_log(&db);
                drop(done.send(cleared));
            }
            Message::ClearRequests(done) => {
                let cleared = db.execute_batch("BEGIN; DELETE FROM bodies; DELETE FROM requests; COMMIT;");
                bodies::empty_log(&db);
                drop(done.send(cleared));
            }
            Message::ForgetBodies(done) => {
                let forgotten = db.execute_batch("DELETE FROM bodies");
                bodies::empty_log(&db);
                drop(done.send(forgotten));
            }
            Message::Record(noted) => {
                let (record, body) = *noted;
                match insert(&db, &record) {
                    Ok(id) => {
                        let kept = body.map(|body| bodies::keep(&db, id, body));
                        if let Some(Err(e)) = kept {
                            tracing::warn!("a request's body was not recorded: {e}");
                        }
                    }
                    Err(e) => tracing::warn!("a request was not counted: {e}"),
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

fn rename(db: &Connection, service: Service, from: &str, to: &str) -> rusqlite::Result<()> {
    let transaction = db.unchecked_transaction()?;
    let names = params![service.name(), from, to];
    transaction.execute(
        "INSERT INTO totals SELECT day, service, ?3, model, requests, failures, input, cache_write, cache_read, output, \
         reasoning, cost, unpriced FROM totals WHERE service = ?1 AND upstream = ?2 \
         ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, failures = failures + excluded.failures, \
         input = input + excluded.input, cache_write = cache_write + excluded.cache_write, \
         cache_read = cache_read + excluded.cache_read, output = output + excluded.output, \
         reasoning = reasoning + excluded.reasoning, cost = cost + excluded.cost, unpriced = unpriced + excluded.unpriced",
        names,
    )?;
    transaction.execute(
        "DELETE FROM totals WHERE service = ?1 AND upstream = ?2",
        params![service.name(), from],
    )?;
    transaction.execute(
        "UPDATE requests SET upstream = ?3 WHERE service = ?1 AND upstream = ?2",
        names,
    )?;
    transaction.execute(
        "UPDATE choices SET upstream = ?3 WHERE upstream = ?2 AND session IN \
         (SELECT session FROM requests WHERE service = ?1 AND session IS NOT NULL)",
        names,
    )?;
    transaction.commit()
}

fn keep_choice(db: &Connection, session: &str, choice: &Choice) -> rusqlite::Result<()> {
    if *choice == Choice::default() {
        db.execute("DELETE FROM choices WHERE session = ?1", [session])?;
        return Ok(());
    }
    db.execute(
        "INSERT OR REPLACE INTO choices VALUES (?1, ?2, ?3, unixepoch())",
        params![session, choice.upstream, choice.model],
    )?;
    db.execute(
        "DELETE FROM choices WHERE session NOT IN (SELECT session FROM choices ORDER BY at DESC LIMIT ?1)",
        [MAX_CHOICES],
    )?;
    Ok(())
}

/// Notes it; its number.
fn insert(db: &Connection, record: &Record) -> rusqlite::Result<i64> {
    let failed = serde_json::to_string(&record.failed).unwrap_or_default();
    let t = &record.tokens;
    let counts = [t.input, t.cache_write, t.cache_read, t.output, t.reasoning]
        .map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    let millis = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let transaction = db.unchecked_transaction()?;
    db.prepare_cached(
        "INSERT INTO requests (at, service, session, agent, upstream, failed, model, routed, path, status, millis, \
         first_millis, input, cache_write, cache_read, output, reasoning, error, cost, redacted, project, id) \
         VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,nullif(?22,0))",
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
        record.cost,
        i64::try_from(record.redacted).unwrap_or(i64::MAX),
        record.project,
        record.id,
    ])?;
    let id = db.last_insert_rowid();
    let failure = i64::from(record.error.is_some() || record.status >= 400);
    db.prepare_cached(
        "INSERT INTO totals (day, service, upstream, model, requests, failures, input, cache_write, cache_read, output, \
         reasoning, cost, unpriced) \
         VALUES (date(?1 / 1000, 'unixepoch'), ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
         ON CONFLICT DO UPDATE SET requests = requests + 1, failures = failures + excluded.failures, \
         input = input + excluded.input, cache_write = cache_write + excluded.cache_write, \
         cache_read = cache_read + excluded.cache_read, output = output + excluded.output, \
         reasoning = reasoning + excluded.reasoning, cost = cost + excluded.cost, \
         unpriced = unpriced + excluded.unpriced",
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
        record.cost.unwrap_or(0.0),
        i64::from(record.cost.is_none()),
    ])?;
    transaction.commit()?;
    Ok(id)
}

#[cfg(test)]
pub(super) mod tests {
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
}
