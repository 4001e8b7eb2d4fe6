//! A tunnel in the background: the same program once more, without a terminal.

use super::{ALREADY, Show, fail, is_settled};
use crate::tunnel::control::{self, Ask};
use arp_common::private;
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Pause between two looks whether it listens yet.
const STEP: Duration = Duration::from_millis(50);
/// Largest part of its log that is shown when it fails, in bytes.
const TAIL: usize = 64 * 1024;

/// In the background: ends neither with its terminal nor by a Ctrl-C there.
pub(super) fn leave_terminal() {
    #[cfg(unix)]
    let _ = rustix::process::setsid();
}

/// Starts it, and waits until it is up or has failed.
pub(super) async fn start(dir: &Path, show: &Show) -> u8 {
    let mut child = match spawn(dir) {
        Ok(child) => child,
        Err(error) => return fail(&format!("cannot start it in the background: {error}")),
    };
    let mut shown = show.begin();
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => {
                let said = private::read(&dir.join("tunnel.log"), TAIL).unwrap_or_default();
                eprint!("{}", String::from_utf8_lossy(&said));
                return status
                    .code()
                    .and_then(|code| u8::try_from(code).ok())
                    .filter(|code| *code != 0)
                    .unwrap_or(1);
            }
            Err(error) => return fail(&error.to_string()),
        }
        let Ok(mut frames) = control::ask(dir, Ask::Follow).await else {
            tokio::time::sleep(STEP).await;
            continue;
        };
        while let Ok(Some(report)) = frames.receive::<Value>().await {
            if report["pid"].as_u64() != Some(u64::from(child.id())) {
                // Two were started at once, and the other was first.
                return ALREADY;
            }
            shown.show(&report);
            match is_settled(&report) {
                Some(true) => {
                    if !show.json {
                        println!("It runs in the background; `arpc tunnel stop` ends it.");
                    }
                    return 0;
                }
                Some(false) => {
                    return fail(report["message"].as_str().unwrap_or("the tunnel was stopped"));
                }
                None => {}
            }
        }
    }
}

fn spawn(dir: &Path) -> std::io::Result<Child> {
    private::create_dir(dir)?;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).write(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let log = options.open(dir.join("tunnel.log"))?;
    let own = std::env::args_os()
        .skip(1)
        .filter(|arg| arg != "--detach" && arg != "-d");
    Command::new(std::env::current_exe()?)
        .args(own)
        .arg("--background")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}
