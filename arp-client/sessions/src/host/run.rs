//! The host's one loop.

use super::accept::accept;
use super::agent::{Agent, Chunk, Next};
use super::lines::Splitter;
use super::throttle::Throttle;
use super::{
    FromHost, HostInfo, HostSpec, Mark, RunEnd, RunStart, SessionDir, StartReply, StopReason, ToHost,
};
use crate::clock;
use crate::defaults::{
    DRAIN, DRAIN_WITH_TOOLS, FULL_RETRY, HOST_LINGER, HOST_ORPHAN, LOCK_WAIT, MAX_LOG_BYTES, PARK_GRACE,
    TERM_GRACE,
};
use crate::ipc::{self, Listener};
use crate::log::{Kind, LogError, LogWriter};
use crate::procs;
use arp_agents::driver::Exit;
use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Flush at the latest when this much waits.
const FLUSH_AT: usize = 1024 * 1024;

/// Runs a session host to its end: what `arpc-session-host` and `arpc session-host` do. Reads a [`HostSpec`] from
/// standard input, answers with a [`StartReply`] on standard output. Call it before any runtime or thread is made.
#[must_use]
pub fn host_main() -> ExitCode {
    let outcome = start_and_run();
    if let Err(error) = &outcome {
        reply(&StartReply::Failed(error.to_string()));
        // Standard error is `host.err` of the session.
        eprintln!("{error}");
    }
    if outcome.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn start_and_run() -> io::Result<()> {
    let mut spec = String::new();
    io::stdin().take(64 * 1024 * 1024).read_to_string(&mut spec)?;
    let spec: HostSpec = serde_json::from_str(&spec)?;
    // Out of arpc's terminal session and group: its signals are not ours.
    #[cfg(unix)]
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "already leader of a session");
    }
    // One that cannot be of many threads: their scheduler, and the library of mathematics that it needs, stay out.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(run(spec))
}

fn reply(reply: &StartReply) {
    if let Ok(line) = serde_json::to_string(reply) {
        let mut out = io::stdout();
        // arpc may have died meanwhile; the session lives on for its successor.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

async fn run(spec: HostSpec) -> io::Result<()> {
    let dir = SessionDir::new(spec.dir.clone());
    let _lock = lock(&dir).await?;
    let terminated = imp::terminated()?;
    let mut log = LogWriter::open(&dir.raw_log(), false).map_err(disk_error)?;
    log.raise(spec.above_seq, spec.above_line);
    let listener = Listener::bind(&dir.host_socket())?;
    let agent = Agent::start(&spec).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot start {}: {error}", spec.program.display()),
        )
    })?;
    let info = HostInfo {
        run: spec.run,
        agent_pid: agent.process.pid,
        agent_started: agent.process.started,
        host_pid: std::process::id(),
        host_started: procs::process(std::process::id()).map_or(0, |process| process.started),
    };
    ipc::write_private(&dir.info(), serde_json::to_string(&info)?.as_bytes())?;

    let lines = log.end().line;
    let (tail, _) = watch::channel(FromHost::Tail {
        seq: log.end().seq,
        ended: false,
        full: false,
    });
    let mut host = Host {
        throttle: Throttle::new(log.end().seq),
        full: false,
        keep_tools: false,
        log,
        lines,
        out: Splitter::default(),
        err: Splitter::default(),
        tail,
        reason: None,
    };
    host.write(
        Kind::RunStart,
        &serde_json::to_vec(&RunStart {
            run: spec.run,
            pid: agent.process.pid,
            options: spec.options.clone(),
        })?,
    )?;
    host.log.flush().map_err(disk_error)?;
    host.flush()?;
    reply(&StartReply::Started);
    host.serve(agent, listener, terminated).await
}

/// The lock that tells others that the host lives. The host before this one may be about to leave.
async fn lock(dir: &SessionDir) -> io::Result<File> {
    let file = File::create(dir.lock())?;
    let patience = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < patience => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "another host runs this session",
                ));
            }
        }
    }
}

struct Host {
    log: LogWriter,
    /// Lines of standard output so far, over all runs.
    lines: u64,
    out: Splitter,
    err: Splitter,
    tail: watch::Sender<FromHost>,
    /// Why the host ended the agent by itself.
    reason: Option<String>,
    throttle: Throttle,
    /// The disk is full: what waits for it is kept, and the agent waits.
    full: bool,
    /// The session is parked: what its tools left running stays.
    keep_tools: bool,
}

/// How far the end of the agent has come.
enum Stage {
    Running,
    /// Its input is closed; SIGTERM is due then.
    Closed {
        term_at: Instant,
        term: Duration,
    },
    /// SIGTERM was sent; SIGKILL is due then.
    Terminated {
        kill_at: Instant,
    },
}

impl Host {
    async fn serve(
        mut self,
        mut agent: Agent,
        listener: Listener,
        mut terminated: imp::Terminated,
    ) -> io::Result<()> {
        let (commands, mut received) = mpsc::channel::<ToHost>(64);
        let (connected, mut connections) = watch::channel(0_usize);
        let acceptor = tokio::spawn(accept(listener, commands, self.tail.subscribe(), connected));
        let mut stage = Stage::Running;
        let mut lonely_since = Instant::now();
        let exit = loop {
            let alone = *connections.borrow() == 0;
            let due = match &stage {
                Stage::Running if alone => lonely_since + HOST_ORPHAN,
                Stage::Running => Instant::now() + Duration::from_secs(3600),
                Stage::Closed { term_at, .. } => *term_at,
                Stage::Terminated { kill_at } => *kill_at,
            };
            let wait = self.throttle.wait(alone);
            let reading = !self.full && wait.is_some_and(|wait| wait.is_zero());
            let retry = async {
                match wait.filter(|wait| !wait.is_zero()) {
                    _ if self.full => tokio::time::sleep(FULL_RETRY).await,
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(command) = received.recv() => self.obey(command, &mut agent, &mut stage)?,
                () = terminated.recv(), if matches!(stage, Stage::Running) => {
                    self.park(&mut agent, &mut stage)?;
                }
                () = tokio::time::sleep_until(due) => self.advance(&mut agent, &mut stage, &connections).await,
                next = agent.next(reading) => match next {
                    Next::Output(chunk) => self.take(chunk, &mut agent)?,
                    Next::Ended(exit) => break exit,
                },
                changed = connections.changed() => {
                    if changed.is_ok() {
                        lonely_since = Instant::now();
                    }
                }
                () = retry => self.flush()?,
            }
            if self.log.end().offset > MAX_LOG_BYTES && self.reason.is_none() {
                self.reason = Some("the session printed more than its log may hold, and was ended".into());
                stage = Stage::Terminated {
                    kill_at: Instant::now(),
                };
            }
        };
        self.finish(agent, exit).await?;
        self.linger(&mut connections).await;
        // The socket goes before the lock does: the next host makes its own.
        acceptor.abort();
        let _ = acceptor.await;
        Ok(())
    }

    /// SIGTERM: the machine is shut down, or somebody tidies up. The session can go on later, and its log says why
    /// it stopped.
    fn park(&mut self, agent: &mut Agent, stage: &mut Stage) -> io::Result<()> {
        let message = Some("the machine was shut down, or somebody ended the session's process".into());
        let why = StopReason::Parked;
        self.write(Kind::Mark, &serde_json::to_vec(&Mark::Stop { why, message })?)?;
        self.flush()?;
        self.keep_tools = true;
        agent.input = None;
        *stage = Stage::Closed {
            term_at: Instant::now() + PARK_GRACE,
            term: TERM_GRACE,
        };
        Ok(())
    }

    /// A time limit has passed.
    async fn advance(&mut self, agent: &mut Agent, stage: &mut Stage, connections: &watch::Receiver<usize>) {
        match stage {
            Stage::Running if *connections.borrow() == 0 => {
                self.reason = Some("arpc did not come back, so the agent was ended".into());
                agent.input = None;
                *stage = Stage::Terminated {
                    kill_at: Instant::now() + crate::defaults::CLOSE_GRACE,
                };
            }
            Stage::Running => {}
            Stage::Closed { term, .. } => {
                agent.end_gently(self.keep_tools);
                *stage = Stage::Terminated {
                    kill_at: Instant::now() + *term,
                };
            }
            Stage::Terminated { .. } => {
                agent.end_by_force(self.keep_tools).await;
                *stage = Stage::Terminated {
                    kill_at: Instant::now() + Duration::from_secs(1),
                };
            }
        }
    }

    fn obey(&mut self, command: ToHost, agent: &mut Agent, stage: &mut Stage) -> io::Result<()> {
        match command {
            ToHost::Input { mark, lines, sync } => self.input(mark.as_ref(), &lines, sync, agent)?,
            ToHost::Read { seq } => self.throttle.read(seq),
            ToHost::Sync => self.log.sync().map_err(disk_error)?,
            ToHost::Fold { drop } => {
                // A log that cannot be folded is only longer.
                if let Err(error) = self.log.fold(&drop) {
                    eprintln!("cannot fold the log: {error}");
                }
            }
            ToHost::Stop {
                close_ms,
                term_ms,
                keep_tools,
            } => {
                self.keep_tools = keep_tools;
                agent.input = None;
                if matches!(stage, Stage::Running) {
                    let now = Instant::now();
                    *stage = Stage::Closed {
                        term_at: now + Duration::from_millis(close_ms),
                        term: Duration::from_millis(term_ms),
                    };
                }
            }
            ToHost::EndTools { since_ms } => agent.end_tools(Duration::from_millis(since_ms)),
        }
        Ok(())
    }

    fn input(
        &mut self,
        mark: Option<&Mark>,
        lines: &[String],
        sync: bool,
        agent: &mut Agent,
    ) -> io::Result<()> {
        self.throttle.input();
        if let Some(mark) = mark {
            self.write(Kind::Mark, &serde_json::to_vec(mark)?)?;
        }
        for line in lines {
            self.write(Kind::In, line.as_bytes())?;
        }
        // First the log, then the agent: what it was told can always be read.
        self.flush()?;
        if sync && !self.full {
            self.log.sync().map_err(disk_error)?;
        }
        for line in lines {
            let mut bytes = Vec::with_capacity(line.len() + 1);
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
            if let Some(input) = &agent.input
                && let Err(mpsc::error::TrySendError::Full(_)) = input.try_send(bytes)
            {
                self.reason = Some("the agent does not read its input, and was ended".into());
                agent.input = None;
                agent.end_gently(false);
            }
        }
        Ok(())
    }

    /// Takes a chunk, and all that came meanwhile, and flushes once.
    fn take(&mut self, chunk: Chunk, agent: &mut Agent) -> io::Result<()> {
        let mut next = Some(chunk);
        while let Some(chunk) = next {
            self.chunk(&chunk)?;
            next = if self.log.pending() < FLUSH_AT {
                agent.output.try_recv().ok()
            } else {
                None
            };
        }
        self.flush()
    }

    fn chunk(&mut self, chunk: &Chunk) -> io::Result<()> {
        let (kind, bytes, ends): (Kind, &[u8], bool) = match chunk {
            Chunk::Out(bytes) => (Kind::Out, bytes, false),
            Chunk::Err(bytes) => (Kind::Err, bytes, false),
            Chunk::OutEnd => (Kind::Out, &[], true),
            Chunk::ErrEnd => (Kind::Err, &[], true),
        };
        let mut splitter = std::mem::take(if kind == Kind::Out {
            &mut self.out
        } else {
            &mut self.err
        });
        let written = splitter.feed(bytes, ends, |line| {
            if kind == Kind::Out {
                self.lines += 1;
            }
            self.write(kind, line)
        });
        *(if kind == Kind::Out {
            &mut self.out
        } else {
            &mut self.err
        }) = splitter;
        written
    }

    /// The agent is gone: its last words, its tools, the record of its end.
    async fn finish(&mut self, mut agent: Agent, exit: Exit) -> io::Result<()> {
        agent.input = None;
        // A tool that survived may print for ever: then first end it. After that all is read to its end.
        self.drain(&mut agent, Instant::now() + DRAIN_WITH_TOOLS).await?;
        let keep = self.keep_tools;
        if agent.anyone_left(keep) {
            agent.end_gently(keep);
            let patience = Instant::now() + TERM_GRACE;
            while agent.anyone_left(keep) && Instant::now() < patience {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            agent.end_by_force(keep).await;
        }
        // With tools that go on printing into the agent's pipes there is no end to wait for.
        let most = if keep {
            DRAIN_WITH_TOOLS
        } else {
            Duration::from_secs(600)
        };
        self.drain(&mut agent, Instant::now() + most).await?;
        for end in [Chunk::OutEnd, Chunk::ErrEnd] {
            self.chunk(&end)?;
        }
        let end = RunEnd {
            exit,
            reason: self.reason.take(),
            left: if keep { agent.left_running() } else { Vec::new() },
            void: Vec::new(),
            resolved: Vec::new(),
            cut_turn: false,
        };
        self.write(Kind::RunEnd, &serde_json::to_vec(&end)?)?;
        self.log.flush().map_err(disk_error)?;
        self.log.sync().map_err(disk_error)?;
        self.tail.send_replace(FromHost::Tail {
            seq: self.log.end().seq,
            ended: true,
            full: false,
        });
        Ok(())
    }

    async fn drain(&mut self, agent: &mut Agent, until: Instant) -> io::Result<()> {
        while let Ok(Some(chunk)) = tokio::time::timeout(DRAIN, agent.output.recv()).await {
            self.take(chunk, agent)?;
            if Instant::now() > until {
                break;
            }
        }
        Ok(())
    }

    /// Gives arpc time to read the last frame.
    async fn linger(&self, connections: &mut watch::Receiver<usize>) {
        let gone = connections.wait_for(|count| *count == 0);
        let _ = tokio::time::timeout(HOST_LINGER, gone).await;
    }

    fn write(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        self.log
            .append(kind, self.lines, true, clock::now_ms(), payload)
            .map_err(disk_error)?;
        Ok(())
    }

    /// Puts what waits on disk. On a full one it waits on, and so does the agent.
    fn flush(&mut self) -> io::Result<()> {
        let full = match self.log.flush() {
            Ok(()) => false,
            Err(error) if error.is_full() => true,
            Err(error) => return Err(disk_error(error)),
        };
        self.full = full;
        self.throttle.wrote(self.log.end());
        self.tail.send_replace(FromHost::Tail {
            seq: self.log.end().seq,
            ended: false,
            full,
        });
        Ok(())
    }
}

fn disk_error(error: LogError) -> io::Error {
    io::Error::other(error)
}

#[cfg(unix)]
mod imp {
    use std::io;
    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// Tells of SIGTERM.
    pub(super) struct Terminated(Signal);

    pub(super) fn terminated() -> io::Result<Terminated> {
        signal(SignalKind::terminate()).map(Terminated)
    }

    impl Terminated {
        pub(super) async fn recv(&mut self) {
            self.0.recv().await;
        }
    }
}

#[cfg(not(unix))]
mod imp {
    use std::io;

    /// Nobody tells of an end here.
    pub(super) struct Terminated;

    pub(super) fn terminated() -> io::Result<Terminated> {
        Ok(Terminated)
    }

    impl Terminated {
        pub(super) async fn recv(&mut self) {
            std::future::pending().await
        }
    }
}
