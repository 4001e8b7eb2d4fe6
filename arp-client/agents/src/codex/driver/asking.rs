//! What Codex asks, and how it is answered.

use super::super::approvals;
use super::{Call, CodexDriver, DENIAL, METHOD_NOT_FOUND, void};
use crate::driver::{Action, CommandError, Decision};
use crate::event::ApprovalOutcome;
use crate::text::str_at;
use serde_json::{Value, json};

impl CodexDriver {
    pub(super) fn asked(&mut self, rpc_id: Value, method: &str, params: Value) -> Vec<Action> {
        let wanted = format!("r{}-{}", self.options.run, rpc_id.to_string().trim_matches('"'));
        let item = str_at(&params, "itemId")
            .and_then(|item| self.thread.item(item))
            .cloned();
        if let Some((waiting, mut approval)) =
            approvals::asked(wanted, rpc_id.clone(), method, params, item.as_ref())
        {
            // One that asks again under the same id can no longer be answered.
            let mut actions = self.voided(&rpc_id);
            approval.id = self.approval_ids.give(approval.id);
            self.approvals.insert(approval.id.clone(), waiting);
            actions.push(Action::Ask(approval));
            return actions;
        }
        // A request that is not answered holds the turn for ever.
        vec![match method {
            "item/tool/call" => {
                let text = "This client has no such tool.";
                let items = json!([{"type": "inputText", "text": text}]);
                self.calls
                    .answer(&rpc_id, json!({"contentItems": items, "success": false}))
            }
            _ => self.calls.refuse(
                &rpc_id,
                METHOD_NOT_FOUND,
                "this client does not support the request",
            ),
        }]
    }

    pub(super) fn decide(
        &mut self,
        approval_id: &str,
        decision: &Decision,
    ) -> Result<Vec<Action>, CommandError> {
        let unknown = || CommandError::UnknownApproval(approval_id.to_owned());
        let waiting = self.approvals.get(approval_id).ok_or_else(unknown)?;
        let result = waiting.answer(decision)?;
        let rpc_id = waiting.rpc_id.clone();
        let mut actions = Vec::new();
        if let Decision::Deny { message, interrupt } = decision {
            let reason = message.as_deref().filter(|message| !message.trim().is_empty());
            if let (Some(reason), false) = (reason, *interrupt) {
                // A denial has no room for a reason, so it goes ahead of it as a word to the running turn.
                actions.extend(self.steer(reason));
            }
        }
        actions.push(self.calls.answer(&rpc_id, result.clone()));
        actions.extend(self.answered(&rpc_id, &result));
        Ok(actions)
    }

    pub(super) fn steer(&mut self, reason: &str) -> Option<Action> {
        let turn = self.turn.as_ref()?.id.as_ref()?;
        let params = json!({
            "threadId": self.about.thread,
            "expectedTurnId": turn,
            "input": [{"type": "text", "text": format!("{DENIAL}{reason}"), "text_elements": []}],
        });
        self.steered(&params);
        Some(self.calls.request(Call::Other, "turn/steer", params))
    }

    pub(super) fn steered(&mut self, params: &Value) {
        self.thread.prompt_sent();
        let text = params
            .pointer("/input/0/text")
            .and_then(Value::as_str)
            .unwrap_or_default();
        self.reason = text.strip_prefix(DENIAL).map(str::to_owned);
    }

    pub(super) fn answered(&mut self, rpc_id: &Value, result: &Value) -> Option<Action> {
        let found = self
            .approvals
            .iter()
            .find(|(_, waiting)| waiting.rpc_id == *rpc_id);
        let id = found.map(|(id, _)| id.clone())?;
        let outcome = self.approvals.remove(&id)?.outcome(result);
        let stops = matches!(
            str_at(result, "decision").or_else(|| str_at(result, "action")),
            Some("cancel")
        );
        if let (true, Some(turn)) = (stops, &mut self.turn) {
            turn.interrupted = true;
        }
        let message = self.reason.take().filter(|_| outcome == ApprovalOutcome::Denied);
        Some(Action::Resolved {
            approval_id: id,
            outcome,
            message,
            edited: None,
        })
    }

    pub(super) fn void_all(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.approvals)
            .into_keys()
            .map(void)
            .collect()
    }

    /// The request no longer waits. Ours are taken off the list when we answer, so this one was taken back.
    pub(super) fn resolved_elsewhere(&mut self, params: &Value) -> Vec<Action> {
        params
            .get("requestId")
            .map(|rpc_id| self.voided(rpc_id))
            .unwrap_or_default()
    }

    fn voided(&mut self, rpc_id: &Value) -> Vec<Action> {
        let over: Vec<String> = self
            .approvals
            .iter()
            .filter(|(_, waiting)| waiting.rpc_id == *rpc_id)
            .map(|(id, _)| id.clone())
            .collect();
        over.into_iter()
            .map(|id| {
                self.approvals.remove(&id);
                void(id)
            })
            .collect()
    }
}
