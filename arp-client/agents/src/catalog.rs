//! The agents that this machine's configuration knows.

use crate::acp::{AcpAgent, AcpConfig};
use crate::agent::Agent;
use crate::claude::Claude;
use crate::codex::Codex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// All agents by their executor's name: the three that are built in, and those configured besides.
#[derive(Clone)]
pub struct Catalog {
    agents: Vec<Arc<dyn Agent>>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.agents.iter().map(|agent| agent.id()))
            .finish()
    }
}

/// A configured executor that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// Its name is one of ours.
    #[error("the executor `{0}` is built in; choose another name for the ACP agent")]
    Taken(String),
    /// Its name cannot be an executor's.
    #[error("`{0}` cannot be an executor's name: use letters, digits, `-` and `_`, at most 40")]
    BadName(String),
}

impl Catalog {
    /// The built-in agents and those of `custom`, by name.
    ///
    /// # Errors
    /// [`CatalogError`] when a name is taken or no name.
    pub fn new(custom: BTreeMap<String, AcpConfig>) -> Result<Self, CatalogError> {
        let mut agents: Vec<Arc<dyn Agent>> = vec![
            Arc::new(Claude::new()),
            Arc::new(Codex::new()),
            Arc::new(AcpAgent::gemini()),
        ];
        for (name, config) in custom {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_empty() || name.len() > 40 || !name.chars().all(fits) {
                return Err(CatalogError::BadName(name));
            }
            if agents.iter().any(|agent| agent.id() == name.to_lowercase()) {
                return Err(CatalogError::Taken(name));
            }
            agents.push(Arc::new(AcpAgent::custom(&name, config)));
        }
        Ok(Self { agents })
    }

    /// The agent of an executor's name, in any case.
    #[must_use]
    pub fn get(&self, executor: &str) -> Option<Arc<dyn Agent>> {
        let wanted = executor.to_lowercase();
        self.agents.iter().find(|agent| agent.id() == wanted).cloned()
    }

    /// All of them, the built-in ones first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Agent>> {
        self.agents.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custom(name: &str) -> BTreeMap<String, AcpConfig> {
        let config: AcpConfig = serde_json::from_str(r#"{"command":"x"}"#).unwrap();
        BTreeMap::from([(name.to_owned(), config)])
    }

    #[test]
    fn executors_are_found_in_any_case() {
        let catalog = Catalog::new(custom("OpenCode")).unwrap();
        for name in ["claude", "Codex", "GEMINI", "opencode"] {
            assert_eq!(catalog.get(name).unwrap().id(), name.to_lowercase());
        }
        assert!(catalog.get("nobody").is_none());
    }

    #[test]
    fn a_configured_agent_cannot_take_a_built_in_name() {
        assert_eq!(
            Catalog::new(custom("Claude")).unwrap_err(),
            CatalogError::Taken("Claude".into())
        );
        assert_eq!(
            Catalog::new(custom("a/b")).unwrap_err(),
            CatalogError::BadName("a/b".into())
        );
    }
}
