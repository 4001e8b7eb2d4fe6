//! Header fields between agent and upstream: all pass but those of one hop and the credentials.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// Fields that belong to one connection (RFC 9110 §7.6.1).
fn is_hop(name: &HeaderName) -> bool {
    match *name {
        header::CONNECTION | header::TE | header::TRAILER | header::TRANSFER_ENCODING | header::UPGRADE => {
            true
        }
        _ => matches!(name.as_str(), "keep-alive" | "proxy-connection"),
    }
}

/// Fields that we write ourselves, or that are said to us only.
fn is_ours(name: &HeaderName) -> bool {
    match *name {
        header::HOST | header::CONTENT_LENGTH | header::EXPECT => true,
        _ => name.as_str().starts_with("x-arp-") || name.as_str().starts_with("x-clp-"),
    }
}

/// Says that a request has come through a gateway already, so that a loop ends at its first turn.
pub const HOP_MARK: HeaderName = HeaderName::from_static("x-arp-gateway");

/// Takes out those fields. Mostly there are few or none of them: looking at each field that there is costs less than
/// asking for each that there might be.
pub(crate) fn without(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let names: SmallVec<[HeaderName; 8]> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// The fields that `Connection` names: they belong to one connection, too.
fn named_hop(headers: &HeaderMap) -> SmallVec<[HeaderName; 2]> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        // What most of them say names no field that could be there.
        .filter(|name| !name.eq_ignore_ascii_case("keep-alive") && !name.eq_ignore_ascii_case("close"))
        .filter_map(|name| name.parse().ok())
        .collect()
}

/// Takes out what belongs to one connection.
pub(crate) fn drop_hop(headers: &mut HeaderMap) {
    let named = named_hop(headers);
    without(headers, |name| is_hop(name) || named.contains(name));
}

/// What goes to the upstream, before its credentials.
#[must_use]
pub(crate) fn to_upstream(mut headers: HeaderMap) -> HeaderMap {
    let named = named_hop(&headers);
    without(&mut headers, |name| {
        is_hop(name) || is_ours(name) || named.contains(name)
    });
    // Events are read on their way, for usage and for where a broken one ends.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers
}

/// What goes back to the agent.
#[must_use]
pub(crate) fn to_agent(mut headers: HeaderMap) -> HeaderMap {
    drop_hop(&mut headers);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_connection_ends_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-mine"),
            ("x-mine", "1"),
            ("transfer-encoding", "chunked"),
            ("anthropic-beta", "a,b"),
            ("content-length", "5"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let out = to_upstream(headers.clone());
        let names: Vec<_> = out.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["anthropic-beta", "accept-encoding"]);
        assert!(to_agent(headers).contains_key("content-length"));
    }
}
