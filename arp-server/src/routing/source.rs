//! Finding the client that a request is for, and what of the request was meant for us.
//!
//! Pure: strings in, a decision out. The order of the sources is docs/protocol.md, "Tokens".

use crate::http::{Framing, Name, RequestHead};
use crate::registry::{Client, Registry};
use crate::routing::tabs::{self, Tabs};
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
mod tests;
