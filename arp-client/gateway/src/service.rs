//! The three families of agents that the gateway serves, each on a port of its own.

use std::fmt;
use std::str::FromStr;

/// Whose model API is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Claude Code: the Anthropic Messages API.
    Claude,
    /// Codex: OpenAI Responses and what stands beside it.
    Codex,
    /// Gemini: Google's `generateContent`.
    Gemini,
}

/// There is no such service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no service {0:?}: it is one of claude, codex, gemini")]
pub struct UnknownService(String);

impl Service {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Claude, Self::Codex, Self::Gemini];

    /// As commands, files and the API call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Gemini => "gemini",
        }
    }

    /// The port where agents expect it.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Claude => 3210,
            Self::Codex => 3211,
            Self::Gemini => 3212,
        }
    }

    /// Its place in tables that hold one entry a service.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Claude => 0,
            Self::Codex => 1,
            Self::Gemini => 2,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Service {
    type Err = UnknownService;
    fn from_str(name: &str) -> Result<Self, UnknownService> {
        Self::ALL
            .into_iter()
            .find(|service| service.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownService(name.to_owned()))
    }
}
