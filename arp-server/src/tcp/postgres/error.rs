//! Refusals as ErrorResponse messages, which every client shows.

use super::startup::BadStartup;
use crate::answer::Refusal;
use bytes::{BufMut, BytesMut};

/// What a refusal is told as.
pub(super) fn of(refusal: &Refusal) -> BytesMut {
    let code = match refusal.code {
        // connection_exception and its kin; too_many_connections; cannot_connect_now; invalid_authorization.
        "local_service_unreachable" | "tunnel_failed" => "08006",
        "busy" | "too_many_unknown_tokens" => "53300",
        "offline" | "tunnel_timeout" => "57P03",
        _ => "28000",
    };
    message(code, &refusal.message)
}

/// The packet names no client.
pub(super) fn no_token() -> BytesMut {
    let text = "this address needs a token: psql -h HOST -p PORT -d DATABASE \"?token=NAME\", or user=USER?token=NAME, \
        dbname=DATABASE?token=NAME, options=?token=NAME";
    message("28000", text)
}

/// The packet is none.
pub(super) fn of_bad(bad: BadStartup) -> BytesMut {
    match bad {
        BadStartup::TooOld => {
            let mut out = BytesMut::from(&b"E"[..]);
            // As version 2 has it: a text alone.
            out.put_slice(b"FATAL:  only version 3 of the protocol is spoken here\n\0");
            out
        }
        BadStartup::Malformed => message("08P01", "malformed start-up packet"),
        BadStartup::TwoNames => message(
            "28000",
            "the start-up packet names two different clients; name one, in one place",
        ),
    }
}

fn message(code: &str, text: &str) -> BytesMut {
    let mut out = BytesMut::from(&b"E\0\0\0\0"[..]);
    for (field, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', text)] {
        out.put_u8(field);
        out.put_slice(value.as_bytes());
        out.put_u8(0);
    }
    out.put_u8(0);
    let length = (out.len() - 1) as u32;
    out[1..5].copy_from_slice(&length.to_be_bytes());
    out
}
