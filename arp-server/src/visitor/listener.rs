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
use crate::visitor::sniff::{Sniffed, Speaks, sniff};
use crate::visitor::{http1, http2};
use arp_common::net;
use arp_common::protocol::TlsBegun;
use arp_common::proxy_header;
use arp_common::stop::Stop;
use arp_common::transport::{Prefixed, Stream};
use bytes::BytesMut;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

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
    /// Serves a new connection.
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
        self.serve(tcp, peer, permit, stop).await;
    }

    /// Serves one connection until it ends. After `stop` no further request is taken.
    async fn serve(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr, mut permit: ConnPermit, stop: Stop) {
        let visitor = Visitor {
            ip: peer.ip(),
            trusted: self.trusts(peer.ip()),
            tls: false,
        };
        let patience = self.limits.keep_alive.min(d::KEEP_ALIVE);
        let (rd, wr) = Stream::Plain(tcp).into_split();
        let mut line = Line {
            public: self,
            visitor,
            peer,
            rd,
            wr,
            buf: BytesMut::new(),
            deadline: Deadline::default(),
        };
        line.deadline.set(patience);
        let mut begun = false;
        let came = Instant::now();
        // Waited for in one place for as long as the connection lives.
        let mut stopped = stop.given();
        loop {
            match sniff(&line.buf) {
                Sniffed::Unclear => {}
                Sniffed::Is(Speaks::Http1) => {
                    permit.speaks_http();
                    let Line {
                        public,
                        visitor,
                        rd,
                        wr,
                        buf,
                        ..
                    } = line;
                    let connection = http1::Connection::new(public, visitor, peer, rd, wr, buf);
                    Box::pin(connection.serve(&stop, stopped)).await;
                    break;
                }
                Sniffed::Is(Speaks::Http2) => {
                    permit.speaks_http();
                    let (public, visitor) = (line.public.clone(), line.visitor);
                    let (joined, buf) = line.into_stream();
                    let io = Prefixed::new(buf, joined);
                    Box::pin(http2::serve(public, visitor, peer, io, stopped)).await;
                    break;
                }
                Sniffed::Is(Speaks::Tls) if line.can_encrypt() => {
                    let Some(inside) = Box::pin(end_tls(line, &stop)).await else {
                        break;
                    };
                    // Everything begins anew inside it.
                    line = inside;
                    line.deadline.set(patience);
                    begun = false;
                }
                other => {
                    let speaks = match other {
                        Sniffed::Is(speaks) => Some(speaks),
                        _ => None,
                    };
                    Box::pin(tcp::serve(line, speaks, &stop)).await;
                    break;
                }
            }
            // Once: who sends the preface byte by byte has no more time for it than who sends it whole.
            let is_silent = line.buf.is_empty();
            if !is_silent && !begun {
                begun = true;
                line.hurry();
            }
            // Who waits to be greeted; a proxy in front keeps connections open for later.
            let waits = is_silent
                && !line.visitor.tls
                && !line.visitor.trusted
                && line.public.registry.serves_mysql();
            let greeted = if waits {
                came + mysql::silence(permit.is_beside_http())
            } else {
                came
            };
            let read = tokio::select! {
                biased;
                read = next(&mut line) => read,
                () = &mut stopped => match timeout(d::LAST_WORD, next(&mut line)).await {
                    Ok(read) => read,
                    Err(_) => break,
                },
                () = tokio::time::sleep_until(greeted), if waits => {
                    // Its address may have begun to speak HTTP meanwhile.
                    if came + mysql::silence(permit.is_beside_http()) > greeted {
                        continue;
                    }
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

/// Ends the TLS that a visitor begins with the relay's certificate, unless it is for an edge to read: then it is
/// carried there, and over.
async fn end_tls(mut line: Line, stop: &Stop) -> Option<Line> {
    if line.public.passes_tls() {
        line = tcp::tls::serve(line, TlsBegun::Direct, stop).await?;
    }
    let handshake = timeout(d::PUBLIC_HANDSHAKE, line.encrypt());
    let inside = tokio::select! {
        inside = handshake => inside.ok().flatten(),
        () = stop.given() => return None,
    };
    if inside.is_none() {
        metrics::add(Counter::FailedPublic, 1);
    }
    inside
}

/// Reads the next bytes of a connection that has not said what it speaks.
async fn next(line: &mut Line) -> io::Result<usize> {
    let Line {
        rd, buf, deadline, ..
    } = line;
    deadline.run(|cx| poll_io::poll_fill(rd, buf, cx)).await
}
