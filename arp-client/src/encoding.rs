//! Which codings of an answer a visitor takes (RFC 9110 §12.5.3).

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// Does `Accept-Encoding` allow this coding? A weight of zero forbids it; `*` stands for what is not named.
pub(crate) fn accepts(headers: &HeaderMap, coding: &str) -> bool {
    let mut any = false;
    for value in headers.get_all(ACCEPT_ENCODING) {
        for part in value.to_str().unwrap_or_default().split(',') {
            let (name, weight) = part.split_once(';').unwrap_or((part, ""));
            let allowed = !matches!(
                weight.trim().strip_prefix("q=").map(str::trim),
                Some("0" | "0.0" | "0.00" | "0.000")
            );
            let name = name.trim();
            if name.eq_ignore_ascii_case(coding) {
                return allowed;
            }
            any |= name == "*" && allowed;
        }
    }
    any
}
