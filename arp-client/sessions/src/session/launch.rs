//! A session's process: started, taken over from an earlier `arpc`, stopped, lost.

use super::actor::Actor;
use super::apply::OwnEvent;
use super::run::Run;
use crate::clock;
use crate::core::FoundAgent;
use crate::defaults::{CLOSE_GRACE, TERM_GRACE};
use crate::error::SessionError;
use crate::host::{HostSpec, Mark, RunEnd, StopReason, ToHost};
use crate::hostlink::{self, HostLink};
use crate::log::LogReader;
use crate::model::{Beginning, Status};
use arp_agents::agent::{Agent, LaunchOptions, Resume};
use arp_agents::driver::{Action, Command, Exit};
use std::ffi::OsString;
use std::time::Duration;

/// Of a process that has not ended, or whose end nobody saw.
const NO_EXIT: Exit = Exit {
    code: None,
    signal: None,
};

impl Actor {
    /// Starts the next process of the session, or sees to it that it is started as soon as the agent can open it.
    pub(super) async fn start(&mut self) -> Result<(), SessionError> {
        let found = self.core.agents.find(&self.meta.executor).await?;
        let number = self.meta.runs;
        let used_before = self.meta.usage.clone().unwrap_or_default();
        let used_before = std::mem::replace(&mut self.meta.used_before, used_before);
        let options = self.options(number, found.agent.as_ref());
        let begun = match self.too_early(found.agent.as_ref(), &options) {
            Some(at) => self.start_later(at, found.agent.display_name()),
            None => self.start_now(&found, number, &options).await,
        };
        if begun.is_err() {
            self.meta.used_before = used_before;
        }
        begun
    }

    /// When the agent can open the session, if that is still to come.
    fn too_early(&self, agent: &dyn Agent, options: &LaunchOptions) -> Option<u64> {
        let opens = !matches!(options.resume, Resume::New) && self.meta.opened_ms > 0;
        let at = opens.then(|| agent.reopens_at(self.meta.opened_ms))?;
        (at > clock::now_ms()).then_some(at)
    }

    /// Tells that the process is started at this time; [`Actor::on_time`] does it.
    fn start_later(&mut self, at: u64, agent: &str) -> Result<(), SessionError> {
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

    async fn start_now(
        &mut self,
        found: &FoundAgent,
        number: u32,
        options: &LaunchOptions,
    ) -> Result<(), SessionError> {
        self.meta.starts_ms = None;
        let launch = found.agent.launch(&found.program, options)?;
        let spec = HostSpec {
            dir: self.dir.path().to_owned(),
            session_id: self.meta.id.clone(),
            run: number,
            program: launch.program,
            args: launch.args.into_iter().map(text).collect::<Result<_, _>>()?,
            env: launch
                .env
                .into_iter()
                .map(|(name, value)| Ok((text(name)?, text(value)?)))
                .collect::<Result<_, SessionError>>()?,
            env_remove: launch
                .env_remove
                .into_iter()
                .map(text)
                .collect::<Result<_, _>>()?,
            cwd: launch.cwd,
        };

        // First the record of the attempt: an arpc that dies now finds the host again.
        let before = (self.meta.status, self.meta.ended_ms, self.meta.run_after);
        self.meta.run_after = self.raw_end()?;
        self.meta.runs = number + 1;
        self.meta.status = Status::Starting;
        self.save();
        let link = match HostLink::start(&self.core.config.host, &spec).await {
            Ok(link) => link,
            Err(error) => {
                (self.meta.status, self.meta.ended_ms, self.meta.run_after) = before;
                self.meta.runs = number;
                hostlink::clean_up(&self.dir, &self.meta.id).await;
                self.save();
                return Err(SessionError::AgentFailed(error.to_string()));
            }
        };
        let mut log = LogReader::open(&self.dir.raw_log())?;
        log.seek_seq(self.meta.run_after + 1)?;
        let mut run = Run::new(number, found.agent.driver(options), log, self.meta.run_after);
        run.link = Some(link);
        let actions = run.driver.command(Command::Start)?;
        self.run = Some(run);
        self.now_ms = clock::now_ms();
        self.fresh = true;
        if number > 0 {
            self.set_status(Status::Starting, None, NO_EXIT);
            let from = self.meta.run_after;
            self.end_batch(from)?;
        }
        self.carry_out(actions, None).await;
        Ok(())
    }

    fn options(&self, number: u32, agent: &dyn Agent) -> LaunchOptions {
        // A session that never had a turn is not on the agent's disk: it begins as it did.
        let resume = match (&self.meta.agent_session_id, self.meta.turns) {
            (Some(id), 1..) if number > 0 => Resume::Session {
                id: id.clone(),
                fork: false,
            },
            _ => match self.meta.beginning.clone() {
                Beginning::New => Resume::New,
                Beginning::Session { id, fork } => Resume::Session { id, fork },
                Beginning::Last { fork } => Resume::Last { fork },
            },
        };
        let session_id = (agent.capabilities().session_id && resume == Resume::New).then(|| {
            if number == 0 {
                self.meta.id.clone()
            } else {
                uuid::Uuid::new_v4().to_string()
            }
        });
        LaunchOptions {
            project_path: self.meta.project_path.clone(),
            model: self.meta.model.clone().filter(|_| self.meta.model_chosen),
            resume,
            permission_mode: self.meta.permission_mode,
            allowed_tools: self.meta.allowed_tools.clone(),
            session_id,
            allow_bypass: self.core.config.allow_bypass,
            run: number,
            used_before: self.meta.used_before.clone(),
        }
    }

    /// The newest record of the raw log.
    fn raw_end(&self) -> Result<u64, SessionError> {
        // Nobody writes it now, so its torn end, if there is one, may be cut.
        Ok(crate::log::LogWriter::open(&self.dir.raw_log(), false)?.end().seq)
    }

    /// Goes on with the process that an earlier `arpc` started.
    pub(super) async fn take_over(&mut self) -> Result<(), SessionError> {
        let number = self.meta.runs - 1;
        let Some(agent) = self.core.agents.known(&self.meta.executor) else {
            return Err(SessionError::UnknownAgent(self.meta.executor.clone()));
        };
        let options = self.options(number, agent.as_ref());
        let link = match HostLink::connect(&self.dir).await {
            Ok(link) => Some(link),
            Err(error) if hostlink::host_lives(&self.dir) => {
                tracing::warn!(session = self.meta.id, %error, "the session host does not answer");
                None
            }
            Err(_) => None,
        };
        let mut log = LogReader::open(&self.dir.raw_log())?;
        log.seek_seq(self.meta.run_after + 1)?;
        let mut run = Run::new(number, agent.driver(&options), log, self.meta.run_after);
        run.link = link;
        run.replaying = true;
        self.run = Some(run);
        self.saved_turn = self.meta.turn.take();

        // What was logged up to now is known; what comes after is live.
        while let Some(run) = &mut self.run {
            let Some(record) = run.log.next_record()? else {
                break;
            };
            self.record(&record).await?;
            if self.over {
                self.end_run();
            }
        }
        let Some(run) = &mut self.run else { return Ok(()) };
        run.replaying = false;
        self.fresh = true;
        self.now_ms = clock::now_ms();
        if run.link.is_none() {
            self.lost_host().await;
            return Ok(());
        }
        let owed = std::mem::take(&mut run.owed);
        if run.stop.is_some() {
            self.tell_host_to_stop().await;
        } else if !run.anything_sent && !run.ready {
            // The earlier arpc died before it had said a word.
            let actions = run.driver.command(Command::Start)?;
            self.carry_out(actions, None).await;
        } else if !owed.is_empty() {
            self.send_lines(None, owed, Vec::new()).await;
        }
        Ok(())
    }

    /// Sends what a command gave; the rest is done when the lines are in the log, or now if there are none.
    pub(super) async fn carry_out(&mut self, actions: Vec<Action>, mark: Option<Mark>) {
        let (sends, rest): (Vec<_>, Vec<_>) = actions
            .into_iter()
            .partition(|action| matches!(action, Action::Send(_)));
        let lines: Vec<String> = sends
            .into_iter()
            .filter_map(|action| {
                if let Action::Send(line) = action {
                    Some(line)
                } else {
                    None
                }
            })
            .collect();
        if !lines.is_empty() || mark.is_some() {
            let held = if lines.is_empty() {
                Vec::new()
            } else {
                rest.clone()
            };
            let none = lines.is_empty();
            self.send_lines(mark, lines, held).await;
            if !none {
                return;
            }
        }
        if let Err(error) = Box::pin(self.apply(rest)).await {
            tracing::error!(session = self.meta.id, %error, "cannot carry out a command");
        }
        let from = self
            .run
            .as_ref()
            .map_or(self.events_from, |run| run.cursor.max(self.events_from));
        if let Err(error) = self.end_batch(from) {
            tracing::error!(session = self.meta.id, %error, "cannot write events");
        }
    }

    /// Sends lines to the agent; `then` is done when the last of them is in the log.
    pub(super) async fn send_lines(&mut self, mark: Option<Mark>, lines: Vec<String>, then: Vec<Action>) {
        let Some(run) = &mut self.run else { return };
        let Some(link) = &mut run.link else { return };
        let last = lines.len();
        let mut then = Some(then);
        for (number, line) in lines.iter().enumerate() {
            let actions = if number + 1 == last {
                then.take().unwrap_or_default()
            } else {
                Vec::new()
            };
            run.in_flight.push_back((line.clone(), actions));
        }
        if let Err(error) = link.send(&ToHost::Input { mark, lines }).await {
            // The end of the connection, which comes next, tells what became of the host.
            tracing::warn!(session = self.meta.id, %error, "cannot reach the session host");
        }
    }

    /// Ends the process for this reason.
    pub(super) async fn stop(&mut self, why: StopReason, message: Option<String>) {
        let Some(run) = &mut self.run else { return };
        if run.stop.is_some() {
            return;
        }
        run.stop = Some((why, message.clone()));
        if run.replaying {
            return;
        }
        let interrupt = if self.meta.turn.is_some() {
            // What is not running is not interrupted; the end comes anyway.
            run.driver.command(Command::Interrupt).unwrap_or_default()
        } else {
            Vec::new()
        };
        Box::pin(self.carry_out(interrupt, Some(Mark::Stop { why, message }))).await;
        self.tell_host_to_stop().await;
    }

    async fn tell_host_to_stop(&mut self) {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let Some(link) = self.run.as_mut().and_then(|run| run.link.as_mut()) else {
            return;
        };
        let stop = ToHost::Stop {
            close_ms: ms(CLOSE_GRACE),
            term_ms: ms(TERM_GRACE),
        };
        if let Err(error) = link.send(&stop).await {
            tracing::debug!(%error, "the session host is gone already");
        }
    }

    pub(super) async fn park(&mut self) {
        self.stop(StopReason::Parked, None).await;
    }

    /// The connection to the host ended. What the log does not tell, its host cannot tell any more.
    pub(super) async fn lost_host(&mut self) {
        loop {
            // All that was logged first.
            let Some(run) = &mut self.run else { return };
            match run.log.next_record() {
                Ok(Some(record)) => {
                    if let Err(error) = self.record(&record).await {
                        tracing::error!(session = self.meta.id, %error, "cannot read a record");
                        break;
                    }
                    if self.over {
                        self.end_run();
                        return;
                    }
                }
                Ok(None) if hostlink::host_lives(&self.dir) => {
                    // Only the connection broke, or the host is about to write its last record.
                    run.link = HostLink::connect(&self.dir).await.ok();
                    if run.link.is_some() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(session = self.meta.id, %error, "cannot read the log");
                    break;
                }
            }
        }
        hostlink::clean_up(&self.dir, &self.meta.id).await;
        self.end_without_record(
            "the session's host process was killed, and the agent with it; everything it printed is kept. \
             Send a message to go on",
        )
        .await;
    }

    /// The process is gone and its end was never recorded.
    async fn end_without_record(&mut self, reason: &str) {
        let exit = NO_EXIT;
        self.fresh = true;
        self.now_ms = clock::now_ms();
        let actions = match &mut self.run {
            Some(run) => {
                let stderr = run.stderr().to_owned();
                run.driver.on_exit(exit, &stderr)
            }
            None => Vec::new(),
        };
        if let Err(error) = Box::pin(self.apply(actions)).await {
            tracing::error!(session = self.meta.id, %error, "cannot end a session's turn");
        }
        if let Some(run) = &mut self.run {
            run.stop = None;
        }
        self.process_ended(&RunEnd {
            exit,
            reason: Some(reason.to_owned()),
        });
        let from = self
            .run
            .as_ref()
            .map_or(self.events_from, |run| run.cursor.max(self.events_from));
        if let Err(error) = self.end_batch(from) {
            tracing::error!(session = self.meta.id, %error, "cannot write events");
        }
        self.end_run();
    }

    /// The session cannot be looked after any more: its log is damaged, or the disk is full.
    pub(super) async fn give_up(&mut self, error: &SessionError) {
        tracing::error!(session = self.meta.id, %error, "a session cannot go on");
        self.tell_host_to_stop().await;
        if self.run.is_none() && self.meta.status.is_live() {
            self.now_ms = clock::now_ms();
            self.set_status(Status::Failed, Some(error.to_string()), NO_EXIT);
        }
        if self.run.is_some() {
            self.end_without_record(&error.to_string()).await;
        }
        if hostlink::host_lives(&self.dir) {
            // Nobody would ever look after it again.
            hostlink::clean_up(&self.dir, &self.meta.id).await;
        }
        self.publish();
        self.save();
        for waiting in self.ended.drain(..) {
            let _ = waiting.send(Ok(()));
        }
    }
}

fn text(value: OsString) -> Result<String, SessionError> {
    value
        .into_string()
        .map_err(|value| SessionError::AgentFailed(format!("{} is not valid UTF-8", value.to_string_lossy())))
}
