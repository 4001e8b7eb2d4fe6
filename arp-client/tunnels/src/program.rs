//! A backend's program under its guard: started, listened to, asked to end.

use crate::defaults as d;
use crate::guard::{CommandLine, Spec};
use crate::log::{Log, plain};
use crate::{Backend, Check, TunnelError};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

/// How the guard is started: an executable that calls [`crate::guard_main`] when it gets these arguments.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

impl Launcher {
    /// This executable, with this subcommand.
    ///
    /// # Errors
    /// When the system does not tell which executable this is.
    pub fn this_executable(subcommand: &str) -> std::io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            args: vec![subcommand.to_owned()],
        })
    }
}

/// What a program's output has told so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its public address.
    pub(crate) url: Option<String>,
    /// Connections to its service.
    pub(crate) connections: u32,
    /// It will not work, and trying again changes nothing, or not soon.
    pub(crate) fatal: Option<TunnelError>,
    /// What it last complained of; told if it ends.
    pub(crate) complaint: Option<TunnelError>,
}

/// Takes what one line tells.
pub(crate) type Reader = Box<dyn Fn(&mut Seen, &str) + Send + Sync>;

/// What is to be started.
pub(crate) struct Start {
    pub(crate) backend: Backend,
    pub(crate) run: Option<CommandLine>,
    pub(crate) finally: Option<CommandLine>,
    pub(crate) env: Vec<(&'static str, OsString)>,
    /// Variables with these beginnings are taken out of its environment.
    pub(crate) without: Vec<&'static str>,
    pub(crate) dir: PathBuf,
    pub(crate) reader: Reader,
}

impl Start {
    pub(crate) fn new(
        backend: Backend,
        program: PathBuf,
        args: Vec<String>,
        dir: &Path,
        reader: Reader,
    ) -> Self {
        Self {
            backend,
            run: Some(CommandLine { program, args }),
            finally: None,
            env: Vec::new(),
            without: Vec::new(),
            dir: dir.to_owned(),
            reader,
        }
    }
}

/// A running program. Dropping it has its guard end it.
pub(crate) struct Program {
    backend: Backend,
    guard: Option<u32>,
    /// Held open while the program shall live.
    hold: Option<ChildStdin>,
    seen: watch::Receiver<Seen>,
    ended: watch::Receiver<Option<String>>,
    log: Arc<Log>,
    /// They end with the pipes, unless something holds these open after the guard's end.
    drains: Vec<AbortOnDropHandle<()>>,
}

impl Program {
    /// Starts it.
    pub(crate) async fn start(
        launcher: &Launcher,
        start: Start,
        log: &Arc<Log>,
    ) -> Result<Self, TunnelError> {
        let Start {
            backend,
            run,
            finally,
            env,
            without,
            dir,
            reader,
        } = start;
        let failed = |error: std::io::Error| {
            TunnelError::passing(format!("cannot start the program of {backend}: {error}"))
        };
        let mut command = Command::new(&launcher.program);
        command.args(&launcher.args).current_dir(&dir);
        // Our own settings hold secrets that are none of its business, and its log level is not ours.
        let ours = |name: &str| {
            name.starts_with("ARPC_")
                || matches!(name, "RUST_LOG" | "RUST_BACKTRACE")
                || without.iter().any(|beginning| name.starts_with(beginning))
        };
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(ours) {
                command.env_remove(name);
            }
        }
        command.env("NO_COLOR", "1").envs(env);
        #[cfg(unix)]
        command.process_group(0);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let missing = || failed(std::io::Error::other("a pipe is missing"));
        let (mut hold, out, err) = match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
            (Some(hold), Some(out), Some(err)) => (hold, out, err),
            _ => return Err(missing()),
        };
        let spec = Spec {
            run,
            finally,
            grace: d::GRACE,
        };
        let mut line = serde_json::to_vec(&spec).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        hold.write_all(&line).await.map_err(failed)?;

        let (tell, seen) = watch::channel(Seen::default());
        let (tell, reader) = (Arc::new(tell), Arc::new(reader));
        let drains = vec![
            AbortOnDropHandle::new(tokio::spawn(drain(
                out,
                Arc::clone(&reader),
                Arc::clone(&tell),
                Arc::clone(log),
            ))),
            AbortOnDropHandle::new(tokio::spawn(drain(err, reader, tell, Arc::clone(log)))),
        ];
        let guard = child.id();
        let (end, ended) = watch::channel(None);
        tokio::spawn(bury(child, end));
        Ok(Self {
            backend,
            guard,
            hold: Some(hold),
            seen,
            ended,
            log: Arc::clone(log),
            drains,
        })
    }

    /// Does it live?
    pub(crate) fn process(&self) -> Check {
        match &*self.ended.borrow() {
            Some(how) => Check::Bad(how.clone()),
            None => Check::Good("runs".into()),
        }
    }

    /// What its output has told so far.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until its output tells what `pick` looks for.
    ///
    /// # Errors
    /// When it ends, will not work, or takes longer than `time`.
    pub(crate) async fn until<T>(
        &mut self,
        time: Duration,
        what: &str,
        mut pick: impl FnMut(&Seen) -> Option<T>,
    ) -> Result<T, TunnelError> {
        let deadline = Instant::now() + time;
        loop {
            // First whether it has ended, then what it said: so nothing it said is missed.
            let ended = self.ended.borrow().clone();
            if ended.is_some() {
                self.drained().await;
            }
            let seen = self.seen.borrow_and_update().clone();
            if let Some(fatal) = seen.fatal {
                return Err(fatal);
            }
            if let Some(found) = pick(&self.seen.borrow()) {
                return Ok(found);
            }
            if let Some(how) = ended {
                return Err(self.death(&how));
            }
            let news = async {
                tokio::select! {
                    _ = self.ended.changed() => {}
                    changed = self.seen.changed() => if changed.is_err() {
                        // Both pipes are closed; only its end is news now.
                        let _ = self.ended.wait_for(Option::is_some).await;
                    }
                }
            };
            if tokio::time::timeout_at(deadline, news).await.is_err() {
                let complaint = self.seen.borrow().complaint.clone();
                return Err(complaint.unwrap_or_else(|| {
                    TunnelError::passing(format!(
                        "{} did not {what} within {} s",
                        self.name(),
                        time.as_secs()
                    ))
                    .saying(self.log.last())
                }));
            }
        }
    }

    /// Waits until it ends, or its output tells something new.
    pub(crate) async fn news(&mut self) -> Result<Seen, TunnelError> {
        loop {
            let ended = self.ended.borrow().clone();
            if let Some(how) = ended {
                self.drained().await;
                let fatal = self.seen.borrow().fatal.clone();
                return Err(fatal.unwrap_or_else(|| self.death(&how)));
            }
            tokio::select! {
                _ = self.ended.changed() => {}
                changed = self.seen.changed() => {
                    if changed.is_err() {
                        let _ = self.ended.wait_for(Option::is_some).await;
                        continue;
                    }
                    let seen = self.seen.borrow_and_update().clone();
                    return match seen.fatal {
                        Some(fatal) => Err(fatal),
                        None => Ok(seen),
                    };
                }
            }
        }
    }

    /// Tells its guard something.
    pub(crate) async fn tell_guard(&mut self, line: &str) -> Result<(), TunnelError> {
        let Some(hold) = &mut self.hold else { return Ok(()) };
        hold.write_all(line.as_bytes())
            .await
            .map_err(|error| TunnelError::passing(format!("the guard of {} is gone: {error}", self.backend)))
    }

    /// Ends it, with all its processes.
    ///
    /// # Errors
    /// When its guard does not end.
    pub(crate) async fn stop(mut self) -> Result<(), TunnelError> {
        drop(self.hold.take());
        if timeout(d::GUARD, self.ended.wait_for(Option::is_some))
            .await
            .is_ok()
        {
            return Ok(());
        }
        self.kill();
        let text = format!("the guard of {} did not end in time and was killed", self.name());
        Err(TunnelError::passing(text))
    }

    /// The last resort: the guard and its group. On Linux the program ends with its guard in any case.
    fn kill(&self) {
        #[cfg(unix)]
        if let Some(pid) = self
            .guard
            .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()))
        {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        #[cfg(not(unix))]
        if let Some(pid) = self.guard {
            let _ = std::process::Command::new("taskkill")
                .args(["/T", "/F", "/PID", &pid.to_string()])
                .output();
        }
    }

    /// Waits a moment for the last of its output.
    async fn drained(&mut self) {
        for drain in &mut self.drains {
            if !drain.is_finished() {
                let _ = timeout(Duration::from_millis(500), drain).await;
            }
        }
    }

    fn name(&self) -> String {
        format!("the program of {}", self.backend)
    }

    fn death(&self, how: &str) -> TunnelError {
        let complaint = self.seen.borrow().complaint.clone();
        complaint
            .unwrap_or_else(|| TunnelError::passing(format!("{} {how}", self.name())).saying(self.log.last()))
    }
}

/// Whatever becomes of it, somebody has to collect its exit status.
async fn bury(mut child: Child, end: watch::Sender<Option<String>>) {
    let how = match child.wait().await {
        Ok(status) => told(&status),
        Err(error) => format!("ended, and nobody knows how: {error}"),
    };
    let _ = end.send(Some(how));
}

fn told(status: &ExitStatus) -> String {
    match status.code() {
        Some(0) => "ended".into(),
        Some(code @ 129..=192) => format!("was ended by signal {}", code - 128),
        Some(code) => format!("ended with code {code}"),
        None => "was killed, with its guard".into(),
    }
}

/// Reads a pipe to its end, for ever if need be, so that the program never waits for us.
async fn drain(
    mut pipe: impl AsyncRead + Unpin,
    reader: Arc<Reader>,
    tell: Arc<watch::Sender<Seen>>,
    log: Arc<Log>,
) {
    let mut lines = Lines::default();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let n = match pipe.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        lines.push(&chunk[..n], |line| take(line, &reader, &tell, &log));
        // A flood must not keep others from running.
        tokio::task::yield_now().await;
    }
    lines.finish(|line| take(line, &reader, &tell, &log));
}

fn take(line: &str, reader: &Reader, tell: &watch::Sender<Seen>, log: &Log) {
    let line = plain(line);
    let shown = log.push(&line);
    tracing::debug!(target: "tunnel", "{shown}");
    tell.send_if_modified(|seen| {
        let before = seen.clone();
        reader(seen, &line);
        for error in [&mut seen.fatal, &mut seen.complaint].into_iter().flatten() {
            error.message = log.shown(&error.message);
        }
        *seen != before
    });
}

/// Takes bytes apart into lines; what is too long of a line is dropped.
#[derive(Default)]
struct Lines {
    open: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut take: impl FnMut(&str)) {
        for &byte in bytes {
            if byte == b'\n' || byte == b'\r' {
                if !self.open.is_empty() {
                    take(&String::from_utf8_lossy(&self.open));
                    self.open.clear();
                }
            } else if self.open.len() < d::LINE {
                self.open.push(byte);
            }
        }
    }

    fn finish(self, mut take: impl FnMut(&str)) {
        if !self.open.is_empty() {
            take(&String::from_utf8_lossy(&self.open));
        }
    }
}

/// Runs a short command and gives its exit code and its two outputs.
///
/// # Errors
/// When it cannot be started, prints without end, or takes too long; then it is killed. What it had printed is in
/// the error's text.
pub(crate) async fn run(
    program: &Path,
    args: &[&str],
    time: Duration,
) -> Result<(Option<i32>, String, String), TunnelError> {
    let failed = |error: &dyn std::fmt::Display| {
        TunnelError::passing(format!("cannot run {}: {error}", program.display()))
    };
    let mut child = Command::new(program)
        .args(args)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(&error))?;
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed(&"a pipe is missing"));
    };
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let all = async {
        let read = async {
            let mut out = out.take(d::COMMAND_OUTPUT);
            let mut err = err.take(d::COMMAND_OUTPUT);
            tokio::try_join!(out.read_to_end(&mut said), err.read_to_end(&mut complained))
        };
        read.await?;
        child.wait().await
    };
    let ended = timeout(time, all).await;
    let text = |bytes: &[u8]| plain_lines(&String::from_utf8_lossy(bytes));
    let (said, complained) = (text(&said), text(&complained));
    match ended {
        Ok(Ok(status)) => Ok((status.code(), said, complained)),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => {
            let shown = format!("{said}\n{complained}");
            let text = format!(
                "`{} {}` did not end within {} s",
                program.file_name().unwrap_or_default().to_string_lossy(),
                args.first().copied().unwrap_or_default(),
                time.as_secs()
            );
            Err(TunnelError::passing(text).saying(Some(shown.trim().to_owned()).filter(|s| !s.is_empty())))
        }
    }
}

fn plain_lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart_and_never_grow() {
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        let flood = vec![b'x'; 3 * d::LINE];
        for part in [b"one\r\ntw".as_slice(), b"o\n\n", &flood, b"\nlast"] {
            lines.push(part, |line| got.push(line.to_owned()));
        }
        lines.finish(|line| got.push(line.to_owned()));
        assert_eq!(
            (got[0].as_str(), got[1].as_str(), got[3].as_str()),
            ("one", "two", "last")
        );
        assert_eq!(got[2].len(), d::LINE);
    }
}
