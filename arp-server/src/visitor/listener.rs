//! The public port: what visitors send, whoever they are.
//!
//! A connection begins with a look at its first bytes; what they tell decides who serves it. Every
//! request is routed by itself, never a connection.

use crate::defaults as d;
use crate::exchange::deadline::Deadline;
use crate::exchange::poll_io;
use crate::metrics::{self, Counter};
use crate::shared::{Public, Visitor};
use crate::tcp::{self, Line, mysql};
use crate::visitor::census::ConnPermit;
use crate::visitor::sniff::tls::HANDSHAKE;
use crate::visitor::sniff::{Sniffed, Speaks, sniff};
use crate::visitor::{http1, http2};
use arp_common::net;
use arp_common::protocol::TlsBegun;
use arp_common::proxy_header;
use arp_common::stop::Stop;
use arp_common::transport::{Joined, Prefixed, Stream};
use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What the first byte of a connection tells, where there is a certificate.
enum Begun {
    /// It is read by the relay.
    Ours(Stream),
    /// It begins TLS that may be for an edge to read.
    Unread(TcpStream),
}

/// Takes the header off a connection that a balancer passes on, and tells whose it is.
async fn passed_on(tcp: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut seen = vec![0; proxy_header::MAX_V2];
    let mut had = 0;
    loop {
        let n = tcp.peek(&mut seen).await?;
        match proxy_header::parse(&seen[..n]).map_err(io::Error::other)? {
            Some(header) => {
                tcp.read_exact(&mut seen[..header.length]).await?;
                return Ok(header.source);
            }
            None if n == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            // A header comes in one piece, nearly always; what is missing is waited for, and not in a circle.
            None if n == had => tokio::time::sleep(d::REST_OF_HEADER).await,
            None => had = n,
        }
    }
}

impl Public {
    /// Ends the TLS handshake of a new connection, if it begins one, and serves it.
    pub(crate) async fn welcome(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        mut permit: ConnPermit,
        stop: Stop,
    ) {
        let (mut tcp, mut peer) = (tcp, peer);
        if self.is_balancer(peer.ip()) {
            let told = tokio::select! {
                told = timeout(self.limits.head_timeout, Box::pin(passed_on(&mut tcp))) => told,
                () = stop.given() => return,
            };
            match told {
                Ok(Ok(Some(source))) => {
                    peer = net::canonical(source);
                    // Whoever is behind the balancer has the places of its own address.
                    let Some(own) = self.admit(peer.ip()) else { return };
                    permit = own;
                }
                // The balancer itself, to see whether we are here.
                Ok(Ok(None)) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
        let Some(tls) = &self.tls else {
            return self.serve(Stream::Plain(tcp), peer, permit, stop).await;
        };
        let begin = async {
            let mut first = [0];
            let peeked = if self.registry.serves_mysql() {
                // Who waits to be greeted is not to wait for the end of our patience.
                timeout(mysql::SILENCE, tcp.peek(&mut first))
                    .await
                    .unwrap_or(Ok(0))
            } else {
                tcp.peek(&mut first).await
            };
            if peeked? == 0 || first[0] != HANDSHAKE {
                return Ok(Begun::Ours(Stream::Plain(tcp)));
            }
            if self.passes_tls() {
                return Ok(Begun::Unread(tcp));
            }
            let handshake = timeout(d::PUBLIC_HANDSHAKE, tls.accept(tcp));
            let tls = handshake
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
            Ok::<_, std::io::Error>(Begun::Ours(Stream::Tls(Box::new(tls.into()))))
        };
        let begun = tokio::select! {
            begun = timeout(self.limits.keep_alive, Box::pin(begin)) => begun,
            () = stop.given() => return,
        };
        match begun {
            Ok(Ok(Begun::Ours(stream))) => self.serve(stream, peer, permit, stop).await,
            Ok(Ok(Begun::Unread(tcp))) => {
                let line = self.clone().line(tcp, peer);
                let Some(line) = Box::pin(tcp::tls::serve(line, TlsBegun::Direct, &stop)).await else {
                    return;
                };
                let handshake = timeout(d::PUBLIC_HANDSHAKE, Box::pin(line.into_tls()));
                let stream = tokio::select! {
                    stream = handshake => stream,
                    () = stop.given() => return,
                };
                match stream {
                    Ok(Some(stream)) => self.serve(stream, peer, permit, stop).await,
                    _ => metrics::add(Counter::FailedPublic, 1),
                }
            }
            _ => metrics::add(Counter::FailedPublic, 1),
        }
    }

    /// A connection of which nothing was read.
    fn line(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr) -> Line {
        let visitor = Visitor {
            ip: peer.ip(),
            trusted: self.trusts(peer.ip()),
            tls: false,
        };
        let (rd, wr) = Stream::Plain(tcp).into_split();
        Line {
            public: self,
            visitor,
            peer,
            rd,
            wr,
            buf: BytesMut::new(),
            deadline: Deadline::default(),
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
                Sniffed::Is(Speaks::Http1) => {
                    let connection = http1::Connection::new(self, visitor, peer, rd, wr, buf);
                    Box::pin(connection.serve(&stop, stopped)).await;
                    break;
                }
                Sniffed::Is(Speaks::Http2) => {
                    let io = Prefixed::new(buf, Joined { rd, wr });
                    Box::pin(http2::serve(self, visitor, peer, io, stopped)).await;
                    break;
                }
                other => {
                    let speaks = match other {
                        Sniffed::Is(speaks) => Some(speaks),
                        _ => None,
                    };
                    let line = Line {
                        public: self,
                        visitor,
                        peer,
                        rd,
                        wr,
                        buf,
                        deadline,
                    };
                    Box::pin(tcp::serve(line, speaks, &stop)).await;
                    break;
                }
            }
            // Once: who sends the preface byte by byte has no more time for it than who sends it whole.
            let buf_is_empty = buf.is_empty();
            if !buf_is_empty && !begun {
                begun = true;
                deadline.set(self.limits.head_timeout);
            }
            let read = deadline.run(|cx| poll_io::poll_fill_head(&mut rd, &mut buf, cx));
            // Who waits to be greeted; a proxy in front keeps connections open for later.
            let waits = buf_is_empty && !visitor.tls && !visitor.trusted && self.registry.serves_mysql();
            let read = tokio::select! {
                biased;
                read = read => read,
                () = &mut stopped => {
                    let read = deadline.run(|cx| poll_io::poll_fill_head(&mut rd, &mut buf, cx));
                    match timeout(d::LAST_WORD, read).await {
                        Ok(read) => read,
                        Err(_) => break,
                    }
                }
                () = tokio::time::sleep(mysql::SILENCE), if waits => {
                    let line = Line {
                        public: self,
                        visitor,
                        peer,
                        rd,
                        wr,
                        buf,
                        deadline,
                    };
                    Box::pin(mysql::serve(line)).await;
                    break;
                }
            };
            if !matches!(read, Ok(n) if n > 0) {
                break;
            }
        }
        drop(permit);
    }
}
