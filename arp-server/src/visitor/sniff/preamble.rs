//! Our own line `?token=NAME`, in front of any protocol.

use super::{Match, begins};

/// How the line begins.
pub(crate) const BEGIN: &[u8] = b"?token=";

pub(super) fn look(first: &[u8]) -> Match {
    begins(first, BEGIN)
}
