//! A deadline that is set for every request and almost never fires.
//!
//! Arming a timer takes a lock in the runtime; this one leaves an armed timer alone as long as it would
//! fire too early, and only then looks at what the time really is. It looks at the clock when it first has to
//! wait: most writes never do.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    after: Option<Duration>,
    at: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// This long, from the first time on that there is something to wait for.
    pub(crate) fn set(&mut self, after: Duration) {
        self.after = Some(after);
        self.at = None;
    }

    /// No deadline.
    pub(crate) fn clear(&mut self) {
        self.after = None;
        self.at = None;
    }

    /// Has it passed? (An error of kind `TimedOut` may also be the kernel's.)
    pub(crate) fn passed(&self) -> bool {
        self.at.is_some_and(|at| Instant::now() >= at)
    }

    /// Ready when it has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(after) = self.after.take() {
            let Some(at) = Instant::now().checked_add(after) else {
                return Poll::Pending;
            };
            self.at = Some(at);
            if let Some(sleep) = &mut self.sleep
                && sleep.deadline() > at
            {
                sleep.as_mut().reset(at);
            }
        }
        let Some(at) = self.at else { return Poll::Pending };
        loop {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }

    /// Runs `poll` until it is ready or the deadline passes, which is an error of kind `TimedOut`.
    ///
    /// # Errors
    /// Those of `poll`, and `TimedOut`.
    pub(crate) async fn run<T>(
        &mut self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        poll_fn(|cx| {
            if let Poll::Ready(done) = poll(cx) {
                return Poll::Ready(done);
            }
            self.poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_fires_when_due_however_often_it_was_moved() {
        let start = Instant::now();
        let mut deadline = Deadline::default();
        for secs in [75, 15, 75, 20, 30] {
            deadline.set(Duration::from_secs(secs));
            let once = poll_fn(|cx| Poll::Ready(deadline.poll(cx).is_pending())).await;
            assert!(once);
        }
        poll_fn(|cx| deadline.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 30);
        deadline.clear();
        assert!(poll_fn(|cx| Poll::Ready(deadline.poll(cx).is_pending())).await);
    }
}
