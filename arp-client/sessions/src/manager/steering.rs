//! Which session may steer which: nobody gets further by asking somebody with wider permissions.

use super::Sessions;
use crate::error::SessionError;
use crate::model::Meta;
use arp_agents::driver::PermissionMode;

/// What somebody may do unasked.
struct Reach {
    mode: PermissionMode,
    tools: Vec<String>,
}

impl Sessions {
    /// Checks that a session (by its agent's id or ours; `None` or unknown: an agent that was not started here) may
    /// give this one a message.
    ///
    /// # Errors
    /// [`SessionError::BypassNotAllowed`] when that one may do more unasked than the caller.
    pub fn check_steering(&self, caller: Option<&str>, target: &str) -> Result<(), SessionError> {
        let target = self.reach(&self.get(target)?.id)?;
        let caller = self.reach_of_caller(caller)?;
        let more_tools = caller.mode.width() < PermissionMode::BypassPermissions.width()
            && target.tools.iter().any(|tool| !caller.tools.contains(tool));
        if target.mode.width() > caller.mode.width() || more_tools {
            return Err(SessionError::BypassNotAllowed(
                "that session may do more without asking than the one that calls, so it takes no messages from it; \
                 start a session of your own, or ask the user to pass the message on"
                    .into(),
            ));
        }
        Ok(())
    }

    /// The mode of a session that this caller starts: it asks, and where the caller may do less, it may not do more.
    ///
    /// # Errors
    /// When the database fails.
    pub fn mode_for(&self, caller: Option<&str>) -> Result<PermissionMode, SessionError> {
        let mode = self.reach_of_caller(caller)?.mode;
        Ok(if mode == PermissionMode::Plan {
            PermissionMode::Plan
        } else {
            PermissionMode::Default
        })
    }

    fn reach_of_caller(&self, caller: Option<&str>) -> Result<Reach, SessionError> {
        let asks = Reach {
            mode: PermissionMode::Default,
            tools: Vec::new(),
        };
        match caller {
            Some(id) => match self.reach(id) {
                Err(SessionError::NotFound(_)) => Ok(asks),
                reach => reach,
            },
            None => Ok(asks),
        }
    }

    fn reach(&self, id: &str) -> Result<Reach, SessionError> {
        let Meta {
            id, allowed_tools, ..
        } = self.meta(id)?;
        // The object, and not the row: the mode follows the agent's own word.
        let mode = self.get(&id)?.permission_mode;
        Ok(Reach {
            mode,
            tools: allowed_tools,
        })
    }
}
