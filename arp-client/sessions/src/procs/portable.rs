//! Where there is no Unix: the process table as `sysinfo` reads it, and ending without asking first, for nothing asks
//! a program without windows to end. Terminal sessions, and so tools that are meant to stay, are not known here.

use super::{Ending, Process, SESSION_MARK};
use std::path::Path;
use std::time::{Duration, SystemTime};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

/// Looks at a process that is being born, a millisecond apart.
const BIRTH: u32 = 500;

/// The table, or these of it, with what was asked for of each.
fn read(which: ProcessesToUpdate<'_>, what: ProcessRefreshKind) -> System {
    let mut system = System::new();
    system.refresh_processes_specifics(which, true, what);
    system
}

fn all(what: ProcessRefreshKind) -> System {
    read(ProcessesToUpdate::All, what)
}

fn one<T>(pid: u32, what: ProcessRefreshKind, told: impl FnOnce(&sysinfo::Process) -> T) -> Option<T> {
    let pid = Pid::from_u32(pid);
    let system = read(ProcessesToUpdate::Some(&[pid]), what);
    system.process(pid).map(told)
}

fn nothing() -> ProcessRefreshKind {
    ProcessRefreshKind::nothing()
}

fn environment() -> ProcessRefreshKind {
    nothing().with_environ(UpdateKind::Always)
}

/// Started: in seconds since 1970. None for one that is being born: Wine has no time for it yet, which is read as one
/// in the far future.
fn known(process: &sysinfo::Process) -> Option<Process> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    // A clock may be set back.
    (process.start_time() < now.as_secs() * 2).then(|| Process {
        pid: process.pid().as_u32(),
        started: process.start_time(),
    })
}

fn mark(process: &sysinfo::Process) -> Option<&str> {
    let mut variables = process.environ().iter().filter_map(|one| one.to_str());
    variables.find_map(|one| one.strip_prefix(SESSION_MARK)?.strip_prefix('='))
}

pub(super) fn process(pid: u32) -> Option<Process> {
    for _ in 0..BIRTH {
        if let Some(process) = one(pid, nothing(), known)? {
            return Some(process);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

pub(super) fn table() -> Vec<(Process, u32)> {
    let system = all(nothing());
    let parent = |process: &sysinfo::Process| {
        let parent = system.process(process.parent()?)?;
        // The number of a parent that ended stays, and may be another's by now: a child is not older than its parent.
        (parent.start_time() <= process.start_time()).then(|| parent.pid().as_u32())
    };
    let found = system.processes().values();
    found
        .filter_map(|process| Some((known(process)?, parent(process).unwrap_or(0))))
        .collect()
}

pub(super) fn marked(session_id: &str) -> Vec<Process> {
    // Other users' processes cannot be read, and are not ours.
    let system = all(environment());
    let found = system.processes().values();
    found
        .filter(|process| mark(process) == Some(session_id))
        .filter_map(known)
        .collect()
}

pub(super) fn sessions_above(pid: u32) -> Vec<String> {
    let system = all(environment());
    let mut found = Vec::new();
    let mut at = system.process(Pid::from_u32(pid));
    // Deeper nesting is nobody's but an attacker's.
    for _ in 0..64 {
        let Some(process) = at else { break };
        found.extend(mark(process).map(str::to_owned));
        let parent = process.parent().and_then(|parent| system.process(parent));
        at = parent.filter(|parent| parent.start_time() <= process.start_time());
    }
    found.reverse();
    found
}

pub(super) fn in_other_session(_pid: u32, _than: u32) -> bool {
    false
}

pub(super) fn stopped(_pid: u32) -> bool {
    false
}

/// Which process leads is not known here: the oldest of those that work in this directory.
pub(super) fn working_in(dir: &Path) -> Option<Process> {
    let dir = dir.canonicalize().ok()?;
    let system = all(nothing().with_cwd(UpdateKind::Always));
    let there = |process: &&sysinfo::Process| {
        let cwd = process.cwd().and_then(|cwd| cwd.canonicalize().ok());
        cwd.is_some_and(|cwd| cwd == dir)
    };
    let found = system.processes().values().filter(there);
    found
        .filter_map(known)
        .min_by_key(|process| (process.started, process.pid))
}

pub(super) fn command_line(pid: u32) -> String {
    let words = |process: &sysinfo::Process| {
        let words: Vec<_> = process.cmd().iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    };
    one(pid, nothing().with_cmd(UpdateKind::Always), words).unwrap_or_default()
}

pub(super) fn age(process: Process) -> Option<Duration> {
    let began = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(process.started))?;
    SystemTime::now().duration_since(began).ok()
}

pub(super) fn signal(pid: u32, how: Ending) {
    match how {
        Ending::Gently => {}
        // It may have ended since we looked: then there is nothing to do.
        Ending::ByForce => drop(one(pid, nothing(), sysinfo::Process::kill)),
    }
}
