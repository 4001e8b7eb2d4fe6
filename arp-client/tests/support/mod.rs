//! What black-box tests of command mode share: the real `arpc` behind a real relay, which can be killed and started
//! again, its API, and readers of its streams.

#![allow(dead_code, unused_imports, reason = "each test file uses its own part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

mod daemons;
mod sse;
mod ws;

use arp_testkit::daemon::Relay;
use daemons::Started;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) use sse::{Sse, SseReader};
pub(crate) use ws::Ws;

/// The token of the edge under test.
pub(crate) const TOKEN: &str = "test-token";
/// Whatever is waited for has to come within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A directory for one test, and an edge that runs in it.
pub(crate) struct Edge {
    pub(crate) root: TempDir,
    pub(crate) base: String,
    pub(crate) client: Client,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    child: Child,
    mcp: Option<u16>,
    relay: Relay,
}

/// The program under test.
pub(crate) const ARPC: &str = env!("CARGO_BIN_EXE_arpc");

/// Where cargo puts the examples.
pub(crate) fn example(name: &str) -> PathBuf {
    let path = Path::new(ARPC).with_file_name("examples").join(name);
    assert!(
        path.exists(),
        "{} is missing; `cargo test` builds it",
        path.display()
    );
    path
}

impl Edge {
    /// Starts an edge whose Claude is the scripted one.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with further arguments.
    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        let claude = format!("--agent-path=claude={}", example("scripted_claude").display());
        let mut all = vec![claude];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        Self::launch(all, Vec::new()).await
    }

    /// Starts an edge with these arguments and this environment; what is asked of it goes to its loopback
    /// listener.
    pub(crate) async fn launch(
        arguments: Vec<String>,
        environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    ) -> Self {
        let mut all = vec!["--listen=127.0.0.1:0".to_owned()];
        all.extend(arguments);
        Self::launch_in(all, environment).await
    }

    /// The same, but everything that is asked of it goes through the relay.
    pub(crate) async fn launch_through_relay(
        arguments: Vec<String>,
        environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    ) -> Self {
        Self::launch_in(arguments, environment).await
    }

    async fn launch_in(
        arguments: Vec<String>,
        environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    ) -> Self {
        Self::launch_program_at(ARPC.into(), tempfile::tempdir().unwrap(), arguments, environment).await
    }

    /// Starts an edge that keeps everything in this directory, and whose Claude is the scripted one.
    pub(crate) async fn start_at(root: TempDir) -> Self {
        Self::start_program_at(ARPC.into(), root).await
    }

    /// The same of a copy of `arpc`.
    pub(crate) async fn start_program_at(program: PathBuf, root: TempDir) -> Self {
        let claude = format!("--agent-path=claude={}", example("scripted_claude").display());
        let arguments = vec!["--listen=127.0.0.1:0".into(), claude];
        Self::launch_program_at(program, root, arguments, Vec::new()).await
    }

    async fn launch_program_at(
        program: PathBuf,
        root: TempDir,
        arguments: Vec<String>,
        environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    ) -> Self {
        let relay = Relay::start().await;
        std::fs::create_dir(root.path().join("project")).unwrap();
        std::fs::create_dir(root.path().join("home")).unwrap();
        let Started { child, base, mcp } =
            daemons::arpc(&program, root.path(), &relay, &arguments, &environment);
        let client = arp_testkit::client::builder()
            .pool_max_idle_per_host(0)
            .build()
            .unwrap();
        Self {
            mcp,
            root,
            base,
            client,
            program,
            arguments,
            environment,
            child,
            relay,
        }
    }

    /// SIGKILL for the edge, and a new one in its place.
    pub(crate) fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.restart();
    }

    /// `arpc stop`, with these arguments; what it says.
    pub(crate) async fn stop(&self, arguments: &[&str]) -> String {
        let stop = tokio::process::Command::new(env!("CARGO_BIN_EXE_arpc"))
            .arg("--data-dir")
            .arg(self.root.path().join("data"))
            .arg("stop")
            .args(arguments)
            .output()
            .await
            .unwrap();
        assert!(stop.status.success(), "{stop:?}");
        String::from_utf8_lossy(&stop.stdout).into_owned()
    }

    /// A new edge after the end of the last.
    pub(crate) fn restart(&mut self) {
        let started = daemons::arpc(
            &self.program,
            self.root.path(),
            &self.relay,
            &self.arguments,
            &self.environment,
        );
        self.child = started.child;
        self.base = started.base;
        self.mcp = started.mcp;
    }

    /// The content of a file that is about to appear.
    pub(crate) async fn until_file(&self, path: &Path) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let content = std::fs::read_to_string(path).unwrap_or_default();
            if content.ends_with('\n') {
                return content.trim().to_owned();
            }
            assert!(Instant::now() < until, "{} did not appear", path.display());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for a file.
    pub(crate) async fn until_exists(&self, path: &Path) {
        let until = Instant::now() + PATIENCE;
        while !path.exists() {
            assert!(Instant::now() < until, "{} did not appear", path.display());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn terminate(&mut self) {
        Command::new("kill").arg(self.pid().to_string()).status().unwrap();
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the edge does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.root.path().join("project")
    }

    /// Resident memory of the edge, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, self.url(path))
            .header("x-arp-token", TOKEN)
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::DELETE, path)).await
    }

    /// Starts a session and gives its id.
    pub(crate) async fn session(&self, prompt: &str) -> String {
        let body = json!({"executor": "claude", "prompt": prompt, "project_path": self.project()});
        let (status, started) = self.post("/api/sessions", body).await;
        assert_eq!(status, StatusCode::CREATED, "{started}");
        started["session_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn say(&self, id: &str, text: &str) -> Value {
        let (status, accepted) = self
            .post(&format!("/api/sessions/{id}/messages"), json!({"text": text}))
            .await;
        assert!(status.is_success(), "{accepted}");
        accepted
    }

    pub(crate) async fn view(&self, id: &str) -> Value {
        let (status, answer) = self.get(&format!("/api/sessions/{id}?lines=none")).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["session"].clone()
    }

    /// Waits until the session object is like this.
    pub(crate) async fn until(&self, id: &str, what: &str, like: impl Fn(&Value) -> bool) -> Value {
        self.until_within(PATIENCE, id, what, like).await
    }

    /// The same, for what may take longer.
    pub(crate) async fn until_within(
        &self,
        patience: Duration,
        id: &str,
        what: &str,
        like: impl Fn(&Value) -> bool,
    ) -> Value {
        let until = Instant::now() + patience;
        loop {
            let view = self.view(id).await;
            if like(&view) {
                return view;
            }
            assert!(Instant::now() < until, "{what} did not come about: {view:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn until_status(&self, id: &str, status: &str) -> Value {
        self.until(id, status, |view| {
            view["status"] == status && view["queue"].as_array().unwrap().is_empty()
        })
        .await
    }

    /// Waits for an approval of the session.
    pub(crate) async fn until_asked(&self, id: &str) -> Value {
        let view = self
            .until(id, "an approval", |view| view["pending_approvals"] != 0)
            .await;
        view["approvals"][0].clone()
    }

    /// Waits for an approval of anybody.
    pub(crate) async fn until_any_asked(&self) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let (_, listed) = self.get("/api/approvals").await;
            if let Some(approval) = listed["approvals"].as_array().and_then(|all| all.first()) {
                return approval.clone();
            }
            assert!(Instant::now() < until, "nobody asks");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Where the MCP server listens.
    pub(crate) fn mcp_port(&self) -> u16 {
        self.mcp.expect("--enable-mcp is among the arguments")
    }

    /// Where visitors come to the relay of this edge.
    pub(crate) fn relay_url(&self, path: &str) -> String {
        self.relay.url(path)
    }

    /// What the edge printed so far.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(self.root.path().join("arpc.out")).unwrap()
    }

    /// All events of a session.
    pub(crate) async fn events(&self, id: &str) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let since = all.last().map_or(0, |event| event["seq"].as_u64().unwrap());
            let (_, page) = self
                .get(&format!("/api/sessions/{id}/events?since={since}&limit=2000"))
                .await;
            all.extend(page["events"].as_array().unwrap().iter().cloned());
            if page["has_more"] == false {
                return all;
            }
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // With its agents: a signal alone would leave them running.
        let _ = Command::new(env!("CARGO_BIN_EXE_arpc"))
            .arg("--data-dir")
            .arg(self.root.path().join("data"))
            .args(["stop", "--park"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        let _ = Command::new("kill").arg(self.pid().to_string()).status();
        let until = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Is there a process of this number that is not a zombie?
pub(crate) fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}
