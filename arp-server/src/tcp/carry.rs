//! Moving the bytes of a raw connection, until both sides have ended or it may go on no longer.

use super::line::Line;
use super::reach::{Opened, Reached};
use crate::exchange::deadline::Deadline;
use crate::metrics;
use arp_common::duplex::{Duplex, Transferred};
use arp_common::transport::Joined;
use bytes::BytesMut;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// How long raw connections may last; without end if not set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RawLimits {
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
    /// In all.
    pub total: Option<Duration>,
}

/// How a raw connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Done,
    Failed,
    Idle,
    TooLong,
    Revoked,
}

/// Carries a visitor's connection into an open tunnel. `up` goes to the service in front of what was read from the
/// visitor, `down` to the visitor in front of what comes from the service.
pub(super) async fn carry(
    line: Line,
    reached: Reached,
    opened: Opened,
    protocol: &'static str,
    up: BytesMut,
    down: BytesMut,
) {
    let public = line.public.clone();
    let limits = public.limits.raw;
    let (mut outer, rest) = line.into_stream();
    let (tunnel, lease) = (opened.leased.tunnel, opened.leased.lease);
    let _open = metrics::raw_begun(protocol);
    let mut inner = Joined {
        rd: tunnel.rd,
        wr: tunnel.wr,
    };
    let (mut head_up, mut head_down) = (up, down);
    head_up.unsplit(rest);
    head_down.unsplit(tunnel.buf);
    let begun = Instant::now();
    let mut copy = Duplex::begin(&mut outer, &mut inner, head_up, head_down);
    let (mut count, mut seen) = (Transferred::default(), Transferred::default());
    let (mut idle, mut total) = (Deadline::default(), Deadline::default());
    if let Some(limit) = limits.idle {
        idle.set(limit);
    }
    if let Some(limit) = limits.total {
        total.set(limit);
    }
    let mut revoked = pin!(reached.revoked.cancelled());
    let ended = poll_fn(|cx| {
        let polled = copy.poll(cx, &mut outer, &mut inner, &mut count);
        // While it goes on: a shell is open for days.
        let before = std::mem::replace(&mut seen, count);
        if before != count {
            lease.traffic().came(count.a_to_b - before.a_to_b);
            lease.traffic().went(count.b_to_a - before.b_to_a);
            if let Some(limit) = limits.idle {
                idle.set(limit);
            }
        }
        if let Poll::Ready(done) = polled {
            return Poll::Ready(if done.is_ok() { Ended::Done } else { Ended::Failed });
        }
        if revoked.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ended::Revoked);
        }
        if idle.poll(cx).is_ready() {
            return Poll::Ready(Ended::Idle);
        }
        total.poll(cx).map(|()| Ended::TooLong)
    })
    .await;
    // What did not end by itself is dropped in the middle, which both ends see as a failure.
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let client = &reached.client.id;
    tracing::debug!(%client, protocol, up = count.a_to_b, down = count.b_to_a, ms, ?ended, "raw connection");
}
