//! Reading into and writing out of the buffers of one connection.

use super::deadline::Deadline;
use crate::defaults as d;
use arp_common::scratch;
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

    /// Reads what there is to the end of `buf`. Ready with 0 at the end of the stream.
    pub(crate) fn poll_fill(
        &mut self,
        rd: &mut ReadHalf,
        buf: &mut BytesMut,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.0 <= d::READ_BUF {
            let n = ready!(poll_fill(rd, buf, cx))?;
            if n == d::READ_BUF && self.0 > 0 {
                self.0 = 2 * d::READ_BUF;
            }
            return Poll::Ready(Ok(n));
        }
        // What is left of a message in it makes for more room, too.
        let len = buf.len();
        if buf.capacity() - len < self.0 / 2 {
            buf.reserve(len.clamp(self.0, d::READ_BUF_MAX) + scratch::SPARE);
            scratch::begin(buf);
        }
        let mut n = 0;
        loop {
            match tokio_util::io::poll_read_buf(Pin::new(&mut *rd), cx, buf) {
                Poll::Ready(Ok(more)) if more > 0 => n += more,
                // An end or a failure will be there again for whoever reads next.
                _ if n > 0 => break,
                nothing => return nothing,
            }
            // TLS gives a record at a time: what is there already goes on together.
            if rd.plain().is_some() || buf.len() == buf.capacity() {
                break;
            }
        }
        if buf.len() == buf.capacity() {
            self.0 = (self.0 * 2).min(d::READ_BUF_MAX);
        } else if n < self.0 / 4 {
            self.0 /= 2;
        }
        Poll::Ready(Ok(n))
    }
}

/// Reads what there is, [`d::READ_BUF`] at most, to the end of `buf`, which gets no more memory than that needs, and
/// none while there is nothing. Ready with 0 at the end of the stream.
pub(crate) fn poll_fill(
    rd: &mut ReadHalf,
    buf: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
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
        if buf.is_empty() {
            *buf = BytesMut::from(read.filled());
        } else {
            buf.extend_from_slice(read.filled());
        }
        Poll::Ready(Ok(read.filled().len()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use arp_common::transport::Stream;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (TcpStream, ReadHalf, WriteHalf) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialed = TcpStream::connect(listener.local_addr().unwrap());
        let (far, near) = tokio::join!(dialed, listener.accept());
        let (rd, wr) = Stream::Plain(near.unwrap().0).into_split();
        (far.unwrap(), rd, wr)
    }

    #[tokio::test]
    async fn a_head_that_comes_byte_by_byte_takes_no_more_memory_than_it_needs() {
        let (mut far, mut rd, _wr) = pair().await;
        let mut buf = BytesMut::new();
        for n in 1..=300 {
            far.write_all(b"x").await.unwrap();
            assert_eq!(poll_fn(|cx| poll_fill(&mut rd, &mut buf, cx)).await.unwrap(), 1);
            assert_eq!(buf.len(), n);
            assert!(buf.capacity() <= 2 * n + 64, "{} for {n}", buf.capacity());
        }
        assert_eq!(take_head(&mut buf, 100).len(), 100);
        assert_eq!(buf.len(), 200);
        assert_eq!(take_head(&mut buf, 200).len(), 200);
        assert_eq!((buf.len(), buf.capacity()), (0, 0));
        drop(far);
        assert_eq!(poll_fn(|cx| poll_fill(&mut rd, &mut buf, cx)).await.unwrap(), 0);
        assert_eq!(buf.capacity(), 0);
    }

    #[tokio::test]
    async fn room_grows_for_a_bulky_body_alone() {
        let (mut far, mut rd, _wr) = pair().await;
        let (mut room, mut buf) = (Room::default(), BytesMut::new());
        for _ in 0..20 {
            far.write_all(b"little").await.unwrap();
            let n = poll_fn(|cx| room.poll_fill(&mut rd, &mut buf, cx)).await.unwrap();
            assert_eq!(n, 6);
            drop(buf.split().freeze());
        }
        assert_eq!(room.0, d::READ_BUF);
        const ALL: usize = 1024 * 1024;
        let sent: Vec<u8> = (0..ALL).map(|i| (i * 7 + i / 251) as u8).collect();
        let mut small = Room::default();
        small.stay_small();
        for (mut room, grown) in [(room, d::READ_BUF_MAX), (small, 0)] {
            let (mut far, mut rd, _wr) = pair().await;
            let sent = sent.clone();
            let given = sent.clone();
            let writing = tokio::spawn(async move {
                far.write_all(&given).await.unwrap();
                far
            });
            let (mut got, mut most, mut placed) = (Vec::new(), 0, false);
            while got.len() < ALL {
                assert!(poll_fn(|cx| room.poll_fill(&mut rd, &mut buf, cx)).await.unwrap() > 0);
                most = most.max(room.0);
                // Where TLS copies from quickly; see there.
                let mut place = BytesMut::with_capacity(scratch::SPARE);
                scratch::begin(&mut place);
                placed |= buf.as_ptr().addr() % 64 == place.as_ptr().addr() % 64;
                got.extend_from_slice(&buf.split());
            }
            assert!(got == sent);
            assert_eq!(most, grown);
            assert!(placed || grown == 0, "bulk is read into memory of its own");
            drop(writing.await.unwrap());
        }
    }

    #[tokio::test]
    async fn both_parts_are_written_however_the_peer_takes_them() {
        let (mut far, _rd, mut wr) = pair().await;
        let (first, second) = (vec![1; 100_000], vec![2; 3_000_000]);
        for (first, second) in [
            (&first[..], &second[..]),
            (&[], &second),
            (&first, &[]),
            (&[], &[]),
        ] {
            let want = [first, second].concat();
            let reading = async {
                let mut got = vec![0; want.len()];
                tokio::io::AsyncReadExt::read_exact(&mut far, &mut got)
                    .await
                    .unwrap();
                got
            };
            let mut sent = 0;
            let writing = write_both(&mut wr, first, second, &mut sent, d::WRITE_TIMEOUT);
            let (written, got) = tokio::join!(writing, reading);
            written.unwrap();
            assert!(got == want);
            assert_eq!(sent, want.len());
        }
    }
}
