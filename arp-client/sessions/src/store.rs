//! What survives a restart besides the logs: one SQLite file with the sessions and their messages.

use crate::model::{Message, MessageStatus, Meta, Status, Time};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params, params_from_iter};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY,
    executor TEXT NOT NULL,
    agent_session_id TEXT,
    project_path TEXT NOT NULL,
    status TEXT NOT NULL,
    title TEXT,
    first_message TEXT,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    client_id TEXT UNIQUE,
    meta TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS sessions_updated ON sessions (updated_ms DESC);
CREATE INDEX IF NOT EXISTS sessions_agent ON sessions (agent_session_id);
CREATE TABLE IF NOT EXISTS messages (
    id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    client_id TEXT,
    text TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    position INTEGER NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0,
    UNIQUE (session_id, client_id)
) STRICT;
CREATE TABLE IF NOT EXISTS clock (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    age_ms INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS resting (
    session_id TEXT PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    updated_ms INTEGER NOT NULL,
    since_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS messages_queue ON messages (session_id, sent, position);
";

/// Which sessions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these states; all if empty.
    pub status: Vec<Status>,
    /// Only this agent.
    pub executor: Option<String>,
    /// Only this directory.
    pub project_path: Option<String>,
    /// Only with this in title, first message or path.
    pub text: Option<String>,
    /// At most so many.
    pub limit: u64,
    /// Leave out the first so many.
    pub offset: u64,
}

/// The database.
#[derive(Debug)]
pub struct Store(Mutex<Connection>);

type Result<T> = rusqlite::Result<T>;

impl Store {
    /// Opens or makes it.
    ///
    /// # Errors
    /// When SQLite says no.
    pub fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
                tracing::warn!(%error, "cannot make the session database private");
            }
        }
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(Mutex::new(connection)))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic while the lock was held cannot have left SQLite in the middle of a statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a session, new or known.
    ///
    /// # Errors
    /// When SQLite says no.
    pub fn save(&self, meta: &Meta) -> Result<()> {
        let json = serde_json::to_string(meta)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        self.connection()
            .prepare_cached(
                "INSERT INTO sessions (id, executor, agent_session_id, project_path, status, title, first_message,
                     created_ms, updated_ms, client_id, meta) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)
                 ON CONFLICT (id) DO UPDATE SET agent_session_id=?3, project_path=?4, status=?5, title=?6,
                     first_message=?7, updated_ms=?9, meta=?11",
            )?
            .execute(params![
                meta.id,
                meta.executor,
                meta.agent_session_id,
                meta.project_path.to_string_lossy(),
                meta.status.name(),
                meta.title,
                meta.first_message,
                meta.created_ms.cast_signed(),
                meta.updated_ms.cast_signed(),
                meta.client_id,
                json
            ])?;
        Ok(())
    }

    /// A session by our id or the agent's.
    ///
    /// # Errors
    /// When SQLite says no.
    pub fn find(&self, id: &str) -> Result<Option<Meta>> {
        self.connection()
            .prepare_cached(
                "SELECT meta FROM sessions WHERE id = ?1 OR agent_session_id = ?1
                 ORDER BY id = ?1 DESC, updated_ms DESC LIMIT 1",
            )?
            .query_row([id], meta_of)
            .optional()
    }

    /// The session that was created with this idempotency id.
    ///
    /// # Errors
    /// When SQLite says no.
    pub fn find_by_client_id(&self, client_id: &str) -> Result<Option<Meta>> {
        self.connection()
            .prepare_cached("SELECT meta FROM sessions WHERE client_id = ?1")?
            .query_row([client_id], meta_of)
            .optional()
    }

    /// Sessions, newest first, and how many there are without the limit.
    ///
    /// # Errors
    /// When SQLite says no.
    pub fn list(&self, filter: &Filter) -> Result<(Vec<Meta>, u64)> {
        let mut conditions = vec!["1".to_owned()];
        let mut values: Vec<Box<dyn ToSql>> = Vec::new();
        if !filter.status.is_empty() {
            let names: Vec<_> = filter
                .status
                .iter()
                .map(|status| format!("'{}'", status.name()))
                .collect();
            conditions.push(format!("status IN ({})", names.join(",")));
        }
        if let Some(executor) = &filter.executor {
            values.push(Box::new(executor.clone()));
            conditions.push(format!("executor = ?{}", values.len()));
        }
        if let Some(path) = &filter.project_path {
            values.push(Box::new(path.clone()));
            conditions.push(format!("project_path = ?{}", values.len()));
        }
        if let Some(text) = &filter.text {
            values.push(Box::new(format!("%{}%", escape_like(text))));
            let at = values.len();
            conditions.push(format!(
                "(title LIKE ?{at} ESCAPE '\\' OR first_message LIKE ?{at} ESCAPE '\\' OR project_path LIKE ?{at} ESCAPE '\\')"
            ));
        }
        let conditions = conditions.join(" AND ");
        let connection = self.connection();
        let total: i64 = connection
            .prepare(&format!("SELECT count(*) FROM sessions WHERE {conditions}"))?
            .query_row(params_from_iter(&values), |row| row.get(0))?;
        let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
        let offset = i64::try_from(filter.offset).unwrap_or(i64::MAX);
        let metas = connection
            .prepare(&format!(
                "SELECT meta FROM sessions WHERE {conditions} ORDER BY updated_ms DESC, id LIMIT {limit} OFFSET {offset}"
            ))?
            .query_map(params_from_iter(&values), meta_of)?
            .collect::<Result<Vec<_>>>()?;
        Ok((metas, total.cast_unsigned()))
    }

    /// Forgets a session and its messages.
    ///
    /// # Errors
    /// When SQLite says no.
    pub fn delete(&self, id: &str) -> Result<()> {
        self.connection()
            .execute("DELETE FROM sessions WHERE id = ?1", [id])?;
        Ok(())
    }

    /// The age of this database by a clock that only goes forward, and the wall clock when it was kept.
    ///
    /// # Errors
    /// When SQLite says no.
    pub fn clock(&self) -> Result<Option<(u64, u64)>> {
        self.connection()
            .query_row("SELECT age_ms, wall_ms FROM clock", [], |row| {
                Ok((
                    row.get::<_, i64>(0)?.cast_unsigned(),
                    row.get::<_, i64>(1)?.cast_unsigned(),
                ))
            })
            .optional()
    }

    /// Keeps both.
    ///
    /// # Errors
    /// When SQLite says no.
    pub fn set_clock(&self, age_ms: u64, wall_ms: u64) -> Result<()> {
        self.connection().execute(
            "INSERT INTO clock (id, age_ms, wall_ms) VALUES (1, ?1, ?2)
             ON CONFLICT (id) DO UPDATE SET age_ms = ?1, wall_ms = ?2",
            params![age_ms.cast_signed(), wall_ms.cast_signed()],
        )?;
        Ok(())
    }

    /// At which age of the database a session that rests was seen to rest first, since it last changed.
    ///
    /// # Errors
    /// When SQLite says no.
    pub fn resting_since(&self, meta: &Meta, age_ms: u64) -> Result<u64> {
        let connection = self.connection();
        connection
            .prepare_cached(
                "INSERT INTO resting (session_id, updated_ms, since_ms) VALUES (?1, ?2, ?3)
                 ON CONFLICT (session_id) DO UPDATE SET updated_ms = ?2, since_ms = ?3 WHERE updated_ms <> ?2",
            )?
            .execute(params![meta.id, meta.updated_ms.cast_signed(), age_ms.cast_signed()])?;
        let since: i64 = connection
            .prepare_cached("SELECT since_ms FROM resting WHERE session_id = ?1")?
            .query_row([&meta.id], |row| row.get(0))?;
        Ok(since.cast_unsigned())
    }

    /// Does it take what is written?
    ///
    /// # Errors
    /// When SQLite says no: the disk is full, or the file is read-only.
    pub fn probe(&self) -> Result<()> {
        self.connection()
            .execute("UPDATE sessions SET id = id WHERE id = ''", [])?;
        Ok(())
    }

    /// The message that the agent got last.
    ///
    /// # Errors
    /// When SQLite says no.
    pub fn last_sent(&self, session_id: &str) -> Result<Option<Message>> {
        self.connection()
            .prepare_cached(
                "SELECT id, client_id, text, created_ms, sent FROM messages WHERE session_id = ?1 AND sent = 1
                 ORDER BY rowid DESC LIMIT 1",
            )?
            .query_row([session_id], message_of)
            .optional()
    }

    /// Adds a message to the end of a session's queue, or to its front.
    ///
    /// # Errors
    /// When SQLite says no, also for a `client_id` that is there already.
    pub fn add_message(&self, session_id: &str, message: &Message, front: bool) -> Result<()> {
        let position = if front {
            "min(position), 0) - 1"
        } else {
            "max(position), 0) + 1"
        };
        self.connection().execute(
            &format!(
                "INSERT INTO messages (id, session_id, client_id, text, created_ms, position)
                 SELECT ?1, ?2, ?3, ?4, ?5, coalesce({position} FROM messages WHERE session_id = ?2"
            ),
            params![
                message.id,
                session_id,
                message.client_id,
                message.text,
                message.created_at.0.cast_signed()
            ],
        )?;
        Ok(())
    }

    /// Messages that wait, in order.
    ///
    /// # Errors
    /// When SQLite says no.
    pub fn queue(&self, session_id: &str) -> Result<Vec<Message>> {
        self.connection()
            .prepare_cached(
                "SELECT id, client_id, text, created_ms, sent FROM messages WHERE session_id = ?1 AND sent = 0
                 ORDER BY position",
            )?
            .query_map([session_id], message_of)?
            .collect()
    }

    /// A message by our id (`client` false) or the client's.
    ///
    /// # Errors
    /// When SQLite says no.
    pub fn message(&self, session_id: &str, id: &str, client: bool) -> Result<Option<Message>> {
        let column = if client { "client_id" } else { "id" };
        self.connection()
            .prepare_cached(&format!(
                "SELECT id, client_id, text, created_ms, sent FROM messages WHERE session_id = ?1 AND {column} = ?2"
            ))?
            .query_row([session_id, id], message_of)
            .optional()
    }

    /// The agent has it.
    ///
    /// # Errors
    /// When SQLite says no.
    pub fn message_sent(&self, id: &str) -> Result<()> {
        self.connection()
            .prepare_cached("UPDATE messages SET sent = 1 WHERE id = ?1")?
            .execute([id])?;
        Ok(())
    }

    /// Takes a message out.
    ///
    /// # Errors
    /// When SQLite says no.
    pub fn remove_message(&self, id: &str) -> Result<()> {
        self.connection()
            .prepare_cached("DELETE FROM messages WHERE id = ?1")?
            .execute([id])?;
        Ok(())
    }
}

fn meta_of(row: &Row<'_>) -> Result<Meta> {
    let json: String = row.get(0)?;
    serde_json::from_str(&json).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })
}

fn message_of(row: &Row<'_>) -> Result<Message> {
    let sent: i64 = row.get(4)?;
    let created: i64 = row.get(3)?;
    Ok(Message {
        id: row.get(0)?,
        client_id: row.get(1)?,
        text: row.get(2)?,
        created_at: Time(created.cast_unsigned()),
        status: if sent == 0 {
            MessageStatus::Queued
        } else {
            MessageStatus::Sent
        },
    })
}

fn escape_like(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}
