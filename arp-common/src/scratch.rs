//! Where bulk is read into: memory that begins where it can be copied from quickly.
//!
//! glibc and musl copy what is large with `rep movs`. On AMD's Zen 3 and Zen 4 that is twenty times slower where the
//! destination lies 1 to 31 bytes further than the source, counted within a page of 4 KiB: 1.9 GB/s instead of 40,
//! measured on an EPYC of that kind. And that is where TLS copies to: a record begins with five bytes, and what it
//! protects stands behind them. Blocks of an allocator begin at multiples of 64 (large ones at the same place of a
//! page, always), so bytes that begin at such a place, too, hit the slow case with each record. [`Scratch`] and
//! [`begin`] make bytes begin in the middle between two multiples of 64.

use bytes::{Buf, BytesMut};
use std::ops::{Deref, DerefMut};

/// What allocators align large blocks to, at least.
const LINE: usize = 64;
/// The address of the first byte, modulo [`LINE`].
const PLACE: usize = LINE / 2;
/// Bytes that a buffer needs besides its own, so that it can [`begin`] in the right place.
pub const SPARE: usize = LINE;

/// A fixed piece of memory, zeroed at first.
#[derive(Debug)]
pub struct Scratch {
    memory: Box<[u8]>,
    start: usize,
    len: usize,
}

impl Scratch {
    /// Of `len` bytes.
    pub fn new(len: usize) -> Self {
        let memory = vec![0; len + SPARE].into_boxed_slice();
        let start = skip(memory.as_ptr());
        Self { memory, start, len }
    }
}

impl Deref for Scratch {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// Makes an empty buffer begin there, if it has the [`SPARE`] room; one that holds something stays as it is.
pub fn begin(buf: &mut BytesMut) {
    if !buf.is_empty() {
        return;
    }
    let skip = skip(buf.as_ptr());
    if skip < buf.capacity() {
        buf.resize(skip, 0);
        buf.advance(skip);
    }
}

/// How many bytes behind `at` the place is, less than [`LINE`].
fn skip(at: *const u8) -> usize {
    (at.align_offset(LINE) + PLACE) % LINE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_begins_between_two_lines_and_is_as_long_as_asked_for() {
        for len in [0, 1, 63, 64, 65, 4096, 65536] {
            let mut scratch = Scratch::new(len);
            assert_eq!(scratch.len(), len);
            assert_eq!(scratch.as_ptr().addr() % LINE, PLACE);
            scratch.fill(7);
            assert!(scratch.iter().all(|&byte| byte == 7));
        }
        for len in [SPARE, 8192, 65536 + SPARE] {
            let mut buf = BytesMut::with_capacity(len);
            begin(&mut buf);
            assert_eq!(buf.as_ptr().addr() % LINE, PLACE);
            assert!(buf.is_empty() && buf.capacity() + SPARE > len);
            begin(&mut buf);
            assert!(buf.capacity() + SPARE > len, "it begins there already");
        }
    }

    #[test]
    fn no_record_that_begins_on_a_line_is_copied_the_slow_way() {
        const HEADER: usize = 5;
        let scratch = Scratch::new(16);
        let mut buf = BytesMut::with_capacity(1024);
        begin(&mut buf);
        for source in [scratch.as_ptr(), buf.as_ptr()] {
            let ahead = (HEADER + LINE - source.addr() % LINE) % LINE;
            assert!(!(1..32).contains(&ahead), "{ahead}");
        }
    }

    #[test]
    fn what_a_buffer_holds_stays_and_one_without_room_gets_none() {
        let mut buf = BytesMut::from(&b"held"[..]);
        begin(&mut buf);
        assert_eq!(buf, &b"held"[..]);
        let mut none = BytesMut::new();
        begin(&mut none);
        assert_eq!(none.capacity(), 0);
    }
}
