//! Events of a record, and what they change in the session object.

use super::Projection;
use crate::model::{Status, shortened};
use arp_agents::driver::Exit;
use arp_agents::event::{Event, TurnStatus};
use serde::Serialize;

/// Events of ours, beside those of the agents.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum OwnEvent<'a> {
    /// The session's process came or went.
    Status {
        status: Status,
        message: Option<&'a str>,
        exit_code: Option<i32>,
        exit_signal: Option<i32>,
    },
    /// A line of standard error.
    Stderr { text: &'a str },
}

/// Events of the record at hand.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) events: Vec<String>,
    /// Bytes of fragments since the last fold.
    pub(super) fragments: usize,
}

impl Projection {
    pub(super) fn emit_event(&mut self, event: &Event) {
        self.texts.note(event);
        match event {
            Event::Init {
                model,
                models,
                permission_mode,
                ..
            } => {
                if model.is_some() {
                    self.meta.model.clone_from(model);
                }
                if !models.is_empty() {
                    self.meta.models.clone_from(models);
                }
                if permission_mode.is_some() {
                    self.meta.agent_mode.clone_from(permission_mode);
                }
            }
            Event::Text { id, text, delta, .. } => {
                if let Some(line) = self.texts.last_line(id, text, *delta) {
                    self.meta.activity = Some(shortened(line, 140));
                }
            }
            Event::Thinking { .. } => self.set_activity("Thinking…"),
            Event::ToolCall { name, title, .. } => {
                let line = if title.is_empty() {
                    name.clone()
                } else {
                    format!("{name}: {title}")
                };
                self.set_activity(&line);
            }
            Event::Error { message, .. } => self.set_activity(message),
            Event::TurnEnd {
                status,
                message,
                api_status,
                ..
            } => {
                for whole in self.texts.finish() {
                    self.emit(&whole);
                }
                self.meta.last_turn = Some(*status);
                if *status == TurnStatus::Failed {
                    self.turn_failed(message.as_deref(), *api_status);
                }
            }
            Event::Usage(usage) => self.meta.usage = Some(usage.clone()),
            _ => {}
        }
        self.emit(event);
        let fragment = matches!(
            event,
            Event::Text { delta: true, .. }
                | Event::Thinking { delta: true, .. }
                | Event::ToolResult { delta: true, .. }
        );
        if fragment {
            self.told.fragments += self.told.events.last().map_or(0, String::len);
        }
    }

    pub(super) fn set_activity(&mut self, line: &str) {
        let line = line.lines().next().unwrap_or_default();
        self.meta.activity = Some(shortened(line, 140));
    }

    /// Tells readers, if they were not told when this record was read before.
    pub(super) fn emit(&mut self, event: &impl Serialize) {
        if !self.fresh {
            return;
        }
        match serde_json::to_string(event) {
            Ok(json) => self.told.events.push(json),
            Err(error) => tracing::error!(%error, "an event cannot be written as JSON"),
        }
    }

    /// The session stands somewhere else because of its process.
    pub(super) fn set_status(&mut self, status: Status, error: Option<String>, exit: Exit) {
        let failed = status == Status::Failed;
        self.meta.status = status;
        self.meta.exit_code = exit.code;
        self.meta.exit_signal = exit.signal;
        self.meta.ended_ms = (!status.is_live()).then_some(self.now_ms);
        if !status.is_live() {
            self.meta.turn = None;
        }
        self.emit(&OwnEvent::Status {
            status,
            message: error.as_deref(),
            exit_code: exit.code,
            exit_signal: exit.signal,
        });
        self.meta.error = error.filter(|_| failed);
    }
}
