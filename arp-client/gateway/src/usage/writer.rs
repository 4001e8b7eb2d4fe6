//! The thread that owns the database: it writes what requests leave, thins old rows out and sweeps bodies whose time is
//! over.

use super::bodies::{self, ToKeep};
use super::record::Record;
use super::store::{Choice, Message};
use crate::service::Service;
use rusqlite::{Connection, params};
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
const BATCH: usize = 512;
/// When several records came at once, more are on their way: so long it is waited for them, since writing many at once
/// costs a fraction of writing each.
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
                if count > 1 && next.is_none() {
                    std::thread::sleep(LINGER);
                }
            }
        }
    }
}

/// Writes these down at once; one by one where one of them cannot be written.
fn note(db: &Connection, all: Vec<(Record, Option<ToKeep>)>) {
    let together = || {
        let transaction = db.unchecked_transaction()?;
        let ids = all.iter().map(|noted| insert(db, &noted.0));
        let ids: Vec<i64> = ids.collect::<rusqlite::Result<_>>()?;
        transaction.commit()?;
        Ok::<_, rusqlite::Error>(ids)
    };
    let alone = |record: &Record| {
        let transaction = db.unchecked_transaction()?;
        let id = insert(db, record)?;
        transaction.commit()?;
        Ok::<_, rusqlite::Error>(id)
    };
    let mut ids = together().unwrap_or_default().into_iter();
    for (record, body) in all {
        let id = match ids.next().map_or_else(|| alone(&record), Ok) {
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
    let t = &record.tokens;
    let counts = [t.input, t.cache_write, t.cache_read, t.output, t.reasoning]
        .map(|n| i64::try_from(n).unwrap_or(i64::MAX));
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
    Ok(id)
}
