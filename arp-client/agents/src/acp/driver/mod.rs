//! The client's side of an ACP session as a state machine.

mod opening;
mod turns;

use super::Habits;
use super::choice::{Choices, Setting};
use super::permission::Waiting;
use super::updates::Updates;
use crate::agent::LaunchOptions;
use crate::card::ApprovalIds;
use crate::driver::{Action, Command, CommandError, Driver, Exit, PermissionMode};
use crate::event::{ApprovalOutcome, Event, ModelChoice, TurnStatus, Usage};
use crate::options::{self, BYPASS_FORBIDDEN};
use crate::rpc::{Calls, Message, RpcError, not_json};
use crate::text::{last_words, str_at, string_at};
use serde_json::Value;
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
    approval_ids: ApprovalIds,
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
            usage: options.used_before.clone(),
            options,
            calls: Calls::new(true),
            phase: Phase::New,
            session: None,
            choices: Choices::default(),
            turn: None,
            approvals: BTreeMap::new(),
            approval_ids: ApprovalIds::default(),
        }
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
            "session/new" | "session/load" => {
                self.session = string_at(params, "sessionId");
                if let Some(wanted) = params.pointer("/_meta/arp/wanted") {
                    self.options.model = string_at(wanted, "model");
                    self.options.permission_mode =
                        serde_json::from_value(wanted["mode"].clone()).unwrap_or_default();
                }
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

    fn mode(&self) -> Option<PermissionMode> {
        let current = self.choices.mode.current.as_deref()?;
        PermissionMode::ALL
            .into_iter()
            .find(|mode| self.choices.mode_named(*mode, &self.habits).as_deref() == Some(current))
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
                api_status: None,
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
        edited: None,
    }
}
