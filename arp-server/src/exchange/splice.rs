//! Moving a body inside the kernel.

use super::Progress;
use crate::defaults as d;
use arp_common::splice::{Moved, Pipe};
use std::io;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use tokio::net::TcpStream;

/// Moves `n` bytes inside the kernel, giving up when nothing moves for too long.
pub(super) async fn splice(
    pipe: &mut Pipe,
    src: &TcpStream,
    dst: &TcpStream,
    n: u64,
    moved: &mut u64,
    progress: &Progress,
) -> io::Result<Moved> {
    let seen = AtomicU64::new(0);
    let mut count = 0;
    let mut moving = pin!(async {
        let mut want = n;
        std::future::poll_fn(|cx| {
            let done = pipe.poll_move(cx, src, dst, &mut want, &mut count);
            seen.store(count, Relaxed);
            progress.step();
            done
        })
        .await
    });
    let result = loop {
        let before = seen.load(Relaxed);
        tokio::select! {
            biased;
            done = &mut moving => break done,
            () = tokio::time::sleep(d::WRITE_TIMEOUT) => if seen.load(Relaxed) == before {
                break Err(io::ErrorKind::TimedOut.into());
            }
        }
    };
    *moved = seen.load(Relaxed);
    result
}
