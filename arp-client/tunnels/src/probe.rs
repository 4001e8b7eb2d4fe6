//! Does the public URL lead to us? A request with a number that was never used before goes there; our front, and
//! nobody else, sees that number come in and knows the answer to it. Another site's 200 proves nothing.

use crate::defaults as d;
use crate::get;
use http::Uri;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where probes go, before their number.
pub(crate) const PATH: &str = "/.well-known/arp/probe/";
/// Header of an answer to a probe.
pub(crate) const HEADER: &str = "x-arp-probe";

/// What a probe told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The settings say not to ask.
    NotAsked,
    /// It came to our front, and the answer came back.
    Proven(Duration),
    /// It came to our front, but what came back was not our answer.
    OneWay(String),
    /// Nothing answers there, as seen from this machine. Not every machine can reach its own public name.
    Unreachable(String),
    /// Somebody on the way wants a login first.
    Gated(String),
    /// Somebody else answers there.
    Wrong(String),
}

/// Asks a public URL whether it leads to us.
pub trait Probe: Send + Sync {
    /// One question.
    fn probe(&self, url: &str) -> impl Future<Output = ProbeOutcome> + Send;
}

/// The numbers that are on their way, shared with the front. Each counts once.
#[derive(Debug, Clone)]
pub struct Nonces {
    secret: [u8; 32],
    waiting: Arc<Mutex<HashMap<String, bool>>>,
}

impl Nonces {
    /// None yet; with a secret of this run.
    #[must_use]
    pub fn new() -> Self {
        Self {
            secret: rand::random(),
            waiting: Arc::default(),
        }
    }

    fn send(&self) -> String {
        let nonce = format!("{:032x}", rand::random::<u128>());
        self.waiting().insert(nonce.clone(), false);
        nonce
    }

    /// A request for this path came in: the answer, if it is one of ours.
    pub(crate) fn arrived(&self, path: &str) -> Option<String> {
        let nonce = path.strip_prefix(PATH)?;
        *self.waiting().get_mut(nonce)? = true;
        Some(self.answer(nonce))
    }

    /// Forgets it. Has it come in?
    fn done(&self, nonce: &str) -> bool {
        self.waiting().remove(nonce).unwrap_or(false)
    }

    fn answer(&self, nonce: &str) -> String {
        let digest = Sha256::new()
            .chain_update(self.secret)
            .chain_update(nonce.as_bytes())
            .finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, bool>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Nonces {
    fn default() -> Self {
        Self::new()
    }
}

/// The real one: asks over the network.
#[derive(Debug, Clone)]
pub struct Prober {
    nonces: Nonces,
    asks: bool,
}

impl Prober {
    /// For a front that has the same numbers. One that asks nothing proves nothing.
    #[must_use]
    pub fn new(nonces: Nonces, asks: bool) -> Self {
        Self { nonces, asks }
    }
}

/// Takes a number back when it is dropped: a probe that is given up leaves nothing.
struct Sent<'a>(&'a Nonces, String);

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        self.0.done(&self.1);
    }
}

impl Probe for Prober {
    async fn probe(&self, url: &str) -> ProbeOutcome {
        if !self.asks {
            return ProbeOutcome::NotAsked;
        }
        let sent = Sent(&self.nonces, self.nonces.send());
        let Some(target) = target(url, &sent.1) else {
            return ProbeOutcome::Wrong(format!("{url} is not an address of the web"));
        };
        // ngrok shows browsers a page of its own, unless this header is there.
        let headers = [("ngrok-skip-browser-warning", "1"), ("cache-control", "no-cache")];
        let started = Instant::now();
        let answer = get::get(&target, &headers, d::PROBE).await;
        let arrived = self.nonces.done(&sent.1);
        match answer {
            Ok(answer) if answer.body.trim_ascii() == self.nonces.answer(&sent.1).as_bytes() => {
                ProbeOutcome::Proven(started.elapsed())
            }
            Ok(answer) if arrived => ProbeOutcome::OneWay(format!(
                "our answer was changed on the way (status {})",
                answer.status
            )),
            Err(why) if arrived => ProbeOutcome::OneWay(format!("our answer did not come back: {why}")),
            Err(why) => ProbeOutcome::Unreachable(why),
            Ok(answer) => unproven(&answer),
        }
    }
}

fn unproven(answer: &get::Answer) -> ProbeOutcome {
    let status = answer.status;
    match status {
        301..=308 | 401 | 403 | 407 => {
            let to = answer.headers.get("location").and_then(|to| to.to_str().ok());
            let host = to
                .and_then(|to| to.parse::<Uri>().ok())
                .and_then(|uri| uri.host().map(|host| format!(" (to {host})")));
            ProbeOutcome::Gated(format!("status {status}{}", host.unwrap_or_default()))
        }
        429 => ProbeOutcome::Unreachable("the service answers 429: too many requests".into()),
        _ => ProbeOutcome::Wrong(format!("status {status} from somebody else")),
    }
}

/// The address of a probe: the path is ours, the query (a relay's token) stays.
fn target(url: &str, nonce: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some(format!("{scheme}://{authority}{PATH}{nonce}{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_once_and_only_if_it_was_sent() {
        let nonces = Nonces::new();
        let nonce = nonces.send();
        assert_eq!(nonces.arrived("/.well-known/arp/probe/0123"), None);
        assert_eq!(nonces.arrived(&format!("/x{PATH}{nonce}")), None);
        let answer = nonces.arrived(&format!("{PATH}{nonce}")).unwrap();
        assert_ne!(answer, nonce);
        assert_ne!(
            Nonces::new().answer(&nonce),
            answer,
            "another run answers otherwise"
        );
        assert!(nonces.done(&nonce) && !nonces.done(&nonce));
        assert_eq!(nonces.arrived(&format!("{PATH}{nonce}")), None);
    }

    #[test]
    fn the_query_stays_for_a_relay_wants_its_token() {
        assert_eq!(
            target("http://relay:17003/?token=x", "n").unwrap(),
            "http://relay:17003/.well-known/arp/probe/n?token=x"
        );
        assert_eq!(
            target("https://a.example", "n").unwrap(),
            "https://a.example/.well-known/arp/probe/n"
        );
        assert_eq!(target("tcp://a.example:1", "n"), None);
    }
}
