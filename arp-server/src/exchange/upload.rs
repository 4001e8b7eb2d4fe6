//! The way up: a request body, from its visitor into the tunnel.

use super::deadline::Deadline;
use super::failure::UpEnd;
use super::poll_io::Outgoing;
use super::splice::{Pauses, Spliced, splice};
use super::{BodyError, RequestBody};
use crate::defaults as d;
use crate::http::Framing;
use crate::http::body::{BadBody, Encoder, Piece};
use crate::tunnels::lease::{Lease, Way};
use arp_common::splice::Pipe;
use arp_common::transport::WriteHalf;
use bytes::{Bytes, BytesMut};
use std::num::NonZeroUsize;

/// Reads a body of known, small length.
pub(super) async fn gather<B: RequestBody>(body: &mut B, len: usize) -> Result<Bytes, BodyError> {
    let mut all = BytesMut::new();
    loop {
        match body.next().await? {
            Piece::Data(data) if data.is_empty() => {}
            // The usual case, one piece, is not copied.
            Piece::Data(data) if all.is_empty() && data.len() == len => {
                return match body.next().await? {
                    Piece::End(_) => Ok(data),
                    Piece::Data(_) => Err(BodyError::Bad(BadBody("longer than its Content-Length"))),
                };
            }
            Piece::Data(data) if all.len() + data.len() > len => {
                return Err(BodyError::Bad(BadBody("longer than its Content-Length")));
            }
            Piece::Data(data) => all.extend_from_slice(&data),
            Piece::End(_) if all.len() == len => return Ok(all.freeze()),
            Piece::End(_) => return Err(BodyError::Bad(BadBody("shorter than its Content-Length"))),
        }
    }
}

/// Sends a request body, framed as the head said.
pub(super) async fn upload<B: RequestBody>(
    body: &mut B,
    wr: &mut WriteHalf,
    framing: Framing,
    lease: &Lease,
) -> Result<(), UpEnd> {
    let mut encoder = Encoder::new(framing);
    let mut out = Outgoing::default();
    let mut deadline = Deadline::default();
    loop {
        splice_rest(body, wr, &mut encoder, lease).await?;
        lease.waits_for_visitor(Way::Up, true);
        let next = body.next().await;
        lease.waits_for_visitor(Way::Up, false);
        lease.step();
        let mut trailers = None;
        match next {
            Ok(Piece::Data(piece)) => {
                // Nothing to send, and no more than that: a chunk of size 0 would be the end.
                let Some(len) = NonZeroUsize::new(piece.len()) else {
                    continue;
                };
                out.tail = encoder.piece(&mut out.head, len).map_err(UpEnd::Bad)?;
                out.piece = piece;
            }
            Ok(Piece::End(fields)) => trailers = Some(fields),
            Err(BodyError::Bad(e)) => return Err(UpEnd::Bad(e)),
            Err(BodyError::Gone) => return Err(UpEnd::Gone),
            Err(BodyError::Slow) => return Err(UpEnd::Slow),
        }
        if let Some(trailers) = trailers {
            encoder
                .end(&mut out.head, trailers.as_ref())
                .map_err(UpEnd::Bad)?;
            return send(&mut out, wr, &mut deadline).await;
        }
        send(&mut out, wr, &mut deadline).await?;
        lease.step();
    }
}

async fn send(out: &mut Outgoing, wr: &mut WriteHalf, deadline: &mut Deadline) -> Result<(), UpEnd> {
    let sent = out.write(wr, deadline, d::WRITE_TIMEOUT).await;
    sent.map_err(|_| UpEnd::Tunnel)
}

/// Moves what is left of a large body inside the kernel, where both sides allow it.
async fn splice_rest<B: RequestBody>(
    body: &mut B,
    wr: &WriteHalf,
    encoder: &mut Encoder,
    lease: &Lease,
) -> Result<(), UpEnd> {
    let (Some((src, n)), Some(dst)) = (body.direct(), wr.plain()) else {
        return Ok(());
    };
    if n < d::SPLICE_FROM || !encoder.is_plain() {
        return Ok(());
    }
    let Some(mut pipe) = Pipe::new() else {
        return Ok(());
    };
    let pauses = Pauses {
        source: d::BODY_TIMEOUT,
        destination: d::WRITE_TIMEOUT,
    };
    let mut moved = 0;
    let end = splice(&mut pipe, (src, dst), n, &mut moved, Way::Up, pauses, lease).await;
    body.skip(moved);
    encoder.skip(moved);
    match end {
        Spliced::All => Ok(()),
        Spliced::SourceEnded => Err(UpEnd::Gone),
        Spliced::SourcePaused => Err(UpEnd::Slow),
        Spliced::DestinationPaused | Spliced::Failed => Err(UpEnd::Tunnel),
    }
}
