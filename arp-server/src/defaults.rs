//! Every limit and time of the relay, each with its unit and reason. What users may want to change is a
//! flag whose default stands here; the rest is here alone.

use std::time::Duration;

/// Port of status, metrics and the operator's page.
pub const ADMIN_PORT: u16 = 17004;
/// Connections on it, and on the socket of the command line.
pub const ADMIN_CONNS: usize = 64;
/// A shorter key of it could be guessed.
pub const ADMIN_KEY_MIN: usize = 16;

/// Idle tunnels kept ready for each client.
pub const POOL_SIZE: usize = 5;
/// Tunnels a client may have in all, idle and in use: what one client can cost a small VPS. One visitor address
/// can have half of them at a time, and half of the queue.
pub const MAX_TUNNELS: usize = 1024;
/// Requests that may wait for a tunnel of one client; more are answered 503 at once.
pub const MAX_WAITING: usize = 2048;
/// Time a request waits for a tunnel before 504.
pub const TUNNEL_WAIT: Duration = Duration::from_secs(10);
/// Time an edge has to open a tunnel that was asked for.
pub const TUNNEL_ARRIVAL: Duration = Duration::from_secs(10);
/// Time after which idle tunnels above the pool size are closed.
pub const IDLE_ABOVE_TARGET: Duration = Duration::from_secs(30);
/// A request that cannot be repeated takes a used tunnel only if it was in use this recently: the local
/// service behind a longer idle one may be closing it at this very moment (the shortest common keep-alive
/// time of web servers is 2 s).
pub const WARM: Duration = Duration::from_secs(1);
/// Time after which an exchange that waits for its own visitor makes room when others wait for a tunnel.
pub const STALLED: Duration = Duration::from_secs(5);
/// How often a request that waits looks whether one has.
pub const MAKE_ROOM_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether the visitor of a request that waits is still there.
pub const STILL_THERE: Duration = Duration::from_millis(250);
/// A visitor that closes its sending side this soon after its request has just no more to say; later, it has left.
pub const HALF_CLOSES_WITHIN: Duration = Duration::from_secs(1);
/// How often a client's pool is looked over for what no event told (asked-for tunnels that never came).
pub const POOL_REPAIR: Duration = Duration::from_secs(5);

/// Bytes of a request or response head, and of trailers.
pub const MAX_HEAD: usize = 64 * 1024;
/// Header fields of one head.
pub const MAX_FIELDS: usize = 128;
/// Time from the first byte of a request head to its last.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Time a visitor may keep a connection without a request.
pub const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Time a request body may pause.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// Time the local service may take to begin its answer. Models think for minutes; a service that hangs
/// must still be noticed some day.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Time a visitor may take no byte of an answer, or an edge none of a request.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Time an answer may go on without progress for a visitor that closed its sending side.
pub const HALF_CLOSED: Duration = Duration::from_secs(5);
/// Time and bytes that are read and thrown away so that a visitor who is still sending can see the answer.
pub const LINGER: Duration = Duration::from_secs(2);
/// See [`LINGER`].
pub const LINGER_BYTES: usize = 1024 * 1024;
/// Time left for an answer after the tunnel stopped taking the request body.
pub const ANSWER_AFTER_FAILED_UPLOAD: Duration = Duration::from_secs(5);

/// Request bodies up to this many bytes are read before a tunnel is taken: a slow sender then holds no
/// tunnel, and the request can be repeated.
pub const SMALL_BODY: usize = 16 * 1024;
/// Times one request may be given to a tunnel.
pub const MAX_ATTEMPTS: u32 = 3;

/// Bytes that are read at once at first.
pub const READ_BUF: usize = 8 * 1024;
/// Size to which the read buffer of a bulky body grows, in bytes: two records of TLS. A visitor who takes nothing holds
/// that much, so it is no more.
pub const READ_BUF_MAX: usize = 32 * 1024;
/// Bytes of an answer that are gathered before they are written.
pub const WRITE_BUF: usize = 16 * 1024;
/// What is left of a body above which it moves inside the kernel, in bytes.
pub const SPLICE_FROM: u64 = 512 * 1024;

/// Bytes in which a raw connection has to say whom it is for.
pub const MAX_PREAMBLE: usize = 2048;
/// Time an edge has to reach a local service for a raw connection: it dials for 5 s, and longer where the service is
/// restarting.
pub const OPENED: Duration = Duration::from_secs(15);
/// Time a database's visitor has to log in: twice what PostgreSQL gives.
pub const LOGIN: Duration = Duration::from_secs(120);
/// Time a raw connection may be silent. Shells and pools of database connections are for hours; who is gone is noticed
/// by other means.
pub const RAW_IDLE: Duration = Duration::from_secs(24 * 3600);

/// Time between two looks for the rest of a balancer's header.
pub const REST_OF_HEADER: Duration = Duration::from_millis(10);
/// Ports of the relay that one client may have for its services.
pub const PORTS_PER_CLIENT: usize = 8;
/// Time that a port stays reserved for an edge agent that is away: a holiday.
pub const PORT_KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// Connections one visitor address (IPv6: one /64) may have open.
pub const MAX_CONNS_PER_IP: usize = 1024;
/// Connections of all visitors together.
pub const MAX_CONNS: usize = 20_000;
/// Bytes of a request head on HTTP/2 that are read, to answer a browser that is flooded with cookies; what is longer
/// than [`MAX_HEAD`] is refused. Browsers keep some 180 cookies of 4 KiB for a site.
pub const H2_MAX_HEAD: u32 = 12 * MAX_HEAD as u32;
/// Streams one HTTP/2 connection may have open.
pub const H2_STREAMS: u32 = 128;
/// Flow control window of one HTTP/2 stream, in bytes.
pub const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// Flow control window of one HTTP/2 connection, in bytes.
pub const H2_CONN_WINDOW: u32 = 1024 * 1024;
/// Bytes of an answer that wait in memory for one HTTP/2 stream: times the streams, what a connection that reads
/// nothing costs.
pub const H2_SEND_BUFFER: usize = 32 * 1024;
/// Time that an HTTP/2 visitor has to acknowledge that no further stream is taken.
pub const H2_GOODBYE: Duration = Duration::from_secs(5);

/// Commands that may wait for an edge to read them. An edge that reads nothing loses its link.
pub const CONTROL_QUEUE: usize = 2048;
/// Time an edge has to take the commands that were written to it.
pub const CONTROL_WRITE: Duration = Duration::from_secs(10);
/// Connections on the control port, and on the proxy port, that have not yet said who they are.
pub const MAX_HANDSHAKES: usize = 4096;
/// Further tokens one client may register.
pub const MAX_EXTRA_TOKENS: usize = 64;
/// Edges of one address (IPv6: one /64) that may be registered at a time: a company's network has many, and one host
/// must not take all places ([`MAX_CLIENTS`]).
pub const MAX_EDGES_PER_IP: usize = 1024;
/// Names that one address may bind anew at once, and in each further hour. Names that are bound already cost nothing.
pub const NEW_NAMES_PER_IP: usize = 512;
/// Names that one key may hold: an edge has at most [`MAX_EXTRA_TOKENS`] at a time, and some that it gave up.
pub const MAX_NAMES_PER_KEY: usize = 4096;
/// A client that was in use and has been away for this long makes room when the table of names is full.
pub const LONG_GONE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How often it is noted that a client is still here.
pub const SEEN: Duration = Duration::from_secs(3600);
/// How often a store that could not be written to is tried again.
pub const STORE_RETRY: Duration = Duration::from_secs(10);
/// Clients that may be registered at a time.
pub const MAX_CLIENTS: usize = 10_000;
/// Clients that are remembered while they are offline.
pub const MAX_OFFLINE: usize = 10_000;

/// Time after SIGTERM in which a request that was on its way on an open connection is still taken.
pub const LAST_WORD: Duration = Duration::from_millis(250);
/// Time after the start in which a request for a client that is known and not here yet waits for it to come back.
pub const RETURN: Duration = Duration::from_secs(5);
/// Time in which everything ends that has nothing to finish.
pub const AT_ONCE: Duration = Duration::from_millis(500);
/// Time that exchanges have to finish after SIGTERM.
pub const GRACE: Duration = Duration::from_secs(30);

/// Names that can be bound to keys: some ten megabytes on disk. A flood of registrations ends here, and a relay
/// with more clients (`--max-clients`) has room for four names each.
pub const MAX_BOUND_NAMES: usize = 100_000;
/// Names that were given up and are remembered, so that nobody takes them for an application's own.
pub const MAX_GIVEN_UP: usize = 100_000;
/// Names that one address may ask for in vain before it is told to slow down. A person mistypes a few times.
pub const FREE_MISSES: f64 = 20.0;
/// Names that one address may ask for in vain before it is taken for a guesser.
pub const MAX_MISSES: f64 = 500.0;
/// Misses that are forgiven in a second.
pub const MISSES_PER_SEC: f64 = 1.0;
/// Time between two answers about names to an address that guesses: fifty a second, whatever it does. A derived
/// client id is one of 2^128; a visitor who is new there waits one such time for each connection that guesses.
pub const GUESS_TURN: Duration = Duration::from_millis(20);
/// Connections of one guessing address that may wait for their turn: all it can have.
pub const GUESS_LINE: usize = MAX_CONNS_PER_IP;
/// Names that one request of a guessing address may carry.
pub const NAMES_A_TURN: usize = 4;
/// Addresses whose misses are counted.
pub const MAX_GUESSERS: usize = 50_000;
/// Seconds after which a guesser is told to come back.
pub const GUESS_RETRY: u32 = 30;
/// Time that an edge with a wrong join key waits for its refusal.
pub const WRONG_JOIN_KEY: Duration = Duration::from_secs(1);
/// Largest file that holds a secret, in bytes.
pub const MAX_SECRET_FILE: usize = 256 * 1024;
/// Time a visitor has for a TLS handshake.
pub const PUBLIC_HANDSHAKE: Duration = Duration::from_secs(10);
