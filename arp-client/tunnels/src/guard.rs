//! The guard: a small process between us and a backend's program, which ends the program, and whatever it has
//! started, when we are gone. We hold the other end of its standard input; however we end (SIGKILL too), the system
//! closes it, and that is its sign. So nothing is asked of the program, and nothing depends on our own good end.
//!
//! On Linux the guard takes in the program's orphans, so that none escapes by forking; and should the guard itself
//! be killed, the program gets SIGKILL from the system.

use arp_sessions::procs::{self, Ending};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Longest description of what to guard, in bytes.
const MAX_SPEC: u64 = 256 * 1024;
/// Pause between two looks at what is still alive.
const STEP: Duration = Duration::from_millis(20);
/// Time that what a program left behind has to end gently.
const LEFTOVERS: Duration = Duration::from_secs(1);
/// Time for the last command.
const LAST_COMMAND: Duration = Duration::from_secs(15);

/// A program and its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommandLine {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
}

/// What a guard is told, as the first line of its input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// The program; without one only the last command is kept for the end.
    pub(crate) run: Option<CommandLine>,
    /// Run when all else has ended, if it was armed ([`ARM`]) and not disarmed since.
    pub(crate) finally: Option<CommandLine>,
    /// Time between SIGTERM and SIGKILL.
    pub(crate) grace: Duration,
}

/// Line by which the last command is armed.
pub(crate) const ARM: &str = "arm\n";
/// Line by which it is disarmed.
pub(crate) const DISARM: &str = "disarm\n";

enum Event {
    Over,
    Ended(io::Result<ExitStatus>),
}

/// The guard's whole life. Call it before any runtime or thread is made.
#[must_use]
pub fn guard_main() -> ExitCode {
    match guard() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("tunnel guard: {error}");
            ExitCode::FAILURE
        }
    }
}

fn guard() -> io::Result<u8> {
    let mut input = BufReader::new(io::stdin().take(MAX_SPEC));
    let mut line = String::new();
    input.read_line(&mut line)?;
    let spec: Spec = serde_json::from_str(&line)?;
    adopt_orphans();
    let (events, event) = mpsc::channel();
    // The program is the child of this very thread: the system's sign of a parent's death goes by threads.
    let child = match &spec.run {
        Some(command) => Some(start(command)?),
        None => None,
    };
    let over = events.clone();
    let armed = Arc::new(AtomicBool::new(false));
    let arm = Arc::clone(&armed);
    std::thread::spawn(move || {
        let mut line = String::new();
        while matches!(input.read_line(&mut line), Ok(n) if n > 0) {
            arm.store(line == ARM, Ordering::Release);
            line.clear();
        }
        let _ = over.send(Event::Over);
    });
    if let Some(mut child) = child {
        std::thread::spawn(move || events.send(Event::Ended(child.wait())));
    }
    let code = match event.recv() {
        Ok(Event::Ended(status)) => {
            end_all(LEFTOVERS);
            exit_code(&status?)
        }
        Ok(Event::Over) | Err(_) => {
            end_all(spec.grace);
            0
        }
    };
    if let Some(last) = spec.finally.filter(|_| armed.load(Ordering::Acquire)) {
        run_last(&last);
    }
    Ok(code)
}

fn start(command: &CommandLine) -> io::Result<Child> {
    let mut start = bound_to_us(command);
    start.stdin(Stdio::null());
    start
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", command.program.display())))
}

fn direct(command: &CommandLine) -> Command {
    let mut start = Command::new(&command.program);
    start.args(&command.args);
    start
}

/// The program by way of ourselves: [`exec_main`] binds its life to ours, and becomes it.
#[cfg(target_os = "linux")]
fn bound_to_us(command: &CommandLine) -> Command {
    let ourselves = std::env::current_exe().ok().filter(|exe| exe.is_file());
    let (Some(ourselves), Some(subcommand)) = (ourselves, std::env::args_os().nth(1)) else {
        return direct(command);
    };
    let mut start = Command::new(ourselves);
    start
        .arg(subcommand)
        .args(["--parent", &std::process::id().to_string(), "--"])
        .arg(&command.program)
        .args(&command.args);
    start
}

#[cfg(not(target_os = "linux"))]
fn bound_to_us(command: &CommandLine) -> Command {
    direct(command)
}

/// Binds the life of this process to that of its parent, and becomes the given program. Returns only if it cannot.
#[must_use]
pub fn exec_main(parent: u32, command: &[std::ffi::OsString]) -> ExitCode {
    let Some((program, args)) = command.split_first() else {
        return ExitCode::FAILURE;
    };
    let mut become_it = Command::new(program);
    become_it.args(args);
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        let still_ours = getppid()
            .map(Pid::as_raw_nonzero)
            .map(|pid| pid.get().cast_unsigned());
        if still_ours != Some(parent) {
            return ExitCode::FAILURE;
        }
    }
    #[cfg(unix)]
    {
        let error = std::os::unix::process::CommandExt::exec(&mut become_it);
        eprintln!("{}: {error}", program.to_string_lossy());
    }
    let _ = parent;
    ExitCode::FAILURE
}

fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Ends everything below us: first gently where there is such a way, after `grace` by force.
fn end_all(grace: Duration) {
    let below = || procs::descendants(std::process::id());
    let tell = |how| {
        for process in below() {
            procs::end(process, how);
        }
    };
    if cfg!(unix) {
        tell(Ending::Gently);
        let until = Instant::now() + grace;
        while Instant::now() < until {
            if below().is_empty() {
                return;
            }
            std::thread::sleep(STEP);
        }
    }
    // What is born while others die is met in the next round.
    for _ in 0..50 {
        tell(Ending::ByForce);
        if below().is_empty() {
            return;
        }
        std::thread::sleep(STEP);
    }
}

fn run_last(last: &CommandLine) {
    let started = direct(last)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = started else { return };
    let until = Instant::now() + LAST_COMMAND;
    while Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(STEP);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// As shells tell it: the exit code, or 128 and the signal.
fn exit_code(status: &ExitStatus) -> u8 {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(status) {
        return u8::try_from(128 + signal).unwrap_or(255);
    }
    status
        .code()
        .map_or(255, |code| u8::try_from(code).unwrap_or(255))
}
