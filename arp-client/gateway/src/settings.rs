//! `gateway.toml`: what CLP has no file for.

use crate::files::FileError;
use crate::service::Service;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file. Unknown names are faults, so that a typing error is not silently ignored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Texts in an error's body that send a request to the next upstream, whatever the status.
    pub failover_texts: Vec<String>,
    /// What is particular to one upstream: `[upstream.claude.NAME]`.
    pub upstream: PerService,
}

/// One table a service, by the upstream's name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PerService {
    claude: HashMap<String, Network>,
    codex: HashMap<String, Network>,
    gemini: HashMap<String, Network>,
}

/// How an upstream is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// `http://`, `https://` or `socks5://` proxy, or `none` to ignore the system's.
    pub proxy: Option<String>,
    /// PEM file with authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Seconds to connect.
    pub connect_timeout_secs: u64,
    /// Seconds until the head of the answer.
    pub first_byte_timeout_secs: u64,
    /// Seconds of silence after which a stream counts as broken.
    pub idle_timeout_secs: u64,
    /// Header fields to add or replace.
    pub headers: std::collections::BTreeMap<String, String>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            proxy: None,
            ca_file: None,
            // A relay site on another continent answers a SYN in under a second; what takes longer is down.
            connect_timeout_secs: 10,
            // Long prompts with deep reasoning were seen to take minutes before the first byte.
            first_byte_timeout_secs: 300,
            // Above the agents' own 300 s they have given up themselves.
            idle_timeout_secs: 280,
            headers: std::collections::BTreeMap::new(),
        }
    }
}

impl Network {
    /// Time to connect.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_secs.max(1))
    }

    /// Time until the head of the answer.
    #[must_use]
    pub fn first_byte_timeout(&self) -> Duration {
        Duration::from_secs(self.first_byte_timeout_secs.max(1))
    }

    /// Silence after which a stream counts as broken.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_secs.max(1))
    }
}

impl Settings {
    /// How an upstream is reached.
    #[must_use]
    pub fn network(&self, service: Service, upstream: &str) -> Network {
        let table = match service {
            Service::Claude => &self.upstream.claude,
            Service::Codex => &self.upstream.codex,
            Service::Gemini => &self.upstream.gemini,
        };
        table.get(upstream).cloned().unwrap_or_default()
    }

    /// Parses the file's text.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        toml::from_str(text).map_err(|e: toml::de::Error| {
            let at = e.span().map_or(0, |span| span.start);
            let before = text.get(..at).unwrap_or_default();
            FileError::Syntax {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.len() - before.rfind('\n').map_or(0, |n| n + 1) + 1,
                message: e.message().to_owned(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_has_a_default_and_typing_errors_are_told() {
        let path = Path::new("gateway.toml");
        let settings = Settings::parse(
            path,
            "[upstream.claude.\"my relay\"]\nproxy = \"socks5://127.0.0.1:1080\"\nheaders = { X-Team = \"a\" }\n",
        )
        .unwrap();
        let network = settings.network(Service::Claude, "my relay");
        assert_eq!(network.proxy.as_deref(), Some("socks5://127.0.0.1:1080"));
        assert_eq!(network.connect_timeout_secs, 10);
        assert_eq!(settings.network(Service::Codex, "my relay"), Network::default());
        let error = Settings::parse(path, "\n[upstream.claude.x]\nproxi = \"a\"\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("gateway.toml:3:1: unknown field `proxi`"),
            "{error}"
        );
    }
}
