//! The real `arpc` in command mode, registered with a real relay.

use super::{PATIENCE, TOKEN};
use arp_testkit::daemon::Relay;
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What was started.
pub(crate) struct Started {
    pub(crate) child: Child,
    /// Where it is asked: its loopback listener if it has one, else the relay.
    pub(crate) base: String,
    /// Port of its MCP server.
    pub(crate) mcp: Option<u16>,
}

/// Starts it, and waits until the relay knows it.
pub(super) fn arpc(
    program: &Path,
    root: &Path,
    relay: &Relay,
    arguments: &[String],
    environment: &[(OsString, OsString)],
) -> Started {
    let said = root.join("arpc.out");
    let out = File::create(&said).unwrap();
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("ARPC_")) {
            command.env_remove(name);
        }
    }
    let mut child = command
        .args(["--command-mode", "--no-qr", "--client-id", TOKEN])
        .args(["--server-addr", "127.0.0.1", "--control-port"])
        .arg(relay.control.port().to_string())
        .arg("--proxy-port")
        .arg(relay.proxy.port().to_string())
        .arg("--data-dir")
        .arg(root.join("data"))
        .args(arguments)
        .env("HOME", root.join("home"))
        .env("XDG_DATA_HOME", root.join("home/data"))
        .env("RUST_LOG", "info")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stderr(out.try_clone().unwrap())
        .stdout(out)
        .spawn()
        .unwrap();
    let until = Instant::now() + PATIENCE;
    loop {
        let words = std::fs::read_to_string(&said).unwrap();
        if words.lines().any(|line| line.starts_with("Registered")) {
            let after = |mark: &str| {
                let rest = words.split_once(mark)?.1;
                rest.split_whitespace()
                    .next()
                    .map(|url| url.trim_end_matches('/').to_owned())
            };
            let mcp = after("MCP server listens on ")
                .and_then(|url| url.rsplit(':').next()?.split('/').next()?.parse().ok());
            let base =
                after("API and console listen on ").unwrap_or_else(|| format!("http://{}", relay.public));
            return Started { child, base, mcp };
        }
        let ended = child.try_wait().unwrap().is_some();
        assert!(
            !ended && Instant::now() < until,
            "arpc is not registered:\n{words}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
