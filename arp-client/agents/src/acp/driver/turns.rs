//! Turns: prompts, what is asked on the way, and how they end.

use super::super::permission::{Waiting, cancelled};
use super::{AcpDriver, Call, METHOD_NOT_FOUND, Turn, void};
use crate::driver::{Action, CommandError, Decision};
use crate::event::{ApprovalOutcome, Event, TurnStatus};
use crate::rpc::RpcError;
use crate::text::str_at;
use serde_json::{Value, json};

impl AcpDriver {
    pub(super) fn prompt(&mut self, id: Option<String>, text: &str) -> Result<Vec<Action>, CommandError> {
        self.ready()?;
        if self.turn.is_some() {
            return Err(CommandError::WrongState("a turn is running"));
        }
        let mut params = json!({"sessionId": self.session, "prompt": [{"type": "text", "text": text}]});
        if let Some(id) = id {
            params["_meta"] = json!({"arp": {"id": id}});
        }
        let told = self.prompted(&params);
        Ok(vec![
            self.calls.request(Call::Prompt, "session/prompt", params),
            told,
        ])
    }

    pub(super) fn prompted(&mut self, params: &Value) -> Action {
        self.turn = Some(Turn::default());
        let id = params
            .pointer("/_meta/arp/id")
            .and_then(Value::as_str)
            .map(str::to_owned);
        let text = params
            .pointer("/prompt/0/text")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        Action::Emit(Event::UserMessage { id, text })
    }

    pub(super) fn interrupt(&mut self) -> Result<Vec<Action>, CommandError> {
        let Some(turn) = &mut self.turn else {
            return Err(CommandError::WrongState("no turn is running"));
        };
        turn.interrupted = true;
        let mut actions = vec![
            self.calls
                .notify("session/cancel", Some(json!({"sessionId": self.session}))),
        ];
        // The protocol wants every request that waits to be answered as cancelled.
        for (id, waiting) in std::mem::take(&mut self.approvals) {
            actions.push(self.calls.answer(&waiting.rpc_id, cancelled()));
            actions.push(void(id));
        }
        Ok(actions)
    }

    pub(super) fn turn_ended(&mut self, outcome: Result<Value, RpcError>) -> Vec<Action> {
        let turn = self.turn.take().unwrap_or_default();
        let mut actions = self.void_all();
        actions.extend(self.updates.turn_ended().into_iter().map(Action::Emit));
        let api_status = outcome.as_ref().err().and_then(RpcError::api_status);
        let (status, message) = match outcome {
            Ok(answer) => {
                actions.extend(self.count(&answer));
                match str_at(&answer, "stopReason") {
                    Some("cancelled") => (TurnStatus::Interrupted, None),
                    Some("refusal") => (TurnStatus::Failed, Some("the model refused to answer".to_owned())),
                    Some("max_tokens") => (
                        TurnStatus::Failed,
                        Some("the answer reached its limit of tokens".to_owned()),
                    ),
                    Some("max_turn_requests") => (
                        TurnStatus::Failed,
                        Some("the turn reached its limit of model requests".to_owned()),
                    ),
                    _ => (TurnStatus::Completed, None),
                }
            }
            Err(_) if turn.interrupted => (TurnStatus::Interrupted, None),
            Err(error) => (TurnStatus::Failed, Some(error.message)),
        };
        actions.push(Action::Emit(Event::TurnEnd {
            status,
            message,
            duration_ms: None,
            api_status: api_status.filter(|_| status == TurnStatus::Failed),
        }));
        actions.push(Action::TurnEnded);
        actions
    }

    /// Adds up the tokens of the turns, where the agent tells them.
    pub(super) fn count(&mut self, answer: &Value) -> Option<Action> {
        let quota = answer
            .pointer("/_meta/quota/token_count")
            .or_else(|| answer.get("usage"))?;
        let number = |keys: [&str; 2]| keys.iter().find_map(|key| quota.get(key)).and_then(Value::as_u64);
        let add = |sum: &mut Option<u64>, more: Option<u64>| {
            if let Some(more) = more {
                *sum = Some(sum.unwrap_or(0).saturating_add(more));
            }
        };
        add(
            &mut self.usage.input_tokens,
            number(["input_tokens", "inputTokens"]),
        );
        add(
            &mut self.usage.output_tokens,
            number(["output_tokens", "outputTokens"]),
        );
        add(
            &mut self.usage.cached_input_tokens,
            number(["cached_read_tokens", "cachedReadTokens"]),
        );
        Some(Action::Emit(Event::Usage(self.usage.clone())))
    }

    pub(super) fn asked(&mut self, rpc_id: Value, method: &str, params: &Value) -> Vec<Action> {
        if method != "session/request_permission" {
            return vec![self.calls.refuse(
                &rpc_id,
                METHOD_NOT_FOUND,
                "this client does not support the request",
            )];
        }
        if self.turn.as_ref().is_some_and(|turn| turn.interrupted) {
            return vec![self.calls.answer(&rpc_id, cancelled())];
        }
        let wanted = format!("r{}-{}", self.options.run, rpc_id.to_string().trim_matches('"'));
        let id = self.approval_ids.give(wanted);
        // One that asks again under the same id can no longer be answered.
        let again = self.waiting_as(&rpc_id);
        let mut actions: Vec<Action> = again
            .and_then(|id| self.approvals.remove_entry(&id))
            .map(|(id, _)| void(id))
            .into_iter()
            .collect();
        let call = params
            .pointer("/toolCall/toolCallId")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let waiting = Waiting::new(rpc_id, call, params);
        let (events, approval) = self
            .updates
            .permission(id.clone(), params, waiting.session_grants());
        self.approvals.insert(id, waiting);
        actions.extend(events.into_iter().map(Action::Emit));
        actions.push(Action::Ask(approval));
        actions
    }

    pub(super) fn decide(
        &mut self,
        approval_id: &str,
        decision: &Decision,
    ) -> Result<Vec<Action>, CommandError> {
        let unknown = || CommandError::UnknownApproval(approval_id.to_owned());
        let waiting = self.approvals.get(approval_id).ok_or_else(unknown)?;
        let mut result = waiting.answer(decision, &self.agent)?;
        let rpc_id = waiting.rpc_id.clone();
        if let Decision::Deny {
            message: Some(message),
            ..
        } = decision
        {
            // The protocol has no place for it; this one is free for all, and keeps it in the log.
            result["_meta"] = json!({"arp": {"message": message}});
        }
        let mut actions = vec![self.calls.answer(&rpc_id, result.clone())];
        actions.extend(self.answered(&rpc_id, &result));
        if matches!(decision, Decision::Deny { interrupt: true, .. }) && self.turn.is_some() {
            actions.extend(self.interrupt()?);
        }
        Ok(actions)
    }

    pub(super) fn answered(&mut self, rpc_id: &Value, result: &Value) -> Vec<Action> {
        let Some((id, waiting)) = self
            .waiting_as(rpc_id)
            .and_then(|id| self.approvals.remove_entry(&id))
        else {
            return Vec::new();
        };
        let outcome = waiting.outcome(result);
        let message = result
            .pointer("/_meta/arp/message")
            .and_then(Value::as_str)
            .map(str::to_owned);
        let mut actions = vec![Action::Resolved {
            approval_id: id,
            outcome,
            message,
            edited: None,
        }];
        if outcome == ApprovalOutcome::Denied {
            actions.extend(self.updates.denied(&waiting.call).into_iter().map(Action::Emit));
        }
        actions
    }

    /// The approval that waits under a request's id.
    fn waiting_as(&self, rpc_id: &Value) -> Option<String> {
        let found = self
            .approvals
            .iter()
            .find(|(_, waiting)| waiting.rpc_id == *rpc_id);
        found.map(|(id, _)| id.clone())
    }

    pub(super) fn void_all(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.approvals)
            .into_keys()
            .map(void)
            .collect()
    }
}
