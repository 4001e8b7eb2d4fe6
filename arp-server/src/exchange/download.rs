//! The way back: an answer, from the tunnel to its visitor.

use super::deadline::Deadline;
use super::failure::{DownError, cut};
use super::poll_io::{Room, take_head};
use super::rewrite::{self, Added};
use super::splice::{Pauses, Spliced, splice};
use super::{Progress, Request, Responder};
use crate::defaults as d;
use crate::http::body::{Decoder, Piece};
use crate::http::scan::{Scan, Scanner};
use crate::http::{Framing, ResponseHead};
use crate::shared::Public;
use crate::tunnels::lease::{Lease, Way};
use arp_common::splice::Pipe;
use arp_common::transport::ReadHalf;
use bytes::BytesMut;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

/// How the way back ended.
pub(super) enum Down {
    Done { reusable: bool },
    Switch(Box<ResponseHead>),
}

/// The way back.
pub(super) struct DownStream<'a> {
    pub(super) rd: &'a mut ReadHalf,
    pub(super) buf: &'a mut BytesMut,
    pub(super) room: Room,
    pub(super) progress: &'a Progress,
    pub(super) lease: &'a Lease,
    pub(super) deadline: &'a mut Deadline,
}

impl DownStream<'_> {
    pub(super) async fn run<R: Responder>(
        &mut self,
        public: &Public,
        request: &Request<'_>,
        responder: &mut R,
    ) -> Result<Down, DownError> {
        if !responder.can_switch() {
            // HTTP/2, where one connection has many of these.
            self.room.stay_small();
        }
        let head = loop {
            let mut head = self.read_head(public.limits.response_timeout, responder).await?;
            request.origin(public).confine(&mut head);
            match head.status {
                101 if request.head.upgrade().is_some() && responder.can_switch() && head.switches() => {
                    return Ok(Down::Switch(Box::new(head)));
                }
                101 => return Err(DownError::NotHttp("101 to a request that did not ask for it")),
                200.. if request.trial => return Err(DownError::Declined),
                100..=199 => responder.interim(&head).await.map_err(|_| DownError::Visitor)?,
                _ => break head,
            }
        };
        let method = request.head.method();
        let framing = head.framing(method).map_err(|e| DownError::NotHttp(e.text))?;
        let secure = request.visitor.scheme(request.head) == "https";
        let cookie = request.route.set_cookie.as_ref();
        let cookie = cookie.map(|value| rewrite::cookie(value, secure));
        let added = Added {
            cookie: cookie.as_deref(),
            vary: request.route.vary,
        };
        self.progress.answered.store(true, Relaxed);
        responder
            .head(&head, framing, added)
            .await
            .map_err(|_| DownError::Visitor)?;
        self.body(framing, responder).await?;
        let reusable = head.keep_alive() && framing != Framing::UntilEof;
        Ok(Down::Done { reusable })
    }

    async fn read_head<R: Responder>(
        &mut self,
        time: Duration,
        responder: &mut R,
    ) -> Result<ResponseHead, DownError> {
        let mut scanner = Scanner::default();
        self.deadline.set(time);
        loop {
            match scanner.scan(self.buf, false) {
                Scan::Complete(n) => {
                    let block = take_head(self.buf, n);
                    self.deadline.clear();
                    return ResponseHead::parse(block).map_err(|e| DownError::NotHttp(e.text));
                }
                Scan::Partial if self.buf.len() >= d::MAX_HEAD => {
                    return Err(DownError::NotHttp("its head is too long"));
                }
                Scan::Partial | Scan::BareLf => {}
            }
            if self.fill(responder).await? == 0 {
                return Err(DownError::Tunnel(
                    "the local service closed the connection without an answer",
                    None,
                ));
            }
        }
    }

    async fn body<R: Responder>(&mut self, framing: Framing, responder: &mut R) -> Result<(), DownError> {
        let mut decoder = Decoder::new(framing);
        loop {
            let piece = decoder.decode(self.buf).map_err(|e| DownError::NotHttp(e.0))?;
            let more = piece.is_none();
            // A visitor that takes nothing keeps us here.
            self.lease.waits_for_visitor(Way::Down, true);
            let taken = match piece {
                Some(Piece::Data(data)) => responder.data(data).await,
                Some(Piece::End(trailers)) => {
                    return responder.end(trailers).await.map_err(|_| DownError::Visitor);
                }
                None => responder.flush().await,
            };
            self.lease.waits_for_visitor(Way::Down, false);
            taken.map_err(|_| DownError::Visitor)?;
            self.lease.step();
            if !more {
                continue;
            }
            if self.splice_rest(&mut decoder, responder).await? {
                continue;
            }
            if self.fill(responder).await? == 0 {
                if !decoder.may_end_here() {
                    return Err(cut());
                }
                return responder.end(None).await.map_err(|_| DownError::Visitor);
            }
        }
    }

    /// Moves what is left of a large body inside the kernel; false where that cannot be done.
    async fn splice_rest<R: Responder>(
        &self,
        decoder: &mut Decoder,
        responder: &mut R,
    ) -> Result<bool, DownError> {
        let (Some(n), Some(src)) = (decoder.plain_rest(), self.rd.plain()) else {
            return Ok(false);
        };
        if n < d::SPLICE_FROM {
            return Ok(false);
        }
        let (Some(dst), Some(mut pipe)) = (responder.direct(), Pipe::new()) else {
            return Ok(false);
        };
        // A service may think as long as it likes in the middle of its answer.
        let pauses = Pauses {
            source: Duration::MAX,
            destination: d::WRITE_TIMEOUT,
        };
        let mut moved = 0;
        let end = splice(
            &mut pipe,
            (src, dst),
            n,
            &mut moved,
            Way::Down,
            pauses,
            self.lease,
        )
        .await;
        decoder.skip(moved);
        responder.skip(moved);
        match end {
            Spliced::All => Ok(true),
            Spliced::SourceEnded | Spliced::SourcePaused => Err(cut()),
            Spliced::DestinationPaused | Spliced::Failed => Err(DownError::Visitor),
        }
    }

    /// Reads more from the tunnel, or notices that nobody wants it any more.
    async fn fill<R: Responder>(&mut self, responder: &mut R) -> Result<usize, DownError> {
        let Self {
            rd,
            buf,
            room,
            deadline,
            ..
        } = self;
        let read = deadline.run(|cx| {
            if let Poll::Ready(read) = room.poll_fill(rd, buf, cx) {
                return Poll::Ready(read.map(Some));
            }
            responder.poll_gone(cx).map(|()| Ok(None))
        });
        match read.await {
            Ok(Some(n)) => {
                if n > 0 {
                    self.progress.heard.store(true, Relaxed);
                    self.lease.step();
                }
                Ok(n)
            }
            Ok(None) => Err(DownError::Visitor),
            Err(e) if e.kind() == io::ErrorKind::TimedOut && self.deadline.passed() => Err(DownError::Silent),
            Err(e) => Err(DownError::Tunnel(
                "the tunnel failed before the answer was complete",
                Some(e),
            )),
        }
    }
}
