//! Moving a body inside the kernel.

use super::deadline::Deadline;
use crate::tunnels::lease::{Lease, Way};
use arp_common::splice::{Moved, Pipe};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;

/// How a move ended.
pub(super) enum Spliced {
    /// Everything has been moved.
    All,
    /// The source ended first.
    SourceEnded,
    /// The source gave nothing for too long.
    SourcePaused,
    /// The destination took nothing for too long.
    DestinationPaused,
    /// Either of them failed; which of the two shows when it is used next.
    Failed,
}

/// How long the two sides may pause.
pub(super) struct Pauses {
    /// The one that gives.
    pub(super) source: Duration,
    /// The one that takes.
    pub(super) destination: Duration,
}

/// Moves `n` bytes of one direction of an exchange; counts into `moved` those that arrived.
pub(super) async fn splice(
    pipe: &mut Pipe,
    (src, dst): (&TcpStream, &TcpStream),
    n: u64,
    moved: &mut u64,
    way: Way,
    pauses: Pauses,
    lease: &Lease,
) -> Spliced {
    let mut want = n;
    let mut seen = (u64::MAX, 0, false);
    let mut deadline = Deadline::default();
    let done = poll_fn(|cx| {
        let done = pipe.poll_move(cx, src, dst, &mut want, moved);
        if let Poll::Ready(done) = done {
            return Poll::Ready(match done {
                Ok(Moved::All) => Spliced::All,
                Ok(Moved::SourceEnded) => Spliced::SourceEnded,
                Err(_) => Spliced::Failed,
            });
        }
        // What is in the pipe waits for the destination; when there is nothing, the source is waited for.
        let full = pipe.held() > 0;
        if seen != (want, *moved, full) {
            if (seen.0, seen.1) != (want, *moved) {
                lease.step();
            }
            seen = (want, *moved, full);
            lease.waits_for_visitor(way, full == (way == Way::Down));
            deadline.set(if full { pauses.destination } else { pauses.source });
        }
        deadline.poll(cx).map(|()| {
            if full {
                Spliced::DestinationPaused
            } else {
                Spliced::SourcePaused
            }
        })
    })
    .await;
    lease.waits_for_visitor(way, false);
    lease.step();
    done
}
