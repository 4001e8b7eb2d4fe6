//! What becomes of a request: the route it takes, or the refusal it gets. The same for every kind of visitor.

use super::Public;
use super::answer::{Refusal, Rendered, Who};
use super::rewrite::Visitor;
use super::route::{Decision, Route, Site, route, wants_html};
use crate::defaults::{GUESS_RETRY, NAMES_A_TURN};
use crate::guesses::Standing;
use crate::h1::head::{Name, RequestHead};
use crate::registry::Client;
use arp_common::ids::Token;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

impl Public {
    /// Where a request goes that came over the connection from `peer`.
    ///
    /// # Errors
    /// What the visitor is told instead.
    pub(super) async fn decide(
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
        let decision = route(head, site, &*self.registry);
        let token = match &decision {
            Decision::Go(route) => Some(&route.token),
            // It, too, tells that a token is right.
            Decision::Redirect(_, token) => Some(token),
            Decision::NoToken => return Err(Refusal::no_token()),
            Decision::Unknown => None,
        };
        self.withhold(head, visitor, peer, token).await?;
        match decision {
            Decision::Go(route) => Ok(route),
            Decision::Redirect(location, _) => Err(Refusal::redirect(307, location)),
            Decision::NoToken | Decision::Unknown => Err(Refusal::unknown_token()),
        }
    }

    /// Has an address that guesses wait before it is told about a name; `token` is the one it found, if it
    /// found one.
    async fn withhold(
        &self,
        head: &RequestHead,
        visitor: &Visitor,
        peer: SocketAddr,
        token: Option<&Token>,
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
    pub(super) fn own(&self, refusal: &Refusal, head: Option<&RequestHead>, visitor: &Visitor) -> Rendered {
        let mut answer = refusal.render(head.is_some_and(wants_html));
        answer.hsts = match head {
            Some(head) => self.hsts(head, visitor),
            None => self.limits.hsts.filter(|_| visitor.tls),
        };
        answer
    }

    /// Seconds of HSTS for an answer to this visitor.
    pub(super) fn hsts(&self, head: &RequestHead, visitor: &Visitor) -> Option<u64> {
        self.limits.hsts.filter(|_| visitor.scheme(head) == "https")
    }

    /// Whose guess it is: behind trusted proxies, the last address that one of them has seen and that is not
    /// itself one of them.
    fn source(&self, head: &RequestHead, visitor: &Visitor) -> IpAddr {
        if !visitor.trusted {
            return visitor.ip;
        }
        let told: Vec<IpAddr> = head
            .fields
            .members(Name::XForwardedFor)
            .filter_map(|m| std::str::from_utf8(m).ok()?.trim().parse().ok())
            .collect();
        let outside = told.iter().rev().find(|ip| !self.trusts(**ip));
        outside.copied().unwrap_or(visitor.ip)
    }
}

/// Is this a name of 128 bits, as derived client ids and tokens of `arpc tokens add` are? Slowness would protect
/// it no further.
fn unguessable(token: &Token) -> bool {
    let token = token.as_str();
    token.len() == 32 && token.bytes().all(|b| b.is_ascii_hexdigit())
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
