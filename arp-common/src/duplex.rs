//! Copying two streams into each other: both directions at once, half-close carried through, counted.
//!
//! Reading goes through one scratch buffer a thread; a stream owns memory only for bytes that its other
//! side would not take yet. Long, bulky flows between plain TCP connections move inside the kernel
//! ([`crate::splice`]).

use crate::defaults::{COPY_CHUNK, SPLICE_AFTER};
use crate::scratch::Scratch;
use crate::splice::{Moved, Pipe};
use crate::transport::Carrier;
use bytes::{Buf, BytesMut};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new(COPY_CHUNK));
}

/// How many bytes went which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transferred {
    /// From the first stream to the second.
    pub a_to_b: u64,
    /// From the second stream to the first.
    pub b_to_a: u64,
}

/// Copies `a` and `b` into each other until both have ended. An end of one direction is passed on as a
/// half-close and leaves the other direction running.
///
/// `head_a` and `head_b` are bytes that were already read from `a` and `b`. `count` is kept up to date
/// as bytes arrive, also when the copy fails or is dropped.
///
/// Until both have ended, dropping them is a reset: a flow that is cut must not look like one that is over.
///
/// # Errors
/// The first failure of either side.
pub async fn copy<A, B>(
    a: &mut A,
    b: &mut B,
    head_a: BytesMut,
    head_b: BytesMut,
    count: &mut Transferred,
) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Carrier + Unpin,
    B: AsyncRead + AsyncWrite + Carrier + Unpin,
{
    let mut copy = Duplex::begin(a, b, head_a, head_b);
    poll_fn(|cx| copy.poll(cx, a, b, count)).await
}

/// The same for who wants to look at `count` while it goes on.
pub struct Duplex {
    up: Flow,
    down: Flow,
}

impl Duplex {
    /// Begins to copy `a` and `b` into each other; see [`copy`].
    pub fn begin<A: Carrier, B: Carrier>(a: &mut A, b: &mut B, head_a: BytesMut, head_b: BytesMut) -> Self {
        a.begin();
        b.begin();
        Self {
            up: Flow::new(head_a),
            down: Flow::new(head_b),
        }
    }

    /// Goes on, always with the same `a` and `b`. Ready when both have ended.
    ///
    /// # Errors
    /// The first failure of either side.
    pub fn poll<A, B>(
        &mut self,
        cx: &mut Context<'_>,
        a: &mut A,
        b: &mut B,
        count: &mut Transferred,
    ) -> Poll<io::Result<()>>
    where
        A: AsyncRead + AsyncWrite + Carrier + Unpin,
        B: AsyncRead + AsyncWrite + Carrier + Unpin,
    {
        let up_done = self.up.poll(cx, a, b, &mut count.a_to_b)?;
        let down_done = self.down.poll(cx, b, a, &mut count.b_to_a)?;
        if up_done.is_pending() || down_done.is_pending() {
            return Poll::Pending;
        }
        a.finish();
        b.finish();
        Poll::Ready(Ok(()))
    }
}

/// One direction.
struct Flow {
    /// Read, and not yet taken by the destination.
    rest: BytesMut,
    /// Bytes since the source last had nothing to give.
    burst: u64,
    /// Bytes since it last paused with little behind it.
    run: u64,
    pipe: Option<Pipe>,
    state: State,
}

#[derive(PartialEq, Clone, Copy)]
enum State {
    Copying,
    Closing,
    Done,
}

impl Flow {
    fn new(head: BytesMut) -> Self {
        Self {
            rest: head,
            burst: 0,
            run: 0,
            pipe: None,
            state: State::Copying,
        }
    }

    fn poll<S, D>(
        &mut self,
        cx: &mut Context<'_>,
        src: &mut S,
        dst: &mut D,
        count: &mut u64,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncRead + Carrier + Unpin,
        D: AsyncWrite + Carrier + Unpin,
    {
        loop {
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Closing => {
                    ready!(Pin::new(&mut *dst).poll_shutdown(cx))?;
                    self.state = State::Done;
                }
                State::Copying => {
                    if !self.rest.is_empty() {
                        let n = ready!(Pin::new(&mut *dst).poll_write(cx, &self.rest))?;
                        if n == 0 {
                            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                        }
                        *count += n as u64;
                        self.rest.advance(n);
                        if self.rest.is_empty() {
                            self.rest = BytesMut::new();
                        }
                    } else if self.run >= SPLICE_AFTER {
                        ready!(self.poll_splice(cx, src, dst, count))?;
                    } else {
                        // TLS that still holds what it took takes only a part of more, and the rest is copied once
                        // again.
                        ready!(Pin::new(&mut *dst).poll_flush(cx))?;
                        ready!(self.poll_copy(cx, src, dst, count))?;
                    }
                }
            }
        }
    }

    /// Moves one scratch buffer's worth. Ready when it may be called again.
    fn poll_copy<S, D>(
        &mut self,
        cx: &mut Context<'_>,
        src: &mut S,
        dst: &mut D,
        count: &mut u64,
    ) -> Poll<io::Result<()>>
    where
        S: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            if Pin::new(&mut *src).poll_read(cx, &mut buf)?.is_pending() {
                // A source that is no faster than we are pauses now and then, however bulky its flow is.
                if self.burst < COPY_CHUNK as u64 {
                    self.run = 0;
                }
                self.burst = 0;
                // TLS may still hold the last bytes: nothing is kept back while we wait for more.
                let _ = Pin::new(&mut *dst).poll_flush(cx)?;
                return Poll::Pending;
            }
            let read = buf.filled();
            if read.is_empty() {
                self.state = State::Closing;
                return Poll::Ready(Ok(()));
            }
            let written = match Pin::new(&mut *dst).poll_write(cx, read)? {
                Poll::Ready(n) => n,
                Poll::Pending => 0,
            };
            *count += written as u64;
            self.burst += read.len() as u64;
            self.run += read.len() as u64;
            self.rest.extend_from_slice(&read[written..]);
            Poll::Ready(Ok(()))
        })
    }

    /// Moves bytes inside the kernel until the source ends, or pauses with little behind it. Ready when
    /// the flow is no longer bulky or cannot be spliced: copy then.
    fn poll_splice<S, D>(
        &mut self,
        cx: &mut Context<'_>,
        src: &mut S,
        dst: &mut D,
        count: &mut u64,
    ) -> Poll<io::Result<()>>
    where
        S: Carrier,
        D: Carrier,
    {
        let (Some(src), Some(dst)) = (src.plain(), dst.plain()) else {
            self.run = 0;
            return Poll::Ready(Ok(()));
        };
        if self.pipe.is_none() {
            self.pipe = Pipe::new();
        }
        let Some(pipe) = &mut self.pipe else {
            self.run = 0;
            return Poll::Ready(Ok(()));
        };
        let before = *count;
        let mut want = u64::MAX;
        match pipe.poll_move(cx, src, dst, &mut want, count) {
            Poll::Ready(Ok(Moved::SourceEnded | Moved::All)) => {
                self.state = State::Closing;
                self.pipe = None;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => {
                // A flow that trickles gives its pipe back; it is registered for readiness already, and
                // copying registers again when it is polled next.
                if *count - before < 4096 && pipe.held() == 0 {
                    self.pipe = None;
                    self.run = 0;
                }
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialed = TcpStream::connect(listener.local_addr().unwrap());
        let (a, b) = tokio::join!(dialed, listener.accept());
        (a.unwrap(), b.unwrap().0)
    }

    fn pattern(n: usize) -> Vec<u8> {
        (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    /// Splice, copy and slow readers included: what goes in on each side comes out on the other.
    #[tokio::test(flavor = "multi_thread")]
    async fn every_byte_arrives_in_order_both_ways() {
        let (mut client, mut front) = pair().await;
        let (mut back, mut server) = pair().await;
        let copy = tokio::spawn(async move {
            let mut count = Transferred::default();
            let head = BytesMut::from(&b"head"[..]);
            let result = copy(&mut front, &mut back, head, BytesMut::new(), &mut count).await;
            (result, count)
        });
        let up = pattern(20 * 1024 * 1024);
        let down = pattern(3 * 1024 * 1024 + 1);
        let (up2, down2) = (up.clone(), down.clone());
        let client = tokio::spawn(async move {
            let (mut r, mut w) = client.split();
            let send = async {
                w.write_all(&up2).await.unwrap();
                w.shutdown().await.unwrap();
            };
            let mut got = Vec::new();
            let ((), read) = tokio::join!(send, r.read_to_end(&mut got));
            read.unwrap();
            got
        });
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        // The other direction still works after this one has ended.
        server.write_all(&down2).await.unwrap();
        drop(server);
        assert!(got[..4] == *b"head" && got[4..] == up[..]);
        assert!(client.await.unwrap() == down);
        let (result, count) = copy.await.unwrap();
        result.unwrap();
        assert_eq!(
            count,
            Transferred {
                a_to_b: up.len() as u64 + 4,
                b_to_a: down.len() as u64
            }
        );
    }

    /// Takes everything, and passes it on with every second flush.
    #[derive(Default)]
    struct Holding {
        held: Vec<u8>,
        passed_on: Vec<u8>,
        flushes: usize,
    }

    impl AsyncRead for Holding {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Holding {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            assert!(self.held.is_empty(), "more is given to who holds something");
            self.held.extend_from_slice(buf);
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if !self.held.is_empty() && self.flushes.is_multiple_of(2) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let held = std::mem::take(&mut self.held);
            self.passed_on.extend_from_slice(&held);
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(cx)
        }
    }

    impl Carrier for Holding {
        fn plain(&self) -> Option<&TcpStream> {
            None
        }
        fn begin(&mut self) {}
        fn finish(&mut self) {}
    }

    #[tokio::test]
    async fn who_holds_what_it_took_is_given_no_more() {
        let (mut client, mut front) = pair().await;
        let sent = pattern(2 * 1024 * 1024);
        let given = sent.clone();
        let writing = tokio::spawn(async move {
            client.write_all(&given).await.unwrap();
            client.shutdown().await.unwrap();
        });
        let (mut sink, mut count) = (Holding::default(), Transferred::default());
        let none = BytesMut::new;
        copy(&mut front, &mut sink, none(), none(), &mut count)
            .await
            .unwrap();
        writing.await.unwrap();
        assert!(sink.passed_on == sent && sink.held.is_empty());
    }

    #[tokio::test]
    async fn a_reset_is_a_failure_and_not_an_end() {
        let (_client, mut front) = pair().await;
        let (mut back, server) = pair().await;
        crate::net::reset_on_drop(&server);
        drop(server);
        let mut count = Transferred::default();
        let result: io::Result<()> = copy(
            &mut front,
            &mut back,
            BytesMut::new(),
            BytesMut::new(),
            &mut count,
        )
        .await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
