//! Reading what is new of the session files, and keeping the index in step with them.

use crate::defaults::{BATCH, MARK_EVERY};
use crate::format::Format;
use crate::homes::{self, Found, Stamp};
use crate::lines::Lines;
use crate::rows::{self, Known, State, Update};
use crate::store::Store;
use crate::{HistoryError, ScanReport};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;

/// Bytes remembered of the beginning and the end of what was read: a file that was written anew differs there.
const FINGERPRINT: u64 = 64;

/// Threads that read files in a scan that has many to read.
const MAX_READERS: usize = 4;

/// How often a file is looked at again because another process was faster. It has read the file then, so that
/// giving up shows at worst what was there a moment ago.
const MAX_ROUNDS: usize = 8;

/// An agent's home, and what reading it needs.
#[derive(Clone, Copy)]
pub(crate) struct Scanner<'a> {
    pub(crate) store: &'a Store,
    pub(crate) format: &'a dyn Format,
    pub(crate) home: &'a Path,
    /// Bytes read are added here.
    pub(crate) counter: &'a AtomicU64,
}

impl Scanner<'_> {
    /// Brings the index in step with all files of the agent.
    pub(crate) fn scan(self) -> Result<ScanReport, HistoryError> {
        let before = self.counter.load(Ordering::Relaxed);
        let found = homes::find(self.format, self.home);
        let files = found.len() as u64;
        let mut known = rows::load_all(self.store, self.format.agent(), self.home)?;
        let mut changed = Vec::new();
        for file in found {
            match known.remove(&file.rel) {
                Some(known) if known.stamp == file.stamp => {}
                known => changed.push((file, known)),
            }
        }
        let read = changed.len() as u64;
        self.read_changed(changed)?;
        // After the new ones: a session whose file was moved (archived) is there all the time.
        let gone: Vec<Known> = known.into_values().collect();
        if !gone.is_empty() {
            self.store
                .write(|t| rows::forget(t, self.format, self.home, &gone))?;
        }
        let bytes = self.counter.load(Ordering::Relaxed) - before;
        Ok(ScanReport {
            files,
            read,
            gone: gone.len() as u64,
            bytes,
        })
    }

    /// Brings the index in step with one file that it knows. Returns whether it is still there.
    pub(crate) fn refresh(self, rel: &str) -> Result<bool, HistoryError> {
        let Some((known, dir, archived)) = rows::load_one(self.store, self.format.agent(), rel)? else {
            return Ok(false);
        };
        let Ok((_, stamp)) = homes::open(&self.home.join(rel)) else {
            self.store
                .write(|t| rows::forget(t, self.format, self.home, &[known]))?;
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
            self.read_changed(vec![(found, Some(known))])?;
        }
        Ok(true)
    }

    /// Reads what changed and writes what that gives. Where another process wrote to the index meanwhile, what it
    /// wrote is taken up and the file looked at again.
    fn read_changed(self, mut changed: Vec<(Found, Option<Known>)>) -> Result<(), HistoryError> {
        for _ in 0..MAX_ROUNDS {
            let overtaken = self.read_once(&changed)?;
            changed.clear();
            for found in overtaken {
                let known =
                    rows::load_one(self.store, self.format.agent(), &found.rel)?.map(|(known, ..)| known);
                changed.push((found, known));
            }
            if changed.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Reads, with a few threads where there is much, and writes in batches. Returns the files of which the index
    /// knows something else by now.
    fn read_once(self, changed: &[(Found, Option<Known>)]) -> Result<Vec<Found>, HistoryError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.min(MAX_READERS).min(changed.len() / 16 + 1);
        let next = AtomicUsize::new(0);
        let (send, receive) = mpsc::sync_channel(BATCH);
        std::thread::scope(|scope| {
            // Owned here: leaving early with an error must end the threads that wait to send.
            let receive = receive;
            for _ in 0..threads {
                let (send, next) = (send.clone(), &next);
                scope.spawn(move || {
                    while let Some((found, known)) = changed.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if send.send(self.update(found, known.as_ref())).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(send);
            let (mut batch, mut overtaken) = (Vec::new(), Vec::new());
            for update in receive.iter() {
                match update {
                    Ok(update) => batch.push(update),
                    // Gone again, or not ours to read: the next scan will see.
                    Err(HistoryError::Io { what, source }) => {
                        tracing::debug!(agent = %self.format.agent(), what, %source, "a session file is left out");
                    }
                    Err(error) => return Err(error),
                }
                if batch.len() == BATCH {
                    overtaken.extend(self.write(std::mem::take(&mut batch))?);
                }
            }
            overtaken.extend(self.write(batch)?);
            Ok(overtaken)
        })
    }

    /// Writes what reading gave; returns the files of which the index knows something else by now.
    fn write(self, batch: Vec<Update>) -> Result<Vec<Found>, HistoryError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.store.write(|t| {
            let (mut sessions, mut overtaken) = (BTreeSet::new(), Vec::new());
            for update in batch {
                if !rows::put(t, self.format.agent(), &update, &mut sessions)? {
                    overtaken.push(update.found);
                }
            }
            for session in &sessions {
                rows::regroup(t, self.format, self.home, session)?;
            }
            Ok(overtaken)
        })?)
    }

    /// Reads the new lines of a file.
    fn update(self, found: &Found, known: Option<&Known>) -> Result<Update, HistoryError> {
        let io = HistoryError::io("reading a session file");
        let (mut file, stamp) = homes::open(&self.home.join(&found.rel)).map_err(&io)?;
        let before = match known {
            Some(known) if may_have_grown(known.stamp, stamp) => rows::load_state(self.store, known.id)?,
            _ => None,
        };
        let before = match before {
            Some(state) if self.is_same(&mut file, &state, stamp.size).map_err(&io)? => Some(state),
            _ => None,
        };
        let anew = before.is_none();
        let (state, marks) = self
            .read_on(&found.dir, &mut file, stamp.size, before)
            .map_err(&io)?;
        let found = Found {
            stamp,
            ..found.clone()
        };
        Ok(Update {
            found,
            known: known.cloned(),
            state,
            marks,
            anew,
        })
    }

    /// Is what was read before still there?
    fn is_same(self, file: &mut File, state: &State, size: u64) -> io::Result<bool> {
        let read = state.position.read;
        if size < read {
            return Ok(false);
        }
        let head = self.bytes_at(file, 0, state.head.len())?;
        let tail = self.bytes_at(
            file,
            read.saturating_sub(state.tail.len() as u64),
            state.tail.len(),
        )?;
        Ok(head == state.head && tail == state.tail)
    }

    fn bytes_at(self, file: &mut File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::with_capacity(len);
        file.take(len as u64).read_to_end(&mut bytes)?;
        self.counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    /// Adds all lines from where reading ended; also returns the offsets to be remembered of the new ones.
    fn read_on(
        self,
        dir: &str,
        file: &mut File,
        size: u64,
        before: Option<State>,
    ) -> io::Result<(State, Vec<(u64, u64)>)> {
        let mut state = before.unwrap_or_default();
        let mut marks = Vec::new();
        let mut lines = Lines::new(&mut *file, self.counter, state.position, size)?;
        while let Some(line) = lines.next()? {
            if line.offset - state.last_mark >= MARK_EVERY {
                state.last_mark = line.offset;
                marks.push((state.lines, line.offset));
            }
            state.summary.add(self.format, dir, state.lines, &line);
            state.lines += 1;
        }
        state.position = lines.position();
        self.format.finish(&mut state.summary);
        let fingerprint = state.position.read.min(FINGERPRINT);
        let len = usize::try_from(fingerprint).unwrap_or_default();
        state.head = self.bytes_at(file, 0, len)?;
        state.tail = self.bytes_at(file, state.position.read - fingerprint, len)?;
        Ok((state, marks))
    }
}

/// A file that grew in place; one that has another time but the same size was rewritten.
fn may_have_grown(known: Stamp, now: Stamp) -> bool {
    (known.dev, known.ino) == (now.dev, now.ino) && now.size > known.size
}
