//! What becomes of a request: the route it takes, or the refusal it gets. The same for every kind of visitor.

use crate::answer::{Refusal, Rendered, Who};
use crate::defaults::{GUESS_RETRY, NAMES_A_TURN};
use crate::http::{BadHead, Name, RequestHead};
use crate::metrics;
use crate::registry::{Client, Spelling};
use crate::routing::guesses::Standing;
use crate::routing::names::{Asked, Found, Inquiry, Named, Names};
use crate::routing::redirect::Location;
use crate::routing::route::Unknown;
use crate::routing::source::{label, wants_html};
use crate::routing::{Decision, Route, Site, route};
use crate::shared::{Public, Visitor};
use arp_common::ids::Token;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

impl Public {
    /// Where a request goes that came over the connection from `peer`.
    ///
    /// # Errors
    /// What the visitor is told instead.
    pub(crate) async fn decide(
        &self,
        head: &RequestHead,
        visitor: &Visitor,
        peer: SocketAddr,
    ) -> Result<Route<Arc<Client>>, Refusal> {
        let site = self.site(head, visitor);
        if self.tls.is_some()
            && site.scheme == "http"
            && let Some(host) = site.host
        {
            return Err(Refusal::redirect(308, Location::at("https", host, head.target())));
        }
        let mut inquiry = Inquiry::new(&self.registry);
        let decision = route(head, &site, &mut inquiry);
        // Before anything is told.
        let asked = inquiry.done();
        let in_vain = match decision {
            Decision::Unknown(_) => true,
            // The page that asked may have had names in its address.
            Decision::NoToken => asked.tries > 0,
            _ => false,
        };
        self.settle(asked, in_vain, || self.source(head, visitor), peer)
            .await?;
        match decision {
            Decision::Go(route) if route.client.services.passes(&route.token) => {
                Err(self.not_ours(&route.token, head, visitor))
            }
            Decision::Go(mut route) => {
                route
                    .others
                    .retain(|(token, client)| !client.services.passes(token));
                Ok(route)
            }
            Decision::Redirect(location) => Err(Refusal::redirect(307, location)),
            Decision::NoToken => Err(Refusal::landing_file(head.target()).unwrap_or_else(Refusal::no_token)),
            Decision::Unknown(unknown) => Err(Refusal::unknown_token(&unknown)),
            Decision::Conflict => Err(Refusal::token_conflict()),
            Decision::OtherHost => Err(Refusal::other_host()),
        }
    }

    /// What becomes of a request that we can read and the edge does not want us to. By a certificate of ours for the
    /// whole domain a browser may think that its connection leads to every name: that status says that it does not
    /// (RFC 9110 §15.5.20).
    fn not_ours(&self, name: &Token, head: &RequestHead, visitor: &Visitor) -> Refusal {
        let host = visitor.host(head);
        let domain = self.limits.domain.as_deref();
        let is_own = |host: &str| domain.and_then(|domain| label(host, domain)).is_some();
        if visitor.scheme(head) == "http"
            && let Some(host) = host.filter(|host| is_own(host))
        {
            return Refusal::redirect(308, Location::at("https", host, head.target()));
        }
        let message = match domain {
            Some(domain) => format!(
                "this name takes only TLS that the relay cannot read: come to https://{}.{domain} by a new connection",
                name.as_str().to_ascii_lowercase()
            ),
            None => "this name takes only TLS that the relay cannot read, and this relay passes none through: its \
                     operator can change that with --domain"
                .to_owned(),
        };
        Refusal::new(Who::Visitor, 421, "passthrough_only", message)
    }

    /// Whom a raw connection is for that asks for a name. `ip` is whom to count, `peer` the connection.
    ///
    /// # Errors
    /// What the visitor is told instead.
    pub(crate) async fn named(
        &self,
        name: &str,
        spelling: Spelling,
        ip: IpAddr,
        peer: SocketAddr,
    ) -> Result<Found<Arc<Client>>, Refusal> {
        let mut inquiry = Inquiry::new(&self.registry);
        let named = inquiry.find(name, spelling);
        let asked = inquiry.done();
        let given_up = matches!(named, Named::GivenUp);
        let found = named.found();
        self.settle(asked, found.is_none(), || ip, peer).await?;
        found.ok_or_else(|| {
            let unknown = Unknown {
                given_up,
                go_on: None,
            };
            Refusal::unknown_token(&unknown)
        })
    }

    /// How a request came.
    fn site<'a>(&'a self, head: &'a RequestHead, visitor: &Visitor) -> Site<'a> {
        Site {
            scheme: visitor.scheme(head),
            host: visitor.host(head),
            domain: self.limits.domain.as_deref(),
            public: self.limits.public_host.as_deref(),
        }
    }

    /// Counts what a request asked, and has an address that guesses wait before it is told.
    async fn settle(
        &self,
        asked: Asked,
        in_vain: bool,
        source: impl FnOnce() -> IpAddr,
        peer: SocketAddr,
    ) -> Result<(), Refusal> {
        if in_vain {
            let ip = source();
            return match self.guesses.miss(ip, asked.tries.max(1)) {
                Standing::Good => Ok(()),
                Standing::Doubtful => Err(too_many()),
                Standing::Guessing => {
                    // Neither more nor less than for a name that is there.
                    let _ = self.turn(ip, peer, asked.tries.max(1)).await;
                    Err(too_many())
                }
            };
        }
        if asked.missed.is_empty() && asked.found.is_empty() {
            return Ok(());
        }
        let ip = source();
        let turns = self.guesses.served(ip, &asked.found, &asked.missed);
        if turns == 0 {
            return Ok(());
        }
        if !self.turn(ip, peer, turns).await {
            return Err(too_many());
        }
        self.guesses.befriend(ip, &asked.found);
        Ok(())
    }

    async fn turn(&self, ip: IpAddr, peer: SocketAddr, names: usize) -> bool {
        // On the heap: hardly any connection ever waits here, and none is to be larger for it.
        names <= NAMES_A_TURN && Box::pin(self.guesses.turn(ip, peer, names)).await
    }

    /// An answer of the relay's own, to a request whose head was understood, or not.
    pub(crate) fn own(&self, refusal: &Refusal, head: Option<&RequestHead>, visitor: &Visitor) -> Rendered {
        // Without the path: it may hold a token that was mistyped.
        let (method, status, code) = (head.map(RequestHead::method), refusal.status, refusal.code);
        tracing::debug!(method, status, code, "answered by the relay itself");
        count(refusal);
        let mut answer = refusal.render(head.is_some_and(wants_html));
        answer.hsts = match head {
            Some(head) => self.hsts(head, visitor),
            None => self.limits.hsts.filter(|_| visitor.tls),
        };
        answer
    }

    /// An answer of the relay's own, to a head that is too long or not one; `start` is as much of it as was read.
    pub(crate) fn own_to_bad(&self, bad: BadHead, start: &[u8], visitor: &Visitor) -> Rendered {
        let flood = if bad.status == 431 {
            Refusal::flood(start, self.limits.domain.as_deref())
        } else {
            None
        };
        let page = flood.is_some();
        let refusal =
            flood.unwrap_or_else(|| Refusal::new(Who::Visitor, bad.status, "bad_request", bad.text));
        count(&refusal);
        let mut answer = refusal.render(page);
        answer.hsts = self.limits.hsts.filter(|_| visitor.tls);
        answer
    }

    /// Seconds of HSTS for an answer to this visitor.
    pub(crate) fn hsts(&self, head: &RequestHead, visitor: &Visitor) -> Option<u64> {
        self.limits.hsts.filter(|_| visitor.scheme(head) == "https")
    }

    /// Whose request it is: behind trusted proxies, the visitor that they have seen.
    pub(crate) fn source(&self, head: &RequestHead, visitor: &Visitor) -> IpAddr {
        if !visitor.trusted {
            return visitor.ip;
        }
        seen_by_proxies(head, |ip| self.trusts(ip)).unwrap_or(visitor.ip)
    }
}

/// Redirects and files of the relay's own pages are no refusals.
fn count(refusal: &Refusal) {
    if refusal.status >= 400 {
        metrics::refused("request", refusal.code);
    }
}

/// The last address in `X-Forwarded-For` that is not itself a trusted proxy. What stands in front of it, or of
/// something that is no address, was said by nobody who is trusted.
fn seen_by_proxies(head: &RequestHead, trusts: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let told: Vec<&[u8]> = head.fields.members(Name::XForwardedFor).collect();
    for member in told.into_iter().rev() {
        let text = std::str::from_utf8(member).ok()?.trim();
        // Some proxies add the port.
        let with_port = || Some(text.parse::<SocketAddr>().ok()?.ip());
        let ip = text.parse().ok().or_else(with_port)?;
        if !trusts(ip) {
            return Some(ip);
        }
    }
    None
}

fn too_many() -> Refusal {
    let message = "too many unknown tokens from this address; wait a minute and check the token";
    let mut answer = Refusal::new(Who::Visitor, 429, "too_many_unknown_tokens", message);
    answer.retry_after = Some(GUESS_RETRY);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn seen(fields: &[&str]) -> Option<IpAddr> {
        let lines: String = fields
            .iter()
            .map(|f| format!("X-Forwarded-For: {f}\r\n"))
            .collect();
        let head = RequestHead::parse(Bytes::from(format!("GET / HTTP/1.1\r\nHost: r\r\n{lines}\r\n")));
        seen_by_proxies(&head.unwrap(), |ip| ip.to_string().starts_with("10."))
    }

    #[test]
    fn the_last_address_that_a_trusted_proxy_saw_counts() {
        let want = |ip: &str| Some(ip.parse().unwrap());
        assert_eq!(seen(&["192.0.2.1"]), want("192.0.2.1"));
        assert_eq!(seen(&["203.0.113.9, 192.0.2.1, 10.0.0.1"]), want("192.0.2.1"));
        assert_eq!(seen(&["203.0.113.9", "192.0.2.1:4711"]), want("192.0.2.1"));
        assert_eq!(seen(&["203.0.113.9, [2001:db8::1]:4711"]), want("2001:db8::1"));
        for nobody in [&[][..], &["10.0.0.1"], &["203.0.113.9, unknown"]] {
            assert_eq!(seen(nobody), None, "{nobody:?}");
        }
    }

    proptest! {
        /// Whatever a visitor says of itself, the proxy in front adds the truth behind it, and that counts.
        #[test]
        fn a_visitor_cannot_say_who_it_is(said in "[ -~]{0,40}", real in any::<std::net::Ipv6Addr>()) {
            let real = IpAddr::from(real);
            prop_assert_eq!(seen(&[&format!("{said}, {real}")]), Some(real));
            prop_assert_eq!(seen(&[&said, &real.to_string()]), Some(real));
        }
    }
}
