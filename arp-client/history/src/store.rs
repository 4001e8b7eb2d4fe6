//! The index: a SQLite file that remembers what was read of each session file.
//!
//! It holds nothing that is not on disk already. When it cannot be opened, is of another version or turns out
//! to be damaged, it is thrown away and made again.

use crate::HistoryError;
use crate::defaults::BUSY_TIMEOUT;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Changes whenever the tables do, or what is made of the lines.
const VERSION: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE homes (agent TEXT PRIMARY KEY, path TEXT NOT NULL) WITHOUT ROWID;
-- One row a session file. Positions are byte offsets, times are nanoseconds since 1970.
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    agent TEXT NOT NULL,
    rel TEXT NOT NULL,          -- path below the agent's home
    dir TEXT NOT NULL,          -- the agent's name of the project, where it has one
    session TEXT,               -- the session that it belongs to
    archived INTEGER NOT NULL,
    dev INTEGER NOT NULL, ino INTEGER NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL,
    line INTEGER NOT NULL,      -- where the first line begins that was not read to its end
    read INTEGER NOT NULL,      -- how far was read
    lines INTEGER NOT NULL,     -- complete lines before `line`
    head BLOB NOT NULL, tail BLOB NOT NULL, -- first and last bytes of what was read
    messages INTEGER NOT NULL,
    state TEXT NOT NULL,        -- the summary, to be gone on with
    UNIQUE (agent, rel)
);
CREATE INDEX files_session ON files (agent, session);
-- Where some lines begin, so that a page can be opened in the middle.
CREATE TABLE marks (file INTEGER NOT NULL, line INTEGER NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (file, line))
    WITHOUT ROWID;
-- One row a session, made from the best of its files. Times are milliseconds since 1970.
CREATE TABLE sessions (
    agent TEXT NOT NULL, id TEXT NOT NULL, file INTEGER NOT NULL,
    project TEXT NOT NULL, path TEXT NOT NULL,
    created INTEGER NOT NULL, updated INTEGER NOT NULL, prompt_at INTEGER,
    first TEXT, title TEXT, messages INTEGER NOT NULL, duration INTEGER, model TEXT, branch TEXT,
    archived INTEGER NOT NULL, size INTEGER NOT NULL,
    hidden INTEGER NOT NULL,    -- a sub-agent's, or nothing was said in it
    PRIMARY KEY (agent, id)
) WITHOUT ROWID;
CREATE INDEX sessions_recent ON sessions (agent, hidden, updated DESC);
-- With all that listing projects and directories needs, in the order that it needs.
CREATE INDEX sessions_project ON sessions (agent, hidden, project, updated DESC, id, path, created);
CREATE INDEX sessions_path ON sessions (agent, hidden, path, updated DESC);
";

/// The open index: one connection that writes, as many that read as are needed at once.
pub(crate) struct Store {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

impl Store {
    /// Opens the index, making it (again) where necessary.
    pub(crate) fn open(path: &Path) -> Result<Self, HistoryError> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(HistoryError::io("making the index's directory"))?;
        }
        let writer = open_or_make(path)?;
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::default(),
        })
    }

    /// Reads. Sees what was written before it began.
    pub(crate) fn read<T>(&self, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let idle = lock(&self.readers).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path)?,
        };
        let result = f(&connection);
        if result.is_ok() {
            lock(&self.readers).push(connection);
        }
        result
    }

    /// Writes, all or nothing.
    pub(crate) fn write<T>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let mut writer = lock(&self.writer);
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = f(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// Throws a damaged index away and begins with an empty one.
    pub(crate) fn rebuild(&self) -> Result<(), HistoryError> {
        tracing::warn!(path = %self.path.display(), "the history index is damaged; making it again");
        let mut writer = lock(&self.writer);
        lock(&self.readers).clear();
        // The file must not be open while it is removed (Windows).
        *writer = Connection::open_in_memory()?;
        remove(&self.path)?;
        *writer = open_or_make(&self.path)?;
        Ok(())
    }
}

/// Is the index itself damaged (rather than busy, or the disk full)?
pub(crate) fn is_damaged(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        // A table or column that is not there, a value of another type: not what this version wrote.
        || matches!(error.sqlite_error_code(), Some(ErrorCode::Unknown))
        || matches!(
            error,
            rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
        )
}

fn open_or_make(path: &Path) -> Result<Connection, HistoryError> {
    match checked(path) {
        Ok(Some(connection)) => return Ok(connection),
        Ok(None) => {}
        Err(error) if is_damaged(&error) => {
            tracing::warn!(path = %path.display(), "the history index is damaged; making it again");
        }
        Err(error) => return Err(error.into()),
    }
    remove(path)?;
    make_private(path)?;
    let connection = connect(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch(&format!("BEGIN;{SCHEMA}PRAGMA user_version={VERSION};COMMIT;"))?;
    Ok(connection)
}

/// The index as it is, if it is one of this version.
fn checked(path: &Path) -> rusqlite::Result<Option<Connection>> {
    if !path.exists() {
        return Ok(None);
    }
    let connection = connect(path)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let sound: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
    Ok((version == VERSION && sound == "ok").then_some(connection))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // What a power cut takes from the index is read from the files again.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn remove(path: &Path) -> Result<(), HistoryError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(HistoryError::Io {
                    what: "removing the old index",
                    source: error,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes the file so that only its owner can read it: it holds the beginnings of prompts.
fn make_private(path: &Path) -> Result<(), HistoryError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .map(drop)
        .map_err(HistoryError::io("making the index"))
}

/// Nothing leaves a guarded value half changed, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(store: &Store) -> i64 {
        store
            .read(|c| c.query_row("SELECT count(*) FROM homes", [], |r| r.get(0)))
            .unwrap()
    }

    fn put(store: &Store) {
        store
            .write(|t| t.execute("INSERT INTO homes VALUES ('x', 'y')", []))
            .unwrap();
    }

    #[test]
    fn an_index_is_kept_and_an_unusable_one_is_made_again() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("deep/index.sqlite");
        let store = Store::open(&path).unwrap();
        put(&store);
        drop(store);
        assert_eq!(count(&Store::open(&path).unwrap()), 1, "kept");

        std::fs::write(
            &path,
            "this is not a database at all, but long enough to be read as one".repeat(20),
        )
        .unwrap();
        assert_eq!(count(&Store::open(&path).unwrap()), 0, "garbage");

        let store = Store::open(&path).unwrap();
        put(&store);
        store
            .write(|t| t.pragma_update(None, "user_version", VERSION + 1))
            .unwrap();
        drop(store);
        assert_eq!(count(&Store::open(&path).unwrap()), 0, "another version");
    }

    #[test]
    fn damage_found_while_running_is_mended_by_a_rebuild() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("index.sqlite")).unwrap();
        put(&store);
        store.write(|t| t.execute_batch("DROP TABLE homes")).unwrap();
        let error = store
            .read(|c| c.query_row("SELECT count(*) FROM homes", [], |r| r.get::<_, i64>(0)))
            .unwrap_err();
        assert!(is_damaged(&error), "{error:?}");
        store.rebuild().unwrap();
        assert_eq!(count(&store), 0);
        put(&store);
        assert_eq!(count(&store), 1);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_the_index() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("index.sqlite");
        put(&Store::open(&path).unwrap());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
