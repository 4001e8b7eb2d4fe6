//! Subcommands: what `arpc` does besides running as a daemon.

use clap::Subcommand;
use std::path::Path;
use std::process::ExitCode;

/// What `arpc` does besides running as a daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Own one agent process (started by arpc itself).
    #[command(hide = true)]
    SessionHost,
}

impl Command {
    /// Carries it out. Call it before any runtime or thread is made. `data_dir` is that of the daemon.
    #[must_use]
    pub fn run(self, _data_dir: &Path) -> ExitCode {
        match self {
            Self::SessionHost => arp_sessions::host::host_main(),
        }
    }
}
