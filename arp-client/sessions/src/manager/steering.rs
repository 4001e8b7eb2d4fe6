//! Which session may steer which: nobody gets further by asking somebody with wider permissions.

use super::Sessions;
use crate::error::SessionError;
use crate::model::Meta;
use arp_agents::driver::PermissionMode;

/// Who wants to steer a session.
#[derive(Debug, Clone, Copy)]
pub enum Steering<'a> {
    /// A process of this session of ours, by the system's word.
    Session(&'a str),
    /// Somebody who says that it is this session (by its agent's id or ours), or says nothing. Is believed as far as
    /// that takes something away.
    Says(Option<&'a str>),
}

/// What somebody may do unasked.
struct Reach {
    mode: PermissionMode,
    /// Tools that are allowed from the start, and what the user allowed for the whole session.
    tools: Vec<String>,
}

impl Sessions {
    /// Checks that somebody may give this session a message.
    ///
    /// # Errors
    /// [`SessionError::BypassNotAllowed`] when that one may do more unasked than the caller.
    pub fn check_steering(&self, caller: Steering<'_>, target: &str) -> Result<(), SessionError> {
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
    pub fn mode_for(&self, caller: Steering<'_>) -> Result<PermissionMode, SessionError> {
        let mode = self.reach_of_caller(caller)?.mode;
        Ok(if mode == PermissionMode::Plan {
            PermissionMode::Plan
        } else {
            PermissionMode::Default
        })
    }

    fn reach_of_caller(&self, caller: Steering<'_>) -> Result<Reach, SessionError> {
        let asks = Reach {
            mode: PermissionMode::Default,
            tools: Vec::new(),
        };
        let (Steering::Session(id) | Steering::Says(Some(id))) = caller else {
            return Ok(asks);
        };
        let reach = match self.reach(id) {
            Err(SessionError::NotFound(_)) => return Ok(asks),
            reach => reach?,
        };
        let proven = matches!(caller, Steering::Session(_));
        Ok(if proven || reach.mode.width() < asks.mode.width() {
            reach
        } else {
            asks
        })
    }

    fn reach(&self, id: &str) -> Result<Reach, SessionError> {
        let Meta {
            id, allowed_tools, ..
        } = self.meta(id)?;
        // The object, and not the row: the mode follows the agent's own word.
        let view = self.get(&id)?;
        let mut tools = allowed_tools;
        tools.extend(view.granted.iter().cloned());
        Ok(Reach {
            mode: view.permission_mode,
            tools,
        })
    }
}
