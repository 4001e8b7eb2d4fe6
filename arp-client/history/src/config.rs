//! Where the agents keep their history, and where the index of it is kept.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The agents whose history is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentKind {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Gemini CLI.
    Gemini,
}

impl AgentKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Claude, Self::Codex, Self::Gemini];

    /// The executor's name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
        }
    }
}

impl fmt::Display for AgentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for AgentKind {
    type Err = UnknownAgent;

    fn from_str(name: &str) -> Result<Self, UnknownAgent> {
        Self::ALL
            .into_iter()
            .find(|a| a.name().eq_ignore_ascii_case(name))
            .ok_or(UnknownAgent)
    }
}

/// The name is none of an agent whose history is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("history is known of claude, codex and gemini")]
pub struct UnknownAgent;

/// Homes of the agents and place of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryConfig {
    /// Claude Code's directory (`~/.claude`), which holds `projects/`. `None`: no history of Claude.
    pub claude_dir: Option<PathBuf>,
    /// Codex's home (`~/.codex`), which holds `sessions/`.
    pub codex_home: Option<PathBuf>,
    /// Gemini's directory (`~/.gemini`), which holds `tmp/`.
    pub gemini_dir: Option<PathBuf>,
    /// The `codex` binary. With it a session is deleted by `codex delete --force`, which also clears Codex's own
    /// databases; without it (or when it fails) the session's file is removed, after which Codex no longer
    /// lists the session.
    pub codex_command: Option<PathBuf>,
    /// File of the index (SQLite; `-wal` and `-shm` appear beside it). It holds nothing that cannot be read again:
    /// deleting it costs one scan.
    pub index_path: PathBuf,
}

impl HistoryConfig {
    /// The homes as the agents themselves find them: `CLAUDE_CONFIG_DIR` or `~/.claude`; `CODEX_HOME` or
    /// `~/.codex`; `~/.gemini`. `env` looks up an environment variable (`HOME`, on Windows `USERPROFILE`).
    pub fn from_env(
        env: impl Fn(&str) -> Option<std::ffi::OsString>,
        index_path: impl Into<PathBuf>,
    ) -> Self {
        let set = |name: &str| env(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = set(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
        let below_home = |dir: &str| home.as_ref().map(|home| home.join(dir));
        Self {
            claude_dir: set("CLAUDE_CONFIG_DIR").or_else(|| below_home(".claude")),
            codex_home: set("CODEX_HOME").or_else(|| below_home(".codex")),
            gemini_dir: below_home(".gemini"),
            codex_command: None,
            index_path: index_path.into(),
        }
    }

    /// The home of one agent.
    pub fn home(&self, agent: AgentKind) -> Option<&PathBuf> {
        match agent {
            AgentKind::Claude => self.claude_dir.as_ref(),
            AgentKind::Codex => self.codex_home.as_ref(),
            AgentKind::Gemini => self.gemini_dir.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_named_in_any_case() {
        assert_eq!("CLAUDE".parse(), Ok(AgentKind::Claude));
        assert_eq!("Gemini".parse(), Ok(AgentKind::Gemini));
        assert_eq!("amp".parse::<AgentKind>(), Err(UnknownAgent));
    }

    #[cfg(unix)]
    #[test]
    fn homes_come_from_the_agents_own_variables() {
        let env = |name: &str| match name {
            "HOME" => Some("/home/dev".into()),
            "CODEX_HOME" => Some("/srv/codex".into()),
            "CLAUDE_CONFIG_DIR" => Some("".into()),
            _ => None,
        };
        let config = HistoryConfig::from_env(env, "/tmp/index");
        assert_eq!(
            config.home(AgentKind::Claude),
            Some(&PathBuf::from("/home/dev/.claude"))
        );
        assert_eq!(config.home(AgentKind::Codex), Some(&PathBuf::from("/srv/codex")));
        assert_eq!(
            config.home(AgentKind::Gemini),
            Some(&PathBuf::from("/home/dev/.gemini"))
        );
        assert_eq!(HistoryConfig::from_env(|_| None, "i").claude_dir, None);
    }
}
