//! Further tables of the file: who is banned, and how much went through the relay on each day. Never who visited
//! what: a day is a row.
//!
//! They are made where they are missing and the version of the file stays: a relay that is put back to an earlier
//! version can still read it.

use super::db::{Db, StoreError, now};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS bans (
        ban TEXT PRIMARY KEY,        -- a client id, a key's fingerprint or a network
        since INTEGER NOT NULL       -- seconds since 1970
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS traffic (
        day INTEGER PRIMARY KEY,     -- days since 1970, in UTC
        requests INTEGER NOT NULL,
        bytes_in INTEGER NOT NULL,   -- from visitors
        bytes_out INTEGER NOT NULL,  -- to visitors
        refused INTEGER NOT NULL
    );";

/// Days that are kept.
const KEEP_DAYS: i64 = 400;
const DAY: i64 = 86_400;

/// The traffic of one day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// Days since 1970, in UTC.
    pub day: i64,
    /// Exchanges.
    pub requests: u64,
    /// Bytes from visitors.
    pub bytes_in: u64,
    /// Bytes to visitors.
    pub bytes_out: u64,
    /// Whatever was refused.
    pub refused: u64,
}

/// Days since 1970, in UTC.
pub fn today() -> i64 {
    now() / DAY
}

/// Makes the tables that are not there. Where nothing is missing, nothing is written.
pub(super) fn prepare(sql: &Connection) -> Result<(), rusqlite::Error> {
    if has(sql, "main", "bans")? && has(sql, "main", "traffic")? {
        return Ok(());
    }
    sql.execute_batch(TABLES)
}

/// Takes the bans of the attached `disk` over.
pub(super) fn copy(sql: &Connection) -> Result<(), rusqlite::Error> {
    sql.execute_batch(TABLES)?;
    if has(sql, "disk", "bans")? {
        sql.execute_batch("INSERT INTO main.bans SELECT ban, since FROM disk.bans;")?;
    }
    Ok(())
}

fn has(sql: &Connection, schema: &str, table: &str) -> Result<bool, rusqlite::Error> {
    let query = format!("SELECT count(*) FROM {schema}.sqlite_master WHERE type = 'table' AND name = ?1");
    sql.query_row(&query, [table], |r| r.get(0))
}

impl Db {
    /// Everybody who is banned, with the time since when, in seconds since 1970.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn bans(&self) -> Result<Vec<(String, i64)>, StoreError> {
        let mut rows = self
            .sql
            .prepare("SELECT ban, since FROM bans ORDER BY since, ban")?;
        let rows = rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Bans, or no longer.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn set_ban(&mut self, ban: &str, on: bool) -> Result<(), StoreError> {
        if on {
            let sql = "INSERT OR IGNORE INTO bans (ban, since) VALUES (?1, ?2)";
            self.sql.execute(sql, params![ban, now()])?;
        } else {
            self.sql.execute("DELETE FROM bans WHERE ban = ?1", [ban])?;
        }
        Ok(())
    }

    /// The days up to now, the first one first.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn traffic(&self) -> Result<Vec<Day>, StoreError> {
        let sql = "SELECT day, requests, bytes_in, bytes_out, refused FROM traffic ORDER BY day";
        let mut rows = self.sql.prepare(sql)?;
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        let rows = rows.query_map([], |r| {
            Ok(Day {
                day: r.get(0)?,
                requests: count(r.get(1)?),
                bytes_in: count(r.get(2)?),
                bytes_out: count(r.get(3)?),
                refused: count(r.get(4)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Adds to a day, and drops days of long ago.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn add_traffic(&mut self, more: &Day) -> Result<(), StoreError> {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let work = self.sql.transaction()?;
        work.execute(
            "INSERT INTO traffic VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (day) DO UPDATE SET
                 requests = requests + ?2, bytes_in = bytes_in + ?3, bytes_out = bytes_out + ?4,
                 refused = refused + ?5",
            params![
                more.day,
                count(more.requests),
                count(more.bytes_in),
                count(more.bytes_out),
                count(more.refused)
            ],
        )?;
        work.execute("DELETE FROM traffic WHERE day < ?1", [more.day - KEEP_DAYS])?;
        work.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_add_up_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let day = |day, requests| Day {
            day,
            requests,
            bytes_out: 1 << 40,
            ..Day::default()
        };
        let mut db = Db::open(&path, false).unwrap();
        for more in [day(1, 1), day(1000, 2), day(1000, 3), day(1001, 1)] {
            db.add_traffic(&more).unwrap();
        }
        db.set_ban("10.0.0.0/8", true).unwrap();
        db.set_ban("10.0.0.0/8", true).unwrap();
        drop(db);
        let mut db = Db::open(&path, true).unwrap();
        let days = db.traffic().unwrap();
        let days: Vec<_> = days
            .iter()
            .map(|d| (d.day, d.requests, d.bytes_out >> 40))
            .collect();
        assert_eq!(days, [(1000, 5, 2), (1001, 1, 1)]);
        assert_eq!(db.bans().unwrap().len(), 1);
        assert_eq!(Db::copy(&path).unwrap().bans().unwrap(), db.bans().unwrap());
        db.set_ban("10.0.0.0/8", false).unwrap();
        assert!(db.bans().unwrap().is_empty());
    }
}
