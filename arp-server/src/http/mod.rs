//! HTTP/1 messages as a proxy needs them: heads that are parsed strictly and kept as bytes, bodies whose
//! framing is decoded and emitted afresh. No I/O in here.
//!
//! Why not hyper on the public port: its server cannot send interim answers (103 Early Hints), drops the
//! `Content-Length` beside a `Transfer-Encoding` before we could refuse the pair, and merges repeated
//! `Content-Length`s. A relay has to see what is wrong to refuse it. Heads are parsed by `httparse`.

pub mod body;
mod fields;
mod name;
mod request;
mod response;
pub mod scan;

pub use fields::{Field, Fields};
pub use name::Name;
pub use request::RequestHead;
pub(crate) use request::valid_host;
pub use response::ResponseHead;

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// In chunks, with trailers perhaps.
    Chunked,
    /// Until the connection ends (answers only).
    UntilEof,
}

/// Why a head was refused: what to tell the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct BadHead {
    /// HTTP status of the refusal.
    pub status: u16,
    /// In words.
    pub text: &'static str,
}

const fn bad(text: &'static str) -> BadHead {
    BadHead { status: 400, text }
}

/// Digits only: no sign, no space, no list; and no number that could overflow another parser.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}
