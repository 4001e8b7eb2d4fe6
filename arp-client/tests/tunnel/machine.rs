//! A machine of its own for one test: home, data directory, and a PATH with only the programs that the test wants.

use arp_testkit::daemon::Daemon;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Whatever is waited for has to come within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Machine {
    root: TempDir,
}

impl Machine {
    /// With these programs, all of them scripted.
    pub(crate) fn with(programs: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for dir in ["bin", "calls"] {
            std::fs::create_dir(root.path().join(dir)).unwrap();
        }
        let machine = Self { root };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tunnel_programs/scripted.py");
        for program in programs {
            machine.link(program, &script);
        }
        machine
    }

    /// Puts a program into the PATH.
    pub(crate) fn link(&self, name: &str, program: &Path) {
        std::os::unix::fs::symlink(program, self.root.path().join("bin").join(name)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes settings, and gives the flags that name them.
    pub(crate) fn settings(&self, text: &str) -> [String; 2] {
        let path = self.path("tunnel.toml");
        std::fs::write(&path, text).unwrap();
        ["--tunnel-config".into(), path.to_str().unwrap().into()]
    }

    fn vars(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let at = |name: &str| self.path(name).to_str().unwrap().to_owned();
        // Python is found, and nothing that a test did not put there.
        let path = format!("{}:/usr/bin:/bin", at("bin"));
        let mut vars: Vec<(String, String)> = [
            ("HOME", at("home")),
            ("XDG_DATA_HOME", at("home/data")),
            ("XDG_CONFIG_HOME", at("home/config")),
            ("ARPC_DATA_DIR", at("data")),
            ("ARPC_CLIENT_ID", "machine".into()),
            ("CALLS", at("calls")),
            ("PATH", path),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        vars.extend(
            more.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        vars
    }

    /// What programs of this machine have in their environment.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        self.vars(&[])
    }

    /// Starts `arpc` with these arguments.
    pub(crate) fn start(&self, args: &[&str], vars: &[(&str, &str)]) -> Daemon {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Daemon::start("arpc", &args, &self.vars(vars))
    }

    /// Runs `arpc` to its end: exit code and all that it said.
    pub(crate) async fn run(&self, args: &[&str], vars: &[(&str, &str)]) -> (i32, String) {
        let mut arpc = self.start(args, vars);
        let code = arpc.ended().await.code().unwrap_or(-1);
        (code, arpc.output())
    }

    /// `arpc tunnel status --json`: exit code and report.
    pub(crate) async fn status(&self) -> (i32, Value) {
        let (code, said) = self.run(&["tunnel", "status", "--json"], &[]).await;
        let json = said.lines().find(|line| line.starts_with('{')).unwrap_or("null");
        (code, serde_json::from_str(json).unwrap())
    }

    /// Waits until the report is like this.
    pub(crate) async fn until(&self, what: &str, like: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let (_, report) = self.status().await;
            if like(&report) {
                return report;
            }
            assert!(Instant::now() < until, "{what} did not come about: {report:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the scripted programs were called with.
    pub(crate) fn calls(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("calls/calls")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Processes that any program of this machine has left: they all inherit one variable.
    pub(crate) fn children(&self) -> Vec<String> {
        let mark = format!("CALLS={}", self.path("calls").display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let dir = entry.path();
            let inherited = std::fs::read(dir.join("environ"))
                .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|var| var == mark.as_bytes()));
            if inherited {
                let line = std::fs::read(dir.join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                // A zombie has no command line, and is nobody any more.
                if !line.is_empty() {
                    found.push(line);
                }
            }
        }
        found
    }

    /// Waits until nothing is left.
    pub(crate) async fn until_empty(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.children().is_empty() {
            assert!(Instant::now() < until, "left behind: {:#?}", self.children());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits for the line that tells the address.
pub(crate) async fn connected(arpc: &mut Daemon) -> String {
    arpc.line("that it is connected", |line| {
        let rest = line.split_once("Tunnel connected: ")?.1;
        Some(rest.split(" -> ").next()?.to_owned())
    })
    .await
}
