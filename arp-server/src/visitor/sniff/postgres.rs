//! PostgreSQL: a length and a code without a type byte (frontend/backend protocol, "Start-up").

use super::Match;

/// Longest start-up packet that a server takes, in bytes.
pub(crate) const MAX_STARTUP: u32 = 10_000;
/// Asks for TLS.
pub(crate) const SSL_REQUEST: u32 = 80_877_103;
/// Asks for GSSAPI encryption.
pub(crate) const GSSENC_REQUEST: u32 = 80_877_104;
/// Asks to cancel what another connection does.
pub(crate) const CANCEL_REQUEST: u32 = 80_877_102;

pub(super) fn look(first: &[u8]) -> Match {
    let Some((length, rest)) = first.split_first_chunk::<4>() else {
        return if first.iter().take(2).all(|b| *b == 0) {
            Match::Maybe
        } else {
            Match::No
        };
    };
    if !(8..=MAX_STARTUP).contains(&u32::from_be_bytes(*length)) {
        return Match::No;
    }
    let Some(code) = rest.first_chunk::<4>() else {
        return Match::Maybe;
    };
    match u32::from_be_bytes(*code) {
        SSL_REQUEST | GSSENC_REQUEST | CANCEL_REQUEST => Match::Yes,
        // The versions there ever were: 1 to 3. Those that are too old are told so.
        version if (1..=3).contains(&(version >> 16)) => Match::Yes,
        _ => Match::No,
    }
}
