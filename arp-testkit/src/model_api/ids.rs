//! Ids that no two answers of a test run share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

static NEXT: AtomicU64 = AtomicU64::new(1);

/// `prefix`, the time and a number.
pub(super) fn fresh(prefix: &str) -> String {
    format!("{prefix}{}{:06}", now(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
