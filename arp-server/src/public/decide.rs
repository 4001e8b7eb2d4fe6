//! What becomes of a request: the route it takes, or the refusal it gets. The same for every kind of visitor.

use super::Public;
use super::answer::{Refusal, Who};
use super::rewrite::Visitor;
use super::route::{Decision, Route, Site, route};
use crate::defaults::GUESS_RETRY;
use crate::guesses::Standing;
use crate::h1::head::{Name, RequestHead};
use crate::registry::Client;
use std::net::IpAddr;
use std::sync::Arc;

impl Public {
    /// Where a request goes.
    ///
    /// # Errors
    /// What the visitor is told instead.
    pub(super) fn decide(
        &self,
        head: &RequestHead,
        visitor: &Visitor,
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
        match route(head, site, &*self.registry) {
            Decision::Go(route) => {
                let name = || self.registry.hash(route.token.as_str());
                if self.guesses.admits(self.source(head, visitor), name) {
                    Ok(route)
                } else {
                    Err(too_many())
                }
            }
            // A redirect, too, would tell that a token is right.
            Decision::Redirect(_)
                if self.guesses.standing(self.source(head, visitor)) == Standing::Guessing =>
            {
                Err(too_many())
            }
            Decision::Redirect(location) => Err(Refusal::redirect(307, location)),
            Decision::NoToken => Err(Refusal::no_token()),
            Decision::Unknown => match self.guesses.miss(self.source(head, visitor), tries(head)) {
                Standing::Good => Err(Refusal::unknown_token()),
                Standing::Doubtful | Standing::Guessing => Err(too_many()),
            },
        }
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
