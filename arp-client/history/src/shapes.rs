//! The answers, as they are sent.
//!
//! Units, everywhere and for all agents alike: a number that says when is **Unix seconds** (`created_at`,
//! `updated_at`, `most_recent_session`); a string that says when is **RFC 3339 in UTC** with milliseconds
//! (`message_timestamp`, `lastDate`, `timestamp`); a duration is **milliseconds**; a size is bytes.

use crate::AgentKind;
use arp_agents::event::Event;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// `{"type":"projects","projects":[…],"total":…}`, the most recently used first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "projects")]
pub struct Projects {
    /// This page.
    pub projects: Vec<Project>,
    /// How many there are in all.
    pub total: u64,
}

/// A directory that sessions were started in, as the agent groups them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Project {
    /// The agent's own name of it (Claude: directory below `projects`; Gemini: directory below `tmp`). Codex has
    /// none: made from the path.
    pub id: String,
    /// Absolute path.
    pub path: String,
    /// Ids of its sessions, newest first.
    pub sessions: Vec<String>,
    /// When its first session began, Unix seconds.
    pub created_at: i64,
    /// When its newest session was last used, Unix seconds.
    pub most_recent_session: Option<i64>,
}

/// `{"directories":[…],"total":…}`, the most recently used first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkingDirectories {
    /// All directories.
    pub directories: Vec<WorkingDirectory>,
    /// How many there are.
    #[serde(rename = "total")]
    pub total: u64,
}

/// A directory that an agent worked in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkingDirectory {
    /// Absolute path.
    pub path: String,
    /// Its last part.
    pub shortname: String,
    /// When a session in it was last used, RFC 3339.
    pub last_date: Option<String>,
    /// How many sessions were started in it.
    pub conversation_count: u64,
}

/// `{"type":"sessions","sessions":[…],"total":…}`, the most recently used first.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "sessions")]
pub struct Sessions {
    /// This page.
    pub sessions: Vec<Session>,
    /// How many there are in all, before `limit` and `offset`.
    pub total: u64,
}

/// A session on disk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Session {
    /// The agent's own id; the one to resume it by.
    pub id: String,
    /// Whose session it is.
    pub agent: AgentKind,
    /// Id of its project.
    pub project_id: String,
    /// Absolute path of the directory it was started in.
    pub project_path: String,
    /// Claude's todo list of the session, where there is one.
    pub todo_data: Option<Value>,
    /// When it began, Unix seconds.
    pub created_at: i64,
    /// When it was last used, Unix seconds.
    pub updated_at: i64,
    /// Beginning of the first prompt.
    pub first_message: Option<String>,
    /// When the first prompt was given, RFC 3339.
    pub message_timestamp: Option<String>,
    /// Prompts and answers (not: results of tools, housekeeping).
    pub message_count: u64,
    /// Is an agent working with it at the moment?
    pub status: Status,
    /// Time spent in turns, milliseconds, where the agent tells.
    pub total_duration: Option<u64>,
    /// What to call it: the name given by the user, the agent's summary, the first prompt.
    pub title: Option<String>,
    /// The model of the last answer.
    pub model: Option<String>,
    /// The git branch it was started on.
    pub git_branch: Option<String>,
    /// Codex: was put away by the user.
    pub archived: bool,
    /// Size of its file in bytes.
    pub size: u64,
}

/// Is an agent's process working with a session?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// A process has it open.
    Ongoing,
    /// None has, as far as can be told (see [`crate::History::live`]).
    Completed,
}

/// A session that an agent's process has open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LiveSession {
    /// The agent's id of the session.
    pub session_id: String,
    /// Whose.
    pub agent: AgentKind,
    /// The process.
    pub pid: u32,
    /// Is it at work (`true`) or does it wait for a prompt? `None` when it does not say.
    pub busy: Option<bool>,
    /// Where it works.
    pub cwd: Option<String>,
}

/// `{"type":"session_history","session_id":…,"messages":[…raw lines…],…}`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename = "session_history")]
pub struct RawPage {
    /// The agent's id of the session.
    pub session_id: String,
    /// The lines, as the agent wrote them. One that is no JSON object, is nested too deeply or is too long is
    /// stood in for by `{"type":"unreadable_line","reason":…,"bytes":…}`.
    pub messages: Vec<Box<RawValue>>,
    /// The number of each line in its file, from 0; as many as `messages`.
    pub lines: Vec<u64>,
    /// How many complete lines the file has.
    pub total_lines: u64,
    /// Where the next page begins; absent after the last line. (A live session may grow: ask again from
    /// `total_lines`.)
    pub next: Option<u64>,
}

/// `{"type":"session_events","session_id":…,"events":[…],…}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "session_events")]
pub struct EventPage {
    /// The agent's id of the session.
    pub session_id: String,
    /// What happened.
    pub events: Vec<HistoryEvent>,
    /// How many records the session has: lines, for Gemini messages.
    pub total_lines: u64,
    /// Where the next page begins; absent after the last record.
    pub next: Option<u64>,
}

/// An event and where it is from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryEvent {
    /// The record that it was made from: number of the line, for Gemini of the message, from 0. Several events
    /// may come from one record.
    pub line: u64,
    /// When, RFC 3339, where the agent noted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What a deletion removed: `{"type":"session_deleted","session_id":…,"removed":[…]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "session_deleted")]
pub struct Deleted {
    /// The agent's id of the session.
    pub session_id: String,
    /// Files and directories that are gone, relative to the agent's home.
    pub removed: Vec<String>,
}

/// What a scan did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ScanReport {
    /// Session files that are there.
    pub files: u64,
    /// Of these, how many were new, grown or replaced, and so were read.
    pub read: u64,
    /// How many are gone since the scan before.
    pub gone: u64,
    /// Bytes that were read from session files.
    pub bytes: u64,
}
