//! Scenarios of `tests/web` at the root of the repository: real web clients and servers, which run under Node.js.
//!
//! A scenario prints the ports of its servers; the test puts edge agents in front of them and tells it the
//! relay's URL; then it runs to its end by itself, and its exit status is its outcome.

use crate::daemon::{Edge, Relay};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

/// Time for a whole scenario. Each has its own, much shorter, limits for its steps.
const SCENARIO: Duration = Duration::from_secs(240);

/// The oldest Node.js that Vite runs on.
const NODE: (u32, u32) = (20, 19);

/// Runs `scenario` of `tests/web/<script>`, with an edge agent of `relay` for each of `clients` in front of
/// the servers that it starts, in this order.
///
/// # Panics
/// When the scenario fails, with all that it printed.
pub async fn run(script: &str, scenario: &str, relay: &Relay, clients: &[&str], vars: &[(&str, &Path)]) {
    let mut child = Command::new("node")
        .arg(directory().join(script))
        .arg(scenario)
        .envs(vars.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node was found before");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    let first = tokio::time::timeout(SCENARIO, stdout.read_line(&mut line)).await;
    first.expect("it starts in time").expect("it can be read");
    let ports = serde_json::from_str::<serde_json::Value>(&line)
        .ok()
        .and_then(|told| serde_json::from_value::<Vec<u16>>(told["ports"].clone()).ok());
    let mut edges = Vec::new();
    if let Some(ports) = ports {
        for (client, port) in clients.iter().zip(ports) {
            edges.push(Edge::tcp(relay, client, ([127, 0, 0, 1], port).into()).await);
        }
        let url = format!("{}\n", relay.url(""));
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(url.as_bytes()).await.expect("it listens");
    }
    child.stdout = Some(stdout.into_inner());
    let ended = tokio::time::timeout(SCENARIO, child.wait_with_output()).await;
    let ended = ended.expect("it ends in time").expect("it can be waited for");
    assert!(
        ended.status.success(),
        "{script} {scenario}: {}\n{line}{}{}\nrelay:\n{}\nedges:\n{}",
        ended.status,
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
        relay.daemon.output(),
        edges
            .iter()
            .map(|e| e.daemon.output())
            .collect::<Vec<_>>()
            .join("\n--\n"),
    );
}

/// Is everything there that the scenarios of `tests/web` need? Installs its packages if npm is there.
///
/// # Panics
/// When something is missing and `CI` is `true`: there, a test that is skipped is a test that is lost.
#[must_use]
pub fn ready() -> bool {
    match node().and_then(|()| packages()) {
        Ok(()) => true,
        Err(what) => crate::skip(&what),
    }
}

/// A Chromium or Chrome: the program that `ARP_TEST_CHROMIUM` names, or one in `PATH`.
///
/// # Panics
/// As [`ready`].
#[must_use]
pub fn chromium() -> Option<PathBuf> {
    let names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ];
    let named = std::env::var_os("ARP_TEST_CHROMIUM").map(PathBuf::from);
    let found = named.or_else(|| names.iter().find_map(|name| crate::in_path(name)));
    if found.is_none() {
        crate::skip(
            "no Chromium was found. Install it with `apt-get install chromium`, or name the program in ARP_TEST_CHROMIUM.",
        );
    }
    found
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/web")
}

fn node() -> Result<(), String> {
    let wanted = format!("Node.js {}.{} or newer", NODE.0, NODE.1);
    let told = std::process::Command::new("node").arg("--version").output();
    let told = told.map_err(|_| {
        format!("`node` was not found. Install {wanted} (https://nodejs.org), or put it into PATH.")
    })?;
    let version = String::from_utf8_lossy(&told.stdout).trim().to_owned();
    let mut numbers = version
        .trim_start_matches('v')
        .split('.')
        .map_while(|n| n.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= NODE => Ok(()),
        _ => Err(format!("Node.js is {version}. Install {wanted}.")),
    }
}

/// Installs what the lock file names, once for all tests that start at the same time.
fn packages() -> Result<(), String> {
    let directory = directory();
    let lock = std::fs::File::create(directory.join(".install.lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    let changed = |file: &str| std::fs::metadata(directory.join(file)).and_then(|m| m.modified());
    let installed = changed("node_modules/.package-lock.json");
    if installed.is_ok_and(|at| changed("package-lock.json").is_ok_and(|lock| lock <= at)) {
        return Ok(());
    }
    let how = format!("Run `npm ci --prefix {}`.", directory.display());
    let npm = if cfg!(windows) { "npm.cmd" } else { "npm" };
    let ran = std::process::Command::new(npm)
        .arg("ci")
        .current_dir(&directory)
        .output()
        .map_err(|_| format!("`npm` was not found, and tests/web is not installed. {how}"))?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    Err(format!("installing tests/web failed. {how}\n{said}"))
}
