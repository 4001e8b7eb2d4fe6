//! Where browsers are sent instead of being served, and why.

use crate::http::{Name, RequestHead};
use crate::routing::names::Names;
use crate::routing::route::{Route, Site};
use crate::routing::source::{self, OF_COOKIE, STRICT, Source, is_document, is_domain, is_navigation};
use arp_common::ids::Token;

/// Where a browser is to go: a path of this origin, or a URL whose host the relay wrote itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location(String);

impl Location {
    /// A path of this origin. It stays one, even if it begins as the name of a host does in a reference
    /// (`//evil.example`, or with a backslash, which browsers take for a slash).
    pub(crate) fn here(target: &str) -> Self {
        Self(match target.as_bytes() {
            [b'/', b'/' | b'\\', ..] => format!("/.{target}"),
            [b'/', ..] => target.to_owned(),
            [b'?', ..] => format!("/{target}"),
            _ => "/".to_owned(),
        })
    }

    /// A path at another host, given with its port if it has one.
    pub(crate) fn at(scheme: &str, host: &str, target: &str) -> Self {
        let slash = if target.starts_with('/') { "" } else { "/" };
        let target = if target == "*" { "" } else { target };
        Self(format!("{scheme}://{host}{slash}{target}"))
    }

    /// As the field has it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The origin of a client under the domain.
pub(crate) fn to_own_origin(site: &Site<'_>, token: &Token, target: &str) -> Option<Location> {
    let (domain, host) = (site.domain?, site.host?);
    let (_, port) = source::split_port(host);
    let host = format!("{}.{domain}{port}", token.as_str());
    Some(Location::at(site.scheme, &host, target))
}

/// The same address, for the client of the cookie: for who meant the application's `token=`.
pub(crate) fn to_client_of_cookie(target: &str) -> Location {
    let joint = if target.contains('?') { '&' } else { '?' };
    Location::here(&format!("{target}{joint}{STRICT}{OF_COOKIE}"))
}

/// The cases in which a browser is sent elsewhere, though the request has a client, whose name has this `mark`.
pub(crate) fn redirect<N: Names>(
    head: &RequestHead,
    site: &Site<'_>,
    route: &Route<N::Client>,
    mark: u128,
    names: &mut N,
) -> Option<Location> {
    if head.upgrade().is_some() {
        return None;
    }
    // With a domain each client has an origin of its own; the bare one shows nobody's pages.
    let bare = site.host.zip(site.domain).is_some_and(|(h, d)| is_domain(h, d));
    if bare && is_document(head) {
        return to_own_origin(site, &route.token, &route.target);
    }
    if !matches!(head.method(), "GET" | "HEAD") {
        return None;
    }
    if let Some(location) = with_slash(head, route) {
        return Some(location);
    }
    if route.source != Source::Referer || !says_browser(head) {
        return None;
    }
    // Tabs of several clients share this origin. What the answer loads in turn would name only the answer's URL
    // as its Referer, so the token goes into that URL (see `tabs.rs`).
    let tabs = source::tabs(head)?;
    names
        .find(tabs.current, crate::registry::Spelling::Exact)
        .found()?;
    let astray = tabs.current != route.token.as_str();
    let later = tabs.owner().is_some_and(|owner| owner != mark) && may_load_more(head);
    (astray || later).then(|| {
        let joint = if route.target.contains('?') { '&' } else { '?' };
        Location::here(&format!(
            "{}{joint}{STRICT}{}",
            route.target,
            route.token.as_str()
        ))
    })
}

/// A page opened at `/t/<token>` belongs at `/t/<token>/`: else its relative links would lead beside it.
fn with_slash<C>(head: &RequestHead, route: &Route<C>) -> Option<Location> {
    let target = head.target();
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let bare = route.prefix.is_some() && source::prefix(path).is_some_and(|(_, len)| len == path.len());
    (bare && is_navigation(head)).then(|| Location::here(&format!("{path}/{query}")))
}

/// Is this a browser's fetch, which can follow a redirect? Browsers say `Sec-Fetch-Mode` only on origins they
/// trust (HTTPS and localhost); on plain HTTP the name that all of them give must do.
fn says_browser(head: &RequestHead) -> bool {
    // The script of a service worker may not come by a redirect; it is the root of its own chain.
    if head.fields.first(Name::SecFetchDest) == Some(b"serviceworker") {
        return false;
    }
    match head.fields.first(Name::SecFetchMode) {
        Some(mode) => matches!(mode, b"navigate" | b"no-cors" | b"cors" | b"same-origin"),
        None => head
            .fields
            .first(Name::UserAgent)
            .is_some_and(|agent| agent.starts_with(b"Mozilla/")),
    }
}

/// Is this something that loads further things, as far as the browser says?
fn may_load_more(head: &RequestHead) -> bool {
    match head.fields.first(Name::SecFetchDest) {
        Some(dest) => matches!(
            dest,
            b"script" | b"style" | b"worker" | b"sharedworker" | b"iframe"
        ),
        None => !head
            .fields
            .first(Name::Accept)
            .is_some_and(|a| a.starts_with(b"image/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_on_this_origin_however_it_begins() {
        for (target, want) in [
            ("/x?a", "/x?a"),
            ("//evil.example/x?a", "/.//evil.example/x?a"),
            ("///evil.example", "/.///evil.example"),
            ("/\\evil.example", "/./\\evil.example"),
            ("?a=//b", "/?a=//b"),
            ("", "/"),
            ("*", "/"),
        ] {
            assert_eq!(Location::here(target).as_str(), want);
        }
        assert_eq!(Location::at("https", "a:1", "//b").as_str(), "https://a:1//b");
        assert_eq!(Location::at("https", "a", "*").as_str(), "https://a/");
        assert_eq!(Location::at("https", "a", "?x").as_str(), "https://a/?x");
    }
}
