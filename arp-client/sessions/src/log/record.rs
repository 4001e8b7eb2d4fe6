//! One record: its parts, and its form on disk.

use super::{HEADER, MAX_PAYLOAD};

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A line that the agent printed on standard output.
    Out = 1,
    /// A line that it printed on standard error.
    Err = 2,
    /// A line that was written to its standard input.
    In = 3,
    /// A note of `arpc` that belongs to the input after it (JSON, [`crate::host::Mark`]).
    Mark = 4,
    /// A process was started (JSON, [`crate::host::RunStart`]).
    RunStart = 5,
    /// It ended (JSON, [`crate::host::RunEnd`]).
    RunEnd = 6,
    /// An event for readers (JSON). Only in event logs.
    Event = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Out,
            2 => Self::Err,
            3 => Self::In,
            4 => Self::Mark,
            5 => Self::RunStart,
            6 => Self::RunEnd,
            7 => Self::Event,
            _ => return None,
        })
    }
}

/// Flag: the last record of those that were appended together.
pub(crate) const END_OF_BATCH: u8 = 1;

/// One record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it holds.
    pub kind: Kind,
    /// Does a group of records that belong together end here?
    pub ends_batch: bool,
    /// Its number in this log: 1, 2, 3 …
    pub seq: u64,
    /// In a raw log: how many [`Kind::Out`] records there are up to here. In an event log: the `seq` of the
    /// raw record that it came from, 0 if from none.
    pub line: u64,
    /// When it was written, in milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// Its content.
    pub payload: Vec<u8>,
}

/// A header that was read, before its payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) len: usize,
    crc: u32,
    pub(crate) kind: Kind,
    flags: u8,
    pub(crate) seq: u64,
    pub(crate) line: u64,
    pub(crate) time_ms: u64,
}

impl Header {
    /// Reads a header; `None` if it cannot be one.
    pub(crate) fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let len = usize::try_from(u32::from_le_bytes(take(bytes, 0))).ok()?;
        if len > MAX_PAYLOAD {
            return None;
        }
        if bytes[9] & !END_OF_BATCH != 0 || bytes[10..12] != [0, 0] {
            return None;
        }
        Some(Self {
            len,
            crc: u32::from_le_bytes(take(bytes, 4)),
            kind: Kind::from_byte(bytes[8])?,
            flags: bytes[9],
            seq: u64::from_le_bytes(take(bytes, 12)),
            line: u64::from_le_bytes(take(bytes, 20)),
            time_ms: u64::from_le_bytes(take(bytes, 28)),
        })
    }

    /// Bytes of the whole record on disk.
    pub(crate) fn total(&self) -> usize {
        HEADER + self.len + 1
    }

    /// Is a payload that is read in pieces, with the newline behind it, the one that was written? `piece` fills what
    /// it is given with what comes next.
    pub(crate) fn is_whole(
        &self,
        header: &[u8; HEADER],
        mut piece: impl FnMut(&mut [u8]) -> std::io::Result<()>,
    ) -> std::io::Result<bool> {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&header[0..4]);
        hasher.update(&header[8..]);
        let mut buffer = vec![0; 64 * 1024];
        let mut left = self.len;
        while left > 0 {
            let now = left.min(buffer.len());
            piece(&mut buffer[..now])?;
            hasher.update(&buffer[..now]);
            left -= now;
        }
        piece(&mut buffer[..1])?;
        Ok(hasher.finalize() == self.crc && buffer[0] == b'\n')
    }

    /// The record, if header and payload are whole. `bytes` is the record as on disk.
    pub(crate) fn record(&self, bytes: &[u8]) -> Option<Record> {
        let payload = bytes.get(HEADER..HEADER + self.len)?;
        let whole = bytes.last() == Some(&b'\n') && checksum(bytes.get(..HEADER)?, payload) == self.crc;
        whole.then(|| Record {
            kind: self.kind,
            ends_batch: self.flags & END_OF_BATCH != 0,
            seq: self.seq,
            line: self.line,
            time_ms: self.time_ms,
            payload: payload.to_vec(),
        })
    }
}

/// Appends a record's form on disk to `out`.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    kind: Kind,
    flags: u8,
    (seq, line, time_ms): (u64, u64, u64),
    payload: &[u8],
) {
    let mut header = [0_u8; HEADER];
    // The caller has checked the length against MAX_PAYLOAD, which fits.
    header[0..4].copy_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    header[8] = kind as u8;
    header[9] = flags;
    header[12..20].copy_from_slice(&seq.to_le_bytes());
    header[20..28].copy_from_slice(&line.to_le_bytes());
    header[28..36].copy_from_slice(&time_ms.to_le_bytes());
    let crc = checksum(&header, payload);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    out.reserve(HEADER + payload.len() + 1);
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    out.push(b'\n');
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header.get(0..4).unwrap_or_default());
    hasher.update(header.get(8..).unwrap_or_default());
    hasher.update(payload);
    hasher.finalize()
}

fn take<const N: usize>(bytes: &[u8; HEADER], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
