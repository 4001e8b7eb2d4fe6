//! Which client a request is for, or what it gets instead.
//!
//! Pure: strings in, a decision out. The order of the sources is docs/protocol.md, "Tokens".

use crate::http::{Framing, RequestHead};
use crate::registry::Spelling;
use crate::routing::names::{Found, Named, Names};
use crate::routing::redirect::{self, Location};
use crate::routing::source::{self, OF_COOKIE, Pair, Source, is_document, is_navigation};
use crate::routing::strip::{self, Ours};
use crate::routing::tabs::{self, Tabs};
use arp_common::ids::Token;
use smallvec::SmallVec;

/// A request that has a client.
#[derive(Debug, Clone)]
pub(crate) struct Route<C> {
    /// Whom it is for.
    pub(crate) client: C,
    /// By which name.
    pub(crate) token: Token,
    /// Where the name was found.
    pub(crate) source: Source,
    /// The name that stood in front of the path.
    pub(crate) prefix: Option<Token>,
    /// Is the origin this client's alone, so that its answers may speak for all of it?
    pub(crate) own_origin: bool,
    /// Path and query, without what was ours.
    pub(crate) target: String,
    /// The Referer, where it held something of ours.
    pub(crate) referer: Option<String>,
    /// What the browser is to remember: the value of our cookie.
    pub(crate) set_cookie: Option<String>,
    /// The fields that led to the client, where its URL did not.
    pub(crate) vary: Option<&'static str>,
    /// Who else may be meant, if this client does not change protocols: a WebSocket says nothing of the tab
    /// that opens it.
    pub(crate) others: Vec<(Token, C)>,
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub(crate) enum Decision<C> {
    /// It goes to a client.
    Go(Route<C>),
    /// The browser is to ask there.
    Redirect(Location),
    /// It names no client.
    NoToken,
    /// It names one that is not known.
    Unknown(Unknown),
    /// It names two.
    Conflict,
    /// The host name is one client's, and the request names another.
    OtherHost,
}

/// A name that leads nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unknown {
    /// Its owner has given it up.
    pub(crate) given_up: bool,
    /// Where to go on if the name was none of ours, but an application's own.
    pub(crate) go_on: Option<Location>,
}

impl Unknown {
    fn of<C>(named: &Named<C>) -> Self {
        Self {
            given_up: matches!(named, Named::GivenUp),
            go_on: None,
        }
    }
}

/// What the relay knows of the way that a request came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    /// `http` or `https`, as the visitor sees it.
    pub(crate) scheme: &'a str,
    /// Host and port, as the visitor sees them.
    pub(crate) host: Option<&'a str>,
    /// Domain whose subdomains are tokens.
    pub(crate) domain: Option<&'a str>,
    /// Host and port of the URL that the operator has told the relay.
    pub(crate) public: Option<&'a str>,
}

/// Decides where a request goes.
pub(crate) fn route<N: Names>(head: &RequestHead, site: &Site<'_>, names: &mut N) -> Decision<N::Client> {
    let mut routing = Routing {
        head,
        site,
        names,
        ours: Ours::default(),
        prefix: None,
    };
    routing.decide().unwrap_or_else(Decision::from)
}

struct Routing<'a, N: Names> {
    head: &'a RequestHead,
    site: &'a Site<'a>,
    names: &'a mut N,
    /// What is to be taken out of the target.
    ours: Ours,
    prefix: Option<Token>,
}

/// A client, and what named it.
type By<C> = (Source, Found<C>);

/// Why a request leads nowhere.
enum Nowhere {
    NoToken,
    Unknown(Unknown),
    Conflict,
}

impl<C> From<Nowhere> for Decision<C> {
    fn from(why: Nowhere) -> Self {
        match why {
            Nowhere::NoToken => Self::NoToken,
            Nowhere::Unknown(unknown) => Self::Unknown(unknown),
            Nowhere::Conflict => Self::Conflict,
        }
    }
}

type Step<T> = Result<T, Nowhere>;

impl<'a, N: Names> Routing<'a, N> {
    fn decide(&mut self) -> Step<Decision<N::Client>> {
        let own = self.by_host()?;
        let target = self.head.target();
        let (mut soft, mut of_cookie) = (SmallVec::<[Pair<'a>; 1]>::new(), false);
        let mut told = None;
        for pair in source::pairs(target) {
            if !pair.strict {
                soft.push(pair);
                continue;
            }
            self.ours.take_pair(&pair);
            if pair.name == OF_COOKIE {
                of_cookie = true;
            } else {
                self.claim(Source::Param, &pair.name, &mut told)?;
            }
        }
        for name in source::headers(self.head) {
            self.claim(Source::Header, name, &mut told)?;
        }
        if let Some((name, len)) = source::prefix(target) {
            let found = self.claim(Source::Prefix, &name, &mut told)?;
            self.ours.take_prefix(len);
            self.prefix = Some(found);
        }
        if of_cookie {
            if told.is_some() || own.is_some() {
                return Err(Nowhere::Conflict);
            }
            return self.by_cookie(true);
        }
        let strict = told.is_some() || own.is_some();
        let told = self.or_soft(&soft, told, strict)?;
        match (own, told) {
            (Some(own), told) => self.on_own_host(own, told),
            (None, Some((source, found))) => Ok(self.go(source, found)),
            (None, None) => self.by_browser(&soft),
        }
    }

    /// The client whose host name this is.
    fn by_host(&mut self) -> Step<Option<Found<N::Client>>> {
        let label = (self.site.host.zip(self.site.domain)).and_then(|(h, d)| source::label(h, d));
        let Some(label) = label else { return Ok(None) };
        match self.names.find(label, Spelling::AnyCase) {
            Named::Client(found) => Ok(Some(found)),
            nobody => Err(Nowhere::Unknown(Unknown::of(&nobody))),
        }
    }

    /// A name where only names of ours stand: it names a client, and the same one as those before.
    fn claim(&mut self, source: Source, name: &str, told: &mut Option<By<N::Client>>) -> Step<Token> {
        let found = match self.names.find(name, Spelling::Exact) {
            Named::Client(found) => found,
            nobody => return Err(Nowhere::Unknown(Unknown::of(&nobody))),
        };
        let token = found.token.clone();
        match told {
            Some((_, first)) if !N::same(&first.client, &found.client) => Err(Nowhere::Conflict),
            Some(_) => Ok(token),
            None => {
                *told = Some((source, found));
                Ok(token)
            }
        }
    }

    /// The first `token=` that names a client is ours; others are the application's own.
    fn or_soft(
        &mut self,
        soft: &[Pair<'_>],
        told: Option<By<N::Client>>,
        strict: bool,
    ) -> Step<Option<By<N::Client>>> {
        for pair in soft.iter().filter(|pair| !pair.name.is_empty()) {
            match self.names.find(&pair.name, Spelling::Exact) {
                Named::Client(found) => {
                    if told
                        .as_ref()
                        .is_some_and(|(_, t)| !N::same(&t.client, &found.client))
                    {
                        return Err(Nowhere::Conflict);
                    }
                    self.ours.take_pair(pair);
                    return Ok(told.or(Some((Source::Query, found))));
                }
                named @ Named::GivenUp if !strict => return Err(Nowhere::Unknown(Unknown::of(&named))),
                Named::GivenUp | Named::Nobody => {}
            }
        }
        Ok(told)
    }

    /// On a client's own host name nobody else answers.
    fn on_own_host(
        &mut self,
        own: Found<N::Client>,
        told: Option<By<N::Client>>,
    ) -> Step<Decision<N::Client>> {
        match told {
            None => Ok(self.go(Source::Host, own)),
            Some((source, found)) if N::same(&found.client, &own.client) => Ok(self.go(source, own)),
            Some((_, other)) => {
                let target = self.ours.out_of(self.head.target());
                let there = (is_document(self.head) && self.head.upgrade().is_none())
                    .then(|| redirect::to_own_origin(self.site, &other.token, &target))
                    .flatten();
                Ok(there.map_or(Decision::OtherHost, Decision::Redirect))
            }
        }
    }

    /// What only a browser's habits tell: the page that asks, and the cookie.
    fn by_browser(&mut self, soft: &[Pair<'_>]) -> Step<Decision<N::Client>> {
        let tabs = source::tabs(self.head);
        self.was_opened_here(soft, tabs)?;
        let astray = soft.iter().any(|pair| !pair.name.is_empty());
        let target = self.head.target();
        if astray && is_navigation(self.head) && matches!(target.split('?').next(), Some("/" | "")) {
            // Somebody who types an address means a machine, and must not get another one.
            let known = tabs.and_then(|tabs| self.names.find(tabs.current, Spelling::Exact).found());
            let go_on = known.map(|_| redirect::to_client_of_cookie(target));
            return Err(Nowhere::Unknown(Unknown {
                given_up: false,
                go_on,
            }));
        }
        if let Some(found) = self.by_referer(tabs)? {
            return Ok(self.go(Source::Referer, found));
        }
        self.by_cookie(astray)
    }

    /// The client of the page that asks.
    fn by_referer(&mut self, tabs: Option<Tabs<'_>>) -> Step<Option<Found<N::Client>>> {
        let Some((_, target)) = source::own_referer(self.head, self.site) else {
            return Ok(None);
        };
        let pairs: SmallVec<[Pair<'_>; 1]> = source::pairs(target).collect();
        let strict = pairs.iter().find(|pair| pair.strict && pair.name != OF_COOKIE);
        let strict = strict.map(|pair| pair.name.clone());
        if let Some(name) = strict.or_else(|| source::prefix(target).map(|(name, _)| name)) {
            let mut told = None;
            self.claim(Source::Referer, &name, &mut told)?;
            return Ok(told.map(|(_, found)| found));
        }
        for pair in pairs.iter().filter(|pair| !pair.strict && !pair.name.is_empty()) {
            match self.names.find(&pair.name, Spelling::Exact) {
                Named::Client(found) => return Ok(Some(found)),
                named @ Named::GivenUp => return Err(Nowhere::Unknown(Unknown::of(&named))),
                Named::Nobody => {}
            }
        }
        self.was_opened_here(&pairs, tabs)?;
        Ok(None)
    }

    /// A name that nobody has, but that this browser has opened as a client's, is no application's own.
    fn was_opened_here(&self, soft: &[Pair<'_>], tabs: Option<Tabs<'_>>) -> Step<()> {
        let opened = |pair: &Pair<'_>| {
            tabs.is_some_and(|tabs| tabs.others().any(|mark| self.names.is_mark_of(mark, &pair.name)))
        };
        if soft.iter().any(opened) {
            return Err(Nowhere::Unknown(Unknown {
                given_up: true,
                go_on: None,
            }));
        }
        Ok(())
    }

    /// `named`: the request named somebody, though nobody who is there.
    fn by_cookie(&mut self, named: bool) -> Step<Decision<N::Client>> {
        let nobody = |named| {
            Err(if named {
                Nowhere::Unknown(Unknown::default())
            } else {
                Nowhere::NoToken
            })
        };
        let Some(tabs) = source::tabs(self.head) else {
            return nobody(named);
        };
        let current = match self.names.find(tabs.current, Spelling::Exact) {
            Named::Client(current) => current,
            named => return Err(Nowhere::Unknown(Unknown::of(&named))),
        };
        if let Some(owner) = self.owner_of_part(tabs) {
            let target = self.ours.out_of(self.head.target());
            return Ok(Decision::Go(self.route(Source::Cookie, owner, target)));
        }
        let mut decision = self.go(Source::Cookie, current);
        if let Decision::Go(route) = &mut decision
            && self.head.upgrade().is_some()
            && self.head.framing == Framing::None
        {
            let others = tabs.others().filter_map(|mark| self.names.find_marked(mark));
            let others = others.filter(|other| other.token != route.token);
            route.others = others.map(|other| (other.token, other.client)).collect();
        }
        Ok(decision)
    }

    /// The client of a script without a token in its URL, where several clients share the browser and such a
    /// script is what asks.
    fn owner_of_part(&mut self, tabs: Tabs<'_>) -> Option<Found<N::Client>> {
        let owner = tabs.owner()?;
        let (_, referer) = source::own_referer(self.head, self.site)?;
        if tabs::is_part(referer) {
            self.names.find_marked(owner)
        } else {
            None
        }
    }

    /// To this client, or where its browser is sent.
    fn go(&mut self, source: Source, found: Found<N::Client>) -> Decision<N::Client> {
        let target = self.ours.out_of(self.head.target());
        let mark = found.mark;
        let route = self.route(source, found, target);
        match redirect::redirect(self.head, self.site, &route, mark, self.names) {
            Some(location) => Decision::Redirect(location),
            None => Decision::Go(route),
        }
    }

    fn route(&mut self, source: Source, found: Found<N::Client>, target: String) -> Route<N::Client> {
        let own_origin =
            (self.site.host.zip(self.site.domain)).is_some_and(|(h, d)| source::label(h, d).is_some());
        let opened = match source {
            Source::Param | Source::Query | Source::Prefix => true,
            // A page of the client that was opened last gives the cookie its whole life again.
            Source::Cookie => {
                source::tabs(self.head).is_some_and(|tabs| tabs.current == found.token.as_str())
            }
            _ => false,
        };
        let set_cookie = (opened && !own_origin && is_navigation(self.head)).then(|| {
            let had = source::tabs(self.head);
            let last = had.and_then(|had| self.names.find(had.current, Spelling::Exact).found());
            tabs::remembered(had, last.map(|last| last.mark), &found.token, found.mark)
        });
        Route {
            client: found.client,
            token: found.token,
            source,
            prefix: self.prefix.clone(),
            own_origin,
            target,
            referer: strip::referer(self.head, self.site),
            set_cookie,
            vary: matches!(source, Source::Referer | Source::Cookie).then(|| self.vary()),
            others: Vec::new(),
        }
    }

    /// What a cache must look at. With several clients in one browser, the page that asks decides, too.
    fn vary(&self) -> &'static str {
        if source::tabs(self.head).is_some_and(|tabs| tabs.owner().is_some()) {
            "Cookie, Referer"
        } else {
            "Cookie"
        }
    }
}

#[cfg(test)]
mod tests;
