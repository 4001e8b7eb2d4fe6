//! Turns: prompts, decisions, and how they end.

use super::report::{errors_of, usage_of};
use super::{ClaudeDriver, Phase, Stage, Turn};
use crate::driver::{Action, CommandError, Decision};
use crate::event::{Event, TurnStatus};
use crate::text::{str_at, string_at};
use serde_json::{Value, json};

impl ClaudeDriver {
    pub(super) fn prompt(&mut self, id: Option<String>, text: String) -> Result<Vec<Action>, CommandError> {
        if self.phase != Phase::Ready {
            return Err(CommandError::WrongState("the agent is not ready yet"));
        }
        if self.turn.is_some() {
            return Err(CommandError::WrongState("a turn is running"));
        }
        // Claude drops a prompt whose uuid it has seen, in this process or in the history it resumed, so this
        // one must be new in the world; the caller's own id travels beside it.
        let uuid = uuid::Uuid::new_v4().to_string();
        let mut line = json!({
            "type": "user",
            "uuid": uuid,
            "message": {"role": "user", "content": [{"type": "text", "text": text}]},
        });
        if let Some(id) = &id {
            line["arp_id"] = json!(id);
        }
        let mut actions = vec![Action::Send(line.to_string())];
        actions.extend(self.prompted(&line));
        Ok(actions)
    }

    pub(super) fn prompted(&mut self, line: &Value) -> Vec<Action> {
        let uuid = string_at(line, "uuid");
        let id = string_at(line, "arp_id").or_else(|| uuid.clone());
        let text = line
            .pointer("/message/content/0/text")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        self.turn = Some(Turn {
            prompt: uuid.unwrap_or_default(),
            stage: Stage::Sent,
        });
        self.interrupting = false;
        vec![Action::Emit(Event::UserMessage { id, text })]
    }

    pub(super) fn decide(
        &mut self,
        approval_id: &str,
        decision: &Decision,
    ) -> Result<Vec<Action>, CommandError> {
        let line = self.approvals.answer(approval_id, decision)?;
        let mut actions = vec![Action::Send(line.to_string())];
        actions.extend(self.decided(&line));
        Ok(actions)
    }

    /// An answer was sent, now or in the log that is replayed.
    pub(super) fn decided(&mut self, line: &Value) -> Vec<Action> {
        if line
            .pointer("/response/response/interrupt")
            .and_then(Value::as_bool)
            == Some(true)
        {
            self.interrupting = true;
        }
        let Some(answered) = self.approvals.answered(line) else {
            return Vec::new();
        };
        let mut actions = vec![answered.action];
        if let (Some(edited), Some(call)) = (answered.edited, answered.tool_call_id) {
            // The card shows what runs; what was asked stands in the decision.
            actions.extend(self.lines.call_edited(&call, edited.ran).map(Action::Emit));
        }
        actions
    }

    pub(super) fn lifecycle(&mut self, line: &Value) {
        if let Some(turn) = &mut self.turn
            && str_at(line, "command_uuid") == Some(turn.prompt.as_str())
        {
            match str_at(line, "state") {
                Some("queued") => turn.stage = Stage::Queued,
                Some("started") => turn.stage = Stage::Started,
                _ => {}
            }
        }
    }

    pub(super) fn prompt_is_worked_on(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| turn.stage != Stage::Queued)
    }

    pub(super) fn result(&mut self, line: &Value) -> Vec<Action> {
        if self.phase == Phase::Starting {
            let why = errors_of(line).unwrap_or_else(|| "Claude ended before it was ready".to_owned());
            return self.fatal(why);
        }
        self.lines.turn_ended();
        let mut actions = vec![Action::Emit(Event::Usage(usage_of(line)))];
        // Older versions report an interrupted turn as an error in the subtype alone.
        let failed = line.get("is_error").and_then(Value::as_bool).unwrap_or(false)
            || str_at(line, "subtype").is_some_and(|subtype| subtype.starts_with("error"));
        let aborted = str_at(line, "terminal_reason").is_some_and(|reason| reason.starts_with("aborted"));
        let status = match () {
            () if aborted || (failed && self.interrupting) => TurnStatus::Interrupted,
            () if failed => TurnStatus::Failed,
            () => TurnStatus::Completed,
        };
        let message = (status == TurnStatus::Failed)
            .then(|| errors_of(line).or_else(|| string_at(line, "result")))
            .flatten();
        actions.push(Action::Emit(Event::TurnEnd {
            status,
            message,
            duration_ms: line.get("duration_ms").and_then(Value::as_u64),
            api_status: line
                .get("api_error_status")
                .and_then(Value::as_u64)
                .and_then(|status| u16::try_from(status).ok()),
        }));
        // A turn of Claude's own that ends while a prompt waits behind it is not the end of that prompt's.
        let waits = self.turn.as_ref().is_some_and(|turn| turn.stage == Stage::Queued);
        self.own_turn = false;
        self.interrupting = false;
        if !waits {
            self.turn = None;
            actions.push(Action::TurnEnded);
        }
        actions
    }
}
