//! Ports for servers that are ended and started again at the same place.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;

/// Below those that systems give to outgoing connections, which take a port for good that was free a moment ago.
const RANGE: std::ops::Range<u16> = 18_000..32_000;

/// A port that nobody listens on, and that stays free but for others who ask here. They choose at random.
///
/// # Panics
/// When there is none, which no machine of tests brings about.
#[must_use]
pub fn free() -> u16 {
    for _ in 0..1_000 {
        let random = RandomState::new().hash_one(std::process::id());
        let port = RANGE.start + (random % u64::from(RANGE.end - RANGE.start)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {} to {}", RANGE.start, RANGE.end);
}
