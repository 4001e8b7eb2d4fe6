//! Reading into and writing out of the buffers of one connection.

use crate::defaults as d;
use arp_common::transport::{ReadHalf, WriteHalf};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Reads what there is to the end of `buf`, whose free room grows with the flow: a read that filled it
/// doubles it for the next one. Ready with 0 at the end of the stream.
pub fn poll_fill(rd: &mut ReadHalf, buf: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    poll_fill_from(d::READ_BUF, rd, buf, cx)
}

/// The same for the head of a request: it begins with less, because many may never end theirs.
pub fn poll_fill_head(
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

/// Writes all of `out`, then all of `data`, gathering both into as few calls as can be.
pub fn poll_write(
    wr: &mut WriteHalf,
    out: &mut BytesMut,
    data: &mut Bytes,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while !out.is_empty() || !data.is_empty() {
        let n = match (out.is_empty(), data.is_empty()) {
            (false, false) => {
                let parts = [IoSlice::new(out), IoSlice::new(data)];
                ready!(Pin::new(&mut *wr).poll_write_vectored(cx, &parts))?
            }
            (false, true) => ready!(Pin::new(&mut *wr).poll_write(cx, out))?,
            (true, _) => ready!(Pin::new(&mut *wr).poll_write(cx, data))?,
        };
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_out = n.min(out.len());
        out.advance(of_out);
        data.advance(n - of_out);
    }
    Pin::new(wr).poll_flush(cx)
}
