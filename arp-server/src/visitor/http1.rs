//! One HTTP/1 connection of a visitor: request after request, each routed by itself.

use crate::answer::{Refusal, Rendered, Who};
use crate::defaults as d;
use crate::exchange::deadline::Deadline;
use crate::exchange::poll_io::{Outgoing, Room, poll_fill, take_head};
use crate::exchange::rewrite::{self, Added, AnswerForm};
use crate::exchange::{self, BodyError, Outcome, Request, RequestBody, Responder};
use crate::http::body::{BadBody, Decoder, Encoder, Piece, Trailers};
use crate::http::scan::{Scan, Scanner};
use crate::http::{BadHead, Framing, RequestHead, ResponseHead};
use crate::registry::Client;
use crate::routing::Route;
use crate::shared::Public;
use crate::shared::Visitor;
use crate::tcp::{Line, connect};
use crate::tunnels::lease::Leased;
use arp_common::duplex::{self, Transferred};
use arp_common::stop::{Given, Stop};
use arp_common::transport::{Joined, ReadHalf, WriteHalf};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// One connection.
pub(crate) struct Connection {
    public: Arc<Public>,
    visitor: Visitor,
    peer: SocketAddr,
    rd: ReadHalf,
    wr: WriteHalf,
    buf: BytesMut,
    deadline: Deadline,
    answer_deadline: Deadline,
}

/// What a connection does after a request.
enum Next {
    /// Waits for another.
    Request,
    /// Ends, once the visitor has seen the answer.
    Close,
    /// Ends as a failure.
    Abort,
    /// Carries another protocol.
    Switch(Box<Leased>),
}

impl Connection {
    /// A connection whose first bytes, `buf`, were read already.
    pub(crate) fn new(
        public: Arc<Public>,
        visitor: Visitor,
        peer: SocketAddr,
        rd: ReadHalf,
        wr: WriteHalf,
        buf: BytesMut,
    ) -> Self {
        Self {
            public,
            visitor,
            peer,
            rd,
            wr,
            buf,
            deadline: Deadline::default(),
            answer_deadline: Deadline::default(),
        }
    }

    /// Serves it until it ends. After `stop` no further request is taken; `stopped` waits for that.
    pub(crate) async fn serve(mut self, stop: &Stop, mut stopped: Given) {
        loop {
            let next = match self.read_head(&mut stopped).await {
                // Its bytes are nobody's to be read from here on.
                Ok(Some(block)) if connect::is_connect(&block) => {
                    return Box::pin(connect::serve(self.into_line(), &block)).await;
                }
                // On the heap: most connections wait for a request most of the time, and need no room for one then.
                Ok(Some(block)) => Box::pin(self.exchange(block, stop)).await,
                Ok(None) => return,
                Err(bad) => self.refuse_head(bad).await,
            };
            match next {
                Next::Request => {}
                Next::Close => return Box::pin(self.linger()).await,
                Next::Abort => return self.wr.begin(),
                Next::Switch(tunnel) => return Box::pin(self.switch(*tunnel)).await,
            }
        }
    }

    /// The connection, for another protocol.
    fn into_line(self) -> Line {
        Line {
            public: self.public,
            visitor: self.visitor,
            peer: self.peer,
            rd: self.rd,
            wr: self.wr,
            buf: self.buf,
            deadline: self.deadline,
        }
    }

    /// The bytes of the next request head, or `None` when no further request comes.
    async fn read_head(&mut self, stopped: &mut Given) -> Result<Option<Bytes>, BadHead> {
        let mut scanner = Scanner::default();
        let mut begun = false;
        self.deadline.set(self.public.limits.keep_alive);
        loop {
            // Empty lines in front of a request are skipped (RFC 9112 §2.2), however they are cut.
            while !begun && self.buf.starts_with(b"\r\n") {
                self.buf.advance(2);
            }
            let nothing = !begun && matches!(&self.buf[..], b"" | b"\r");
            match if nothing {
                Scan::Partial
            } else {
                scanner.scan(&self.buf, true)
            } {
                Scan::Complete(n) if n <= d::MAX_HEAD => return Ok(Some(take_head(&mut self.buf, n))),
                Scan::Partial if self.buf.len() < d::MAX_HEAD => {}
                Scan::BareLf => {
                    return Err(BadHead {
                        status: 400,
                        text: "a line that ends with LF alone",
                    });
                }
                _ => {
                    return Err(BadHead {
                        status: 431,
                        text: "the request head is too long",
                    });
                }
            }
            if self.buf.is_empty() {
                self.buf = BytesMut::new();
            } else if !nothing && !begun {
                begun = true;
                self.deadline.set(self.public.limits.head_timeout);
            }
            let Self {
                rd, buf, deadline, ..
            } = self;
            let read = deadline.run(|cx| poll_fill(rd, buf, cx));
            let read = if begun {
                read.await
            } else {
                tokio::select! {
                    biased;
                    read = read => read,
                    () = &mut *stopped => {
                        let read = deadline.run(|cx| poll_fill(rd, buf, cx));
                        match tokio::time::timeout(d::LAST_WORD, read).await {
                            Ok(read) => read,
                            Err(_) => return Ok(None),
                        }
                    }
                }
            };
            match read {
                Ok(n) if n > 0 => {}
                Err(e) if begun && e.kind() == io::ErrorKind::TimedOut => {
                    return Err(BadHead {
                        status: 408,
                        text: "the request head did not come in time",
                    });
                }
                Ok(_) | Err(_) => return Ok(None),
            }
        }
    }

    async fn refuse_head(&mut self, bad: BadHead) -> Next {
        let answer = self.public.own_to_bad(bad, &self.buf, &self.visitor);
        self.answer(answer, false, false).await
    }

    async fn exchange(&mut self, block: Bytes, stop: &Stop) -> Next {
        let head = match RequestHead::parse(block) {
            Ok(head) => head,
            Err(bad) => return self.refuse_head(bad).await,
        };
        let head = &head;
        if head.method() == "TRACE" {
            let refusal = Refusal::new(
                Who::Visitor,
                405,
                "method_not_allowed",
                "TRACE is not offered here",
            );
            let answer = self.public.own(&refusal, None, &self.visitor);
            return self.answer(answer, false, false).await;
        }
        let refusal = match self.public.decide(head, &self.visitor, self.peer).await {
            Ok(route) => return self.forward(head, route, stop).await,
            Err(refusal) => refusal,
        };
        let keep = head.framing == Framing::None && head.keep_alive() && !stop.is_given();
        let answer = self.public.own(&refusal, Some(head), &self.visitor);
        self.answer(answer, keep, head.method() == "HEAD").await
    }

    /// Carries a request to its client. Where others may be meant, each is tried until one agrees to change
    /// protocols; if none does, the first one's answer is given.
    async fn forward(&mut self, head: &RequestHead, mut route: Route<Arc<Client>>, stop: &Stop) -> Next {
        let mut others = std::mem::take(&mut route.others);
        if !others.is_empty() {
            others.push((route.token.clone(), route.client.clone()));
        }
        let mut others = others.into_iter();
        loop {
            let trial = others.len() > 0;
            if let Some(next) = self.forward_to(head, &route, trial, stop).await {
                return next;
            }
            match others.next() {
                Some(other) => (route.token, route.client) = other,
                None => return Next::Abort,
            }
        }
    }

    /// `None`: this was a trial, and it failed.
    async fn forward_to(
        &mut self,
        head: &RequestHead,
        route: &Route<Arc<Client>>,
        trial: bool,
        stop: &Stop,
    ) -> Option<Next> {
        let Self {
            public,
            rd,
            wr,
            buf,
            deadline,
            answer_deadline,
            ..
        } = self;
        let mut body = Body {
            rd,
            buf,
            room: Room::default(),
            decoder: Decoder::new(head.framing),
            deadline,
        };
        let mut responder = Answer {
            wr,
            out: Outgoing::default(),
            http11: head.http11,
            keep_alive: head.keep_alive() && !stop.is_given(),
            body: None,
            hsts: public.hsts(head, &self.visitor),
            deadline: Deadline::default(),
        };
        let request = Request {
            head,
            route,
            visitor: self.visitor,
            peer: self.peer,
            trial,
        };
        let outcome = exchange::run(public, request, &mut body, &mut responder, answer_deadline).await;
        let keep_alive = responder.keep_alive;
        Some(match outcome {
            Outcome::Declined | Outcome::Refused { .. } if trial => return None,
            Outcome::Done { body_read: true } if keep_alive => Next::Request,
            Outcome::Done { .. } => Next::Close,
            Outcome::Broken | Outcome::Declined => Next::Abort,
            Outcome::Refused { refusal, body_read } => {
                let keep = body_read && head.keep_alive() && !stop.is_given();
                let answer = self.public.own(&refusal, Some(head), &self.visitor);
                self.answer(answer, keep, head.method() == "HEAD").await
            }
            Outcome::Switch(answer, tunnel) => {
                let scheme = self.visitor.scheme(head);
                let cookie = route.set_cookie.as_ref();
                let cookie = cookie.map(|value| rewrite::cookie(value, scheme == "https"));
                let mut out = BytesMut::new();
                let hsts = self.public.hsts(head, &self.visitor);
                rewrite::put_switch(&mut out, &answer, cookie.as_deref(), hsts);
                match self.send(out).await {
                    Ok(()) => Next::Switch(tunnel),
                    Err(_) => Next::Abort,
                }
            }
        })
    }

    /// Gives an answer of our own.
    async fn answer(&mut self, answer: Rendered, keep_alive: bool, head_only: bool) -> Next {
        let mut out = BytesMut::new();
        put_own(&mut out, &answer, keep_alive, head_only);
        match self.send(out).await {
            Ok(()) if keep_alive => Next::Request,
            Ok(()) => Next::Close,
            Err(_) => Next::Abort,
        }
    }

    async fn send(&mut self, head: BytesMut) -> io::Result<()> {
        let mut out = Outgoing {
            head,
            ..Outgoing::default()
        };
        let Self { wr, deadline, .. } = self;
        out.write(wr, deadline, d::WRITE_TIMEOUT).await
    }

    /// Ends a connection so that the visitor sees the last answer: what it still sends is read for a
    /// moment, because unread bytes would turn our close into a reset that can overtake the answer.
    async fn linger(mut self) {
        self.deadline.set(d::LINGER);
        let Self { rd, wr, deadline, .. } = &mut self;
        if wr.shutdown().await.is_err() {
            return;
        }
        let mut seen = 0;
        let mut room = Room::default();
        let mut buf = BytesMut::new();
        while seen < d::LINGER_BYTES {
            buf.clear();
            match deadline.run(|cx| room.poll_fill(rd, &mut buf, cx)).await {
                Ok(n) if n > 0 => seen += n,
                _ => return,
            }
        }
    }

    /// Carries raw bytes both ways until both ends are done.
    async fn switch(self, leased: Leased) {
        let Leased { tunnel, lease } = leased;
        let mut inner = Joined {
            rd: tunnel.rd,
            wr: tunnel.wr,
        };
        let mut outer = Joined {
            rd: self.rd,
            wr: self.wr,
        };
        let mut count = Transferred::default();
        // What fails is dropped in the middle, which both ends see as a failure.
        let _ = duplex::copy(&mut outer, &mut inner, self.buf, tunnel.buf, &mut count).await;
        lease.traffic().came(count.a_to_b);
        lease.traffic().went(count.b_to_a);
        drop(lease);
    }
}

/// Writes an answer of our own.
pub(crate) fn put_own(out: &mut BytesMut, answer: &Rendered, keep_alive: bool, head_only: bool) {
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", answer.status, answer.reason);
    for (name, value) in answer.fields() {
        let _ = write!(out, "{name}: {value}\r\n");
    }
    let _ = write!(out, "content-length: {}\r\n", answer.body.len());
    if !keep_alive {
        out.put_slice(b"connection: close\r\n");
    }
    out.put_slice(b"\r\n");
    if !head_only {
        out.put_slice(&answer.body);
    }
}

/// A request body on an HTTP/1 connection.
struct Body<'a> {
    rd: &'a mut ReadHalf,
    buf: &'a mut BytesMut,
    room: Room,
    decoder: Decoder,
    deadline: &'a mut Deadline,
}

impl RequestBody for Body<'_> {
    async fn next(&mut self) -> Result<Piece, BodyError> {
        loop {
            if let Some(piece) = self.decoder.decode(self.buf).map_err(BodyError::Bad)? {
                return Ok(piece);
            }
            self.deadline.set(d::BODY_TIMEOUT);
            let Self {
                rd,
                buf,
                room,
                deadline,
                ..
            } = self;
            match deadline.run(|cx| room.poll_fill(rd, buf, cx)).await {
                Ok(0) => return Err(BodyError::Gone),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::TimedOut => return Err(BodyError::Slow),
                Err(_) => return Err(BodyError::Gone),
            }
        }
    }

    async fn closed(&mut self) -> bool {
        // Requests that are sent ahead are kept up to a limit; beyond it the visitor has to wait.
        while self.buf.len() < d::READ_BUF {
            let Self { rd, buf, room, .. } = self;
            match std::future::poll_fn(|cx| room.poll_fill(rd, buf, cx)).await {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        std::future::pending().await
    }

    fn has_ended(&self) -> bool {
        self.rd.has_ended()
    }

    fn direct(&self) -> Option<(&TcpStream, u64)> {
        if !self.buf.is_empty() {
            return None;
        }
        Some((self.rd.plain()?, self.decoder.plain_rest()?))
    }

    fn skip(&mut self, n: u64) {
        self.decoder.skip(n);
    }
}

/// An answer on an HTTP/1 connection.
struct Answer<'a> {
    wr: &'a mut WriteHalf,
    /// Not yet written.
    out: Outgoing,
    http11: bool,
    keep_alive: bool,
    /// Once the head has been given.
    body: Option<Encoder>,
    hsts: Option<u64>,
    deadline: Deadline,
}

impl Answer<'_> {
    async fn write(&mut self) -> io::Result<()> {
        self.out
            .write(self.wr, &mut self.deadline, d::WRITE_TIMEOUT)
            .await
    }
}

fn broken(e: BadBody) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}

impl Responder for Answer<'_> {
    async fn interim(&mut self, head: &ResponseHead) -> io::Result<()> {
        // HTTP/1.0 knows no interim answers.
        if !self.http11 {
            return Ok(());
        }
        let form = AnswerForm {
            framing: Framing::None,
            keep_alive: true,
            http11: true,
            hsts: None,
        };
        rewrite::put_answer(&mut self.out.head, head, form, Added::default());
        self.write().await
    }

    async fn head(&mut self, head: &ResponseHead, framing: Framing, added: Added<'_>) -> io::Result<()> {
        // A length that is only known at the end is told by chunks, to who understands them.
        let framing = match framing {
            Framing::UntilEof | Framing::Chunked if self.http11 => Framing::Chunked,
            Framing::Chunked => Framing::UntilEof,
            other => other,
        };
        self.body = Some(Encoder::new(framing));
        match framing {
            Framing::UntilEof => self.wr.begin_unframed(),
            _ => self.wr.begin(),
        }
        self.keep_alive &= framing != Framing::UntilEof;
        let form = AnswerForm {
            framing,
            keep_alive: self.keep_alive,
            http11: self.http11,
            hsts: self.hsts,
        };
        rewrite::put_answer(&mut self.out.head, head, form, added);
        Ok(())
    }

    async fn data(&mut self, data: Bytes) -> io::Result<()> {
        let (Some(len), Some(body)) = (NonZeroUsize::new(data.len()), &mut self.body) else {
            return Ok(());
        };
        let tail = body.piece(&mut self.out.head, len).map_err(broken)?;
        if self.out.head.len() + data.len() <= d::WRITE_BUF {
            self.out.head.put_slice(&data);
            self.out.head.put_slice(tail);
            return Ok(());
        }
        (self.out.piece, self.out.tail) = (data, tail);
        self.write().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.out.len() == 0 {
            Ok(())
        } else {
            self.write().await
        }
    }

    async fn end(&mut self, trailers: Option<Trailers>) -> io::Result<()> {
        if let Some(body) = self.body.take() {
            body.end(&mut self.out.head, trailers.as_ref()).map_err(broken)?;
        }
        self.flush().await?;
        self.wr.finish();
        Ok(())
    }

    fn poll_gone(&mut self, _: &mut Context<'_>) -> Poll<()> {
        // Shows on the reading side, see `Body::closed`.
        Poll::Pending
    }

    fn direct(&self) -> Option<&TcpStream> {
        let plain = self.body.as_ref().is_some_and(Encoder::is_plain);
        self.wr.plain().filter(|_| plain && self.out.len() == 0)
    }

    fn skip(&mut self, n: u64) {
        if let Some(body) = &mut self.body {
            body.skip(n);
        }
    }

    fn can_switch(&self) -> bool {
        true
    }
}
