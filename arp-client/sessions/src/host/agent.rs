//! The agent's process as its host sees it: pipes, exit status, and the end of it and all its tools.

use super::{HostSpec, LeftRunning};
use crate::procs::{self, Ending, Process, SESSION_MARK};
use arp_agents::driver::Exit;
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// A running agent.
pub(super) struct Agent {
    pub(super) process: Process,
    session_id: String,
    /// Input; dropped to close it.
    pub(super) input: Option<mpsc::Sender<Vec<u8>>>,
    /// Chunks of standard output and of standard error.
    pub(super) output: mpsc::Receiver<Chunk>,
    reaper: imp::Reaper,
}

/// What happened to an agent.
pub(super) enum Next {
    Output(Chunk),
    Ended(Exit),
}

/// Something the agent printed, or the end of a pipe.
pub(super) enum Chunk {
    Out(Vec<u8>),
    Err(Vec<u8>),
    OutEnd,
    ErrEnd,
}

impl Agent {
    /// Starts it, in a process group of its own, this process being the one that orphans go to.
    pub(super) fn start(spec: &HostSpec) -> io::Result<Self> {
        imp::adopt_orphans();
        let mut command = Command::new(&spec.program);
        command.args(&spec.args).current_dir(&spec.cwd);
        for name in &spec.env_remove {
            command.env_remove(name);
        }
        command.envs(spec.env.iter().map(|(name, value)| (name, value)));
        command.env(SESSION_MARK, &spec.session_id);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (pid, pipes, reaper) = imp::spawn(command)?;
        let process = procs::process(pid).unwrap_or(Process { pid, started: 0 });

        let (input, input_queue) = mpsc::channel(crate::defaults::HOST_INPUT_QUEUE);
        tokio::spawn(write_input(pipes.stdin, input_queue));
        let (chunks, output) = mpsc::channel(8);
        tokio::spawn(read_output(
            pipes.stdout,
            chunks.clone(),
            Chunk::Out,
            Chunk::OutEnd,
        ));
        tokio::spawn(read_output(pipes.stderr, chunks, Chunk::Err, Chunk::ErrEnd));
        Ok(Self {
            process,
            session_id: spec.session_id.clone(),
            input: Some(input),
            output,
            reaper,
        })
    }

    /// Waits for output (if `reading`) or for the agent's end, and buries orphans meanwhile. May be dropped and
    /// called again.
    pub(super) async fn next(&mut self, reading: bool) -> Next {
        tokio::select! {
            Some(chunk) = self.output.recv(), if reading => Next::Output(chunk),
            exit = self.reaper.ended(self.process.pid) => Next::Ended(exit),
        }
    }

    /// What tools put into terminal sessions of their own: it was meant to outlive them.
    pub(super) fn left_running(&self) -> Vec<LeftRunning> {
        self.all()
            .into_iter()
            .filter(|process| is_tool(*process))
            .map(|process| LeftRunning {
                pid: process.pid,
                started: process.started,
                command: procs::command_line(process),
            })
            .collect()
    }

    /// The processes to end: all, or those that are not [`Self::left_running`].
    fn to_end(&self, keep_tools: bool) -> Vec<Process> {
        let mut all = self.all();
        all.retain(|process| !keep_tools || !is_tool(*process));
        all
    }

    /// All processes of this session: what is below this host, and what bears its mark.
    fn all(&self) -> Vec<Process> {
        let mut all = procs::descendants(std::process::id());
        for process in procs::marked(&self.session_id) {
            if !all.contains(&process) && process.pid != std::process::id() {
                all.push(process);
            }
        }
        all
    }

    /// Asks all to end.
    pub(super) fn end_gently(&self, keep_tools: bool) {
        for process in self.to_end(keep_tools) {
            procs::end(process, Ending::Gently);
        }
    }

    /// Ends all. Processes that are born while the others die are met in the next round.
    pub(super) async fn end_by_force(&mut self, keep_tools: bool) {
        for _ in 0..50 {
            let all = self.to_end(keep_tools);
            if all.is_empty() {
                return;
            }
            for process in all {
                procs::end(process, Ending::ByForce);
            }
            self.reaper.bury();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Does any process of the session live that is to be ended (the agent included)?
    pub(super) fn anyone_left(&mut self, keep_tools: bool) -> bool {
        self.reaper.bury();
        !self.to_end(keep_tools).is_empty()
    }

    /// Ends what tools left behind: processes in other terminal sessions than the agent's that started since.
    pub(super) fn end_tools(&self, since: Duration) {
        for process in self.all() {
            let tool = procs::in_other_session(process, self.process.pid);
            if tool && procs::age(process).is_some_and(|age| age <= since) {
                procs::end(process, Ending::ByForce);
            }
        }
    }
}

/// The agent and its helpers run in the host's own terminal session.
fn is_tool(process: Process) -> bool {
    procs::in_other_session(process, std::process::id())
}

async fn write_input(mut pipe: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        // An agent that closed its input or died is told of by its exit.
        if pipe.write_all(&bytes).await.is_err() || pipe.flush().await.is_err() {
            return;
        }
    }
}

async fn read_output(
    mut pipe: impl AsyncRead + Unpin,
    chunks: mpsc::Sender<Chunk>,
    chunk: fn(Vec<u8>) -> Chunk,
    end: Chunk,
) {
    loop {
        let mut bytes = Vec::with_capacity(64 * 1024);
        match pipe.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                if chunks.send(chunk(bytes)).await.is_err() {
                    return;
                }
            }
        }
    }
    // Nobody listens any more: fine.
    let _ = chunks.send(end).await;
}

struct Pipes<W, R, E> {
    stdin: W,
    stdout: R,
    stderr: E,
}

#[cfg(unix)]
mod imp {
    use super::{Command, Exit, Pipes, io};
    use rustix::process::{WaitOptions, wait};
    use std::os::fd::OwnedFd;
    use std::os::unix::process::CommandExt;
    use tokio::net::unix::pipe;
    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// Collects the exit status of the agent, and of the orphans that come to this process.
    pub(super) struct Reaper {
        child_ended: Signal,
        agent: u32,
        exit: Option<Exit>,
    }

    pub(super) fn adopt_orphans() {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            tracing::warn!(%error, "orphaned tools will not come to the session host");
        }
    }

    pub(super) fn spawn(
        mut command: Command,
    ) -> io::Result<(u32, Pipes<pipe::Sender, pipe::Receiver, pipe::Receiver>, Reaper)> {
        // Before the start, so that an early death is not missed.
        let child_ended = signal(SignalKind::child())?;
        let mut child = command.process_group(0).spawn()?;
        let taken = || io::Error::other("a pipe of the agent is missing");
        let pipes = Pipes {
            stdin: pipe::Sender::from_owned_fd(OwnedFd::from(child.stdin.take().ok_or_else(taken)?))?,
            stdout: pipe::Receiver::from_owned_fd(OwnedFd::from(child.stdout.take().ok_or_else(taken)?))?,
            stderr: pipe::Receiver::from_owned_fd(OwnedFd::from(child.stderr.take().ok_or_else(taken)?))?,
        };
        // `child` is dropped: the reaper waits for all children alike.
        Ok((
            child.id(),
            pipes,
            Reaper {
                child_ended,
                agent: child.id(),
                exit: None,
            },
        ))
    }

    impl Reaper {
        pub(super) async fn ended(&mut self, _pid: u32) -> Exit {
            loop {
                self.bury();
                if let Some(exit) = self.exit {
                    return exit;
                }
                self.child_ended.recv().await;
            }
        }

        /// Collects all children that have ended.
        pub(super) fn bury(&mut self) {
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                if u32::try_from(pid.as_raw_nonzero().get()).is_ok_and(|pid| pid == self.agent) {
                    self.exit = Some(Exit {
                        code: status.exit_status(),
                        signal: status.terminating_signal(),
                    });
                }
            }
        }
    }
}

#[cfg(not(unix))]
mod imp {
    use super::{Command, Exit, Pipes, io};
    use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

    pub(super) struct Reaper {
        child: Child,
    }

    pub(super) fn adopt_orphans() {}

    pub(super) fn spawn(
        command: Command,
    ) -> io::Result<(u32, Pipes<ChildStdin, ChildStdout, ChildStderr>, Reaper)> {
        let mut child = tokio::process::Command::from(command).spawn()?;
        let taken = || io::Error::other("a pipe of the agent is missing");
        let pipes = Pipes {
            stdin: child.stdin.take().ok_or_else(taken)?,
            stdout: child.stdout.take().ok_or_else(taken)?,
            stderr: child.stderr.take().ok_or_else(taken)?,
        };
        let pid = child.id().ok_or_else(taken)?;
        Ok((pid, pipes, Reaper { child }))
    }

    impl Reaper {
        pub(super) async fn ended(&mut self, pid: u32) -> Exit {
            match self.child.wait().await {
                Ok(status) => Exit {
                    code: status.code(),
                    signal: None,
                },
                Err(error) => {
                    tracing::warn!(pid, %error, "cannot wait for the agent");
                    Exit {
                        code: None,
                        signal: None,
                    }
                }
            }
        }

        pub(super) fn bury(&mut self) {}
    }
}
