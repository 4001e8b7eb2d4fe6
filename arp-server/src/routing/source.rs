//! Where names of clients stand in a request. Reading only: nobody is looked up here.

use crate::http::{Name, RequestHead};
use crate::routing::route::Site;
use crate::routing::tabs::Tabs;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;
use std::ops::Range;

/// Cookie that keeps a browser with its client.
pub(crate) const COOKIE: &str = "arp_token";
/// Query parameter that holds a token, or something of an application's own.
const SOFT: &str = "token=";
/// Query parameter that holds a token and nothing else.
pub(crate) const STRICT: &str = "arp_token=";
/// In [`STRICT`]: the client of the cookie, whatever else is in the query.
pub(crate) const OF_COOKIE: &str = "*";
/// Path prefix in front of a token.
pub(crate) const PREFIX: &str = "/t/";

/// What must be escaped in a path that came out of an escaped parameter.
const IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'%');

/// Where a token was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// `?arp_token=…`
    Param,
    /// `X-ARP-Token: …`
    Header,
    /// `/t/<token>/…`
    Prefix,
    /// `<token>.<domain>`
    Host,
    /// `?token=…`
    Query,
    /// The page that asks has a token in its URL.
    Referer,
    /// An earlier navigation.
    Cookie,
}

/// A parameter of a query that is in the place of a token.
#[derive(Debug, Clone)]
pub(crate) struct Pair<'a> {
    /// The name in it.
    pub(crate) name: Cow<'a, str>,
    /// Where in the target it stands, without the `&` beside it.
    pub(crate) span: Range<usize>,
    /// What follows the name in `token=NAME/path?query`.
    pub(crate) rest: Option<String>,
    /// Is it ours and nobody else's?
    pub(crate) strict: bool,
}

/// The parameters of a target's query that are in the place of a token, in order.
pub(crate) fn pairs(target: &str) -> impl Iterator<Item = Pair<'_>> {
    let start = target.find('?').map_or(target.len(), |at| at + 1);
    let mut at = start;
    target[start..].split('&').filter_map(move |pair| {
        let span = at..at + pair.len();
        at += pair.len() + 1;
        if let Some(value) = pair.strip_prefix(STRICT) {
            let name = decoded(value);
            return Some(Pair {
                name,
                span,
                rest: None,
                strict: true,
            });
        }
        let (name, rest) = split_value(pair.strip_prefix(SOFT)?);
        Some(Pair {
            name: decoded(name),
            span,
            rest,
            strict: false,
        })
    })
}

/// Splits `token/path?query`, in plain or escaped form, at its first slash.
fn split_value(value: &str) -> (&str, Option<String>) {
    // As it stands in the edge's small file: `?token=$(grep client-id ~/.arp-client/config)`.
    let value = ["client-id=", "client-id%3D", "client-id%3d"]
        .iter()
        .find_map(|p| value.strip_prefix(p))
        .unwrap_or(value);
    let plain = value.find(['/', '?']);
    let escaped = value
        .as_bytes()
        .windows(3)
        .position(|w| w.eq_ignore_ascii_case(b"%2f"));
    match (plain, escaped) {
        (Some(p), e) if e.is_none_or(|e| p < e) => (&value[..p], Some(value[p..].to_owned())),
        (_, Some(e)) => {
            // A form has escaped the whole path; undo that once.
            let rest = decoded(&value[e..]);
            (&value[..e], Some(utf8_percent_encode(&rest, IN_PATH).to_string()))
        }
        _ => (value, None),
    }
}

/// The name in `/t/<name>` at the front of a target, and the length of it all.
pub(crate) fn prefix(target: &str) -> Option<(Cow<'_, str>, usize)> {
    let after = target.strip_prefix(PREFIX)?;
    let end = after.find(['/', '?']).unwrap_or(after.len());
    (end > 0).then(|| (decoded(&after[..end]), PREFIX.len() + end))
}

/// The names in our header, strictly: whatever it holds was meant for us.
pub(crate) fn headers(head: &RequestHead) -> impl Iterator<Item = &str> {
    let text = |value| std::str::from_utf8(value).unwrap_or_default();
    head.fields.all(Name::XArpToken).map(text)
}

/// The part of `host` in front of `.domain`.
pub(crate) fn label<'a>(host: &'a str, domain: &str) -> Option<&'a str> {
    let name = host_name(host);
    let cut = name.len().checked_sub(domain.len() + 1)?;
    let (label, rest) = (name.get(..cut)?, name.get(cut + 1..)?);
    (name.as_bytes()[cut] == b'.' && rest.eq_ignore_ascii_case(domain) && !label.is_empty()).then_some(label)
}

/// Is this host the domain itself?
pub(crate) fn is_domain(host: &str, domain: &str) -> bool {
    host_name(host).eq_ignore_ascii_case(domain)
}

/// A host without its port, and without the dot that may end a full name.
pub(crate) fn host_name(host: &str) -> &str {
    let (name, _) = split_port(host);
    name.strip_suffix('.').unwrap_or(name)
}

/// `host:port` as host and `:port`.
pub(crate) fn split_port(host: &str) -> (&str, &str) {
    match host.rfind(':') {
        Some(at) if host[at + 1..].bytes().all(|b| b.is_ascii_digit()) => host.split_at(at),
        _ => (host, ""),
    }
}

/// A Referer of our own origin, split where its path begins.
pub(crate) fn own_referer<'a>(head: &'a RequestHead, site: &Site<'_>) -> Option<(&'a str, &'a str)> {
    let referer = std::str::from_utf8(head.fields.first(Name::Referer)?).ok()?;
    let (scheme, port) = [("http://", ":80"), ("https://", ":443")]
        .into_iter()
        .find(|(scheme, _)| referer.starts_with(scheme))?;
    let rest = &referer[scheme.len()..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let bare = |host: &'a str| host.strip_suffix(port).unwrap_or(host);
    let there = bare(&rest[..end]);
    let is_it = |host: &str| {
        host.strip_suffix(port)
            .unwrap_or(host)
            .eq_ignore_ascii_case(there)
    };
    // A proxy that passes no Host hides from us what our origin is called; a browser still says that the page
    // is of it, and no page can make it say so.
    let ours = [head.host(), site.host, site.public]
        .into_iter()
        .flatten()
        .any(is_it)
        || head.fields.first(Name::SecFetchSite) == Some(b"same-origin");
    ours.then(|| referer.split_at(scheme.len() + end))
}

/// What our cookie says. Of several only the first counts: it is the one for the narrowest path, and a further
/// one must not stand in for a client that is gone.
pub(crate) fn tabs(head: &RequestHead) -> Option<Tabs<'_>> {
    head.fields
        .all(Name::Cookie)
        .filter_map(|v| std::str::from_utf8(v).ok())
        .flat_map(|v| v.split(';'))
        .find_map(|pair| {
            let (name, value) = pair.trim_ascii().split_once('=')?;
            (name == COOKIE && !value.is_empty()).then(|| Tabs::parse(value))
        })
}

/// Is this a person opening a page?
pub(crate) fn is_navigation(head: &RequestHead) -> bool {
    head.method() == "GET" && is_document(head)
}

/// Will a browser show the answer as a page, so that what runs in it runs on this origin? Forms are sent by
/// POST.
pub(crate) fn is_document(head: &RequestHead) -> bool {
    match head.fields.first(Name::SecFetchMode) {
        Some(mode) => mode == b"navigate",
        None => wants_html(head),
    }
}

/// Does the visitor prefer a page to JSON?
pub(crate) fn wants_html(head: &RequestHead) -> bool {
    head.fields.members(Name::Accept).any(|m| {
        let kind = m.split(|b| *b == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/html")
    })
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_ports_dots_and_addresses() {
        for (host, want) in [
            ("good.arp.test", Some("good")),
            ("GOOD.ARP.test:17003", Some("GOOD")),
            ("good.arp.test.", Some("good")),
            ("good.arp.test.:80", Some("good")),
            ("a.b.arp.test", Some("a.b")),
            ("arp.test", None),
            (".arp.test", None),
            ("evilarp.test", None),
            ("arp.test.evil", None),
            ("[::1]:17003", None),
            ("[::1]", None),
        ] {
            assert_eq!(label(host, "arp.test"), want, "{host}");
        }
        assert!(is_domain("ARP.test.:80", "arp.test") && !is_domain("x.arp.test", "arp.test"));
        assert_eq!(split_port("[::1]:80"), ("[::1]", ":80"));
        assert_eq!(split_port("[fe80::1]"), ("[fe80::1]", ""));
        assert_eq!(split_port("a:b"), ("a:b", ""));
    }

    #[test]
    fn prefixes() {
        assert_eq!(
            prefix("/t/a%62/x").map(|(n, l)| (n.into_owned(), l)),
            Some(("ab".into(), 7))
        );
        assert_eq!(prefix("/t/ab?x").map(|(_, l)| l), Some(5));
        for none in ["/t/", "/t//x", "/t", "/T/a", "//t/a", "/x/t/a", "?/t/a"] {
            assert!(prefix(none).is_none(), "{none}");
        }
    }
}
