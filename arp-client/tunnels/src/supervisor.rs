//! Keeps one tunnel alive: its states, its health, its restarts.
//!
//! The supervisor alone says how a tunnel stands; backends only start, stop and tell. It says `Connected` when the
//! public URL led to us, or, where this machine cannot ask its own public name, when the backend vouches for it;
//! which of the two it was is part of the health.

mod backoff;
mod verify;

use crate::config::Reconnect;
use crate::defaults as d;
use crate::probe::Probe;
use crate::status::rfc3339;
use crate::{Change, Retry, Tunnel, TunnelConfig, TunnelError, TunnelHealth, TunnelInfo, TunnelStatus};
use backoff::Backoff;
use serde::Serialize;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How a tunnel is looked after.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// What happens when it fails.
    pub reconnect: Reconnect,
    /// Pause between looks at its health.
    pub health_interval: Duration,
    /// Failed looks in a row after which it is restarted.
    pub max_failures: u32,
}

impl From<&TunnelConfig> for Plan {
    fn from(config: &TunnelConfig) -> Self {
        Self {
            reconnect: config.reconnect,
            health_interval: config.health_interval,
            max_failures: config.max_failures,
        }
    }
}

/// A tunnel as its owner sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// How it stands.
    #[serde(flatten)]
    pub status: TunnelStatus,
    /// What the last look told.
    pub health: Option<TunnelHealth>,
    /// What is going on, while it is on its way up.
    pub progress: Option<String>,
    /// Times it had to be started again.
    pub restarts: u32,
    /// Its address before this one, once it has changed.
    pub previous_url: Option<String>,
    /// When it changed.
    #[serde(serialize_with = "maybe_rfc3339")]
    pub url_changed_at: Option<OffsetDateTime>,
    /// Why it last failed.
    pub last_error: Option<String>,
}

fn maybe_rfc3339<S: serde::Serializer>(at: &Option<OffsetDateTime>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, to),
        None => to.serialize_none(),
    }
}

/// For those who look at a tunnel from outside.
#[derive(Debug, Clone)]
pub struct Handle {
    view: watch::Receiver<Snapshot>,
    asks: mpsc::Sender<oneshot::Sender<TunnelHealth>>,
}

impl Handle {
    /// How it stands, now and whenever that changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.view.clone()
    }

    /// Looks at its health now. `None` when it is not up.
    pub async fn check(&self) -> Option<TunnelHealth> {
        let (answer, told) = oneshot::channel();
        self.asks.try_send(answer).ok()?;
        told.await.ok()
    }
}

/// Keeps one tunnel alive.
pub struct Supervisor<T, P> {
    tunnel: T,
    probe: P,
    plan: Plan,
    view: watch::Sender<Snapshot>,
    asks: mpsc::Receiver<oneshot::Sender<TunnelHealth>>,
    last_url: Option<String>,
    /// In good health since then.
    healthy_since: Option<Instant>,
    /// It was in good health for long enough that earlier failures no longer count.
    was_well: bool,
    /// Has the public URL ever led to us? Then this machine can ask it, and silence means something.
    reachable: bool,
}

/// How a run of a tunnel came to its end.
enum End {
    Asked,
    Failed(TunnelError),
}

impl<T: Tunnel, P: Probe> Supervisor<T, P> {
    /// Of this tunnel.
    pub fn new(tunnel: T, probe: P, plan: Plan) -> (Self, Handle) {
        let (view, seen) = watch::channel(Snapshot::default());
        let (ask, asks) = mpsc::channel(4);
        let supervisor = Self {
            tunnel,
            probe,
            plan,
            view,
            asks,
            last_url: None,
            healthy_since: None,
            was_well: false,
            reachable: false,
        };
        (
            supervisor,
            Handle {
                view: seen,
                asks: ask,
            },
        )
    }

    /// Keeps it alive until `stop`, or until it has to be given up. Its program is ended in both cases.
    ///
    /// # Errors
    /// Why it was given up.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), TunnelError> {
        let mut attempt = 0_u32;
        let mut backoff = Backoff::new(self.plan.reconnect.base, self.plan.reconnect.max);
        loop {
            self.say(|view| {
                view.status = if attempt == 0 {
                    TunnelStatus::Connecting
                } else {
                    TunnelStatus::Reconnecting { attempt }
                };
                view.health = None;
            });
            let end = self.once(&stop).await;
            self.settle();
            if std::mem::take(&mut self.was_well) {
                attempt = 0;
                backoff.reset();
            }
            // The address is dead before its program is.
            let was_up = matches!(self.view.borrow().status, TunnelStatus::Connected(_));
            if was_up && matches!(end, End::Failed(_)) {
                self.say(|view| view.status = TunnelStatus::Reconnecting { attempt: attempt + 1 });
            }
            self.end_program().await;
            let error = match end {
                End::Asked => {
                    self.say(|view| {
                        view.status = TunnelStatus::Stopped;
                        view.progress = None;
                    });
                    return Ok(());
                }
                End::Failed(error) => error,
            };
            let plan = self.plan.reconnect;
            let out_of_tries = plan.max_attempts != 0 && attempt >= plan.max_attempts;
            if error.retry == Retry::Never || !plan.enabled || out_of_tries {
                let error = if out_of_tries && error.retry != Retry::Never && plan.enabled {
                    let text = format!("given up after {attempt} tries: {}", error.message);
                    TunnelError {
                        message: text,
                        ..error
                    }
                } else {
                    error
                };
                tracing::error!(target: "tunnel", "{error}");
                self.say(|view| {
                    view.status = TunnelStatus::Error {
                        message: error.to_string(),
                    };
                    view.last_error = Some(error.to_string());
                    view.progress = None;
                });
                return Err(error);
            }
            attempt += 1;
            let pause = match error.retry {
                Retry::After(least) => least.max(backoff.next()),
                Retry::Soon | Retry::Never => backoff.next(),
            };
            tracing::warn!(target: "tunnel", "{error}; try {attempt} in {:.1} s", pause.as_secs_f32());
            self.say(|view| {
                view.status = TunnelStatus::Reconnecting { attempt };
                view.health = None;
                view.restarts += 1;
                view.last_error = Some(error.to_string());
                view.progress = Some(format!("trying again in {:.0} s", pause.as_secs_f32().ceil()));
            });
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => {
                    self.say(|view| {
                        view.status = TunnelStatus::Stopped;
                        view.progress = None;
                    });
                    return Ok(());
                }
            }
        }
    }

    /// From its start to its end.
    async fn once(&mut self, stop: &CancellationToken) -> End {
        let backend = self.tunnel.backend();
        self.say(|view| view.progress = Some(format!("starting {backend}")));
        let started = tokio::select! {
            started = self.tunnel.start() => started,
            () = stop.cancelled() => return End::Asked,
        };
        let info = match started {
            Ok(info) => info,
            Err(error) => return End::Failed(error),
        };
        let verified = tokio::select! {
            verified = self.verify(&info) => verified,
            () = stop.cancelled() => return End::Asked,
        };
        match verified {
            Ok(health) => {
                self.connected(info.clone(), health);
                self.stay(info, stop).await
            }
            Err(error) => End::Failed(error),
        }
    }

    /// It is up. Is it where it was?
    fn connected(&mut self, info: TunnelInfo, health: TunnelHealth) {
        let url = info.public_url.clone();
        let before = self.last_url.replace(url.clone()).filter(|before| *before != url);
        // What follows may be a relay's token, which is nothing for a log.
        let bare = |url: &str| url.split('?').next().unwrap_or_default().to_owned();
        match &before {
            Some(before) => {
                let (now, before) = (bare(&url), bare(before));
                tracing::warn!(target: "tunnel", "the public address changed: {now} (it was {before})");
            }
            None => tracing::info!(target: "tunnel", "connected: {}", bare(&url)),
        }
        self.healthy_since = Some(Instant::now());
        self.say(|view| {
            view.status = TunnelStatus::Connected(info);
            view.health = Some(health);
            view.progress = None;
            if before.is_some() {
                view.previous_url = before;
                view.url_changed_at = Some(OffsetDateTime::now_utc());
            }
        });
    }

    /// Looks after it while it is up.
    async fn stay(&mut self, mut info: TunnelInfo, stop: &CancellationToken) -> End {
        let every = self.plan.health_interval;
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failures = 0;
        loop {
            let answer = tokio::select! {
                () = stop.cancelled() => return End::Asked,
                change = self.tunnel.changed() => match change {
                    Change::Ended(error) => return End::Failed(error),
                    Change::Url(url) => {
                        info = TunnelInfo { public_url: url, ..info };
                        let verified = tokio::select! {
                            verified = self.verify(&info) => verified,
                            () = stop.cancelled() => return End::Asked,
                        };
                        match verified {
                            Ok(health) => self.connected(info.clone(), health),
                            Err(error) => return End::Failed(error),
                        }
                        continue;
                    }
                },
                asked = self.asks.recv() => asked,
                _ = ticks.tick() => None,
            };
            let health = tokio::select! {
                health = self.look(&info) => health,
                () = stop.cancelled() => return End::Asked,
            };
            self.say(|view| view.health = Some(health.clone()));
            if let Some(answer) = answer {
                let _ = answer.send(health.clone());
            }
            if health.healthy {
                failures = 0;
                self.healthy_since.get_or_insert_with(Instant::now);
                continue;
            }
            failures += 1;
            let complaint = health.complaint();
            self.settle();
            tracing::warn!(target: "tunnel", "unhealthy ({failures} of {}): {complaint}", self.plan.max_failures);
            if failures >= self.plan.max_failures {
                let text = format!("unhealthy {failures} times in a row: {complaint}");
                return End::Failed(TunnelError::passing(text));
            }
        }
    }

    /// Its good health has ended: was it long enough?
    fn settle(&mut self) {
        let well = |since: Instant| since.elapsed() >= d::HEALTHY;
        self.was_well |= self.healthy_since.take().is_some_and(well);
    }

    async fn end_program(&mut self) {
        if let Err(error) = self.tunnel.stop().await {
            tracing::warn!(target: "tunnel", "{error}");
        }
    }

    fn say(&self, change: impl FnOnce(&mut Snapshot)) {
        self.view.send_modify(change);
    }

    /// Health as the backend tells it.
    async fn ask_backend(&self) -> TunnelHealth {
        use crate::Check;
        match timeout(d::SHORT_COMMAND, self.tunnel.health_check()).await {
            Ok(Ok(health)) => health,
            Ok(Err(error)) => TunnelHealth::of(
                Check::Bad(error.message),
                Check::Unknown("it does not run".into()),
            ),
            Err(_) => TunnelHealth::of(
                Check::Unknown("not known".into()),
                Check::Bad(format!("no answer within {} s", d::SHORT_COMMAND.as_secs())),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
