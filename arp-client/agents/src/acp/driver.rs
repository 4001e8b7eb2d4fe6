//! The client's side of an ACP session as a state machine.

use super::Habits;
use super::choice::Choices;
use super::permission::{Waiting, cancelled};
use super::updates::Updates;
use crate::agent::{LaunchOptions, Resume};
use crate::driver::{Action, Command, CommandError, Decision, Driver, Exit, PermissionMode};
use crate::event::{ApprovalOutcome, Event, ModelChoice, TurnStatus, Usage};
use crate::options::{self, BYPASS_FORBIDDEN};
use crate::rpc::{Calls, Message, RpcError, not_json};
use crate::text::{last_words, str_at, string_at};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

/// The version of the protocol that is spoken here.
const PROTOCOL_VERSION: u64 = 1;

/// Codes of JSON-RPC.
const METHOD_NOT_FOUND: i64 = -32601;

/// The driver of one process that speaks ACP, with one session.
#[derive(Debug)]
pub(super) struct AcpDriver {
    agent: String,
    habits: Habits,
    options: LaunchOptions,
    calls: Calls<Call>,
    phase: Phase,
    session: Option<String>,
    choices: Choices,
    turn: Option<Turn>,
    approvals: BTreeMap<String, Waiting>,
    updates: Updates,
    usage: Usage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    New,
    /// In the handshake.
    Starting,
    /// The session was loaded; its history is still being told.
    Replaying,
    /// What was wanted of the new session is being set, one request after the other.
    Settling(VecDeque<Setting>),
    Ready,
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setting {
    Mode(String),
    Model(String),
}

/// A request of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Initialize,
    Open,
    Prompt,
    Set(Setting),
    Other,
}

#[derive(Debug, Default)]
struct Turn {
    interrupted: bool,
}

impl AcpDriver {
    pub(super) fn new(agent: &str, habits: Habits, options: LaunchOptions) -> Self {
        Self {
            agent: agent.to_owned(),
            updates: Updates::new(habits.clone(), options.run),
            habits,
            options,
            calls: Calls::new(true),
            phase: Phase::New,
            session: None,
            choices: Choices::default(),
            turn: None,
            approvals: BTreeMap::new(),
            usage: Usage::default(),
        }
    }

    // The handshake.

    fn start(&mut self) -> Action {
        self.phase = Phase::Starting;
        let params = json!({
            "protocolVersion": PROTOCOL_VERSION,
            // Files and commands are the agent's own business: it runs on the same machine.
            "clientCapabilities": {"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false},
            "clientInfo": {"name": "arpc", "title": "arp", "version": env!("CARGO_PKG_VERSION")},
        });
        self.calls.request(Call::Initialize, "initialize", params)
    }

    fn initialized(&mut self, answer: &Value) -> Vec<Action> {
        let version = answer.get("protocolVersion").and_then(Value::as_u64);
        if version != Some(PROTOCOL_VERSION) {
            let theirs = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
            return self.fatal(format!(
                "{} speaks version {theirs} of the Agent Client Protocol, and version 1 is needed",
                self.agent
            ));
        }
        let mut params = json!({"cwd": self.options.project_path, "mcpServers": []});
        let Resume::Session { id, .. } = &self.options.resume else {
            return vec![self.calls.request(Call::Open, "session/new", params)];
        };
        if answer
            .pointer("/agentCapabilities/loadSession")
            .and_then(Value::as_bool)
            != Some(true)
        {
            return self.fatal(format!(
                "{} cannot go on with an earlier session; start a new one",
                self.agent
            ));
        }
        params["sessionId"] = json!(id);
        self.session = Some(id.clone());
        vec![self.calls.request(Call::Open, "session/load", params)]
    }

    fn opened(&mut self, answer: &Value) -> Vec<Action> {
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
    fn settle(&mut self) -> Vec<Action> {
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

    fn settle_next(&mut self) -> Vec<Action> {
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

    fn set(&mut self, setting: Setting) -> Action {
        let session = self.session.clone().unwrap_or_default();
        let (method, params) = match &setting {
            Setting::Mode(mode) => self.choices.set_mode(&session, mode),
            Setting::Model(model) => self.choices.set_model(&session, model),
        };
        self.calls.request(Call::Set(setting), method, params)
    }

    fn was_set(&mut self, setting: Setting) -> Vec<Action> {
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

    // Turns.

    fn prompt(&mut self, id: Option<String>, text: &str) -> Result<Vec<Action>, CommandError> {
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

    fn prompted(&mut self, params: &Value) -> Action {
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

    fn interrupt(&mut self) -> Result<Vec<Action>, CommandError> {
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

    fn turn_ended(&mut self, outcome: Result<Value, RpcError>) -> Vec<Action> {
        let turn = self.turn.take().unwrap_or_default();
        let mut actions = self.void_all();
        actions.extend(self.updates.turn_ended().into_iter().map(Action::Emit));
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
        }));
        actions.push(Action::TurnEnded);
        actions
    }

    /// Adds up the tokens of the turns, where the agent tells them.
    fn count(&mut self, answer: &Value) -> Option<Action> {
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

    // What the agent asks and tells.

    fn asked(&mut self, rpc_id: Value, method: &str, params: &Value) -> Vec<Action> {
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
        let id = format!("r{}-{}", self.options.run, rpc_id.to_string().trim_matches('"'));
        let call = params
            .pointer("/toolCall/toolCallId")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let waiting = Waiting::new(rpc_id, call, params);
        let (events, approval) = self
            .updates
            .permission(id.clone(), params, waiting.can_allow_session());
        self.approvals.insert(id, waiting);
        let mut actions: Vec<Action> = events.into_iter().map(Action::Emit).collect();
        actions.push(Action::Ask(approval));
        actions
    }

    fn decide(&mut self, approval_id: &str, decision: &Decision) -> Result<Vec<Action>, CommandError> {
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

    fn answered(&mut self, rpc_id: &Value, result: &Value) -> Vec<Action> {
        let found = self
            .approvals
            .iter()
            .find(|(_, waiting)| waiting.rpc_id == *rpc_id)
            .map(|(id, _)| id.clone());
        let Some((id, waiting)) = found.and_then(|id| self.approvals.remove_entry(&id)) else {
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
        }];
        if outcome == ApprovalOutcome::Denied {
            actions.extend(self.updates.denied(&waiting.call).into_iter().map(Action::Emit));
        }
        actions
    }

    fn update(&mut self, params: &Value) -> Vec<Action> {
        let update = params.get("update").unwrap_or(&Value::Null);
        let sort = str_at(update, "sessionUpdate").unwrap_or_default();
        match (&self.phase, sort) {
            (Phase::Replaying, "available_commands_update") => return self.settle(),
            // History that is being loaded was told when it happened.
            (Phase::Starting | Phase::Replaying, _) => return Vec::new(),
            _ => {}
        }
        let told = |about: Option<String>, target: &mut Option<String>| {
            let news = about.is_some() && *target != about;
            if news {
                *target = about;
            }
            news
        };
        let news = match sort {
            "current_mode_update" => told(string_at(update, "currentModeId"), &mut self.choices.mode.current),
            "config_option_update" => {
                let now = Choices::read(update);
                let mode = told(now.mode.current, &mut self.choices.mode.current);
                told(now.model.current, &mut self.choices.model.current) || mode
            }
            _ => {
                return self
                    .updates
                    .update(update)
                    .into_iter()
                    .map(Action::Emit)
                    .collect();
            }
        };
        if news {
            vec![Action::Emit(self.init_event(Vec::new()))]
        } else {
            Vec::new()
        }
    }

    fn answer(&mut self, call: Call, outcome: Result<Value, RpcError>) -> Vec<Action> {
        match (call, outcome) {
            (Call::Initialize, Ok(answer)) => self.initialized(&answer),
            (Call::Open, Ok(answer)) => self.opened(&answer),
            (Call::Set(setting), Ok(_)) => self.was_set(setting),
            (Call::Prompt, outcome) => self.turn_ended(outcome),
            (Call::Initialize | Call::Open, Err(error)) => self.fatal(error.message),
            (Call::Set(_), Err(error)) if self.phase != Phase::Ready => self.fatal(error.message),
            (Call::Set(_), Err(error)) => {
                vec![Action::Emit(Event::Error {
                    message: error.message,
                    retrying: false,
                })]
            }
            (Call::Other, _) => Vec::new(),
        }
    }

    // Helpers.

    fn ready(&self) -> Result<(), CommandError> {
        if self.phase == Phase::Ready {
            Ok(())
        } else {
            Err(CommandError::WrongState("the agent is not ready yet"))
        }
    }

    fn no_such_mode(&self) -> String {
        format!(
            "{} has no such permission mode; {}",
            self.agent,
            self.choices.mode.listed()
        )
    }

    fn void_all(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.approvals)
            .into_keys()
            .map(void)
            .collect()
    }

    fn init_event(&self, models: Vec<ModelChoice>) -> Event {
        Event::Init {
            agent_session_id: self.session.clone(),
            model: self.choices.model.current.clone(),
            cwd: Some(self.options.project_path.to_string_lossy().into_owned()),
            permission_mode: self.choices.mode.current.clone(),
            models,
        }
    }

    fn fatal(&mut self, why: String) -> Vec<Action> {
        self.phase = Phase::Over;
        vec![Action::Fatal(why)]
    }
}

impl Driver for AcpDriver {
    fn on_line(&mut self, line: &str) -> Vec<Action> {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            return not_json(line);
        };
        match Message::read(message) {
            Some(Message::Request { id, method, params }) => self.asked(id, &method, &params),
            Some(Message::Notification { method, params }) if method == "session/update" => {
                self.update(&params)
            }
            Some(Message::Answer { id, outcome }) => match self.calls.answered(id) {
                Some(call) => self.answer(call, outcome),
                None => Vec::new(),
            },
            Some(Message::Notification { .. }) | None => Vec::new(),
        }
    }

    fn command(&mut self, command: Command) -> Result<Vec<Action>, CommandError> {
        match command {
            Command::Start if self.phase == Phase::New => Ok(vec![self.start()]),
            Command::Start => Err(CommandError::WrongState("the session was started already")),
            Command::Prompt { id, text } => self.prompt(id, &text),
            Command::Interrupt => self.interrupt(),
            Command::Decide {
                approval_id,
                decision,
            } => self.decide(&approval_id, &decision),
            Command::SetModel(model) => {
                self.ready()?;
                options::check_name("model", &model)
                    .map_err(|error| CommandError::Unsupported(error.to_string()))?;
                if self.choices.model.offered.is_empty() {
                    let text = format!("{} does not let its model be changed in mid-session", self.agent);
                    return Err(CommandError::Unsupported(text));
                }
                Ok(vec![self.set(Setting::Model(model))])
            }
            Command::SetPermissionMode(PermissionMode::BypassPermissions) if !self.options.allow_bypass => {
                Err(CommandError::Forbidden(BYPASS_FORBIDDEN.to_owned()))
            }
            Command::SetPermissionMode(mode) => {
                self.ready()?;
                let name = self.choices.mode_named(mode, &self.habits);
                let name = name.ok_or_else(|| CommandError::Unsupported(self.no_such_mode()))?;
                Ok(vec![self.set(Setting::Mode(name))])
            }
        }
    }

    fn replay_sent(&mut self, line: &str) -> Vec<Action> {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            return Vec::new();
        };
        let params = line.get("params").unwrap_or(&Value::Null);
        let Some(method) = str_at(&line, "method") else {
            let result = line.get("result").unwrap_or(&Value::Null);
            return line
                .get("id")
                .map(|id| self.answered(id, result))
                .unwrap_or_default();
        };
        let mut actions = Vec::new();
        let value = || {
            ["modeId", "modelId", "value"]
                .iter()
                .find_map(|key| string_at(params, key))
                .unwrap_or_default()
        };
        let call = match method {
            "initialize" => {
                self.phase = Phase::Starting;
                Call::Initialize
            }
            "session/new" => Call::Open,
            "session/load" => {
                self.session = string_at(params, "sessionId");
                Call::Open
            }
            "session/prompt" => {
                if !matches!(self.phase, Phase::Ready | Phase::Replaying) {
                    // Somebody else's log, whose session was not made ready in the way that this one would.
                    self.phase = Phase::Ready;
                    actions.push(Action::Ready);
                }
                actions.push(self.prompted(params));
                Call::Prompt
            }
            "session/set_mode" => Call::Set(Setting::Mode(value())),
            "session/set_model" => Call::Set(Setting::Model(value())),
            "session/set_config_option" => Call::Set(self.choices.setting(params, value())),
            "session/cancel" => {
                if let Some(turn) = &mut self.turn {
                    turn.interrupted = true;
                }
                return Vec::new();
            }
            _ => Call::Other,
        };
        if let Some(id) = line.get("id").and_then(Value::as_u64) {
            self.calls.sent(id, call);
        }
        actions
    }

    fn on_exit(&mut self, _exit: Exit, stderr_tail: &str) -> Vec<Action> {
        let mut actions = self.void_all();
        let why = || last_words(stderr_tail).unwrap_or_else(|| format!("{} ended unexpectedly", self.agent));
        if !matches!(self.phase, Phase::Ready | Phase::Over) {
            actions.push(Action::Fatal(why()));
        }
        if let Some(turn) = self.turn.take() {
            actions.extend(self.updates.turn_ended().into_iter().map(Action::Emit));
            let status = if turn.interrupted {
                TurnStatus::Interrupted
            } else {
                TurnStatus::Failed
            };
            let message = (status == TurnStatus::Failed).then(why);
            actions.push(Action::Emit(Event::TurnEnd {
                status,
                message,
                duration_ms: None,
            }));
            actions.push(Action::TurnEnded);
        }
        self.phase = Phase::Over;
        actions
    }
}

fn void(approval_id: String) -> Action {
    Action::Resolved {
        approval_id,
        outcome: ApprovalOutcome::Void,
        message: None,
    }
}
