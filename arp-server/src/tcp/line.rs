//! A visitor's connection before its bytes belong to somebody: read with a deadline, answered in its own words.

use crate::answer::Refusal;
use crate::defaults as d;
use crate::exchange::deadline::Deadline;
use crate::exchange::poll_io::{Outgoing, poll_fill};
use crate::metrics;
use crate::shared::{Public, Visitor};
use arp_common::transport::{Joined, ReadHalf, Stream, WriteHalf};
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;

/// See the module.
pub(crate) struct Line {
    /// What all connections share.
    pub(crate) public: Arc<Public>,
    /// Who sends.
    pub(crate) visitor: Visitor,
    /// The connection's other end.
    pub(crate) peer: SocketAddr,
    /// Bytes from the visitor.
    pub(crate) rd: ReadHalf,
    /// Bytes to the visitor.
    pub(crate) wr: WriteHalf,
    /// Read and not yet used.
    pub(crate) buf: BytesMut,
    /// For everything that is read before a tunnel is there.
    pub(crate) deadline: Deadline,
}

impl Line {
    /// Has so long from now on to say whom it is for.
    pub(crate) fn hurry(&mut self) {
        self.deadline.set(self.public.limits.head_timeout);
    }

    /// Reads more, of what must not be longer than `most` in all. False if nothing more comes, or not in time.
    pub(crate) async fn more(&mut self, most: usize) -> bool {
        if self.buf.len() >= most {
            return false;
        }
        let Self {
            rd, buf, deadline, ..
        } = self;
        let read = deadline.run(|cx| poll_fill(rd, buf, cx)).await;
        matches!(read, Ok(n) if n > 0)
    }

    /// Could it be encrypted, and is not yet?
    pub(crate) fn can_encrypt(&self) -> bool {
        self.public.tls.is_some() && !self.visitor.tls
    }

    /// Ends TLS with the relay's certificate.
    async fn into_tls(self) -> Option<Stream> {
        let tls = self.public.tls.clone()?;
        let Stream::Plain(tcp) = Stream::reunite(self.rd, self.wr)? else {
            return None;
        };
        let read = self.buf;
        let tls = tls.accept_with(tcp, |session| {
            let mut read = &read[..];
            while !read.is_empty() {
                // What it cannot take it refuses when the handshake goes on.
                let taken = session.read_tls(&mut read);
                if !matches!(taken, Ok(n) if n > 0) || session.process_new_packets().is_err() {
                    return;
                }
            }
        });
        Some(Stream::Tls(Box::new(tls.await.ok()?.into())))
    }

    /// Goes on inside TLS. The caller sets the deadline.
    pub(crate) async fn encrypt(self) -> Option<Self> {
        let (public, mut visitor, peer) = (self.public.clone(), self.visitor, self.peer);
        let (rd, wr) = self.into_tls().await?.into_split();
        visitor.tls = true;
        Some(Self {
            public,
            visitor,
            peer,
            rd,
            wr,
            buf: BytesMut::new(),
            deadline: Deadline::default(),
        })
    }

    /// Writes to the visitor.
    ///
    /// # Errors
    /// As the connection says, and `TimedOut`.
    pub(crate) async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut out = Outgoing {
            piece: Bytes::copy_from_slice(bytes),
            ..Outgoing::default()
        };
        out.write(&mut self.wr, &mut Deadline::default(), d::WRITE_TIMEOUT)
            .await
    }

    /// Writes a last word and ends so that it is seen: unread bytes would turn our close into a reset that can
    /// overtake it.
    pub(crate) async fn farewell(mut self, last: &[u8]) {
        if self.say(last).await.is_err() || self.wr.shutdown().await.is_err() {
            return;
        }
        self.deadline.set(d::LINGER);
        let Self {
            rd, buf, deadline, ..
        } = &mut self;
        let mut seen = 0;
        while seen < d::LINGER_BYTES {
            buf.clear();
            match deadline.run(|cx| poll_fill(rd, buf, cx)).await {
                Ok(n) if n > 0 => seen += n,
                _ => return,
            }
        }
    }

    /// Refuses in one line of text.
    pub(crate) async fn refuse(self, refusal: &Refusal) {
        metrics::refused("raw", refusal.code);
        let text = format!("{}: {}\r\n", refusal.code, refusal.message);
        self.farewell(text.as_bytes()).await;
    }

    /// The two sides as one stream, and what was read and not used.
    pub(crate) fn into_stream(self) -> (Joined, BytesMut) {
        let Self { rd, wr, buf, .. } = self;
        (Joined { rd, wr }, buf)
    }
}
