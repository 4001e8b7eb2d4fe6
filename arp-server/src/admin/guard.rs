//! Who may come to the admin port: programs and people that know the key, and no web page that the operator happens
//! to have open.
//!
//! A page of another site could send requests to a port on loopback: it is known by `Origin` and `Sec-Fetch-Site`. One
//! that changes what its own name resolves to would look like the same site: it is known by its name in `Host`, so
//! only addresses and `localhost` are taken there. The key is no cookie, so a browser never adds it by itself.

use crate::live::Live;
use arp_common::protocol::Secret;
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use std::net::IpAddr;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

/// Time that a wrong key waits for its answer; they are answered one after the other.
const WRONG_KEY: Duration = Duration::from_secs(1);
/// Wrong keys that may wait; more are refused at once.
const WRONG_KEYS: usize = 8;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    Host,
    Site,
    NoKey,
    WrongKey,
    TooMany,
}

impl Denied {
    /// Status, code, and what to do.
    pub(super) fn told(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Host => (
                403,
                "host_not_allowed",
                "the admin port is reached by an address or as localhost, not by a name: names can be made to point here \
                 by anybody",
            ),
            Self::Site => (
                403,
                "origin_not_allowed",
                "this request comes from a page of another site; open the admin page itself",
            ),
            Self::NoKey => (
                401,
                "key_required",
                "send the admin key as `Authorization: Bearer KEY`; it is in the file admin-key of the relay's data \
                 directory",
            ),
            Self::WrongKey => (
                401,
                "wrong_key",
                "this is not the admin key; it is in the file admin-key of the relay's data directory",
            ),
            Self::TooMany => (429, "too_many_wrong_keys", "too many wrong keys; wait a moment"),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Guard {
    key: Live<Secret>,
    turn: Semaphore,
    line: Semaphore,
}

impl Guard {
    /// For whoever knows this key.
    pub fn new(key: Secret) -> Self {
        Self {
            key: Live::new(key),
            turn: Semaphore::new(1),
            line: Semaphore::new(WRONG_KEYS),
        }
    }

    /// Wants another key from now on.
    pub fn set_key(&self, key: Secret) {
        self.key.set(key);
    }

    /// Does the request come from where it may?
    pub(super) fn site(&self, head: &HeaderMap) -> Result<(), Denied> {
        let host = only(head, &HOST).ok_or(Denied::Host)?;
        if !is_address(host) {
            return Err(Denied::Host);
        }
        same_site(head, host)
    }

    /// Does it show the key? A wrong one waits.
    pub(super) async fn key(&self, head: &HeaderMap) -> Result<(), Denied> {
        let shown = only(head, &AUTHORIZATION).ok_or(Denied::NoKey)?;
        let (scheme, shown) = shown.split_once(' ').ok_or(Denied::NoKey)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Denied::NoKey);
        }
        // Only its length can show, and that says nothing of a random key.
        if self
            .key
            .get()
            .expose()
            .as_bytes()
            .ct_eq(shown.trim().as_bytes())
            .into()
        {
            return Ok(());
        }
        let _place = self.line.try_acquire().map_err(|_| Denied::TooMany)?;
        let _turn = self.turn.acquire().await.map_err(|_| Denied::TooMany)?;
        tokio::time::sleep(WRONG_KEY).await;
        Err(Denied::WrongKey)
    }
}

/// For those that need no key: is it at least no page of another site?
pub(super) fn same_site(head: &HeaderMap, host: &str) -> Result<(), Denied> {
    if head.contains_key(ORIGIN) {
        let origin = only(head, &ORIGIN).ok_or(Denied::Site)?;
        let of = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        if !of.is_some_and(|of| of.eq_ignore_ascii_case(host)) {
            return Err(Denied::Site);
        }
    }
    if head.contains_key(&FETCH_SITE) && !matches!(only(head, &FETCH_SITE), Some("same-origin" | "none")) {
        return Err(Denied::Site);
    }
    Ok(())
}

/// The value of a field that is there exactly once.
pub(super) fn only<'a>(head: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = head.get_all(name).iter();
    let first = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(first)
}

/// An IP address or `localhost`, with or without a port?
fn is_address(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((ip, port)) if port.is_empty() || port.starts_with(':') => ip,
            _ => return false,
        },
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
        let fields = fields.iter();
        fields
            .map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn pages_of_other_sites_and_names_that_point_here_are_refused() {
        let guard = Guard::new(Secret::new("k"));
        let ok = |fields: &[_]| guard.site(&head(fields));
        for host in [
            "127.0.0.1:17004",
            "localhost:17004",
            "[::1]:17004",
            "10.0.0.7",
            "LOCALHOST",
        ] {
            assert_eq!(ok(&[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example:17004",
            "localhost.evil.example",
            "[::1]x",
            "",
        ] {
            assert_eq!(ok(&[("host", host)]), Err(Denied::Host), "{host}");
        }
        assert_eq!(ok(&[]), Err(Denied::Host));
        let here = ("host", "127.0.0.1:17004");
        for (origin, wanted) in [
            ("http://127.0.0.1:17004", Ok(())),
            ("http://127.0.0.1:3000", Err(Denied::Site)),
            ("https://evil.example", Err(Denied::Site)),
            ("null", Err(Denied::Site)),
        ] {
            assert_eq!(ok(&[here, ("origin", origin)]), wanted, "{origin}");
        }
        for (site, wanted) in [
            ("same-origin", Ok(())),
            ("none", Ok(())),
            ("same-site", Err(Denied::Site)),
            ("cross-site", Err(Denied::Site)),
        ] {
            assert_eq!(ok(&[here, ("sec-fetch-site", site)]), wanted, "{site}");
        }
        let mut twice = head(&[here]);
        twice.append(HOST, "localhost".parse().unwrap());
        assert_eq!(guard.site(&twice), Err(Denied::Host));
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_wait_one_after_the_other_and_the_key_never() {
        let guard = Guard::new(Secret::new("right"));
        let with = |key: &str| head(&[("authorization", &format!("Bearer {key}"))]);
        let begin = tokio::time::Instant::now();
        assert_eq!(guard.key(&with("right")).await, Ok(()));
        assert_eq!(guard.key(&head(&[])).await, Err(Denied::NoKey));
        assert_eq!(
            guard.key(&head(&[("authorization", "Basic right")])).await,
            Err(Denied::NoKey)
        );
        assert!(begin.elapsed().is_zero());
        let wrong = with("wrong");
        let mut guesses = Vec::new();
        for _ in 0..WRONG_KEYS + 3 {
            guesses.push(guard.key(&wrong));
        }
        let answers = futures_join(guesses).await;
        assert_eq!(answers.iter().filter(|a| **a == Err(Denied::TooMany)).count(), 3);
        assert!(begin.elapsed() >= WRONG_KEY * u32::try_from(WRONG_KEYS).unwrap());
    }

    /// Drives all of them at once.
    async fn futures_join<F: Future>(all: Vec<F>) -> Vec<F::Output> {
        let mut all: Vec<_> = all.into_iter().map(|f| (Box::pin(f), None)).collect();
        std::future::poll_fn(|cx| {
            let mut open = false;
            for (future, output) in &mut all {
                if output.is_none() {
                    match future.as_mut().poll(cx) {
                        std::task::Poll::Ready(value) => *output = Some(value),
                        std::task::Poll::Pending => open = true,
                    }
                }
            }
            if open {
                std::task::Poll::Pending
            } else {
                std::task::Poll::Ready(())
            }
        })
        .await;
        all.into_iter().filter_map(|(_, output)| output).collect()
    }
}
