//! Which sessions a Codex has open: it holds its file open, which Linux shows.

#[cfg(target_os = "linux")]
use super::fold::id_of_file;
#[cfg(target_os = "linux")]
use crate::AgentKind;
use crate::shapes::LiveSession;
use std::path::Path;

/// Codex processes that hold a rollout file of this home open.
#[cfg(target_os = "linux")]
pub(super) fn find(home: &Path) -> Vec<LiveSession> {
    let Ok(home) = home.canonicalize() else {
        return Vec::new();
    };
    let mut live: Vec<LiveSession> = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let path = entry.path();
        if !std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("codex")) {
            continue;
        }
        for fd in std::fs::read_dir(path.join("fd")).into_iter().flatten().flatten() {
            let Ok(file) = std::fs::read_link(fd.path()) else {
                continue;
            };
            let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if let Some(id) = id_of_file(name)
                && file.starts_with(&home)
                && !live.iter().any(|l| l.session_id == id)
            {
                let session_id = id.to_owned();
                live.push(LiveSession {
                    session_id,
                    agent: AgentKind::Codex,
                    pid,
                    busy: None,
                    cwd: None,
                });
            }
        }
    }
    live
}

#[cfg(not(target_os = "linux"))]
pub(super) fn find(_: &Path) -> Vec<LiveSession> {
    Vec::new()
}
