//! Pauses between tries: exponential, with full jitter, so that a thousand edges that lost a relay at
//! once do not come back at once.

use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    bound: Duration,
}

/// No pause is shorter: a relay that closes each connection at once must not be hammered.
const SHORTEST: Duration = Duration::from_millis(50);

impl Backoff {
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        let first = first.min(max);
        Self {
            first,
            max,
            bound: first,
        }
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.bound.mul_f64(rand::random::<f64>()).max(SHORTEST);
        self.bound = (self.bound * 2).min(self.max);
        pause
    }

    pub(super) fn reset(&mut self) {
        self.bound = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
        for bound in [500, 1000, 2000, 4000, 5000, 5000] {
            assert!(backoff.next() <= Duration::from_millis(bound));
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(500));
    }
}
