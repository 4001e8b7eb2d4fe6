//! One vocabulary for what all agents say: the events of `?format=events`.
//!
//! The console draws these, history is served in them, and an approval or an error looks the same whoever
//! it came from. Each event is one JSON object with a `type`; unknown types and fields must be ignored by
//! readers, so that the vocabulary can grow.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One thing that happened in a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The agent is up: what it calls the session and how it will run. Sent again when any of it changes.
    Init {
        /// The agent's own id of the session (the one `resume` takes).
        agent_session_id: Option<String>,
        /// The model that answers, as the agent names it.
        model: Option<String>,
        /// Absolute working directory.
        cwd: Option<String>,
        /// The agent's own name of its permission mode.
        permission_mode: Option<String>,
        /// Models that may be chosen, where the agent tells; only with the first one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        models: Vec<ModelChoice>,
    },
    /// A prompt that was given to the agent.
    UserMessage {
        /// The caller's idempotency id, or the agent's id of the message.
        id: Option<String>,
        /// The prompt's text.
        text: String,
    },
    /// Text of the answer. With `delta` a fragment to append to the text of the same `id`; without, the
    /// whole text, which replaces the fragments of that `id`.
    Text {
        /// Which block of the answer this belongs to.
        id: String,
        /// The fragment or the whole (markdown).
        text: String,
        /// Is this a fragment?
        delta: bool,
        /// The tool call (a sub-agent's) that this happened in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
    },
    /// Reasoning, in the same form as [`Event::Text`].
    Thinking {
        /// Which block this belongs to.
        id: String,
        /// The fragment or the whole.
        text: String,
        /// Is this a fragment?
        delta: bool,
        /// The tool call that this happened in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
    },
    /// The agent uses a tool. The same `id` may come again with more detail; the later one replaces.
    ToolCall {
        /// The agent's id of the call.
        id: String,
        /// The agent's name of the tool: `Bash`, `commandExecution`, `run_shell_command`, `mcp__x__y`.
        name: String,
        /// What sort of tool it is, for drawing.
        kind: ToolKind,
        /// One line for a card: the command, the path, the question.
        title: String,
        /// The tool's arguments as the agent gave them.
        input: Value,
        /// For edits: what changes, one entry a file.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changes: Vec<FileChange>,
        /// The tool call (a sub-agent's) that this happened in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
    },
    /// What a tool gave back. With `delta` a fragment of live output.
    ToolResult {
        /// The call this answers.
        id: String,
        /// Output as text (other content is described in brackets).
        output: String,
        /// Is this a fragment?
        delta: bool,
        /// Did the tool fail (or was it denied)?
        is_error: bool,
        /// Exit code, for commands whose agent tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i64>,
        /// The tool call that this happened in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<String>,
    },
    /// The agent's current list of steps; a later one replaces an earlier one.
    Plan {
        /// All steps, in order.
        entries: Vec<PlanEntry>,
    },
    /// The agent waits for a decision (see the approvals API).
    Approval(Approval),
    /// A decision was made, or the question is void.
    ApprovalResolved {
        /// The approval's id.
        id: String,
        /// What was decided.
        outcome: ApprovalOutcome,
        /// The reason given with a denial.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// What was asked and what ran, where somebody changed the arguments with the permission.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        edited: Option<Edited>,
    },
    /// Tokens and cost of the session so far, as far as the agent tells.
    Usage(Usage),
    /// Something went wrong.
    Error {
        /// What, in words.
        message: String,
        /// The agent tries again by itself.
        retrying: bool,
    },
    /// A turn ended; the session waits for the next message.
    TurnEnd {
        /// How.
        status: TurnStatus,
        /// Why it failed, where it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// How long it took, in milliseconds, where the agent tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        duration_ms: Option<u64>,
        /// The HTTP status with which the model API refused it, where it did (401, 429, 529 …).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        api_status: Option<u16>,
    },
    /// Something this vocabulary has no word for, as the agent said it.
    Raw {
        /// The agent's own object.
        data: Value,
    },
}

/// A model that may be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelChoice {
    /// What to give as `model`.
    pub id: String,
    /// What to show.
    pub name: String,
}

/// What sort of tool a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolKind {
    /// Runs a command.
    Command,
    /// Changes files.
    Edit,
    /// Reads files.
    Read,
    /// Searches files or the web.
    Search,
    /// Fetches from the network.
    Fetch,
    /// A sub-agent.
    Task,
    /// Changes the list of steps, or asks for a plan to be approved.
    Plan,
    /// Asks the user something.
    Question,
    /// A tool of an MCP server.
    Mcp,
    /// Anything else.
    Other,
}

/// One file's change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Path as the agent gave it.
    pub path: String,
    /// Unified diff (hunks only; no header lines needed). A hunk whose place in the file is not known is headed
    /// by a bare `@@`: line numbers are true or absent.
    pub diff: String,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanEntry {
    /// The step in words.
    pub content: String,
    /// Where it stands.
    pub status: PlanStatus,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanStatus {
    /// Not begun.
    Pending,
    /// Being done.
    InProgress,
    /// Done.
    Completed,
}

/// A question of the agent that waits for a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Unique within the session, stable over a replay of its log.
    pub id: String,
    /// The tool call it is about, if it is about one.
    pub tool_call_id: Option<String>,
    /// The agent's name of the tool.
    pub tool_name: String,
    /// What sort of tool.
    pub kind: ToolKind,
    /// One line: the command, the path, the question.
    pub title: String,
    /// Why the agent wants it, where it says so.
    pub reason: Option<String>,
    /// The full arguments (a command in full, a question with its options).
    pub input: Value,
    /// For edits: what would change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FileChange>,
    /// Can "allow for the rest of the session" be given?
    pub can_allow_session: bool,
    /// What that would allow; empty where it cannot be given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub session_grants: Vec<Grant>,
    /// For a plan: the permission modes in which the agent may go on, one of which can be given with the
    /// permission.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modes: Vec<PermissionMode>,
    /// Can the arguments be changed with the permission?
    pub can_edit: bool,
    /// For [`ToolKind::Question`]: what may be chosen, one entry a question.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<Question>,
}

/// What is allowed besides the one call, when it is allowed for the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Grant {
    /// Calls of this tool; only those that match the pattern, where there is one.
    Tool {
        /// The agent's name of the tool.
        tool: String,
        /// In the agent's own notation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pattern: Option<String>,
    },
    /// The very same command in the same directory.
    SameCommand,
    /// Further changes of the same files.
    SameFiles,
    /// What is asked for, for as long as the session lasts.
    SameAccess,
    /// Another permission mode for all that follows.
    Mode {
        /// The agent's own name of the mode.
        mode: String,
    },
    /// What the agent calls it, where it does not say more.
    Named {
        /// The agent's words.
        name: String,
    },
}

/// Permission modes in our words; each driver translates to its agent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PermissionMode {
    /// Ask before anything that changes something.
    #[default]
    Default,
    /// Edits of files pass, the rest asks.
    AcceptEdits,
    /// Plan only, change nothing.
    Plan,
    /// Ask nothing. Only where the machine's owner allowed it.
    BypassPermissions,
}

impl PermissionMode {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Default,
        Self::AcceptEdits,
        Self::Plan,
        Self::BypassPermissions,
    ];

    /// How much passes unasked, for comparison: a higher number is a wider permission.
    #[must_use]
    pub fn width(self) -> u8 {
        match self {
            Self::Plan => 0,
            Self::Default => 1,
            Self::AcceptEdits => 2,
            Self::BypassPermissions => 3,
        }
    }
}

/// A question with its choices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The question's text, also the key of its answer.
    pub text: String,
    /// Short label.
    pub header: Option<String>,
    /// Labels that may be chosen; free text is allowed besides.
    pub options: Vec<String>,
    /// What each of them means, in the same order; empty when the agent explains none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub descriptions: Vec<String>,
    /// May several be chosen?
    pub multiple: bool,
}

/// The arguments of a tool that somebody changed while allowing it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edited {
    /// As the agent asked.
    pub asked: Value,
    /// As they were given back, and ran.
    pub ran: Value,
}

/// What became of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalOutcome {
    /// Allowed this once.
    Allowed,
    /// Allowed for the rest of the session.
    AllowedForSession,
    /// Denied by somebody.
    Denied,
    /// Denied because nobody answered in time.
    TimedOut,
    /// The agent no longer asks (the turn was interrupted, the process ended).
    Void,
}

/// Tokens and cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read, cached ones included, where told.
    pub input_tokens: Option<u64>,
    /// Of these, read from a cache.
    pub cached_input_tokens: Option<u64>,
    /// Tokens written.
    pub output_tokens: Option<u64>,
    /// US dollars, where the agent tells.
    pub cost_usd: Option<f64>,
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnStatus {
    /// The agent finished its answer.
    Completed,
    /// Somebody interrupted it.
    Interrupted,
    /// It failed.
    Failed,
}
