//! From the first line to a session that takes prompts: the handshake, the thread, its settings.

use super::super::policy::{OPENING_SANDBOX, approval_policy, mode_text, sandbox_policy};
use super::{About, Call, CodexDriver, Phase, UNREAD};
use crate::agent::Resume;
use crate::driver::{Action, PermissionMode};
use crate::text::{array_at, string_at};
use serde_json::{Value, json};

impl CodexDriver {
    pub(super) fn start(&mut self) -> Action {
        self.phase = Phase::Starting;
        let params = json!({
            "clientInfo": {"name": "arpc", "title": "arp", "version": env!("CARGO_PKG_VERSION")},
            // Changing settings in mid-session and ending a command that was interrupted are "experimental".
            "capabilities": {"experimentalApi": true, "requestAttestation": false, "optOutNotificationMethods": UNREAD},
        });
        self.calls.request(Call::Initialize, "initialize", params)
    }

    pub(super) fn initialized(&mut self) -> Vec<Action> {
        let mut actions = vec![self.calls.notify("initialized", None)];
        if matches!(self.options.resume, Resume::Last { .. }) {
            let params = json!({
                "limit": 1,
                "cwd": self.options.project_path,
                "sourceKinds": ["cli", "vscode", "exec", "appServer"],
            });
            actions.push(self.calls.request(Call::FindLast, "thread/list", params));
        } else {
            let resume = self.options.resume.clone();
            actions.push(self.open(&resume));
        }
        actions.push(self.calls.request(Call::Models, "model/list", json!({})));
        actions
    }

    pub(super) fn found_last(&mut self, answer: &Value) -> Vec<Action> {
        let newest = array_at(answer, "data")
            .first()
            .and_then(|thread| string_at(thread, "id"));
        let fork = matches!(self.options.resume, Resume::Last { fork: true });
        match newest {
            Some(id) => vec![self.open(&Resume::Session { id, fork })],
            None => self.fatal("there is no earlier session in this directory to go on with".to_owned()),
        }
    }

    pub(super) fn open(&mut self, resume: &Resume) -> Action {
        let mut params = json!({
            "cwd": self.options.project_path,
            "approvalPolicy": approval_policy(self.options.permission_mode),
            "sandbox": OPENING_SANDBOX,
        });
        if let Some(model) = &self.options.model {
            params["model"] = json!(model);
        }
        let method = match resume {
            Resume::Session { id, fork } => {
                params["threadId"] = json!(id);
                params["excludeTurns"] = json!(true);
                if *fork { "thread/fork" } else { "thread/resume" }
            }
            _ => "thread/start",
        };
        self.calls.request(Call::Open, method, params)
    }

    pub(super) fn opened(&mut self, answer: &Value) -> Vec<Action> {
        let Some(id) = answer.pointer("/thread/id").and_then(Value::as_str) else {
            return self.fatal("Codex opened a thread without an id".to_owned());
        };
        self.about = About {
            thread: Some(id.to_owned()),
            model: string_at(answer, "model"),
            cwd: string_at(answer, "cwd"),
            mode: mode_text(&answer["approvalPolicy"], &answer["sandbox"]),
        };
        self.effort = answer.get("reasoningEffort").cloned().unwrap_or_default();
        vec![
            Action::SessionId(id.to_owned()),
            Action::Emit(self.init_event(Vec::new())),
            self.change_mode(self.options.permission_mode),
        ]
    }

    pub(super) fn change_mode(&mut self, mode: PermissionMode) -> Action {
        let params = json!({
            "threadId": self.about.thread,
            "approvalPolicy": approval_policy(mode),
            "sandboxPolicy": sandbox_policy(mode),
            "collaborationMode": self.collaboration(mode == PermissionMode::Plan, self.about.model.as_deref()),
        });
        self.update_settings(params)
    }

    pub(super) fn change_model(&mut self, model: &str) -> Action {
        let mut params = json!({"threadId": self.about.thread, "model": model});
        if self.planning {
            // Planning has a model of its own.
            params["collaborationMode"] = self.collaboration(true, Some(model));
        }
        self.update_settings(params)
    }

    /// Whether Codex plans with the user first, or goes to work.
    fn collaboration(&self, plan: bool, model: Option<&str>) -> Value {
        json!({
            "mode": if plan { "plan" } else { "default" },
            // No instructions stands for those that Codex has for the mode.
            "settings": {"model": model, "reasoning_effort": self.effort, "developer_instructions": null},
        })
    }

    fn update_settings(&mut self, params: Value) -> Action {
        let call = Call::Settings(params.clone());
        self.calls.request(call, "thread/settings/update", params)
    }

    /// What was asked for holds now; Codex itself only tells at the next turn.
    pub(super) fn settings_changed(&mut self, params: &Value) -> Vec<Action> {
        let mut actions = self.settings_told(params);
        if self.phase == Phase::Starting {
            self.phase = Phase::Ready;
            actions.push(Action::Ready);
        }
        actions
    }

    pub(super) fn settings_told(&mut self, settings: &Value) -> Vec<Action> {
        let before = self.about.clone();
        if let Some(model) = string_at(settings, "model") {
            self.about.model = Some(model);
        }
        if let Some(mode) = settings
            .pointer("/collaborationMode/mode")
            .and_then(Value::as_str)
        {
            self.planning = mode == "plan";
        }
        if let Some(mode) = mode_text(&settings["approvalPolicy"], &settings["sandboxPolicy"]) {
            self.about.mode = Some(if self.planning { "plan".to_owned() } else { mode });
        }
        if self.about == before {
            return Vec::new();
        }
        vec![Action::Emit(self.init_event(Vec::new()))]
    }
}
