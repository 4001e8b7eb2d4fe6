//! Finding the client that a request is for, and what of the request was meant for us.
//!
//! Pure: strings in, a decision out. The order of the sources is docs/protocol.md, "Tokens".

use super::tabs::{self, Tabs};
use crate::h1::head::{Framing, Name, RequestHead};
use crate::registry::{Client, Registry};
use arp_common::ids::Token;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;
use std::sync::Arc;

/// Cookie that keeps a browser with its client.
pub const COOKIE: &str = "arp_token";
/// Query parameter that holds a token.
const PARAM: &str = "token";
/// Path prefix in front of a token.
const PREFIX: &str = "/t/";

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

/// Where a token is looked up: the registry, or a table in tests.
pub trait Names {
    /// What a token names.
    type Client: Clone;
    /// Exactly this token.
    fn by_token(&self, token: &str) -> Option<Self::Client>;
    /// This token in any case, and how it is written.
    fn by_label(&self, label: &str) -> Option<(Token, Self::Client)>;
    /// What stands for a token in a cookie and lets nobody guess it.
    fn mark(&self, token: &str) -> u128;
    /// The token with this mark.
    fn by_mark(&self, mark: u128) -> Option<(Token, Self::Client)>;
}

impl Names for Registry {
    type Client = Arc<Client>;
    fn by_token(&self, token: &str) -> Option<Arc<Client>> {
        Registry::by_token(self, token)
    }
    fn by_label(&self, label: &str) -> Option<(Token, Arc<Client>)> {
        Registry::by_label(self, label)
    }
    fn mark(&self, token: &str) -> u128 {
        self.hash(token)
    }
    fn by_mark(&self, mark: u128) -> Option<(Token, Arc<Client>)> {
        self.by_hash(mark)
    }
}

/// Where a token was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `?token=…`
    Query,
    /// `X-ARP-Token: …`
    Header,
    /// `/t/<token>/…`
    Prefix,
    /// `<token>.<domain>`
    Host,
    /// The page that asks has a token in its URL.
    Referer,
    /// An earlier navigation.
    Cookie,
}

/// A request that has a client.
#[derive(Debug, Clone)]
pub struct Route<C> {
    /// Whom it is for.
    pub client: C,
    /// By which name.
    pub token: Token,
    /// Where the name was found.
    pub source: Source,
    /// Path and query, without what was ours.
    pub target: String,
    /// What the browser is to remember: the value of our cookie.
    pub set_cookie: Option<String>,
    /// The fields that led to the client, where its URL did not.
    pub vary: Option<&'static str>,
    /// Who else may be meant, if this client does not change protocols: a WebSocket says nothing of the tab
    /// that opens it.
    pub others: Vec<(Token, C)>,
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Decision<C> {
    /// It goes to a client.
    Go(Route<C>),
    /// The browser is to ask again, there, for the client that this token names.
    Redirect(String, Token),
    /// It names no client.
    NoToken,
    /// It names one that is not known.
    Unknown,
}

/// What the relay knows of the connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// `http` or `https`, as the visitor sees it.
    pub scheme: &'a str,
    /// Domain whose subdomains are tokens.
    pub domain: Option<&'a str>,
}

/// Decides where a request goes.
pub fn route<N: Names>(head: &RequestHead, site: Site<'_>, names: &N) -> Decision<N::Client> {
    let target = head.target();
    let fields = &head.fields;
    let mut named = false;
    let go = |client, token: &str, source, target: String| {
        let token = token.parse::<Token>().ok()?;
        let opened = matches!(source, Source::Query | Source::Prefix) && is_navigation(head);
        let set_cookie = opened.then(|| tabs::remembered(tabs_of(head).next(), token.as_str(), names));
        Some(Route {
            client,
            token,
            source,
            target,
            set_cookie,
            vary: matches!(source, Source::Referer | Source::Cookie).then(|| vary(head)),
            others: Vec::new(),
        })
    };
    let decide = |route: Route<N::Client>| match redirect(head, site, &route, names) {
        Some(location) => Decision::Redirect(location, route.token),
        None => Decision::Go(route),
    };

    if let Some((client, found)) = in_query(target, names, &mut named)
        && let Some(route) = go(client, &found.token, Source::Query, found.target)
    {
        return decide(route);
    }
    if let Some(value) = text(fields.first(Name::XArpToken)) {
        named = true;
        if let Some(client) = names.by_token(value)
            && let Some(route) = go(client, value, Source::Header, rooted(target))
        {
            return decide(route);
        }
    }
    if let Some((token, rest)) = in_path(target) {
        named = true;
        if let Some(client) = names.by_token(&token)
            && let Some(route) = go(client, &token, Source::Prefix, rooted(rest))
        {
            return decide(route);
        }
    }
    if let (Some(domain), Some(host)) = (site.domain, head.host())
        && let Some(label) = label_of(host, domain)
    {
        named = true;
        if let Some((token, client)) = names.by_label(label)
            && let Some(route) = go(client, token.as_str(), Source::Host, rooted(target))
        {
            return decide(route);
        }
    }
    if let Some((client, token)) = in_referer(head, names)
        && let Some(route) = go(client, &token, Source::Referer, rooted(target))
    {
        return decide(route);
    }
    for tabs in tabs_of(head) {
        named = true;
        let Some(client) = names.by_token(tabs.current) else {
            continue;
        };
        if let Some((token, client)) = owner_of_part(head, tabs, names)
            && let Some(route) = go(client, token.as_str(), Source::Cookie, rooted(target))
        {
            return Decision::Go(route);
        }
        if let Some(mut route) = go(client, tabs.current, Source::Cookie, rooted(target)) {
            if head.upgrade().is_some() && head.framing == Framing::None {
                let others = tabs.others().filter_map(|mark| names.by_mark(mark));
                route.others = others.filter(|(token, _)| *token != route.token).collect();
            }
            return decide(route);
        }
    }
    if named {
        Decision::Unknown
    } else {
        Decision::NoToken
    }
}

/// The cases in which a browser is sent elsewhere.
fn redirect<N: Names>(
    head: &RequestHead,
    site: Site<'_>,
    route: &Route<N::Client>,
    names: &N,
) -> Option<String> {
    if !matches!(head.method(), "GET" | "HEAD") || head.upgrade().is_some() {
        return None;
    }
    let host = head.host()?;
    if let Some(location) = with_slash(head, site, route) {
        return Some(location);
    }
    match route.source {
        // With a domain each client has an origin of its own; a navigation to the bare one goes there.
        Source::Query | Source::Prefix if is_navigation(head) => {
            let domain = site.domain?;
            let (name, port) = split_port(host);
            name.eq_ignore_ascii_case(domain).then(|| {
                format!(
                    "{}://{}.{domain}{port}{}",
                    site.scheme,
                    route.token.as_str(),
                    route.target
                )
            })
        }
        // Tabs of several clients share this origin. What the answer loads in turn would name only the
        // answer's URL as its Referer, so the token goes into that URL (see `tabs.rs`).
        Source::Referer if fields_say_browser(head) => {
            let tabs = tabs_of(head).find(|tabs| names.by_token(tabs.current).is_some())?;
            let astray = tabs.current != route.token.as_str();
            let later = || {
                let owner = tabs
                    .owner()
                    .is_some_and(|o| o == names.mark(route.token.as_str()));
                tabs.owner().is_some() && !owner && may_load_more(head)
            };
            (astray || later()).then(|| {
                let joint = if route.target.contains('?') { '&' } else { '?' };
                format!("{}{joint}{PARAM}={}", route.target, route.token.as_str())
            })
        }
        _ => None,
    }
}

/// A page opened at `/t/<token>` belongs at `/t/<token>/`: else its relative links would lead beside it.
fn with_slash<C>(head: &RequestHead, site: Site<'_>, route: &Route<C>) -> Option<String> {
    let target = head.target();
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let bare = path
        .strip_prefix(PREFIX)
        .is_some_and(|token| !token.contains('/'));
    let wanted = route.source == Source::Prefix && bare && site.domain.is_none() && is_navigation(head);
    wanted.then(|| format!("{path}/{query}"))
}

/// Is this a browser's fetch, which can follow a redirect? Browsers say `Sec-Fetch-Mode` only on origins they
/// trust (HTTPS and localhost); on plain HTTP the name that all of them give must do.
fn fields_say_browser(head: &RequestHead) -> bool {
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

/// What a cache must look at. With several clients in one browser, the page that asks decides, too.
fn vary(head: &RequestHead) -> &'static str {
    if tabs_of(head).any(|tabs| tabs.owner().is_some()) {
        "Cookie, Referer"
    } else {
        "Cookie"
    }
}

/// The client of a script without a token in its URL, where several clients share the browser and such a
/// script is what asks.
fn owner_of_part<N: Names>(head: &RequestHead, tabs: Tabs<'_>, names: &N) -> Option<(Token, N::Client)> {
    let owner = tabs.owner()?;
    tabs::is_part(own_referer(head)?).then(|| names.by_mark(owner))?
}

/// Is this a person opening a page?
pub fn is_navigation(head: &RequestHead) -> bool {
    if head.method() != "GET" {
        return false;
    }
    match head.fields.first(Name::SecFetchMode) {
        Some(mode) => mode == b"navigate",
        None => wants_html(head),
    }
}

/// Does the visitor prefer a page to JSON?
pub fn wants_html(head: &RequestHead) -> bool {
    head.fields.members(Name::Accept).any(|m| {
        let kind = m.split(|b| *b == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(b"text/html")
    })
}

struct InQuery<'a> {
    token: Cow<'a, str>,
    target: String,
}

/// The first `token` parameter whose value names a known client, and the target without it.
fn in_query<'a, N: Names>(target: &'a str, names: &N, named: &mut bool) -> Option<(N::Client, InQuery<'a>)> {
    let (path, query) = target.split_once('?')?;
    let mut at = 0;
    for pair in query.split('&') {
        let start = at;
        at += pair.len() + 1;
        let Some(value) = pair.strip_prefix(PARAM).and_then(|p| p.strip_prefix('=')) else {
            continue;
        };
        let (token, rest) = split_value(value);
        let token = decoded(token);
        *named |= !token.is_empty();
        let Some(client) = names.by_token(&token) else {
            continue;
        };
        let before = &query[..start];
        let after = query.get(at..).unwrap_or_default();
        let (path, own_query) = match rest {
            None => (path.to_owned(), None),
            Some(rest) => join(path, &rest),
        };
        let mut target = if path.is_empty() { "/".to_owned() } else { path };
        let pairs = [
            before.trim_end_matches('&'),
            own_query.as_deref().unwrap_or_default(),
            after,
        ];
        let mut joint = '?';
        for pair in pairs.into_iter().filter(|p| !p.is_empty()) {
            target.push(joint);
            target.push_str(pair);
            joint = '&';
        }
        return Some((client, InQuery { token, target }));
    }
    None
}

/// Splits `token/path?query`, in plain or escaped form, at its first slash.
fn split_value(value: &str) -> (&str, Option<String>) {
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

/// Puts the path of `token/path` behind the one of the request.
fn join(path: &str, rest: &str) -> (String, Option<String>) {
    let (more, query) = match rest.split_once('?') {
        Some((more, query)) => (more, Some(query.to_owned())),
        None => (rest, None),
    };
    if more.is_empty() {
        return (path.to_owned(), query);
    }
    (format!("{}{more}", path.trim_end_matches('/')), query)
}

/// Takes `/t/<token>` off a target.
fn in_path(target: &str) -> Option<(Cow<'_, str>, &str)> {
    let after = target.strip_prefix(PREFIX)?;
    let end = after.find(['/', '?']).unwrap_or(after.len());
    let token = decoded(&after[..end]);
    (!token.is_empty()).then_some((token, &after[end..]))
}

/// The part of `host` in front of `.domain`.
fn label_of<'a>(host: &'a str, domain: &str) -> Option<&'a str> {
    let (name, _) = split_port(host);
    let cut = name.len().checked_sub(domain.len() + 1)?;
    let (label, rest) = (name.get(..cut)?, name.get(cut + 1..)?);
    (name.as_bytes()[cut] == b'.' && rest.eq_ignore_ascii_case(domain) && !label.is_empty()).then_some(label)
}

/// `host:port` as host and `:port`.
fn split_port(host: &str) -> (&str, &str) {
    match host.rfind(':') {
        Some(at) if !host[at..].contains(']') => host.split_at(at),
        _ => (host, ""),
    }
}

/// Path and query of a Referer that is of our own origin.
fn own_referer(head: &RequestHead) -> Option<&str> {
    let referer = text(head.fields.first(Name::Referer))?;
    let rest = referer
        .strip_prefix("http://")
        .or_else(|| referer.strip_prefix("https://"))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    rest[..end]
        .eq_ignore_ascii_case(head.host()?)
        .then_some(&rest[end..])
}

fn in_referer<'a, N: Names>(head: &'a RequestHead, names: &N) -> Option<(N::Client, Cow<'a, str>)> {
    let target = own_referer(head)?;
    if let Some((client, found)) = in_query(target, names, &mut false) {
        return Some((client, found.token));
    }
    let (token, _) = in_path(target)?;
    Some((names.by_token(&token)?, token))
}

/// The Referer as the local service may see it: without what was ours.
pub fn cleaned_referer<N: Names>(head: &RequestHead, names: &N) -> Option<String> {
    let target = own_referer(head)?;
    let cleaned = match in_query(target, names, &mut false) {
        Some((_, found)) => found.target,
        None => {
            let (token, rest) = in_path(target)?;
            names.by_token(&token)?;
            rooted(rest)
        }
    };
    let referer = text(head.fields.first(Name::Referer))?;
    Some(format!("{}{cleaned}", &referer[..referer.len() - target.len()]))
}

/// What our cookie says, and says again if there are several.
fn tabs_of(head: &RequestHead) -> impl Iterator<Item = Tabs<'_>> {
    cookies(head)
        .map(Tabs::parse)
        .filter(|tabs| !tabs.current.is_empty())
}

/// The values of our cookie.
fn cookies(head: &RequestHead) -> impl Iterator<Item = &str> {
    head.fields
        .all(Name::Cookie)
        .filter_map(|v| std::str::from_utf8(v).ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| {
            let (name, value) = pair.trim_ascii().split_once('=')?;
            (name == COOKIE && !value.is_empty()).then_some(value)
        })
}

/// A Cookie field without our own, or `None` if nothing is left.
pub fn cleaned_cookie(value: &[u8]) -> Option<Vec<u8>> {
    let ours = |pair: &[u8]| {
        let name = pair.split(|b| *b == b'=').next().unwrap_or_default();
        name.trim_ascii() == COOKIE.as_bytes()
    };
    let kept: Vec<&[u8]> = value
        .split(|b| *b == b';')
        .map(|p| p.trim_ascii())
        .filter(|p| !ours(p))
        .collect();
    (!kept.is_empty()).then(|| kept.join(&b"; "[..]))
}

fn text(value: Option<&[u8]>) -> Option<&str> {
    value
        .and_then(|v| std::str::from_utf8(v).ok())
        .map(str::trim)
        .filter(|v| !v.is_empty())
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

/// A target begins with a slash (or is the `*` of OPTIONS).
fn rooted(target: &str) -> String {
    if target.starts_with('/') || target == "*" {
        target.to_owned()
    } else {
        format!("/{target}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    struct Table(&'static [&'static str]);
    impl Names for Table {
        type Client = &'static str;
        fn by_token(&self, token: &str) -> Option<&'static str> {
            self.0.iter().find(|t| **t == token).copied()
        }
        fn by_label(&self, label: &str) -> Option<(Token, &'static str)> {
            let t = self.0.iter().find(|t| t.eq_ignore_ascii_case(label))?;
            Some((t.parse().ok()?, t))
        }
        fn mark(&self, token: &str) -> u128 {
            0xa0 + self.0.iter().position(|t| *t == token).unwrap_or(99) as u128
        }
        fn by_mark(&self, mark: u128) -> Option<(Token, &'static str)> {
            let t = self.0.get(mark.checked_sub(0xa0)? as usize)?;
            Some((t.parse().ok()?, t))
        }
    }
    const NAMES: Table = Table(&["demo", "ci-test", "Alice"]);
    const SITE: Site<'static> = Site {
        scheme: "http",
        domain: None,
    };
    const DOMAIN: Site<'static> = Site {
        scheme: "https",
        domain: Some("arp.example"),
    };

    fn head(method: &str, target: &str, fields: &str) -> RequestHead {
        let host = if fields.contains("Host:") {
            ""
        } else {
            "Host: r:17003\r\n"
        };
        RequestHead::parse(Bytes::from(format!(
            "{method} {target} HTTP/1.1\r\n{host}{fields}\r\n"
        )))
        .unwrap()
    }

    fn go(target: &str, fields: &str) -> (&'static str, Source, String) {
        match route(&head("GET", target, fields), SITE, &NAMES) {
            Decision::Go(r) => (r.client, r.source, r.target),
            other => panic!("{target} {fields}: {other:?}"),
        }
    }

    #[test]
    fn the_query_forms_of_the_readme() {
        for (asked, given) in [
            ("/api/x?token=demo", "/api/x"),
            ("/?token=demo", "/"),
            ("http://r:17003?token=demo", "/"),
            ("/?token=demo/api/deploy", "/api/deploy"),
            ("/?token=demo%2Fapi%2fdeploy%20now", "/api/deploy%20now"),
            ("/base/?token=demo/api", "/base/api"),
            ("/?token=demo/api?x=1&y=2", "/api?x=1&y=2"),
            ("/?a=1&token=demo/api?x=1&y=2", "/api?a=1&x=1&y=2"),
            ("/?token=demo?x=1", "/?x=1"),
            ("/?token=demo/", "/"),
            ("/x?a=1&token=demo", "/x?a=1"),
            ("/x?a=1&token=demo&b=2", "/x?a=1&b=2"),
            ("/x?token=demo&b=2", "/x?b=2"),
            ("/x?token=other&token=demo", "/x?token=other"),
            ("/x?token=demo&token=Alice", "/x?token=Alice"),
            ("/x?%74oken=q&token=%64emo", "/x?%74oken=q"),
            ("/x?y=a%26b&token=demo&z=%2F", "/x?y=a%26b&z=%2F"),
        ] {
            assert_eq!(go(asked, ""), ("demo", Source::Query, given.into()), "{asked}");
        }
    }

    #[test]
    fn the_other_sources_in_their_order() {
        assert_eq!(
            go("/a?b=c", "X-ARP-Token: demo\r\n"),
            ("demo", Source::Header, "/a?b=c".into())
        );
        assert_eq!(
            go("/t/demo/v1/models?x", ""),
            ("demo", Source::Prefix, "/v1/models?x".into())
        );
        assert_eq!(go("/t/demo", ""), ("demo", Source::Prefix, "/".into()));
        assert_eq!(go("/t/demo?x=1", ""), ("demo", Source::Prefix, "/?x=1".into()));
        let referer = "Referer: http://r:17003/p?token=demo\r\nCookie: arp_token=Alice\r\n";
        assert_eq!(go("/s.css", referer), ("demo", Source::Referer, "/s.css".into()));
        assert_eq!(
            go("/s.css", "Referer: http://r:17003/t/demo/p\r\n"),
            ("demo", Source::Referer, "/s.css".into())
        );
        let foreign = "Referer: http://evil/p?token=demo\r\nCookie: a=b; arp_token=Alice; c=d\r\n";
        assert_eq!(go("/s.css", foreign), ("Alice", Source::Cookie, "/s.css".into()));
        assert_eq!(
            go("/?token=vite-own", foreign),
            ("Alice", Source::Cookie, "/?token=vite-own".into())
        );
        assert_eq!(go("/?token=demo", "X-ARP-Token: Alice\r\n").0, "demo");
        let site = |host: &str| route(&head("GET", "/x", &format!("Host: {host}\r\n")), DOMAIN, &NAMES);
        assert!(matches!(site("alice.ARP.example:443"), Decision::Go(r) if r.client == "Alice"));
        assert!(matches!(site("arp.example"), Decision::NoToken));
        assert!(matches!(site("nobody.arp.example"), Decision::Unknown));
        assert!(matches!(site("evilarp.example"), Decision::NoToken));
    }

    #[test]
    fn what_names_nobody_is_told_apart() {
        let decide = |target: &str, fields: &str| route(&head("GET", target, fields), SITE, &NAMES);
        assert!(matches!(decide("/", ""), Decision::NoToken));
        assert!(matches!(decide("/?token=", ""), Decision::NoToken));
        assert!(matches!(decide("/?token=nobody", ""), Decision::Unknown));
        assert!(matches!(decide("/?token=alice", ""), Decision::Unknown));
        assert!(matches!(decide("/t/nobody/", ""), Decision::Unknown));
        assert!(matches!(
            decide("/", "X-ARP-Token: nobody\r\n"),
            Decision::Unknown
        ));
        assert!(matches!(
            decide("/", "Cookie: arp_token=nobody\r\n"),
            Decision::Unknown
        ));
    }

    #[test]
    fn browsers_are_told_to_remember_and_where_to_go() {
        let html = "Accept: text/html,*/*;q=0.8\r\n";
        let set = |target: &str, fields: &str| match route(&head("GET", target, fields), SITE, &NAMES) {
            Decision::Go(r) => r.set_cookie.is_some(),
            other => panic!("{other:?}"),
        };
        assert!(set("/?token=demo", html));
        assert!(set("/t/demo/", "Sec-Fetch-Mode: navigate\r\n"));
        assert!(!set("/?token=demo", "Accept: */*\r\n"));
        assert!(!set(
            "/?token=demo",
            "Sec-Fetch-Mode: cors\r\nAccept: text/html\r\n"
        ));
        assert!(!set("/", "Cookie: arp_token=demo\r\nAccept: text/html\r\n"));

        let page = head("GET", "/t/demo?x=1", html);
        assert!(matches!(route(&page, SITE, &NAMES), Decision::Redirect(l, _) if l == "/t/demo/?x=1"));

        let bare = head(
            "GET",
            "/x?token=demo&y=1",
            "Host: arp.example:8443\r\nAccept: text/html\r\n",
        );
        let there = "https://demo.arp.example:8443/x?y=1";
        assert!(matches!(route(&bare, DOMAIN, &NAMES), Decision::Redirect(l, _) if l == there));

        // Two tabs, two clients: a real browser's sub-requests are given the token of their own page.
        let tabs =
            "Referer: http://r:17003/?token=demo\r\nCookie: arp_token=Alice\r\nSec-Fetch-Mode: cors\r\n";
        let l = match route(&head("GET", "/m.js?v=1", tabs), SITE, &NAMES) {
            Decision::Redirect(l, _) => l,
            other => panic!("{other:?}"),
        };
        assert_eq!(l, "/m.js?v=1&token=demo");
        let plain = tabs.replace(
            "Sec-Fetch-Mode: cors",
            "User-Agent: Mozilla/5.0 (X11) Firefox/140.0",
        );
        assert!(matches!(
            route(&head("GET", "/m.js", &plain), SITE, &NAMES),
            Decision::Redirect(..)
        ));
        let one = tabs.replace("Alice", "demo");
        assert!(matches!(
            route(&head("GET", "/m.js", &one), SITE, &NAMES),
            Decision::Go(_)
        ));
    }

    /// A browser that opened Alice (mark a2), and then demo (mark a0).
    #[test]
    fn scripts_without_a_token_are_of_the_client_that_was_opened_first() {
        let asked = |target: &str, referer: &str, more: &str| {
            let fields = format!("Referer: http://r:17003{referer}\r\nSec-Fetch-Mode: cors\r\n{more}\r\n");
            route(&head("GET", target, &fields), SITE, &NAMES)
        };
        let both = "Cookie: arp_token=demo:a2";
        let late = |referer: &str| match asked("/late.js", referer, both) {
            Decision::Go(r) => (r.client, r.source),
            other => panic!("{other:?}"),
        };
        assert_eq!(late("/main.js"), ("Alice", Source::Cookie));
        assert_eq!(
            late("/settings"),
            ("demo", Source::Cookie),
            "a page that changed its address"
        );
        // So the scripts of the later one are given its token, though the cookie agrees.
        for (dest, goes) in [
            ("script", false),
            ("style", false),
            ("image", true),
            ("serviceworker", true),
        ] {
            let fields = format!("{both}\r\nSec-Fetch-Dest: {dest}");
            let decision = asked("/x", "/?token=demo", &fields);
            assert_eq!(matches!(decision, Decision::Go(_)), goes, "{dest}: {decision:?}");
        }
        let mut first = asked("/x", "/?token=Alice", "Cookie: arp_token=Alice:a2:a0");
        assert!(
            matches!(&first, Decision::Go(r) if r.client == "Alice"),
            "{first:?}"
        );
        first = asked("/x.js", "/main.js", "Cookie: arp_token=demo:ffff");
        assert!(
            matches!(&first, Decision::Go(r) if r.client == "demo"),
            "{first:?}"
        );

        // Opening another client keeps the first.
        let fields = format!("{both}\r\nAccept: text/html\r\n").replace("Sec-Fetch-Mode: cors\r\n", "");
        let opened = route(&head("GET", "/?token=ci-test", &fields), SITE, &NAMES);
        let Decision::Go(opened) = opened else { panic!() };
        let want = format!("ci-test:{:032x}:{:032x}", 0xa2, 0xa0);
        assert_eq!(opened.set_cookie, Some(want));

        // A WebSocket names nobody: all may be meant.
        let socket = "Connection: Upgrade\r\nUpgrade: websocket\r\nCookie: arp_token=demo:a2:a0:a1";
        let Decision::Go(socket) = asked("/ws", "", socket) else {
            panic!()
        };
        assert_eq!(socket.client, "demo");
        let others: Vec<_> = socket.others.iter().map(|(_, c)| *c).collect();
        assert_eq!(others, ["Alice", "ci-test"]);
    }

    #[test]
    fn what_was_ours_is_taken_out_of_cookie_and_referer() {
        assert_eq!(
            cleaned_cookie(b"a=b; arp_token=x; c=d").as_deref(),
            Some(&b"a=b; c=d"[..])
        );
        assert_eq!(cleaned_cookie(b"arp_token=x"), None);
        let clean = |r: &str| cleaned_referer(&head("GET", "/", &format!("Referer: {r}\r\n")), &NAMES);
        assert_eq!(
            clean("http://r:17003/p?token=demo&a=1").as_deref(),
            Some("http://r:17003/p?a=1")
        );
        assert_eq!(
            clean("http://r:17003/t/demo/p").as_deref(),
            Some("http://r:17003/p")
        );
        assert_eq!(clean("http://r:17003/p?a=1"), None);
        assert_eq!(clean("http://evil/p?token=demo"), None);
    }

    proptest! {
        /// Whatever else stands in the query comes out as it went in, in the same order.
        #[test]
        fn the_rest_of_the_query_is_untouched(
            path in "(/[a-z%0-9.]{0,6}){1,3}",
            pairs in proptest::collection::vec("[a-su-z][a-z]{0,3}(=[a-zA-Z0-9%/?:.]{0,6})?", 0..5),
            at in 0usize..6,
        ) {
            let mut all: Vec<&str> = pairs.iter().map(String::as_str).collect();
            all.insert(at.min(all.len()), "token=demo");
            let asked = format!("{path}?{}", all.join("&"));
            let want = if pairs.is_empty() { path.clone() } else { format!("{path}?{}", pairs.join("&")) };
            prop_assert_eq!(go(&asked, ""), ("demo", Source::Query, want));
        }

        /// No target, however odd, makes routing panic or give a target that is not one.
        #[test]
        fn any_target_gives_a_sound_one(tail in "[!-\"$-~]{0,40}") {
            for target in [format!("/{tail}"), format!("/?token=demo{tail}"), format!("/t/demo{tail}")] {
                let text = format!("GET {target} HTTP/1.1\r\nHost: r\r\n\r\n");
                if let Ok(head) = RequestHead::parse(Bytes::from(text))
                    && let Decision::Go(r) = route(&head, SITE, &NAMES) {
                    prop_assert!(r.target.starts_with('/'), "{}", r.target);
                    prop_assert!(r.target.bytes().all(|b| (0x21..0x7f).contains(&b)), "{}", r.target);
                }
            }
        }
    }
}
