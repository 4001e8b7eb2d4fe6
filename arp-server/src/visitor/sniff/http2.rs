//! HTTP/2 without an upgrade: its connection preface (RFC 9113 §3.4).

use super::{Match, begins};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) fn look(first: &[u8]) -> Match {
    begins(first, PREFACE)
}
