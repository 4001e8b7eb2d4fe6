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

/// Reads what there is to the end of `buf`. What is left of a message in it makes for more room, as what was
/// taken out does not: a body that is passed on as it comes needs no more than a little. Ready with 0 at the end of the
/// stream.
pub(crate) fn poll_fill(
    rd: &mut ReadHalf,
    buf: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    poll_fill_from(d::READ_BUF, rd, buf, cx)
}

/// The same for the head of a request: it begins with less, because many may never end theirs.
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
