//! Wrong secrets, counted by who gave them: guessing takes its time, whichever way it comes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::time::Instant;

/// Wrong secrets that one address may give …
const MOST: usize = 5;
/// … within this time. After that it is not even compared what it gives.
pub(crate) const WINDOW: Duration = Duration::from_secs(5);
/// A wrong secret is told after this.
const PAUSE: Duration = Duration::from_millis(500);
/// Addresses that are kept apart; more count as one.
const ADDRESSES: usize = 4096;

/// Who gave wrong secrets, and when.
#[derive(Debug, Default)]
pub(crate) struct Guesses(Mutex<HashMap<Option<IpAddr>, Vec<Instant>>>);

/// Too many wrong secrets from this address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Guesses {
    /// Is this the secret? A wrong one is counted, and told late.
    pub(crate) async fn fits(
        &self,
        from: Option<SocketAddr>,
        given: &str,
        secret: &str,
    ) -> Result<bool, TooMany> {
        if self.compare(from.map(|from| whole_net(from.ip())), given, secret)? {
            return Ok(true);
        }
        tokio::time::sleep(PAUSE).await;
        Ok(false)
    }

    /// Counted at once: many at a time, and those who do not wait for the answer, count alike.
    fn compare(&self, from: Option<IpAddr>, given: &str, secret: &str) -> Result<bool, TooMany> {
        let now = Instant::now();
        let recent = |time: &Instant| now.duration_since(*time) < WINDOW;
        let mut known = self.known();
        if known.len() >= ADDRESSES {
            known.retain(|_, times| times.iter().any(recent));
        }
        let from = from.filter(|from| known.len() < ADDRESSES || known.contains_key(&Some(*from)));
        if let Some(times) = known.get_mut(&from) {
            times.retain(recent);
            if times.len() >= MOST {
                return Err(TooMany);
            }
        }
        let right: bool = given.as_bytes().ct_eq(secret.as_bytes()).into();
        if !right {
            known.entry(from).or_default().push(now);
        }
        Ok(right)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Option<IpAddr>, Vec<Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One IPv6 visitor has a whole /64.
fn whole_net(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn guesses_of_one_address_run_out_and_those_of_others_do_not() {
        let guesses = Guesses::default();
        let from = |text: &str| Some(SocketAddr::new(text.parse().unwrap(), 1));
        // Whoever leaves before the answer is counted too.
        for _ in 0..MOST {
            assert_eq!(
                guesses.fits(from("2001:db8::1"), "wrong", "right").now_or_never(),
                None
            );
        }
        let right = |at: &'static str| guesses.fits(from(at), "right", "right").now_or_never();
        assert_eq!(right("2001:db8::2"), Some(Err(TooMany)));
        assert_eq!(right("192.0.2.1"), Some(Ok(true)));
        assert_eq!(right("2001:db8:0:1::1"), Some(Ok(true)));
        for _ in 0..2 * MOST {
            assert_eq!(right("192.0.2.1"), Some(Ok(true)));
        }
        assert_eq!(guesses.known().len(), 1, "right ones leave nothing behind");
    }
}
