//! Which program runs as session host, and its start.
//!
//! A host lives as long as its session, and there is one for each: it should be small. So it is a program of its own
//! beside `arpc`, where there is one that can be used. Where there is none (only `arpc` was copied, the file is not
//! executable, it is of another release and speaks another protocol), `arpc` itself is the host.

use crate::defaults::{HOST_REPLY, HOST_START};
use crate::host::{HostSpec, LeftRunning, OTHER_PROTOCOL, PROTOCOL, SessionDir, StartReply};
use crate::hostlink::{clean_up, info};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::oneshot;

/// The small program's name, which is beside `arpc`.
pub const HOST_PROGRAM: &str = "arpc-session-host";

const DIED: &str = "the session host ended before the agent was started";

/// How a host is started.
#[derive(Debug, Clone)]
pub struct HostProgram {
    /// The small program, which is tried first if it is there.
    small: Option<PathBuf>,
    /// What is started else, usually `arpc` itself …
    program: PathBuf,
    /// … and the arguments that make it a host.
    args: Vec<String>,
}

impl HostProgram {
    /// The small program beside this executable, else this executable, as `session-host`.
    ///
    /// # Errors
    /// When the system does not tell which executable this is.
    pub fn this_executable() -> io::Result<Self> {
        let program = std::env::current_exe()?;
        // Beside the program itself: what lies beside a link to it, in PATH or where it was started is anybody's.
        let small = program
            .canonicalize()
            .ok()
            .map(|real| real.with_file_name(format!("{HOST_PROGRAM}{}", std::env::consts::EXE_SUFFIX)));
        Ok(Self {
            small,
            program,
            args: vec!["session-host".into()],
        })
    }

    /// This program with these arguments, whatever lies beside it.
    #[must_use]
    pub fn only(program: PathBuf, args: Vec<String>) -> Self {
        Self {
            small: None,
            program,
            args,
        }
    }

    /// Starts a host for this, which has started its agent then. `keep` runs on from before, should something have to
    /// be ended.
    pub(crate) async fn start(&self, spec: &HostSpec, keep: &[LeftRunning]) -> io::Result<()> {
        if let Some(small) = &self.small
            && small.symlink_metadata().is_ok()
        {
            let args = [PROTOCOL.to_string()];
            let unusable = match belongs_to(small, &self.program) {
                true => match start(small, &args, spec).await {
                    Ok(()) => return Ok(()),
                    Err(NotStarted::Failed(error)) => return Err(error),
                    Err(NotStarted::Unusable(error)) => error,
                },
                false => io::Error::other("it is no file of arpc's owner that only they may change"),
            };
            tracing::warn!(
                program = %small.display(), error = %unusable,
                "this session host is not used, arpc takes its place; to save memory, install arpc and it anew"
            );
            clean_up(&SessionDir::new(spec.dir.clone()), &spec.session_id, keep).await;
        }
        match start(&self.program, &self.args, spec).await {
            Ok(()) => Ok(()),
            Err(NotStarted::Unusable(error) | NotStarted::Failed(error)) => Err(error),
        }
    }
}

/// Is it a file that only those may change who may change the other? In a directory that everybody may write to, anybody
/// can put one beside `arpc`.
#[cfg(unix)]
fn belongs_to(small: &Path, program: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(small), Ok(program)) = (small.symlink_metadata(), program.metadata()) else {
        return false;
    };
    let owned = [0, program.uid()].contains(&small.uid());
    let by_group = small.mode() & 0o020 == 0 || small.gid() == program.gid();
    small.is_file() && owned && by_group && small.mode() & 0o002 == 0
}

#[cfg(not(unix))]
fn belongs_to(small: &Path, _program: &Path) -> bool {
    small.symlink_metadata().is_ok_and(|file| file.is_file())
}

/// Why there is no host.
enum NotStarted {
    /// The program cannot be used; it has begun nothing.
    Unusable(io::Error),
    /// Another program would not do better.
    Failed(io::Error),
}

impl From<io::Error> for NotStarted {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

async fn start(program: &Path, args: &[String], spec: &HostSpec) -> Result<(), NotStarted> {
    let dir = SessionDir::new(spec.dir.clone());
    let text = serde_json::to_string(spec).map_err(io::Error::from)?;
    let errors = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.host_errors())?;
    let mut command = tokio::process::Command::new(program);
    // arpc's own settings hold keys that are none of the agents' business, and its log level is not theirs.
    let ours = |name: &OsStr| name.as_encoded_bytes().starts_with(b"ARPC_") || name == "RUST_LOG";
    for (name, _) in std::env::vars_os().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    let mut child = command
        .args(args)
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(NotStarted::Unusable)?;
    let missing = || io::Error::other("a pipe of the session host is missing");
    let mut stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let pid = child.id();
    // Whatever becomes of it, somebody has to collect its exit status.
    let (kill, killed) = oneshot::channel::<()>();
    let ended = tokio::spawn(async move {
        tokio::select! {
            status = child.wait() => status,
            Ok(()) = killed => {
                child.kill().await?;
                child.wait().await
            }
        }
    });

    let talk = async {
        // One that leaves without reading tells more by its end.
        let _ = stdin.write_all(text.as_bytes()).await;
        drop(stdin);
        let mut line = String::new();
        BufReader::new(stdout.take(HOST_REPLY))
            .read_line(&mut line)
            .await?;
        Ok::<_, io::Error>(line)
    };
    let line = tokio::time::timeout(HOST_START, talk)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the session host does not answer"))?;
    match line.map(|line| serde_json::from_str(&line)) {
        Ok(Ok(StartReply::Started)) => Ok(()),
        Ok(Ok(StartReply::Failed(why))) => Err(io::Error::other(why).into()),
        // No host's reply, or none.
        Ok(Err(_)) | Err(_) => {
            if info(&dir).is_some_and(|info| Some(info.host_pid) == pid) {
                return Err(io::Error::other(DIED).into());
            }
            let _ = kill.send(());
            Err(NotStarted::Unusable(io::Error::other(match ended.await {
                Ok(Ok(status)) if status.code() == Some(OTHER_PROTOCOL.into()) => {
                    format!("the session host does not speak protocol {PROTOCOL}")
                }
                Ok(Ok(status)) => format!("{DIED} ({status})"),
                _ => DIED.to_owned(),
            })))
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_a_file_of_the_same_owner_that_nobody_else_may_change_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (program, small) = (dir.path().join("arpc"), dir.path().join(HOST_PROGRAM));
        let mode = |mode| std::fs::set_permissions(&small, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::write(&program, "").unwrap();
        assert!(!belongs_to(&small, &program), "it is not there");
        std::fs::write(&small, "").unwrap();
        for (bits, taken) in [
            (0o755, true),
            (0o775, true),
            (0o700, true),
            (0o757, false),
            (0o777, false),
        ] {
            mode(bits);
            assert_eq!(belongs_to(&small, &program), taken, "{bits:o}");
        }
        mode(0o755);
        assert!(!belongs_to(&small, &dir.path().join("gone")));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&small, &link).unwrap();
        assert!(!belongs_to(&link, &program), "a link");
        assert!(!belongs_to(dir.path(), &program), "a directory");
        // Only root can give a file away.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&small, Some(4711), None).unwrap();
            assert!(!belongs_to(&small, &program), "somebody else's");
            std::os::unix::fs::chown(&program, Some(4711), None).unwrap();
            assert!(belongs_to(&small, &program));
            std::os::unix::fs::chown(&small, Some(0), None).unwrap();
            assert!(belongs_to(&small, &program), "root's");
        }
    }
}
