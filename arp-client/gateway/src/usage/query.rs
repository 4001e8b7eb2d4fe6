//! What was counted, as people and pages ask for it: sums, requests, choices.

use super::Tokens;
use super::budgets::Spent;
use super::store::{Choice, Usage};
use crate::service::Service;
use rusqlite::params;
use serde::Serialize;
use std::sync::PoisonError;

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

impl Usage {
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
    pub fn spent(&self, today: &str) -> rusqlite::Result<Spent> {
        let spent = Spent::default();
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
