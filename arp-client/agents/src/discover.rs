//! Finding the agents' binaries on this machine and asking them for their version.

use crate::agent::{Agent, Requirement, Version};
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// How long a binary may take to print its version. Node launchers on a busy machine take seconds.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// Most that is read of what it prints.
const MAX_VERSION_BYTES: u64 = 4096;

/// Where to look for binaries.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The value of `PATH`.
    pub path: Option<std::ffi::OsString>,
    /// The home directory.
    pub home: Option<PathBuf>,
}

/// An agent that is there and will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The binary.
    pub path: PathBuf,
    /// Its version, where it tells one.
    pub version: Option<Version>,
    /// It was asked and did not answer in time: the machine is busy, which says nothing about the agent.
    pub slow: bool,
}

/// Why an agent cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoverError {
    /// There is no such binary.
    #[error("{agent} was not found on this machine ({looked}). {install}")]
    Missing {
        /// The agent's name to show.
        agent: String,
        /// Where it was looked for.
        looked: String,
        /// What to do.
        install: String,
    },
    /// The path that was configured is not an executable file.
    #[error("{agent}: {path} is not an executable file; correct its path in the configuration")]
    NotExecutable {
        /// The agent's name to show.
        agent: String,
        /// The path.
        path: PathBuf,
    },
    /// It is older than what we know how to drive.
    #[error("{agent} {found} at {path} is too old, {wanted} or newer is needed. {install}")]
    TooOld {
        /// The agent's name to show.
        agent: String,
        /// The binary.
        path: PathBuf,
        /// Its version.
        found: Version,
        /// The oldest that will do.
        wanted: Version,
        /// What to do.
        install: String,
    },
    /// It does not tell its version.
    #[error("{agent} at {path} does not answer `{command}`: {reason}. {install}")]
    Broken {
        /// The agent's name to show.
        agent: String,
        /// The binary.
        path: PathBuf,
        /// What it was asked.
        command: String,
        /// What went wrong.
        reason: String,
        /// What to do.
        install: String,
    },
}

impl Places {
    /// Those of this process.
    #[must_use]
    pub fn of_environment() -> Self {
        Self {
            path: std::env::var_os("PATH"),
            home: std::env::home_dir(),
        }
    }

    /// Looks for the binary of `agent`: at `configured` if that is given, else in `PATH`, else in the usual
    /// install places; and asks it for its version.
    ///
    /// # Errors
    /// [`DiscoverError`], whose text says what to install.
    pub async fn find(&self, agent: &dyn Agent, configured: Option<&Path>) -> Result<Found, DiscoverError> {
        let requirement = agent.requirement();
        let name = || agent.display_name().to_owned();
        let path = match configured {
            Some(path) => self
                .configured(path)
                .ok_or_else(|| DiscoverError::NotExecutable {
                    agent: name(),
                    path: path.to_owned(),
                })?,
            None => self.search(requirement).ok_or_else(|| DiscoverError::Missing {
                agent: name(),
                looked: looked(requirement),
                install: requirement.install.clone(),
            })?,
        };
        if requirement.version_args.is_empty() {
            return Ok(Found {
                path,
                version: None,
                slow: false,
            });
        }
        let version = match ask_version(&path, &requirement.version_args).await {
            Ok(version) => version,
            Err(Unanswered::Slow) => {
                return Ok(Found {
                    path,
                    version: None,
                    slow: true,
                });
            }
            Err(Unanswered::Broken(reason)) => {
                return Err(DiscoverError::Broken {
                    agent: name(),
                    path: path.clone(),
                    command: requirement.version_args.join(" "),
                    reason,
                    install: requirement.install.clone(),
                });
            }
        };
        match requirement.min_version {
            Some(wanted) if version < wanted => Err(DiscoverError::TooOld {
                agent: name(),
                path,
                found: version,
                wanted,
                install: requirement.install.clone(),
            }),
            _ => Ok(Found {
                path,
                version: Some(version),
                slow: false,
            }),
        }
    }

    /// A configured path: a file, or a bare name to look for.
    fn configured(&self, path: &Path) -> Option<PathBuf> {
        if path.components().count() == 1 && !path.is_absolute() {
            return self.in_path(path.as_os_str());
        }
        executable(path)
    }

    fn search(&self, requirement: &Requirement) -> Option<PathBuf> {
        requirement.binaries.iter().find_map(|binary| {
            let binary = Path::new(binary);
            if binary.components().count() > 1 {
                return executable(binary);
            }
            self.in_path(binary.as_os_str()).or_else(|| {
                let usual = ["/usr/local/bin", "/opt/homebrew/bin"].iter().map(PathBuf::from);
                let own = requirement.places.iter().filter_map(|place| match &self.home {
                    _ if place.is_absolute() => Some(place.clone()),
                    home => home.as_ref().map(|home| home.join(place)),
                });
                own.chain(usual).find_map(|place| executable(&place.join(binary)))
            })
        })
    }

    fn in_path(&self, name: &OsStr) -> Option<PathBuf> {
        std::env::split_paths(self.path.as_ref()?)
            .filter(|directory| directory.is_absolute())
            .find_map(|directory| executable(&directory.join(name)))
    }
}

impl FromStr for Version {
    type Err = ();

    /// The first three numbers with dots between them in a text such as `codex-cli 0.169.0`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let is_part = |c: char| c.is_ascii_digit() || c == '.';
        text.split(|c: char| !is_part(c))
            .find_map(|word| {
                let mut numbers = word.split('.').map(str::parse::<u64>);
                match (numbers.next(), numbers.next(), numbers.next()) {
                    (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) => Some(Self(major, minor, patch)),
                    _ => None,
                }
            })
            .ok_or(())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

fn looked(requirement: &Requirement) -> String {
    format!(
        "no `{}` in PATH or the usual places",
        requirement.binaries.join("` or `")
    )
}

/// The path itself, or with the endings that Windows runs.
fn executable(path: &Path) -> Option<PathBuf> {
    let mut candidates = vec![path.to_owned()];
    if cfg!(windows) && path.extension().is_none() {
        candidates = ["exe", "cmd", "bat"]
            .iter()
            .map(|ending| path.with_extension(ending))
            .collect();
    }
    candidates.into_iter().find(|candidate| is_executable(candidate))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}

/// Why a binary did not tell its version.
enum Unanswered {
    /// It did not come to it: the machine is busy.
    Slow,
    /// It cannot be run, or says something else.
    Broken(String),
}

impl From<std::io::Error> for Unanswered {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            // No process or memory to be had now, or just being written.
            ErrorKind::WouldBlock | ErrorKind::OutOfMemory | ErrorKind::ExecutableFileBusy => Self::Slow,
            _ => Self::Broken(error.to_string()),
        }
    }
}

async fn ask_version(path: &Path, args: &[String]) -> Result<Version, Unanswered> {
    let mut child = Command::new(path)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let no_output = || Unanswered::Broken("it has no output".to_owned());
    let stdout = child.stdout.take().ok_or_else(no_output)?;
    let mut said = Vec::new();
    // Read what fits and drop the pipe; a chatty one is ended below.
    let mut stdout = stdout.take(MAX_VERSION_BYTES);
    tokio::time::timeout(VERSION_TIMEOUT, stdout.read_to_end(&mut said))
        .await
        .map_err(|_| Unanswered::Slow)??;
    drop(child);
    let said = String::from_utf8_lossy(&said);
    said.parse().map_err(|()| {
        Unanswered::Broken(format!(
            "it said {:?} where a version was expected",
            crate::text::one_line(&said)
        ))
    })
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::acp::{AcpAgent, AcpConfig};
    use crate::claude::Claude;
    use std::os::unix::fs::PermissionsExt;

    fn script(directory: &Path, name: &str, body: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn places(path: &Path, home: &Path) -> Places {
        Places {
            path: Some(path.as_os_str().to_owned()),
            home: Some(home.to_owned()),
        }
    }

    #[test]
    fn versions_are_found_in_what_binaries_print() {
        for (text, version) in [
            ("2.1.329 (Claude Code)\n", Version(2, 1, 329)),
            ("codex-cli 0.169.0", Version(0, 169, 0)),
            ("v0.61.0-nightly.2", Version(0, 61, 0)),
        ] {
            assert_eq!(text.parse(), Ok(version), "{text}");
        }
        assert!("no version 1.2".parse::<Version>().is_err());
    }

    #[tokio::test]
    async fn path_goes_before_the_usual_places() {
        let dir = tempfile::tempdir().unwrap();
        let (bin, home) = (dir.path().join("bin"), dir.path().join("home"));
        let at_home = script(&home.join(".local/bin"), "claude", "echo 2.1.300");
        let found = places(&bin, &home).find(&Claude::new(), None).await.unwrap();
        assert_eq!(
            found,
            Found {
                path: at_home,
                version: Some(Version(2, 1, 300)),
                slow: false,
            }
        );

        let in_path = script(&bin, "claude", "echo 2.1.301");
        assert_eq!(
            places(&bin, &home).find(&Claude::new(), None).await.unwrap().path,
            in_path
        );
    }

    #[tokio::test]
    async fn a_missing_agent_says_what_to_install() {
        let dir = tempfile::tempdir().unwrap();
        let error = places(dir.path(), dir.path())
            .find(&Claude::new(), None)
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("npm install -g @anthropic-ai/claude-code"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn an_old_agent_is_refused_by_number() {
        let dir = tempfile::tempdir().unwrap();
        script(dir.path(), "claude", "echo 1.0.9");
        let error = places(dir.path(), dir.path())
            .find(&Claude::new(), None)
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                DiscoverError::TooOld {
                    found: Version(1, 0, 9),
                    ..
                }
            ),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_answers_slowly_is_there_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = script(dir.path(), "claude", "exec sleep 600");
        let found = places(dir.path(), dir.path())
            .find(&Claude::new(), None)
            .await
            .unwrap();
        assert_eq!((found.path, found.version, found.slow), (path, None, true));
    }

    #[tokio::test]
    async fn a_configured_path_is_taken_at_its_word() {
        let dir = tempfile::tempdir().unwrap();
        let own = script(dir.path(), "my-claude", "echo 2.1.329");
        let nowhere = places(Path::new("/nonexistent"), Path::new("/nonexistent"));
        assert_eq!(nowhere.find(&Claude::new(), Some(&own)).await.unwrap().path, own);
        let error = nowhere
            .find(&Claude::new(), Some(Path::new("/nonexistent/x")))
            .await
            .unwrap_err();
        assert!(matches!(error, DiscoverError::NotExecutable { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_configured_acp_agent_is_never_run_to_ask_its_version() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("ran");
        script(dir.path(), "agent", &format!("touch {}", mark.display()));
        let config: AcpConfig = serde_json::from_str(r#"{"command":"agent"}"#).unwrap();
        let found = places(dir.path(), dir.path())
            .find(&AcpAgent::custom("x", config), None)
            .await
            .unwrap();
        assert_eq!(found.version, None);
        assert!(!mark.exists());
    }
}
