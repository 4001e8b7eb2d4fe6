//! Events that were damaged on disk are made again from the raw log, which they came from, and get the numbers that they
//! had.

use super::projection::{Projection, Settings};
use crate::log::{Kind, LogError, LogReader, Record};
use crate::model::Meta;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;

/// A damaged place of an event log: numbers of the events before and behind it, and of the raw records they came from.
#[derive(Debug)]
struct Hole {
    seqs: (u64, u64),
    lines: (u64, u64),
    missing: Vec<Record>,
}

/// The records that an event log lacks because of damage, as far as they can be made again; `None`: nothing is damaged.
/// Reads the event log, and the raw one where there is damage.
pub(super) fn missing(
    events: &Path,
    raw: &Path,
    meta: &Meta,
    settings: &Settings,
) -> Result<Option<Vec<Record>>, LogError> {
    let mut holes = holes(events)?;
    let Some(last) = holes.iter().map(|hole| hole.lines.1).max() else {
        return Ok(None);
    };
    let known = beside(events, &holes)?;
    // From the beginning: what an event says may depend on all lines before.
    let mut state = Projection::new(meta.clone(), VecDeque::new(), settings.clone(), 0);
    state.replay();
    let mut log = LogReader::open(raw)?;
    while let Some(record) = log.next_record()?.filter(|record| record.seq <= last) {
        let step = state.record(&record);
        let known = known.get(&record.seq);
        let told = step.events.len();
        for (number, json) in step.events.into_iter().enumerate() {
            if known.is_some_and(|known| known.contains(json.as_bytes())) {
                continue;
            }
            if let Some(hole) = holes.iter_mut().find(|hole| hole.lacks(record.seq)) {
                hole.missing.push(Record {
                    kind: Kind::Event,
                    ends_batch: number + 1 == told,
                    seq: 0,
                    line: record.seq,
                    time_ms: record.time_ms,
                    payload: json.into_bytes(),
                });
            }
        }
    }
    Ok(Some(holes.into_iter().flat_map(Hole::numbered).collect()))
}

impl Hole {
    fn room(&self) -> u64 {
        (self.seqs.1 - self.seqs.0).saturating_sub(1)
    }

    /// May events of this raw record be missing here?
    fn lacks(&self, line: u64) -> bool {
        let (before, behind) = self.lines;
        (before..=behind).contains(&line) && (self.missing.len() as u64) < self.room()
    }

    /// Gives what is missing the numbers that it had. Where the logs were folded there are more numbers than events: the
    /// last ones are taken, as a whole text comes after its fragments.
    fn numbered(self) -> Vec<Record> {
        let first = self.seqs.1 - self.missing.len() as u64;
        let mut missing = self.missing;
        for (record, seq) in missing.iter_mut().zip(first..) {
            record.seq = seq;
        }
        missing
    }
}

/// Finds damage.
fn holes(events: &Path) -> Result<Vec<Hole>, LogError> {
    let mut log = LogReader::open(events)?;
    let mut holes = Vec::new();
    let (mut before, mut damaged) = ((0, 0), 0);
    while let Some(record) = log.next_record()? {
        if log.damaged() > damaged {
            damaged = log.damaged();
            holes.push(Hole {
                seqs: (before.0, record.seq),
                lines: (before.1, record.line),
                missing: Vec::new(),
            });
        }
        before = (record.seq, record.line);
    }
    Ok(holes)
}

/// The events that are there of raw records of which others may be missing.
fn beside(events: &Path, holes: &[Hole]) -> Result<BTreeMap<u64, HashSet<Vec<u8>>>, LogError> {
    let edges = holes.iter().flat_map(|hole| [hole.lines.0, hole.lines.1]);
    let mut known: BTreeMap<u64, HashSet<Vec<u8>>> = edges.map(|line| (line, HashSet::new())).collect();
    let mut log = LogReader::open(events)?;
    while let Some(record) = log.next_record()? {
        if let Some(known) = known.get_mut(&record.line) {
            known.insert(record.payload);
        }
    }
    Ok(known)
}
