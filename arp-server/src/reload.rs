//! Settings that are read again while the relay serves (SIGHUP, `arps reload`). All of them are checked before the
//! first one is used, and nobody is dropped: a connection goes on with what it began with, and the next one has what is
//! new.

use crate::admin::{Admin, Guard};
use crate::admission::{Admission, Rules};
use crate::config::{Config, changes};
use crate::control::Welcome;
use crate::live::Live;
use crate::shared::Public;
use arp_common::service;
use arp_common::settings::ConfigError;
use arp_common::tls::Certificate;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Reads all settings anew, from where they were read at the start.
pub struct Load(Box<dyn Fn() -> Result<Config, ConfigError> + Send>);

impl Load {
    /// By this function.
    pub fn new(load: impl Fn() -> Result<Config, ConfigError> + Send + 'static) -> Self {
        Self(Box::new(load))
    }
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Load")
    }
}

/// What came of it.
pub type Outcome = Result<Reloaded, Vec<String>>;

/// Settings that differ from those before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// These are in use now.
    pub changed: Vec<String>,
    /// These are used after a restart only.
    pub after_restart: Vec<String>,
}

/// Whoever asks for a reload and waits for what comes of it.
pub type Asked = oneshot::Sender<Outcome>;

/// Everything that settings reach.
pub(crate) struct Reloader {
    pub(crate) load: Load,
    pub(crate) current: Arc<Live<Config>>,
    pub(crate) public: Arc<Live<Public>>,
    pub(crate) welcome: Arc<Live<Welcome>>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) certificate: Option<Arc<Certificate>>,
    pub(crate) guard: Option<Arc<Guard>>,
    pub(crate) admin: Arc<Admin>,
}

impl Reloader {
    /// Reloads when it is asked to or the process is told (SIGHUP), until `stop`.
    pub(crate) async fn serve(self, mut asked: mpsc::Receiver<Asked>, stop: CancellationToken) {
        let mut hang_up = HangUp::new();
        // The files may lie on a slow disk; the runtime's threads are for visitors.
        let me = Arc::new(std::sync::Mutex::new(self));
        loop {
            let answer = tokio::select! {
                () = stop.cancelled() => return,
                () = hang_up.recv() => None,
                Some(asked) = asked.recv() => Some(asked),
            };
            service::reloading();
            let reloading = me.clone();
            let outcome = tokio::task::spawn_blocking(move || {
                reloading
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .reload()
            });
            let outcome = outcome.await.unwrap_or_else(|e| Err(vec![e.to_string()]));
            service::ready("serving");
            match &outcome {
                Ok(done) => tracing::info!(
                    changed = done.changed.join(" "),
                    after_restart = done.after_restart.join(" "),
                    "settings read again"
                ),
                Err(faults) => tracing::error!(
                    "the settings cannot be used, and stay as they were:\n{}",
                    faults.join("\n")
                ),
            }
            if let Some(answer) = answer {
                let _ = answer.send(outcome);
            }
        }
    }

    fn reload(&self) -> Outcome {
        let new = (self.load.0)().map_err(|e| e.0)?;
        let old = self.current.get();
        let (changed, after_restart) = changes(&old, &new);
        // Read even if nothing says that they changed, and before anything is put in place.
        if let (Some(certificate), true) = (&self.certificate, old.tls == new.tls)
            && let Err((_, e)) = certificate.reload()
        {
            return Err(vec![format!("--tls-cert, --tls-key: {e}")]);
        }
        let public = self.public.get();
        public.census.set_limits(new.max_conns_per_ip, new.max_conns);
        self.public.set(public.with(new.public.clone()));
        let registry = self.admission.registry();
        registry.set_limits(&new.pool, new.max_clients);
        self.admission.set_rules(Rules {
            join_key: new.join_key.clone(),
            limits: new.edges,
        });
        self.welcome.set(Welcome {
            public_url: new.public_url.clone(),
            heartbeat: new.heartbeat,
            domain: new.public.domain.clone(),
            ..(*self.welcome.get()).clone()
        });
        if let (Some(guard), Some(key)) = (&self.guard, new.admin.as_ref().and_then(|a| a.key.clone())) {
            guard.set_key(key);
        }
        self.admission.bans().replace_set(new.bans.clone());
        self.admin.enforce();
        self.current.set(new);
        Ok(Reloaded {
            changed,
            after_restart,
        })
    }
}

#[cfg(unix)]
struct HangUp(Option<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl HangUp {
    fn new() -> Self {
        let kind = tokio::signal::unix::SignalKind::hangup();
        let signal = tokio::signal::unix::signal(kind);
        Self(
            signal
                .inspect_err(|e| tracing::warn!("SIGHUP will not reload: {e}"))
                .ok(),
        )
    }
    async fn recv(&mut self) {
        match &mut self.0 {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

#[cfg(not(unix))]
struct HangUp;

#[cfg(not(unix))]
impl HangUp {
    fn new() -> Self {
        Self
    }
    async fn recv(&mut self) {
        std::future::pending().await
    }
}
