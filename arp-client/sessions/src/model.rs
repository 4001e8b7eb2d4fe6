//! What a session looks like from outside, and what is kept of it.

use crate::clock::rfc3339;
use crate::host::LeftRunning;
use arp_agents::driver::PermissionMode;
use arp_agents::event::{Approval, ApprovalOutcome, Edited, ModelChoice, TurnStatus, Usage};
use serde::{Deserialize, Serialize, Serializer};
use std::path::PathBuf;

/// A time in milliseconds since 1970 (UTC), RFC 3339 when serialized for readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The agent's process is being started.
    Starting,
    /// A turn runs.
    Running,
    /// A turn runs and waits for a decision.
    Waiting,
    /// Ready for the next message.
    Idle,
    /// The process was ended cleanly; the next message resumes the session.
    Parked,
    /// The agent ended by itself.
    Completed,
    /// It went wrong.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Running,
        Self::Waiting,
        Self::Idle,
        Self::Parked,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Its name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Idle => "idle",
            Self::Parked => "parked",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Is there a process?
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Waiting | Self::Idle)
    }

    /// Is it at work (starting, or in a turn)?
    #[must_use]
    pub fn is_busy(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Waiting)
    }
}

/// Who started a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The HTTP API.
    #[default]
    Api,
    /// The MCP server.
    Mcp,
    /// The command line.
    Cli,
}

/// A running turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The how-manieth of the session, from 1.
    pub number: u64,
    /// When it began, milliseconds since 1970.
    #[serde(rename = "started_ms")]
    pub started: u64,
    /// The beginning of its prompt.
    pub prompt: String,
}

/// Where a session's first process begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Beginning {
    /// With nothing.
    #[default]
    New,
    /// With the agent's session of this id, or a copy of it.
    Session {
        /// The agent's id.
        id: String,
        /// Copy?
        fork: bool,
    },
    /// With the newest of the directory, or a copy of it.
    Last {
        /// Copy?
        fork: bool,
    },
}

/// What is kept of a session in the database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Our id.
    pub id: String,
    /// The agent.
    pub executor: String,
    /// The agent's own id, once known.
    pub agent_session_id: Option<String>,
    /// Title: given, or made from the first prompt.
    pub title: Option<String>,
    /// The first prompt, shortened.
    pub first_message: Option<String>,
    /// Directory to work in.
    pub project_path: PathBuf,
    /// Model as asked for, or as the agent says.
    pub model: Option<String>,
    /// Was the model asked for (then it is asked for again on resume)?
    #[serde(default)]
    pub model_chosen: bool,
    /// How tools are permitted.
    pub permission_mode: PermissionMode,
    /// Tools that need not ask.
    pub allowed_tools: Vec<String>,
    /// Where it stands.
    pub status: Status,
    /// The running turn.
    pub turn: Option<Turn>,
    /// Turns begun.
    pub turns: u64,
    /// How the last turn ended.
    #[serde(default)]
    pub last_turn: Option<TurnStatus>,
    /// What it does, in one line.
    pub activity: Option<String>,
    /// Tokens and cost.
    pub usage: Option<Usage>,
    /// Models that the agent offers.
    #[serde(default)]
    pub models: Vec<ModelChoice>,
    /// The agent's own name of its permission mode.
    #[serde(default)]
    pub agent_mode: Option<String>,
    /// What went wrong, until the next turn begins.
    #[serde(default)]
    pub problem: Option<Problem>,
    /// Why the agent can never go on with this session, if it cannot.
    #[serde(default)]
    pub never_resumes: Option<String>,
    /// What its tools left running when it was parked.
    #[serde(default)]
    pub left_running: Vec<LeftRunning>,
    /// What the user allowed for the whole session, beyond the tools that were allowed at its start.
    #[serde(default)]
    pub granted: Vec<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// Exit code of the last process.
    pub exit_code: Option<i32>,
    /// Signal that ended it.
    pub exit_signal: Option<i32>,
    /// The session it was copied from.
    pub parent_id: Option<String>,
    /// Who started it.
    pub origin: Origin,
    /// Where its first process begins.
    pub beginning: Beginning,
    /// When the agent last opened it, in milliseconds since 1970; 0 if never.
    #[serde(default)]
    pub opened_ms: u64,
    /// Its next process is started at this time, because the agent cannot open it earlier.
    #[serde(default)]
    pub starts_ms: Option<u64>,
    /// Tokens and cost of the processes before the newest.
    #[serde(default)]
    pub used_before: Usage,
    /// Processes begun so far.
    pub runs: u32,
    /// Record of the raw log after which the newest process begins.
    pub run_after: u64,
    /// Newest event.
    pub last_seq: u64,
    /// Lines printed.
    pub total_lines: u64,
    /// Created, in milliseconds since 1970.
    pub created_ms: u64,
    /// Last event.
    pub updated_ms: u64,
    /// Ended.
    pub ended_ms: Option<u64>,
    /// Idempotency id of its creation.
    pub client_id: Option<String>,
}

impl Meta {
    /// Why the agent cannot go on with this session in another process, if it cannot.
    #[must_use]
    pub fn cannot_resume(&self) -> Option<String> {
        if let Some(why) = &self.never_resumes {
            return Some(why.clone());
        }
        (self.turns > 0 && self.agent_session_id.is_none()).then(|| {
            "the agent never said what it calls this session, so it cannot be resumed; start a new one".into()
        })
    }
}

/// What went wrong with a session: shown with it until the next turn begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What sort.
    pub kind: ProblemKind,
    /// In words.
    pub message: String,
    /// The status with which the model API refused, for [`ProblemKind::ApiError`].
    #[serde(default)]
    pub api_status: Option<u16>,
    /// Can it be tried again (`POST …/retry`)?
    pub can_retry: bool,
}

/// What sort of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// The process ended in the middle of a turn.
    TurnCut,
    /// The model API refused (not logged in, overloaded, out of credit).
    ApiError,
    /// The turn failed for another reason.
    TurnFailed,
    /// The agent did not start.
    StartFailed,
    /// The agent did not go on with the session.
    ResumeFailed,
    /// The agent can never go on with the session.
    CannotResume,
    /// The agent or its host ended while nothing ran.
    AgentEnded,
    /// The disk is full.
    DiskFull,
}

/// A message that waits, or was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Our id.
    pub id: String,
    /// The client's idempotency id.
    pub client_id: Option<String>,
    /// What is said.
    pub text: String,
    /// When it was accepted.
    pub created_at: Time,
    /// Waiting, or given to the agent.
    pub status: MessageStatus,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageStatus {
    /// It waits for the running turn.
    Queued,
    /// The agent has it.
    Sent,
}

/// An approval that waits, as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ApprovalView {
    /// The question; its id is unique on this edge here.
    #[serde(flatten)]
    pub approval: Approval,
    /// Our session, if it is one of ours.
    pub session_id: Option<String>,
    /// The agent's id of the session.
    pub agent_session_id: Option<String>,
    /// Its title.
    pub session_title: Option<String>,
    /// The agent.
    pub executor: String,
    /// Where it works.
    pub project_path: Option<PathBuf>,
    /// Where the question comes from.
    pub source: ApprovalSource,
    /// When it was asked.
    pub created_at: Time,
    /// When it is denied.
    pub expires_at: Option<Time>,
}

/// Where an approval comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalSource {
    /// One of our sessions.
    Session,
    /// An agent that asked over MCP.
    Mcp,
}

/// The session object of the API.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionView {
    /// Our id.
    pub id: String,
    /// The agent.
    pub executor: String,
    /// The agent's own id.
    pub agent_session_id: Option<String>,
    /// Title.
    pub title: Option<String>,
    /// First prompt, shortened.
    pub first_message: Option<String>,
    /// Where it works.
    pub project_path: PathBuf,
    /// Model.
    pub model: Option<String>,
    /// Models that the agent offers, where it told.
    pub models: Vec<ModelChoice>,
    /// How tools are permitted, by the agent's own word once it has given it.
    pub permission_mode: PermissionMode,
    /// The agent's own name of that.
    pub agent_mode: Option<String>,
    /// What went wrong, until the next turn begins.
    pub problem: Option<Problem>,
    /// Can it go on once its process has ended?
    pub can_resume: bool,
    /// What its tools left running when it was parked, as far as it runs still.
    pub left_running: Vec<LeftRunning>,
    /// What the user allowed for the whole session. Nobody is told; it counts for who may steer it.
    #[serde(skip)]
    pub granted: Vec<String>,
    /// Where it stands.
    pub status: Status,
    /// Is it parked?
    pub parked: bool,
    /// The running turn.
    pub turn: Option<TurnView>,
    /// Turns begun.
    pub turns: u64,
    /// How the last turn ended.
    pub last_turn: Option<TurnStatus>,
    /// Messages that wait.
    pub queue: Vec<Message>,
    /// Approvals that wait.
    pub approvals: Vec<ApprovalView>,
    /// How many.
    pub pending_approvals: usize,
    /// Newest event.
    pub last_seq: u64,
    /// Lines printed.
    pub total_lines: u64,
    /// What it does.
    pub activity: Option<String>,
    /// Tokens and cost.
    pub usage: Option<Usage>,
    /// Why it failed.
    pub error: Option<String>,
    /// Exit code.
    pub exit_code: Option<i32>,
    /// Signal.
    pub exit_signal: Option<i32>,
    /// Copied from.
    pub parent_id: Option<String>,
    /// Started by.
    pub origin: Origin,
    /// Created.
    pub created_at: Time,
    /// Last event.
    pub updated_at: Time,
    /// Ended.
    pub ended_at: Option<Time>,
}

/// A running turn as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TurnView {
    /// Number, from 1.
    pub number: u64,
    /// When it began.
    pub started_at: Time,
    /// Beginning of its prompt.
    pub prompt: String,
}

impl SessionView {
    /// The object for this state.
    #[must_use]
    pub fn new(meta: &Meta, queue: Vec<Message>, approvals: Vec<ApprovalView>) -> Self {
        Self {
            id: meta.id.clone(),
            executor: meta.executor.clone(),
            agent_session_id: meta.agent_session_id.clone(),
            title: meta.title.clone(),
            first_message: meta.first_message.clone(),
            project_path: meta.project_path.clone(),
            model: meta.model.clone(),
            models: meta.models.clone(),
            permission_mode: meta.permission_mode,
            agent_mode: meta.agent_mode.clone(),
            problem: meta.problem.clone(),
            can_resume: meta.cannot_resume().is_none(),
            left_running: meta
                .left_running
                .iter()
                .filter(|left| left.runs())
                .cloned()
                .collect(),
            granted: meta.granted.clone(),
            status: meta.status,
            parked: meta.status == Status::Parked,
            turn: meta.turn.as_ref().map(|turn| TurnView {
                number: turn.number,
                started_at: Time(turn.started),
                prompt: turn.prompt.clone(),
            }),
            turns: meta.turns,
            last_turn: meta.last_turn,
            queue,
            pending_approvals: approvals.len(),
            approvals,
            last_seq: meta.last_seq,
            total_lines: meta.total_lines,
            activity: meta.activity.clone(),
            usage: meta.usage.clone(),
            error: meta.error.clone(),
            exit_code: meta.exit_code,
            exit_signal: meta.exit_signal,
            parent_id: meta.parent_id.clone(),
            origin: meta.origin,
            created_at: Time(meta.created_ms),
            updated_at: Time(meta.updated_ms),
            ended_at: meta.ended_ms.map(Time),
        }
    }

    /// Nothing runs and nothing waits to be run.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        !self.status.is_busy() && (self.queue.is_empty() || !self.status.is_live())
    }
}

/// What became of an approval.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Resolution {
    /// Which.
    pub id: String,
    /// Of which session of ours.
    pub session_id: Option<String>,
    /// What.
    pub outcome: ApprovalOutcome,
    /// The reason of a denial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What was asked and what runs, where the arguments were changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edited: Option<Edited>,
}

/// The first characters of a text, with an ellipsis if there are more.
#[must_use]
pub fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
    }
}

/// The last bytes of a text, at most so many, beginning with a whole character.
#[must_use]
pub(crate) fn ending(text: &str, bytes: usize) -> &str {
    let mut from = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

/// A title made from a prompt: its first line that says something.
#[must_use]
pub fn title_of(prompt: &str) -> Option<String> {
    let line = prompt.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(shortened(line, 80))
}
