//! The public port: what visitors send, whoever they are.
//!
//! A connection begins with a look at its first bytes; what they tell decides who serves it. Every
//! request is routed by itself, never a connection.

use crate::defaults as d;
use crate::exchange::deadline::Deadline;
use crate::exchange::poll_io;
use crate::shared::{Public, Visitor};
use crate::visitor::census::ConnPermit;
use crate::visitor::{http1, http2};
use arp_common::stop::Stop;
use arp_common::transport::{Joined, Prefixed, Stream};
use bytes::BytesMut;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// First byte of every TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sniffed {
    Http1,
    Http2,
    Unclear,
}

fn sniff(first: &[u8]) -> Sniffed {
    if first.starts_with(H2_PREFACE) {
        Sniffed::Http2
    } else if H2_PREFACE.starts_with(first) {
        Sniffed::Unclear
    } else {
        Sniffed::Http1
    }
}

impl Public {
    /// Ends the TLS handshake of a new connection, if it begins one, and serves it.
    pub(crate) async fn welcome(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        permit: ConnPermit,
        stop: Stop,
    ) {
        let Some(tls) = &self.tls else {
            return self.serve(Stream::Plain(tcp), peer, permit, stop).await;
        };
        let begin = async {
            let mut first = [0];
            if tcp.peek(&mut first).await? == 0 || first[0] != TLS_HANDSHAKE {
                return Ok(Stream::Plain(tcp));
            }
            let handshake = timeout(d::PUBLIC_HANDSHAKE, tls.accept(tcp));
            let tls = handshake
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
            Ok::<_, std::io::Error>(Stream::Tls(Box::new(tls.into())))
        };
        let begun = tokio::select! {
            begun = timeout(self.limits.keep_alive, Box::pin(begin)) => begun,
            () = stop.given() => return,
        };
        if let Ok(Ok(stream)) = begun {
            self.serve(stream, peer, permit, stop).await;
        }
    }

    /// Serves one connection until it ends. After `stop` no further request is taken.
    pub(crate) async fn serve(
        self: Arc<Self>,
        stream: Stream,
        peer: SocketAddr,
        permit: ConnPermit,
        stop: Stop,
    ) {
        let visitor = Visitor {
            ip: peer.ip(),
            trusted: self.trusts(peer.ip()),
            tls: matches!(stream, Stream::Tls(_)),
        };
        let (mut rd, wr) = stream.into_split();
        let mut buf = BytesMut::new();
        let mut deadline = Deadline::default();
        deadline.set(self.limits.keep_alive.min(d::KEEP_ALIVE));
        let mut begun = false;
        // Waited for in one place for as long as the connection lives.
        let mut stopped = stop.given();
        loop {
            match sniff(&buf) {
                Sniffed::Unclear => {}
                Sniffed::Http1 => {
                    let connection = http1::Connection::new(self, visitor, peer, rd, wr, buf);
                    Box::pin(connection.serve(&stop, stopped)).await;
                    break;
                }
                Sniffed::Http2 => {
                    let io = Prefixed::new(buf, Joined { rd, wr });
                    Box::pin(http2::serve(self, visitor, peer, io, stopped)).await;
                    break;
                }
            }
            // Once: who sends the preface byte by byte has no more time for it than who sends it whole.
            if !buf.is_empty() && !begun {
                begun = true;
                deadline.set(self.limits.head_timeout);
            }
            let read = deadline.run(|cx| poll_io::poll_fill_head(&mut rd, &mut buf, cx));
            tokio::select! {
                biased;
                read = read => if !matches!(read, Ok(n) if n > 0) { break },
                () = &mut stopped => break,
            }
        }
        drop(permit);
    }
}
