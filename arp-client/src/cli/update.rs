//! `arpc update`.

use super::Failure;
use crate::tokens::local;
use arp_common::ids::ClientId;
use arp_common::update::{Plan, Updated};
use clap::Args;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How to update.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// This release (v0.2.0) and not the newest.
    #[arg(long, value_name = "VERSION")]
    release: Option<String>,
    /// Command that restarts arpc [default: systemctl --user restart arpc, if it runs so].
    #[arg(long, value_name = "COMMAND")]
    restart: Option<String>,
}

/// How long a new arpc may take until it answers.
const COMES_UP: Duration = Duration::from_secs(60);

pub(super) fn run(options: &Options, data_dir: &Path, id: &ClientId) -> Result<(), Failure> {
    let failed = |e: arp_common::update::UpdateError| Failure(e.to_string());
    let mut plan =
        Plan::new("arpc", crate::TARGET, crate::RELEASES, options.release.as_deref()).map_err(failed)?;
    plan.with = &[arp_sessions::HOST_PROGRAM];
    let version = match plan.install().map_err(failed)? {
        Updated::Same(version) => {
            println!("{version} is the newest");
            return Ok(());
        }
        Updated::To(version) => version,
    };
    let by_systemd = options.restart.is_none() && shell("systemctl --user is-active --quiet arpc").is_ok();
    let own = by_systemd.then(|| "systemctl --user restart arpc".to_owned());
    let Some(restart) = options.restart.clone().or(own) else {
        println!("{version} is in place; start arpc anew to use it (its sessions run on meanwhile)");
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let pid = || {
        runtime
            .block_on(local::status(data_dir, id))
            .ok()
            .map(|told| told.fixed.pid)
    };
    let before = pid();
    let is_up = || match pid() {
        Some(now) => Some(now) != before,
        // One that could not be asked before either, as its data are elsewhere: systemd waits until it is ready.
        None => before.is_none() && by_systemd,
    };
    plan.restart(|| shell(&restart), is_up, COMES_UP)
        .map_err(failed)?;
    println!("{version} runs now; the one before is {}", plan.old().display());
    Ok(())
}

/// Runs a command line of the user's.
fn shell(command: &str) -> Result<(), String> {
    let (program, flag) = if cfg!(windows) {
        ("cmd", "/C")
    } else {
        ("sh", "-c")
    };
    let done = Command::new(program)
        .args([flag, command])
        .stdin(Stdio::null())
        .output();
    let done = done.map_err(|e| format!("{command}: {e}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(format!("{command}: {}; {said}", done.status))
}
