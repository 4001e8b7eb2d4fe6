//! The table of all endpoints. [`super::openapi`] describes the same table.

use http::Method;
use percent_encoding::percent_decode_str;

/// What an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Health,
    Info,
    OpenApi,
    Login,
    Logout,
    Events,
    EventsWs,
    SessionList,
    SessionCreate,
    SessionGet,
    SessionPatch,
    SessionDelete,
    SessionEvents,
    SessionWs,
    MessageCreate,
    MessageDelete,
    Interrupt,
    Cancel,
    Fork,
    Retry,
    Stop,
    SessionFs,
    SessionGateway,
    SessionGatewayChoose,
    ApprovalList,
    ApprovalGet,
    ApprovalDecide,
    Fs,
    Directories,
    Overview,
    ProxyTunnel,
    Projects,
    WorkingDirectories,
    ProjectSessions,
    HistoryList,
    HistoryGet,
    HistoryDelete,
}

/// One endpoint.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    /// `{x}` is one segment, `{*x}` all that follow.
    pub(crate) path: &'static str,
    pub(crate) op: Op,
}

const fn route(method: &'static str, path: &'static str, op: Op) -> Route {
    Route { method, path, op }
}

/// All endpoints; the first that fits counts.
pub(crate) const ROUTES: &[Route] = &[
    route("GET", "/api/health", Op::Health),
    route("GET", "/api/info", Op::Info),
    route("GET", "/api/openapi.json", Op::OpenApi),
    route("POST", "/api/login", Op::Login),
    route("POST", "/api/stop", Op::Stop),
    route("POST", "/api/logout", Op::Logout),
    route("GET", "/api/events", Op::Events),
    route("GET", "/api/events/ws", Op::EventsWs),
    route("GET", "/api/sessions", Op::SessionList),
    route("POST", "/api/sessions", Op::SessionCreate),
    route("GET", "/api/sessions/{id}", Op::SessionGet),
    route("PATCH", "/api/sessions/{id}", Op::SessionPatch),
    route("DELETE", "/api/sessions/{id}", Op::SessionDelete),
    route("GET", "/api/sessions/{id}/events", Op::SessionEvents),
    route("GET", "/api/sessions/{id}/ws", Op::SessionWs),
    route("POST", "/api/sessions/{id}/messages", Op::MessageCreate),
    route(
        "DELETE",
        "/api/sessions/{id}/messages/{message_id}",
        Op::MessageDelete,
    ),
    route("POST", "/api/sessions/{id}/interrupt", Op::Interrupt),
    route("POST", "/api/sessions/{id}/cancel", Op::Cancel),
    route("POST", "/api/sessions/{id}/fork", Op::Fork),
    route("POST", "/api/sessions/{id}/retry", Op::Retry),
    route("GET", "/api/sessions/{id}/fs", Op::SessionFs),
    route("GET", "/api/sessions/{id}/fs/{*path}", Op::SessionFs),
    route("GET", "/api/sessions/{id}/gateway", Op::SessionGateway),
    route("PUT", "/api/sessions/{id}/gateway", Op::SessionGatewayChoose),
    route("GET", "/api/approvals", Op::ApprovalList),
    route("GET", "/api/approvals/{approval_id}", Op::ApprovalGet),
    route("POST", "/api/approvals/{approval_id}", Op::ApprovalDecide),
    route("POST", "/proxy", Op::ProxyTunnel),
    route("GET", "/api/fs", Op::Fs),
    route("GET", "/api/fs/{*path}", Op::Fs),
    route("GET", "/api/directories", Op::Directories),
    route("GET", "/api/overview", Op::Overview),
    route("GET", "/api/{agent}/projects", Op::Projects),
    route(
        "GET",
        "/api/{agent}/projects/working-directories",
        Op::WorkingDirectories,
    ),
    route(
        "GET",
        "/api/{agent}/projects/{project_id}/sessions",
        Op::ProjectSessions,
    ),
    route("GET", "/api/{agent}/sessions", Op::HistoryList),
    route("GET", "/api/{agent}/sessions/{id}", Op::HistoryGet),
    route("DELETE", "/api/{agent}/sessions/{id}", Op::HistoryDelete),
];

/// Path parameters by name, decoded.
pub(crate) type Params = Vec<(&'static str, String)>;

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// To this endpoint.
    Op(Op, Params),
    /// The path is known, but not with this method; it takes these.
    OtherMethod(String),
    /// Nowhere.
    Nothing,
}

/// Finds the endpoint of a path (without query) and method.
pub(crate) fn find(method: &Method, path: &str) -> Found {
    // `/sessions…` is an alias of `/api/sessions…`.
    let alias;
    let path = if path == "/sessions" || path.starts_with("/sessions/") {
        alias = format!("/api{path}");
        &alias
    } else {
        path
    };
    let wanted = if method == Method::HEAD {
        "GET"
    } else {
        method.as_str()
    };
    let mut others: Vec<&str> = Vec::new();
    for route in ROUTES {
        let Some(params) = matches(route.path, path) else {
            continue;
        };
        if route.method == wanted {
            return Found::Op(route.op, params);
        }
        for other in [
            route.method,
            if route.method == "GET" { "HEAD" } else { "OPTIONS" },
        ] {
            if !others.contains(&other) {
                others.push(other);
            }
        }
    }
    if others.is_empty() {
        return Found::Nothing;
    }
    if !others.contains(&"OPTIONS") {
        others.push("OPTIONS");
    }
    Found::OtherMethod(others.join(", "))
}

fn matches(pattern: &'static str, path: &str) -> Option<Params> {
    let mut params = Params::new();
    let mut rest = path.strip_prefix('/')?;
    let mut segments = pattern.strip_prefix('/')?.split('/').peekable();
    while let Some(segment) = segments.next() {
        if let Some(name) = segment.strip_prefix("{*").and_then(|name| name.strip_suffix('}')) {
            // Names of files need not be UTF-8: their handler decodes them for itself.
            params.push((name, percent_decode_str(rest).decode_utf8_lossy().into_owned()));
            return Some(params);
        }
        let (head, tail) = rest
            .split_once('/')
            .map_or((rest, None), |(head, tail)| (head, Some(tail)));
        match segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(name) if !head.is_empty() => params.push((name, decode(head)?)),
            None if segment == head => {}
            _ => return None,
        }
        match (tail, segments.peek()) {
            (Some(tail), Some(_)) => rest = tail,
            (None, None) => return Some(params),
            // A slash at the end changes nothing.
            (Some(""), None) => return Some(params),
            _ => return None,
        }
    }
    None
}

fn decode(text: &str) -> Option<String> {
    percent_decode_str(text)
        .decode_utf8()
        .ok()
        .map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(method: &str, path: &str) -> Found {
        find(&Method::from_bytes(method.as_bytes()).unwrap(), path)
    }

    #[test]
    fn paths_find_their_endpoints() {
        let params = |pairs: &[(&'static str, &str)]| -> Params {
            pairs
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect()
        };
        assert_eq!(op("GET", "/api/sessions"), Found::Op(Op::SessionList, vec![]));
        assert_eq!(op("HEAD", "/sessions/"), Found::Op(Op::SessionList, vec![]));
        assert_eq!(
            op("GET", "/sessions/a%2Fb"),
            Found::Op(Op::SessionGet, params(&[("id", "a/b")]))
        );
        assert_eq!(
            op("GET", "/api/sessions/x/fs/a/b.txt"),
            Found::Op(Op::SessionFs, params(&[("id", "x"), ("path", "a/b.txt")]))
        );
        assert_eq!(
            op("GET", "/api/claude/projects/working-directories"),
            Found::Op(Op::WorkingDirectories, params(&[("agent", "claude")]))
        );
        assert_eq!(op("GET", "/api/nothing"), Found::Nothing);
        assert_eq!(op("GET", "/api/sessions//ws"), Found::Nothing);
        assert_eq!(
            op("PUT", "/api/health"),
            Found::OtherMethod("GET, HEAD, OPTIONS".into())
        );
    }
}
