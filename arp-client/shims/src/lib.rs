//! Small programs that start `arpc` under the names of what it takes over. They hold no code of its; each only says
//! which subcommand is meant.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Becomes `arpc` with these arguments, as `shim`. Returns only if it cannot (or, on Windows, when that has ended).
#[must_use]
pub fn become_arpc(shim: &str, args: Vec<OsString>) -> ExitCode {
    let program = arpc();
    let mut command = Command::new(&program);
    command.args(args).env("ARPC_SHIM", shim);
    #[cfg(unix)]
    let failed = std::os::unix::process::CommandExt::exec(&mut command);
    #[cfg(not(unix))]
    let failed = match command.status() {
        Ok(status) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return ExitCode::from(code.unwrap_or(1));
        }
        Err(error) => error,
    };
    eprintln!(
        "{shim}: cannot start {}: {failed}; install arpc beside {shim}, or in PATH",
        program.display()
    );
    ExitCode::FAILURE
}

/// The `arpc` beside this program, else the one in `PATH`.
fn arpc() -> PathBuf {
    let name = format!("arpc{}", std::env::consts::EXE_SUFFIX);
    let own = std::env::current_exe().ok();
    let real = own.as_ref().and_then(|own| own.canonicalize().ok());
    [own, real]
        .into_iter()
        .flatten()
        .map(|program| program.with_file_name(&name))
        .find(|beside| beside.is_file())
        .unwrap_or_else(|| name.into())
}
