//! Each request is counted: bytes, time, end. With `RUST_LOG=debug`, one line for each request: method, path, status, bytes, time, and whether its tunnel was
//! fresh. The path is the one that goes to the client, so without what was ours, and without the query.

use super::rewrite::Added;
use super::{BodyError, Outcome, Request, RequestBody, Responder};
use crate::http::body::{Piece, Trailers};
use crate::http::{Framing, ResponseHead};
use crate::metrics::{self, Class, Traffic};
use bytes::Bytes;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::net::TcpStream;

/// A responder that is watched.
pub(super) struct Traced<'a, R> {
    inner: &'a mut R,
    traffic: &'a Traffic,
    begun: Instant,
    status: u16,
    bytes: u64,
    /// Exchanges that the tunnel had carried before; none if there was no tunnel.
    pub(super) uses: Option<u32>,
}

impl<'a, R: Responder> Traced<'a, R> {
    pub(super) fn new(inner: &'a mut R, traffic: &'a Traffic) -> Self {
        Self {
            inner,
            traffic,
            begun: Instant::now(),
            status: 0,
            bytes: 0,
            uses: None,
        }
    }

    /// Counts and tells how it went.
    pub(super) fn tell(self, request: &Request<'_>, outcome: &Outcome) {
        let class = match outcome {
            // The request is tried in another way.
            Outcome::Declined => return,
            Outcome::Done { .. } => Class::of(self.status),
            Outcome::Switch(..) => Class::Switched,
            Outcome::Refused { .. } => Class::Refused,
            Outcome::Broken => Class::Broken,
        };
        metrics::exchanged(class, self.begun.elapsed());
        self.traffic.request();
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let (end, status) = match outcome {
            Outcome::Done { .. } => ("done", self.status),
            Outcome::Switch(..) => ("switched", 101),
            Outcome::Declined => return,
            Outcome::Refused { refusal, .. } => (refusal.code, refusal.status),
            Outcome::Broken => ("broken off", self.status),
        };
        let target = request.route.target.as_str();
        let path = target.split('?').next().unwrap_or_default();
        let tunnel = match self.uses {
            None => "none",
            Some(0) => "fresh",
            Some(_) => "reused",
        };
        let (method, client) = (request.head.method(), &request.route.client.id);
        let (bytes, ms) = (self.bytes, self.begun.elapsed().as_millis() as u64);
        tracing::debug!(%client, method, path, status, bytes, ms, tunnel, end, "request");
    }
}

impl<R: Responder + Send> Responder for Traced<'_, R> {
    async fn interim(&mut self, head: &ResponseHead) -> io::Result<()> {
        self.inner.interim(head).await
    }
    async fn head(&mut self, head: &ResponseHead, framing: Framing, added: Added<'_>) -> io::Result<()> {
        self.status = head.status;
        self.inner.head(head, framing, added).await
    }
    async fn data(&mut self, data: Bytes) -> io::Result<()> {
        self.bytes += data.len() as u64;
        self.traffic.went(data.len() as u64);
        self.inner.data(data).await
    }
    async fn flush(&mut self) -> io::Result<()> {
        self.inner.flush().await
    }
    async fn end(&mut self, trailers: Option<Trailers>) -> io::Result<()> {
        self.inner.end(trailers).await
    }
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.poll_gone(cx)
    }
    fn direct(&self) -> Option<&TcpStream> {
        self.inner.direct()
    }
    fn skip(&mut self, n: u64) {
        self.bytes += n;
        self.traffic.went(n);
        self.inner.skip(n);
    }
    fn can_switch(&self) -> bool {
        self.inner.can_switch()
    }
}

/// A request body whose bytes are counted.
pub(super) struct Counted<'a, B> {
    inner: &'a mut B,
    traffic: &'a Traffic,
}

impl<'a, B> Counted<'a, B> {
    pub(super) fn new(inner: &'a mut B, traffic: &'a Traffic) -> Self {
        Self { inner, traffic }
    }
}

impl<B: RequestBody + Send> RequestBody for Counted<'_, B> {
    async fn next(&mut self) -> Result<Piece, BodyError> {
        let piece = self.inner.next().await?;
        if let Piece::Data(data) = &piece {
            self.traffic.came(data.len() as u64);
        }
        Ok(piece)
    }
    async fn closed(&mut self) -> bool {
        self.inner.closed().await
    }
    fn has_ended(&self) -> bool {
        self.inner.has_ended()
    }
    fn direct(&self) -> Option<(&TcpStream, u64)> {
        self.inner.direct()
    }
    fn skip(&mut self, n: u64) {
        self.traffic.came(n);
        self.inner.skip(n);
    }
}
