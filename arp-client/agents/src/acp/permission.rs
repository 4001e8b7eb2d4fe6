//! Permission requests of the Agent Client Protocol: our decisions in terms of the options they offer.

use crate::driver::{CommandError, Decision};
use crate::event::{ApprovalOutcome, Grant};
use crate::text::{array_at, str_at};
use serde_json::{Value, json};

/// A permission request that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The request's own id, to answer with.
    pub(super) rpc_id: Value,
    /// The tool call it is about.
    pub(super) call: String,
    options: Vec<Value>,
}

impl Waiting {
    pub(super) fn new(rpc_id: Value, call: String, params: &Value) -> Self {
        Self {
            rpc_id,
            call,
            options: array_at(params, "options").to_vec(),
        }
    }

    /// What can be allowed for the rest of the session: the protocol only tells the agent's name for it.
    pub(super) fn session_grants(&self) -> Vec<Grant> {
        self.options
            .iter()
            .find(|option| str_at(option, "kind") == Some("allow_always"))
            .map(|option| Grant::Named {
                name: str_at(option, "name").unwrap_or_default().to_owned(),
            })
            .into_iter()
            .collect()
    }

    /// The result to answer with.
    pub(super) fn answer(&self, decision: &Decision, agent: &str) -> Result<Value, CommandError> {
        let unsupported = |what: &str| Err(CommandError::Unsupported(format!("{agent} {what}")));
        let option = match decision {
            Decision::Allow {
                updated_input: Some(_),
                ..
            } => {
                return unsupported(
                    "cannot run a tool with changed arguments; deny it and say what to do instead",
                );
            }
            Decision::Allow {
                permission_mode: Some(_),
                ..
            } => {
                return unsupported(
                    "does not change its permission mode with an approval; change it on the session",
                );
            }
            Decision::Allow {
                for_session: true, ..
            } => match self.option("allow_always") {
                Some(option) => option,
                None => return unsupported("does not offer to allow this for the session; allow it once"),
            },
            Decision::Allow { .. } => match self.option("allow_once") {
                Some(option) => option,
                None => return unsupported("only offers to allow this for the session"),
            },
            Decision::Deny { .. } => match self
                .option("reject_once")
                .or_else(|| self.option("reject_always"))
            {
                Some(option) => option,
                None => return Ok(cancelled()),
            },
        };
        Ok(json!({"outcome": {"outcome": "selected", "optionId": option}}))
    }

    /// What an answer that was sent meant.
    pub(super) fn outcome(&self, result: &Value) -> ApprovalOutcome {
        let chosen = result.pointer("/outcome/optionId").and_then(Value::as_str);
        if chosen.is_none() {
            return ApprovalOutcome::Void;
        }
        let option = self
            .options
            .iter()
            .find(|option| str_at(option, "optionId") == chosen);
        match option.and_then(|option| str_at(option, "kind")) {
            Some("allow_once") => ApprovalOutcome::Allowed,
            Some("allow_always") => ApprovalOutcome::AllowedForSession,
            _ => ApprovalOutcome::Denied,
        }
    }

    fn option(&self, kind: &str) -> Option<&str> {
        self.options
            .iter()
            .find(|option| str_at(option, "kind") == Some(kind))
            .and_then(|o| str_at(o, "optionId"))
    }
}

/// The answer to a request of a turn that is being cancelled.
pub(super) fn cancelled() -> Value {
    json!({"outcome": {"outcome": "cancelled"}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn waiting(kinds: &[&str]) -> Waiting {
        let options: Vec<Value> = kinds
            .iter()
            .map(|kind| json!({"optionId": format!("o-{kind}"), "kind": kind}))
            .collect();
        Waiting::new(json!(0), "c".into(), &json!({"options": options}))
    }

    fn allow(for_session: bool) -> Decision {
        Decision::Allow {
            for_session,
            updated_input: None,
            answers: BTreeMap::new(),
            permission_mode: None,
        }
    }

    #[test]
    fn decisions_choose_the_option_of_their_kind() {
        let all = waiting(&["allow_always", "allow_once", "reject_once"]);
        let deny = Decision::Deny {
            message: None,
            interrupt: false,
        };
        for (decision, option, outcome) in [
            (allow(false), "o-allow_once", ApprovalOutcome::Allowed),
            (allow(true), "o-allow_always", ApprovalOutcome::AllowedForSession),
            (deny, "o-reject_once", ApprovalOutcome::Denied),
        ] {
            let answer = all.answer(&decision, "A").unwrap();
            assert_eq!(
                answer,
                json!({"outcome": {"outcome": "selected", "optionId": option}})
            );
            assert_eq!(all.outcome(&answer), outcome);
        }
    }

    #[test]
    fn once_is_never_answered_with_always() {
        let broad = waiting(&["allow_always", "reject_once"]);
        assert!(broad.answer(&allow(false), "A").is_err());
    }
}
