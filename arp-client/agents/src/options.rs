//! Checks of launch options that are the same for every agent: what it cannot do, what nobody may ask for.

use crate::agent::{Agent, LaunchError, LaunchOptions, Resume};
use crate::driver::PermissionMode;

/// Longest model name or id taken from a request, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Longest list of allowed tools.
const MAX_ALLOWED_TOOLS: usize = 200;

/// What is said when somebody asks for a mode that the machine's owner did not allow.
pub(crate) const BYPASS_FORBIDDEN: &str =
    "this machine does not allow sessions that ask nothing; its owner can with `arpc --allow-bypass`";

/// Refuses what `agent` cannot honour, values that could be taken for flags, and bypassing without leave.
pub(crate) fn check(agent: &dyn Agent, options: &LaunchOptions) -> Result<(), LaunchError> {
    let able = agent.capabilities();
    let unsupported = |field: &'static str, reason: &str| LaunchError::Unsupported {
        agent: agent.display_name().to_owned(),
        field,
        reason: reason.to_owned(),
    };
    if !options.project_path.is_absolute() {
        return Err(invalid("project_path", "it must be an absolute path"));
    }
    if let Some(model) = &options.model {
        if !able.model {
            return Err(unsupported(
                "model",
                "it uses the model of its own configuration; leave the field out",
            ));
        }
        check_name("model", model)?;
    }
    if let Some(id) = &options.session_id {
        if !able.session_id {
            return Err(unsupported(
                "session_id",
                "it chooses the id itself; leave the field out",
            ));
        }
        if uuid::Uuid::try_parse(id).is_err() {
            return Err(invalid("session_id", "it must be a UUID"));
        }
    }
    if !options.allowed_tools.is_empty() && !able.allowed_tools {
        return Err(unsupported(
            "allowed_tools",
            "answer its prompts with \"allow for this session\" instead",
        ));
    }
    if options.allowed_tools.len() > MAX_ALLOWED_TOOLS {
        return Err(invalid("allowed_tools", "at most 200 tools can be listed"));
    }
    for tool in &options.allowed_tools {
        check_name("allowed_tools", tool)?;
    }
    match &options.resume {
        Resume::New => {}
        Resume::Session { id, fork } => {
            if !able.resume {
                return Err(unsupported(
                    "resume",
                    "it cannot go on with an earlier session; start a new one",
                ));
            }
            check_name("resume", id)?;
            check_fork(able.fork, *fork, &unsupported)?;
        }
        Resume::Last { fork } => {
            if !able.resume_last {
                return Err(unsupported("resume_last", "name the session in \"resume\""));
            }
            check_fork(able.fork, *fork, &unsupported)?;
        }
    }
    // A fork makes a new session, so it may have a chosen id; a plain resume keeps the one it has.
    let keeps_id = matches!(
        options.resume,
        Resume::Session { fork: false, .. } | Resume::Last { fork: false }
    );
    if options.session_id.is_some() && keeps_id {
        return Err(invalid(
            "session_id",
            "a resumed session keeps its id; leave the field out or fork",
        ));
    }
    if options.permission_mode == PermissionMode::BypassPermissions && !options.allow_bypass {
        return Err(LaunchError::Forbidden(BYPASS_FORBIDDEN.to_owned()));
    }
    if !able.permission_modes.contains(&options.permission_mode) {
        return Err(unsupported("permission_mode", "it has no such mode"));
    }
    Ok(())
}

/// A name that can stand as a flag's value on a command line and as a value in a protocol.
pub(crate) fn check_name(field: &'static str, value: &str) -> Result<(), LaunchError> {
    if value.trim().is_empty() {
        return Err(invalid(field, "it is empty"));
    }
    if value.len() > MAX_NAME_BYTES {
        return Err(invalid(field, "it is longer than 256 bytes"));
    }
    if value.starts_with('-') || value.chars().any(char::is_control) {
        return Err(invalid(
            field,
            "it must not begin with \"-\" or contain control characters",
        ));
    }
    Ok(())
}

fn check_fork(
    able: bool,
    fork: bool,
    unsupported: &dyn Fn(&'static str, &str) -> LaunchError,
) -> Result<(), LaunchError> {
    if fork && !able {
        return Err(unsupported(
            "fork",
            "it cannot copy a session; resume it without a fork",
        ));
    }
    Ok(())
}

fn invalid(field: &'static str, reason: &str) -> LaunchError {
    LaunchError::Invalid {
        field,
        reason: reason.to_owned(),
    }
}
