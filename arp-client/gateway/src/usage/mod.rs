//! What a request cost, in tokens: taken from every event that carries a figure, never counted twice.

pub mod answers;
pub mod bodies;
pub mod budgets;
pub mod import;
pub mod prices;
pub mod query;
pub mod record;
pub mod store;
mod writer;

use serde::Serialize;

/// Tokens of one answer. All are counts; `input` is what was neither read from nor written to a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// Read anew.
    pub input: u64,
    /// Written to the prompt cache.
    pub cache_write: u64,
    /// Read from the prompt cache.
    pub cache_read: u64,
    /// Written by the model, reasoning included.
    pub output: u64,
    /// Of `output`, what was reasoning.
    pub reasoning: u64,
}

impl Tokens {
    /// All that was read and written.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.input
            .saturating_add(self.cache_write)
            .saturating_add(self.cache_read)
            .saturating_add(self.output)
    }

    /// Adds another answer's.
    pub const fn add(&mut self, other: &Self) {
        self.input = self.input.saturating_add(other.input);
        self.cache_write = self.cache_write.saturating_add(other.cache_write);
        self.cache_read = self.cache_read.saturating_add(other.cache_read);
        self.output = self.output.saturating_add(other.output);
        self.reasoning = self.reasoning.saturating_add(other.reasoning);
    }
}
