//! Claude Code: kept alive over `stream-json` on standard input, permission prompts on the same pipe.

mod approvals;
mod driver;
mod lines;
mod tools;

pub use tools::{questions, tool_card};

use crate::agent::{Agent, Capabilities, Launch, LaunchError, LaunchOptions, Requirement, Resume, Version};
use crate::driver::{Driver, PermissionMode};
use crate::options;
use driver::ClaudeDriver;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Claude Code.
#[derive(Debug)]
pub struct Claude {
    requirement: Requirement,
    capabilities: Capabilities,
}

impl Default for Claude {
    fn default() -> Self {
        Self::new()
    }
}

impl Claude {
    /// The agent as Anthropic ships it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            requirement: Requirement {
                binaries: vec!["claude".to_owned()],
                places: [".local/bin", ".claude/local", ".claude/local/node_modules/.bin", ".npm-global/bin", ".bun/bin"]
                    .iter()
                    .map(PathBuf::from)
                    .collect(),
                version_args: vec!["--version".to_owned()],
                min_version: Some(Version(2, 1, 0)),
                install: "Install it with `npm install -g @anthropic-ai/claude-code`, then run `claude` once to log in."
                    .to_owned(),
            },
            capabilities: Capabilities {
                model: true,
                change_model: true,
                resume: true,
                resume_last: true,
                fork: true,
                session_id: true,
                allowed_tools: true,
                permission_modes: vec![
                    PermissionMode::Default,
                    PermissionMode::AcceptEdits,
                    PermissionMode::Plan,
                    PermissionMode::BypassPermissions,
                ],
                edit_input: true,
                deny_message: true,
            },
        }
    }
}

impl Agent for Claude {
    fn id(&self) -> &str {
        "claude"
    }

    fn display_name(&self) -> &str {
        "Claude Code"
    }

    fn requirement(&self) -> &Requirement {
        &self.requirement
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn launch(&self, program: &Path, options: &LaunchOptions) -> Result<Launch, LaunchError> {
        options::check(self, options)?;
        let mut args: Vec<OsString> = [
            "-p",
            "--input-format",
            "stream-json",
            "--output-format",
            "stream-json",
            // stream-json output is refused without it.
            "--verbose",
            "--include-partial-messages",
            "--permission-prompt-tool",
            "stdio",
            "--permission-mode",
            mode_name(options.permission_mode),
        ]
        .iter()
        .map(OsString::from)
        .collect();
        let mut flag = |name: &str, value: &str| args.extend([OsString::from(name), OsString::from(value)]);
        if let Some(model) = &options.model {
            flag("--model", model);
        }
        if let Some(id) = &options.session_id {
            flag("--session-id", id);
        }
        if !options.allowed_tools.is_empty() {
            flag("--allowedTools", &options.allowed_tools.join(","));
        }
        let fork = match &options.resume {
            Resume::New => false,
            Resume::Session { id, fork } => {
                flag("--resume", id);
                *fork
            }
            Resume::Last { fork } => {
                args.push("--continue".into());
                *fork
            }
        };
        if fork {
            args.push("--fork-session".into());
        }
        let mut env = vec![("DISABLE_AUTOUPDATER".into(), "1".into())];
        if options.allow_bypass {
            // Lets the mode be changed to bypassing later on; by itself it changes nothing.
            args.push("--allow-dangerously-skip-permissions".into());
            // The CLI refuses to bypass as root unless it is told that the machine is a sandbox. The owner's
            // permission to bypass is that statement.
            env.push(("IS_SANDBOX".into(), "1".into()));
        }
        Ok(Launch {
            program: program.to_owned(),
            args,
            env,
            // Set inside a Claude session: a nested one would take itself for a child of it.
            env_remove: vec!["CLAUDECODE".into(), "CLAUDE_CODE_ENTRYPOINT".into()],
            cwd: options.project_path.clone(),
        })
    }

    fn driver(&self, options: &LaunchOptions) -> Box<dyn Driver> {
        Box::new(ClaudeDriver::new(options))
    }
}

/// Claude's own name of a permission mode.
fn mode_name(mode: PermissionMode) -> &'static str {
    match mode {
        PermissionMode::Default => "default",
        PermissionMode::AcceptEdits => "acceptEdits",
        PermissionMode::Plan => "plan",
        PermissionMode::BypassPermissions => "bypassPermissions",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(options: &LaunchOptions) -> String {
        let launch = Claude::new().launch(Path::new("/bin/claude"), options).unwrap();
        launch
            .args
            .iter()
            .map(|arg| arg.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn options() -> LaunchOptions {
        LaunchOptions {
            project_path: std::env::temp_dir(),
            ..LaunchOptions::default()
        }
    }

    #[test]
    fn a_plain_launch_asks_over_the_same_pipe() {
        assert_eq!(
            args(&options()),
            "-p --input-format stream-json --output-format stream-json --verbose --include-partial-messages \
             --permission-prompt-tool stdio --permission-mode default"
        );
    }

    #[test]
    fn every_option_has_its_flag() {
        let line = args(&LaunchOptions {
            model: Some("sonnet".into()),
            allowed_tools: vec!["Bash(git:*)".into(), "Edit".into()],
            permission_mode: PermissionMode::Plan,
            resume: Resume::Session {
                id: "0a".into(),
                fork: true,
            },
            ..options()
        });
        assert!(line.ends_with(
            "--permission-mode plan --model sonnet --allowedTools Bash(git:*),Edit --resume 0a --fork-session"
        ));
        assert!(
            args(&LaunchOptions {
                resume: Resume::Last { fork: false },
                ..options()
            })
            .ends_with("--continue")
        );
    }

    #[test]
    fn bypassing_needs_the_owner() {
        let wanted = LaunchOptions {
            permission_mode: PermissionMode::BypassPermissions,
            ..options()
        };
        let refused = Claude::new()
            .launch(Path::new("/bin/claude"), &wanted)
            .unwrap_err();
        assert!(matches!(refused, LaunchError::Forbidden(_)), "{refused}");
        assert!(!args(&options()).contains("dangerously"));

        let allowed = Claude::new()
            .launch(
                Path::new("/bin/claude"),
                &LaunchOptions {
                    allow_bypass: true,
                    ..wanted
                },
            )
            .unwrap();
        assert!(allowed.env.contains(&("IS_SANDBOX".into(), "1".into())));
    }

    #[test]
    fn a_value_never_becomes_a_flag() {
        let tricky = LaunchOptions {
            model: Some("--dangerously-skip-permissions".into()),
            ..options()
        };
        let refused = Claude::new()
            .launch(Path::new("/bin/claude"), &tricky)
            .unwrap_err();
        assert!(
            matches!(refused, LaunchError::Invalid { field: "model", .. }),
            "{refused}"
        );
    }
}
