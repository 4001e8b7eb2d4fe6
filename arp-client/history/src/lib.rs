//! History of Claude Code, Codex and Gemini CLI, as these agents themselves keep it on disk.
//!
//! The agents write one file of JSON lines a session. This crate finds these files, reads what is new of them
//! into an index (SQLite), lists projects and sessions from there, and gives the lines of a session in pages, as
//! they are or in the one vocabulary of [`arp_agents::event`]. It writes nothing into an agent's home, except that
//! [`History::delete`] removes a session with all that belongs to it.
//!
//! - A file is read once; when it grows, from where reading ended. Listing costs a look at each file's size and
//!   time. Opening a page in the middle of a large file reads that page and at most 256 KiB before it.
//! - Nothing in a file is trusted: lines may be long, deep, broken or hostile. A session's id becomes part of a
//!   path only as it was found on disk, never as it was asked for.
//! - All calls block: use them from `spawn_blocking`. [`History`] may be shared between threads; of several calls
//!   that need a scan at once, one scans and the others wait for it.
//!
//! Units of the answers are documented in [`shapes`].

mod clock;
mod config;
mod defaults;
mod delete;
mod error;
mod events;
mod format;
mod formats;
mod history;
mod homes;
mod json;
mod lines;
mod page;
mod project;
mod query;
mod rows;
mod scan;
pub mod shapes;
mod store;
mod summary;
mod talk;

pub use config::{AgentKind, HistoryConfig, UnknownAgent};
pub use defaults::{MAX_LINE_BYTES, MAX_PAGE_BYTES, MAX_PAGE_LINES, MAX_SESSIONS};
pub use error::HistoryError;
pub use history::History;
pub use page::{Filter, Page};
pub use query::SessionFilter;
pub use shapes::{
    Deleted, EventPage, HistoryEvent, LiveSession, Project, Projects, RawPage, ScanReport, Session, Sessions,
    Status, WorkingDirectories, WorkingDirectory,
};
