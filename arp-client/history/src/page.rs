//! Pages of a session's file: opened in the middle, bounded in lines and bytes.

use crate::defaults::{MAX_LINE_BYTES, MAX_PAGE_BYTES, MAX_PAGE_LINES};
use crate::homes::{self, Stamp};
use crate::lines::{Line, Lines, Position};
use crate::store::Store;
use crate::summary::Summary;
use crate::{HistoryError, json};
use rusqlite::params;
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

/// Bytes that may be read for one page, lines that are left out included.
const MAX_SCANNED: u64 = 4 * MAX_PAGE_BYTES;

/// Which part of a session is wanted. To begin at the end, ask for `from: u64::MAX`: the answer has no records, but
/// says how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Number of the first record, from 0.
    pub from: u64,
    /// How many records at most ([`MAX_PAGE_LINES`] at most).
    pub limit: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            from: 0,
            limit: MAX_PAGE_LINES,
        }
    }
}

/// Which lines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filter {
    /// Every line of the file.
    #[default]
    Everything,
    /// Only what was said and done: without the agent's housekeeping (snapshots of prompts, requests, modes), which
    /// is most of the bytes and means nothing to a reader.
    Conversation,
}

/// A session's file, opened where the index says what is in it.
pub(crate) struct Opened {
    /// Where it is.
    pub(crate) path: PathBuf,
    file: File,
    id: i64,
    /// Complete lines, and where they end.
    pub(crate) lines: u64,
    end: u64,
}

impl Opened {
    /// Opens the file of the row `id`, if it is still the one that the index was made from.
    pub(crate) fn open(store: &Store, home: &Path, id: i64) -> Result<Self, HistoryError> {
        let (rel, dev, ino, lines, end) = store.read(|c| {
            let mut select =
                c.prepare_cached("SELECT rel, dev, ino, lines, line FROM files WHERE id = ?1")?;
            select.query_row([id], |r| {
                Ok((
                    r.get::<_, String>(0)?,
                    r.get::<_, i64>(1)?.cast_unsigned(),
                    r.get::<_, i64>(2)?.cast_unsigned(),
                    r.get::<_, u64>(3)?,
                    r.get::<_, u64>(4)?,
                ))
            })
        })?;
        let path = home.join(rel);
        let (file, stamp) = homes::open(&path).map_err(HistoryError::io("opening a session file"))?;
        let Stamp { size, .. } = stamp;
        if (stamp.dev, stamp.ino) != (dev, ino) || size < end {
            return Err(HistoryError::Changed);
        }
        Ok(Self {
            path,
            file,
            id,
            lines,
            end,
        })
    }

    /// Gives the lines of a page to `take`, until the page is full; with `lead` also some before it, as far as the
    /// last known offset but one. Returns where the next page begins; `None` at the end.
    pub(crate) fn walk(
        &self,
        store: &Store,
        counter: &AtomicU64,
        page: Page,
        lead: bool,
        mut take: impl FnMut(u64, Line<'_>) -> Taken,
    ) -> Result<Option<u64>, HistoryError> {
        let io = HistoryError::io("reading a session file");
        let limit = page.limit.clamp(1, MAX_PAGE_LINES);
        if page.from >= self.lines {
            return Ok(None);
        }
        let to = page.from.saturating_add(limit as u64);
        let marks = self.marks(store, page.from, to, lead)?;
        // The first is at or before the page.
        let (mut number, offset) = marks
            .first_key_value()
            .map_or((0, 0), |(line, offset)| (*line, *offset));
        let first = if lead { number } else { page.from };
        let begin = |offset| Lines::new(&self.file, counter, Position::at(offset), self.end).map_err(&io);
        let (mut lines, mut offset) = (begin(offset)?, offset);
        let (mut given, mut bytes, mut scanned) = (0, 0, 0);
        while number < self.lines {
            // A line that is too long is not read at all where the next one's beginning is known.
            let after = marks
                .get(&(number + 1))
                .copied()
                .filter(|next| next - offset > MAX_LINE_BYTES + 1);
            let line = match after {
                Some(next) => {
                    let line = Line {
                        offset,
                        len: next - offset - 1,
                        bytes: None,
                    };
                    lines = begin(next)?;
                    line
                }
                None => {
                    let line = lines.next().map_err(&io)?.ok_or(HistoryError::Changed)?;
                    scanned += line.len + 1;
                    line
                }
            };
            let len = line.bytes.map_or(0, |b| b.len() as u64);
            offset = line.offset + line.len + 1;
            if number >= first {
                if given > 0 && bytes + len > MAX_PAGE_BYTES {
                    return Ok(Some(number));
                }
                if take(number, line) == Taken::Given {
                    given += 1;
                    bytes += len;
                }
            }
            number += 1;
            let full = given >= limit || scanned > MAX_SCANNED;
            if full && number > page.from {
                break;
            }
        }
        Ok((number < self.lines).then_some(number))
    }

    /// What is known of the file.
    pub(crate) fn summary(&self, store: &Store) -> Result<Summary, HistoryError> {
        let sql = "SELECT state FROM files WHERE id = ?1";
        let state: String = store.read(|c| c.prepare_cached(sql)?.query_row([self.id], |r| r.get(0)))?;
        Ok(serde_json::from_str(&state).unwrap_or_default())
    }

    /// The line at a known offset.
    pub(crate) fn line_at(&self, counter: &AtomicU64, offset: u64) -> Result<Option<Vec<u8>>, HistoryError> {
        let io = HistoryError::io("reading a session file");
        let mut lines = Lines::new(&self.file, counter, Position::at(offset), self.end).map_err(&io)?;
        let line = lines.next().map_err(&io)?;
        Ok(line.and_then(|line| line.bytes.map(<[u8]>::to_vec)))
    }

    /// The offsets that are known of lines from the last at or before `from` (with `lead`: the one before that) up
    /// to `to`.
    fn marks(&self, store: &Store, from: u64, to: u64, lead: bool) -> rusqlite::Result<BTreeMap<u64, u64>> {
        let sql = "SELECT line, offset FROM marks WHERE file = ?1 AND line <= ?3 AND line >= coalesce(
            (SELECT line FROM marks WHERE file = ?1 AND line <= ?2 ORDER BY line DESC LIMIT 1 OFFSET ?4), 0)
            ORDER BY line LIMIT 10000";
        store.read(|c| {
            let mut select = c.prepare_cached(sql)?;
            let values = params![self.id, from.cast_signed(), to.cast_signed(), lead];
            let rows = select.query_map(values, |r| Ok((r.get::<_, u64>(0)?, r.get::<_, u64>(1)?)))?;
            let mut marks: BTreeMap<u64, u64> = rows.collect::<rusqlite::Result<_>>()?;
            // The file's beginning is known as well; needed where no mark is far enough back.
            if marks.first_key_value().is_none_or(|(line, _)| *line > from)
                || (lead && marks.range(..=from).count() < 2)
            {
                marks.insert(0, 0);
            }
            Ok(marks)
        })
    }
}

/// Was a line part of the page?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It counts.
    Given,
    /// It was left out.
    LeftOut,
}

/// A line to hand on: itself, or what stands in for it.
pub(crate) fn raw(line: &Line<'_>) -> Box<RawValue> {
    let reason = match line.bytes {
        Some(bytes) => match json::object(bytes) {
            Some(object) => return object,
            None if json::is_shallow(bytes) => "it is no JSON object",
            None => "it is nested too deeply",
        },
        None => "it is too long",
    };
    let stand_in = serde_json::json!({"type": "unreadable_line", "reason": reason, "bytes": line.len});
    to_raw_value(&stand_in).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
