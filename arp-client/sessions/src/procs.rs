//! The processes below a process: finding and ending them.
//!
//! A group kill is not enough: agents run their tools in sessions and groups of their own. On Linux the tree
//! is read from `/proc`, and processes that left the tree are found by the session's mark in their
//! environment; elsewhere on Unix by `ps`; on Windows `sysinfo` reads both.

use std::collections::{HashMap, HashSet};

#[cfg(not(unix))]
mod portable;
#[cfg(not(unix))]
use portable as imp;

/// Environment variable with the session's id that every process of a session inherits.
pub const SESSION_MARK: &str = "ARP_SESSION_ID";

/// A process, told apart from a later one with the same number by its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in the system's own unit; 0 where that is not known.
    pub started: u64,
}

/// What to tell a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Please end (SIGTERM).
    Gently,
    /// End (SIGKILL).
    ByForce,
}

/// The process of this number, if there is one.
#[must_use]
pub fn process(pid: u32) -> Option<Process> {
    imp::process(pid)
}

/// Is it still this process, and alive (not a zombie)?
#[must_use]
pub fn alive(process: Process) -> bool {
    imp::process(process.pid).is_some_and(|now| now.started == process.started)
}

/// All processes below this one, without itself.
#[must_use]
pub fn descendants(pid: u32) -> Vec<Process> {
    let mut children: HashMap<u32, Vec<Process>> = HashMap::new();
    for (process, parent) in imp::table() {
        children.entry(parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut seen = HashSet::from([pid]);
    let mut open = vec![pid];
    while let Some(parent) = open.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if seen.insert(child.pid) {
                found.push(*child);
                open.push(child.pid);
            }
        }
    }
    found
}

/// All processes that carry this session's [`SESSION_MARK`], wherever they are in the tree.
#[must_use]
pub fn marked(session_id: &str) -> Vec<Process> {
    imp::marked(session_id)
}

/// The sessions ([`SESSION_MARK`]) of a process and of those above it, the outermost first. A process can put a mark on
/// what it starts itself, but not on what started it: the outermost is true.
#[must_use]
pub fn sessions_above(pid: u32) -> Vec<String> {
    imp::sessions_above(pid)
}

/// Does this process run in another terminal session (setsid) than that one?
#[must_use]
pub fn in_other_session(process: Process, than: u32) -> bool {
    imp::in_other_session(process.pid, than)
}

/// Is it stopped (SIGSTOP)?
#[must_use]
pub fn stopped(process: Process) -> bool {
    imp::stopped(process.pid)
}

/// The leader of a terminal session whose working directory this is: how a session host is found that cannot say
/// who it is.
#[must_use]
pub fn working_in(dir: &std::path::Path) -> Option<Process> {
    imp::working_in(dir)
}

/// What it was started with, in one short line.
#[must_use]
pub fn command_line(process: Process) -> String {
    crate::model::shortened(&imp::command_line(process.pid), 200)
}

/// How long it has run, where that can be known.
#[must_use]
pub fn age(process: Process) -> Option<std::time::Duration> {
    imp::age(process)
}

/// Tells a process to end. One that is gone is ended.
pub fn end(process: Process, how: Ending) {
    if alive(process) {
        imp::signal(process.pid, how);
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use super::{Process, SESSION_MARK};

    pub(super) fn process(pid: u32) -> Option<Process> {
        read(pid).map(|(process, _)| process)
    }

    pub(super) fn table() -> Vec<(Process, u32)> {
        pids().filter_map(read).collect()
    }

    pub(super) fn marked(session_id: &str) -> Vec<Process> {
        let mark = format!("{SESSION_MARK}={session_id}");
        pids()
            .filter(|pid| {
                // Other users' processes cannot be read, and are not ours.
                std::fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|var| var == mark.as_bytes()))
            })
            .filter_map(process)
            .collect()
    }

    pub(super) fn sessions_above(mut pid: u32) -> Vec<String> {
        let mut found = Vec::new();
        // Deeper nesting is nobody's but an attacker's.
        for _ in 0..64 {
            found.extend(mark_of(pid));
            match read(pid) {
                Some((_, parent)) if parent > 1 => pid = parent,
                _ => break,
            }
        }
        found.reverse();
        found
    }

    fn mark_of(pid: u32) -> Option<String> {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let mut variables = environ.split(|byte| *byte == 0);
        let value = variables
            .find_map(|variable| variable.strip_prefix(SESSION_MARK.as_bytes())?.strip_prefix(b"="))?;
        String::from_utf8(value.to_vec()).ok()
    }

    pub(super) fn in_other_session(pid: u32, than: u32) -> bool {
        let session = |pid: u32| {
            i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw)
                .and_then(|pid| rustix::process::getsid(Some(pid)).ok())
        };
        matches!((session(pid), session(than)), (Some(one), Some(other)) if one != other)
    }

    pub(super) fn stopped(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
    }

    pub(super) fn working_in(dir: &std::path::Path) -> Option<Process> {
        let dir = dir.canonicalize().ok()?;
        let session = |pid: u32| {
            rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)
                .and_then(|pid| rustix::process::getsid(Some(pid)).ok())
                .and_then(|session| u32::try_from(session.as_raw_nonzero().get()).ok())
        };
        pids()
            .filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir))
            .filter(|pid| session(*pid) == Some(*pid))
            .find_map(process)
    }

    pub(super) fn command_line(pid: u32) -> String {
        let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = bytes
            .split(|byte| *byte == 0)
            .filter(|word| !word.is_empty())
            .map(String::from_utf8_lossy)
            .collect();
        words.join(" ")
    }

    pub(super) fn age(process: Process) -> Option<std::time::Duration> {
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
        let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
        let started = f64::from(u32::try_from(process.started / u64::from(ticks)).ok()?);
        Some(std::time::Duration::from_secs_f64((uptime - started).max(0.0)))
    }

    pub(super) use super::unix_signal as signal;

    fn pids() -> impl Iterator<Item = u32> {
        std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
    }

    /// A process that is not a zombie, and its parent.
    fn read(pid: u32) -> Option<(Process, u32)> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything, brackets and spaces too: count from its last bracket.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let state = *fields.first()?;
        if state == "Z" || state == "X" {
            return None;
        }
        let parent = fields.get(1)?.parse().ok()?;
        let started = fields.get(19)?.parse().ok()?;
        Some((Process { pid, started }, parent))
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
mod imp {
    use super::Process;

    pub(super) fn process(pid: u32) -> Option<Process> {
        let number = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
        rustix::process::test_kill_process(number)
            .ok()
            .map(|()| Process { pid, started: 0 })
    }

    pub(super) fn table() -> Vec<(Process, u32)> {
        let Ok(output) = std::process::Command::new("ps")
            .args(["-axo", "pid=,ppid="])
            .output()
        else {
            return Vec::new();
        };
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| {
                let mut numbers = line.split_ascii_whitespace();
                let pid = numbers.next()?.parse().ok()?;
                Some((Process { pid, started: 0 }, numbers.next()?.parse().ok()?))
            })
            .collect()
    }

    pub(super) fn marked(_session_id: &str) -> Vec<Process> {
        Vec::new()
    }

    pub(super) fn sessions_above(_pid: u32) -> Vec<String> {
        Vec::new()
    }

    pub(super) fn in_other_session(_pid: u32, _than: u32) -> bool {
        false
    }

    pub(super) fn stopped(_pid: u32) -> bool {
        false
    }

    pub(super) fn working_in(_dir: &std::path::Path) -> Option<Process> {
        None
    }

    pub(super) fn command_line(_pid: u32) -> String {
        String::new()
    }

    pub(super) fn age(_process: Process) -> Option<std::time::Duration> {
        None
    }

    pub(super) use super::unix_signal as signal;
}

#[cfg(unix)]
fn unix_signal(pid: u32, how: Ending) {
    use rustix::process::{Pid, Signal, kill_process};
    let signal = match how {
        Ending::Gently => Signal::TERM,
        Ending::ByForce => Signal::KILL,
    };
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended since we looked: then there is nothing to do.
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    /// How many more generations a process of [`a_tree_of_processes`] has to start.
    const GENERATIONS: &str = "ARP_TEST_GENERATIONS";

    /// This test program again, to be a child that lives until it is ended, and has a child of its own.
    fn child(generations: u32, session: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "procs::tests::a_tree_of_processes"])
            .env(GENERATIONS, generations.to_string())
            .env(SESSION_MARK, session)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = found() {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_tree_of_processes() {
        if let Ok(generations) = std::env::var(GENERATIONS) {
            let more = generations.parse::<u32>().unwrap().checked_sub(1);
            let session = std::env::var(SESSION_MARK).unwrap();
            let below = more.map(|more| child(more, &session));
            // It is ended long before.
            std::thread::sleep(Duration::from_secs(120));
            drop(below);
            return;
        }
        let session = format!("{:032x}", rand::random::<u128>());
        let mut first = child(1, &session);
        let own = process(std::process::id()).unwrap();
        let one = process(first.id()).unwrap();
        assert!(alive(own) && alive(one) && one.started >= own.started);
        let two = until("a grandchild", || descendants(one.pid).first().copied());
        let below = descendants(own.pid);
        assert!(
            below.contains(&one) && below.contains(&two) && !below.contains(&own),
            "{own:?} {one:?} {two:?}: {below:?}"
        );
        assert!(!descendants(two.pid).contains(&one));
        if cfg!(any(target_os = "linux", not(unix))) {
            until("both bear the mark", || {
                let marked = marked(&session);
                (marked.contains(&one) && marked.contains(&two) && marked.len() == 2).then_some(())
            });
            assert_eq!(sessions_above(two.pid), [session.as_str(), &session]);
            assert!(command_line(one).contains("a_tree_of_processes"));
            assert!(age(one).unwrap() < Duration::from_secs(60));
        }
        // Another that had the number before is gone, so nothing is done to this one in its place.
        let before = Process {
            started: one.started.wrapping_add(7),
            ..one
        };
        assert!(!alive(before));
        end(before, Ending::ByForce);
        assert!(alive(one));
        for one in [one, two] {
            end(one, Ending::ByForce);
        }
        first.wait().unwrap();
        until("both ended", || (!alive(one) && !alive(two)).then_some(()));
        assert!(marked(&session).is_empty());
    }
}
