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
/// A host whose `arpc` has this many bytes of the log still to read makes the agent wait.
pub const BACKLOG: u64 = 16 * 1024 * 1024;
/// After each input an agent may print this many bytes as fast as it can …
pub const FREE_OUTPUT: u64 = 512 * 1024 * 1024;
/// … and then this many a second: what prints more is printing without end.
pub const OUTPUT_RATE: u64 = 2 * 1024 * 1024;
/// A full disk is tried again this often.
pub const FULL_RETRY: Duration = Duration::from_millis(500);
/// How long a host takes to start its agent before it is given up.
pub const HOST_START: Duration = Duration::from_secs(60);
/// Longest reply of a host that was started, in bytes: a word, or why not.
pub const HOST_REPLY: u64 = 64 * 1024;
/// A host that nobody connected to for this long ends its agent: `arpc` was removed from the machine.
pub const HOST_ORPHAN: Duration = Duration::from_secs(24 * 3600);
/// After closing its input an agent has this long to finish by itself.
pub const CLOSE_GRACE: Duration = Duration::from_millis(1200);
/// After SIGTERM an agent and its tools have this long.
pub const TERM_GRACE: Duration = Duration::from_millis(800);
/// A host that was told to stop and has not ended its agent after this is ended itself. Longer than the graces
/// together, and within the five seconds that a cancel may take.
pub const STOP_DEADLINE: Duration = Duration::from_millis(3500);
const _: () = assert!(
    STOP_DEADLINE.as_millis() > CLOSE_GRACE.as_millis() + TERM_GRACE.as_millis()
        && STOP_DEADLINE.as_millis() < 4500
);
/// An agent that is parked has this long after its input was closed: nobody waits, and it may have to save.
pub const PARK_GRACE: Duration = Duration::from_secs(5);
/// And its host this long.
pub const PARK_DEADLINE: Duration = Duration::from_secs(12);
/// A host that lives and cannot be reached for this long is ended: its socket is gone, or it is stuck.
pub const HOST_UNREACHABLE: Duration = Duration::from_secs(3);
/// After the agent's end its pipes are read until they are silent for this long: a tool that survived may hold
/// them open.
pub const DRAIN: Duration = Duration::from_millis(300);
/// A tool that survived and goes on printing is ended after this.
pub const DRAIN_WITH_TOOLS: Duration = Duration::from_secs(1);
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
/// A decision, or a change of mode, whose effect does not show in the log within this is answered all the same.
pub const EFFECT_PATIENCE: Duration = Duration::from_secs(4);
/// An approval that was asked before a restart waits for at least this long after it (or its whole time, if that
/// is shorter): a clock that jumped expires nothing.
pub const APPROVAL_FLOOR: Duration = Duration::from_secs(60);
/// A turn that still runs this long after it was interrupted is interrupted again.
pub const INTERRUPT_AGAIN: Duration = Duration::from_secs(2);
/// So many times.
pub const INTERRUPTS: u32 = 5;
/// A start is put off by no more than this (Gemini opens a session once a minute); what is further ahead was written
/// before the clock was set back.
pub const PUT_OFF: Duration = Duration::from_secs(120);
/// A session that waits for a message for this long is parked.
pub const PARK_AFTER: Duration = Duration::from_secs(1800);
/// Ended sessions are forgotten after this.
pub const KEEP_FOR: Duration = Duration::from_secs(90 * 24 * 3600);
/// So many of the newest sessions are kept however old they are.
pub const KEEP_NEWEST: usize = 20;
/// Logs of ended sessions may take this many bytes in all; the oldest go first.
pub const KEEP_BYTES: u64 = 10 * 1024 * 1024 * 1024;
/// Last bytes of standard error that are kept for error messages.
pub const STDERR_TAIL: usize = 8 * 1024;
/// Lines and events a reader gets in one go, in bytes.
pub const PAGE_BYTES: usize = 256 * 1024;
/// Global events that a reader may be behind before it gets a new snapshot.
pub const BUS_CAPACITY: usize = 1024;
