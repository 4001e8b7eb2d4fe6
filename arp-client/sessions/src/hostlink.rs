//! The session host as `arpc` sees it: found again, talked to, and cleaned up after.

use crate::defaults::{HOST_UNREACHABLE, STOP_DEADLINE};
use crate::host::{FromHost, HostInfo, HostSpec, LeftRunning, SessionDir, ToHost};
use crate::hostprogram::HostProgram;
use crate::ipc::{self, Frames};
use crate::procs::{self, Ending, Process};
use std::io;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What a host told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostState {
    /// Its log has grown.
    News {
        /// Is the disk full?
        full: bool,
    },
    /// The connection is closed: the agent ended, or the host died. The log knows which.
    Gone,
}

/// Frames that wait for a host that does not read. More than this and it is stuck.
const WAITING: usize = 4096;
/// A host that does not take a frame for this long is stuck.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// A host says where its log ends as soon as somebody connects.
const HELLO: Duration = Duration::from_secs(1);

/// A connection to a session's host.
#[derive(Debug)]
pub(crate) struct HostLink {
    commands: mpsc::Sender<ToHost>,
    state: watch::Receiver<HostState>,
    tasks: [JoinHandle<()>; 2],
}

impl HostLink {
    /// Starts a host for this, and connects to it. `keep` runs on from before, should something have to be ended.
    pub(crate) async fn start(host: &HostProgram, spec: &HostSpec, keep: &[LeftRunning]) -> io::Result<Self> {
        host.start(spec, keep).await?;
        Self::connect(&SessionDir::new(spec.dir.clone())).await
    }

    /// Connects to a running host. Whoever answers otherwise than a host does is none.
    pub(crate) async fn connect(dir: &SessionDir) -> io::Result<Self> {
        let silent = || io::Error::new(io::ErrorKind::TimedOut, "the session host does not answer");
        let stream = tokio::time::timeout(HELLO, ipc::connect(&dir.host_socket()))
            .await
            .map_err(|_| silent())??;
        let (mut sender, mut receiver) = Frames::new(stream).split();
        let hello = tokio::time::timeout(HELLO, receiver.receive())
            .await
            .map_err(|_| silent())??;
        let Some(FromHost::Tail { ended, full, .. }) = hello else {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the session host left",
            ));
        };
        let first = if ended {
            HostState::Gone
        } else {
            HostState::News { full }
        };
        let (told, mut state) = watch::channel(first);
        state.mark_changed();
        let gone = told.clone();
        let reader = tokio::spawn(async move {
            while let Ok(Some(FromHost::Tail {
                ended: false, full, ..
            })) = receiver.receive().await
            {
                told.send_replace(HostState::News { full });
            }
            told.send_replace(HostState::Gone);
        });
        let (commands, mut waiting) = mpsc::channel::<ToHost>(WAITING);
        let writer = tokio::spawn(async move {
            while let Some(command) = waiting.recv().await {
                let sent = tokio::time::timeout(SEND_TIMEOUT, sender.send(&command)).await;
                if !matches!(sent, Ok(Ok(()))) {
                    gone.send_replace(HostState::Gone);
                    return;
                }
            }
        });
        Ok(Self {
            commands,
            state,
            tasks: [reader, writer],
        })
    }

    /// Gives the host a command. `false`: it is gone or stuck; [`Self::changed`] tells.
    pub(crate) fn send(&self, command: ToHost) -> bool {
        self.commands.try_send(command).is_ok()
    }

    /// Waits until the host has told something new, and says what. May be dropped and called again.
    pub(crate) async fn changed(&mut self) -> HostState {
        if self.state.changed().await.is_err() {
            return HostState::Gone;
        }
        *self.state.borrow_and_update()
    }
}

impl Drop for HostLink {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What became of a host whose connection is lost.
#[derive(Debug)]
pub(crate) enum Recovered {
    /// Only the connection was.
    Connected(HostLink),
    /// It has ended, and its log tells all that there is to tell.
    Ended,
    /// It lived and could not be reached, so it was ended.
    Unreachable,
}

/// Finds a host again, or sees to its end. Takes seconds at most, unless the host is stopped (SIGSTOP): then as
/// long as it is.
pub(crate) async fn recover(dir: &SessionDir, session_id: &str) -> Recovered {
    let mut since = Instant::now();
    while host_lives(dir) {
        if let Ok(link) = HostLink::connect(dir).await {
            return Recovered::Connected(link);
        }
        if host_process(dir).is_some_and(procs::stopped) {
            since = Instant::now();
        }
        if since.elapsed() >= HOST_UNREACHABLE {
            end_host(dir, session_id).await;
            return Recovered::Unreachable;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Recovered::Ended
}

/// Ends a host that cannot be told over its socket: it ends its agent and writes so into its log, unless it is
/// stuck.
async fn end_host(dir: &SessionDir, session_id: &str) {
    if let Some(host) = host_process(dir) {
        procs::end(host, Ending::Gently);
        let patience = Instant::now() + STOP_DEADLINE;
        while host_lives(dir) && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    if host_lives(dir) {
        kill_host(dir, session_id).await;
    }
}

/// Ends a host by force, and all that it leaves behind.
pub(crate) async fn kill_host(dir: &SessionDir, session_id: &str) {
    if host_lives(dir) {
        match host_process(dir) {
            Some(host) => procs::end(host, Ending::ByForce),
            None => tracing::error!(session = session_id, "a session host lives and cannot be found"),
        }
        for _ in 0..100 {
            if !host_lives(dir) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    clean_up(dir, session_id, &[]).await;
}

/// The process of the host that lives: by its own word, else by where it works.
fn host_process(dir: &SessionDir) -> Option<Process> {
    let told = info(dir)
        .and_then(|info| info.host())
        .filter(|host| procs::alive(*host));
    told.or_else(|| procs::working_in(dir.path()))
}

pub(crate) fn info(dir: &SessionDir) -> Option<HostInfo> {
    std::fs::read(dir.info())
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
}

/// Does a host of this session live?
pub(crate) fn host_lives(dir: &SessionDir) -> bool {
    let Ok(file) = std::fs::File::options().read(true).write(true).open(dir.lock()) else {
        return false;
    };
    matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock))
}

/// Ends what a host that was killed left behind: its agent, and the agent's tools, but those to keep.
pub(crate) async fn clean_up(dir: &SessionDir, session_id: &str, keep: &[LeftRunning]) {
    let kept = |process: &Process| {
        keep.iter()
            .any(|left| (left.pid, left.started) == (process.pid, process.started))
    };
    let agent = info(dir)
        .map(|info| info.agent())
        .filter(|agent| agent.started != 0 && procs::alive(*agent));
    for round in 0..50 {
        let mut left = procs::marked(session_id);
        if let Some(agent) = agent.filter(|agent| procs::alive(*agent)) {
            left.extend(procs::descendants(agent.pid));
            left.push(agent);
        }
        left.retain(|process| !kept(process));
        if left.is_empty() {
            return;
        }
        let how = if round == 0 {
            Ending::Gently
        } else {
            Ending::ByForce
        };
        for process in left {
            procs::end(process, how);
        }
        tokio::time::sleep(Duration::from_millis(if round == 0 { 500 } else { 20 })).await;
    }
    tracing::warn!(
        session = session_id,
        "processes of a session are still there after SIGKILL"
    );
}
