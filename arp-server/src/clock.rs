//! A clock that costs next to nothing to look at, for what is asked several times a request.

use std::time::Duration;

/// A moment, to within some milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coarse(u64);

impl Coarse {
    /// This one.
    pub(crate) fn now() -> Self {
        Self(millis())
    }

    /// As a number, for an atomic.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// Of [`Coarse::to_bits`].
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// How long ago it was.
    pub(crate) fn elapsed(self) -> Duration {
        Duration::from_millis(millis().saturating_sub(self.0))
    }
}

/// Milliseconds since some moment in the past.
#[cfg(target_os = "linux")]
fn millis() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::MonotonicCoarse);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Milliseconds since some moment in the past.
#[cfg(not(target_os = "linux"))]
fn millis() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}
