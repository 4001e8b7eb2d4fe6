//! Which sessions a Claude has open: it says so itself (`sessions/PID.json`, left behind by a killed process: the
//! process is checked).

use crate::AgentKind;
use crate::homes::{is_safe_id, read_side_file};
use crate::shapes::LiveSession;
use serde::Deserialize;
use std::path::Path;

/// `sessions/PID.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaudeProcess {
    pid: u32,
    session_id: String,
    cwd: Option<String>,
    status: Option<String>,
    /// Linux: start time of the process in clock ticks since boot, so that another process that got the same
    /// number is not taken for it.
    proc_start: Option<String>,
}

/// The live sessions of this home.
pub(super) fn find(home: &Path) -> Vec<LiveSession> {
    let mut live = Vec::new();
    crate::homes::each_file(&home.join("sessions"), |name, _| {
        if !name.ends_with(".json") {
            return;
        }
        let bytes = read_side_file(&home.join("sessions").join(name));
        let Some(process) = bytes.and_then(|b| serde_json::from_slice::<ClaudeProcess>(&b).ok()) else {
            return;
        };
        if is_safe_id(&process.session_id) && is_running(process.pid, process.proc_start.as_deref()) {
            live.push(LiveSession {
                session_id: process.session_id,
                agent: AgentKind::Claude,
                pid: process.pid,
                busy: process.status.map(|s| s == "busy"),
                cwd: process.cwd,
            });
        }
    });
    live
}

#[cfg(unix)]
fn is_running(pid: u32, start: Option<&str>) -> bool {
    let Some(process) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else {
        return false;
    };
    // Somebody else's process exists too.
    let exists = match rustix::process::test_kill_process(process) {
        Ok(()) => true,
        Err(error) => error == rustix::io::Errno::PERM,
    };
    let another = start
        .zip(start_of(pid))
        .is_some_and(|(noted, real)| noted != real);
    exists && !another
}

/// Another process that got the same number is taken for it: at worst a deletion has to be forced.
#[cfg(not(unix))]
fn is_running(pid: u32, _: Option<&str>) -> bool {
    use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
    let pid = Pid::from_u32(pid);
    let mut table = System::new();
    table.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[pid]),
        true,
        ProcessRefreshKind::nothing(),
    );
    table.process(pid).is_some()
}

/// When a process began, in the form that Claude notes it: field 22 of `/proc/PID/stat`.
#[cfg(target_os = "linux")]
fn start_of(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in field 2 may hold anything, brackets included; what follows the last one is numbers.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(all(unix, not(target_os = "linux")))]
fn start_of(_: u32) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_runs_until_it_has_ended() {
        let mut own = std::process::Command::new(std::env::current_exe().unwrap())
            .arg("--list")
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        own.wait().unwrap();
        let gone = own.id();
        drop(own);
        assert!(is_running(std::process::id(), None));
        assert!(!is_running(gone, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_killed_claude_is_not_live_and_neither_is_its_pids_next_owner() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("sessions")).unwrap();
        let pid = std::process::id();
        let start = start_of(pid).unwrap();
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let put = |name: &str, pid: u32, start: &str| {
            let json = format!(
                r#"{{"pid":{pid},"sessionId":"{name}","cwd":"/p","procStart":"{start}","status":"busy","more":1}}"#
            );
            std::fs::write(temp.path().join(format!("sessions/{name}.json")), json).unwrap();
        };
        put("mine", pid, &start);
        put("reused", pid, "12");
        put("killed", gone.id(), "12");
        std::fs::write(temp.path().join("sessions/garbage.json"), "{").unwrap();
        std::fs::write(temp.path().join("sessions/1.abc.key"), "secret").unwrap();
        let live = find(temp.path());
        assert_eq!(live.len(), 1);
        assert_eq!(
            (live[0].session_id.as_str(), live[0].pid, live[0].busy),
            ("mine", pid, Some(true))
        );
    }
}
