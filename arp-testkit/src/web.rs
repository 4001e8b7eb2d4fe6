//! Scenarios of `tests/web` at the root of the repository: real web clients and servers, which run under Node.js.
//!
//! A scenario prints the ports of its servers; the test puts edge agents in front of them and tells it the
//! relay's URL; then it runs to its end by itself, and its exit status is its outcome.

use crate::daemon::{Edge, PATIENCE, Relay};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

/// Time for a whole scenario. Each has its own, much shorter, limits for its steps.
const SCENARIO: Duration = Duration::from_secs(240);

/// The oldest Node.js that Vite runs on.
const NODE: (u32, u32) = (20, 19);

/// One scenario, as it is to be run.
#[derive(Debug)]
pub struct Scenario {
    script: &'static str,
    name: &'static str,
    url: Option<String>,
    vars: Vec<(String, OsString)>,
}

impl Scenario {
    /// The scenario `name` of `tests/web/<script>`.
    pub fn new(script: &'static str, name: &'static str) -> Self {
        Self {
            script,
            name,
            url: None,
            vars: Vec::new(),
        }
    }

    /// Reaches the relay at this URL, where something stands in front of it.
    #[must_use]
    pub fn at(mut self, url: String) -> Self {
        self.url = Some(url);
        self
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn var(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.vars.push((key.to_owned(), value.into()));
        self
    }

    /// Runs it, with an edge agent of `relay` for each of `clients` in front of the servers that it starts, in
    /// this order.
    ///
    /// # Panics
    /// When it fails, with all that it printed.
    pub async fn run(self, relay: &Relay, clients: &[&str]) {
        let mut child = Command::new("node")
            .arg(directory().join(self.script))
            .arg(self.name)
            .envs(self.vars)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node was found before");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        let first = tokio::time::timeout(PATIENCE * 2, stdout.read_line(&mut line)).await;
        first.expect("it starts in time").expect("it can be read");
        let mut edges = Vec::new();
        // Without the line it has failed, and the end of it tells why.
        if let Some(ports) = ports(&line) {
            for (client, port) in clients.iter().zip(ports) {
                edges.push(Edge::tcp(relay, client, ([127, 0, 0, 1], port).into()).await);
            }
            let url = self.url.unwrap_or_else(|| relay.url(""));
            let mut stdin = child.stdin.take().expect("piped");
            stdin
                .write_all(format!("{url}\n").as_bytes())
                .await
                .expect("it listens");
        }
        child.stdout = Some(stdout.into_inner());
        let ended = tokio::time::timeout(SCENARIO, child.wait_with_output()).await;
        let ended = ended.expect("it ends in time").expect("it can be waited for");
        let of_edges: Vec<_> = edges.iter().map(|e| e.daemon.output()).collect();
        assert!(
            ended.status.success(),
            "{} {}: {}\n{line}{}{}\nrelay:\n{}\nedges:\n{}",
            self.script,
            self.name,
            ended.status,
            String::from_utf8_lossy(&ended.stdout),
            String::from_utf8_lossy(&ended.stderr),
            relay.daemon.output(),
            of_edges.join("\n--\n"),
        );
    }
}

/// The ports in a scenario's first line.
fn ports(line: &str) -> Option<Vec<u16>> {
    let mut told = serde_json::from_str::<serde_json::Value>(line).ok()?;
    serde_json::from_value(told["ports"].take()).ok()
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

/// A Chromium or Chrome: the program that `ARP_TEST_CHROMIUM` names, or one in `PATH`. The one without windows comes
/// first: it is the same browser at half of the processor time.
///
/// # Panics
/// As [`ready`].
#[must_use]
pub fn chromium() -> Option<PathBuf> {
    let names = [
        "chromium-headless-shell",
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ];
    let named = std::env::var_os("ARP_TEST_CHROMIUM").map(PathBuf::from);
    let found = named.or_else(|| names.iter().find_map(|name| crate::in_path(name)));
    if found.is_none() {
        crate::skip(
            "no Chromium was found. Install it with `apt-get install chromium-headless-shell`, or name the program in ARP_TEST_CHROMIUM.",
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
