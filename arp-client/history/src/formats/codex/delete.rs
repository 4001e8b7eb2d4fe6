//! `codex delete`, which clears Codex's databases too.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Lets Codex delete the session, which clears its databases too. What it leaves is removed afterwards, so a
/// failure is only noted.
pub(super) fn run(codex: &Path, home: &Path, id: &str) {
    let spawned = Command::new(codex)
        .args(["delete", "--force", id])
        .env("CODEX_HOME", home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return tracing::debug!(%error, "codex delete could not be started"),
    };
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return tracing::debug!(%status, "codex delete ended"),
            Ok(None) if started.elapsed() < TIMEOUT => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return tracing::debug!("codex delete took too long");
            }
        }
    }
}
