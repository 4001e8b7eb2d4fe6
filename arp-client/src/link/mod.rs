//! The link to the relay: connect, register, show that we live, open tunnels when asked, come back when
//! it is lost.

mod backoff;
mod channel;
mod dial;
mod outage;
mod tunnel;

pub use channel::LinkError;
pub use dial::Dialer;
pub use tunnel::Handler;

use crate::config::{Config, Public};
use crate::defaults as d;
use crate::standing::Standing;
use crate::tokens::Names;
use arp_common::stop::Stop;
use backoff::Backoff;
use outage::{Blocked, Outage};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Keeps an edge agent registered with its relay.
pub struct Link {
    config: Arc<Config>,
    dialer: Arc<Dialer>,
    names: Arc<Names>,
    handler: Arc<Handler>,
    tunnels: TaskTracker,
    /// Can tunnels not be opened?
    blocked: Arc<Blocked>,
    /// A relay of version 1 that closes a channel on which it hears a second registration.
    renew_by_reconnecting: AtomicBool,
    /// For `arpc status`.
    standing: Arc<Standing>,
    /// Ends tunnels that wait for their first use.
    idle: CancellationToken,
    /// Ends all tunnels.
    kill: Stop,
}

impl Link {
    /// A link that serves tunnels with `handler`.
    pub fn new(
        config: Arc<Config>,
        dialer: Dialer,
        names: Arc<Names>,
        handler: Arc<Handler>,
        standing: Arc<Standing>,
    ) -> Self {
        Self {
            config,
            dialer: Arc::new(dialer),
            names,
            handler,
            tunnels: TaskTracker::new(),
            blocked: Arc::default(),
            renew_by_reconnecting: AtomicBool::new(false),
            standing,
            idle: CancellationToken::new(),
            kill: Stop::default(),
        }
    }

    /// Stays registered until `stop` is cancelled, then leaves and lets exchanges finish within the grace
    /// period. `registered` is called at each registration.
    ///
    /// # Errors
    /// If the relay cannot be reached at first, does not want us, or is lost and we are not to reconnect.
    pub async fn run(
        &self,
        stop: CancellationToken,
        mut registered: impl FnMut(&Public),
    ) -> Result<(), LinkError> {
        let result = self.stay(&stop, &mut registered).await;
        self.idle.cancel();
        self.tunnels.close();
        // Idle tunnels end at once, by us or by the relay: what is left then is under way.
        let at_once = tokio::time::timeout(d::AT_ONCE, self.tunnels.wait()).await;
        if at_once.is_err() && stop.is_cancelled() {
            tracing::info!(
                "waiting up to {} s for {} exchanges that are under way",
                d::GRACE.as_secs(),
                self.tunnels.len()
            );
        }
        let _ = tokio::time::timeout(d::GRACE, self.tunnels.wait()).await;
        self.kill.give();
        self.tunnels.wait().await;
        result
    }

    async fn stay(
        &self,
        stop: &CancellationToken,
        registered: &mut impl FnMut(&Public),
    ) -> Result<(), LinkError> {
        let mut backoff = Backoff::new(d::RECONNECT_FIRST, self.config.reconnect_interval);
        let start = Instant::now();
        let mut ever = false;
        let mut outage = Outage::default();
        loop {
            let mut up = false;
            let Err(error) = channel::serve(self, stop, |public| {
                up = true;
                outage.over();
                self.standing.registered(public.url.clone());
                registered(public);
            })
            .await
            else {
                return Ok(());
            };
            ever |= up;
            if up {
                backoff.reset();
            }
            if stop.is_cancelled() {
                return Ok(());
            }
            // A token that was added while running must not take the whole edge with it.
            let without = matches!(error, LinkError::Refused(_, true)) && self.names.doubt();
            let give_up = !without
                && (error.is_final()
                    || (!ever && error.is_final_at_first())
                    || !self.config.auto_reconnect
                    || (!ever && start.elapsed() > d::FIRST_CONNECT));
            if give_up {
                return Err(error);
            }
            self.blocked.lost();
            self.standing.lost(error.to_string());
            outage.failed(error);
            let pause = backoff.next();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }
}
