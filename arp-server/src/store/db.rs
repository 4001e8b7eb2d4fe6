//! The file: its table, how it is opened, listed and weeded. The rules of claims are in [`super::claim`].

use arp_common::ids::Token;
use arp_common::private;
use arp_common::tls::Fingerprint;
use rusqlite::{Connection, OpenFlags, params};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arp_common::ids::ClientId;

/// Time that another process (`arps clients forget`) may hold the file.
const BUSY: Duration = Duration::from_secs(5);
/// A client's last visit is written down when the one on file is this old, in seconds.
pub(super) const SEEN_STEP: i64 = 3600;
/// Version of the table below.
const SCHEMA: i64 = 2;
const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS bindings (
        name TEXT PRIMARY KEY,       -- in lower case: host names have none
        shown TEXT NOT NULL,         -- as the client writes it
        client TEXT NOT NULL,        -- id of the client that had it last
        key BLOB NOT NULL,           -- SHA-256 of the edge's public key
        routed INTEGER NOT NULL,     -- do visitors reach the client by it?
        first_seen INTEGER NOT NULL, -- seconds since 1970
        last_seen INTEGER NOT NULL,
        used INTEGER NOT NULL        -- has a visitor ever asked for the client?
    ) WITHOUT ROWID;";
const INDEXES: &str = "
    CREATE INDEX IF NOT EXISTS by_client ON bindings (client);
    CREATE INDEX IF NOT EXISTS by_key ON bindings (key);
    CREATE INDEX IF NOT EXISTS by_seen ON bindings (last_seen);
    CREATE INDEX IF NOT EXISTS by_use ON bindings (used, last_seen);";
/// Version 1 did not know who was ever used: all that it has may have been.
const FROM_1: &str = "ALTER TABLE bindings ADD COLUMN used INTEGER NOT NULL DEFAULT 1;";

/// Why the store does not work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be made.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// SQLite says no.
    #[error("the store of the relay failed: {0}")]
    Sql(#[from] rusqlite::Error),
    /// A newer arps wrote it.
    #[error(
        "{0} was written by a newer arps; use that one, or move the file away (all key bindings are lost then)"
    )]
    Newer(PathBuf),
    /// It was there once.
    #[error(
        "{path} is {what}, but this relay has run before with this data directory: which key holds which name is \
         lost with it, and every name would be free for whoever comes first. Put store.db back from a backup. To \
         start with every name free on purpose, take the file names-key beside it away as well",
        path = .0.display(), what = .1
    )]
    Lost(PathBuf, &'static str),
    /// Its thread cannot be started.
    #[error("cannot start the store's thread: {0}")]
    Thread(std::io::Error),
    /// Its thread has ended, or a write failed.
    #[error("the store of the relay does not answer")]
    Closed,
}

/// One client as it is on file.
#[derive(Debug, Clone)]
pub struct Binding {
    /// Its id.
    pub client: ClientId,
    /// Its key.
    pub key: Fingerprint,
    /// Names by which visitors reach it.
    pub routed: Vec<Token>,
    /// All names that are bound to it, its id included.
    pub names: usize,
    /// First registration, in seconds since 1970.
    pub first_seen: i64,
    /// When it was here last, to the hour, in seconds since 1970.
    pub last_seen: i64,
    /// Has a visitor ever asked for it?
    pub used: bool,
}

/// Which bindings are to be forgotten.
#[derive(Debug, Clone, Default)]
pub struct Forget {
    /// Client ids, single names, or patterns (`ci-*`) of either; everybody if there are none.
    pub patterns: Vec<String>,
    /// Only clients that have not been here for so many seconds.
    pub older_than: Option<i64>,
    /// Only clients for which no visitor ever came.
    pub never_used: bool,
}

/// The open file.
#[derive(Debug)]
pub struct Db {
    pub(super) sql: Connection,
    /// False for a copy in memory of a file that cannot be written to.
    kept: bool,
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

impl Db {
    /// Opens the file. It is made (mode 0600) where the relay has not run `before`; where it has, a file that is
    /// missing or empty is an error.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(path: &Path, before: bool) -> Result<Self, StoreError> {
        if !path.exists() {
            if before {
                return Err(StoreError::Lost(path.to_owned(), "missing"));
            }
            // SQLite gives its journals the rights of the file itself.
            private::create(path, b"")?;
        }
        private::close_to_others(path)?;
        let sql = Connection::open(path)?;
        sql.busy_timeout(BUSY)?;
        sql.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        // A binding that was granted must not be forgotten by a power cut.
        sql.pragma_update(None, "synchronous", "FULL")?;
        if before && !has_table(&sql, "main")? {
            return Err(StoreError::Lost(path.to_owned(), "empty"));
        }
        let version: i64 = sql.query_row("PRAGMA user_version", [], |r| r.get(0))?;
        if version > SCHEMA {
            return Err(StoreError::Newer(path.to_owned()));
        }
        // Nothing is written where nothing has to be: a full disk must not keep the relay from starting.
        if version < SCHEMA {
            let mut steps = String::from("BEGIN IMMEDIATE;");
            steps.push_str(TABLE);
            if version == 1 {
                steps.push_str(FROM_1);
            }
            steps.push_str(INDEXES);
            steps.push_str(&format!("PRAGMA user_version = {SCHEMA}; COMMIT;"));
            sql.execute_batch(&steps)?;
        }
        super::ledger::prepare(&sql)?;
        Ok(Self { sql, kept: true })
    }

    /// Reads the file into memory, where it cannot be written to: on a full disk SQLite cannot even make the
    /// files that it wants beside it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn copy(path: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI;
        let sql = Connection::open_in_memory_with_flags(flags)?;
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        let has_wal = std::fs::metadata(PathBuf::from(wal)).is_ok_and(|wal| wal.len() > 0);
        if has_wal {
            // Then the index of the journal is in memory, too. Before it is attached: that reads it already.
            sql.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            sql.execute("ATTACH ?1 AS disk", [path.to_string_lossy()])?;
        } else {
            sql.execute("ATTACH ?1 AS disk", [immutable(path)])?;
        }
        if !has_table(&sql, "disk")? {
            return Err(StoreError::Lost(path.to_owned(), "empty"));
        }
        let version: i64 = sql.query_row("PRAGMA disk.user_version", [], |r| r.get(0))?;
        if version > SCHEMA {
            return Err(StoreError::Newer(path.to_owned()));
        }
        sql.execute_batch(TABLE)?;
        sql.execute_batch(
            "INSERT INTO main.bindings
                 SELECT name, shown, client, key, routed, first_seen, last_seen, 1 FROM disk.bindings;
",
        )?;
        super::ledger::copy(&sql)?;
        sql.execute_batch("DETACH disk;")?;
        sql.execute_batch(INDEXES)?;
        Ok(Self { sql, kept: false })
    }

    /// Does what is written here last?
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// The `max` clients seen last, the latest first.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn bindings(&self, max: usize) -> Result<Vec<Binding>, StoreError> {
        let mut clients = self.sql.prepare(
            "SELECT client, key, count(*), min(first_seen), max(last_seen), max(used) FROM bindings
             GROUP BY client, key ORDER BY max(last_seen) DESC LIMIT ?1",
        )?;
        let mut names = self.sql.prepare(
            "SELECT shown FROM bindings WHERE client = ?1 AND key = ?2 AND routed = 1 ORDER BY name",
        )?;
        let rows = clients.query_map([i64::try_from(max).unwrap_or(i64::MAX)], |r| {
            let (client, key): (String, [u8; 32]) = (r.get(0)?, r.get(1)?);
            Ok((client, key, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?))
        })?;
        let mut all = Vec::new();
        for row in rows {
            let (client, key, count, first_seen, last_seen, used): (_, _, i64, _, _, _) = row?;
            let routed = names.query_map(params![client, key], |r| r.get::<_, String>(0))?;
            let routed = routed.filter_map(|n| n.ok()?.parse().ok()).collect();
            // A row that somebody wrote by hand and that is no name is passed over.
            let Ok(client) = client.parse() else { continue };
            all.push(Binding {
                client,
                key: Fingerprint::from_bytes(key),
                routed,
                names: usize::try_from(count).unwrap_or(0),
                first_seen,
                last_seen,
                used,
            });
        }
        Ok(all)
    }

    /// All names that are bound to somebody, whether visitors reach anybody by them or not.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        let mut names = self.sql.prepare("SELECT name FROM bindings")?;
        let rows = names.query_map([], |r| r.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Unbinds names, and gives those that became free, as their clients wrote them.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn forget(&mut self, what: &Forget) -> Result<Vec<String>, StoreError> {
        let work = self.sql.transaction()?;
        let gone = unbind(&work, what)?;
        work.commit()?;
        Ok(gone)
    }

    /// The names that [`Db::forget`] would unbind.
    ///
    /// # Errors
    /// If SQLite fails.
    pub fn would_forget(&mut self, what: &Forget) -> Result<Vec<String>, StoreError> {
        // Dropped, it is rolled back.
        let work = self.sql.transaction()?;
        unbind(&work, what)
    }
}

fn unbind(work: &Connection, what: &Forget) -> Result<Vec<String>, StoreError> {
    let mut gone = Vec::new();
    let everybody = [String::from("*")];
    let patterns = if what.patterns.is_empty() {
        &everybody[..]
    } else {
        &what.patterns
    };
    let cutoff = what.older_than.map_or(i64::MAX, |age| now().saturating_sub(age));
    for pattern in patterns {
        let mut of_clients = work.prepare_cached(
            "DELETE FROM bindings WHERE client GLOB ?1 AND client IN
                     (SELECT client FROM bindings GROUP BY client
                      HAVING max(last_seen) <= ?2 AND max(used) <= ?3)
                 RETURNING shown",
        )?;
        let rows = of_clients.query_map(params![pattern, cutoff, !what.never_used], |r| r.get(0))?;
        let of_clients: Vec<String> = rows.collect::<Result<_, _>>()?;
        // A further name of somebody who stays.
        let mut names = work.prepare_cached(
                "DELETE FROM bindings WHERE name GLOB ?1 AND name != lower(client) AND last_seen <= ?2 AND used <= ?3
                 RETURNING shown",
            )?;
        let single = of_clients.is_empty() || pattern.contains(['*', '?', '[']);
        gone.extend(of_clients);
        if single {
            let pattern = pattern.to_ascii_lowercase();
            let rows = names.query_map(params![pattern, cutoff, !what.never_used], |r| r.get(0))?;
            gone.extend(rows.collect::<Result<Vec<String>, _>>()?);
        }
    }
    Ok(gone)
}

fn has_table(sql: &Connection, schema: &str) -> Result<bool, rusqlite::Error> {
    let query =
        format!("SELECT count(*) FROM {schema}.sqlite_master WHERE type = 'table' AND name = 'bindings'");
    sql.query_row(&query, [], |r| r.get(0))
}

/// The URI of a file of which SQLite shall believe that nobody changes it.
fn immutable(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.to_string_lossy().bytes() {
        match byte {
            b'/' | b':' | b'.' | b'-' | b'_' => uri.push(char::from(byte)),
            b'\\' => uri.push('/'),
            _ if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri + "?immutable=1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_the_first_version_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(
            "CREATE TABLE bindings (name TEXT PRIMARY KEY, shown TEXT NOT NULL, client TEXT NOT NULL, key BLOB NOT NULL,
                 routed INTEGER NOT NULL, first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL) WITHOUT ROWID;
             INSERT INTO bindings VALUES ('demo', 'Demo', 'Demo', zeroblob(32), 1, 5, 6);
             PRAGMA user_version = 1;",
        )
        .unwrap();
        drop(old);
        for _ in 0..2 {
            let known = Db::open(&path, true).unwrap().bindings(9).unwrap();
            assert_eq!((known.len(), known[0].used, known[0].last_seen), (1, true, 6));
        }
        let copied = Db::copy(&path).unwrap();
        assert_eq!((copied.bindings(9).unwrap().len(), copied.is_kept()), (1, false));
    }

    #[test]
    fn a_lost_store_is_not_taken_for_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let lost = |path: &Path| matches!(Db::open(path, true), Err(StoreError::Lost(..)));
        assert!(lost(&path) && !path.exists(), "missing");
        drop(Db::open(&path, false).unwrap());
        assert!(!lost(&path));
        std::fs::write(&path, b"").unwrap();
        assert!(lost(&path), "emptied");
        assert!(lost(&path), "nor the second time");
        assert!(matches!(Db::copy(&path), Err(StoreError::Lost(..))));
    }
}
