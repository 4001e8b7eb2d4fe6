//! Codex's side of a session as a state machine: the handshake, turns, and what is asked on the way.

mod asking;
mod opening;
mod turns;

use super::approvals::Approvals;
use super::policy::opened_with;
use super::thread::Thread;
use crate::agent::LaunchOptions;
use crate::card::ApprovalIds;
use crate::driver::{Action, Command, CommandError, Driver, Exit, PermissionMode};
use crate::event::{ApprovalOutcome, Event, ModelChoice, TurnStatus};
use crate::options::{self, BYPASS_FORBIDDEN};
use crate::rpc::{Calls, Message, RpcError, not_json};
use crate::text::{api_error_text, array_at, last_words, str_at, string_at};
use serde_json::{Value, json};

/// Codes of JSON-RPC.
const METHOD_NOT_FOUND: i64 = -32601;

/// What goes in front of the reason of a denial.
const DENIAL: &str = "I do not allow that: ";

/// Notifications that nobody here reads; Codex does not send them when asked so.
const UNREAD: [&str; 4] = [
    "account/rateLimits/updated",
    "remoteControl/status/changed",
    "thread/readState/changed",
    "turn/diff/updated",
];

/// The driver of one `codex app-server` process with one thread.
#[derive(Debug)]
pub(super) struct CodexDriver {
    options: LaunchOptions,
    calls: Calls<Call>,
    phase: Phase,
    about: About,
    /// The thread's effort of reasoning, which a change of mode must not change.
    effort: Value,
    /// Is Codex in its plan mode?
    planning: bool,
    turn: Option<Turn>,
    /// An interrupt that has to wait until the turn has begun: before, Codex knows of none.
    interrupt_wanted: bool,
    /// The reason of the denial that is sent next.
    reason: Option<String>,
    approvals: Approvals,
    approval_ids: ApprovalIds,
    thread: Thread,
    /// Was the last line a fragment?
    fragment: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Starting,
    Ready,
    Over,
}

/// A request of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Initialize,
    /// Which is the newest thread of the directory?
    FindLast,
    /// Start, resume or fork.
    Open,
    /// Model or mode: the parameters that were sent.
    Settings(Value),
    Models,
    Turn,
    Interrupt,
    /// Which commands run still?
    Terminals,
    Other,
}

/// What the `init` event tells.
#[derive(Debug, Clone, Default, PartialEq)]
struct About {
    thread: Option<String>,
    model: Option<String>,
    cwd: Option<String>,
    mode: Option<String>,
}

#[derive(Debug, Default)]
struct Turn {
    id: Option<String>,
    interrupted: bool,
    /// Commands that ran when the turn was interrupted, and are to be ended.
    left_running: Vec<String>,
}

impl CodexDriver {
    pub(super) fn new(options: &LaunchOptions) -> Self {
        Self {
            options: options.clone(),
            calls: Calls::new(false),
            phase: Phase::New,
            about: About::default(),
            effort: Value::Null,
            planning: false,
            turn: None,
            interrupt_wanted: false,
            reason: None,
            approvals: Approvals::default(),
            approval_ids: ApprovalIds::default(),
            thread: Thread::default(),
            fragment: false,
        }
    }

    fn answer(&mut self, call: Call, outcome: Result<Value, RpcError>) -> Vec<Action> {
        match (call, outcome) {
            (Call::Initialize, Ok(_)) => self.initialized(),
            (Call::FindLast, Ok(answer)) => self.found_last(&answer),
            (Call::Open, Ok(answer)) => self.opened(&answer),
            (Call::Settings(params), Ok(_)) => self.settings_changed(&params),
            (Call::Models, Ok(answer)) => {
                let models = models(&answer);
                if models.is_empty() {
                    Vec::new()
                } else {
                    vec![Action::Emit(self.init_event(models))]
                }
            }
            (Call::Terminals, Ok(answer)) => self.terminals(&answer),
            (Call::Initialize | Call::FindLast | Call::Open, Err(error)) => self.fatal(error.message),
            (Call::Settings(_), Err(error)) if self.phase == Phase::Starting => self.fatal(error.message),
            (Call::Turn, Err(error)) => {
                self.turn_ended(&json!({"status": "failed", "error": {"message": error.message}}))
            }
            (Call::Settings(_), Err(error)) => {
                vec![Action::Emit(Event::Error {
                    message: error.message,
                    retrying: false,
                })]
            }
            // The answer to a turn comes before the turn can be interrupted; its beginning is told.
            (Call::Turn, Ok(_))
            | (Call::Models | Call::Terminals, Err(_))
            | (Call::Interrupt | Call::Other, _) => Vec::new(),
        }
    }

    fn notification(&mut self, method: &str, params: &Value) -> Vec<Action> {
        let thread = str_at(params, "threadId");
        // A thread of a sub-agent, whose items show inside the call that began it.
        let foreign = thread.filter(|id| Some(*id) != self.about.thread.as_deref());
        if method == "serverRequest/resolved" {
            return self.resolved_elsewhere(params);
        }
        if let Some(foreign) = foreign {
            return self
                .thread
                .foreign(foreign, method, params)
                .into_iter()
                .map(Action::Emit)
                .collect();
        }
        match method {
            "turn/started" => self.turn_began(params.pointer("/turn/id").and_then(Value::as_str)),
            "turn/completed" => self.turn_ended(params.get("turn").unwrap_or(&Value::Null)),
            "thread/settings/updated" => {
                self.settings_told(params.get("threadSettings").unwrap_or(&Value::Null))
            }
            "error" => {
                // The last one is told by the end of the turn.
                let retrying = params.get("willRetry").and_then(Value::as_bool).unwrap_or(false);
                let message = params
                    .pointer("/error/message")
                    .and_then(Value::as_str)
                    .map(api_error_text);
                let message = message.filter(|_| retrying);
                message
                    .map(|message| Action::Emit(Event::Error { message, retrying }))
                    .into_iter()
                    .collect()
            }
            _ => self
                .thread
                .told(method, params, None)
                .into_iter()
                .map(Action::Emit)
                .collect(),
        }
    }

    fn init_event(&self, models: Vec<ModelChoice>) -> Event {
        let About {
            thread,
            model,
            cwd,
            mode,
        } = self.about.clone();
        Event::Init {
            agent_session_id: thread,
            model,
            cwd,
            permission_mode: mode,
            models,
        }
    }

    fn fatal(&mut self, why: String) -> Vec<Action> {
        self.phase = Phase::Over;
        vec![Action::Fatal(why)]
    }
}

impl Driver for CodexDriver {
    fn on_line(&mut self, line: &str) -> Vec<Action> {
        self.fragment = false;
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            return not_json(line);
        };
        match Message::read(message) {
            Some(Message::Request { id, method, params }) => self.asked(id, &method, params),
            Some(Message::Notification { method, params }) => {
                self.fragment = method.ends_with("/delta") || method.ends_with("Delta");
                self.notification(&method, &params)
            }
            Some(Message::Answer { id, outcome }) => match self.calls.answered(id) {
                Some(call) => self.answer(call, outcome),
                None => Vec::new(),
            },
            None => Vec::new(),
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
            Command::SetModel(_) | Command::SetPermissionMode(_) if self.phase != Phase::Ready => {
                Err(CommandError::WrongState("the agent is not ready yet"))
            }
            Command::SetModel(model) => {
                options::check_name("model", &model)
                    .map_err(|error| CommandError::Unsupported(error.to_string()))?;
                Ok(vec![self.change_model(&model)])
            }
            Command::SetPermissionMode(PermissionMode::BypassPermissions) if !self.options.allow_bypass => {
                Err(CommandError::Forbidden(BYPASS_FORBIDDEN.to_owned()))
            }
            Command::SetPermissionMode(mode) => Ok(vec![self.change_mode(mode)]),
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
                .and_then(|id| self.answered(id, result))
                .into_iter()
                .collect();
        };
        let Some(id) = line.get("id").and_then(Value::as_u64) else {
            return Vec::new();
        };
        let mut actions = Vec::new();
        let call = match method {
            "initialize" => {
                self.phase = Phase::Starting;
                Call::Initialize
            }
            "thread/list" => Call::FindLast,
            "thread/start" | "thread/resume" | "thread/fork" => {
                if let Some(mode) = opened_with(params, self.options.permission_mode) {
                    self.options.permission_mode = mode;
                }
                Call::Open
            }
            "thread/settings/update" => Call::Settings(params.clone()),
            "model/list" => Call::Models,
            "turn/start" => {
                if self.phase != Phase::Ready {
                    // Somebody else's log, whose session was not made ready in the way that this one would.
                    self.phase = Phase::Ready;
                    actions.push(Action::Ready);
                }
                actions.push(self.prompted(params));
                Call::Turn
            }
            "turn/steer" => {
                self.steered(params);
                Call::Other
            }
            "turn/interrupt" => {
                self.interrupt_wanted = false;
                let running = self.thread.running_commands();
                if let Some(turn) = &mut self.turn {
                    turn.interrupted = true;
                    turn.left_running = running;
                }
                Call::Interrupt
            }
            "thread/backgroundTerminals/list" => Call::Terminals,
            _ => Call::Other,
        };
        self.calls.sent(id, call);
        actions
    }

    fn was_fragment(&self) -> bool {
        self.fragment
    }

    fn mode(&self) -> Option<PermissionMode> {
        super::policy::mode_of(self.about.mode.as_deref()?)
    }

    fn on_exit(&mut self, _exit: Exit, stderr_tail: &str) -> Vec<Action> {
        let mut actions = self.void_all();
        let why = || last_words(stderr_tail).unwrap_or_else(|| "Codex ended unexpectedly".to_owned());
        if !matches!(self.phase, Phase::Ready | Phase::Over) {
            actions.push(Action::Fatal(why()));
        }
        if let Some(turn) = self.turn.take() {
            actions.extend(self.thread.turn_ended().into_iter().map(Action::Emit));
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

fn models(answer: &Value) -> Vec<ModelChoice> {
    array_at(answer, "data")
        .iter()
        .filter(|model| model.get("hidden").and_then(Value::as_bool) != Some(true))
        .filter_map(|model| {
            let id = string_at(model, "model").or_else(|| string_at(model, "id"))?;
            let name = string_at(model, "displayName").unwrap_or_else(|| id.clone());
            Some(ModelChoice { id, name })
        })
        .collect()
}
