//! SSH: its identification string (RFC 4253 §4.2).

use super::{Match, begins};

pub(super) fn look(first: &[u8]) -> Match {
    begins(first, b"SSH-")
}
