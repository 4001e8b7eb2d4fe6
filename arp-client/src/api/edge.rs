//! A request that names the edge it is meant for is answered by that edge only.
//!
//! Tokens and addresses may come to lead elsewhere: a token is given to another machine, a cookie is changed by
//! another tab. Who knows this edge says so in the header `X-ARP-Edge` (sockets: the query parameter `edge_id`),
//! and nothing is shown or started where it was not meant to be.

use super::error::ApiError;
use super::request::{Query, header};
use http::StatusCode;
use http::request::Parts;

const HEADER: &str = "x-arp-edge";
const PARAMETER: &str = "edge_id";

/// Refuses a request that is meant for another edge.
pub(super) fn check(own: &str, head: &Parts) -> Result<(), ApiError> {
    let query = Query::parse(head.uri.query());
    let named = [header(&head.headers, HEADER), query.get(PARAMETER)];
    if named.into_iter().flatten().all(|name| name == own) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::CONFLICT,
        "other_edge",
        "this request is meant for another machine than the one that answers here: its token or address leads here \
         now; look at GET /api/info, and name this machine if it is the right one",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn asked(uri: &str, name: Option<&str>) -> Result<(), &'static str> {
        let mut request = Request::builder().uri(uri);
        if let Some(name) = name {
            request = request.header(HEADER, name);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        check("one", &head).map_err(|error| error.code)
    }

    #[test]
    fn who_names_nobody_or_this_edge_passes_and_no_other() {
        assert_eq!(asked("/api/info", None), Ok(()));
        assert_eq!(asked("/api/info", Some("one")), Ok(()));
        assert_eq!(asked("/api/events/ws?edge_id=one", None), Ok(()));
        assert_eq!(asked("/api/info", Some("two")), Err("other_edge"));
        assert_eq!(asked("/api/info", Some("")), Err("other_edge"));
        assert_eq!(
            asked("/api/events/ws?since=1&edge_id=two", None),
            Err("other_edge")
        );
        // Two names that differ are no way around it.
        assert_eq!(
            asked("/api/events/ws?edge_id=two", Some("one")),
            Err("other_edge")
        );
    }
}
