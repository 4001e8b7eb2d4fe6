//! The limits of this crate, each with its unit and reason.

use std::time::Duration;

/// Bytes of a line that is read. A longer one is counted and shown as a stand-in, never held in memory. The
/// agents' own longest lines (a pasted picture, a whole prompt) stay well below.
pub const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of lines in one page. A page that would be larger ends early and says where to go on; a single line
/// may be larger (up to [`MAX_LINE_BYTES`]) and is then a page of its own.
pub const MAX_PAGE_BYTES: u64 = 8 * 1024 * 1024;

/// Lines (or, for Gemini's events, messages) in one page.
pub const MAX_PAGE_LINES: usize = 2_000;

/// Sessions in one page of a listing, also the default.
pub const MAX_SESSIONS: usize = 1_000;

/// Bytes between two remembered line offsets of a file: what opening a page may have to read in vain.
pub(crate) const MARK_EVERY: u64 = 256 * 1024;

/// Bytes read from a file at once.
pub(crate) const CHUNK: usize = 256 * 1024;

/// Depth of nested JSON that is handed on. The same as serde_json's own limit: no reader has to recurse further.
pub(crate) const MAX_DEPTH: usize = 127;

/// Characters kept of a first prompt and of a title: enough for a list.
pub(crate) const MAX_TITLE_CHARS: usize = 300;

/// Session files of one agent that are looked at. Beyond it the rest is left out, with a warning in the log.
pub(crate) const MAX_FILES: usize = 200_000;

/// Messages of one Gemini session that are kept track of (their order needs memory): some 10 MB of index.
pub(crate) const MAX_MESSAGES: usize = 100_000;

/// Bytes of a small side file (project root, names, live session, todo list) that is read.
pub(crate) const MAX_SIDE_FILE: u64 = 4 * 1024 * 1024;

/// How long a reader of the index waits for a writer (another process has the same index open).
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Files whose new state is written in one transaction.
pub(crate) const BATCH: usize = 256;
