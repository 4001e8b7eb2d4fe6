//! Reading what is new of the session files, and keeping the index in step with them.

use crate::defaults::{BATCH, MARK_EVERY};
use crate::formats::Summary;
use crate::homes::{self, Found, Stamp};
use crate::lines::{Lines, Position};
use crate::store::Store;
use crate::{AgentKind, HistoryError, ScanReport, project};
use rusqlite::{OptionalExtension, Transaction, params};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;

/// Bytes remembered of the beginning and the end of what was read: a file that was written anew differs there.
const FINGERPRINT: u64 = 64;

/// Threads that read files in a scan that has many to read.
const MAX_READERS: usize = 4;

/// What the index knows of a file.
struct Known {
    id: i64,
    stamp: Stamp,
    session: Option<String>,
}

/// What reading a file gave.
struct Update {
    found: Found,
    id: Option<i64>,
    /// The session it belonged to before.
    was: Option<String>,
    state: State,
    /// Marks beyond those that the index has; all of them when the file was read anew.
    marks: Vec<(u64, u64)>,
    anew: bool,
}

/// How far a file was read, and what it says up to there.
pub(crate) struct State {
    pub(crate) position: Position,
    pub(crate) lines: u64,
    last_mark: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
    summary: Summary,
}

/// Brings the index in step with all files of an agent.
pub(crate) fn scan(
    store: &Store,
    agent: AgentKind,
    home: &Path,
    counter: &AtomicU64,
) -> Result<ScanReport, HistoryError> {
    let before = counter.load(Ordering::Relaxed);
    let found = homes::find(agent, home);
    let files = found.len() as u64;
    let mut known = load_known(store, agent, home)?;
    let mut changed = Vec::new();
    for file in found {
        match known.remove(&file.rel) {
            Some(known) if known.stamp == file.stamp => {}
            known => changed.push((file, known)),
        }
    }
    let gone: Vec<Known> = known.into_values().collect();
    let mut report = ScanReport {
        files,
        gone: gone.len() as u64,
        ..ScanReport::default()
    };
    report.read = read_changed(store, agent, home, counter, changed)?;
    // After the new ones: a session whose file was moved (archived) is there all the time.
    if !gone.is_empty() {
        store.write(|t| forget(t, agent, home, &gone))?;
    }
    report.bytes = counter.load(Ordering::Relaxed) - before;
    Ok(report)
}

/// Brings the index in step with one file that it knows. Returns whether it is still there.
pub(crate) fn refresh(
    store: &Store,
    agent: AgentKind,
    home: &Path,
    counter: &AtomicU64,
    rel: &str,
) -> Result<bool, HistoryError> {
    let sql =
        "SELECT id, dev, ino, size, mtime, session, dir, archived FROM files WHERE agent = ?1 AND rel = ?2";
    let row = store.read(|c| {
        let mut select = c.prepare_cached(sql)?;
        select
            .query_row(params![agent.name(), rel], |r| {
                Ok((known(r, 0)?, r.get::<_, String>(6)?, r.get::<_, bool>(7)?))
            })
            .optional()
    })?;
    let Some((known, dir, archived)) = row else {
        return Ok(false);
    };
    let Ok((_, stamp)) = homes::open(&home.join(rel)) else {
        store.write(|t| forget(t, agent, home, &[known]))?;
        return Ok(false);
    };
    if stamp != known.stamp {
        let found = Found {
            rel: rel.to_owned(),
            dir,
            id: known.session.clone(),
            archived,
            stamp,
        };
        read_changed(store, agent, home, counter, vec![(found, Some(known))])?;
    }
    Ok(true)
}

fn known(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Known> {
    let stamp = Stamp {
        dev: row.get::<_, i64>(at + 1)?.cast_unsigned(),
        ino: row.get::<_, i64>(at + 2)?.cast_unsigned(),
        size: row.get(at + 3)?,
        mtime: row.get(at + 4)?,
    };
    Ok(Known {
        id: row.get(at)?,
        stamp,
        session: row.get(at + 5)?,
    })
}

fn load_known(store: &Store, agent: AgentKind, home: &Path) -> rusqlite::Result<HashMap<String, Known>> {
    let home = home.display().to_string();
    let same_home = store.read(|c| {
        let sql = "SELECT path FROM homes WHERE agent = ?1";
        c.query_row(sql, [agent.name()], |r| r.get::<_, String>(0))
            .optional()
    })?;
    if same_home.as_ref() != Some(&home) {
        // Paths in the index are relative: what is known of another home is of no use.
        store.write(|t| {
            for sql in [
                "DELETE FROM marks WHERE file IN (SELECT id FROM files WHERE agent = ?1)",
                "DELETE FROM files WHERE agent = ?1",
                "DELETE FROM sessions WHERE agent = ?1",
            ] {
                t.execute(sql, [agent.name()])?;
            }
            t.execute(
                "INSERT OR REPLACE INTO homes VALUES (?1, ?2)",
                params![agent.name(), home],
            )
        })?;
        return Ok(HashMap::new());
    }
    store.read(|c| {
        let sql =
            "SELECT id, dev, ino, size, mtime, session, rel FROM files WHERE agent = ?1 AND parent IS NULL";
        let mut select = c.prepare_cached(sql)?;
        let rows = select.query_map([agent.name()], |r| Ok((r.get::<_, String>(6)?, known(r, 0)?)))?;
        rows.collect()
    })
}

/// Reads what changed, with a few threads where there is much, and writes what that gives in batches.
fn read_changed(
    store: &Store,
    agent: AgentKind,
    home: &Path,
    counter: &AtomicU64,
    changed: Vec<(Found, Option<Known>)>,
) -> Result<u64, HistoryError> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MAX_READERS)
        .min(changed.len() / 16 + 1);
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::sync_channel(BATCH);
    let mut read = 0;
    std::thread::scope(|scope| {
        // Owned here: leaving early with an error must end the threads that wait to send.
        let receive = receive;
        for _ in 0..threads {
            let (send, next, changed) = (send.clone(), &next, &changed);
            scope.spawn(move || {
                while let Some((found, known)) = changed.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match update(store, agent, home, counter, found, known.as_ref()) {
                        Ok(update) => {
                            if send.send(Ok(update)).is_err() {
                                return;
                            }
                        }
                        Err(HistoryError::Io { source, .. }) => {
                            // Gone again, or not ours to read: the next scan will see.
                            tracing::debug!(%agent, file = found.rel, %source, "session file not read");
                        }
                        Err(error) => {
                            let _ = send.send(Err(error));
                            return;
                        }
                    }
                }
            });
        }
        drop(send);
        let mut batch = Vec::new();
        for update in receive.iter() {
            batch.push(update?);
            if batch.len() == BATCH {
                read += batch.len() as u64;
                write(store, agent, home, std::mem::take(&mut batch))?;
            }
        }
        read += batch.len() as u64;
        write(store, agent, home, batch)
    })?;
    Ok(read)
}

/// Reads the new lines of a file.
fn update(
    store: &Store,
    agent: AgentKind,
    home: &Path,
    counter: &AtomicU64,
    found: &Found,
    known: Option<&Known>,
) -> Result<Update, HistoryError> {
    let io = HistoryError::io("reading a session file");
    let (mut file, stamp) = homes::open(&home.join(&found.rel)).map_err(&io)?;
    let before = match known {
        Some(known) if may_have_grown(known.stamp, stamp) => load_state(store, known.id)?,
        _ => None,
    };
    let before = match before {
        Some(state) if is_same(&mut file, &state, stamp.size, counter).map_err(&io)? => Some(state),
        _ => None,
    };
    let anew = before.is_none();
    let mut marks = Vec::new();
    let state = read_on(
        agent, &found.dir, &mut file, stamp.size, before, &mut marks, counter,
    )
    .map_err(&io)?;
    Ok(Update {
        found: Found {
            stamp,
            ..found.clone()
        },
        id: known.map(|k| k.id),
        was: known.and_then(|k| k.session.clone()),
        state,
        marks,
        anew,
    })
}

/// A file that grew in place; one that has another time but the same size was rewritten.
fn may_have_grown(known: Stamp, now: Stamp) -> bool {
    (known.dev, known.ino) == (now.dev, now.ino) && now.size > known.size
}

/// Is what was read before still there?
fn is_same(file: &mut File, state: &State, size: u64, counter: &AtomicU64) -> io::Result<bool> {
    let read = state.position.read;
    if size < read {
        return Ok(false);
    }
    let head = bytes_at(file, 0, state.head.len(), counter)?;
    let tail = bytes_at(file, read - state.tail.len() as u64, state.tail.len(), counter)?;
    Ok(head == state.head && tail == state.tail)
}

fn bytes_at(file: &mut File, offset: u64, len: usize, counter: &AtomicU64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::with_capacity(len);
    file.take(len as u64).read_to_end(&mut bytes)?;
    counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    Ok(bytes)
}

fn read_on(
    agent: AgentKind,
    dir: &str,
    file: &mut File,
    size: u64,
    before: Option<State>,
    marks: &mut Vec<(u64, u64)>,
    counter: &AtomicU64,
) -> io::Result<State> {
    let (position, mut number, mut last_mark, mut summary) = match before {
        Some(state) => (state.position, state.lines, state.last_mark, state.summary),
        None => (Position::default(), 0, 0, Summary::default()),
    };
    let mut lines = Lines::new(&mut *file, counter, position, size)?;
    while let Some(line) = lines.next()? {
        if line.offset - last_mark >= MARK_EVERY {
            last_mark = line.offset;
            marks.push((number, line.offset));
        }
        summary.add(agent, dir, number, &line);
        number += 1;
    }
    let position = lines.position();
    summary.finish(agent);
    let fingerprint = usize::try_from(position.read.min(FINGERPRINT)).unwrap_or_default();
    Ok(State {
        position,
        lines: number,
        last_mark,
        head: bytes_at(file, 0, fingerprint, counter)?,
        tail: bytes_at(file, position.read - fingerprint as u64, fingerprint, counter)?,
        summary,
    })
}

fn load_state(store: &Store, id: i64) -> rusqlite::Result<Option<State>> {
    store.read(|c| {
        let sql = "SELECT line, read, lines, head, tail, state,
            (SELECT max(offset) FROM marks WHERE file = id) FROM files WHERE id = ?1";
        let mut select = c.prepare_cached(sql)?;
        let row = select.query_row([id], |r| {
            let summary = serde_json::from_str(&r.get::<_, String>(5)?).ok();
            Ok(summary.map(|summary| State {
                position: Position {
                    line: r.get(0).unwrap_or(0),
                    read: r.get(1).unwrap_or(0),
                },
                lines: r.get(2).unwrap_or(0),
                head: r.get(3).unwrap_or_default(),
                tail: r.get(4).unwrap_or_default(),
                last_mark: r.get::<_, Option<u64>>(6).ok().flatten().unwrap_or(0),
                summary,
            }))
        });
        row.optional().map(Option::flatten)
    })
}

fn write(store: &Store, agent: AgentKind, home: &Path, batch: Vec<Update>) -> Result<(), HistoryError> {
    if batch.is_empty() {
        return Ok(());
    }
    store.write(|t| {
        let mut sessions = BTreeSet::new();
        for update in &batch {
            sessions.extend(update.was.clone());
            sessions.extend(put(t, agent, update)?);
        }
        for session in &sessions {
            regroup(t, agent, home, session)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Writes a file's row; returns the session that it belongs to.
fn put(t: &Transaction<'_>, agent: AgentKind, update: &Update) -> rusqlite::Result<Option<String>> {
    let Update { found, state, .. } = update;
    let session = found
        .id
        .clone()
        .or_else(|| state.summary.id.clone())
        .filter(|id| homes::is_safe_id(id));
    let summary = serde_json::to_string(&state.summary).unwrap_or_default();
    let id = match update.id {
        Some(id) => id,
        None => {
            t.prepare_cached(
                "INSERT INTO files (agent, rel, dir, archived, dev, ino, size, mtime, line, read, lines, head, tail, messages, state)
                 VALUES (?1, ?2, ?3, ?4, 0, 0, 0, 0, 0, 0, 0, '', '', 0, '')",
            )?
            .execute(params![agent.name(), found.rel, found.dir, found.archived])?;
            t.last_insert_rowid()
        }
    };
    let Stamp {
        dev,
        ino,
        size,
        mtime,
    } = found.stamp;
    t.prepare_cached(
        "UPDATE files SET session = ?2, dev = ?3, ino = ?4, size = ?5, mtime = ?6, line = ?7, read = ?8,
         lines = ?9, head = ?10, tail = ?11, messages = ?12, state = ?13 WHERE id = ?1",
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
    ])?;
    if update.anew {
        t.prepare_cached("DELETE FROM marks WHERE file = ?1")?
            .execute([id])?;
    }
    let mut mark = t.prepare_cached("INSERT OR REPLACE INTO marks VALUES (?1, ?2, ?3)")?;
    for (line, offset) in &update.marks {
        mark.execute(params![id, line.cast_signed(), offset.cast_signed()])?;
    }
    Ok(session)
}

/// Makes a session's row from the best of its files: the one with messages, else the newest.
fn regroup(t: &Transaction<'_>, agent: AgentKind, home: &Path, session: &str) -> rusqlite::Result<()> {
    let best = t
        .prepare_cached(
            "SELECT id, dir, archived, size, mtime, state, parent IS NOT NULL FROM files
             WHERE agent = ?1 AND session = ?2 ORDER BY messages > 0 DESC, mtime DESC, id LIMIT 1",
        )?
        .query_row(params![agent.name(), session], |r| {
            Ok((
                r.get::<_, i64>(0)?,
                r.get::<_, String>(1)?,
                r.get::<_, bool>(2)?,
                r.get::<_, i64>(3)?,
                r.get::<_, i64>(4)?,
                r.get::<_, String>(5)?,
                r.get::<_, bool>(6)?,
            ))
        })
        .optional()?;
    let Some((file, dir, archived, size, mtime, state, has_parent)) = best else {
        t.prepare_cached("DELETE FROM sessions WHERE agent = ?1 AND id = ?2")?
            .execute(params![agent.name(), session])?;
        return Ok(());
    };
    let summary: Summary = serde_json::from_str(&state).unwrap_or_default();
    let changed = mtime / 1_000_000;
    let path = match agent {
        AgentKind::Gemini => project::gemini_root(home, &dir),
        AgentKind::Claude | AgentKind::Codex => summary.cwd.clone(),
    }
    // Without any word of the directory, its short name is better than nothing.
    .unwrap_or_else(|| dir.clone());
    let project = if agent == AgentKind::Codex {
        project::id_of(&path)
    } else {
        dir
    };
    let hidden = has_parent || summary.sub_agent || (summary.messages == 0 && summary.title().is_none());
    t.prepare_cached(
        "INSERT OR REPLACE INTO sessions VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)",
    )?
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
    ])?;
    Ok(())
}

/// Takes files that are gone out of the index, with their sub-agents'.
fn forget(t: &Transaction<'_>, agent: AgentKind, home: &Path, gone: &[Known]) -> rusqlite::Result<()> {
    for known in gone {
        t.prepare_cached("DELETE FROM marks WHERE file = ?1")?
            .execute([known.id])?;
        t.prepare_cached("DELETE FROM files WHERE id = ?1")?
            .execute([known.id])?;
        if let Some(session) = &known.session {
            regroup(t, agent, home, session)?;
        }
    }
    Ok(())
}
