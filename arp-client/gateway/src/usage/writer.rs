//! The thread that owns the database: it writes what requests leave, thins old rows out and sweeps bodies whose time is
//! over.

use super::Tokens;
use super::bodies::{self, ToKeep};
use super::budgets::day_of;
use super::record::Record;
use super::store::{Choice, Message};
use crate::service::Service;
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Rows that are kept; sums stay.
const MAX_ROWS: u32 = 50_000;
/// Rows are thinned out once in so many.
const THIN_EVERY: usize = 1_000;
/// Recorded bodies whose time is over are looked for this often.
const SWEEP: Duration = Duration::from_secs(60);
/// Choices that are kept; the oldest go first.
const MAX_CHOICES: u32 = 10_000;

/// Records that are written at once, at most.
const BATCH: usize = 1_024;
/// So long it is waited for more records before some are written, since writing many at once costs a fraction of writing
/// each. Meanwhile nobody who hands one over has to wake this thread.
const LINGER: Duration = Duration::from_millis(10);

/// Does what it is told until nobody is left who could tell.
pub(super) fn write(db: Connection, records: &Receiver<Message>) {
    let mut since_thinned = 0;
    bodies::sweep(&db);
    let mut swept = Instant::now();
    let mut next = None;
    loop {
        if swept.elapsed() >= SWEEP {
            bodies::sweep(&db);
            swept = Instant::now();
        }
        let message = match next.take().map_or_else(|| records.recv_timeout(SWEEP), Ok) {
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
                std::thread::sleep(LINGER);
                let mut all = vec![*noted];
                while all.len() < BATCH {
                    match records.try_recv() {
                        Ok(Message::Record(noted)) => all.push(*noted),
                        Ok(other) => {
                            next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                let count = all.len();
                note(&db, all);
                since_thinned += count;
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

/// Writes these down at once; one by one where one of them cannot be written.
fn note(db: &Connection, all: Vec<(Record, Option<ToKeep>)>) {
    let write = |records: &[(Record, Option<ToKeep>)]| {
        let transaction = db.unchecked_transaction()?;
        let mut sums = BTreeMap::<_, Sums>::new();
        let mut ids = Vec::with_capacity(records.len());
        for (record, _) in records {
            ids.push(insert(db, record)?);
            let model = record.routed.as_deref().or(record.model.as_deref());
            let key = (
                day_of(record.at),
                record.service,
                record.upstream.as_deref().unwrap_or_default(),
                model.unwrap_or_default(),
            );
            sums.entry(key).or_default().add(record);
        }
        for ((day, service, upstream, model), sums) in &sums {
            sums.store(db, day, service, upstream, model)?;
        }
        transaction.commit()?;
        Ok::<_, rusqlite::Error>(ids)
    };
    let together = write(&all).ok();
    for (at, noted) in all.into_iter().enumerate() {
        let id = match &together {
            Some(ids) => Ok(ids.get(at).copied().unwrap_or_default()),
            None => write(std::slice::from_ref(&noted)).map(|ids| ids.first().copied().unwrap_or_default()),
        };
        let body = noted.1;
        let id = match id {
            Ok(id) => id,
            Err(e) => {
                tracing::warn!("a request was not counted: {e}");
                continue;
            }
        };
        if let Some(Err(e)) = body.map(|body| bodies::keep(db, id, body)) {
            tracing::warn!("a request's body was not recorded: {e}");
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

/// Notes it, inside a transaction; its number.
fn insert(db: &Connection, record: &Record) -> rusqlite::Result<i64> {
    let failed = serde_json::to_string(&record.failed).unwrap_or_default();
    let counts = counts(&record.tokens);
    let millis = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
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
    Ok(db.last_insert_rowid())
}

/// What several requests of one day, upstream and model have used together.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) requests: i64,
    pub(super) failures: i64,
    pub(super) tokens: Tokens,
    pub(super) cost: f64,
    /// Requests of which nobody knows what they cost.
    pub(super) unpriced: i64,
}

impl Sums {
    fn add(&mut self, record: &Record) {
        self.requests += 1;
        self.failures += i64::from(record.error.is_some() || record.status >= 400);
        self.tokens.add(&record.tokens);
        self.cost += record.cost.unwrap_or(0.0);
        self.unpriced += i64::from(record.cost.is_none());
    }

    /// Adds them to what the day, upstream and model had.
    pub(super) fn store(
        &self,
        db: &Connection,
        day: &str,
        service: &str,
        upstream: &str,
        model: &str,
    ) -> rusqlite::Result<()> {
        let counts = counts(&self.tokens);
        db.prepare_cached(
            "INSERT INTO totals (day, service, upstream, model, requests, failures, input, cache_write, cache_read, \
             output, reasoning, cost, unpriced) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) \
             ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, \
             failures = failures + excluded.failures, \
             input = input + excluded.input, cache_write = cache_write + excluded.cache_write, \
             cache_read = cache_read + excluded.cache_read, output = output + excluded.output, \
             reasoning = reasoning + excluded.reasoning, cost = cost + excluded.cost, \
             unpriced = unpriced + excluded.unpriced",
        )?
        .execute(params![
            day,
            service,
            upstream,
            model,
            self.requests,
            self.failures,
            counts[0],
            counts[1],
            counts[2],
            counts[3],
            counts[4],
            self.cost,
            self.unpriced,
        ])?;
        Ok(())
    }
}

/// As the database has them.
fn counts(tokens: &Tokens) -> [i64; 5] {
    let t = tokens;
    [t.input, t.cache_write, t.cache_read, t.output, t.reasoning]
        .map(|n| i64::try_from(n).unwrap_or(i64::MAX))
}
