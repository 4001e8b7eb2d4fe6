//! Every limit and time of the edge agent, each with its unit and reason.

use std::time::Duration;

/// Shortest upper bound of the pause before a reconnect; doubles with each failure.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(500);
/// Default longest pause before a reconnect, in seconds.
pub const RECONNECT_INTERVAL: u64 = 5;
/// Time for which the very first connection is tried before arpc gives up: a relay that is started at the
/// same moment is met, a wrong address is told soon.
pub const FIRST_CONNECT: Duration = Duration::from_secs(10);
/// Time for one TCP connection to the relay.
pub const DIAL: Duration = Duration::from_secs(10);
/// Time for a relay to answer that a raw connection stands: it waits for a tunnel and for the service.
pub const CONNECT: Duration = Duration::from_secs(60);
/// Tunnels that the relay may have us hold at a time: more than any pool needs, few enough for a laptop.
pub const MAX_TUNNELS: usize = 4096;
/// Tunnels that are dialed at a time; more wait their turn.
pub const MAX_DIALS: usize = 128;

/// Time for one connection to the local service.
pub const LOCAL_DIAL: Duration = Duration::from_secs(5);
/// A local service that answered this recently and now refuses is taken to be restarting …
pub const RESTARTING: Duration = Duration::from_secs(30);
/// … and is tried again for this long …
pub const RESTART_PATIENCE: Duration = Duration::from_secs(3);
/// … in steps of this.
pub const RESTART_STEP: Duration = Duration::from_millis(50);
/// Time and bytes that a request is read for after it was refused, so that the refusal is seen.
pub const LINGER: Duration = Duration::from_secs(2);
/// See [`LINGER`].
pub const LINGER_BYTES: u64 = 1024 * 1024;

/// How often we tell a relay of version 1 that we are here: there is no heartbeat in version 1, and relays are known
/// that forget who is silent for 90 s.
pub const RENEW: Duration = Duration::from_secs(30);
/// A relay that closes within this time after it was told has not liked it.
pub const RENEW_REFUSED: Duration = Duration::from_secs(5);
/// Time in which tunnels end that have nothing to finish.
pub const AT_ONCE: Duration = Duration::from_millis(500);
/// Time that exchanges have to finish after SIGTERM.
pub const GRACE: Duration = Duration::from_secs(10);
/// Port of the MCP server.
pub const MCP_PORT: u16 = 9021;
