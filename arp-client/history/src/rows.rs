//! The index's rows of files and sessions.

use crate::AgentKind;
use crate::format::Format;
use crate::homes::{self, Found, Stamp};
use crate::lines::Position;
use crate::store::Store;
use crate::summary::Summary;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// What the index knows of a file.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) id: i64,
    pub(crate) stamp: Stamp,
    pub(crate) session: Option<String>,
}

/// How far a file was read, and what it says up to there.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) position: Position,
    /// Complete lines so far.
    pub(crate) lines: u64,
    /// The last remembered offset.
    pub(crate) last_mark: u64,
    /// First and last bytes of what was read.
    pub(crate) head: Vec<u8>,
    pub(crate) tail: Vec<u8>,
    pub(crate) summary: Summary,
}

/// What reading a file gave.
pub(crate) struct Update {
    pub(crate) found: Found,
    /// What the index knew when reading began.
    pub(crate) known: Option<Known>,
    pub(crate) state: State,
    /// Number and offset of lines to be remembered, beyond those that the index has.
    pub(crate) marks: Vec<(u64, u64)>,
    /// The file was read from its beginning: what the index has is void.
    pub(crate) anew: bool,
}

/// All files that the index knows of an agent, by their path below its home.
pub(crate) fn load_all(
    store: &Store,
    agent: AgentKind,
    home: &Path,
) -> rusqlite::Result<HashMap<String, Known>> {
    let home = home.display().to_string();
    if home_of(store, agent)?.as_ref() != Some(&home) {
        begin_home(store, agent, &home)?;
    }
    store.read(|c| {
        let sql = "SELECT id, dev, ino, size, mtime, session, rel FROM files WHERE agent = ?1";
        let mut select = c.prepare_cached(sql)?;
        let rows = select.query_map([agent.name()], |r| Ok((r.get::<_, String>(6)?, known(r)?)))?;
        rows.collect()
    })
}

fn home_of(store: &Store, agent: AgentKind) -> rusqlite::Result<Option<String>> {
    store.read(|c| {
        let mut select = c.prepare_cached("SELECT path FROM homes WHERE agent = ?1")?;
        select.query_row([agent.name()], |r| r.get(0)).optional()
    })
}

/// Begins with another home. Paths in the index are relative: what is known of the one before is of no use.
fn begin_home(store: &Store, agent: AgentKind, home: &str) -> rusqlite::Result<()> {
    store.write(|t| {
        let noted =
            "INSERT INTO homes VALUES (?1, ?2) ON CONFLICT (agent) DO UPDATE SET path = ?2 WHERE path != ?2";
        if t.execute(noted, params![agent.name(), home])? == 0 {
            // Another process was faster, and may have read it by now.
            return Ok(());
        }
        for sql in [
            "DELETE FROM marks WHERE file IN (SELECT id FROM files WHERE agent = ?1)",
            "DELETE FROM files WHERE agent = ?1",
            "DELETE FROM sessions WHERE agent = ?1",
        ] {
            t.execute(sql, [agent.name()])?;
        }
        Ok(())
    })
}

/// What the index knows of one file: that, the project's name, and whether it is archived.
pub(crate) fn load_one(
    store: &Store,
    agent: AgentKind,
    rel: &str,
) -> rusqlite::Result<Option<(Known, String, bool)>> {
    let sql =
        "SELECT id, dev, ino, size, mtime, session, dir, archived FROM files WHERE agent = ?1 AND rel = ?2";
    store.read(|c| {
        let mut select = c.prepare_cached(sql)?;
        let row = select.query_row(params![agent.name(), rel], |r| {
            Ok((known(r)?, r.get(6)?, r.get(7)?))
        });
        row.optional()
    })
}

fn known(row: &Row<'_>) -> rusqlite::Result<Known> {
    let stamp = Stamp {
        dev: row.get::<_, i64>(1)?.cast_unsigned(),
        ino: row.get::<_, i64>(2)?.cast_unsigned(),
        size: row.get(3)?,
        mtime: row.get(4)?,
    };
    Ok(Known {
        id: row.get(0)?,
        stamp,
        session: row.get(5)?,
    })
}

/// The state of a file, to be gone on with; `None` when it is not there or cannot be understood.
pub(crate) fn load_state(store: &Store, id: i64) -> rusqlite::Result<Option<State>> {
    let sql = "SELECT line, read, lines, head, tail, state, (SELECT max(offset) FROM marks WHERE file = id)
        FROM files WHERE id = ?1";
    store.read(|c| {
        let mut select = c.prepare_cached(sql)?;
        let row = select.query_row([id], |r| {
            let Ok(summary) = serde_json::from_str(&r.get::<_, String>(5)?) else {
                return Ok(None);
            };
            Ok(Some(State {
                position: Position {
                    line: r.get(0)?,
                    read: r.get(1)?,
                },
                lines: r.get(2)?,
                head: r.get(3)?,
                tail: r.get(4)?,
                last_mark: r.get::<_, Option<u64>>(6)?.unwrap_or(0),
                summary,
            }))
        });
        row.optional().map(Option::flatten)
    })
}

/// Writes a file's row and notes the sessions that this concerns. Returns `false`, and writes nothing, when the row
/// is not what it was when reading began.
pub(crate) fn put(
    t: &Transaction<'_>,
    agent: AgentKind,
    update: &Update,
    sessions: &mut BTreeSet<String>,
) -> rusqlite::Result<bool> {
    let Update {
        found, known, state, ..
    } = update;
    let Some((id, was)) = row_to_write(t, agent, found, known.as_ref())? else {
        return Ok(false);
    };
    let id_in_lines = state.summary.id.clone().filter(|id| homes::is_safe_id(id));
    let session = found.id.clone().or(id_in_lines);
    let summary = serde_json::to_string(&state.summary).unwrap_or_default();
    let Stamp {
        dev,
        ino,
        size,
        mtime,
    } = found.stamp;
    let written = t
        .prepare_cached(
            "UPDATE files SET session = ?2, dev = ?3, ino = ?4, size = ?5, mtime = ?6, line = ?7, read = ?8,
             lines = ?9, head = ?10, tail = ?11, messages = ?12, state = ?13
             WHERE id = ?1 AND dev = ?14 AND ino = ?15 AND size = ?16 AND mtime = ?17",
        )?
        .execute(params![
            id,
            session,
            dev.cast_signed(),
            ino.cast_signed(),
            size.cast_signed(),
            mtime,
            state.position.line.cast_signed(),
            state.position.read.cast_signed(),
            state.lines.cast_signed(),
            state.head,
            state.tail,
            state.summary.messages.cast_signed(),
            summary,
            was.dev.cast_signed(),
            was.ino.cast_signed(),
            was.size.cast_signed(),
            was.mtime,
        ])?;
    if written == 0 {
        return Ok(false);
    }
    if update.anew {
        t.prepare_cached("DELETE FROM marks WHERE file = ?1")?
            .execute([id])?;
    }
    let mut mark = t.prepare_cached("INSERT OR REPLACE INTO marks VALUES (?1, ?2, ?3)")?;
    for (line, offset) in &update.marks {
        mark.execute(params![id, line.cast_signed(), offset.cast_signed()])?;
    }
    sessions.extend(known.as_ref().and_then(|known| known.session.clone()));
    sessions.extend(session);
    Ok(true)
}

/// The row to write to and what it must say of the file; `None` when there is one that was not known.
fn row_to_write(
    t: &Transaction<'_>,
    agent: AgentKind,
    found: &Found,
    known: Option<&Known>,
) -> rusqlite::Result<Option<(i64, Stamp)>> {
    if let Some(known) = known {
        return Ok(Some((known.id, known.stamp)));
    }
    let inserted = t
        .prepare_cached(
            "INSERT OR IGNORE INTO files (agent, rel, dir, archived, dev, ino, size, mtime, line, read, lines,
             head, tail, messages, state) VALUES (?1, ?2, ?3, ?4, 0, 0, 0, 0, 0, 0, 0, x'', x'', 0, '')",
        )?
        .execute(params![agent.name(), found.rel, found.dir, found.archived])?;
    Ok((inserted > 0).then(|| (t.last_insert_rowid(), Stamp::default())))
}

/// Makes a session's row from the best of its files: the one with messages, else the newest.
pub(crate) fn regroup(
    t: &Transaction<'_>,
    format: &dyn Format,
    home: &Path,
    session: &str,
) -> rusqlite::Result<()> {
    let best = t
        .prepare_cached(
            "SELECT id, dir, archived, size, mtime, state FROM files WHERE agent = ?1 AND session = ?2
             ORDER BY messages > 0 DESC, mtime DESC, id LIMIT 1",
        )?
        .query_row(params![format.agent().name(), session], |r| {
            Ok(Best {
                file: r.get(0)?,
                dir: r.get(1)?,
                archived: r.get(2)?,
                size: r.get(3)?,
                changed: r.get::<_, i64>(4)? / 1_000_000,
                summary: serde_json::from_str(&r.get::<_, String>(5)?).unwrap_or_default(),
            })
        })
        .optional()?;
    match best {
        Some(best) => put_session(t, format, home, session, best),
        None => t
            .prepare_cached("DELETE FROM sessions WHERE agent = ?1 AND id = ?2")?
            .execute(params![format.agent().name(), session])
            .map(drop),
    }
}

/// The file that stands for a session.
struct Best {
    file: i64,
    dir: String,
    archived: bool,
    size: i64,
    /// Last change, milliseconds since 1970.
    changed: i64,
    summary: Summary,
}

fn put_session(
    t: &Transaction<'_>,
    format: &dyn Format,
    home: &Path,
    session: &str,
    best: Best,
) -> rusqlite::Result<()> {
    let Best {
        file,
        dir,
        archived,
        size,
        changed,
        summary,
    } = best;
    let agent = format.agent();
    // Without any word of the directory, its short name is better than nothing.
    let path = format.path(home, &dir, &summary).unwrap_or_else(|| dir.clone());
    let project = format.project(dir, &path);
    let hidden = summary.sub_agent || (summary.messages == 0 && summary.title().is_none());
    let sql =
        "INSERT OR REPLACE INTO sessions VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)";
    t.prepare_cached(sql)?
        .execute(params![
            agent.name(),
            session,
            file,
            project,
            path,
            summary.created_at.unwrap_or(changed),
            summary.updated_at.unwrap_or(changed),
            summary.first_prompt_at,
            summary.first_prompt,
            summary.title(),
            summary.messages.cast_signed(),
            summary.duration_ms.map(u64::cast_signed),
            summary.model,
            summary.git_branch,
            archived,
            size,
            hidden,
        ])
        .map(drop)
}

/// Takes files that are gone out of the index.
pub(crate) fn forget(
    t: &Transaction<'_>,
    format: &dyn Format,
    home: &Path,
    gone: &[Known],
) -> rusqlite::Result<()> {
    for known in gone {
        t.prepare_cached("DELETE FROM marks WHERE file = ?1")?
            .execute([known.id])?;
        t.prepare_cached("DELETE FROM files WHERE id = ?1")?
            .execute([known.id])?;
        if let Some(session) = &known.session {
            regroup(t, format, home, session)?;
        }
    }
    Ok(())
}
