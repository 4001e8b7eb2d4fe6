//! TLS: a record of a handshake (RFC 8446 §5.1). Every version since SSL 3.0 says 3 there.

use super::{Match, begins};

/// First byte of every TLS connection.
pub(crate) const HANDSHAKE: u8 = 22;

pub(super) fn look(first: &[u8]) -> Match {
    begins(first, &[HANDSHAKE, 3])
}
