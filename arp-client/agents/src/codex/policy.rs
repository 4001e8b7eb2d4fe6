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

/// The mode that [`mode_text`] names, or `plan`: the narrowest of ours that holds all that Codex may do unasked.
pub(super) fn mode_of(text: &str) -> Option<PermissionMode> {
    if text == "plan" {
        return Some(PermissionMode::Plan);
    }
    let (approval, sandbox) = text.split_once(", ")?;
    Some(match (approval, sandbox) {
        ("untrusted", _) => PermissionMode::Default,
        // Whatever it asks for by itself: it need not ask, and nothing holds it.
        (_, "danger-full-access") => PermissionMode::BypassPermissions,
        ("never", "read-only") => PermissionMode::Plan,
        // Edits what it likes, and cannot leave the sandbox.
        ("on-request" | "on-failure" | "never", _) => PermissionMode::AcceptEdits,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_codex_says_of_itself_is_the_mode_and_never_a_narrower_one() {
        for mode in PermissionMode::ALL {
            let text = mode_text(&json!(approval_policy(mode)), &sandbox_policy(mode)).unwrap();
            assert_eq!(mode_of(&text), Some(mode), "{text}");
        }
        for (text, mode) in [
            ("plan", Some(PermissionMode::Plan)),
            // Of its user's own configuration.
            (
                "on-request, danger-full-access",
                Some(PermissionMode::BypassPermissions),
            ),
            (
                "on-failure, danger-full-access",
                Some(PermissionMode::BypassPermissions),
            ),
            (
                "granular, danger-full-access",
                Some(PermissionMode::BypassPermissions),
            ),
            ("untrusted, danger-full-access", Some(PermissionMode::Default)),
            ("never, workspace-write", Some(PermissionMode::AcceptEdits)),
            ("on-request, read-only", Some(PermissionMode::AcceptEdits)),
            ("granular, workspace-write", None),
            ("nonsense", None),
        ] {
            assert_eq!(mode_of(text), mode, "{text}");
        }
    }
}
