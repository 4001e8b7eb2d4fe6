//! The session host as `arpc` sees it: started, found again, talked to, and cleaned up after.

use crate::defaults::HOST_START;
use crate::host::{FromHost, HostInfo, HostSpec, SessionDir, StartReply, ToHost};
use crate::ipc::{self, FrameSender, Frames};
use crate::procs::{self, Ending};
use std::ffi::OsStr;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How a host is started: the program (usually `arpc` itself) and the arguments that make it one.
#[derive(Debug, Clone)]
pub struct HostProgram {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

impl HostProgram {
    /// This executable, as `session-host`.
    ///
    /// # Errors
    /// When the system does not tell which executable this is.
    pub fn this_executable() -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            args: vec!["session-host".into()],
        })
    }
}

/// What a host told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostState {
    /// Its log reaches this record.
    Tail(u64),
    /// The connection is closed: the agent ended, or the host died. The log knows which.
    Gone,
}

/// A connection to a session's host.
#[derive(Debug)]
pub(crate) struct HostLink {
    sender: FrameSender,
    state: watch::Receiver<HostState>,
    reader: JoinHandle<()>,
}

impl HostLink {
    /// Starts a host for this, and connects to it.
    pub(crate) async fn start(host: &HostProgram, spec: &HostSpec) -> io::Result<Self> {
        let dir = SessionDir::new(spec.dir.clone());
        let errors = std::fs::File::options()
            .create(true)
            .append(true)
            .open(dir.host_errors())?;
        let mut command = tokio::process::Command::new(&host.program);
        // arpc's own settings hold keys that are none of the agents' business, and its log level is not theirs.
        let ours = |name: &OsStr| name.as_encoded_bytes().starts_with(b"ARPC_") || name == "RUST_LOG";
        for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
            command.env_remove(name);
        }
        let mut child = command
            .args(&host.args)
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()?;
        let missing = || io::Error::other("a pipe of the session host is missing");
        let mut stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        // Whatever becomes of it, somebody has to collect its exit status.
        tokio::spawn(async move { child.wait().await });

        let talk = async {
            stdin.write_all(serde_json::to_string(spec)?.as_bytes()).await?;
            drop(stdin);
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).await?;
            match serde_json::from_str(&line) {
                Ok(StartReply::Started) => Ok(()),
                Ok(StartReply::Failed(why)) => Err(io::Error::other(why)),
                Err(_) => Err(io::Error::other(
                    "the session host ended before the agent was started",
                )),
            }
        };
        tokio::time::timeout(HOST_START, talk)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the session host does not answer"))??;
        Self::connect(&dir).await
    }

    /// Connects to a running host.
    pub(crate) async fn connect(dir: &SessionDir) -> io::Result<Self> {
        let stream = ipc::connect(&dir.host_socket()).await?;
        let (sender, mut receiver) = Frames::new(stream).split();
        let (told, state) = watch::channel(HostState::Tail(0));
        let reader = tokio::spawn(async move {
            while let Ok(Some(FromHost::Tail { seq, ended: false })) = receiver.receive().await {
                told.send_replace(HostState::Tail(seq));
            }
            told.send_replace(HostState::Gone);
        });
        Ok(Self {
            sender,
            state,
            reader,
        })
    }

    pub(crate) async fn send(&mut self, command: &ToHost) -> io::Result<()> {
        let sent = self.sender.send(command);
        tokio::time::timeout(Duration::from_secs(10), sent)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the session host does not listen"))?
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
        self.reader.abort();
    }
}

/// Does a host of this session live?
pub(crate) fn host_lives(dir: &SessionDir) -> bool {
    let Ok(file) = std::fs::File::options().read(true).write(true).open(dir.lock()) else {
        return false;
    };
    matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock))
}

/// Ends what a host that was killed left behind: its agent, and the agent's tools.
pub(crate) async fn clean_up(dir: &SessionDir, session_id: &str) {
    let info: Option<HostInfo> = std::fs::read(dir.info())
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let agent = info
        .map(|info| info.agent())
        .filter(|agent| agent.started != 0 && procs::alive(*agent));
    for round in 0..50 {
        let mut left = procs::marked(session_id);
        if let Some(agent) = agent.filter(|agent| procs::alive(*agent)) {
            left.extend(procs::descendants(agent.pid));
            left.push(agent);
        }
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
