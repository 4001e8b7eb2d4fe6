//! Header fields between agent and upstream: all pass but those of one hop and the credentials.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Fields that belong to one connection (RFC 9110 §7.6.1), and those that we write ourselves.
const HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Says that a request has come through a gateway already, so that a loop ends at its first turn.
pub const HOP_MARK: HeaderName = HeaderName::from_static("x-arp-gateway");

/// Takes out what belongs to one connection.
pub(crate) fn drop_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
}

/// What goes to the upstream, before its credentials.
#[must_use]
pub(crate) fn to_upstream(mut headers: HeaderMap) -> HeaderMap {
    drop_hop(&mut headers);
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    // What is said to us only.
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-arp-") || name.as_str().starts_with("x-clp-"))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
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
