//! What the rooms of the public port share: what the operator set, who is registered, who is connected, who
//! guesses; and what is known of the visitor of a request. A leaf: it serves nobody.

use crate::http::{Name, RequestHead, valid_host};
use crate::registry::Registry;
use crate::routing::guesses::Guesses;
use crate::tcp::RawLimits;
use crate::tcp::postgres::cancel::Cancels;
use crate::visitor::census::{Census, ConnPermit};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;

/// What the operator set for the public port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicLimits {
    /// Time from the first byte of a head to its last.
    pub head_timeout: Duration,
    /// Time a connection may stay without a request.
    pub keep_alive: Duration,
    /// Time the local service may take to begin its answer.
    pub response_timeout: Duration,
    /// Domain whose subdomains are tokens.
    pub domain: Option<String>,
    /// Networks of proxies whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Networks of balancers whose connections begin with a header of the PROXY protocol.
    pub balancers: Vec<IpNet>,
    /// Host and port of the URL that the operator has given, by which visitors come.
    pub public_host: Option<String>,
    /// Seconds for which browsers are to come by HTTPS only.
    pub hsts: Option<u64>,
    /// How long raw connections may last.
    pub raw: RawLimits,
}

/// What all visitor connections share.
pub struct Public {
    /// Who is registered.
    pub registry: Arc<Registry>,
    /// What the operator set.
    pub limits: PublicLimits,
    /// Who is connected.
    pub census: Arc<Census>,
    /// Who asks for names that do not exist.
    pub(crate) guesses: Arc<Guesses>,
    /// TLS, if the relay has a certificate; then plain HTTP is only good for being sent to HTTPS.
    pub tls: Option<TlsAcceptor>,
    /// By which keys their queries can be cancelled.
    pub(crate) cancels: Arc<Cancels>,
}

impl std::fmt::Debug for Public {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Public").finish_non_exhaustive()
    }
}

impl Public {
    /// The same with other limits.
    pub(crate) fn with(&self, limits: PublicLimits) -> Self {
        Self {
            registry: self.registry.clone(),
            limits,
            census: self.census.clone(),
            guesses: self.guesses.clone(),
            tls: self.tls.clone(),
            cancels: self.cancels.clone(),
        }
    }

    /// Is this the address of a proxy whose word counts?
    pub fn trusts(&self, ip: IpAddr) -> bool {
        self.limits.trusted_proxies.iter().any(|net| net.contains(&ip))
    }

    /// Do connections from here begin with a header of the PROXY protocol?
    pub fn is_balancer(&self, ip: IpAddr) -> bool {
        self.limits.balancers.iter().any(|net| net.contains(&ip))
    }

    /// A permit for a new connection, or `None` when there are too many. Behind a balancer it is only one of the total.
    pub fn admit(&self, ip: IpAddr) -> Option<ConnPermit> {
        self.census.admit(ip, self.trusts(ip) || self.is_balancer(ip))
    }
}

/// Who sent a request, as far as the relay may believe it.
#[derive(Debug, Clone, Copy)]
pub struct Visitor {
    /// Address of the connection's other end.
    pub ip: IpAddr,
    /// Does that address belong to a proxy whose `X-Forwarded-*` is to be believed?
    pub trusted: bool,
    /// Did the connection come over TLS?
    pub tls: bool,
}

impl Visitor {
    /// Host and port, as the person at the other end sees them.
    pub fn host<'a>(&self, head: &'a RequestHead) -> Option<&'a str> {
        let mut told = head.fields.all(Name::XForwardedHost).filter(|_| self.trusted);
        match (told.next(), told.next()) {
            // Of several, nobody can tell which is true.
            (Some(host), None) if valid_host(host) => std::str::from_utf8(host).ok(),
            _ => head.host(),
        }
    }

    /// `https` or `http`, as the person at the other end sees it.
    pub fn scheme(&self, head: &RequestHead) -> &'static str {
        let told = head.fields.first(Name::XForwardedProto).filter(|_| self.trusted);
        match told {
            Some(proto) if proto.eq_ignore_ascii_case(b"https") => "https",
            Some(_) => "http",
            None if self.tls => "https",
            None => "http",
        }
    }
}
