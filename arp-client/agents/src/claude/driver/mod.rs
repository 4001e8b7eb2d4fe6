//! Claude's side of a session as a state machine: control requests, turns, and the lines between them.

mod report;
mod turns;

use super::approvals::Approvals;
use super::lines::Lines;
use super::mode_name;
use crate::agent::{LaunchOptions, Resume};
use crate::driver::{Action, Command, CommandError, Driver, Exit, PermissionMode};
use crate::event::{Event, ModelChoice, TurnStatus};
use crate::options::{self, BYPASS_FORBIDDEN};
use crate::text::{array_at, last_words, str_at, string_at};
use report::retry_text;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The driver of one `claude -p --input-format stream-json` process.
#[derive(Debug)]
pub(super) struct ClaudeDriver {
    allow_bypass: bool,
    /// Where in a session this process stands, so that its request ids are its own.
    run: u32,
    next_request: u64,
    /// Control requests that were sent and not answered.
    requests: BTreeMap<String, Request>,
    phase: Phase,
    about: About,
    turn: Option<Turn>,
    /// Claude runs a turn that nobody asked for.
    own_turn: bool,
    interrupting: bool,
    approvals: Approvals,
    lines: Lines,
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

/// A control request of ours.
#[derive(Debug)]
enum Request {
    Initialize,
    Interrupt,
    SetModel(String),
    SetMode(String),
}

/// What the `init` event tells.
#[derive(Debug, Clone, Default, PartialEq)]
struct About {
    session_id: Option<String>,
    model: Option<String>,
    cwd: Option<String>,
    mode: Option<String>,
}

/// The turn that a prompt began.
#[derive(Debug)]
struct Turn {
    /// The prompt's uuid, by which Claude reports where it stands.
    prompt: String,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Sent. A version that does not report stages leaves it here.
    Sent,
    /// Claude has it, and does something else first.
    Queued,
    /// Claude works on it.
    Started,
}

impl ClaudeDriver {
    pub(super) fn new(options: &LaunchOptions) -> Self {
        let session_id = match &options.resume {
            Resume::New => options.session_id.clone(),
            Resume::Session { id, fork: false } => Some(id.clone()),
            _ => options.session_id.clone(),
        };
        Self {
            allow_bypass: options.allow_bypass,
            run: options.run,
            next_request: 0,
            requests: BTreeMap::new(),
            phase: Phase::New,
            about: About {
                session_id,
                mode: Some(mode_name(options.permission_mode).to_owned()),
                ..About::default()
            },
            turn: None,
            own_turn: false,
            interrupting: false,
            approvals: Approvals::default(),
            lines: Lines::default(),
            fragment: false,
        }
    }

    fn request(&mut self, kind: Request, request: Value) -> Action {
        let id = format!("arp-{}-{}", self.run, self.next_request);
        let line = json!({"type": "control_request", "request_id": id, "request": request});
        self.requests.insert(id, kind);
        self.next_request += 1;
        Action::Send(line.to_string())
    }

    fn control_request(&mut self, line: &Value) -> Vec<Action> {
        let (Some(id), Some(request)) = (str_at(line, "request_id"), line.get("request")) else {
            return Vec::new();
        };
        if str_at(request, "subtype") == Some("can_use_tool") {
            return self.approvals.asked(id, request);
        }
        let refusal = json!({
            "type": "control_response",
            "response": {"subtype": "error", "request_id": id, "error": "this client does not support the request"},
        });
        vec![Action::Send(refusal.to_string())]
    }

    fn control_response(&mut self, line: &Value) -> Vec<Action> {
        let Some(response) = line.get("response") else {
            return Vec::new();
        };
        let Some(request) = str_at(response, "request_id").and_then(|id| self.requests.remove(id)) else {
            return Vec::new();
        };
        let failure = (str_at(response, "subtype") == Some("error"))
            .then(|| string_at(response, "error").unwrap_or_else(|| "Claude refused the request".to_owned()));
        let body = response.get("response").unwrap_or(&Value::Null);
        match (request, failure) {
            (Request::Initialize, None) => self.initialized(body),
            (Request::Initialize, Some(why)) => self.fatal(why),
            (Request::SetModel(asked), None) => {
                let model = string_at(body, "model").unwrap_or(asked);
                self.tell(|about| about.model = Some(model))
            }
            (Request::SetMode(asked), None) => {
                let mode = string_at(body, "mode").unwrap_or(asked);
                self.tell(|about| about.mode = Some(mode))
            }
            // Nothing was running after all; what ended it has been told.
            (Request::Interrupt, _) => Vec::new(),
            (_, Some(why)) => vec![Action::Emit(Event::Error {
                message: why,
                retrying: false,
            })],
        }
    }

    fn initialized(&mut self, body: &Value) -> Vec<Action> {
        self.phase = Phase::Ready;
        let mut actions: Vec<Action> = self
            .about
            .session_id
            .clone()
            .map(Action::SessionId)
            .into_iter()
            .collect();
        self.about.mode = string_at(body, "current_permission_mode").or(self.about.mode.take());
        let models = array_at(body, "models")
            .iter()
            .filter_map(|model| {
                let id = string_at(model, "value")?;
                let name = string_at(model, "displayName").unwrap_or_else(|| id.clone());
                Some(ModelChoice { id, name })
            })
            .collect();
        actions.push(Action::Emit(self.init_event(models)));
        actions.push(Action::Ready);
        actions
    }

    fn system(&mut self, line: &Value) -> Vec<Action> {
        match str_at(line, "subtype") {
            Some("init") => self.init(line),
            Some("status") => match string_at(line, "permissionMode") {
                Some(mode) => self.tell(|about| about.mode = Some(mode)),
                None => Vec::new(),
            },
            Some("api_retry") => vec![Action::Emit(Event::Error {
                message: retry_text(line),
                retrying: true,
            })],
            Some("task_started" | "task_notification") => emit(self.lines.task(line)),
            _ => Vec::new(),
        }
    }

    /// Comes at the beginning of every turn.
    fn init(&mut self, line: &Value) -> Vec<Action> {
        let mut actions = Vec::new();
        let id = string_at(line, "session_id");
        if id.is_some() && (id != self.about.session_id || self.phase == Phase::New) {
            actions.extend(id.clone().map(Action::SessionId));
        }
        actions.extend(self.tell(|about| {
            *about = About {
                session_id: id,
                model: string_at(line, "model"),
                cwd: string_at(line, "cwd"),
                mode: string_at(line, "permissionMode"),
            };
        }));
        if self.phase == Phase::New {
            // Output without the handshake: a one-shot run that is replayed.
            self.phase = Phase::Ready;
        } else if !self.prompt_is_worked_on() && !self.own_turn {
            self.own_turn = true;
            actions.push(Action::TurnBegan);
        }
        actions
    }

    fn fatal(&mut self, why: String) -> Vec<Action> {
        self.phase = Phase::Over;
        vec![Action::Fatal(why)]
    }

    /// Changes what is known of the session, and tells it if it is news.
    fn tell(&mut self, change: impl FnOnce(&mut About)) -> Vec<Action> {
        let before = self.about.clone();
        change(&mut self.about);
        if self.about == before {
            return Vec::new();
        }
        vec![Action::Emit(self.init_event(Vec::new()))]
    }

    fn init_event(&self, models: Vec<ModelChoice>) -> Event {
        let About {
            session_id,
            model,
            cwd,
            mode,
        } = self.about.clone();
        Event::Init {
            agent_session_id: session_id,
            model,
            cwd,
            permission_mode: mode,
            models,
        }
    }
}

impl Driver for ClaudeDriver {
    fn on_line(&mut self, line: &str) -> Vec<Action> {
        self.fragment = false;
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            return crate::rpc::not_json(line);
        };
        self.fragment = str_at(&line, "type") == Some("stream_event");
        match str_at(&line, "type") {
            Some("stream_event") => emit(self.lines.stream_event(&line)),
            Some("assistant") => emit(self.lines.assistant(&line)),
            Some("user") => {
                let mut actions = self.approvals.results_came(&line);
                actions.extend(emit(self.lines.user(&line)));
                actions
            }
            Some("system") => self.system(&line),
            Some("result") => self.result(&line),
            Some("control_request") => self.control_request(&line),
            Some("control_response") => self.control_response(&line),
            Some("control_cancel_request") => str_at(&line, "request_id")
                .and_then(|id| self.approvals.cancelled(id))
                .into_iter()
                .collect(),
            Some("command_lifecycle") => {
                self.lifecycle(&line);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn command(&mut self, command: Command) -> Result<Vec<Action>, CommandError> {
        match command {
            Command::Start => {
                if self.phase != Phase::New {
                    return Err(CommandError::WrongState("the session was started already"));
                }
                self.phase = Phase::Starting;
                Ok(vec![self.request(
                    Request::Initialize,
                    json!({"subtype": "initialize", "hooks": null}),
                )])
            }
            Command::Prompt { id, text } => self.prompt(id, text),
            Command::Interrupt => {
                if self.turn.is_none() && !self.own_turn {
                    return Err(CommandError::WrongState("no turn is running"));
                }
                self.interrupting = true;
                Ok(vec![
                    self.request(Request::Interrupt, json!({"subtype": "interrupt"})),
                ])
            }
            Command::Decide {
                approval_id,
                decision,
            } => self.decide(&approval_id, &decision),
            Command::SetModel(model) => {
                options::check_name("model", &model)
                    .map_err(|error| CommandError::Unsupported(error.to_string()))?;
                let request = json!({"subtype": "set_model", "model": model});
                Ok(vec![self.request(Request::SetModel(model), request)])
            }
            Command::SetPermissionMode(mode) => {
                if mode == PermissionMode::BypassPermissions && !self.allow_bypass {
                    return Err(CommandError::Forbidden(BYPASS_FORBIDDEN.to_owned()));
                }
                let mode = mode_name(mode);
                let request = json!({"subtype": "set_permission_mode", "mode": mode});
                Ok(vec![self.request(Request::SetMode(mode.to_owned()), request)])
            }
        }
    }

    fn replay_sent(&mut self, line: &str) -> Vec<Action> {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            return Vec::new();
        };
        match str_at(&line, "type") {
            Some("user") => self.prompted(&line),
            Some("control_response") => self.decided(&line),
            Some("control_request") => {
                let request = line.get("request").unwrap_or(&Value::Null);
                let kind = match str_at(request, "subtype") {
                    Some("initialize") => {
                        self.phase = Phase::Starting;
                        Request::Initialize
                    }
                    Some("interrupt") => {
                        self.interrupting = true;
                        Request::Interrupt
                    }
                    Some("set_model") => Request::SetModel(string_at(request, "model").unwrap_or_default()),
                    Some("set_permission_mode") => {
                        Request::SetMode(string_at(request, "mode").unwrap_or_default())
                    }
                    _ => return Vec::new(),
                };
                if let Some(id) = string_at(&line, "request_id") {
                    self.requests.insert(id, kind);
                    self.next_request += 1;
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn was_fragment(&self) -> bool {
        self.fragment
    }

    fn mode(&self) -> Option<PermissionMode> {
        PermissionMode::ALL
            .into_iter()
            .find(|mode| self.about.mode.as_deref() == Some(mode_name(*mode)))
    }

    fn on_exit(&mut self, _exit: Exit, stderr_tail: &str) -> Vec<Action> {
        let mut actions = self.approvals.void_all();
        let started = matches!(self.phase, Phase::Ready);
        if !started && self.phase != Phase::Over {
            let why =
                last_words(stderr_tail).unwrap_or_else(|| "Claude ended before it was ready".to_owned());
            actions.extend(self.fatal(why));
        }
        if self.turn.take().is_some() || std::mem::take(&mut self.own_turn) {
            let status = if self.interrupting {
                TurnStatus::Interrupted
            } else {
                TurnStatus::Failed
            };
            let message = (status == TurnStatus::Failed).then(|| {
                last_words(stderr_tail).unwrap_or_else(|| "Claude ended in the middle of the turn".to_owned())
            });
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

fn emit(events: Vec<Event>) -> Vec<Action> {
    events.into_iter().map(Action::Emit).collect()
}
