//! Our permission modes in Codex's two terms: when it asks, and what its sandbox lets pass.

use crate::driver::PermissionMode;
use serde_json::{Value, json};

/// When Codex asks.
pub(super) fn approval_policy(mode: PermissionMode) -> &'static str {
    match mode {
        // Asks for every command and every edit.
        PermissionMode::Default => "untrusted",
        // Asks to leave the sandbox.
        PermissionMode::AcceptEdits => "on-request",
        PermissionMode::Plan | PermissionMode::BypassPermissions => "never",
    }
}

/// What a command may do at most, be it allowed or not asked for.
pub(super) fn sandbox_policy(mode: PermissionMode) -> Value {
    match mode {
        // A command that was allowed runs in the sandbox all the same, first. In a read-only one it would fail
        // there, and whether Codex notices why and lets it out is a matter of how quickly it failed.
        PermissionMode::Default | PermissionMode::AcceptEdits => json!({
            "type": "workspaceWrite",
            "writableRoots": [],
            "networkAccess": false,
            "excludeTmpdirEnvVar": false,
            "excludeSlashTmp": false,
        }),
        PermissionMode::Plan => json!({"type": "readOnly", "networkAccess": false}),
        PermissionMode::BypassPermissions => json!({"type": "dangerFullAccess"}),
    }
}

/// The sandbox that a thread is opened with, whatever its mode: opening one with write access in a git
/// repository marks that repository as trusted in the user's configuration for ever, setting the mode
/// afterwards does not.
pub(super) const OPENING_SANDBOX: &str = "read-only";

/// The mode that a thread was opened in, from the parameters that were sent; of the two that ask nothing it is
/// `newest`, unless that asks.
pub(super) fn opened_with(params: &Value, newest: PermissionMode) -> Option<PermissionMode> {
    match params.get("approvalPolicy")?.as_str()? {
        "untrusted" => Some(PermissionMode::Default),
        "on-request" => Some(PermissionMode::AcceptEdits),
        "never" if approval_policy(newest) == "never" => Some(newest),
        "never" => Some(PermissionMode::Plan),
        _ => None,
    }
}

/// Both terms in one line, as Codex's name of the mode.
pub(super) fn mode_text(approval: &Value, sandbox: &Value) -> Option<String> {
    let approval = approval.as_str().unwrap_or("granular");
    let sandbox = sandbox.get("type").and_then(Value::as_str)?;
    let sandbox = match sandbox {
        "readOnly" => "read-only",
        "workspaceWrite" => "workspace-write",
        "dangerFullAccess" => "danger-full-access",
        other => other,
    };
    Some(format!("{approval}, {sandbox}"))
}

/// The mode that [`mode_text`] names, or `plan`.
pub(super) fn mode_of(text: &str) -> Option<PermissionMode> {
    match text {
        "plan" | "never, read-only" => Some(PermissionMode::Plan),
        "never, danger-full-access" => Some(PermissionMode::BypassPermissions),
        _ if text.starts_with("untrusted, ") => Some(PermissionMode::Default),
        _ if text.starts_with("on-request, ") => Some(PermissionMode::AcceptEdits),
        _ => None,
    }
}
