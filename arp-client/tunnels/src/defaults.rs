//! Every limit and time of tunnels, each with its unit and reason.

use std::time::Duration;

/// Local port that is exposed where nothing says another.
pub(crate) const LOCAL_PORT: u16 = 3000;
/// Pause between looks at the health of a tunnel.
pub(crate) const HEALTH_INTERVAL: Duration = Duration::from_secs(30);
/// Failed looks in a row after which a tunnel is restarted.
pub(crate) const MAX_FAILURES: u32 = 3;
/// Restarts in a row after which it is given up.
pub(crate) const MAX_ATTEMPTS: u32 = 10;
/// Shortest pause before a restart.
pub(crate) const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// Longest pause before a restart.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// After this long in good health failed tries are forgotten.
pub(crate) const HEALTHY: Duration = Duration::from_secs(60);

/// Time a program has to say that its tunnel is up, if its own table says nothing else.
pub(crate) const START: Duration = Duration::from_secs(30);
/// The same for a command of the user's own.
pub(crate) const CUSTOM_START: Duration = Duration::from_secs(15);
/// A quick tunnel that has no connection over QUIC after this is tried over HTTP/2: UDP is blocked.
pub(crate) const QUIC: Duration = Duration::from_secs(10);
/// A service that refuses because it is asked too often is left alone for this long.
pub(crate) const RATE_LIMITED: Duration = Duration::from_secs(180);
/// Time for one short command (`tailscale status`).
pub(crate) const SHORT_COMMAND: Duration = Duration::from_secs(15);
/// Longest output of such a command, in bytes.
pub(crate) const COMMAND_OUTPUT: u64 = 1024 * 1024;
/// Time between SIGTERM and SIGKILL.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// Time beyond that after which the guard itself is taken to be stuck.
pub(crate) const GUARD: Duration = Duration::from_secs(15);

/// Lines of a program's output that are kept.
pub(crate) const LOG_LINES: usize = 200;
/// Longest part of a line that is looked at and kept, in bytes.
pub(crate) const LINE: usize = 4096;

/// Time for one request to the public URL.
pub(crate) const PROBE: Duration = Duration::from_secs(10);
/// After the backend says that it is up, the public URL has this long to lead to us.
pub(crate) const PROBE_PATIENCE: Duration = Duration::from_secs(45);
/// A public URL that nothing answers at has this long: new names take a while to be known.
pub(crate) const UNREACHABLE_PATIENCE: Duration = Duration::from_secs(20);
/// First pause between probes while it comes up; doubles.
pub(crate) const PROBE_STEP: Duration = Duration::from_millis(250);
/// Longest pause between probes while it comes up.
pub(crate) const PROBE_STEP_MAX: Duration = Duration::from_secs(4);
/// Time for one question to a readiness endpoint on this machine.
pub(crate) const READINESS: Duration = Duration::from_secs(5);
/// Longest answer that is read whole, in bytes.
pub(crate) const ANSWER: usize = 1024 * 1024;

/// Connections that the front holds at a time; more wait in the kernel.
pub(crate) const CONNECTIONS: usize = 1024;
/// A head has to arrive within this on a connection from the tunnel. Longer than its programs keep idle connections
/// (cloudflared: 90 s), so that they close first.
pub(crate) const HEAD: Duration = Duration::from_secs(120);
/// Time for one connection to the local service.
pub(crate) const LOCAL_DIAL: Duration = Duration::from_secs(5);
/// Requests under way have this long to finish when a tunnel ends.
pub(crate) const DRAIN: Duration = Duration::from_secs(3);
