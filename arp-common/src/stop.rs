//! A sign that is given once and that many tasks look out for.
//!
//! Connections look at it each time they are woken. A `CancellationToken` takes two locks for that which all of them
//! share; here it is one read of memory that hardly ever changes.

use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// See the module. Clones are the same sign.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Sign>);

#[derive(Debug, Default)]
struct Sign {
    given: AtomicBool,
    notify: Arc<Notify>,
}

impl Stop {
    /// Gives the sign, to all that wait for it and will.
    pub fn give(&self) {
        self.0.given.store(true, Ordering::SeqCst);
        self.0.notify.notify_waiters();
    }

    /// Was it given?
    pub fn is_given(&self) -> bool {
        self.0.given.load(Ordering::SeqCst)
    }

    /// Ready when it is given. It is cheap to be asked again and again, and costs an allocation to begin.
    pub fn given(&self) -> Given {
        Given {
            sign: self.0.clone(),
            // Before anybody looks whether the sign was given: what is given from here on is not missed.
            notified: Box::pin(self.0.notify.clone().notified_owned()),
            waker: None,
        }
    }

    /// Runs a task until it is done, or the sign is given; from then on it is not run, and ends with this future. That
    /// takes no more room than the task itself: an `async` block that is given a future and waits for it holds it
    /// twice, once where it came in and once where it is waited for.
    pub fn ends<F: Future<Output = ()>>(&self, task: F) -> Ends<F> {
        Ends {
            given: self.given(),
            task,
        }
    }
}

pin_project! {
    /// See [`Stop::ends`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Ends<F> {
        given: Given,
        #[pin]
        task: F,
    }
}

impl<F: Future<Output = ()>> Future for Ends<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = self.project();
        if Pin::new(me.given).poll(cx).is_ready() {
            return Poll::Ready(());
        }
        me.task.poll(cx)
    }
}

/// Waits for a [`Stop`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Given {
    sign: Arc<Sign>,
    notified: Pin<Box<OwnedNotified>>,
    /// Who will be woken.
    waker: Option<Waker>,
}

impl Future for Given {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let me = self.get_mut();
        if me.sign.given.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        // A task has one waker all its life, so this is done once.
        if me.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        me.waker = Some(cx.waker().clone());
        me.notified.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn whoever_waits_is_woken_with_the_waker_that_asked_last() {
        let stop = Stop::default();
        let mut given = stop.given();
        let (first, last) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        for woken in [&first, &first, &last, &last] {
            let waker = Waker::from(woken.clone());
            assert!(
                Pin::new(&mut given)
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
        }
        assert!(!stop.is_given());
        stop.clone().give();
        assert_eq!(
            (first.0.load(Ordering::SeqCst), last.0.load(Ordering::SeqCst)),
            (0, 1)
        );
        let waker = Waker::from(first);
        for mut given in [given, stop.given()] {
            assert!(
                Pin::new(&mut given)
                    .poll(&mut Context::from_waker(&waker))
                    .is_ready()
            );
        }
        assert!(stop.is_given());
    }

    #[tokio::test]
    async fn a_task_ends_by_itself_or_by_the_sign_and_takes_no_room_besides() {
        let stop = Stop::default();
        stop.ends(async {}).await;
        let held = Arc::new(());
        let mut task = Box::pin(stop.ends({
            let (held, large) = (held.clone(), [7u8; 4096]);
            async move {
                std::future::pending::<()>().await;
                drop((held, large));
            }
        }));
        let size = std::mem::size_of_val(&*task);
        assert!((4096..4096 + 128).contains(&size), "{size}");
        assert!(once(&mut task).await.is_pending());
        stop.give();
        assert!(once(&mut task).await.is_ready());
        drop(task);
        assert_eq!(Arc::strong_count(&held), 1);
        let mut run = false;
        stop.ends(async { run = true }).await;
        assert!(!run, "a task that comes after the sign does not begin");
    }

    async fn once<F: Future + Unpin>(task: &mut F) -> Poll<F::Output> {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *task).poll(cx))).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_misses_it() {
        for _ in 0..500 {
            let stop = Stop::default();
            let waiting: Vec<_> = (0..4)
                .map(|_| {
                    let stop = stop.clone();
                    tokio::spawn(async move { stop.given().await })
                })
                .collect();
            stop.give();
            for task in waiting {
                task.await.unwrap();
            }
        }
    }
}
