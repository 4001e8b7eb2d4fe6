//! The stream that control channels, tunnels and public connections run on, whatever carries it.
//!
//! The pool, the router and the copy loops see only [`Stream`] and its halves, so a new carrier (TLS)
//! changes this file and the places that dial and accept, nothing else.

use crate::net;
use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::TlsStream;

/// A connection between two peers.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP, of either side.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The TCP connection underneath, for options and addresses. Bytes must go through the stream.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Splits into halves that can be used at the same time by one task.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        let (rd, wr) = match self {
            Self::Plain(tcp) => {
                let (r, w) = tcp.into_split();
                (ReadHalf::Plain(r), WriteIo::Plain(w))
            }
            Self::Tls(tls) => {
                let half = TlsHalf(Arc::new(Mutex::new(*tls)));
                (ReadHalf::Tls(half.clone()), WriteIo::Tls(half))
            }
        };
        let message = Message::None;
        (rd, WriteHalf { io: wr, message })
    }

    /// Puts the two halves of a plain connection together again. `None` for others, and for halves that do not
    /// belong together.
    pub fn reunite(rd: ReadHalf, mut wr: WriteHalf) -> Option<Self> {
        wr.message = Message::None;
        match (rd, std::mem::replace(&mut wr.io, WriteIo::Gone)) {
            (ReadHalf::Plain(rd), WriteIo::Plain(wr)) => rd.reunite(wr).ok().map(Self::Plain),
            _ => None,
        }
    }

    /// Address of the peer.
    ///
    /// # Errors
    /// If the connection is gone already.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr().map(net::canonical)
    }
}

/// The reading side of a [`Stream`].
#[derive(Debug)]
pub enum ReadHalf {
    /// Of plain TCP.
    Plain(OwnedReadHalf),
    /// Of TLS.
    Tls(TlsHalf),
}

/// The writing side of a [`Stream`].
///
/// Dropping it is an orderly end of the connection, except in the middle of a message: then it is a reset, so
/// that nobody can take what came for the whole.
#[derive(Debug)]
pub struct WriteHalf {
    io: WriteIo,
    message: Message,
}

/// What is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    /// Nothing, or all of it has been.
    None,
    /// Something that tells its length.
    Framed,
    /// Something that ends with the connection.
    Unframed,
}

#[derive(Debug)]
enum WriteIo {
    Plain(OwnedWriteHalf),
    Tls(TlsHalf),
    /// Only while it is dropped.
    Gone,
}

/// One side of a TLS stream, which both sides share.
#[derive(Debug, Clone)]
pub struct TlsHalf(Arc<Mutex<TlsStream<TcpStream>>>);

impl TlsHalf {
    fn with<T>(&self, use_it: impl FnOnce(&mut TlsStream<TcpStream>) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ReadHalf {
    /// The TCP connection, if the bytes on it are the stream's own: what splice(2) and readiness need.
    pub fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(half) => Some(half.as_ref()),
            Self::Tls(_) => None,
        }
    }

    /// Is there nothing to be read at this moment, neither a byte nor an end?
    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Plain(half) => net::is_quiet(half.as_ref()),
            Self::Tls(half) => half.with(|tls| {
                let (tcp, state) = tls.get_ref();
                state.wants_read() && net::is_quiet(tcp)
            }),
        }
    }

    /// Has the peer closed its side, or gone? Bytes that it sent before may still be unread.
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Plain(half) => net::has_ended(half.as_ref()),
            Self::Tls(half) => half.with(|tls| net::has_ended(tls.get_ref().0)),
        }
    }
}

impl WriteHalf {
    /// The TCP connection, if the bytes on it are the stream's own.
    pub fn plain(&self) -> Option<&TcpStream> {
        match &self.io {
            WriteIo::Plain(half) => Some(half.as_ref()),
            WriteIo::Tls(_) | WriteIo::Gone => None,
        }
    }

    /// A message begins that tells its length: dropping the connection is a failure until [`WriteHalf::finish`].
    pub fn begin(&mut self) {
        self.message = Message::Framed;
    }

    /// What begins ends with the connection. Even the death of this process must then look like a failure.
    pub fn begin_unframed(&mut self) {
        self.message = Message::Unframed;
        self.with_tcp(net::reset_on_drop);
    }

    /// The message is complete.
    pub fn finish(&mut self) {
        if self.message == Message::Unframed {
            self.with_tcp(net::close_on_drop);
        }
        self.message = Message::None;
    }

    /// See [`net::let_pause`].
    pub fn let_pause(&self, pauses: bool) {
        self.with_tcp(|tcp| net::let_pause(tcp, pauses));
    }

    fn with_tcp(&self, use_it: impl FnOnce(&TcpStream)) {
        match &self.io {
            WriteIo::Plain(half) => use_it(half.as_ref()),
            WriteIo::Tls(half) => half.with(|tls| use_it(tls.get_ref().0)),
            WriteIo::Gone => {}
        }
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        if self.message == Message::None {
            return;
        }
        self.with_tcp(net::reset_on_drop);
        // The half would send an orderly end before the connection is dropped, which is the reset.
        if let WriteIo::Plain(half) = std::mem::replace(&mut self.io, WriteIo::Gone) {
            half.forget();
        }
    }
}

/// Two halves used as one stream again.
#[derive(Debug)]
pub struct Joined {
    /// The reading side.
    pub rd: ReadHalf,
    /// The writing side.
    pub wr: WriteHalf,
}

impl Carrier for Joined {
    fn plain(&self) -> Option<&TcpStream> {
        self.rd.plain()
    }
    fn begin(&mut self) {
        self.wr.begin_unframed();
        self.wr.let_pause(true);
    }
    fn finish(&mut self) {
        self.wr.finish();
    }
}

impl AsyncRead for Joined {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().rd).poll_read(cx, buf)
    }
}

impl AsyncWrite for Joined {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wr).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().wr).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.wr.is_write_vectored()
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wr).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wr).poll_shutdown(cx)
    }
}

/// A stream some of whose bytes were read already: they come first.
#[derive(Debug)]
pub struct Prefixed<S> {
    prefix: BytesMut,
    inner: S,
}

impl<S> Prefixed<S> {
    /// `prefix`, then what `inner` gives.
    pub fn new(prefix: BytesMut, inner: S) -> Self {
        Self { prefix, inner }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let n = this.prefix.len().min(buf.remaining());
        buf.put_slice(&this.prefix.split_to(n));
        if this.prefix.is_empty() {
            this.prefix = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// What bytes of unknown length can be copied from and to.
pub trait Carrier {
    /// The TCP connection, if the bytes on it are the stream's own.
    fn plain(&self) -> Option<&TcpStream>;
    /// From now on dropping it, or the death of this process, is a failure for the peer and not an end; and the peer
    /// may pause.
    fn begin(&mut self);
    /// Everything has been said.
    fn finish(&mut self);
}

impl Carrier for Stream {
    fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(_) => None,
        }
    }
    fn begin(&mut self) {
        net::reset_on_drop(self.tcp());
        net::let_pause(self.tcp(), true);
    }
    fn finish(&mut self) {
        net::close_on_drop(self.tcp());
    }
}

impl Carrier for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
    fn begin(&mut self) {
        net::reset_on_drop(self);
        net::let_pause(self, true);
    }
    fn finish(&mut self) {
        net::close_on_drop(self);
    }
}

impl<S: Carrier> Carrier for Prefixed<S> {
    fn plain(&self) -> Option<&TcpStream> {
        self.inner.plain().filter(|_| self.prefix.is_empty())
    }
    fn begin(&mut self) {
        self.inner.begin();
    }
    fn finish(&mut self) {
        self.inner.finish();
    }
}

/// TLS inside whatever carries it.
impl<S: Carrier> Carrier for tokio_rustls::server::TlsStream<S> {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
    fn begin(&mut self) {
        self.get_mut().0.begin();
    }
    fn finish(&mut self) {
        self.get_mut().0.finish();
    }
}

impl AsyncRead for TlsHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|tls| Pin::new(tls).poll_read(cx, buf))
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            WriteIo::Plain(half) => Pin::new(half).poll_write(cx, buf),
            WriteIo::Tls(half) => half.with(|tls| Pin::new(tls).poll_write(cx, buf)),
            WriteIo::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            WriteIo::Plain(half) => Pin::new(half).poll_write_vectored(cx, bufs),
            WriteIo::Tls(half) => half.with(|tls| Pin::new(tls).poll_write_vectored(cx, bufs)),
            WriteIo::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
    fn is_write_vectored(&self) -> bool {
        match &self.io {
            WriteIo::Plain(half) => half.is_write_vectored(),
            WriteIo::Tls(half) => half.with(|tls| tls.is_write_vectored()),
            WriteIo::Gone => false,
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            WriteIo::Plain(half) => Pin::new(half).poll_flush(cx),
            WriteIo::Tls(half) => half.with(|tls| Pin::new(tls).poll_flush(cx)),
            WriteIo::Gone => Poll::Ready(Ok(())),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            WriteIo::Plain(half) => Pin::new(half).poll_shutdown(cx),
            WriteIo::Tls(half) => half.with(|tls| Pin::new(tls).poll_shutdown(cx)),
            WriteIo::Gone => Poll::Ready(Ok(())),
        }
    }
}

macro_rules! delegate_read {
    ($($t:ty: $($variant:ident),+);+ $(;)?) => {$(
        impl AsyncRead for $t {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_read(cx, buf),)+ }
            }
        }
    )+};
}

macro_rules! delegate_write {
    ($($t:ty: $($variant:ident),+);+ $(;)?) => {$(
        impl AsyncWrite for $t {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_write(cx, buf),)+ }
            }
            fn poll_write_vectored(
                self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_write_vectored(cx, bufs),)+ }
            }
            fn is_write_vectored(&self) -> bool {
                match self { $(Self::$variant(s) => s.is_write_vectored(),)+ }
            }
            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_flush(cx),)+ }
            }
            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() { $(Self::$variant(s) => Pin::new(s).poll_shutdown(cx),)+ }
            }
        }
    )+};
}

delegate_read!(Stream: Plain, Tls; ReadHalf: Plain, Tls);
delegate_write!(Stream: Plain, Tls);
