//! The TCP connection under TLS, read in large pieces while it is bulky.
//!
//! rustls asks for 4 KiB at a time, so a record of 16 KiB costs five system calls, and as many changes of the size of
//! its buffer. Where a read has filled all the room that it was given, the next one takes what there is, and gives
//! it out by and by. A connection that has nothing to say holds no memory for that.

use bytes::{Buf, BytesMut};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Most that is read at a time, in bytes: four records.
const AHEAD: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub struct ReadAhead {
    tcp: TcpStream,
    /// Read, and not yet asked for.
    held: BytesMut,
    /// Has the last read filled all its room?
    bulky: bool,
}

impl ReadAhead {
    /// A connection of which nothing was read.
    pub fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            held: BytesMut::new(),
            bulky: false,
        }
    }

    /// The connection itself, for options and addresses.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Was something read that nobody has asked for yet?
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if me.held.is_empty() {
            if !me.bulky {
                let room = buf.remaining();
                ready!(Pin::new(&mut me.tcp).poll_read(cx, buf))?;
                me.bulky = room > 0 && buf.remaining() == 0;
                return Poll::Ready(Ok(()));
            }
            me.held.reserve(AHEAD);
            let read = tokio_util::io::poll_read_buf(Pin::new(&mut me.tcp), cx, &mut me.held);
            if !matches!(read, Poll::Ready(Ok(n)) if n > buf.remaining()) {
                me.bulky = false;
            }
            if me.held.is_empty() {
                me.held = BytesMut::new();
            }
            ready!(read)?;
        }
        let n = me.held.len().min(buf.remaining());
        buf.put_slice(&me.held[..n]);
        me.held.advance(n);
        if me.held.is_empty() && !me.bulky {
            me.held = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_byte_comes_once_and_in_order_whatever_is_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialed = TcpStream::connect(listener.local_addr().unwrap());
        let (mut far, near) = tokio::try_join!(dialed, async { Ok(listener.accept().await?.0) }).unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        let all = sent.clone();
        let writer = tokio::spawn(async move {
            // Small pieces and large ones, with a pause in between.
            for part in all.chunks(700_000) {
                far.write_all(&part[..100]).await.unwrap();
                tokio::task::yield_now().await;
                far.write_all(&part[100..]).await.unwrap();
            }
        });
        let mut near = ReadAhead::new(near);
        let (mut got, mut room) = (Vec::new(), 1);
        let mut buf = vec![0; 20_000];
        loop {
            let n = near.read(&mut buf[..room]).await.unwrap();
            if n == 0 {
                break;
            }
            got.extend_from_slice(&buf[..n]);
            room = room % 20_000 + 1 + room % 97;
            room = room.clamp(1, 20_000);
        }
        writer.await.unwrap();
        assert!(got == sent, "{} of {}", got.len(), sent.len());
        assert_eq!(
            (near.holds(), near.held.capacity()),
            (false, 0),
            "nothing is kept"
        );
    }
}
