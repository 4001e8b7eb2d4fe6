//! From the first line to a session that takes prompts: the handshake, and what was wanted of it.

use super::super::choice::{Choices, Setting};
use super::{AcpDriver, Call, PROTOCOL_VERSION, Phase};
use crate::agent::Resume;
use crate::driver::{Action, PermissionMode};
use crate::text::string_at;
use serde_json::{Value, json};
use std::collections::VecDeque;

impl AcpDriver {
    pub(super) fn start(&mut self) -> Action {
        self.phase = Phase::Starting;
        let params = json!({
            "protocolVersion": PROTOCOL_VERSION,
            // Files and commands are the agent's own business: it runs on the same machine.
            "clientCapabilities": {"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false},
            "clientInfo": {"name": "arpc", "title": "arp", "version": env!("CARGO_PKG_VERSION")},
        });
        self.calls.request(Call::Initialize, "initialize", params)
    }

    pub(super) fn initialized(&mut self, answer: &Value) -> Vec<Action> {
        let version = answer.get("protocolVersion").and_then(Value::as_u64);
        if version != Some(PROTOCOL_VERSION) {
            let theirs = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
            return self.fatal(format!(
                "{} speaks version {theirs} of the Agent Client Protocol, and version 1 is needed",
                self.agent
            ));
        }
        // What is to be set afterwards goes into the log with the request: a replay has to want the same.
        let wanted = json!({"mode": self.options.permission_mode, "model": self.options.model});
        let mut params =
            json!({"cwd": self.options.project_path, "mcpServers": [], "_meta": {"arp": {"wanted": wanted}}});
        let loads = answer.pointer("/agentCapabilities/loadSession");
        let never = (loads.and_then(Value::as_bool) != Some(true)).then(|| {
            format!(
                "{} cannot go on with an earlier session; start a new one",
                self.agent
            )
        });
        let mut actions: Vec<Action> = never.clone().map(Action::NeverResumes).into_iter().collect();
        let Resume::Session { id, .. } = &self.options.resume else {
            // Said at once, while nothing is lost yet.
            actions.push(self.calls.request(Call::Open, "session/new", params));
            return actions;
        };
        if let Some(why) = never {
            actions.extend(self.fatal(why));
            return actions;
        }
        params["sessionId"] = json!(id);
        self.session = Some(id.clone());
        vec![self.calls.request(Call::Open, "session/load", params)]
    }

    pub(super) fn opened(&mut self, answer: &Value) -> Vec<Action> {
        let loaded = self.session.is_some();
        let Some(id) = string_at(answer, "sessionId").or_else(|| self.session.clone()) else {
            return self.fatal(format!("{} opened a session without an id", self.agent));
        };
        self.session = Some(id.clone());
        self.choices = Choices::read(answer);
        let models = self.choices.model.offered.clone();
        let mut actions = vec![Action::SessionId(id), Action::Emit(self.init_event(models))];
        if self.habits.replays_after_load && loaded {
            self.phase = Phase::Replaying;
        } else {
            actions.extend(self.settle());
        }
        actions
    }

    /// Sets what the options want and the session has not.
    pub(super) fn settle(&mut self) -> Vec<Action> {
        let mut wanted = VecDeque::new();
        let mode = self.options.permission_mode;
        match self.choices.mode_named(mode, &self.habits) {
            Some(name) if self.choices.mode.current.as_deref() != Some(name.as_str()) => {
                wanted.push_back(Setting::Mode(name));
            }
            Some(_) => {}
            None if mode == PermissionMode::Default => {}
            None => return self.fatal(self.no_such_mode()),
        }
        if let Some(model) = self.options.model.clone() {
            if self.choices.model.offered.is_empty() {
                return self.fatal(format!(
                    "{} does not let its model be chosen; leave the field out",
                    self.agent
                ));
            }
            if self.choices.model.current.as_deref() != Some(model.as_str()) {
                wanted.push_back(Setting::Model(model));
            }
        }
        self.phase = Phase::Settling(wanted);
        self.settle_next()
    }

    pub(super) fn settle_next(&mut self) -> Vec<Action> {
        let Phase::Settling(wanted) = &mut self.phase else {
            return Vec::new();
        };
        match wanted.pop_front() {
            Some(setting) => vec![self.set(setting)],
            None => {
                self.phase = Phase::Ready;
                vec![Action::Ready]
            }
        }
    }

    pub(super) fn set(&mut self, setting: Setting) -> Action {
        let session = self.session.clone().unwrap_or_default();
        let (method, params) = match &setting {
            Setting::Mode(mode) => self.choices.set_mode(&session, mode),
            Setting::Model(model) => self.choices.set_model(&session, model),
        };
        self.calls.request(Call::Set(setting), method, params)
    }

    pub(super) fn was_set(&mut self, setting: Setting) -> Vec<Action> {
        let target = match &setting {
            Setting::Mode(_) => &mut self.choices.mode.current,
            Setting::Model(_) => &mut self.choices.model.current,
        };
        let (Setting::Mode(value) | Setting::Model(value)) = setting;
        let mut actions = Vec::new();
        if target.as_ref() != Some(&value) {
            *target = Some(value);
            actions.push(Action::Emit(self.init_event(Vec::new())));
        }
        actions.extend(self.settle_next());
        actions
    }
}
