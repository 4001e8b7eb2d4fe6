//! The agents of this machine: which there are, where, and in which version; looked for once and kept.

use super::gateway::Gateway;
use super::{CommandConfig, CommandError};
use arp_agents::agent::{Agent, Launch};
use arp_agents::catalog::Catalog;
use arp_agents::discover::{DiscoverError, Found, Places};
use arp_sessions::error::SessionError;
use arp_sessions::{AgentSource, Finding, FoundAgent, Preparing};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// An agent that was not found is looked for again after this, as it may have been installed meanwhile; and one that
/// did not tell its version in time.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// One that was found is looked at again after this: it may have been updated.
const LOOK_AGAIN_FOUND: Duration = Duration::from_secs(600);

/// All agents that could be used.
pub(crate) struct Agents {
    catalog: Catalog,
    places: Places,
    paths: BTreeMap<String, PathBuf>,
    known: BTreeMap<String, Mutex<Option<Look>>>,
    default: Option<String>,
    gateway: Option<Arc<Gateway>>,
}

/// What came of looking for an agent.
#[derive(Clone)]
struct Look {
    at: Instant,
    found: Result<Found, DiscoverError>,
}

/// An agent and whether it can be used.
pub(crate) struct AgentState {
    pub(crate) agent: Arc<dyn Agent>,
    pub(crate) found: Result<Found, DiscoverError>,
}

impl Agents {
    pub(crate) fn new(config: &CommandConfig, gateway: Option<Arc<Gateway>>) -> Result<Self, CommandError> {
        let catalog = Catalog::new(config.acp_agents.clone())?;
        let known = catalog
            .iter()
            .map(|agent| (agent.id().to_owned(), Mutex::new(None)))
            .collect();
        let mut paths = BTreeMap::new();
        for (executor, path) in &config.agent_paths {
            let Some(agent) = catalog.get(executor) else {
                return Err(CommandError::Config(format!(
                    "there is no agent called {executor} to give a path to"
                )));
            };
            paths.insert(agent.id().to_owned(), path.clone());
        }
        Ok(Self {
            catalog,
            places: Places::of_environment(),
            paths,
            known,
            default: config.default_executor.as_ref().map(|name| name.to_lowercase()),
            gateway,
        })
    }

    /// All agents, the built-in ones first.
    pub(crate) async fn all(&self) -> Vec<AgentState> {
        let looks = self.catalog.iter().map(|agent| async move {
            AgentState {
                agent: Arc::clone(agent),
                found: self.look(agent.as_ref()).await,
            }
        });
        futures_util::future::join_all(looks).await
    }

    /// An agent by name.
    pub(crate) fn get(&self, executor: &str) -> Option<Arc<dyn Agent>> {
        self.catalog.get(executor)
    }

    async fn look(&self, agent: &dyn Agent) -> Result<Found, DiscoverError> {
        let Some(known) = self.known.get(agent.id()) else {
            return self.places.find(agent, None).await;
        };
        // Held while looking: others who ask meanwhile get the same answer.
        let mut known = known.lock().await;
        if let Some(look) = known.as_ref() {
            let good_for = if look.found.as_ref().is_ok_and(|found| !found.slow) {
                LOOK_AGAIN_FOUND
            } else {
                LOOK_AGAIN
            };
            let still_there =
                look.found.as_ref().is_ok_and(|found| found.path.exists()) || look.found.is_err();
            if look.at.elapsed() < good_for && still_there {
                return look.found.clone();
            }
        }
        let mut found = self
            .places
            .find(agent, self.paths.get(agent.id()).map(PathBuf::as_path))
            .await;
        if let (
            Ok(slow),
            Some(Look {
                found: Ok(before), ..
            }),
        ) = (&mut found, known.as_ref())
            && slow.slow
            && slow.path == before.path
        {
            slow.version = before.version;
        }
        *known = Some(Look {
            at: Instant::now(),
            found: found.clone(),
        });
        found
    }
}

impl AgentSource for Agents {
    fn find<'a>(&'a self, executor: &'a str) -> Finding<'a> {
        Box::pin(async move {
            let agent = self
                .get(executor)
                .ok_or_else(|| SessionError::UnknownAgent(executor.to_owned()))?;
            match self.look(agent.as_ref()).await {
                Ok(found) => Ok(FoundAgent {
                    agent,
                    program: found.path,
                }),
                Err(error @ DiscoverError::TooOld { .. }) => {
                    Err(SessionError::AgentTooOld(error.to_string()))
                }
                Err(error) => Err(SessionError::AgentNotFound(error.to_string())),
            }
        })
    }

    fn known(&self, executor: &str) -> Option<Arc<dyn Agent>> {
        self.get(executor)
    }

    fn prepare<'a>(&'a self, session: &'a str, executor: &'a str, launch: &'a mut Launch) -> Preparing<'a> {
        Box::pin(async move {
            match &self.gateway {
                Some(gateway) => gateway.route(session, executor, launch).await,
                None => Ok(()),
            }
        })
    }

    fn default_executor(&self) -> Option<String> {
        if let Some(default) = &self.default {
            return Some(default.clone());
        }
        let found = self.catalog.iter().find(|agent| {
            let known = self.known.get(agent.id());
            let look = known.and_then(|known| known.try_lock().ok());
            look.is_some_and(|look| look.as_ref().is_some_and(|look| look.found.is_ok()))
        });
        // While nobody knows yet, the first one is tried, and says itself if it is missing.
        found
            .or_else(|| self.catalog.iter().next())
            .map(|agent| agent.id().to_owned())
    }
}
