//! Codex's side of a session as a state machine: the handshake, turns, and what is asked on the way.

use super::approvals::{self, Approvals};
use super::policy::{OPENING_SANDBOX, approval_policy, mode_text, sandbox_policy};
use super::thread::Thread;
use crate::agent::{LaunchOptions, Resume};
use crate::driver::{Action, Command, CommandError, Decision, Driver, Exit, PermissionMode};
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
    turn: Option<Turn>,
    /// An interrupt that has to wait until the turn has begun: before, Codex knows of none.
    interrupt_wanted: bool,
    /// The reason of the denial that is sent next.
    reason: Option<String>,
    approvals: Approvals,
    thread: Thread,
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
    /// Model or mode.
    Settings,
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
            turn: None,
            interrupt_wanted: false,
            reason: None,
            approvals: Approvals::default(),
            thread: Thread::default(),
        }
    }

    // The handshake.

    fn start(&mut self) -> Action {
        self.phase = Phase::Starting;
        let params = json!({
            "clientInfo": {"name": "arpc", "title": "arp", "version": env!("CARGO_PKG_VERSION")},
            // Changing settings in mid-session and ending a command that was interrupted are "experimental".
            "capabilities": {"experimentalApi": true, "requestAttestation": false, "optOutNotificationMethods": UNREAD},
        });
        self.calls.request(Call::Initialize, "initialize", params)
    }

    fn initialized(&mut self) -> Vec<Action> {
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

    fn found_last(&mut self, answer: &Value) -> Vec<Action> {
        let newest = array_at(answer, "data")
            .first()
            .and_then(|thread| string_at(thread, "id"));
        let fork = matches!(self.options.resume, Resume::Last { fork: true });
        match newest {
            Some(id) => vec![self.open(&Resume::Session { id, fork })],
            None => self.fatal("there is no earlier session in this directory to go on with".to_owned()),
        }
    }

    fn open(&mut self, resume: &Resume) -> Action {
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

    fn opened(&mut self, answer: &Value) -> Vec<Action> {
        let Some(id) = answer.pointer("/thread/id").and_then(Value::as_str) else {
            return self.fatal("Codex opened a thread without an id".to_owned());
        };
        self.about = About {
            thread: Some(id.to_owned()),
            model: string_at(answer, "model"),
            cwd: string_at(answer, "cwd"),
            mode: mode_text(&answer["approvalPolicy"], &answer["sandbox"]),
        };
        let mut actions = vec![
            Action::SessionId(id.to_owned()),
            Action::Emit(self.init_event(Vec::new())),
        ];
        let wanted = sandbox_policy(self.options.permission_mode);
        if wanted.get("type") == answer.pointer("/sandbox/type") {
            self.phase = Phase::Ready;
            actions.push(Action::Ready);
        } else {
            actions.push(self.change_mode(self.options.permission_mode));
        }
        actions
    }

    fn change_mode(&mut self, mode: PermissionMode) -> Action {
        let params = json!({
            "threadId": self.about.thread,
            "approvalPolicy": approval_policy(mode),
            "sandboxPolicy": sandbox_policy(mode),
        });
        self.calls
            .request(Call::Settings, "thread/settings/update", params)
    }

    fn settings_changed(&mut self) -> Vec<Action> {
        if self.phase == Phase::Starting {
            self.phase = Phase::Ready;
            return vec![Action::Ready];
        }
        Vec::new()
    }

    // Turns.

    fn prompt(&mut self, id: Option<String>, text: &str) -> Result<Vec<Action>, CommandError> {
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

    fn prompted(&mut self, params: &Value) -> Action {
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

    fn turn_began(&mut self, id: Option<&str>) -> Vec<Action> {
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

    fn interrupt(&mut self) -> Result<Vec<Action>, CommandError> {
        if self.turn.is_none() {
            return Err(CommandError::WrongState("no turn is running"));
        }
        Ok(self.interrupt_now())
    }

    fn interrupt_now(&mut self) -> Vec<Action> {
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
    fn end_commands(&mut self, ids: &[String]) -> Vec<Action> {
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

    fn terminals(&mut self, answer: &Value) -> Vec<Action> {
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

    fn turn_ended(&mut self, turn: &Value) -> Vec<Action> {
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
        let duration_ms = turn.get("durationMs").and_then(Value::as_u64);
        let mut actions = self.void_all();
        actions.extend(self.end_commands(&ended.left_running));
        actions.extend(self.thread.turn_ended().into_iter().map(Action::Emit));
        actions.push(Action::Emit(Event::TurnEnd {
            status,
            message,
            duration_ms,
        }));
        actions.push(Action::TurnEnded);
        actions
    }

    // What Codex asks.

    fn asked(&mut self, rpc_id: Value, method: &str, params: Value) -> Vec<Action> {
        let id = format!("r{}-{}", self.options.run, rpc_id.to_string().trim_matches('"'));
        let item = str_at(&params, "itemId")
            .and_then(|item| self.thread.item(item))
            .cloned();
        if let Some((waiting, approval)) = approvals::asked(id, rpc_id.clone(), method, params, item.as_ref())
        {
            self.approvals.insert(approval.id.clone(), waiting);
            return vec![Action::Ask(approval)];
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

    fn decide(&mut self, approval_id: &str, decision: &Decision) -> Result<Vec<Action>, CommandError> {
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
            if *interrupt && let Some(turn) = &mut self.turn {
                turn.interrupted = true;
            }
        }
        actions.push(self.calls.answer(&rpc_id, result.clone()));
        actions.extend(self.answered(&rpc_id, &result));
        Ok(actions)
    }

    fn steer(&mut self, reason: &str) -> Option<Action> {
        let turn = self.turn.as_ref()?.id.as_ref()?;
        let params = json!({
            "threadId": self.about.thread,
            "expectedTurnId": turn,
            "input": [{"type": "text", "text": format!("{DENIAL}{reason}"), "text_elements": []}],
        });
        self.steered(&params);
        Some(self.calls.request(Call::Other, "turn/steer", params))
    }

    fn steered(&mut self, params: &Value) {
        self.thread.prompt_sent();
        let text = params
            .pointer("/input/0/text")
            .and_then(Value::as_str)
            .unwrap_or_default();
        self.reason = text.strip_prefix(DENIAL).map(str::to_owned);
    }

    fn answered(&mut self, rpc_id: &Value, result: &Value) -> Option<Action> {
        let found = self
            .approvals
            .iter()
            .find(|(_, waiting)| waiting.rpc_id == *rpc_id);
        let id = found.map(|(id, _)| id.clone())?;
        let outcome = self.approvals.remove(&id)?.outcome(result);
        let message = self.reason.take().filter(|_| outcome == ApprovalOutcome::Denied);
        Some(Action::Resolved {
            approval_id: id,
            outcome,
            message,
        })
    }

    fn void_all(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.approvals)
            .into_keys()
            .map(void)
            .collect()
    }

    // What Codex tells.

    fn answer(&mut self, call: Call, outcome: Result<Value, RpcError>) -> Vec<Action> {
        match (call, outcome) {
            (Call::Initialize, Ok(_)) => self.initialized(),
            (Call::FindLast, Ok(answer)) => self.found_last(&answer),
            (Call::Open, Ok(answer)) => self.opened(&answer),
            (Call::Settings, Ok(_)) => self.settings_changed(),
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
            (Call::Settings, Err(error)) if self.phase == Phase::Starting => self.fatal(error.message),
            (Call::Turn, Err(error)) => {
                self.turn_ended(&json!({"status": "failed", "error": {"message": error.message}}))
            }
            (Call::Settings, Err(error)) => {
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

    fn settings_told(&mut self, settings: &Value) -> Vec<Action> {
        let before = self.about.clone();
        if let Some(model) = string_at(settings, "model") {
            self.about.model = Some(model);
        }
        if let Some(mode) = mode_text(&settings["approvalPolicy"], &settings["sandboxPolicy"]) {
            self.about.mode = Some(mode);
        }
        if self.about == before {
            return Vec::new();
        }
        vec![Action::Emit(self.init_event(Vec::new()))]
    }

    /// The request no longer waits. Ours are taken off the list when we answer, so this one was taken back.
    fn resolved_elsewhere(&mut self, params: &Value) -> Vec<Action> {
        let Some(rpc_id) = params.get("requestId") else {
            return Vec::new();
        };
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
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            return not_json(line);
        };
        match Message::read(message) {
            Some(Message::Request { id, method, params }) => self.asked(id, &method, params),
            Some(Message::Notification { method, params }) => self.notification(&method, &params),
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
                let params = json!({"threadId": self.about.thread, "model": model});
                Ok(vec![self.calls.request(
                    Call::Settings,
                    "thread/settings/update",
                    params,
                )])
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
            "thread/start" | "thread/resume" | "thread/fork" => Call::Open,
            "thread/settings/update" => Call::Settings,
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
