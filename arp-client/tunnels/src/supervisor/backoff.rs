//! Pauses between tries: exponential, with jitter, never below the shortest.

use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct Backoff {
    base: Duration,
    max: Duration,
    bound: Duration,
}

impl Backoff {
    pub(super) fn new(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max,
            bound: base,
        }
    }

    /// Somewhere between the shortest pause and a bound that doubles each time.
    pub(super) fn next(&mut self) -> Duration {
        self.bound = (self.bound * 2).min(self.max).max(self.base);
        self.base + (self.bound - self.base).mul_f64(rand::random::<f64>())
    }

    pub(super) fn reset(&mut self) {
        self.bound = self.base;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_within_their_bounds_and_begin_anew() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, 10 * second);
        for bound in [2, 4, 8, 10, 10] {
            let pause = backoff.next();
            assert!(pause >= second && pause <= bound * second, "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= 2 * second);
        assert_eq!(Backoff::new(second, second).next(), second);
    }
}
