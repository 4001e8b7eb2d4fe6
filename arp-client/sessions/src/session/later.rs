//! A process that cannot be started yet, because its agent cannot open the session now.

use super::actor::Actor;
use super::apply::OwnEvent;
use super::launch::NO_EXIT;
use crate::clock;
use crate::error::SessionError;
use crate::model::Status;
use arp_agents::agent::{Agent, LaunchOptions, Resume};

impl Actor {
    /// When the agent can open the session, if that is still to come.
    pub(super) fn too_early(&self, agent: &dyn Agent, options: &LaunchOptions) -> Option<u64> {
        let opens = !matches!(options.resume, Resume::New) && self.meta.opened_ms > 0;
        let at = opens.then(|| agent.reopens_at(self.meta.opened_ms))?;
        (at > clock::now_ms()).then_some(at)
    }

    /// Tells that the process is started at this time; [`Actor::on_time`] does it.
    pub(super) fn start_later(&mut self, at: u64, agent: &str) -> Result<(), SessionError> {
        if self.meta.starts_ms.replace(at).is_some() {
            return Ok(());
        }
        self.now_ms = clock::now_ms();
        self.fresh = true;
        let seconds = at.saturating_sub(self.now_ms).div_ceil(1000);
        self.meta.status = Status::Starting;
        (self.meta.error, self.meta.ended_ms) = (None, None);
        (self.meta.exit_code, self.meta.exit_signal) = (None, None);
        self.emit(&OwnEvent::Status {
            status: Status::Starting,
            message: Some(&format!(
                "{agent} cannot open a session twice within one minute of the clock, so it is started in {seconds} s; \
                 what you say waits until then"
            )),
            exit_code: None,
            exit_signal: None,
        });
        self.meta.activity = Some(format!("Waiting {seconds} s for {agent}"));
        self.end_batch(self.events_from)?;
        self.save();
        Ok(())
    }

    /// The time has come to start the process that [`Self::start_later`] put off.
    pub(super) async fn start_if_due(&mut self) {
        if self.run.is_some() || self.meta.starts_ms.is_none_or(|at| at > clock::now_ms()) {
            return;
        }
        self.meta.starts_ms = None;
        if let Err(error) = self.start().await {
            self.now_ms = clock::now_ms();
            self.set_status(Status::Failed, Some(error.to_string()), NO_EXIT);
            if let Err(error) = self.end_batch(self.events_from) {
                tracing::error!(session = self.meta.id, %error, "cannot write events");
            }
        }
    }

    /// Nothing is started later any more.
    pub(super) fn put_off_no_more(&mut self, status: Status) -> Result<(), SessionError> {
        if self.meta.starts_ms.take().is_some() {
            self.set_status(status, None, NO_EXIT);
            self.end_batch(self.events_from)?;
            self.save();
        }
        Ok(())
    }
}
