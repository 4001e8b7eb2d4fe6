//! Bodies of requests and their answers, kept for a person to look at where that was switched on: without what was found to be secret,
//! bounded in size and number, and gone after their time.

use super::answers::Heard;
use super::store::{Message, Usage};
use crate::activity::now_ms;
use crate::files::upstreams::Upstream;
use crate::redact::recorded::Masker;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

/// Longest body that is looked at; what is longer is not kept.
const MAX_LOOKED_AT: usize = 8 << 20;
/// Bytes of bodies and answers that may wait for the disk, or for their end.
const MAX_WAITING: usize = 64 << 20;

/// `[recording]` of `gateway.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recording {
    /// Are bodies and answers kept?
    pub on: bool,
    /// Of the newest requests, so many.
    pub requests: u32,
    /// Of each body, and of each answer, at most so many kilobytes; the rest is cut off.
    pub max_kb: u32,
    /// Hours after which a body is deleted.
    pub hours: u32,
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            on: false,
            requests: 200,
            // A long session's request; with the number above, two tenths of a gigabyte at most.
            max_kb: 512,
            hours: 24,
        }
    }
}

impl Recording {
    /// What is wrong with it, in words.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let fault = |name: &str, value: u32, max: u32| {
            (!(1..=max).contains(&value)).then(|| format!("recording: {name} is from 1 to {max}"))
        };
        fault("requests", self.requests, 2_000)
            .or_else(|| fault("max_kb", self.max_kb, 4_096))
            .or_else(|| fault("hours", self.hours, 720))
    }
}

/// A body and its answer on their way to the disk.
#[derive(Debug)]
pub struct ToKeep {
    /// Empty where it is not kept.
    body: Bytes,
    answer: Option<Heard>,
    /// Who gave the answer: it may have repeated its own key.
    upstream: Option<Arc<Upstream>>,
    masker: Masker,
    recording: Recording,
    waiting: Waiting,
}

/// What waits for the disk, all together.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending(Arc<AtomicUsize>);

/// A part of it, until it is dropped.
#[derive(Debug)]
pub(super) struct Waiting(Pending, usize);

impl Waiting {
    /// Takes so many bytes more. `false` (and no more is taken) where too many wait already.
    pub(super) fn grow(&mut self, more: usize) -> bool {
        let pending = &self.0.0;
        if pending.fetch_add(more, Ordering::Relaxed) + more > MAX_WAITING {
            pending.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.1 += more;
        true
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// A body as it was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The request's number.
    pub id: i64,
    /// When the request came, in Unix milliseconds.
    pub at: i64,
    /// When it will be deleted, in Unix milliseconds.
    pub until: i64,
    /// Whose API.
    pub service: String,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The body, with marks where something was found; empty where it was too long or compressed.
    pub body: String,
    /// Is it only the begin?
    pub cut: bool,
    /// The answer, likewise, where there was one: events as a JSON array, in which texts that came in pieces stand
    /// whole.
    pub answer: Option<String>,
    /// Is it only the begin?
    pub answer_cut: bool,
}

impl Usage {
    /// A copy of an answer, to be filled as it passes by.
    #[must_use]
    pub fn hears(&self) -> Heard {
        Heard::new(Waiting(self.pending.clone(), 0))
    }

    /// What is to be kept with a request's record: its body, unless it is too long or too many wait already, and the
    /// answer that this upstream gave. `None` where nothing is left.
    #[must_use]
    pub fn to_keep(
        &self,
        body: Option<Bytes>,
        answer: Option<(Heard, Option<Arc<Upstream>>)>,
        masker: Masker,
        recording: Recording,
    ) -> Option<ToKeep> {
        let mut waiting = Waiting(self.pending.clone(), 0);
        let body = body
            .filter(|body| body.len() <= MAX_LOOKED_AT && waiting.grow(body.len()))
            .unwrap_or_default();
        let (answer, upstream) = answer.filter(|(heard, _)| !heard.is_empty()).unzip();
        (!body.is_empty() || answer.is_some()).then_some(ToKeep {
            body,
            answer,
            upstream: upstream.flatten(),
            masker,
            recording,
            waiting,
        })
    }

    /// The body of a request and its answer, if they are kept.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn body(&self, id: i64) -> rusqlite::Result<Option<Kept>> {
        let db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = format!("{SELECT} AND b.request = ?2");
        db.query_row(&sql, params![now_ms(), id], kept).optional()
    }

    /// The newest requests whose bodies are kept, the newest first.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn bodies(&self, limit: u32) -> rusqlite::Result<Vec<Kept>> {
        let db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = format!("{SELECT} AND b.body <> '' ORDER BY b.request DESC LIMIT ?2");
        let mut statement = db.prepare_cached(&sql)?;
        let rows = statement.query_map(params![now_ms(), limit], kept)?;
        rows.collect()
    }

    /// Of how many requests something is kept, and how many bytes that is.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn kept(&self) -> rusqlite::Result<(u64, u64)> {
        let db = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = "SELECT count(*), coalesce(sum(octet_length(body) + coalesce(octet_length(answer), 0)), 0) FROM bodies WHERE until > ?1";
        let (count, bytes): (i64, i64) =
            db.query_row(sql, [now_ms()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok((
            u64::try_from(count).unwrap_or(0),
            u64::try_from(bytes).unwrap_or(0),
        ))
    }

    /// Deletes all bodies and answers. Blocks the thread.
    ///
    /// # Errors
    /// As SQLite says.
    pub fn forget_bodies(&self) -> rusqlite::Result<()> {
        self.ask(Message::ForgetBodies)
    }
}

const SELECT: &str = "SELECT b.request, r.at, b.until, r.service, r.model, b.body, b.cut, b.answer, b.answer_cut \
                      FROM bodies b JOIN requests r ON r.id = b.request WHERE b.until > ?1";

fn kept(row: &rusqlite::Row<'_>) -> rusqlite::Result<Kept> {
    Ok(Kept {
        id: row.get(0)?,
        at: row.get(1)?,
        until: row.get(2)?,
        service: row.get(3)?,
        model: row.get(4)?,
        body: row.get(5)?,
        cut: row.get(6)?,
        answer: row.get(7)?,
        answer_cut: row.get(8)?,
    })
}

/// Keeps what there is of request `id`, and of no more requests than are wanted.
pub(super) fn keep(db: &Connection, id: i64, kept: ToKeep) -> rusqlite::Result<()> {
    let ToKeep {
        body,
        answer,
        upstream,
        masker,
        recording,
        waiting,
    } = kept;
    let max = recording.max_kb as usize * 1024;
    let (body, cut) = if body.is_empty() {
        (String::new(), false)
    } else {
        up_to(max, masker.masked(&body))
    };
    let answer = answer.map(|heard| {
        let (text, was_cut) = heard.masked(&masker);
        let text = match upstream {
            Some(upstream) => upstream.without_keys(&text),
            None => text,
        };
        let (text, cut) = up_to(max, text);
        (text, cut || was_cut)
    });
    drop(waiting);
    let (answer, answer_cut) = answer.unzip();
    let until = now_ms().saturating_add(i64::from(recording.hours) * 3_600_000);
    db.prepare_cached(
        "INSERT OR REPLACE INTO bodies (request, until, body, cut, answer, answer_cut) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![id, until, body, cut, answer, answer_cut.unwrap_or(false)])?;
    let more =
        "DELETE FROM bodies WHERE request NOT IN (SELECT request FROM bodies ORDER BY request DESC LIMIT ?1)";
    db.prepare_cached(more)?.execute([recording.requests])?;
    Ok(())
}

/// No more of a text than this; was there more?
fn up_to(max: usize, mut text: String) -> (String, bool) {
    let cut = text.len() > max;
    if cut {
        let end = (0..=max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    (text, cut)
}

/// Deletes what has had its time, and what belongs to no request any more.
pub(super) fn sweep(db: &Connection) {
    let old = "DELETE FROM bodies WHERE until <= ?1 OR request NOT IN (SELECT id FROM requests)";
    match db.execute(old, [now_ms()]) {
        Ok(0) => {}
        Ok(_) => empty_log(db),
        Err(e) => tracing::warn!("recorded bodies were not deleted in time: {e}"),
    }
}

/// What was deleted is to be gone from the write-ahead log, too.
pub(super) fn empty_log(db: &Connection) {
    let _ = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::upstreams::Upstreams;
    use crate::usage::store::tests::record;

    #[test]
    fn bodies_are_few_short_masked_and_gone_after_their_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.db");
        let (usage, thread) = Usage::open(&path).unwrap();
        let masker = Masker::new(&Default::default(), &Default::default());
        let recording = Recording {
            on: true,
            requests: 2,
            max_kb: 1,
            hours: 1,
        };
        let keep = |n: i64, body: String, recording: Recording| {
            let kept = usage.to_keep(Some(body.into()), None, masker.clone(), recording);
            usage.note(record(n), kept);
        };
        for n in 1..=3 {
            keep(
                n,
                format!(
                    r#"{{"n":{n},"t":"to me{n}@corp.example é{}"}}"#,
                    "x".repeat(2_000)
                ),
                recording,
            );
        }
        usage.flush();
        let all = usage.bodies(9).unwrap();
        assert_eq!(all.iter().map(|b| b.id).collect::<Vec<_>>(), [3, 2]);
        assert!(
            all[0].cut && all[0].body.len() <= 1024 && all[0].body.contains("‹hidden:mails›"),
            "{}",
            all[0].body
        );
        assert_eq!(usage.body(3).unwrap().as_ref(), all.first());
        assert!(usage.body(1).unwrap().is_none());
        assert_eq!(usage.kept().unwrap().0, 2);
        assert_eq!(usage.newest(1).unwrap()[0]["recorded"], true);
        // One whose time is over.
        keep(
            4,
            "{}".into(),
            Recording {
                hours: 0,
                ..recording
            },
        );
        usage.flush();
        assert!(usage.body(4).unwrap().is_none() && usage.newest(1).unwrap()[0]["recorded"] == false);
        usage.forget_bodies().unwrap();
        assert!(usage.bodies(9).unwrap().is_empty());
        for name in ["gateway.db", "gateway.db-wal"] {
            let bytes = std::fs::read(dir.path().join(name)).unwrap_or_default();
            assert!(
                memchr::memmem::find(&bytes, b"hidden:mails").is_none(),
                "{name}: what was deleted is gone"
            );
        }
        assert!(
            usage
                .to_keep(
                    Some(vec![b'x'; MAX_LOOKED_AT + 1].into()),
                    Some((usage.hears(), None)),
                    masker.clone(),
                    recording
                )
                .is_none()
        );
        #[cfg(unix)]
        for name in ["gateway.db", "gateway.db-wal", "gateway.db-shm"] {
            use std::os::unix::fs::PermissionsExt;
            let mode = dir.path().join(name).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        drop(usage);
        thread.join().unwrap();
    }

    #[test]
    fn answers_are_kept_without_keys_and_bounded_and_what_is_too_much_is_not_copied() {
        let dir = tempfile::tempdir().unwrap();
        let (usage, thread) = Usage::open(&dir.path().join("gateway.db")).unwrap();
        let masker = Masker::new(&Default::default(), &Default::default());
        let recording = Recording {
            on: true,
            max_kb: 1,
            ..Recording::default()
        };
        let upstream = Upstreams::parse(
            std::path::Path::new("claude.json"),
            r#"{"a":{"base_url":"http://127.0.0.1:1","auth_token":"tok-of-mine"}}"#,
        )
        .unwrap();
        let upstream = upstream.list[0].clone();
        let delta = |text: &str| {
            format!(
                "data: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
            )
        };
        let keep = |n: i64, heard: Heard, body: Option<Bytes>| {
            let kept = usage.to_keep(
                body,
                Some((heard, Some(upstream.clone()))),
                masker.clone(),
                recording,
            );
            usage.note(record(n), kept);
            usage.flush();
            usage.body(n).unwrap()
        };
        let mut heard = usage.hears();
        for piece in ["to some", "one@corp.exa", "mple with tok-", "of-mine"] {
            heard.event(delta(piece).as_bytes());
        }
        // After events it is a stream; what comes whole is not its part.
        heard.whole(b"{}");
        let kept = keep(1, heard, None).unwrap();
        let answer = kept.answer.unwrap();
        assert!(answer.contains("to ‹hidden:mails› with …"), "{answer}");
        assert!(kept.body.is_empty() && !kept.answer_cut);
        assert!(usage.bodies(9).unwrap().is_empty(), "nothing for a dry run");

        let mut heard = usage.hears();
        heard.whole(format!("[\"{}\"]", "é".repeat(1_000)).as_bytes());
        let kept = keep(2, heard, Some("{}".into())).unwrap();
        assert!(kept.answer_cut && kept.answer.unwrap().len() <= 1024 && !kept.cut);
        // Too long: of a stream the begin, of anything else nothing.
        let mut heard = usage.hears();
        let long = "word ".repeat(600_000);
        heard.event(delta("first").as_bytes());
        heard.event(delta(&long).as_bytes());
        heard.event(delta(&long).as_bytes());
        heard.event(delta("last").as_bytes());
        let kept = keep(3, heard, None).unwrap();
        assert!(kept.answer_cut && !kept.answer.unwrap().contains("last"));
        let mut heard = usage.hears();
        heard.whole(&vec![b'x'; 5 << 20]);
        assert!(keep(4, heard, None).is_none());
        assert_eq!(
            usage.pending.0.load(Ordering::Relaxed),
            0,
            "what was kept waits no more"
        );
        let mut all: Vec<Heard> = (0..40).map(|_| usage.hears()).collect();
        for heard in &mut all {
            heard.event(&vec![b'x'; 3 << 20]);
        }
        assert!(usage.pending.0.load(Ordering::Relaxed) <= MAX_WAITING);
        assert!(all.last().is_some_and(Heard::is_empty));
        drop(all);
        assert_eq!(usage.pending.0.load(Ordering::Relaxed), 0);
        usage.forget_bodies().unwrap();
        assert!((1..5).all(|n| usage.body(n).unwrap().is_none()));
        drop(usage);
        thread.join().unwrap();
    }

    #[test]
    fn bounds_are_told() {
        assert_eq!(Recording::default().fault(), None);
        let none = Recording {
            hours: 0,
            ..Recording::default()
        };
        assert!(none.fault().is_some_and(|fault| fault.contains("hours")));
    }
}
