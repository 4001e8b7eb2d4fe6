//! Turns: prompts, interrupts, and how they end.

use super::{Call, CodexDriver, Phase, Turn};
use crate::driver::{Action, CommandError};
use crate::event::{Event, TurnStatus};
use crate::text::{api_error_text, array_at, status_in, str_at, string_at};
use serde_json::{Value, json};

impl CodexDriver {
    pub(super) fn prompt(&mut self, id: Option<String>, text: &str) -> Result<Vec<Action>, CommandError> {
        if self.phase != Phase::Ready {
            return Err(CommandError::WrongState("the agent is not ready yet"));
        }
        if self.turn.is_some() {
            return Err(CommandError::WrongState("a turn is running"));
        }
        let mut params = json!({
            "threadId": self.about.thread,
            "input": [{"type": "text", "text": text, "text_elements": []}],
        });
        if let Some(id) = id {
            params["clientUserMessageId"] = json!(id);
        }
        let told = self.prompted(&params);
        Ok(vec![self.calls.request(Call::Turn, "turn/start", params), told])
    }

    pub(super) fn prompted(&mut self, params: &Value) -> Action {
        self.turn = Some(Turn::default());
        self.interrupt_wanted = false;
        self.thread.prompt_sent();
        let text = params
            .pointer("/input/0/text")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        Action::Emit(Event::UserMessage {
            id: string_at(params, "clientUserMessageId"),
            text,
        })
    }

    pub(super) fn turn_began(&mut self, id: Option<&str>) -> Vec<Action> {
        let Some(id) = id else { return Vec::new() };
        let mut actions = Vec::new();
        let turn = self.turn.get_or_insert_with(|| {
            actions.push(Action::TurnBegan);
            Turn::default()
        });
        turn.id = Some(id.to_owned());
        if std::mem::take(&mut self.interrupt_wanted) {
            actions.extend(self.interrupt_now());
        }
        actions
    }

    pub(super) fn interrupt(&mut self) -> Result<Vec<Action>, CommandError> {
        if self.turn.is_none() {
            return Err(CommandError::WrongState("no turn is running"));
        }
        Ok(self.interrupt_now())
    }

    pub(super) fn interrupt_now(&mut self) -> Vec<Action> {
        let Some(turn) = &mut self.turn else {
            return Vec::new();
        };
        turn.interrupted = true;
        let Some(id) = turn.id.clone() else {
            self.interrupt_wanted = true;
            return Vec::new();
        };
        turn.left_running = self.thread.running_commands();
        let params = json!({"threadId": self.about.thread, "turnId": id});
        vec![self.calls.request(Call::Interrupt, "turn/interrupt", params)]
    }

    /// An interrupted command runs on by itself, so it is looked up and ended.
    pub(super) fn end_commands(&mut self, ids: &[String]) -> Vec<Action> {
        if ids.is_empty() {
            return Vec::new();
        }
        self.thread.to_end.extend(ids.iter().cloned());
        let params = json!({"threadId": self.about.thread});
        vec![
            self.calls
                .request(Call::Terminals, "thread/backgroundTerminals/list", params),
        ]
    }

    pub(super) fn terminals(&mut self, answer: &Value) -> Vec<Action> {
        let to_end = std::mem::take(&mut self.thread.to_end);
        let mut actions = Vec::new();
        for terminal in array_at(answer, "data") {
            let ours = str_at(terminal, "itemId").is_some_and(|item| to_end.iter().any(|id| id == item));
            if let (true, Some(process)) = (ours, terminal.get("processId")) {
                let params = json!({"threadId": self.about.thread, "processId": process});
                actions.push(
                    self.calls
                        .request(Call::Other, "thread/backgroundTerminals/terminate", params),
                );
            }
        }
        actions
    }

    pub(super) fn turn_ended(&mut self, turn: &Value) -> Vec<Action> {
        let ended = self.turn.take().unwrap_or_default();
        self.interrupt_wanted = false;
        let status = match str_at(turn, "status") {
            Some("completed") => TurnStatus::Completed,
            Some("interrupted") => TurnStatus::Interrupted,
            _ => TurnStatus::Failed,
        };
        let message = turn
            .pointer("/error/message")
            .and_then(Value::as_str)
            .map(api_error_text);
        let api_status = message.as_deref().and_then(status_in);
        let duration_ms = turn.get("durationMs").and_then(Value::as_u64);
        let mut actions = self.void_all();
        actions.extend(self.end_commands(&ended.left_running));
        actions.extend(self.thread.turn_ended().into_iter().map(Action::Emit));
        actions.push(Action::Emit(Event::TurnEnd {
            status,
            message,
            duration_ms,
            api_status,
        }));
        actions.push(Action::TurnEnded);
        actions
    }
}
