//! What every agent has in common: the trait, the options of a launch, and what comes of one.
//!
//! Nothing here runs a session. [`crate::discover`] looks for binaries; the owner of a session spawns what
//! [`Launch`] says and feeds the [`Driver`].

use crate::driver::{Driver, PermissionMode};
use crate::event::Usage;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// An agent that can be started: Claude Code, Codex, Gemini, or any that speaks ACP.
pub trait Agent: Send + Sync {
    /// The executor's name in the API, lower case: `claude`, `codex`, `gemini`, or what the owner called it.
    fn id(&self) -> &str;

    /// The name to show.
    fn display_name(&self) -> &str;

    /// Where the binary is looked for, which version will do, and what to say when there is none.
    fn requirement(&self) -> &Requirement;

    /// Which fields of a request it honours.
    fn capabilities(&self) -> &Capabilities;

    /// The command that starts it. `program` is what discovery found.
    ///
    /// # Errors
    /// [`LaunchError`] when a field of the options cannot be honoured.
    fn launch(&self, program: &Path, options: &LaunchOptions) -> Result<Launch, LaunchError>;

    /// From when on a session that this agent opened (began or resumed) at `opened_ms` can be opened again. Both are
    /// milliseconds since 1970.
    fn reopens_at(&self, opened_ms: u64) -> u64 {
        opened_ms
    }

    /// A fresh driver for a process started with these options (or for the replay of its log).
    fn driver(&self, options: &LaunchOptions) -> Box<dyn Driver>;
}

/// What somebody wants of a session that is to be started.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LaunchOptions {
    /// Absolute path of the directory to work in.
    pub project_path: PathBuf,
    /// Model, in the agent's own naming; the agent's default without.
    pub model: Option<String>,
    /// Go on with an earlier session, or begin a new one.
    pub resume: Resume,
    /// How tools are permitted.
    pub permission_mode: PermissionMode,
    /// Tools that need no asking, in the agent's own syntax.
    pub allowed_tools: Vec<String>,
    /// The id that a new session shall have (a UUID).
    pub session_id: Option<String>,
    /// Did the machine's owner allow sessions that ask nothing?
    pub allow_bypass: bool,
    /// The how-manieth process of the session this is, from 0.
    pub run: u32,
    /// What earlier processes of the session used. Where the agent counts anew in each, it is counted on from here.
    pub used_before: Usage,
}

/// Where a session begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// With nothing.
    #[default]
    New,
    /// With the agent's session of this id; with `fork` as a copy that leaves the original as it is.
    Session {
        /// The agent's own id.
        id: String,
        /// Copy?
        fork: bool,
    },
    /// With the newest session of the project's directory.
    Last {
        /// Copy?
        fork: bool,
    },
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment variables to set.
    pub env: Vec<(OsString, OsString)>,
    /// Environment variables to take away, where they are inherited.
    pub env_remove: Vec<OsString>,
    /// Working directory.
    pub cwd: PathBuf,
}

/// Which fields of a request an agent honours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// A model can be chosen at the start.
    pub model: bool,
    /// The model can be changed while the session lives.
    pub change_model: bool,
    /// A session can be resumed by its id.
    pub resume: bool,
    /// The agent itself can find the newest session of a directory. Where it cannot, the owner may look it up
    /// in the history and resume by id.
    pub resume_last: bool,
    /// A session can be copied.
    pub fork: bool,
    /// The caller can choose the id of a new session.
    pub session_id: bool,
    /// Tools can be allowed by name at the start.
    pub allowed_tools: bool,
    /// Permission modes that exist.
    pub permission_modes: Vec<PermissionMode>,
    /// Arguments of a tool can be changed with the permission.
    pub edit_input: bool,
    /// The reason of a denial reaches the agent.
    pub deny_message: bool,
}

/// Why a session cannot be started as wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// This agent has no such field.
    #[error("{agent} cannot honour \"{field}\": {reason}")]
    Unsupported {
        /// The agent's name to show.
        agent: String,
        /// The field of the request.
        field: &'static str,
        /// Why, and what to do instead.
        reason: String,
    },
    /// A field's value is not one that this agent takes.
    #[error("\"{field}\" is not valid: {reason}")]
    Invalid {
        /// The field of the request.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The machine's owner did not allow it.
    #[error("{0}")]
    Forbidden(String),
}

/// Where an agent's binary is looked for and which one will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Names of the binary, first choice first.
    pub binaries: Vec<String>,
    /// Places besides `PATH`, relative to the home directory or absolute.
    pub places: Vec<PathBuf>,
    /// Arguments that make it print its version. Empty: it is not asked.
    pub version_args: Vec<String>,
    /// The oldest version that has what we use.
    pub min_version: Option<Version>,
    /// What to do when it is missing or too old: one sentence with a command.
    pub install: String,
}

/// A version of three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64, pub u64, pub u64);
