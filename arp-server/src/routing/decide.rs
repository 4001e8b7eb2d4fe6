//! What becomes of a request: the route it takes, or the refusal it gets. The same for every kind of visitor.

use crate::answer::{Refusal, Rendered, Who};
use crate::defaults::{GUESS_RETRY, NAMES_A_TURN};
use crate::http::{Name, RequestHead};
use crate::registry::{Client, Registry};
use crate::routing::guesses::Standing;
use crate::routing::source::{Decision, Names, Route, Site, route, wants_html};
use crate::shared::Public;
use crate::shared::Visitor;
use arp_common::ids::Token;
use smallvec::SmallVec;
use std::cell::RefCell;
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
        let scheme = visitor.scheme(head);
        if self.tls.is_some()
            && scheme == "http"
            && let Some(host) = head.host()
        {
            return Err(Refusal::redirect(308, format!("https://{host}{}", head.target())));
        }
        let site = Site {
            scheme,
            domain: self.limits.domain.as_deref(),
        };
        let noting = Noting {
            registry: &self.registry,
            missed: RefCell::default(),
        };
        let decision = route(head, site, &noting);
        let missed = noting.missed.into_inner();
        let token = match &decision {
            Decision::Go(route) => Some(&route.token),
            // It, too, tells that a token is right.
            Decision::Redirect(_, token) => Some(token),
            Decision::NoToken => {
                return Err(Refusal::landing_file(head.target()).unwrap_or_else(Refusal::no_token));
            }
            Decision::Unknown => None,
        };
        self.withhold(head, visitor, peer, token, &missed).await?;
        match decision {
            Decision::Go(route) => Ok(route),
            Decision::Redirect(location, _) => Err(Refusal::redirect(307, location)),
            Decision::NoToken | Decision::Unknown => Err(Refusal::unknown_token()),
        }
    }

    /// Has an address that guesses wait before it is told about a name; `token` is the one it found, if it
    /// found one, and `missed` those it asked for in vain on the way.
    async fn withhold(
        &self,
        head: &RequestHead,
        visitor: &Visitor,
        peer: SocketAddr,
        token: Option<&Token>,
        missed: &Missed,
    ) -> Result<(), Refusal> {
        let Some(token) = token else {
            let ip = self.source(head, visitor);
            return match self.guesses.miss(ip, tries(head)) {
                Standing::Good => Ok(()),
                Standing::Doubtful => Err(too_many()),
                Standing::Guessing => {
                    // Neither more nor less than for a name that is there.
                    let _ = self.turn(head, ip, peer).await;
                    Err(too_many())
                }
            };
        };
        if !missed.is_empty() {
            let ip = self.source(head, visitor);
            // Who has a client of his own must not guess through it faster than without.
            if self.guesses.miss_beside(ip, missed) == Some(Standing::Guessing)
                && !self.turn(head, ip, peer).await
            {
                return Err(too_many());
            }
        }
        if self.guesses.is_empty() || unguessable(token) {
            return Ok(());
        }
        let ip = self.source(head, visitor);
        let name = || self.registry.hash(token.as_str());
        if self.guesses.admits(ip, name) {
            return Ok(());
        }
        if !self.turn(head, ip, peer).await {
            return Err(too_many());
        }
        self.guesses.befriend(ip, name());
        Ok(())
    }

    async fn turn(&self, head: &RequestHead, ip: IpAddr, peer: SocketAddr) -> bool {
        // On the heap: hardly any connection ever waits here, and none is to be larger for it.
        tries(head) <= NAMES_A_TURN && Box::pin(self.guesses.turn(ip, peer)).await
    }

    /// An answer of the relay's own, to a request whose head was understood, or not.
    pub(crate) fn own(&self, refusal: &Refusal, head: Option<&RequestHead>, visitor: &Visitor) -> Rendered {
        let mut answer = refusal.render(head.is_some_and(wants_html));
        answer.hsts = match head {
            Some(head) => self.hsts(head, visitor),
            None => self.limits.hsts.filter(|_| visitor.tls),
        };
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

/// Is this a name of 128 bits, as derived client ids and tokens of `arpc tokens add` are? Slowness would protect
/// it no further.
fn unguessable(token: &Token) -> bool {
    let token = token.as_str();
    token.len() == 32 && token.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Keyed hashes of names that a request asked for in vain.
type Missed = SmallVec<[u128; 2]>;

/// The registry, with a note of what was looked up in vain and might have been a guess: not what could be no
/// token, and nothing of 128 bits or more, as signatures in an application's own URLs are.
struct Noting<'a> {
    registry: &'a Registry,
    missed: RefCell<Missed>,
}

/// From here on a name is too long to be found by trying: 128 bits take 22 characters.
const TOO_LONG_TO_GUESS: usize = 22;

impl Names for Noting<'_> {
    type Client = Arc<Client>;
    fn by_token(&self, token: &str) -> Option<Arc<Client>> {
        let found = self.registry.by_token(token);
        if found.is_none() && token.len() < TOO_LONG_TO_GUESS && token.parse::<Token>().is_ok() {
            self.missed.borrow_mut().push(self.registry.hash(token));
        }
        found
    }
    fn by_label(&self, label: &str) -> Option<(Token, Arc<Client>)> {
        self.registry.by_label(label)
    }
    fn mark(&self, token: &str) -> u128 {
        self.registry.hash(token)
    }
    fn by_mark(&self, mark: u128) -> Option<(Token, Arc<Client>)> {
        self.registry.by_hash(mark)
    }
}

/// How many names a request asks for: one can carry many.
fn tries(head: &RequestHead) -> usize {
    let count = |text: &[u8]| text.windows(6).filter(|w| w == b"token=").count();
    let fields = [Name::Referer, Name::Cookie];
    let in_fields = fields.iter().flat_map(|name| head.fields.all(*name)).map(count);
    (count(head.target().as_bytes()) + in_fields.sum::<usize>()).max(1)
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
