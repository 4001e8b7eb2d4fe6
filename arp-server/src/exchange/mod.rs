//! One request and its answer, through one tunnel (or a second one, if the first was dead).
//!
//! The same code serves HTTP/1 and HTTP/2 visitors: they differ in where a body comes from
//! ([`RequestBody`]) and where an answer goes ([`Responder`]).

use crate::shared::Public;
pub mod deadline;
pub(crate) mod origin;
pub mod poll_io;
pub mod rewrite;

use crate::answer::{Refusal, Who};
use crate::defaults as d;
use crate::exchange::deadline::Deadline;
use crate::exchange::origin::Origin;
use crate::exchange::poll_io::{poll_fill, poll_write};
use crate::exchange::rewrite::Added;
use crate::http::body::{BadBody, Decoder, Piece, put_chunk_size, put_last_chunk};
use crate::http::head::{Framing, RequestHead, ResponseHead};
use crate::http::scan::{Scan, Scanner};
use crate::registry::Client;
use crate::routing::Route;
use crate::shared::Visitor;
use crate::tunnels::pool::{Tunnel, Want};
use arp_common::protocol::{Command, TunnelKind};
use arp_common::splice::{Moved, Pipe};
use arp_common::transport::{ReadHalf, WriteHalf};
use bytes::{Bytes, BytesMut};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;

/// Why no more of a request body comes.
#[derive(Debug)]
pub enum BodyError {
    /// The visitor has gone.
    Gone(io::Error),
    /// Its framing is broken.
    Bad(BadBody),
    /// It paused for too long.
    Slow,
}

/// Where a visitor's request body comes from.
pub trait RequestBody {
    /// The next piece.
    fn next(&mut self) -> impl Future<Output = Result<Piece, BodyError>> + Send;
    /// After the body: waits until the visitor closes its side (`true`) or is gone (`false`).
    fn closed(&mut self) -> impl Future<Output = bool> + Send;
    /// The socket that the rest of the body can be taken from directly, and how much that is.
    fn direct(&self) -> Option<(&TcpStream, u64)>;
    /// So much was taken directly.
    fn skip(&mut self, n: u64);
}

/// Where an answer goes.
pub trait Responder {
    /// An interim answer (1xx).
    fn interim(&mut self, head: &ResponseHead) -> impl Future<Output = io::Result<()>> + Send;
    /// The head of the final answer.
    fn head(
        &mut self,
        head: &ResponseHead,
        framing: Framing,
        added: Added<'_>,
    ) -> impl Future<Output = io::Result<()>> + Send;
    /// Bytes of the body. They may be kept back until [`Responder::flush`].
    fn data(&mut self, data: Bytes) -> impl Future<Output = io::Result<()>> + Send;
    /// Sends what was kept back.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send;
    /// The end of the body.
    fn end(
        &mut self,
        trailers: Option<crate::http::body::Trailers>,
    ) -> impl Future<Output = io::Result<()>> + Send;
    /// Ready when the visitor no longer wants the answer, where that can be known here.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// The socket that body bytes can be given to directly.
    fn direct(&self) -> Option<&TcpStream>;
    /// Can it change to another protocol?
    fn can_switch(&self) -> bool;
}

/// A request on its way.
pub struct Request<'a> {
    /// As the visitor sent it.
    pub head: &'a RequestHead,
    /// Whom it is for.
    pub route: &'a Route<Arc<Client>>,
    /// Who sent it.
    pub visitor: Visitor,
    /// Address for the edge's logs.
    pub peer: SocketAddr,
    /// Is only a change of protocol wanted? Any other answer is [`Outcome::Declined`].
    pub trial: bool,
}

impl Request<'_> {
    /// Where the answer will be shown.
    fn origin<'a>(&'a self, public: &'a Public) -> Origin<'a> {
        Origin {
            client: &self.route.client.id,
            own: self.route.own_origin,
            host: self.visitor.host(self.head),
            domain: public.limits.domain.as_deref(),
        }
    }
}

/// How an exchange ended.
pub enum Outcome {
    /// The answer is complete. `body_read` tells whether the request body was, too.
    Done {
        /// Was the request body read to its end?
        body_read: bool,
    },
    /// Both sides change to another protocol: the head of the 101 answer, not yet sent.
    Switch(Box<ResponseHead>, Box<Tunnel>),
    /// The client gave another answer than the change of protocol it was tried for.
    Declined,
    /// No answer has begun: this one is to be given.
    Refused {
        /// What to say.
        refusal: Refusal,
        /// Was the request body read to its end?
        body_read: bool,
    },
    /// The answer broke off, or the visitor has gone: the connection (or stream) ends as a failure.
    Broken,
}

/// What went wrong on the way back.
enum DownError {
    /// The tunnel ended or failed.
    Tunnel(&'static str, Option<io::Error>),
    /// The local service does not speak HTTP.
    NotHttp(&'static str),
    /// It did not answer in time.
    Silent,
    /// It does not change protocols, and was only asked whether it would.
    Declined,
    /// The visitor took no more of the answer.
    Visitor,
}

/// What both directions of an exchange tell each other. One task runs both, so no order between the
/// fields is needed; they are atomic only because tasks move between threads.
#[derive(Default)]
struct Progress {
    /// The request body has been sent in full.
    body_sent: AtomicBool,
    /// Anything came back.
    heard: AtomicBool,
    /// The head of the final answer has been given to the visitor.
    answered: AtomicBool,
    /// Counts whatever moves in either direction.
    steps: AtomicU64,
}

impl Progress {
    fn step(&self) {
        self.steps.fetch_add(1, Relaxed);
    }
}

enum UpEnd {
    /// The visitor has closed its sending side.
    HalfClosed,
    Gone,
    Bad(BadBody),
    Slow,
    /// The edge takes no more.
    Tunnel,
}

enum Down {
    Done { reusable: bool },
    Switch(Box<ResponseHead>),
}

/// Carries a request to its client and the answer back. `deadline` is the one of the answer; a connection keeps
/// it from one exchange to the next.
pub async fn run<B: RequestBody, R: Responder>(
    public: &Public,
    request: Request<'_>,
    body: &mut B,
    responder: &mut R,
    deadline: &mut Deadline,
) -> Outcome {
    let head = request.head;
    // A small body is read first: a slow sender holds no tunnel, and the request can be repeated.
    let mut small = None;
    if let Framing::Length(n) = head.framing
        && n <= d::SMALL_BODY as u64
        && !head.expects_continue()
    {
        match gather(body, n as usize).await {
            Ok(bytes) => small = Some(bytes),
            Err(BodyError::Gone(_)) => return Outcome::Broken,
            Err(BodyError::Bad(e)) => return refused(bad_body(e), false),
            Err(BodyError::Slow) => return refused(slow_body(), false),
        }
    }
    let in_memory = head.framing == Framing::None || small.is_some();
    let repeatable = in_memory && head.is_idempotent();
    let mut bytes = BytesMut::new();
    rewrite::put_request(
        &mut bytes,
        head,
        request.route,
        &request.visitor,
        &request.origin(public),
    );
    if let Some(small) = &small {
        bytes.extend_from_slice(small);
    }
    let bytes = bytes.freeze();

    let pool = &request.route.client.pool;
    let mut want = if repeatable { Want::Any } else { Want::Safe };
    for attempt in 1.. {
        let mut tunnel = match pool.checkout(want).await {
            Ok(tunnel) => tunnel,
            Err(e) => return refused(Refusal::no_tunnel(e), in_memory),
        };
        let progress = Progress::default();
        progress.body_sent.store(in_memory, Relaxed);
        if let Err(untouched) = send_head(&mut tunnel, &bytes, request.peer).await {
            if attempt < d::MAX_ATTEMPTS && (untouched || repeatable) {
                want = Want::Fresh;
                continue;
            }
            return refused(
                broken_tunnel("the tunnel closed while the request was sent"),
                in_memory,
            );
        }
        match attempt_once(
            public,
            &request,
            &mut tunnel,
            body,
            responder,
            &progress,
            deadline,
        )
        .await
        {
            Ok(Down::Switch(answer)) => return Outcome::Switch(answer, Box::new(tunnel)),
            Ok(Down::Done { reusable }) => {
                let body_read = progress.body_sent.load(Relaxed);
                if reusable && body_read {
                    pool.checkin(tunnel);
                }
                return Outcome::Done { body_read };
            }
            Err(failure) => {
                tunnel.wr.reset_on_drop();
                drop(tunnel);
                let dead =
                    matches!(failure, Failure::Down(DownError::Tunnel(..))) && !progress.heard.load(Relaxed);
                if dead && repeatable && attempt < d::MAX_ATTEMPTS {
                    want = Want::Fresh;
                    continue;
                }
                if progress.answered.load(Relaxed) {
                    return Outcome::Broken;
                }
                if matches!(failure, Failure::Down(DownError::Declined)) {
                    return Outcome::Declined;
                }
                return match refusal_of(failure) {
                    Some(refusal) => refused(refusal, progress.body_sent.load(Relaxed)),
                    None => Outcome::Broken,
                };
            }
        }
    }
    Outcome::Broken
}

enum Failure {
    Down(DownError),
    Up(UpEnd),
}

fn refused(refusal: Refusal, body_read: bool) -> Outcome {
    Outcome::Refused { refusal, body_read }
}

/// What the visitor is told, if it is still there.
fn refusal_of(failure: Failure) -> Option<Refusal> {
    Some(match failure {
        Failure::Up(UpEnd::Bad(e)) => bad_body(e),
        Failure::Up(UpEnd::Slow) => slow_body(),
        Failure::Up(UpEnd::Tunnel) => broken_tunnel("the tunnel closed while the request body was sent"),
        Failure::Up(UpEnd::HalfClosed | UpEnd::Gone)
        | Failure::Down(DownError::Visitor | DownError::Declined) => return None,
        Failure::Down(DownError::Tunnel(what, error)) => match error {
            // An orderly end comes from the local service; a failure, from the way there.
            None => Refusal::new(Who::LocalService, 502, "no_answer", what),
            Some(e) => broken_tunnel(&format!("{what} ({e})")),
        },
        Failure::Down(DownError::NotHttp(what)) => {
            let message = format!("the local service did not give a valid HTTP answer: {what}");
            Refusal::new(Who::LocalService, 502, "bad_answer", message)
        }
        Failure::Down(DownError::Silent) => Refusal::new(
            Who::LocalService,
            504,
            "answer_timeout",
            "the local service did not answer in time",
        ),
    })
}

fn bad_body(e: BadBody) -> Refusal {
    Refusal::new(
        Who::Visitor,
        400,
        "bad_body",
        format!("the request body cannot be understood: {e}"),
    )
}

fn slow_body() -> Refusal {
    Refusal::new(
        Who::Visitor,
        408,
        "slow_body",
        "the request body paused for too long",
    )
}

fn broken_tunnel(what: &str) -> Refusal {
    Refusal::new(
        Who::Edge,
        502,
        "tunnel_failed",
        format!("{what}; the edge agent may be reconnecting, try again"),
    )
}

/// Reads a body of known, small length.
async fn gather<B: RequestBody>(body: &mut B, len: usize) -> Result<Bytes, BodyError> {
    let mut all = BytesMut::new();
    loop {
        match body.next().await? {
            // The usual case, one piece, is not copied.
            Piece::Data(data) if all.is_empty() && data.len() == len => {
                return match body.next().await? {
                    Piece::End(_) => Ok(data),
                    Piece::Data(_) => Err(BodyError::Bad(BadBody("longer than its Content-Length"))),
                };
            }
            Piece::Data(data) if all.len() + data.len() > len => {
                return Err(BodyError::Bad(BadBody("longer than its Content-Length")));
            }
            Piece::Data(data) => all.extend_from_slice(&data),
            Piece::End(_) if all.len() == len => return Ok(all.freeze()),
            Piece::End(_) => return Err(BodyError::Bad(BadBody("shorter than its Content-Length"))),
        }
    }
}

/// Sends the head (and a small body). The error tells whether not a byte of it can have been seen.
async fn send_head(tunnel: &mut Tunnel, bytes: &Bytes, peer: SocketAddr) -> Result<(), bool> {
    let mut out = BytesMut::new();
    if tunnel.version >= 2 && tunnel.uses == 0 {
        let open = Command::Open {
            kind: TunnelKind::Http,
            peer_addr: Some(peer),
        };
        out.extend_from_slice(&open.encode().map_err(|_| true)?);
    }
    let (mut data, total) = (bytes.clone(), out.len() + bytes.len());
    let mut deadline = Deadline::default();
    deadline.set(d::WRITE_TIMEOUT);
    let sent = deadline
        .run(|cx| poll_write(&mut tunnel.wr, &mut out, &mut data, cx))
        .await;
    sent.map_err(|_| out.len() + data.len() == total)
}

/// One try, through one tunnel.
async fn attempt_once<B: RequestBody, R: Responder>(
    public: &Public,
    request: &Request<'_>,
    tunnel: &mut Tunnel,
    body: &mut B,
    responder: &mut R,
    progress: &Progress,
    deadline: &mut Deadline,
) -> Result<Down, Failure> {
    let Tunnel { rd, wr, buf, .. } = tunnel;
    let framing = request.head.framing;
    let down = async {
        let mut down = DownStream {
            rd,
            buf,
            progress,
            deadline,
        };
        down.run(public, request, responder).await
    };
    let up = async {
        if !progress.body_sent.load(Relaxed)
            && let Err(end) = upload(body, wr, framing, progress).await
        {
            return end;
        }
        progress.body_sent.store(true, Relaxed);
        if body.closed().await {
            UpEnd::HalfClosed
        } else {
            UpEnd::Gone
        }
    };
    let (mut down, mut up) = (pin!(down), pin!(up));
    let mut ended: Option<UpEnd> = None;
    loop {
        // How long the answer may go on after the way up has ended, as long as something moves.
        let patience = match &ended {
            None => None,
            Some(UpEnd::HalfClosed) => Some(d::HALF_CLOSED),
            Some(_) => Some(d::ANSWER_AFTER_FAILED_UPLOAD),
        };
        let steps = progress.steps.load(Relaxed);
        tokio::select! {
            biased;
            done = &mut down => return done.map_err(Failure::Down),
            end = &mut up, if ended.is_none() => match end {
                UpEnd::HalfClosed | UpEnd::Tunnel => ended = Some(end),
                _ => return Err(Failure::Up(end)),
            },
            () = sleep(patience), if patience.is_some() => {
                if progress.steps.load(Relaxed) == steps {
                    return Err(Failure::Up(ended.take().unwrap_or(UpEnd::Gone)));
                }
            }
        }
    }
}

async fn sleep(time: Option<Duration>) {
    tokio::time::sleep(time.unwrap_or_default()).await;
}

/// Sends a request body, framed as the head said.
async fn upload<B: RequestBody>(
    body: &mut B,
    wr: &mut WriteHalf,
    framing: Framing,
    progress: &Progress,
) -> Result<(), UpEnd> {
    let mut left = match framing {
        Framing::Length(n) => Some(n),
        _ => None,
    };
    let mut out = BytesMut::new();
    let mut deadline = Deadline::default();
    loop {
        if let (Some((src, n)), Some(dst)) = (body.direct(), wr.plain())
            && n >= d::SPLICE_FROM
            && let Some(mut pipe) = Pipe::new()
        {
            let mut moved = 0;
            let end = splice(&mut pipe, src, dst, n, &mut moved, progress).await;
            body.skip(moved);
            left = left.map(|l| l - moved);
            match end {
                Ok(Moved::All) => {}
                Ok(Moved::SourceEnded) => return Err(UpEnd::Gone),
                // Which of the two failed shows when it is used next.
                Err(e) if e.kind() == io::ErrorKind::TimedOut => return Err(UpEnd::Slow),
                Err(_) => return Err(UpEnd::Tunnel),
            }
        }
        let mut data = Bytes::new();
        let mut done = false;
        match body.next().await {
            Ok(Piece::Data(piece)) => match &mut left {
                None => {
                    put_chunk_size(&mut out, piece.len());
                    data = piece;
                }
                Some(left) => {
                    let Some(rest) = left.checked_sub(piece.len() as u64) else {
                        return Err(UpEnd::Bad(BadBody("longer than its Content-Length")));
                    };
                    *left = rest;
                    data = piece;
                }
            },
            Ok(Piece::End(trailers)) => {
                match left {
                    None => put_last_chunk(&mut out, trailers.as_ref()),
                    Some(0) => {}
                    Some(_) => return Err(UpEnd::Bad(BadBody("shorter than its Content-Length"))),
                }
                done = true;
            }
            Err(BodyError::Bad(e)) => return Err(UpEnd::Bad(e)),
            Err(BodyError::Gone(_)) => return Err(UpEnd::Gone),
            Err(BodyError::Slow) => return Err(UpEnd::Slow),
        }
        progress.step();
        deadline.set(d::WRITE_TIMEOUT);
        deadline
            .run(|cx| poll_write(wr, &mut out, &mut data, cx))
            .await
            .map_err(|_| UpEnd::Tunnel)?;
        if done {
            return Ok(());
        }
        if left.is_none() {
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Moves `n` bytes inside the kernel, giving up when nothing moves for too long.
async fn splice(
    pipe: &mut Pipe,
    src: &TcpStream,
    dst: &TcpStream,
    n: u64,
    moved: &mut u64,
    progress: &Progress,
) -> io::Result<Moved> {
    let seen = AtomicU64::new(0);
    let mut count = 0;
    let mut moving = pin!(async {
        let mut want = n;
        std::future::poll_fn(|cx| {
            let done = pipe.poll_move(cx, src, dst, &mut want, &mut count);
            seen.store(count, Relaxed);
            progress.step();
            done
        })
        .await
    });
    let result = loop {
        let before = seen.load(Relaxed);
        tokio::select! {
            biased;
            done = &mut moving => break done,
            () = tokio::time::sleep(d::WRITE_TIMEOUT) => if seen.load(Relaxed) == before {
                break Err(io::ErrorKind::TimedOut.into());
            }
        }
    };
    *moved = seen.load(Relaxed);
    result
}

/// The way back.
struct DownStream<'a> {
    rd: &'a mut ReadHalf,
    buf: &'a mut BytesMut,
    progress: &'a Progress,
    deadline: &'a mut Deadline,
}

impl DownStream<'_> {
    async fn run<R: Responder>(
        &mut self,
        public: &Public,
        request: &Request<'_>,
        responder: &mut R,
    ) -> Result<Down, DownError> {
        let head = loop {
            let mut head = self.read_head(public.limits.response_timeout, responder).await?;
            request.origin(public).confine(&mut head);
            match head.status {
                101 if request.head.upgrade().is_some() && responder.can_switch() => {
                    return Ok(Down::Switch(Box::new(head)));
                }
                101 => return Err(DownError::NotHttp("101 to a request that did not ask for it")),
                200.. if request.trial => return Err(DownError::Declined),
                100..=199 => responder.interim(&head).await.map_err(|_| DownError::Visitor)?,
                _ => break head,
            }
        };
        let method = request.head.method();
        let framing = head.framing(method).map_err(|e| DownError::NotHttp(e.text))?;
        let secure = request.visitor.scheme(request.head) == "https";
        let cookie = request.route.set_cookie.as_ref();
        let cookie = cookie.map(|value| rewrite::cookie(value, secure));
        let added = Added {
            cookie: cookie.as_deref(),
            vary: request.route.vary,
        };
        self.progress.answered.store(true, Relaxed);
        responder
            .head(&head, framing, added)
            .await
            .map_err(|_| DownError::Visitor)?;
        self.body(framing, responder).await?;
        let reusable = head.keep_alive() && framing != Framing::UntilEof;
        Ok(Down::Done { reusable })
    }

    async fn read_head<R: Responder>(
        &mut self,
        time: Duration,
        responder: &mut R,
    ) -> Result<ResponseHead, DownError> {
        let mut scanner = Scanner::default();
        self.deadline.set(time);
        loop {
            match scanner.scan(self.buf, false) {
                Scan::Complete(n) => {
                    let block = self.buf.split_to(n).freeze();
                    self.deadline.clear();
                    return ResponseHead::parse(block).map_err(|e| DownError::NotHttp(e.text));
                }
                Scan::Partial if self.buf.len() >= d::MAX_HEAD => {
                    return Err(DownError::NotHttp("its head is too long"));
                }
                Scan::Partial | Scan::BareLf => {}
            }
            if self.fill(responder).await? == 0 {
                return Err(DownError::Tunnel(
                    "the local service closed the connection without an answer",
                    None,
                ));
            }
        }
    }

    async fn body<R: Responder>(&mut self, framing: Framing, responder: &mut R) -> Result<(), DownError> {
        let mut decoder = Decoder::new(framing);
        loop {
            match decoder.decode(self.buf).map_err(|e| DownError::NotHttp(e.0))? {
                Some(Piece::Data(data)) => {
                    self.progress.step();
                    responder.data(data).await.map_err(|_| DownError::Visitor)?;
                    continue;
                }
                Some(Piece::End(trailers)) => {
                    return responder.end(trailers).await.map_err(|_| DownError::Visitor);
                }
                None => responder.flush().await.map_err(|_| DownError::Visitor)?,
            }
            if let (Some(n), Some(src), Some(dst)) =
                (decoder.plain_rest(), self.rd.plain(), responder.direct())
                && n >= d::SPLICE_FROM
                && let Some(mut pipe) = Pipe::new()
            {
                let mut moved = 0;
                let end = splice(&mut pipe, src, dst, n, &mut moved, self.progress).await;
                decoder.skip(moved);
                match end {
                    Ok(Moved::All) => continue,
                    Ok(Moved::SourceEnded) => return Err(cut()),
                    Err(_) => return Err(DownError::Visitor),
                }
            }
            if self.fill(responder).await? == 0 {
                if !decoder.may_end_here() {
                    return Err(cut());
                }
                return responder.end(None).await.map_err(|_| DownError::Visitor);
            }
        }
    }

    /// Reads more from the tunnel, or notices that nobody wants it any more.
    async fn fill<R: Responder>(&mut self, responder: &mut R) -> Result<usize, DownError> {
        let Self {
            rd, buf, deadline, ..
        } = self;
        let read = deadline.run(|cx| {
            if let Poll::Ready(read) = poll_fill(rd, buf, cx) {
                return Poll::Ready(read.map(Some));
            }
            responder.poll_gone(cx).map(|()| Ok(None))
        });
        match read.await {
            Ok(Some(n)) => {
                if n > 0 {
                    self.progress.heard.store(true, Relaxed);
                    self.progress.step();
                }
                Ok(n)
            }
            Ok(None) => Err(DownError::Visitor),
            Err(e) if e.kind() == io::ErrorKind::TimedOut && self.deadline.passed() => Err(DownError::Silent),
            Err(e) => Err(DownError::Tunnel(
                "the tunnel failed before the answer was complete",
                Some(e),
            )),
        }
    }
}

fn cut() -> DownError {
    DownError::Tunnel(
        "the local service closed the connection in the middle of its answer",
        None,
    )
}
