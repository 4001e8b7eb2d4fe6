//! HTTP/2 connections of visitors: each stream becomes an exchange of its own.

use crate::answer::Rendered;
use crate::defaults as d;
use crate::exchange::deadline::Deadline;
use crate::exchange::rewrite::{self, Added};
use crate::exchange::{self, BodyError, Outcome, Request, RequestBody, Responder};
use crate::http::body::{BadBody, Piece, Trailers};
use crate::http::{BadHead, Framing, Name, RequestHead, ResponseHead};
use crate::shared::Public;
use crate::shared::Visitor;
use arp_common::stop::Given;
use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Serves one connection until it ends. After `stopped` no further stream is taken.
pub(crate) async fn serve<S>(
    public: Arc<Public>,
    visitor: Visitor,
    peer: SocketAddr,
    io: S,
    mut stopped: Given,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(d::H2_STREAMS)
        .max_header_list_size(d::H2_MAX_HEAD)
        .initial_window_size(d::H2_STREAM_WINDOW)
        .initial_connection_window_size(d::H2_CONN_WINDOW)
        .max_send_buffer_size(d::H2_SEND_BUFFER);
    let flow = Flow::default();
    let io = Metered {
        io,
        flow: flow.clone(),
    };
    let handshake = timeout(public.limits.head_timeout, builder.handshake::<_, Bytes>(io));
    let Ok(Ok(mut connection)) = handshake.await else {
        return;
    };
    // Dropping the set ends the streams of a connection that is gone.
    let mut streams = JoinSet::new();
    // Until when the visitor may acknowledge that no further stream is taken.
    let mut goodbye: Option<Instant> = None;
    loop {
        let over = goodbye.is_some_and(|until| Instant::now() >= until);
        if over && streams.is_empty() && !flow.moves_on() {
            return;
        }
        let wait = match goodbye {
            None => public.limits.keep_alive,
            Some(until) => until
                .saturating_duration_since(Instant::now())
                .max(d::H2_GOODBYE / 5),
        };
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((_, mut respond))) if over => respond.send_reset(Reason::REFUSED_STREAM),
                Some(Ok((request, respond))) => {
                    let public = public.clone();
                    streams.spawn(stream(public, visitor, peer, request, respond));
                }
                Some(Err(_)) | None => return,
            },
            Some(_) = streams.join_next() => {}
            () = &mut stopped, if goodbye.is_none() => {
                goodbye = Some(Instant::now() + d::H2_GOODBYE);
                connection.graceful_shutdown();
            }
            () = sleep(wait), if streams.is_empty() => if goodbye.is_none() && !flow.moves_on() {
                goodbye = Some(Instant::now() + d::H2_GOODBYE);
                connection.graceful_shutdown();
            }
        }
    }
}

/// Whether a connection takes what is written to it.
#[derive(Debug, Clone, Default)]
struct Flow(Arc<Mutex<Option<Instant>>>);

impl Flow {
    /// Is there something left to be written, and has it not been left for too long? An exchange may be over
    /// while the last of its answer still waits for a visitor that pauses.
    fn moves_on(&self) -> bool {
        let blocked = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocked.is_some_and(|since| since.elapsed() < d::WRITE_TIMEOUT)
    }

    fn note<T>(&self, written: &Poll<T>) {
        let mut blocked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match written {
            Poll::Ready(_) => *blocked = None,
            Poll::Pending => drop(blocked.get_or_insert_with(Instant::now)),
        }
    }
}

/// A connection that tells its [`Flow`].
struct Metered<S> {
    io: S,
    flow: Flow,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        this.flow.note(&written);
        written
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.flow.note(&written);
        written
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

async fn stream(
    public: Arc<Public>,
    visitor: Visitor,
    peer: SocketAddr,
    request: http::Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (parts, recv) = request.into_parts();
    let mut answer = Answer {
        respond: Some(respond),
        send: None,
        hsts: None,
    };
    let head = match head_of(&parts, recv.is_end_stream()) {
        Ok(head) => head,
        Err(bad) => {
            let own = refused(&public, bad, &parts, &visitor);
            // It may be large, and the visitor may take its time.
            drop(parts);
            return answer.own(own, false).await;
        }
    };
    drop(parts);
    let head_only = head.method() == "HEAD";
    answer.hsts = public.hsts(&head, &visitor);
    let refusal = match public.decide(&head, &visitor, peer).await {
        Ok(route) => {
            let request = Request {
                head: &head,
                route: &route,
                visitor,
                peer,
                trial: false,
            };
            let mut body = Body {
                recv,
                passed_on: 0,
                ended: false,
            };
            match exchange::run(&public, request, &mut body, &mut answer, &mut Deadline::default()).await {
                Outcome::Done { .. } => return,
                Outcome::Broken | Outcome::Switch(..) | Outcome::Declined => {
                    return answer.reset(Reason::INTERNAL_ERROR);
                }
                Outcome::Refused { refusal, .. } => refusal,
            }
        }
        Err(refusal) => refusal,
    };
    answer
        .own(public.own(&refusal, Some(&head), &visitor), head_only)
        .await;
}

/// Writes the request as the HTTP/1.1 head that it will be on the tunnel, and reads that with the same
/// strict eyes as any other.
fn head_of(parts: &http::request::Parts, ended: bool) -> Result<RequestHead, BadHead> {
    const BAD: BadHead = BadHead {
        status: 400,
        text: "malformed request head",
    };
    if parts.method == http::Method::CONNECT || parts.method == http::Method::TRACE {
        return Err(BadHead {
            status: 405,
            text: "CONNECT and TRACE are not offered here",
        });
    }
    let mut text = BytesMut::with_capacity(1024);
    text.put_slice(parts.method.as_str().as_bytes());
    text.put_u8(b' ');
    text.put_slice(parts.uri.path_and_query().map_or("/", |p| p.as_str()).as_bytes());
    text.put_slice(b" HTTP/1.1\r\n");
    let mut host = parts.headers.get_all(http::header::HOST).iter();
    let authority = parts.uri.authority().map(|a| a.as_str().as_bytes());
    match (authority, host.next(), host.next()) {
        (_, _, Some(_)) => return Err(BAD),
        (Some(a), Some(h), _) if !a.eq_ignore_ascii_case(h.as_bytes()) => return Err(BAD),
        (Some(a), ..) => put(&mut text, b"Host", a),
        (None, Some(h), _) => put(&mut text, b"Host", h.as_bytes()),
        (None, None, _) => return Err(BAD),
    }
    let mut cookies = BytesMut::new();
    let mut lengths = 0;
    for (name, value) in &parts.headers {
        match Name::of(name.as_str().as_bytes()) {
            Name::Host => {}
            Name::ContentLength => {
                lengths += 1;
                put(&mut text, name.as_str().as_bytes(), value.as_bytes());
            }
            Name::Te => put(&mut text, b"TE", value.as_bytes()),
            known if known.is_hop_by_hop() => return Err(BAD),
            // HTTP/2 may cut a cookie into pieces (RFC 9113 §8.2.3).
            Name::Cookie => {
                if !cookies.is_empty() {
                    cookies.put_slice(b"; ");
                }
                cookies.put_slice(value.as_bytes());
            }
            _ => put(&mut text, name.as_str().as_bytes(), value.as_bytes()),
        }
    }
    if !cookies.is_empty() {
        put(&mut text, b"Cookie", &cookies);
    }
    if !ended && lengths == 0 {
        put(&mut text, b"Transfer-Encoding", b"chunked");
    }
    text.put_slice(b"\r\n");
    if text.len() > d::MAX_HEAD {
        return Err(BadHead {
            status: 431,
            text: "the request head is too long",
        });
    }
    RequestHead::parse(text.freeze())
}

/// The answer to a head that cannot be taken.
fn refused(public: &Public, bad: BadHead, parts: &http::request::Parts, visitor: &Visitor) -> Rendered {
    let start = if bad.status == 431 {
        start_of(parts)
    } else {
        BytesMut::new()
    };
    public.own_to_bad(bad, &start, visitor)
}

/// As much of a head that is too long as an answer to it needs.
fn start_of(parts: &http::request::Parts) -> BytesMut {
    let mut text = BytesMut::new();
    text.put_slice(parts.method.as_str().as_bytes());
    text.put_u8(b' ');
    text.put_slice(parts.uri.path_and_query().map_or("/", |p| p.as_str()).as_bytes());
    text.put_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = parts.uri.authority() {
        put(&mut text, b"Host", authority.as_str().as_bytes());
    }
    for name in [http::header::ACCEPT, http::header::COOKIE] {
        for value in parts.headers.get_all(&name) {
            put(&mut text, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    text
}

fn put(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// A request body on a stream.
struct Body {
    recv: RecvStream,
    /// Bytes of the piece that was given last, by which the window is to open again.
    passed_on: usize,
    ended: bool,
}

impl Body {
    /// The next piece with something in it.
    async fn data(&mut self) -> Option<Result<Bytes, h2::Error>> {
        loop {
            match poll_fn(|cx| self.recv.poll_data(cx)).await {
                Some(Ok(data)) if data.is_empty() => {}
                other => return other,
            }
        }
    }
}

impl RequestBody for Body {
    async fn next(&mut self) -> Result<Piece, BodyError> {
        // Who asks for the next piece has passed on the last one.
        let passed_on = std::mem::take(&mut self.passed_on);
        let released = self.recv.flow_control().release_capacity(passed_on);
        released.map_err(|_| BodyError::Gone)?;
        if !self.ended {
            match timeout(d::BODY_TIMEOUT, self.data())
                .await
                .map_err(|_| BodyError::Slow)?
            {
                Some(Ok(data)) => {
                    self.passed_on = data.len();
                    return Ok(Piece::Data(data));
                }
                Some(Err(_)) => return Err(BodyError::Gone),
                None => self.ended = true,
            }
        }
        let trailers = timeout(d::BODY_TIMEOUT, poll_fn(|cx| self.recv.poll_trailers(cx)));
        match trailers.await.map_err(|_| BodyError::Slow)? {
            Ok(trailers) => Ok(Piece::End(trailers.as_ref().and_then(from_map))),
            Err(e) if e.is_io() || e.is_reset() || e.is_go_away() => Err(BodyError::Gone),
            Err(_) => Err(BodyError::Bad(BadBody("malformed trailers"))),
        }
    }

    async fn closed(&mut self) -> bool {
        // A visitor that loses interest resets the stream, see `Answer::poll_gone`.
        std::future::pending().await
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn direct(&self) -> Option<(&TcpStream, u64)> {
        None
    }

    fn skip(&mut self, _: u64) {}
}

fn from_map(map: &HeaderMap) -> Option<Trailers> {
    Trailers::from_fields(map.iter().map(|(n, v)| (n.as_str().as_bytes(), v.as_bytes())))
}

/// An answer on a stream.
struct Answer {
    respond: Option<SendResponse<Bytes>>,
    send: Option<SendStream<Bytes>>,
    hsts: Option<u64>,
}

impl Answer {
    fn start(&mut self, response: Response<()>, end: bool) -> io::Result<()> {
        let mut respond = self.respond.take().ok_or(io::ErrorKind::NotConnected)?;
        let send = respond.send_response(response, end).map_err(io::Error::other)?;
        self.send = (!end).then_some(send);
        Ok(())
    }

    fn reset(&mut self, reason: Reason) {
        if let Some(send) = &mut self.send {
            send.send_reset(reason);
        } else if let Some(respond) = &mut self.respond {
            respond.send_reset(reason);
        }
    }

    /// Gives an answer of our own.
    async fn own(&mut self, answer: Rendered, head_only: bool) {
        let mut builder = Response::builder().status(answer.status);
        for (name, value) in answer.fields() {
            builder = builder.header(name, value);
        }
        builder = builder.header(http::header::CONTENT_LENGTH, answer.body.len());
        let Ok(response) = builder.body(()) else { return };
        let end = head_only || answer.body.is_empty();
        if self.start(response, end).is_ok() && !end && self.data(answer.body).await.is_ok() {
            let _ = self.end(None).await;
        }
    }
}

/// The head of an answer in HTTP/2's form. Fields that HTTP/2 cannot carry are left out.
fn response_of(head: &ResponseHead, added: Added<'_>) -> io::Result<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(head.status).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let headers = response.headers_mut();
    for field in rewrite::passed_on(head) {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(field.name),
            HeaderValue::from_bytes(&rewrite::on_one_line(head, field.value)),
        ) {
            headers.append(name, value);
        }
    }
    if let Some(cookie) = added.cookie.and_then(|c| HeaderValue::from_str(c).ok()) {
        headers.append(http::header::SET_COOKIE, cookie);
    }
    if let Some(names) = added.vary {
        headers.append(http::header::VARY, HeaderValue::from_static(names));
    }
    Ok(response)
}

impl Responder for Answer {
    async fn interim(&mut self, head: &ResponseHead) -> io::Result<()> {
        let response = response_of(head, Added::default())?;
        match &mut self.respond {
            Some(respond) => respond.send_informational(response).map_err(io::Error::other),
            None => Ok(()),
        }
    }

    async fn head(&mut self, head: &ResponseHead, framing: Framing, added: Added<'_>) -> io::Result<()> {
        let mut response = response_of(head, added)?;
        if let Some(secs) = self.hsts
            && let Ok(value) = HeaderValue::from_str(&rewrite::hsts(secs))
        {
            response
                .headers_mut()
                .insert(http::header::STRICT_TRANSPORT_SECURITY, value);
        }
        let length = match framing {
            Framing::Length(n) => Some(n),
            // Of a body that does not come (HEAD, 304), or an empty one.
            Framing::None if head.status != 204 => head.content_length().ok().flatten(),
            _ => None,
        };
        if let Some(n) = length {
            response
                .headers_mut()
                .insert(http::header::CONTENT_LENGTH, HeaderValue::from(n));
        }
        self.start(response, framing == Framing::None)
    }

    async fn data(&mut self, mut data: Bytes) -> io::Result<()> {
        let Some(send) = &mut self.send else { return Ok(()) };
        while !data.is_empty() {
            send.reserve_capacity(data.len().min(d::READ_BUF_MAX));
            let room = poll_fn(|cx| {
                loop {
                    match ready!(send.poll_capacity(cx)) {
                        Some(Ok(0)) => {}
                        Some(Ok(n)) => return Poll::Ready(Ok(n)),
                        Some(Err(e)) => return Poll::Ready(Err(io::Error::other(e))),
                        None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                    }
                }
            });
            let room = timeout(d::WRITE_TIMEOUT, room)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            let part = data.split_to(room.min(data.len()));
            send.send_data(part, false).map_err(io::Error::other)?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn end(&mut self, trailers: Option<Trailers>) -> io::Result<()> {
        let Some(mut send) = self.send.take() else {
            return Ok(());
        };
        let result = match trailers {
            None => send.send_data(Bytes::new(), true),
            Some(trailers) => {
                let mut map = HeaderMap::new();
                for (name, value) in trailers.fields() {
                    if let (Ok(name), Ok(value)) =
                        (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
                    {
                        map.append(name, value);
                    }
                }
                send.send_trailers(map)
            }
        };
        result.map_err(io::Error::other)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match (&mut self.send, &mut self.respond) {
            (Some(send), _) => send.poll_reset(cx),
            (None, Some(respond)) => respond.poll_reset(cx),
            (None, None) => return Poll::Pending,
        };
        reset.map(|_| ())
    }

    fn direct(&self) -> Option<&TcpStream> {
        None
    }

    fn skip(&mut self, _: u64) {}

    fn can_switch(&self) -> bool {
        false
    }
}
