//! TLS: a record of a handshake (RFC 8446 §5.1). Every version since SSL 3.0 says 3 there.

use super::{Match, begins};

pub(super) fn look(first: &[u8]) -> Match {
    begins(first, &[22, 3])
}
