//! A session's process: started, or put off because its agent cannot open the session now.

use super::actor::Actor;
use super::clocks::put_off;
use super::link::Link;
use crate::clock;
use crate::core::{FoundAgent, PastEvent};
use crate::error::SessionError;
use crate::host::{HostSpec, Mark};
use crate::hostlink::{self, HostLink};
use crate::log::{Kind, LogReader};
use crate::model::Status;
use arp_agents::agent::{Agent, LaunchOptions, Resume};
use std::ffi::OsString;

impl Actor {
    /// Starts the next process of the session, or sees to it that it is started as soon as the agent can open it.
    pub(super) async fn start(&mut self) -> Result<(), SessionError> {
        if !self.link.is_none() {
            return Err(SessionError::WrongState(
                "the session's process before this one is still being ended; try again in a moment".into(),
            ));
        }
        let found = self.core.agents.find(&self.state.meta.executor).await?;
        if self.held_elsewhere().await? {
            return Err(self.in_use());
        }
        let number = self.state.meta.runs;
        let used_before = self.state.meta.usage.clone().unwrap_or_default();
        let used_before = std::mem::replace(&mut self.state.meta.used_before, used_before);
        let options = self.state.options(number, found.agent.as_ref());
        let begun = match self.too_early(found.agent.as_ref(), &options) {
            Some(at) => self.start_later(at, found.agent.display_name()).await,
            None => self.start_now(&found, number, options).await,
        };
        if begun.is_err() {
            self.state.meta.used_before = used_before;
        }
        begun
    }

    /// Has a terminal opened the agent's session meanwhile?
    async fn held_elsewhere(&mut self) -> Result<bool, SessionError> {
        let meta = &self.state.meta;
        let begins = match &meta.beginning {
            crate::model::Beginning::Session { id, fork: false } if meta.turns == 0 => Some(id.clone()),
            _ => meta.agent_session_id.clone().filter(|_| meta.turns > 0),
        };
        let Some(id) = begins else { return Ok(false) };
        let (core, executor) = (self.core.clone(), meta.executor.clone());
        let holder = tokio::task::spawn_blocking(move || core.past.holder(&executor, &id))
            .await
            .map_err(|error| SessionError::Internal(error.to_string()))?;
        Ok(holder.is_some())
    }

    fn in_use(&self) -> SessionError {
        SessionError::InUse(format!(
            "another process has this session of {} open, a terminal perhaps; close it there, or fork the session",
            self.state.meta.executor
        ))
    }

    async fn start_now(
        &mut self,
        found: &FoundAgent,
        number: u32,
        options: LaunchOptions,
    ) -> Result<(), SessionError> {
        self.state.meta.starts_ms = None;
        let mut launch = found.agent.launch(&found.program, &options)?;
        let meta = &self.state.meta;
        self.core
            .agents
            .prepare(&meta.id, &meta.executor, &mut launch)
            .await?;
        let texts = |values: Vec<OsString>| values.into_iter().map(text).collect::<Result<_, _>>();
        // Nobody writes the log now, so its torn end, if there is one, may be cut.
        let end = self.raw_writer()?.end();
        let spec = HostSpec {
            dir: self.dir.path().to_owned(),
            session_id: self.state.meta.id.clone(),
            run: number,
            program: launch.program,
            args: texts(launch.args)?,
            env: launch
                .env
                .into_iter()
                .map(|(name, value)| Ok((text(name)?, text(value)?)))
                .collect::<Result<_, SessionError>>()?,
            env_remove: texts(launch.env_remove)?,
            cwd: launch.cwd,
            options: Some(options),
            above_seq: end.seq,
            above_line: end.line,
        };

        // First the record of the attempt: an arpc that dies now finds the host again.
        let meta = &mut self.state.meta;
        let before = (meta.status, meta.ended_ms, meta.run_after);
        meta.run_after = end.seq;
        meta.runs = number + 1;
        meta.status = Status::Starting;
        self.save();
        let started = HostLink::start(&self.core.config.host, &spec, &self.state.meta.left_running).await;
        match started {
            Ok(link) => self.link = Link::Up(link),
            Err(error) => {
                let meta = &mut self.state.meta;
                (meta.status, meta.ended_ms, meta.run_after) = before;
                meta.runs = number;
                hostlink::clean_up(&self.dir, &self.state.meta.id, &self.state.meta.left_running).await;
                self.save();
                if crate::log::is_full(&error) {
                    return Err(SessionError::DiskFull);
                }
                return Err(SessionError::AgentFailed(error.to_string()));
            }
        }
        // The start is in the log; with it the process is there.
        Box::pin(self.pump()).await?;
        Ok(())
    }

    /// When the agent can open the session, if that is still to come.
    fn too_early(&self, agent: &dyn Agent, options: &LaunchOptions) -> Option<u64> {
        let opened = self.state.meta.opened_ms;
        let opens = !matches!(options.resume, Resume::New) && opened > 0;
        let now = clock::now_ms();
        // A clock that was set back makes nobody wait for longer than the agent's own habit is.
        let at = opens.then(|| agent.reopens_at(opened.min(now)))?;
        (at > now).then_some(at)
    }

    /// Tells that the process is started at this time; [`Actor::start_if_due`] does it.
    async fn start_later(&mut self, at: u64, agent: &str) -> Result<(), SessionError> {
        if self.state.meta.starts_ms.replace(at).is_some() {
            return Ok(());
        }
        let seconds = at.saturating_sub(clock::now_ms()).div_ceil(1000);
        let message = format!(
            "{agent} cannot open a session twice within one minute of the clock, so it is started in {seconds} s; \
             what you say waits until then"
        );
        self.note_status(Status::Starting, Some(message)).await
    }

    /// Writes down where the session stands while it has no process.
    async fn note_status(&mut self, status: Status, message: Option<String>) -> Result<(), SessionError> {
        self.write_own(Kind::Mark, &Mark::Status { status, message })?;
        Box::pin(self.pump()).await?;
        self.save();
        Ok(())
    }

    /// The time has come to start the process that [`Self::start_later`] put off.
    pub(super) async fn start_if_due(&mut self) {
        let starts = self.state.meta.starts_ms;
        let due = starts.is_some_and(|at| put_off(at, clock::now_ms()).is_zero());
        if self.state.run.is_some() || !due {
            return;
        }
        self.state.meta.starts_ms = None;
        if let Err(error) = self.start().await {
            let message = Some(error.to_string());
            if let Err(error) = self.note_status(Status::Failed, message).await {
                self.give_up(&error).await;
            }
        }
    }

    /// Nothing is started later any more.
    pub(super) async fn put_off_no_more(&mut self, status: Status) -> Result<(), SessionError> {
        if self.state.meta.starts_ms.take().is_some() {
            self.note_status(status, None).await?;
        }
        Ok(())
    }

    /// A parked session is cancelled.
    pub(super) async fn cancel_parked(&mut self) -> Result<(), SessionError> {
        hostlink::clean_up(&self.dir, &self.state.meta.id, &[]).await;
        self.state.meta.left_running.clear();
        self.note_status(Status::Cancelled, None).await
    }

    /// Tells what happened before the session that this one goes on with.
    pub(super) fn tell_past(&mut self, past: Vec<PastEvent>) -> Result<(), SessionError> {
        if past.is_empty() || self.state.meta.runs > 0 {
            return Ok(());
        }
        let mut raw = self.raw_writer()?;
        for PastEvent { time_ms, event } in past {
            let mark = serde_json::to_vec(&Mark::Past { event })
                .map_err(|error| SessionError::Internal(error.to_string()))?;
            let time_ms = if time_ms == 0 { clock::now_ms() } else { time_ms };
            raw.append(Kind::Mark, raw.end().line, true, time_ms, &mark)?;
        }
        raw.flush()?;
        Ok(())
    }

    /// The newest records that an earlier `arpc` has not made events of, or that its newest process wrote.
    pub(super) fn seek_to_news(&mut self) -> Result<(), SessionError> {
        self.log = LogReader::open(&self.dir.raw_log())?;
        let (run_after, seen) = (self.state.meta.run_after, self.state.seen());
        // Events that were lost with the power may be of a process before the newest: then all is read.
        let from = if seen >= run_after { run_after + 1 } else { 1 };
        self.log.seek_seq(from)?;
        Ok(())
    }
}

fn text(value: OsString) -> Result<String, SessionError> {
    value
        .into_string()
        .map_err(|value| SessionError::AgentFailed(format!("{} is not valid UTF-8", value.to_string_lossy())))
}
