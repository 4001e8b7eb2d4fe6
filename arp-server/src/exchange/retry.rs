//! Giving a request to a tunnel, and to another one if that turned out dead.

use super::deadline::Deadline;
use super::download::{Down, DownStream};
use super::failure::{DownError, Failure, UpEnd, bad_body, broken_tunnel, refusal_of, refused, slow_body};
use super::poll_io::{Room, write_both};
use super::rewrite;
use super::trace::{Counted, Traced};
use super::upload::{gather, upload};
use super::{BodyError, Outcome, Progress, Request, RequestBody, Responder};
use crate::answer::Refusal;
use crate::defaults as d;
use crate::http::Framing;
use crate::quota::counted;
use crate::shared::Public;
use crate::tunnels::lease::Leased;
use crate::tunnels::tunnel::{Need, Tunnel, Want};
use arp_common::ids::Token;
use arp_common::protocol::{Command, TunnelKind};
use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Carries a request to its client and the answer back. `deadline` is the one of the answer; a connection keeps
/// it from one exchange to the next.
pub(crate) async fn run<B: RequestBody + Send, R: Responder + Send>(
    public: &Public,
    request: Request<'_>,
    body: &mut B,
    responder: &mut R,
    deadline: &mut Deadline,
) -> Outcome {
    let traffic = &request.route.client.pool.traffic;
    let (mut responder, mut body) = (Traced::new(responder, traffic), Counted::new(body, traffic));
    let outcome = carry(public, &request, &mut body, &mut responder, deadline).await;
    responder.tell(&request, &outcome);
    outcome
}

async fn carry<B: RequestBody, R: Responder + Send>(
    public: &Public,
    request: &Request<'_>,
    body: &mut B,
    responder: &mut Traced<'_, R>,
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
            Err(BodyError::Gone) => return Outcome::Broken,
            Err(BodyError::Bad(e)) => return refused(bad_body(e), false),
            Err(BodyError::Slow) => return refused(slow_body(), false),
        }
    }
    let in_memory = head.framing == Framing::None || small.is_some();
    let replay_safe = in_memory && head.is_idempotent();
    let mut bytes = BytesMut::new();
    rewrite::put_request(
        &mut bytes,
        head,
        request.route,
        &request.visitor,
        &request.origin(public),
    );
    if let Some(small) = &small {
        bytes.extend_from_slice(small);
    }

    let pool = &request.route.client.pool;
    let address = counted(public.source(head, &request.visitor));
    let named = request.route.client.services.named(&request.route.token);
    let (service, key) = named.map_or((None, 0), |(token, key)| (Some(token), key));
    let mut want = if replay_safe { Want::Any } else { Want::Ready };
    for attempt in 1.. {
        let leased = tokio::select! {
            biased;
            leased = pool.checkout(Need { want, service: key }, address) => leased,
            () = leaves(body, responder) => return Outcome::Broken,
        };
        let mut leased = match leased {
            Ok(leased) => leased,
            Err(e) => return refused(Refusal::no_tunnel(e), in_memory),
        };
        leased.tunnel.service = key;
        responder.uses = Some(leased.tunnel.uses);
        let progress = Progress::default();
        progress.body_sent.store(in_memory, Relaxed);
        // Until the exchange is over, an end of the tunnel is a failure, whatever becomes of this task.
        leased.tunnel.wr.begin();
        if !in_memory {
            // A service need not read a large body at once. What is small fits its buffers: who does not take that
            // is gone.
            leased.tunnel.wr.let_pause(true);
        }
        if let Err(untouched) = send_head(&mut leased.tunnel, &bytes, request.peer, service.as_ref()).await {
            if attempt < d::MAX_ATTEMPTS && (untouched || replay_safe) {
                want = Want::Fresh;
                continue;
            }
            return refused(
                broken_tunnel("the tunnel closed while the request was sent"),
                in_memory,
            );
        }
        let done = attempt_once(public, request, &mut leased, body, responder, &progress, deadline);
        match done.await {
            Ok(Down::Switch(answer)) => return Outcome::Switch(answer, Box::new(leased)),
            Ok(Down::Done { reusable }) => {
                let body_read = progress.body_sent.load(Relaxed);
                if body_read {
                    leased.tunnel.wr.finish();
                    if reusable {
                        if !in_memory {
                            leased.tunnel.wr.let_pause(false);
                        }
                        pool.checkin(leased);
                    }
                }
                return Outcome::Done { body_read };
            }
            Err(failure) => {
                drop(leased);
                let dead =
                    matches!(failure, Failure::Down(DownError::Tunnel(..))) && !progress.heard.load(Relaxed);
                if dead && replay_safe && attempt < d::MAX_ATTEMPTS {
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

/// Ready when the visitor of a request that waits for a tunnel has left. One that closes its sending side
/// together with its request may still want the answer; it gets a moment.
async fn leaves<B: RequestBody, R: Responder>(body: &B, responder: &mut R) {
    let began = Instant::now();
    let mut half_closed = None;
    loop {
        tokio::select! {
            () = poll_fn(|cx| responder.poll_gone(cx)) => return,
            () = tokio::time::sleep(d::STILL_THERE) => {}
        }
        if !body.has_ended() {
            continue;
        }
        let at = *half_closed.get_or_insert_with(Instant::now);
        if at.duration_since(began) > d::HALF_CLOSES_WITHIN || at.elapsed() > d::HALF_CLOSED {
            return;
        }
    }
}

/// Sends the head (and a small body). The error tells whether not a byte of it can have been seen.
async fn send_head(
    tunnel: &mut Tunnel,
    bytes: &[u8],
    peer: SocketAddr,
    service: Option<&Token>,
) -> Result<(), bool> {
    let mut first = Bytes::new();
    if tunnel.version >= 2 && tunnel.uses == 0 {
        let open = Command::Open {
            kind: TunnelKind::Http,
            peer_addr: Some(peer),
            service: service.cloned(),
            key: None,
            e2e: false,
            tls: None,
        };
        first = open.encode().map_err(|_| true)?;
    }
    let mut sent = 0;
    let done = write_both(&mut tunnel.wr, &first, bytes, &mut sent, d::WRITE_TIMEOUT).await;
    done.map_err(|_| sent == 0)
}

/// One try, through one tunnel.
async fn attempt_once<B: RequestBody, R: Responder>(
    public: &Public,
    request: &Request<'_>,
    leased: &mut Leased,
    body: &mut B,
    responder: &mut R,
    progress: &Progress,
    deadline: &mut Deadline,
) -> Result<Down, Failure> {
    let Leased { tunnel, lease } = leased;
    let (Tunnel { rd, wr, buf, .. }, lease) = (tunnel, &**lease);
    let framing = request.head.framing;
    let down = async {
        let mut down = DownStream {
            rd,
            buf,
            room: Room::default(),
            progress,
            lease,
            deadline,
        };
        down.run(public, request, responder).await
    };
    let up = async {
        if !progress.body_sent.load(Relaxed)
            && let Err(end) = upload(body, wr, framing, lease).await
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
    let (mut down, mut up, mut reclaimed) = (pin!(down), pin!(up), pin!(lease.reclaimed()));
    let mut ended: Option<UpEnd> = None;
    loop {
        // How long the answer may go on after the way up has ended, as long as something moves.
        let patience = match &ended {
            None => None,
            Some(UpEnd::HalfClosed) => Some(d::HALF_CLOSED),
            Some(_) => Some(d::ANSWER_AFTER_FAILED_UPLOAD),
        };
        let steps = lease.steps();
        tokio::select! {
            biased;
            done = &mut down => return done.map_err(Failure::Down),
            end = &mut up, if ended.is_none() => match end {
                UpEnd::HalfClosed | UpEnd::Tunnel => ended = Some(end),
                _ => return Err(Failure::Up(end)),
            },
            () = &mut reclaimed => return Err(Failure::GaveWay),
            () = sleep(patience), if patience.is_some() => {
                if lease.steps() == steps {
                    return Err(Failure::Up(ended.take().unwrap_or(UpEnd::Gone)));
                }
            }
        }
    }
}

async fn sleep(time: Option<Duration>) {
    tokio::time::sleep(time.unwrap_or_default()).await;
}
