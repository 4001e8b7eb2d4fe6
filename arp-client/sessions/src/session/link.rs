//! The actor's end of the connection to its host.

use crate::host::{SessionDir, ToHost};
use crate::hostlink::{self, HostLink, HostState, Recovered};
use tokio::task::JoinHandle;

/// Is there a host to talk to?
#[derive(Debug)]
pub(super) enum Link {
    /// There is no process.
    None,
    /// There is.
    Up(HostLink),
    /// There may be: it is being found again, or ended. Meanwhile whoever asks gets answers.
    Recovering(Recovering),
}

/// A search for a host that goes on by itself; dropping it stops it.
#[derive(Debug)]
pub(super) struct Recovering(JoinHandle<Recovered>);

impl Drop for Recovering {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What happened to it.
#[derive(Debug)]
pub(super) enum Changed {
    Host(HostState),
    Recovered(Recovered),
}

impl Link {
    /// Looks for the host, or sees to its end.
    pub(super) fn recover(dir: &SessionDir, session_id: &str) -> Self {
        let (dir, id) = (dir.clone(), session_id.to_owned());
        Self::Recovering(Recovering(tokio::spawn(async move {
            hostlink::recover(&dir, &id).await
        })))
    }

    /// Ends a host that did not do as it was told.
    pub(super) fn kill(dir: &SessionDir, session_id: &str) -> Self {
        let (dir, id) = (dir.clone(), session_id.to_owned());
        Self::Recovering(Recovering(tokio::spawn(async move {
            hostlink::kill_host(&dir, &id).await;
            Recovered::Ended
        })))
    }

    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Gives the host a command, if there is one. What is lost with the connection is sent again with the next.
    pub(super) fn send(&self, command: ToHost) {
        if let Self::Up(link) = self
            && !link.send(command)
        {
            tracing::warn!("a session host does not take what it is sent");
        }
    }

    /// Waits until something has happened. May be dropped and called again.
    pub(super) async fn changed(&mut self) -> Changed {
        match self {
            Self::None => std::future::pending().await,
            Self::Up(link) => Changed::Host(link.changed().await),
            Self::Recovering(recovering) => {
                Changed::Recovered((&mut recovering.0).await.unwrap_or(Recovered::Ended))
            }
        }
    }
}
