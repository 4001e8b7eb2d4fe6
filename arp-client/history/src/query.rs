//! Listing from the index.

use crate::AgentKind;
use crate::clock;
use crate::defaults::MAX_SESSIONS;
use crate::project::short_name;
use crate::shapes::{Project, Projects, Session, Status, WorkingDirectories, WorkingDirectory};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

/// Which sessions are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Only those that were started in this directory (absolute path, compared as text).
    pub project_path: Option<String>,
    /// Only those of this project.
    pub project_id: Option<String>,
    /// How many at most; [`MAX_SESSIONS`] without, and at most.
    pub limit: Option<usize>,
    /// How many to skip.
    pub offset: usize,
}

const COLUMNS: &str =
    "id, project, path, created, updated, prompt_at, first, title, messages, duration, model, branch,
    archived, size";

pub(crate) fn sessions(
    c: &Connection,
    agent: AgentKind,
    filter: &SessionFilter,
) -> rusqlite::Result<(Vec<Session>, u64)> {
    let mut wheres = "agent = ? AND hidden = 0".to_owned();
    let mut values: Vec<Value> = vec![agent.name().to_owned().into()];
    if let Some(path) = &filter.project_path {
        wheres.push_str(" AND path = ?");
        let trimmed = path.trim_end_matches('/');
        values.push(
            if trimmed.is_empty() {
                path.clone()
            } else {
                trimmed.to_owned()
            }
            .into(),
        );
    }
    if let Some(id) = &filter.project_id {
        wheres.push_str(" AND project = ?");
        values.push(id.clone().into());
    }
    let total = c
        .prepare_cached(&format!("SELECT count(*) FROM sessions WHERE {wheres}"))?
        .query_row(params_from_iter(&values), |r| r.get(0))?;
    let limit = filter.limit.unwrap_or(MAX_SESSIONS).min(MAX_SESSIONS);
    values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
    values.push(i64::try_from(filter.offset).unwrap_or(i64::MAX).into());
    let sql =
        format!("SELECT {COLUMNS} FROM sessions WHERE {wheres} ORDER BY updated DESC, id LIMIT ? OFFSET ?");
    let mut select = c.prepare_cached(&sql)?;
    let rows = select.query_map(params_from_iter(&values), |r| session(agent, r))?;
    Ok((rows.collect::<rusqlite::Result<_>>()?, total))
}

/// A session, hidden ones too, and the row of its file.
pub(crate) fn one(c: &Connection, agent: AgentKind, id: &str) -> rusqlite::Result<Option<(Session, i64)>> {
    let sql = format!("SELECT {COLUMNS}, file FROM sessions WHERE agent = ?1 AND id = ?2");
    let mut select = c.prepare_cached(&sql)?;
    select
        .query_row(params![agent.name(), id], |r| {
            Ok((session(agent, r)?, r.get(14)?))
        })
        .optional()
}

fn session(agent: AgentKind, r: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        id: r.get(0)?,
        agent,
        project_id: r.get(1)?,
        project_path: r.get(2)?,
        todo_data: None,
        created_at: seconds(r.get(3)?),
        updated_at: seconds(r.get(4)?),
        message_timestamp: r.get::<_, Option<i64>>(5)?.and_then(clock::format),
        first_message: r.get(6)?,
        title: r.get(7)?,
        message_count: r.get(8)?,
        total_duration: r.get(9)?,
        model: r.get(10)?,
        git_branch: r.get(11)?,
        archived: r.get(12)?,
        size: r.get(13)?,
        status: Status::Completed,
    })
}

/// A file of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileRow {
    /// Path below the agent's home.
    pub(crate) rel: String,
    /// The agent's name of the project.
    pub(crate) dir: String,
}

/// All files of a session.
pub(crate) fn files_of(c: &Connection, agent: AgentKind, id: &str) -> rusqlite::Result<Vec<FileRow>> {
    let mut select =
        c.prepare_cached("SELECT rel, dir FROM files WHERE agent = ?1 AND session = ?2 ORDER BY rel")?;
    let rows = select.query_map(params![agent.name(), id], |r| {
        Ok(FileRow {
            rel: r.get(0)?,
            dir: r.get(1)?,
        })
    })?;
    rows.collect()
}

pub(crate) fn projects(
    c: &Connection,
    agent: AgentKind,
    limit: usize,
    offset: usize,
) -> rusqlite::Result<Projects> {
    let total = c
        .prepare_cached("SELECT count(DISTINCT project) FROM sessions WHERE agent = ?1 AND hidden = 0")?
        .query_row([agent.name()], |r| r.get(0))?;
    let mut select = c.prepare_cached(
        "SELECT project, min(created), max(updated) FROM sessions WHERE agent = ?1 AND hidden = 0
         GROUP BY project ORDER BY max(updated) DESC, project LIMIT ?2 OFFSET ?3",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let rows = select.query_map(params![agent.name(), limit, offset], |r| {
        Ok(Project {
            id: r.get(0)?,
            path: String::new(),
            sessions: Vec::new(),
            created_at: seconds(r.get(1)?),
            most_recent_session: Some(seconds(r.get(2)?)),
        })
    })?;
    let mut projects: Vec<Project> = rows.collect::<rusqlite::Result<_>>()?;
    let mut select = c.prepare_cached(
        "SELECT id, path FROM sessions WHERE agent = ?1 AND hidden = 0 AND project = ?2 ORDER BY updated DESC, id",
    )?;
    for project in &mut projects {
        let mut rows = select.query(params![agent.name(), project.id])?;
        while let Some(row) = rows.next()? {
            if project.sessions.is_empty() {
                // The newest session's.
                project.path = row.get(1)?;
            }
            project.sessions.push(row.get(0)?);
        }
    }
    Ok(Projects { projects, total })
}

pub(crate) fn directories(c: &Connection, agent: AgentKind) -> rusqlite::Result<WorkingDirectories> {
    let mut select = c.prepare_cached(
        "SELECT path, count(*), max(updated) FROM sessions WHERE agent = ?1 AND hidden = 0
         GROUP BY path ORDER BY max(updated) DESC, path",
    )?;
    let rows = select.query_map([agent.name()], |r| {
        let path: String = r.get(0)?;
        Ok(WorkingDirectory {
            shortname: short_name(&path),
            path,
            conversation_count: r.get(1)?,
            last_date: clock::format(r.get(2)?),
        })
    })?;
    let directories: Vec<WorkingDirectory> = rows.collect::<rusqlite::Result<_>>()?;
    Ok(WorkingDirectories {
        total: directories.len() as u64,
        directories,
    })
}

fn seconds(ms: i64) -> i64 {
    ms.div_euclid(1_000)
}
