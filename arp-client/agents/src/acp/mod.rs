//! The Agent Client Protocol (version 1), which Gemini speaks, and any agent that the owner configures as a
//! command with arguments.

mod choice;
mod driver;
mod permission;
mod updates;

use crate::agent::{Agent, Capabilities, Launch, LaunchError, LaunchOptions, Requirement, Version};
use crate::driver::{Driver, PermissionMode};
use crate::options;
use driver::AcpDriver;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const MINUTE_MS: u64 = 60_000;

/// An agent that speaks the Agent Client Protocol on its standard input and output.
#[derive(Debug)]
pub struct AcpAgent {
    id: String,
    name: String,
    args: Vec<String>,
    env: Vec<(OsString, OsString)>,
    /// A flag for the model, for agents that take it when they start.
    model_flag: Option<&'static str>,
    requirement: Requirement,
    capabilities: Capabilities,
    habits: Habits,
}

/// An ACP agent as the owner of the machine configures it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcpConfig {
    /// The binary: a path, or a name that is looked for in `PATH`.
    pub command: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment variables to set for it.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The name to show; the executor's name without.
    #[serde(default)]
    pub name: Option<String>,
    /// The agent's own names of the permission modes, where ours are not understood.
    #[serde(default)]
    pub modes: BTreeMap<PermissionMode, String>,
}

/// Where an agent departs from the protocol, or says less than it could.
#[derive(Debug, Clone, Default)]
struct Habits {
    /// Its own names of our permission modes, tried before the usual ones.
    modes: BTreeMap<PermissionMode, String>,
    /// The first word of a tool call's id, up to two underscores, is the tool's name.
    tool_name_in_call_id: bool,
    /// After `session/load` it goes on replaying the history, and tells its commands when it is through.
    replays_after_load: bool,
    /// It loses a session that is opened twice within one minute of the clock.
    one_opening_a_minute: bool,
    /// Its diffs are of whole files, so that their lines can be counted.
    whole_file_diffs: bool,
    /// It announces a change of mode as if it said so.
    announces_mode: Option<&'static str>,
}

impl AcpAgent {
    /// Gemini CLI.
    #[must_use]
    pub fn gemini() -> Self {
        Self {
            id: "gemini".to_owned(),
            name: "Gemini CLI".to_owned(),
            // A directory that was never trusted ends the CLI, and nobody is there to be asked about it.
            args: vec!["--acp".to_owned(), "--skip-trust".to_owned()],
            // It would start itself once more, as a child that a signal to the first one does not reach.
            env: vec![("GEMINI_CLI_NO_RELAUNCH".into(), "true".into())],
            model_flag: Some("-m"),
            requirement: Requirement {
                binaries: vec!["gemini".to_owned()],
                places: [".local/bin", ".npm-global/bin", ".bun/bin"]
                    .iter()
                    .map(PathBuf::from)
                    .collect(),
                version_args: vec!["--version".to_owned()],
                min_version: Some(Version(0, 51, 0)),
                install:
                    "Install it with `npm install -g @google/gemini-cli`, then run `gemini` once to log in."
                        .to_owned(),
            },
            capabilities: capabilities(true),
            habits: Habits {
                tool_name_in_call_id: true,
                replays_after_load: true,
                one_opening_a_minute: true,
                whole_file_diffs: true,
                announces_mode: Some("[MODE_UPDATE]"),
                ..Habits::default()
            },
        }
    }

    /// An agent that the owner configured, as the executor `id`.
    #[must_use]
    pub fn custom(id: &str, config: AcpConfig) -> Self {
        let command = config.command;
        Self {
            id: id.to_lowercase(),
            name: config.name.unwrap_or_else(|| id.to_owned()),
            args: config.args,
            env: config
                .env
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
            model_flag: None,
            requirement: Requirement {
                install: format!(
                    "The configuration names `{command}` for it; install that, or correct the entry."
                ),
                binaries: vec![command],
                places: Vec::new(),
                // Nothing is known of its flags, and an agent that takes one for a prompt would start to work.
                version_args: Vec::new(),
                min_version: None,
            },
            capabilities: capabilities(true),
            habits: Habits {
                modes: config.modes,
                ..Habits::default()
            },
        }
    }
}

/// The most that the protocol has. What a certain agent lacks shows in the handshake, and ends it with a
/// message that says so.
fn capabilities(model: bool) -> Capabilities {
    Capabilities {
        model,
        change_model: true,
        resume: true,
        resume_last: false,
        fork: false,
        session_id: false,
        allowed_tools: false,
        permission_modes: vec![
            PermissionMode::Default,
            PermissionMode::AcceptEdits,
            PermissionMode::Plan,
            PermissionMode::BypassPermissions,
        ],
        edit_input: false,
        deny_message: false,
    }
}

impl Agent for AcpAgent {
    fn id(&self) -> &str {
        &self.id
    }

    fn display_name(&self) -> &str {
        &self.name
    }

    fn requirement(&self) -> &Requirement {
        &self.requirement
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn launch(&self, program: &Path, options: &LaunchOptions) -> Result<Launch, LaunchError> {
        options::check(self, options)?;
        let mut args: Vec<OsString> = self.args.iter().map(OsString::from).collect();
        if let (Some(flag), Some(model)) = (self.model_flag, &options.model) {
            args.extend([OsString::from(flag), OsString::from(model)]);
        }
        Ok(Launch {
            program: program.to_owned(),
            args,
            env: self.env.clone(),
            env_remove: Vec::new(),
            cwd: options.project_path.clone(),
        })
    }

    fn reopens_at(&self, opened_ms: u64) -> u64 {
        if self.habits.one_opening_a_minute {
            (opened_ms / MINUTE_MS + 1) * MINUTE_MS
        } else {
            opened_ms
        }
    }

    fn driver(&self, options: &LaunchOptions) -> Box<dyn Driver> {
        // A model that was given on the command line needs no word over the protocol.
        let model = options.model.clone().filter(|_| self.model_flag.is_none());
        Box::new(AcpDriver::new(
            &self.name,
            self.habits.clone(),
            LaunchOptions {
                model,
                ..options.clone()
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> LaunchOptions {
        LaunchOptions {
            project_path: std::env::temp_dir(),
            ..LaunchOptions::default()
        }
    }

    #[test]
    fn gemini_is_started_with_its_model() {
        let wanted = LaunchOptions {
            model: Some("gemini-2.5-flash".into()),
            ..options()
        };
        let launch = AcpAgent::gemini()
            .launch(Path::new("/bin/gemini"), &wanted)
            .unwrap();
        assert_eq!(launch.args, ["--acp", "--skip-trust", "-m", "gemini-2.5-flash"]);
        assert_eq!(launch.cwd, std::env::temp_dir());
    }

    #[test]
    fn gemini_opens_a_session_again_in_the_next_minute_of_the_clock() {
        // It names its files by the minute.
        assert_eq!(AcpAgent::gemini().reopens_at(119_999), 120_000);
        assert_eq!(AcpAgent::gemini().reopens_at(120_000), 180_000);
    }

    #[test]
    fn what_gemini_cannot_do_is_said() {
        let wanted = LaunchOptions {
            allowed_tools: vec!["run_shell_command".into()],
            ..options()
        };
        let refused = AcpAgent::gemini()
            .launch(Path::new("/bin/gemini"), &wanted)
            .unwrap_err();
        assert_eq!(
            refused.to_string(),
            "Gemini CLI cannot honour \"allowed_tools\": answer its prompts with \"allow for this session\" instead"
        );
    }

    #[test]
    fn a_configured_agent_is_its_command_and_arguments() {
        let config = AcpConfig {
            command: "my-agent".into(),
            args: vec!["acp".into()],
            env: BTreeMap::from([("KEY".into(), "x".into())]),
            name: None,
            modes: BTreeMap::new(),
        };
        let agent = AcpAgent::custom("Mine", config);
        assert_eq!((agent.id(), agent.display_name()), ("mine", "Mine"));
        let launch = agent.launch(Path::new("/opt/my-agent"), &options()).unwrap();
        assert_eq!(
            (launch.args, launch.env),
            (vec!["acp".into()], vec![("KEY".into(), "x".into())])
        );
    }
}
