//! Which directories visitors may read: those that the owner named with `--fs-root`, else those in which the owner's
//! own agents worked.
//!
//! A session that a visitor starts leaves its directory in the agent's history like any other, so the directories in
//! which sessions were started are written down: what a visitor's session would add stays closed, what one of the
//! owner adds (over the local socket) is open.

use arp_common::private;
use arp_files::Roots;
use arp_history::{AgentKind, History, SessionFilter};
use arp_sessions::model::SessionView;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Largest record that is read, in bytes: far more directories than a machine has projects.
const MAX_FILE: usize = 64 * 1024 * 1024;

/// A session of an agent that is this much older than ours of the same id was there before, in seconds.
const RESUMED_AFTER: u64 = 60;

/// Who starts a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starter {
    /// Somebody who can open the local socket: this user, at this machine.
    Owner,
    /// Anybody else.
    Visitor,
}

/// The directories that visitors may read. All methods block.
pub(crate) struct ReadableRoots {
    configured: Vec<Configured>,
    home: Option<PathBuf>,
    history: Arc<History>,
    data_dir: PathBuf,
    file: PathBuf,
    record: Mutex<Record>,
}

/// A directory that the owner named, and what it was when it was first there: links in it are followed once.
struct Configured {
    named: PathBuf,
    real: OnceLock<PathBuf>,
}

/// Directories in which sessions were started, by what they really are.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// What was started before there was a record is sorted.
    settled: bool,
    /// By the owner.
    open: BTreeSet<String>,
    /// By visitors, where nothing was readable before.
    closed: BTreeSet<String>,
}

impl ReadableRoots {
    pub(crate) fn open(configured: &[PathBuf], data_dir: &Path, history: Arc<History>) -> io::Result<Self> {
        let file = data_dir.join("fs-roots.json");
        let record = match private::read(&file, MAX_FILE) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "{} is damaged ({error}); without it nobody knows which directories were closed to \
                             visitors: put back a copy, or remove it to begin anew",
                        file.display()
                    ),
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(error) => return Err(error),
        };
        let configured: Vec<Configured> = configured.iter().map(|path| Configured::new(path)).collect();
        for root in configured.iter().filter(|root| root.resolved().is_none()) {
            tracing::warn!(
                "--fs-root {}: there is no such directory now",
                root.named.display()
            );
        }
        Ok(Self {
            configured,
            home: std::env::home_dir(),
            history,
            data_dir: data_dir.to_owned(),
            file,
            record: Mutex::new(record),
        })
    }

    /// What may be read now.
    pub(crate) fn current(&self) -> Roots {
        let mut roots = self.none();
        if !self.configured.is_empty() {
            for root in self.configured.iter().filter_map(Configured::resolved) {
                // One that is gone meanwhile is no root.
                let _ = roots.add(root);
            }
            return roots;
        }
        let (open, closed, settled) = {
            let record = self.record();
            (record.open.clone(), record.closed.clone(), record.settled)
        };
        let mut worked: BTreeSet<String> = open;
        for agent in AgentKind::ALL.into_iter().filter(|_| settled) {
            let known = self.history.working_directories(agent);
            let known = known.map(|known| known.directories).unwrap_or_default();
            worked.extend(known.into_iter().map(|directory| directory.path));
        }
        for path in worked.difference(&closed) {
            // Directories that are gone, or not what they were, are no roots.
            let _ = roots.add_project(path, self.home.as_deref());
        }
        roots
    }

    /// This directory alone, for one who is told what an agent asks to change in it.
    pub(crate) fn only(&self, directory: &Path) -> Roots {
        let mut roots = self.none();
        // One that is gone is no root.
        let _ = roots.add(directory);
        roots
    }

    /// No root; our own keys and tokens are in none.
    fn none(&self) -> Roots {
        let mut roots = Roots::default();
        roots.hide(&self.data_dir);
        // The client id for scripts.
        if let Some(home) = &self.home {
            roots.hide(home.join(".arp-client"));
        }
        roots
    }

    /// A session starts in `directory`; `before` is what could be read until then.
    pub(crate) fn starts(&self, starter: Starter, directory: &Path, before: &Roots) {
        let Some(directory) = real(directory) else { return };
        let mut record = self.record();
        let changed = match starter {
            Starter::Owner => {
                let was_closed = record.closed.remove(&directory);
                record.open.insert(directory) || was_closed
            }
            Starter::Visitor => !before.holds(&directory) && record.closed.insert(directory),
        };
        if changed {
            self.save(&record);
        }
    }

    /// Sorts what was started before there was a record: a directory in which the agents' histories have nothing but
    /// our own `sessions` is closed. Until this was done once, no history counts.
    pub(crate) fn settle(&self, sessions: &[Arc<SessionView>]) {
        if self.record().settled {
            return;
        }
        let mut ours: BTreeMap<String, BTreeMap<&str, u64>> = BTreeMap::new();
        for session in sessions {
            let Some(directory) = real(&session.project_path) else {
                continue;
            };
            let begun = session.created_at.0 / 1000;
            let ids = ours.entry(directory).or_default();
            ids.extend(session.agent_session_id.as_deref().map(|id| (id, begun)));
        }
        let only_ours = |(directory, ids): &(String, BTreeMap<&str, u64>)| !self.has_others(directory, ids);
        let closed: Vec<String> = ours
            .into_iter()
            .filter(only_ours)
            .map(|(directory, _)| directory)
            .collect();
        let mut record = self.record();
        record.settled = true;
        let new: Vec<String> = closed
            .into_iter()
            .filter(|directory| !record.open.contains(directory))
            .collect();
        record.closed.extend(new);
        self.save(&record);
    }

    /// Has an agent a session in this directory besides these, or one of these that was there before it was ours?
    fn has_others(&self, directory: &str, ours: &BTreeMap<&str, u64>) -> bool {
        let filter = SessionFilter {
            project_path: Some(directory.to_owned()),
            ..SessionFilter::default()
        };
        AgentKind::ALL.into_iter().any(|agent| {
            let known = self.history.sessions(agent, &filter);
            known.is_ok_and(|known| {
                known.sessions.iter().any(|session| {
                    let created = u64::try_from(session.created_at).unwrap_or(0);
                    ours.get(session.id.as_str())
                        .is_none_or(|begun| created.saturating_add(RESUMED_AFTER) < *begun)
                })
            })
        })
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, record: &Record) {
        let written = serde_json::to_vec(record)
            .map_err(io::Error::from)
            .and_then(|text| private::replace(&self.file, &text));
        if let Err(error) = written {
            tracing::warn!("cannot write down which directories visitors may read: {error}");
        }
    }
}

impl Configured {
    fn new(named: &Path) -> Self {
        Self {
            named: named.to_owned(),
            real: OnceLock::new(),
        }
    }

    /// What it is; `None` while it is not there.
    fn resolved(&self) -> Option<&Path> {
        if self.real.get().is_none()
            && self.named.is_absolute()
            && let Ok(real) = self.named.canonicalize()
        {
            let _ = self.real.set(real);
        }
        self.real.get().map(PathBuf::as_path)
    }
}

/// What a directory really is, as the record spells it.
fn real(directory: &Path) -> Option<String> {
    let real = directory.canonicalize().ok()?;
    Some(real.to_string_lossy().into_owned())
}
