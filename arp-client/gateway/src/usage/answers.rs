//! What upstreams answer, copied as it passes by, to be kept beside the request where recording is on. Nobody waits for
//! it, and what is too much is not copied.

use super::bodies::Waiting;
use crate::redact::pieces;
use crate::redact::recorded::Masker;

/// Longest answer that is copied. Of a longer stream its begin is kept; of one that is no stream, nothing.
const MAX_COPIED: usize = 4 << 20;

/// A copy of an answer that is on its way to the agent.
#[derive(Debug)]
pub struct Heard {
    bytes: Vec<u8>,
    /// Are these events, or a text that came whole?
    is_stream: bool,
    /// Is there more than was copied?
    is_cut: bool,
    waiting: Waiting,
}

impl Heard {
    pub(super) const fn new(waiting: Waiting) -> Self {
        Self {
            bytes: Vec::new(),
            is_stream: false,
            is_cut: false,
            waiting,
        }
    }

    /// One event of a stream, as the upstream said it.
    pub fn event(&mut self, event: &[u8]) {
        self.is_stream = true;
        if self.is_cut {
            return;
        }
        if self.bytes.len() + event.len() > MAX_COPIED || !self.waiting.grow(event.len()) {
            self.is_cut = true;
            return;
        }
        self.bytes.extend_from_slice(event);
    }

    /// The rest of the stream is not looked at.
    pub const fn cut(&mut self) {
        self.is_stream = true;
        self.is_cut = true;
    }

    /// An answer that is no stream. A part of a text could hold a part of a secret: it is copied whole, or not at all.
    pub fn whole(&mut self, text: &[u8]) {
        if !self.is_stream && text.len() <= MAX_COPIED && self.waiting.grow(text.len()) {
            text.clone_into(&mut self.bytes);
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// As it may be kept, and whether there was more of it.
    pub(super) fn masked(&self, masker: &Masker) -> (String, bool) {
        if self.is_stream {
            let joined = pieces::joined(&self.bytes, self.is_cut);
            (masker.masked(&joined), self.is_cut)
        } else {
            (masker.masked(&self.bytes), self.is_cut)
        }
    }
}
