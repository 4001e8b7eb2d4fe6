//! One daemon process: its output line by line, its end.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// Time that anything a test waits for may take. Far above what it takes, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    name: &'static str,
    child: Child,
    output: watch::Receiver<Vec<String>>,
}

/// The program of this name beside the running test, built first unless `ARP_TEST_BUILT` says it was.
fn binary(name: &'static str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let test = std::env::current_exe().expect("a test has a path");
    let dir = test
        .ancestors()
        .nth(2)
        .expect("tests lie in target/<profile>/deps");
    let path = dir.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    // `cargo test -p one` builds one of the programs, or none; a stale one would be tested without a word.
    BUILT.get_or_init(|| {
        if std::env::var_os("ARP_TEST_BUILT").is_some() {
            return;
        }
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["build", "-q", "-p", "arps", "-p", "arpc"]);
        if dir.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(
            cargo.status().expect("cargo runs").success(),
            "building the daemons failed"
        );
    });
    path
}

impl Daemon {
    /// Starts a daemon. Its environment is that of the test without `ARPS_*` and `ARPC_*`, and with
    /// `vars`.
    pub fn start(name: &'static str, args: &[String], vars: &[(String, String)]) -> Self {
        Self::launch(name, Command::new(binary(name)), args, vars)
    }

    /// Starts a daemon under a service manager (`scripts/service-manager.py`): SIGHUP restarts it.
    pub fn start_managed(name: &'static str, args: &[String], vars: &[(String, String)]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/service-manager.py");
        let mut manager = Command::new("python3");
        manager.arg(script).arg(binary(name));
        Self::launch(name, manager, args, vars)
    }

    /// Starts a daemon that can be told that its disk is full ([`Daemon::disk`]), and is told so from the first where
    /// `full` says it.
    pub fn start_on_small_disk(name: &'static str, args: &[String], full: bool) -> Self {
        // Files that may not grow fail like those on a full disk once the signal that goes with it is ignored.
        let limit = if full { "ulimit -S -f 0;" } else { "" };
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("trap '' XFSZ; {limit} exec \"$0\" \"$@\"")])
            .arg(binary(name));
        Self::launch(name, shell, args, &[])
    }

    fn launch(name: &'static str, mut command: Command, args: &[String], vars: &[(String, String)]) -> Self {
        for (key, _) in std::env::vars_os() {
            if key
                .to_str()
                .is_some_and(|k| k.starts_with("ARPS_") || k.starts_with("ARPC_"))
            {
                command.env_remove(key);
            }
        }
        command.args(args).envs(vars.iter().cloned()).kill_on_drop(true);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
        let (tx, output) = watch::channel(Vec::new());
        collect(child.stdout.take().expect("piped"), tx.clone());
        collect(child.stderr.take().expect("piped"), tx);
        Self { name, child, output }
    }

    /// Waits for a line that `pick` finds something in, among those printed already and those to come.
    pub async fn line<T>(&mut self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        self.nth_line(what, 1, pick).await
    }

    /// Waits for the `n`th such line, counted from 1.
    pub async fn nth_line<T>(&mut self, what: &str, n: usize, pick: impl Fn(&str) -> Option<T>) -> T {
        let mut found = None;
        let mut output = self.output.clone();
        let wait = output.wait_for(|lines| {
            found = lines.iter().filter_map(|l| pick(l)).nth(n - 1);
            found.is_some()
        });
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => panic!("{} ended before {what}:\n{}", self.name, self.output()),
            Err(_) => panic!("{} did not say {what}:\n{}", self.name, self.output()),
        }
        found.expect("just found")
    }

    /// Everything it has printed.
    pub fn output(&self) -> String {
        self.output.borrow().join("\n")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("still running")
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        rss_kib(self.pid())
    }

    /// Asks it to stop, as an operator or init system would.
    pub fn terminate(&self) {
        signal(self.pid(), "TERM");
    }

    /// Stops or continues it, as a laptop's lid does.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// From now on it can write nothing more to its files, or everything again.
    pub fn disk(&self, full: bool) {
        let limit = if full { "--fsize=0:" } else { "--fsize=unlimited:" };
        let done = std::process::Command::new("prlimit")
            .args(["--pid", &self.pid().to_string(), limit])
            .status();
        assert!(done.expect("prlimit runs").success());
    }

    /// Ends it without a chance to say goodbye, and waits for the end.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Waits for its end, and for the last it had to say.
    pub async fn ended(&mut self) -> ExitStatus {
        let end = async {
            let status = self.child.wait().await;
            while self.output.changed().await.is_ok() {}
            status
        };
        match tokio::time::timeout(PATIENCE * 2, end).await {
            Ok(status) => status.expect("it can be waited for"),
            Err(_) => panic!("{} does not end:\n{}", self.name, self.output()),
        }
    }
}

fn signal(pid: u32, name: &str) {
    let sent = std::process::Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
}

/// Resident memory of a process in KiB.
pub fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .expect("Linux tells it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn collect(stream: impl AsyncRead + Unpin + Send + 'static, to: watch::Sender<Vec<String>>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            to.send_modify(|all| all.push(line));
        }
    });
}
