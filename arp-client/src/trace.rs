//! With `RUST_LOG=debug`, one line for each HTTP exchange that passes: method, path, status, bytes, time, and whether
//! its tunnel was fresh. Never the query, which may hold secrets, nor any header.
//!
//! It looks at the bytes as they pass and changes none. Without debug logging it does not even look.

use arp_common::transport::Carrier;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Longest head that is understood, in bytes; a longer one ends the tracing of its tunnel.
const MAX_HEAD: usize = 64 * 1024;
/// Header fields of one head that are understood.
const MAX_FIELDS: usize = 128;

/// Is it wanted?
pub(crate) fn is_on() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

/// A stream of HTTP/1 exchanges that are told as they end.
pub(crate) struct Traced<S> {
    inner: S,
    trace: Option<Box<Trace>>,
    /// Do we write requests (towards a service), or answers?
    asks: bool,
}

impl<S> Traced<S> {
    /// A stream to which requests are written. `http` says that it carries any.
    pub(crate) fn client(inner: S, http: bool) -> Self {
        Self {
            inner,
            trace: (http && is_on()).then(Box::default),
            asks: true,
        }
    }

    /// A stream from which requests are read.
    pub(crate) fn server(inner: S) -> Self {
        Self {
            inner,
            trace: is_on().then(Box::default),
            asks: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Traced<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut me.inner).poll_read(cx, buf);
        if let (Some(trace), Poll::Ready(Ok(()))) = (&mut me.trace, &read) {
            let new = buf.filled().get(before..).unwrap_or_default();
            if me.asks {
                trace.answered(new);
            } else {
                trace.asked(new);
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Traced<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let wrote = Pin::new(&mut me.inner).poll_write(cx, buf);
        if let (Some(trace), Poll::Ready(Ok(n))) = (&mut me.trace, &wrote) {
            let new = buf.get(..*n).unwrap_or_default();
            if me.asks {
                trace.asked(new);
            } else {
                trace.answered(new);
            }
        }
        wrote
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.trace.is_some() {
            let first = bufs.iter().find(|b| !b.is_empty()).map_or(&[][..], |b| b);
            return self.poll_write(cx, first);
        }
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.trace.is_none() && self.inner.is_write_vectored()
    }
}

impl<S: Carrier> Carrier for Traced<S> {
    fn plain(&self) -> Option<&TcpStream> {
        self.inner.plain().filter(|_| self.trace.is_none())
    }
    fn begin(&mut self) {
        self.inner.begin();
    }
    fn finish(&mut self) {
        self.inner.finish();
    }
}

/// An exchange that has begun.
#[derive(Debug)]
struct Exchange {
    method: String,
    path: String,
    begun: Instant,
    up: u64,
    down: u64,
}

/// What is under way on one tunnel.
#[derive(Debug, Default)]
struct Trace {
    requests: Scan,
    answers: Scan,
    open: VecDeque<Exchange>,
    status: u16,
    /// Exchanges that were told.
    told: u32,
}

/// How long a message is after its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
    /// To the end of the connection, or something else than HTTP from here on.
    Rest,
    /// No message of its own: an interim answer.
    Interim,
}

impl Trace {
    fn asked(&mut self, bytes: &[u8]) {
        let open = &mut self.open;
        self.requests.feed(bytes, |event| match event {
            Event::Head(head) => {
                let (exchange, body) = request(head)?;
                open.push_back(exchange);
                Some(body)
            }
            Event::Data(n) => {
                if let Some(exchange) = open.back_mut() {
                    exchange.up += n;
                }
                None
            }
            Event::End => None,
        });
    }

    fn answered(&mut self, bytes: &[u8]) {
        let Self {
            answers,
            open,
            status,
            told,
            ..
        } = self;
        answers.feed(bytes, |event| match event {
            Event::Head(head) => {
                let (code, body) = answer(head, open.front())?;
                *status = code;
                Some(body)
            }
            Event::Data(n) => {
                if let Some(exchange) = open.front_mut() {
                    exchange.down += n;
                }
                None
            }
            Event::End => {
                if let Some(exchange) = open.pop_front() {
                    tell(&exchange, Some(*status), *told);
                    *told += 1;
                    *status = 0;
                }
                None
            }
        });
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        for exchange in std::mem::take(&mut self.open) {
            // An answer without a length ends with the connection; one without a head broke off.
            let status = Some(std::mem::take(&mut self.status)).filter(|status| *status != 0);
            tell(&exchange, status, self.told);
            self.told += 1;
        }
    }
}

fn tell(exchange: &Exchange, status: Option<u16>, told: u32) {
    let Exchange {
        method,
        path,
        begun,
        up,
        down,
    } = exchange;
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let tunnel = if told == 0 { "fresh" } else { "reused" };
    match status {
        Some(status) => tracing::debug!(method, path, status, up, down, ms, tunnel, "request"),
        None => tracing::debug!(method, path, up, down, ms, tunnel, "request broke off"),
    }
}

fn request(head: &[u8]) -> Option<(Exchange, Body)> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(head).ok()?;
    let target = parsed.path?;
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let exchange = Exchange {
        method: parsed.method?.to_owned(),
        path: path.escape_debug().to_string(),
        begun: Instant::now(),
        up: 0,
        down: 0,
    };
    let body = framing(parsed.headers)?.unwrap_or(Body::Length(0));
    Some((exchange, body))
}

fn answer(head: &[u8], exchange: Option<&Exchange>) -> Option<(u16, Body)> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    parsed.parse(head).ok()?;
    let status = parsed.code?;
    let to_head = exchange.is_some_and(|e| e.method == "HEAD");
    let body = match status {
        101 => Body::Rest,
        100..200 => Body::Interim,
        204 | 304 => Body::Length(0),
        _ if to_head => Body::Length(0),
        _ => framing(parsed.headers)?.unwrap_or(Body::Rest),
    };
    Some((status, body))
}

/// The framing that a head tells; the outer `None` where it makes no sense.
fn framing(fields: &[httparse::Header<'_>]) -> Option<Option<Body>> {
    let named = |name: &str| {
        fields
            .iter()
            .find(|f| f.name.eq_ignore_ascii_case(name))
            .map(|f| f.value)
    };
    if let Some(coding) = named("transfer-encoding") {
        return coding
            .to_ascii_lowercase()
            .ends_with(b"chunked")
            .then_some(Some(Body::Chunked));
    }
    let Some(length) = named("content-length") else {
        return Some(None);
    };
    let length = std::str::from_utf8(length).ok()?.trim().parse().ok()?;
    Some(Some(Body::Length(length)))
}

enum Event<'a> {
    Head(&'a [u8]),
    Data(u64),
    End,
}

/// Where in a row of messages we are.
#[derive(Debug, Default)]
struct Scan {
    at: At,
    /// The head, or the line, that is being gathered.
    line: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    Head,
    Length(u64),
    Size,
    Chunk(u64),
    AfterChunk,
    Trailers,
    Rest,
    Lost,
}

impl Scan {
    /// Goes on by some bytes. `on` is told what is met, and says of a head how long its message is.
    fn feed(&mut self, mut bytes: &[u8], mut on: impl FnMut(Event<'_>) -> Option<Body>) {
        while !bytes.is_empty() {
            match self.at {
                At::Lost => return,
                At::Rest => {
                    on(Event::Data(bytes.len() as u64));
                    return;
                }
                At::Length(left) | At::Chunk(left) => {
                    let n = left.min(bytes.len() as u64);
                    on(Event::Data(n));
                    bytes = bytes.get(n as usize..).unwrap_or_default();
                    let left = left - n;
                    self.at = match (self.at, left) {
                        (At::Length(_), 0) => {
                            on(Event::End);
                            At::Head
                        }
                        (At::Length(_), left) => At::Length(left),
                        (_, 0) => At::AfterChunk,
                        (_, left) => At::Chunk(left),
                    };
                }
                At::Head | At::Size | At::AfterChunk | At::Trailers => {
                    let end = memchr_line(bytes);
                    self.line.extend_from_slice(bytes.get(..end).unwrap_or_default());
                    bytes = bytes.get(end..).unwrap_or_default();
                    if self.line.len() > MAX_HEAD {
                        self.lose();
                    } else if self.line.ends_with(b"\n") {
                        self.end_of_line(&mut on);
                    }
                }
            }
        }
    }

    fn end_of_line(&mut self, on: &mut impl FnMut(Event<'_>) -> Option<Body>) {
        let blank = |line: &[u8]| line == b"\r\n" || line == b"\n";
        match self.at {
            At::Head => {
                if blank(&self.line) {
                    // Between messages.
                    self.line.clear();
                } else if self.line.ends_with(b"\r\n\r\n") || self.line.ends_with(b"\n\n") {
                    let head = std::mem::take(&mut self.line);
                    self.at = match on(Event::Head(&head)) {
                        None => At::Lost,
                        Some(Body::Interim) => At::Head,
                        Some(Body::Rest) => At::Rest,
                        Some(Body::Chunked) => At::Size,
                        Some(Body::Length(0)) => {
                            on(Event::End);
                            At::Head
                        }
                        Some(Body::Length(n)) => At::Length(n),
                    };
                }
            }
            At::Size => {
                let line = std::mem::take(&mut self.line);
                let digits = line.split(|b| matches!(b, b';' | b'\r' | b'\n' | b' ')).next();
                let size = digits
                    .and_then(|d| std::str::from_utf8(d).ok())
                    .and_then(|d| u64::from_str_radix(d, 16).ok());
                self.at = match size {
                    None => At::Lost,
                    Some(0) => At::Trailers,
                    Some(n) => At::Chunk(n),
                };
            }
            At::AfterChunk => {
                self.line.clear();
                self.at = At::Size;
            }
            At::Trailers => {
                let line = std::mem::take(&mut self.line);
                if blank(&line) {
                    self.at = At::Head;
                    on(Event::End);
                }
            }
            _ => {}
        }
    }

    fn lose(&mut self) {
        self.at = At::Lost;
        self.line = Vec::new();
    }
}

/// How far the first line goes, its end included.
fn memchr_line(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|b| *b == b'\n')
        .map_or(bytes.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many are open, and what was told: request, bytes there and back.
    type Told = (u32, Vec<(String, u64, u64)>);

    /// Feeds both directions in pieces of every size, and gives what is open and told at the end.
    fn through(requests: &str, answers: &str) -> Vec<Told> {
        [1, 2, 3, 7, 1000]
            .map(|size| {
                let mut trace = Trace::default();
                for piece in requests.as_bytes().chunks(size) {
                    trace.asked(piece);
                }
                for piece in answers.as_bytes().chunks(size) {
                    trace.answered(piece);
                }
                let open = std::mem::take(&mut trace.open);
                let open = open
                    .into_iter()
                    .map(|e| (format!("{} {}", e.method, e.path), e.up, e.down));
                (trace.told, open.collect())
            })
            .to_vec()
    }

    #[test]
    fn exchanges_are_told_apart_however_their_bytes_are_cut() {
        let requests = "GET /a?token=secret HTTP/1.1\r\nHost: x\r\n\r\n\
            POST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
            PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nt: 1\r\n\r\n\
            HEAD /d HTTP/1.1\r\n\r\nGET /e HTTP/1.1\r\n\r\n";
        let answers = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi\
            HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
            HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n\
            HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nrest";
        for (told, open) in through(requests, answers) {
            assert_eq!(told, 4);
            assert_eq!(open, [("GET /e".to_owned(), 0, 4)], "no query");
        }
        for (told, open) in through(requests, "nonsense\r\n\r\nHTTP/1.1 200 OK\r\n\r\n") {
            assert_eq!((told, open.len()), (0, 5), "what is not understood is not told");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_do_no_harm(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let mut trace = Trace::default();
            trace.asked(&bytes);
            trace.answered(&bytes);
        }
    }
}
