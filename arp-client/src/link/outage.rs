//! What a person is told while the relay, or its proxy port, cannot be reached: the reason once, and then now and then
//! that it is still so.

use super::LinkError;
use std::io;
use std::mem::discriminant;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often it is said again that something is still not right.
const REMIND: Duration = Duration::from_secs(600);
/// Time that tunnels must have failed before it is said.
const CONFIRM: Duration = Duration::from_secs(1);

/// The time without a relay.
#[derive(Debug, Default)]
pub(super) struct Outage(Option<Told>);

#[derive(Debug)]
struct Told {
    since: Instant,
    last: Instant,
    error: LinkError,
}

impl Outage {
    /// The relay was lost, or could not be reached (again).
    pub(super) fn failed(&mut self, error: LinkError) {
        let now = Instant::now();
        let Some(told) = &mut self.0 else {
            // Who reads a command to copy wants it alone on its line.
            let text = error.to_string();
            let more = if text.contains('\n') { "\n" } else { "; " };
            tracing::warn!("{text}{more}connecting again until it is back");
            let (since, last) = (now, now);
            self.0 = Some(Told { since, last, error });
            return;
        };
        let new = !(error.is_absence() && told.error.is_absence())
            && (discriminant(&error) != discriminant(&told.error)
                || error.to_string() != told.error.to_string());
        if new {
            tracing::warn!("{error}");
        } else if told.last.elapsed() >= REMIND {
            let minutes = told.since.elapsed().as_secs() / 60;
            tracing::warn!("still without a relay after {minutes} min: {error}");
        } else {
            tracing::debug!("not yet: {error}");
            return;
        }
        told.last = now;
        told.error = error;
    }

    /// The relay is there again.
    pub(super) fn over(&mut self) {
        if let Some(told) = self.0.take() {
            let after = told.since.elapsed().as_secs();
            tracing::info!("registered again with the relay, after {after} s");
        }
    }
}

/// Tunnels that cannot be opened. Each request of the relay for one fails then, many a second.
#[derive(Debug, Default)]
pub(super) struct Blocked(Mutex<Trouble>);

#[derive(Debug, Default)]
struct Trouble {
    /// Changes when a tunnel was opened, or the relay was lost: what failed before says nothing any more.
    epoch: u64,
    /// Has one failed in this epoch?
    failed: bool,
    told: Option<Instant>,
}

impl Blocked {
    fn lock(&self) -> MutexGuard<'_, Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A tunnel could not be opened. Waits a moment before it says so: a relay that ends takes its proxy port with it
    /// first, and that is no news.
    pub(super) async fn failed(&self, host: &str, port: u16, error: &LinkError) {
        tracing::debug!("cannot open a tunnel: {error}");
        let epoch = {
            let mut trouble = self.lock();
            if std::mem::replace(&mut trouble.failed, true)
                && trouble.told.is_none_or(|t| t.elapsed() < REMIND)
            {
                return;
            }
            trouble.epoch
        };
        tokio::time::sleep(CONFIRM).await;
        {
            let mut trouble = self.lock();
            if trouble.epoch != epoch || trouble.told.is_some_and(|t| t.elapsed() < REMIND) {
                return;
            }
            trouble.told = Some(Instant::now());
        }
        let why = match error {
            LinkError::Unreachable(.., why) | LinkError::NoTls(.., why) => why.clone(),
            other => other.to_string(),
        };
        tracing::warn!(
            "cannot open tunnels to the relay at {host} port {port}: {why}. Visitors are told 504 until that works. Is \
             the port open in the relay's firewall, and is it the relay's proxy port (--proxy-port)?"
        );
    }

    /// A tunnel was opened.
    pub(super) fn works(&self) {
        let mut trouble = self.lock();
        if std::mem::take(&mut trouble.failed) {
            trouble.epoch += 1;
            if trouble.told.take().is_some() {
                tracing::info!("tunnels to the relay can be opened again");
            }
        }
    }

    /// The relay was lost.
    pub(super) fn lost(&self) {
        let mut trouble = self.lock();
        trouble.epoch += 1;
        trouble.failed = false;
    }
}

/// What went wrong with a connection, in words that need no manual.
pub(super) fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there".to_owned(),
        io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            "there is no way to it; is this machine online?".to_owned()
        }
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            "the connection broke off".to_owned()
        }
        io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        _ if error.to_string().starts_with("failed to lookup address") => {
            "no such host is known to this machine".to_owned()
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_in_our_words() {
        for (kind, words) in [
            (io::ErrorKind::ConnectionRefused, "nothing listens there"),
            (io::ErrorKind::ConnectionReset, "the connection broke off"),
        ] {
            let error = io::Error::new(kind, "os error 1");
            assert_eq!(in_words(&error), words);
        }
    }
}
