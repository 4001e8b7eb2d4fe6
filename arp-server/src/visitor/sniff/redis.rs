//! Redis: a command as an array of strings (RESP, `*2\r\n$4\r\nAUTH…`).

use super::Match;

/// Digits of the number of arguments; a first command has few.
const DIGITS: usize = 7;

pub(super) fn look(first: &[u8]) -> Match {
    let Some(rest) = first.strip_prefix(b"*") else {
        return Match::No;
    };
    match rest.iter().position(|b| !b.is_ascii_digit()) {
        None if rest.len() > DIGITS => Match::No,
        None => Match::Maybe,
        Some(n @ 1..=DIGITS) => match rest[n..] {
            [b'\r'] => Match::Maybe,
            [b'\r', b'\n', ..] => Match::Yes,
            _ => Match::No,
        },
        Some(_) => Match::No,
    }
}
