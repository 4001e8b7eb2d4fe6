//! Codex: kept alive over `codex app-server`, JSON-RPC on standard input and output.

mod approvals;
mod driver;
mod items;
mod policy;
mod thread;

pub use items::{item_completed, item_started, user_text};

use crate::agent::{Agent, Capabilities, Launch, LaunchError, LaunchOptions, Requirement, Version};
use crate::driver::{Driver, PermissionMode};
use crate::options;
use driver::CodexDriver;
use std::path::{Path, PathBuf};

/// Codex.
#[derive(Debug)]
pub struct Codex {
    requirement: Requirement,
    capabilities: Capabilities,
}

impl Default for Codex {
    fn default() -> Self {
        Self::new()
    }
}

impl Codex {
    /// The agent as OpenAI ships it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            requirement: Requirement {
                binaries: vec!["codex".to_owned()],
                places: [
                    ".local/bin",
                    ".codex/bin",
                    ".npm-global/bin",
                    ".bun/bin",
                    ".cargo/bin",
                ]
                .iter()
                .map(PathBuf::from)
                .collect(),
                version_args: vec!["--version".to_owned()],
                min_version: Some(Version(0, 150, 0)),
                install: "Install it with `npm install -g @openai/codex`, then run `codex login`.".to_owned(),
            },
            capabilities: Capabilities {
                model: true,
                change_model: true,
                resume: true,
                resume_last: true,
                fork: true,
                session_id: false,
                allowed_tools: false,
                permission_modes: vec![
                    PermissionMode::Default,
                    PermissionMode::AcceptEdits,
                    PermissionMode::Plan,
                    PermissionMode::BypassPermissions,
                ],
                edit_input: false,
                deny_message: true,
            },
        }
    }
}

impl Agent for Codex {
    fn id(&self) -> &str {
        "codex"
    }

    fn display_name(&self) -> &str {
        "Codex"
    }

    fn requirement(&self) -> &Requirement {
        &self.requirement
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn launch(&self, program: &Path, options: &LaunchOptions) -> Result<Launch, LaunchError> {
        options::check(self, options)?;
        Ok(Launch {
            program: program.to_owned(),
            // All else goes over the protocol.
            args: vec!["app-server".into()],
            env: Vec::new(),
            env_remove: Vec::new(),
            cwd: options.project_path.clone(),
        })
    }

    fn driver(&self, options: &LaunchOptions) -> Box<dyn Driver> {
        Box::new(CodexDriver::new(options))
    }
}
