//! Where the gateway's files lie: the folder that CLP's users have, `~/.clp`.

use crate::service::Service;
use std::io;
use std::path::{Path, PathBuf};

/// The folder, and the names in it.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// `$CLP_HOME`, else `~/.clp`.
    ///
    /// # Errors
    /// When no home directory can be found.
    pub fn of_user() -> io::Result<Self> {
        if let Some(path) = std::env::var_os("CLP_HOME").filter(|p| !p.is_empty()) {
            return Ok(Self(std::path::absolute(path)?));
        }
        let dirs = directories::BaseDirs::new().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "no home directory is known: set CLP_HOME to a folder for the gateway",
            )
        })?;
        Ok(Self(dirs.home_dir().join(".clp")))
    }

    /// This folder.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The upstreams of a service: `claude.json` and its kin.
    #[must_use]
    pub fn upstreams(&self, service: Service) -> PathBuf {
        self.0.join(format!("{service}.json"))
    }

    /// What CLP has no file for.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.0.join("gateway.toml")
    }

    /// How load is shared, and who is excluded.
    #[must_use]
    pub fn balance(&self) -> PathBuf {
        self.data().join("lb_config.json")
    }

    /// Which model goes where.
    #[must_use]
    pub fn routes(&self) -> PathBuf {
        self.data().join("model_router_config.json")
    }

    /// What requests are changed by.
    #[must_use]
    pub fn filters(&self) -> PathBuf {
        self.0.join("filter.json")
    }

    /// What placeholders are made from.
    #[must_use]
    pub fn redaction_key(&self) -> PathBuf {
        self.data().join("redaction.key")
    }

    /// What CLP's page has of its own: how many rows of its log are shown.
    #[must_use]
    pub fn system(&self) -> PathBuf {
        self.data().join("system.json")
    }

    /// Counts and request records.
    #[must_use]
    pub fn usage(&self) -> PathBuf {
        self.data().join("gateway.db")
    }

    /// Files that the gateway itself writes.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Logs, the lock and who runs.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// Creates the folders, for their owner alone.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn create(&self) -> io::Result<()> {
        for dir in [self.0.clone(), self.data(), self.run()] {
            arp_common::private::create_dir(&dir)?;
        }
        Ok(())
    }
}
