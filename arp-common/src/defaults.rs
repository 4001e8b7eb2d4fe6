//! Every limit and time that both daemons share, each with its unit and reason.

use std::time::Duration;

/// Default control port of the relay.
pub const CONTROL_PORT: u16 = 17001;
/// Default proxy (tunnel) port of the relay.
pub const PROXY_PORT: u16 = 17002;
/// Default public port of the relay.
pub const PUBLIC_PORT: u16 = 17003;

/// Largest frame on a control channel or at the head of a tunnel, in bytes. A command is a few hundred
/// bytes; the limit keeps a hostile peer from making us allocate.
pub const MAX_FRAME: usize = 64 * 1024;

/// How often each side of a version 2 control channel shows that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Heartbeats of a version 2 peer that may be missed before it is taken for dead.
pub const HEARTBEATS_MISSED: u32 = 3;

/// Time a peer has for the first frame of a connection (register, new tunnel) and for its answer.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// TCP keepalive: idle time before the first probe.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// TCP keepalive: time between probes.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// TCP keepalive: lost probes after which the connection is dead (15 + 3 × 10 = 45 s).
pub const KEEPALIVE_PROBES: u32 = 3;
/// Time that sent bytes may stay unacknowledged before the kernel gives the connection up.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(45);
/// The same where a peer may stop taking bytes, which the kernel does not tell from one that is gone. A reader may
/// pause for minutes: the relay's own limit for that is ten, and this lies above it.
pub const TCP_PAUSE_TIMEOUT: Duration = Duration::from_secs(11 * 60);

/// Accept backlog: a burst of visitors, or of tunnels that were all asked for at once, waits in the kernel
/// and is not refused.
pub const LISTEN_BACKLOG: i32 = 4096;

/// First pause of an accept loop that ran out of file descriptors; doubles up to [`ACCEPT_BACKOFF_MAX`].
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(10);
/// Longest pause of an accept loop that ran out of file descriptors.
pub const ACCEPT_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Bytes that one thread reads at a time when copying (its scratch buffer). One buffer a thread, none a
/// connection: an idle pair of streams holds no memory.
pub const COPY_CHUNK: usize = 64 * 1024;
/// Bytes that must have moved in one direction, in pieces of at least [`COPY_CHUNK`] between two pauses, before copying
/// turns to splice(2): below it the pipe costs more than the copy saves.
pub const SPLICE_AFTER: u64 = 256 * 1024;
/// Size asked for a splice pipe, in bytes: the kernel's default limit for unprivileged users.
pub const SPLICE_PIPE: usize = 1024 * 1024;

/// Largest file that holds a certificate chain or its key, in bytes.
pub const MAX_CERTIFICATE_FILE: usize = 256 * 1024;
/// How often certificate files are looked at for a change.
pub const CERTIFICATE_POLL: Duration = Duration::from_secs(2);
