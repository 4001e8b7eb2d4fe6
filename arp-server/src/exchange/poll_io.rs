//! Reading into and writing out of the buffers of one connection.

use super::deadline::Deadline;
use crate::defaults as d;
use arp_common::transport::{ReadHalf, WriteHalf};
use bytes::{Buf, Bytes, BytesMut};
use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// How much room a body is given at a time: more while reads fill all of it, less when they do not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(d::READ_BUF)
    }
}

impl Room {
    /// No more than at first: for answers of which many may wait on one connection of a visitor that takes nothing.
    pub(crate) fn stay_small(&mut self) {
        self.0 = 0;
    }

    /// Reads what there is to the end of `buf`. What is left of a message in it makes for more room, too. Ready with 0
    /// at the end of the stream.
    pub(crate) fn poll_fill(
        &mut self,
        rd: &mut ReadHalf,
        buf: &mut BytesMut,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let grows = self.0 > 0;
        let mut n = ready!(poll_fill_from(self.0.max(d::READ_BUF), rd, buf, cx))?;
        // TLS gives a record at a time: what is there already goes on together.
        while n > 0 && rd.plain().is_none() && buf.len() < buf.capacity() {
            match tokio_util::io::poll_read_buf(Pin::new(&mut *rd), cx, buf) {
                Poll::Ready(Ok(more)) if more > 0 => n += more,
                // An end or a failure will be there again for whoever reads next.
                _ => break,
            }
        }
        if !grows {
            return Poll::Ready(Ok(n));
        }
        if buf.len() == buf.capacity() {
            self.0 = (self.0 * 2).min(d::READ_BUF_MAX);
        } else if n < self.0 / 4 {
            self.0 = (self.0 / 2).max(d::READ_BUF);
        }
        Poll::Ready(Ok(n))
    }
}

/// Reads what there is of the packets with which a raw connection begins: there is no body whose speed shows.
pub(crate) fn poll_fill(
    rd: &mut ReadHalf,
    buf: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    poll_fill_from(d::READ_BUF, rd, buf, cx)
}

/// Reads what there is of the head of a request: it begins with less, because many may never end theirs.
pub(crate) fn poll_fill_head(
    rd: &mut ReadHalf,
    buf: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    poll_fill_from(d::HEAD_BUF, rd, buf, cx)
}

fn poll_fill_from(
    room: usize,
    rd: &mut ReadHalf,
    buf: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let len = buf.len();
    if buf.capacity() - len < room / 2 {
        // Nothing is allocated for a connection that has nothing to say.
        if len == 0
            && let Some(tcp) = rd.plain()
        {
            ready!(tcp.poll_read_ready(cx))?;
        }
        let more = if len == 0 {
            room
        } else {
            len.clamp(room, d::READ_BUF_MAX)
        };
        buf.reserve(more);
    }
    tokio_util::io::poll_read_buf(Pin::new(rd), cx, buf)
}

/// What is to be written: what was gathered, a piece that is not copied, and what stands behind it.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// First.
    pub(crate) head: BytesMut,
    /// Then.
    pub(crate) piece: Bytes,
    /// Last.
    pub(crate) tail: &'static [u8],
}

impl Outgoing {
    /// Bytes in all.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.piece.len() + self.tail.len()
    }

    fn poll_write(&mut self, wr: &mut WriteHalf, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.len() > 0 {
            let parts = [&self.head[..], &self.piece[..], self.tail].map(IoSlice::new);
            let mut filled = parts.iter().filter(|p| !p.is_empty());
            let n = match (filled.next(), filled.next()) {
                (Some(only), None) => ready!(Pin::new(&mut *wr).poll_write(cx, only))?,
                _ => ready!(Pin::new(&mut *wr).poll_write_vectored(cx, &parts))?,
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = n.min(self.head.len());
            self.head.advance(of_head);
            let of_piece = (n - of_head).min(self.piece.len());
            self.piece.advance(of_piece);
            self.tail = &self.tail[n - of_head - of_piece..];
        }
        // It keeps the memory that it was read into from being read into again.
        self.piece = Bytes::new();
        Pin::new(wr).poll_flush(cx)
    }

    /// Writes it all. `pause` is the time in which the peer may take nothing.
    ///
    /// # Errors
    /// As the connection says, and `TimedOut`.
    pub(crate) async fn write(
        &mut self,
        wr: &mut WriteHalf,
        deadline: &mut Deadline,
        pause: std::time::Duration,
    ) -> io::Result<()> {
        let mut left = self.len();
        deadline.set(pause);
        poll_fn(|cx| {
            if let Poll::Ready(done) = self.poll_write(wr, cx) {
                return Poll::Ready(done);
            }
            if self.len() < left {
                left = self.len();
                deadline.set(pause);
            }
            deadline.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }
}
