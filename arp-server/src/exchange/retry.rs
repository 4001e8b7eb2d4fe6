//! Giving a request to a tunnel, and to another one if that turned out dead.

use super::deadline::Deadline;
use super::download::{Down, DownStream};
use super::failure::{DownError, Failure, UpEnd, bad_body, broken_tunnel, refusal_of, refused, slow_body};
use super::poll_io::poll_write;
use super::rewrite;
use super::upload::{gather, upload};
use super::{BodyError, Outcome, Progress, Request, RequestBody, Responder};
use crate::answer::Refusal;
use crate::defaults as d;
use crate::http::Framing;
use crate::shared::Public;
use crate::tunnels::tunnel::{Tunnel, Want};
use arp_common::protocol::{Command, TunnelKind};
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Carries a request to its client and the answer back. `deadline` is the one of the answer; a connection keeps
/// it from one exchange to the next.
pub async fn run<B: RequestBody, R: Responder>(
    public: &Public,
    request: Request<'_>,
    body: &mut B,
    responder: &mut R,
    deadline: &mut Deadline,
) -> Outcome {
    let head = request.head;
    // A small body is read first: a slow sender holds no tunnel, and the request can be repeated.
    let mut small = None;
    if let Framing::Length(n) = head.framing
        && n <= d::SMALL_BODY as u64
        && !head.expects_continue()
    {
        match gather(body, n as usize).await {
            Ok(bytes) => small = Some(bytes),
            Err(BodyError::Gone(_)) => return Outcome::Broken,
            Err(BodyError::Bad(e)) => return refused(bad_body(e), false),
            Err(BodyError::Slow) => return refused(slow_body(), false),
        }
    }
    let in_memory = head.framing == Framing::None || small.is_some();
    let repeatable = in_memory && head.is_idempotent();
    let mut bytes = BytesMut::new();
    rewrite::put_request(
        &mut bytes,
        head,
        request.route,
        &request.visitor,
        &public.registry,
    );
    if let Some(small) = &small {
        bytes.extend_from_slice(small);
    }
    let bytes = bytes.freeze();

    let pool = &request.route.client.pool;
    let mut want = if repeatable { Want::Any } else { Want::Safe };
    for attempt in 1.. {
        let mut tunnel = match pool.checkout(want).await {
            Ok(tunnel) => tunnel,
            Err(e) => return refused(Refusal::no_tunnel(e), in_memory),
        };
        let progress = Progress::default();
        progress.body_sent.store(in_memory, Relaxed);
        if let Err(untouched) = send_head(&mut tunnel, &bytes, request.peer).await {
            if attempt < d::MAX_ATTEMPTS && (untouched || repeatable) {
                want = Want::Fresh;
                continue;
            }
            return refused(
                broken_tunnel("the tunnel closed while the request was sent"),
                in_memory,
            );
        }
        match attempt_once(
            public,
            &request,
            &mut tunnel,
            body,
            responder,
            &progress,
            deadline,
        )
        .await
        {
            Ok(Down::Switch(answer)) => return Outcome::Switch(answer, Box::new(tunnel)),
            Ok(Down::Done { reusable }) => {
                let body_read = progress.body_sent.load(Relaxed);
                if reusable && body_read {
                    pool.checkin(tunnel);
                }
                return Outcome::Done { body_read };
            }
            Err(failure) => {
                tunnel.wr.reset_on_drop();
                drop(tunnel);
                let dead =
                    matches!(failure, Failure::Down(DownError::Tunnel(..))) && !progress.heard.load(Relaxed);
                if dead && repeatable && attempt < d::MAX_ATTEMPTS {
                    want = Want::Fresh;
                    continue;
                }
                if progress.answered.load(Relaxed) {
                    return Outcome::Broken;
                }
                if matches!(failure, Failure::Down(DownError::Declined)) {
                    return Outcome::Declined;
                }
                return match refusal_of(failure) {
                    Some(refusal) => refused(refusal, progress.body_sent.load(Relaxed)),
                    None => Outcome::Broken,
                };
            }
        }
    }
    Outcome::Broken
}

/// Sends the head (and a small body). The error tells whether not a byte of it can have been seen.
async fn send_head(tunnel: &mut Tunnel, bytes: &Bytes, peer: SocketAddr) -> Result<(), bool> {
    let mut out = BytesMut::new();
    if tunnel.version >= 2 && tunnel.uses == 0 {
        let open = Command::Open {
            kind: TunnelKind::Http,
            peer_addr: Some(peer),
        };
        out.extend_from_slice(&open.encode().map_err(|_| true)?);
    }
    let (mut data, total) = (bytes.clone(), out.len() + bytes.len());
    let mut deadline = Deadline::default();
    deadline.set(d::WRITE_TIMEOUT);
    let sent = deadline
        .run(|cx| poll_write(&mut tunnel.wr, &mut out, &mut data, cx))
        .await;
    sent.map_err(|_| out.len() + data.len() == total)
}

/// One try, through one tunnel.
async fn attempt_once<B: RequestBody, R: Responder>(
    public: &Public,
    request: &Request<'_>,
    tunnel: &mut Tunnel,
    body: &mut B,
    responder: &mut R,
    progress: &Progress,
    deadline: &mut Deadline,
) -> Result<Down, Failure> {
    let Tunnel { rd, wr, buf, .. } = tunnel;
    let framing = request.head.framing;
    let down = async {
        let mut down = DownStream {
            rd,
            buf,
            progress,
            deadline,
        };
        down.run(public, request, responder).await
    };
    let up = async {
        if !progress.body_sent.load(Relaxed)
            && let Err(end) = upload(body, wr, framing, progress).await
        {
            return end;
        }
        progress.body_sent.store(true, Relaxed);
        if body.closed().await {
            UpEnd::HalfClosed
        } else {
            UpEnd::Gone
        }
    };
    let (mut down, mut up) = (pin!(down), pin!(up));
    let mut ended: Option<UpEnd> = None;
    loop {
        // How long the answer may go on after the way up has ended, as long as something moves.
        let patience = match &ended {
            None => None,
            Some(UpEnd::HalfClosed) => Some(d::HALF_CLOSED),
            Some(_) => Some(d::ANSWER_AFTER_FAILED_UPLOAD),
        };
        let steps = progress.steps.load(Relaxed);
        tokio::select! {
            biased;
            done = &mut down => return done.map_err(Failure::Down),
            end = &mut up, if ended.is_none() => match end {
                UpEnd::HalfClosed | UpEnd::Tunnel => ended = Some(end),
                _ => return Err(Failure::Up(end)),
            },
            () = sleep(patience), if patience.is_some() => {
                if progress.steps.load(Relaxed) == steps {
                    return Err(Failure::Up(ended.take().unwrap_or(UpEnd::Gone)));
                }
            }
        }
    }
}

async fn sleep(time: Option<Duration>) {
    tokio::time::sleep(time.unwrap_or_default()).await;
}
