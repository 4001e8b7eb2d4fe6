//! Puts the gateway into an agent's own settings, and takes it out again: shown before it is done, with a backup, and
//! nothing else is touched.

mod claude;
mod codex;
mod gemini;
pub mod import;

use crate::files::{self, FileError};
use crate::service::Service;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where the agents keep their settings.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Claude Code's.
    pub claude: PathBuf,
    /// Codex'.
    pub codex: PathBuf,
    /// Gemini CLI's.
    pub gemini: PathBuf,
}

impl Folders {
    /// As the agents find them: their variables, else the home directory.
    ///
    /// # Errors
    /// When no home directory can be found.
    pub fn of_user() -> std::io::Result<Self> {
        let dirs = directories::BaseDirs::new().ok_or_else(|| {
            std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "no home directory is known: set HOME",
            )
        })?;
        let home = dirs.home_dir();
        let given = |name: &str| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        Ok(Self {
            claude: given("CLAUDE_CONFIG_DIR").unwrap_or_else(|| home.join(".claude")),
            codex: given("CODEX_HOME").unwrap_or_else(|| home.join(".codex")),
            gemini: given("GEMINI_CLI_HOME")
                .unwrap_or_else(|| home.to_owned())
                .join(".gemini"),
        })
    }

    fn of(&self, service: Service) -> &Path {
        match service {
            Service::Claude => &self.claude,
            Service::Codex => &self.codex,
            Service::Gemini => &self.gemini,
        }
    }
}

/// A file as it is and as it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Which.
    pub path: PathBuf,
    /// As it is; `None` if it is not there.
    pub before: Option<String>,
    /// As it will be; `None` if it goes.
    pub after: Option<String>,
}

/// The agent's settings cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file cannot be used as it is.
    #[error("{0}; it was left as it is")]
    File(#[from] FileError),
    /// It is not what it should be.
    #[error("{path}: {message}; it was left as it is")]
    Shape {
        /// Which file.
        path: String,
        /// What is wrong.
        message: String,
    },
}

fn shape(path: &Path, message: impl std::fmt::Display) -> SetupError {
    SetupError::Shape {
        path: path.display().to_string(),
        message: message.to_string(),
    }
}

/// One setting: its place in the file, and what is to stand there.
type Wanted = (&'static [&'static str], Option<String>);

/// What would change so that the agent goes through the gateway at `address`. Files that are right already are not
/// in it.
///
/// # Errors
/// See [`SetupError`].
pub fn plan(service: Service, folders: &Folders, address: SocketAddr) -> Result<Vec<Edit>, SetupError> {
    let dir = folders.of(service);
    let edits = match service {
        Service::Claude => claude::set(dir, address)?,
        Service::Codex => codex::set(dir, address)?,
        Service::Gemini => gemini::set(dir, address)?,
    };
    Ok(changed(edits))
}

/// What would change to take the gateway out again: what was ours goes back to what the backup says, or goes.
///
/// # Errors
/// See [`SetupError`].
pub fn undo(service: Service, folders: &Folders) -> Result<Vec<Edit>, SetupError> {
    let dir = folders.of(service);
    let edits = match service {
        Service::Claude => claude::unset(dir)?,
        Service::Codex => codex::unset(dir)?,
        Service::Gemini => gemini::unset(dir)?,
    };
    Ok(changed(edits))
}

fn changed(edits: Vec<Edit>) -> Vec<Edit> {
    edits
        .into_iter()
        .filter(|edit| edit.before != edit.after)
        .collect()
}

/// Where the file as it was before is kept.
#[must_use]
pub fn backup_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".before-gateway");
    name.into()
}

/// Carries edits out. The first backup is kept until it is undone: it is the state without us.
///
/// # Errors
/// As the operating system says.
pub fn apply(edits: &[Edit], undo: bool) -> Result<(), FileError> {
    for edit in edits {
        let backup = backup_of(&edit.path);
        if !undo
            && let Some(before) = &edit.before
            && !backup.exists()
        {
            files::write(&backup, before)?;
        }
        match &edit.after {
            Some(after) => files::write(&edit.path, after)?,
            None => drop(std::fs::remove_file(&edit.path)),
        }
        if undo {
            let _ = std::fs::remove_file(&backup);
        }
    }
    Ok(())
}

/// Does this URL lead to this machine, as the gateway's does?
fn is_ours(url: &str) -> bool {
    url.parse::<reqwest::Url>()
        .is_ok_and(|url| matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]")))
}

/// Is the agent set to go through a gateway on this machine?
#[must_use]
pub fn is_set(service: Service, folders: &Folders) -> bool {
    let url = match service {
        Service::Claude => claude::base_url(folders.of(service)),
        Service::Codex => codex::base_url(folders.of(service)),
        Service::Gemini => gemini::base_url(folders.of(service)),
    };
    url.is_some_and(|url| is_ours(&url))
}

/// The arguments that send one process of Codex through the gateway at `url`, with its provider's name kept.
#[must_use]
pub fn codex_arguments(folders: &Folders, url: &str) -> [String; 2] {
    codex::arguments(&folders.codex, url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(dir: &Path) -> Folders {
        Folders {
            claude: dir.join("claude"),
            codex: dir.join("codex"),
            gemini: dir.join("gemini"),
        }
    }

    fn address() -> SocketAddr {
        "127.0.0.1:3210".parse().unwrap()
    }

    /// Sets up, and takes it back: what was there is there again, to the byte.
    fn there_and_back(service: Service, files: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let folders = folders(dir.path());
        let own = folders.of(service).to_owned();
        std::fs::create_dir_all(&own).unwrap();
        for (name, text) in files {
            std::fs::write(own.join(name), text).unwrap();
        }
        let edits = plan(service, &folders, address()).unwrap();
        assert!(!edits.is_empty());
        apply(&edits, false).unwrap();
        assert!(is_set(service, &folders));
        assert!(
            plan(service, &folders, address()).unwrap().is_empty(),
            "a second time changes nothing"
        );
        let after = edits
            .iter()
            .map(|edit| std::fs::read_to_string(&edit.path).unwrap())
            .collect();
        apply(&undo(service, &folders).unwrap(), true).unwrap();
        for (name, text) in files {
            assert_eq!(std::fs::read_to_string(own.join(name)).unwrap(), *text, "{name}");
        }
        let left: Vec<_> = std::fs::read_dir(&own)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), files.len(), "{left:?}");
        after
    }

    #[test]
    fn settings_change_in_one_place_and_back() {
        let claude = there_and_back(
            Service::Claude,
            &[(
                "settings.json",
                "{\n  \"model\": \"opus\",\n  \"env\": {\n    \"X\": \"1\",\n    \"ANTHROPIC_BASE_URL\": \"https://old.example\"\n  }\n}\n",
            )],
        );
        assert!(
            claude[0].contains("\"X\": \"1\"")
                && claude[0].contains("\"ANTHROPIC_BASE_URL\": \"http://127.0.0.1:3210\""),
            "{claude:?}"
        );
        there_and_back(Service::Claude, &[]);
        there_and_back(Service::Claude, &[("settings.json", "{}\n")]);
        let codex = there_and_back(
            Service::Codex,
            &[("config.toml", "# mine\nmodel = \"m\"\n\n[tui]\nx = 1\n")],
        );
        assert!(
            codex[0].contains("# mine\nmodel = \"m\"\nopenai_base_url = \"http://127.0.0.1:3210/v1\"\n"),
            "{codex:?}"
        );
        there_and_back(Service::Codex, &[]);
        let codex = there_and_back(
            Service::Codex,
            &[(
                "config.toml",
                "model_provider = \"relay\"\n[model_providers.relay]\nname = \"r\"\nbase_url = \"https://r.example/v1\" # here\n",
            )],
        );
        assert!(
            codex[0].contains("base_url = \"http://127.0.0.1:3210/v1\" # here"),
            "{codex:?}"
        );
        let gemini = there_and_back(
            Service::Gemini,
            &[
                (".env", "A=1\nGEMINI_API_KEY=k\n"),
                ("settings.json", "{\n  \"ui\": {}\n}\n"),
            ],
        );
        assert!(
            gemini[0].contains("A=1\nGEMINI_API_KEY=-\nGOOGLE_GEMINI_BASE_URL=http://127.0.0.1:3210\n"),
            "{gemini:?}"
        );
        there_and_back(Service::Gemini, &[]);
    }

    #[test]
    fn what_came_later_stays_and_what_does_not_parse_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folders = folders(dir.path());
        let path = folders.claude.join("settings.json");
        std::fs::create_dir_all(&folders.claude).unwrap();
        std::fs::write(&path, "{\"a\":1}").unwrap();
        apply(&plan(Service::Claude, &folders, address()).unwrap(), false).unwrap();
        let text = std::fs::read_to_string(&path)
            .unwrap()
            .replace("\"a\":1", "\"a\":2");
        std::fs::write(&path, text).unwrap();
        apply(&undo(Service::Claude, &folders).unwrap(), true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), "{\"a\":2}");
        std::fs::write(&path, "{").unwrap();
        let error = plan(Service::Claude, &folders, address())
            .unwrap_err()
            .to_string();
        assert!(error.contains("left as it is"), "{error}");
    }
}
