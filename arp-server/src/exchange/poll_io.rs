//! Reading into and writing out of the buffers of one connection.

use super::deadline::Deadline;
use crate::defaults as d;
use arp_common::transport::{ReadHalf, WriteHalf};
use bytes::{Buf, Bytes, BytesMut};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

thread_local! {
    /// Where what begins is read into: most heads and many answers are small, and get no more memory than they need.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; d::READ_BUF].into_boxed_slice());
}

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
        let begun = buf.is_empty();
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
        // What came through the scratch buffer has no room to spare, however little it was.
        let full = buf.len() == buf.capacity() && (n >= d::READ_BUF || !begun);
        if full {
            self.0 = (self.0 * 2).min(d::READ_BUF_MAX);
        } else if n < self.0 / 4 {
            self.0 = (self.0 / 2).max(d::READ_BUF);
        }
        Poll::Ready(Ok(n))
    }
}

/// Reads what there is of a head, or of the packets with which a raw connection begins: there is no body whose speed
/// shows.
pub(crate) fn poll_fill(
    rd: &mut ReadHalf,
    buf: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    poll_fill_from(d::READ_BUF, rd, buf, cx)
}

fn poll_fill_from(
    room: usize,
    rd: &mut ReadHalf,
    buf: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let len = buf.len();
    if len == 0 && room <= d::READ_BUF {
        return poll_fill_exactly(rd, buf, cx);
    }
    if buf.capacity() - len < room / 2 {
        buf.reserve(len.clamp(room, d::READ_BUF_MAX));
    }
    tokio_util::io::poll_read_buf(Pin::new(rd), cx, buf)
}

/// Reads what there is into an empty `buf`, which gets as much memory as that needs, and none while there is nothing.
fn poll_fill_exactly(rd: &mut ReadHalf, buf: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut read = ReadBuf::new(scratch);
        ready!(Pin::new(&mut *rd).poll_read(cx, &mut read))?;
        // As above: records that are there already.
        while rd.plain().is_none() && !read.filled().is_empty() && read.remaining() > 0 {
            let before = read.filled().len();
            let more = Pin::new(&mut *rd).poll_read(cx, &mut read);
            if !matches!(more, Poll::Ready(Ok(()))) || read.filled().len() == before {
                break;
            }
        }
        *buf = BytesMut::from(read.filled());
        Poll::Ready(Ok(buf.len()))
    })
}

/// Takes the first `n` bytes out of a buffer. They keep no more memory than their own: all of the buffer, or a copy.
pub(crate) fn take_head(buf: &mut BytesMut, n: usize) -> Bytes {
    if n == buf.len() {
        return std::mem::take(buf).freeze();
    }
    let head = Bytes::copy_from_slice(&buf[..n]);
    buf.advance(n);
    head
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
            let n = ready!(poll_write_parts(wr, cx, [&self.head, &self.piece, self.tail]))?;
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

/// Writes something of what is not empty, in one call.
fn poll_write_parts<const N: usize>(
    wr: &mut WriteHalf,
    cx: &mut Context<'_>,
    parts: [&[u8]; N],
) -> Poll<io::Result<usize>> {
    let mut filled = parts.iter().filter(|p| !p.is_empty());
    let n = match (filled.next(), filled.next()) {
        (Some(only), None) => ready!(Pin::new(wr).poll_write(cx, only))?,
        _ => ready!(Pin::new(wr).poll_write_vectored(cx, &parts.map(IoSlice::new)))?,
    };
    if n == 0 {
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    Poll::Ready(Ok(n))
}

/// Writes `first`, then `second`, and counts in `sent` what the connection has taken of both. `pause` is the time in
/// which the peer may take nothing.
///
/// # Errors
/// As the connection says, and `TimedOut`.
pub(crate) async fn write_both(
    wr: &mut WriteHalf,
    first: &[u8],
    second: &[u8],
    sent: &mut usize,
    pause: std::time::Duration,
) -> io::Result<()> {
    let mut deadline = Deadline::default();
    deadline.set(pause);
    poll_fn(|cx| {
        let before = *sent;
        let written = loop {
            let of_first = (*sent).min(first.len());
            let parts = [&first[of_first..], &second[*sent - of_first..]];
            if parts.iter().all(|p| p.is_empty()) {
                break Pin::new(&mut *wr).poll_flush(cx);
            }
            match poll_write_parts(wr, cx, parts) {
                Poll::Ready(Ok(n)) => *sent += n,
                Poll::Ready(Err(e)) => break Poll::Ready(Err(e)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if written.is_pending() {
            if *sent > before {
                deadline.set(pause);
            }
            return deadline.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()));
        }
        written
    })
    .await
}
