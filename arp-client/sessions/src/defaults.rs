//! Every limit and time-out of this crate, with its unit and reason.

use std::time::Duration;

/// A line of an agent longer than this many bytes is cut into several. Agents print images in one line, but
/// not films.
pub const MAX_LINE: usize = 32 * 1024 * 1024;
/// Largest frame between `arpc` and a session host: a prompt with pictures.
pub const MAX_FRAME: usize = 64 * 1024 * 1024;
/// Input lines that may wait for an agent that does not read. An agent reads at once or is stuck.
pub const HOST_INPUT_QUEUE: usize = 256;
/// A raw log over this size ends its session: something is printing without end.
pub const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024 * 1024;
/// How long a host takes to start its agent before it is given up.
pub const HOST_START: Duration = Duration::from_secs(20);
/// A host that nobody connected to for this long ends its agent: `arpc` was removed from the machine.
pub const HOST_ORPHAN: Duration = Duration::from_secs(24 * 3600);
/// After closing its input an agent has this long to finish by itself.
pub const CLOSE_GRACE: Duration = Duration::from_secs(3);
/// After SIGTERM an agent and its tools have this long.
pub const TERM_GRACE: Duration = Duration::from_secs(2);
/// After the agent's end its pipes are read until they are silent for this long: a tool that survived may hold
/// them open.
pub const DRAIN: Duration = Duration::from_millis(300);
/// A tool that survived and goes on printing is ended after this.
pub const DRAIN_WITH_TOOLS: Duration = Duration::from_secs(3);
/// How long a new host waits for the one before it to leave: longer than [`HOST_LINGER`].
pub const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How long an ended host waits for `arpc` to take notice before it leaves.
pub const HOST_LINGER: Duration = Duration::from_secs(2);

/// Sessions whose agents may be alive at once.
pub const MAX_LIVE: usize = 20;
/// Messages that may wait in one session.
pub const MAX_QUEUE: usize = 100;
/// Longest prompt in bytes.
pub const MAX_PROMPT: usize = 4 * 1024 * 1024;
/// An approval nobody answers is denied after this.
pub const APPROVAL_TIMEOUT: Duration = Duration::from_secs(3600);
/// A turn that still runs this long after it was interrupted is interrupted again.
pub const INTERRUPT_AGAIN: Duration = Duration::from_secs(2);
/// So many times.
pub const INTERRUPTS: u32 = 5;
/// A session that waits for a message for this long is parked.
pub const PARK_AFTER: Duration = Duration::from_secs(1800);
/// Ended sessions are forgotten after this.
pub const KEEP_FOR: Duration = Duration::from_secs(90 * 24 * 3600);
/// Logs of ended sessions may take this many bytes in all; the oldest go first.
pub const KEEP_BYTES: u64 = 10 * 1024 * 1024 * 1024;
/// Last bytes of standard error that are kept for error messages.
pub const STDERR_TAIL: usize = 8 * 1024;
/// Lines and events a reader gets in one go, in bytes.
pub const PAGE_BYTES: usize = 256 * 1024;
/// Global events that a reader may be behind before it gets a new snapshot.
pub const BUS_CAPACITY: usize = 1024;
