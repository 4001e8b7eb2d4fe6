//! HTTP/1: a method and a space (RFC 9112 §3), behind empty lines that some clients send (§2.2).

use super::Match;

/// Longest method that there may be one day, in bytes; what is longer is for the parser to refuse.
const LONGEST: usize = 24;

/// Is this the beginning of a request as nearly all are? Costs next to nothing.
pub(super) fn is_usual(first: &[u8]) -> bool {
    [
        &b"GET "[..],
        b"POST ",
        b"PUT ",
        b"HEAD ",
        b"DELETE ",
        b"PATCH ",
        b"OPTIONS ",
    ]
    .iter()
    .any(|method| first.starts_with(method))
}

pub(super) fn look(first: &[u8]) -> Match {
    if matches!(first, [b'\r'] | [b'\r', b'\n', ..]) {
        return Match::Yes;
    }
    match first.iter().position(|b| !is_token(*b)) {
        Some(0) => Match::No,
        Some(end) if first[end] == b' ' => Match::Yes,
        Some(_) => Match::No,
        None if first.len() > LONGEST => Match::Yes,
        None => Match::Maybe,
    }
}

/// May this byte be in a method (RFC 9110 §5.6.2)?
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}
