//! Is it really up? What the backend says and what the public URL says, put together.

use super::Supervisor;
use crate::defaults as d;
use crate::probe::{Probe, ProbeOutcome};
use crate::{Change, Check, Tunnel, TunnelError, TunnelHealth, TunnelInfo};
use tokio::time::{Instant, sleep};

impl<T: Tunnel, P: Probe> Supervisor<T, P> {
    /// Asks the public URL until it leads to us, or until it is plain that this cannot be known from here.
    pub(super) async fn verify(&mut self, info: &TunnelInfo) -> Result<TunnelHealth, TunnelError> {
        let url = info.public_url.clone();
        if self.last_url.as_ref() != Some(&url) {
            // What was known of another name says nothing of this one.
            self.reachable = false;
        }
        self.say(|view| view.progress = Some(format!("{url} is up; asking whether it leads here")));
        let start = Instant::now();
        let mut pause = d::PROBE_STEP;
        loop {
            let outcome = self.probe.probe(&url).await;
            let waited = start.elapsed();
            let good_enough = match &outcome {
                ProbeOutcome::Proven(_) | ProbeOutcome::NotAsked | ProbeOutcome::Gated(_) => true,
                ProbeOutcome::OneWay(_) => waited >= d::UNREACHABLE_PATIENCE,
                ProbeOutcome::Unreachable(_) => {
                    waited >= d::UNREACHABLE_PATIENCE && (!self.reachable || !info.through_front)
                }
                ProbeOutcome::Wrong(_) => !info.through_front,
            };
            if good_enough {
                let mut health = self.ask_backend().await;
                self.judge(&mut health, &outcome, info);
                if health.healthy {
                    return Ok(health);
                }
                if waited >= d::PROBE_PATIENCE {
                    return Err(TunnelError::passing(format!(
                        "it came up, but {}",
                        health.complaint()
                    )));
                }
            }
            if waited >= d::PROBE_PATIENCE {
                return Err(not_us(&url, &outcome));
            }
            let words = words(&outcome);
            self.say(|view| view.progress = Some(format!("{url} does not lead here yet: {words}")));
            tokio::select! {
                () = sleep(pause) => {}
                change = self.tunnel.changed() => match change {
                    Change::Ended(error) => return Err(error),
                    Change::Url(new) => {
                        let text = format!("its address changed while it came up, to {new}");
                        return Err(TunnelError::passing(text));
                    }
                },
            }
            pause = (pause * 2).min(d::PROBE_STEP_MAX);
        }
    }

    /// One look at everything.
    pub(super) async fn look(&mut self, info: &TunnelInfo) -> TunnelHealth {
        let mut health = self.ask_backend().await;
        let outcome = self.probe.probe(&info.public_url).await;
        self.judge(&mut health, &outcome, info);
        health
    }

    /// Adds what the public URL told.
    fn judge(&mut self, health: &mut TunnelHealth, outcome: &ProbeOutcome, info: &TunnelInfo) {
        if let ProbeOutcome::Proven(_) = outcome {
            self.reachable = true;
        }
        let words = words(outcome);
        health.proven = matches!(outcome, ProbeOutcome::Proven(_));
        health.public = match outcome {
            ProbeOutcome::Proven(_) => Check::Good(words),
            ProbeOutcome::OneWay(_) => Check::Bad(words),
            ProbeOutcome::NotAsked => Check::Unknown(words),
            ProbeOutcome::Gated(_) => Check::Unknown(format!(
                "{words}: somebody on the way wants a login, so only the backend's own word is known"
            )),
            ProbeOutcome::Wrong(_) if info.through_front => Check::Bad(words),
            ProbeOutcome::Wrong(_) => Check::Unknown(format!(
                "{words}: requests do not pass here on their way, so only the backend's own word is known"
            )),
            ProbeOutcome::Unreachable(_) if self.reachable => Check::Bad(words),
            ProbeOutcome::Unreachable(_) => Check::Unknown(format!(
                "{words}: this machine cannot ask its own public name, so only the backend's own word is known"
            )),
        };
        health.healthy = !health.process.is_bad() && !health.backend.is_bad() && !health.public.is_bad();
    }
}

fn words(outcome: &ProbeOutcome) -> String {
    match outcome {
        ProbeOutcome::Proven(time) => format!("a request came back to us in {} ms", time.as_millis()),
        ProbeOutcome::NotAsked => {
            "not asked (probe = false in [tunnel]), so only the backend's own word is known".into()
        }
        ProbeOutcome::OneWay(why)
        | ProbeOutcome::Unreachable(why)
        | ProbeOutcome::Gated(why)
        | ProbeOutcome::Wrong(why) => why.clone(),
    }
}

fn not_us(url: &str, outcome: &ProbeOutcome) -> TunnelError {
    let why = words(outcome);
    TunnelError::passing(format!("{url} does not lead here: {why}"))
        .with_fix("if the name is your own, check that it is routed to this tunnel and to no other")
}
