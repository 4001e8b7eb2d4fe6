//! The way up: a request body, from its visitor into the tunnel.

use super::deadline::Deadline;
use super::failure::UpEnd;
use super::poll_io::poll_write;
use super::splice::splice;
use super::{BodyError, Progress, RequestBody};
use crate::defaults as d;
use crate::http::Framing;
use crate::http::body::{BadBody, Piece, put_chunk_size, put_last_chunk};
use arp_common::splice::{Moved, Pipe};
use arp_common::transport::WriteHalf;
use bytes::{Bytes, BytesMut};
use std::io;

/// Reads a body of known, small length.
pub(super) async fn gather<B: RequestBody>(body: &mut B, len: usize) -> Result<Bytes, BodyError> {
    let mut all = BytesMut::new();
    loop {
        match body.next().await? {
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
    progress: &Progress,
) -> Result<(), UpEnd> {
    let mut left = match framing {
        Framing::Length(n) => Some(n),
        _ => None,
    };
    let mut out = BytesMut::new();
    let mut deadline = Deadline::default();
    loop {
        if let (Some((src, n)), Some(dst)) = (body.direct(), wr.plain())
            && n >= d::SPLICE_FROM
            && let Some(mut pipe) = Pipe::new()
        {
            let mut moved = 0;
            let end = splice(&mut pipe, src, dst, n, &mut moved, progress).await;
            body.skip(moved);
            left = left.map(|l| l - moved);
            match end {
                Ok(Moved::All) => {}
                Ok(Moved::SourceEnded) => return Err(UpEnd::Gone),
                // Which of the two failed shows when it is used next.
                Err(e) if e.kind() == io::ErrorKind::TimedOut => return Err(UpEnd::Slow),
                Err(_) => return Err(UpEnd::Tunnel),
            }
        }
        let mut data = Bytes::new();
        let mut done = false;
        match body.next().await {
            Ok(Piece::Data(piece)) => match &mut left {
                None => {
                    put_chunk_size(&mut out, piece.len());
                    data = piece;
                }
                Some(left) => {
                    let Some(rest) = left.checked_sub(piece.len() as u64) else {
                        return Err(UpEnd::Bad(BadBody("longer than its Content-Length")));
                    };
                    *left = rest;
                    data = piece;
                }
            },
            Ok(Piece::End(trailers)) => {
                match left {
                    None => put_last_chunk(&mut out, trailers.as_ref()),
                    Some(0) => {}
                    Some(_) => return Err(UpEnd::Bad(BadBody("shorter than its Content-Length"))),
                }
                done = true;
            }
            Err(BodyError::Bad(e)) => return Err(UpEnd::Bad(e)),
            Err(BodyError::Gone(_)) => return Err(UpEnd::Gone),
            Err(BodyError::Slow) => return Err(UpEnd::Slow),
        }
        progress.step();
        deadline.set(d::WRITE_TIMEOUT);
        deadline
            .run(|cx| poll_write(wr, &mut out, &mut data, cx))
            .await
            .map_err(|_| UpEnd::Tunnel)?;
        if done {
            return Ok(());
        }
        if left.is_none() {
            out.extend_from_slice(b"\r\n");
        }
    }
}
