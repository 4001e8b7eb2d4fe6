//! An answer under way. The work that makes it is driven by whoever takes the answer (an agent's connection), in the
//! same task: nothing is handed from one task to another, and when the taker goes, the work ends with it.

use super::body::Cut;
use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderMap;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Pieces of an answer that are made ahead of the one that is taken.
const PIECES: usize = 16;
/// Bytes that are made ahead.
const AHEAD: usize = 256 << 10;

/// The begin of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its fields.
    pub(crate) headers: HeaderMap,
}

#[derive(Debug, Default)]
struct Held {
    head: Option<Head>,
    pieces: VecDeque<Result<Bytes, Cut>>,
    bytes: usize,
}

/// Where the work puts what it has made.
#[derive(Debug)]
pub(crate) struct Outbox(Arc<Mutex<Held>>);

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbox {
    /// Gives the head. It is taken once; later ones are for nobody.
    pub(crate) fn head(&self, head: Head) {
        lock(&self.0).head = Some(head);
    }

    /// Gives a piece of the body, once those before have been taken but for a few.
    pub(crate) async fn piece(&self, piece: Result<Bytes, Cut>) {
        // Nobody has to be woken: the one who takes pieces asks the work for more when there are none left.
        poll_fn(|_| {
            let held = lock(&self.0);
            if held.pieces.len() < PIECES && held.bytes < AHEAD {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        let mut held = lock(&self.0);
        held.bytes += piece.as_ref().map_or(0, Bytes::len);
        held.pieces.push_back(piece);
    }
}

/// See the module. Dropping it ends the work.
pub struct Flow {
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    held: Arc<Mutex<Held>>,
    /// Has the one who takes had time to pass on what came before the end?
    passed_on: bool,
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flow")
            .field("ended", &self.work.is_none())
            .finish_non_exhaustive()
    }
}

impl Flow {
    /// Of this work, which begins when somebody asks for what it makes.
    pub(crate) fn new<W>(work: impl FnOnce(Outbox) -> W) -> Self
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let held = Arc::<Mutex<Held>>::default();
        let work = work(Outbox(held.clone()));
        Self {
            work: Some(Box::pin(work)),
            held,
            passed_on: false,
        }
    }

    /// Goes on until `take` finds something, or the work has ended.
    fn poll_for<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut Held) -> Option<T>,
    ) -> Poll<Option<T>> {
        loop {
            let found = take(&mut lock(&self.held));
            let Some(work) = &mut self.work else {
                return Poll::Ready(found);
            };
            if found.is_some() {
                return Poll::Ready(found);
            }
            match work.as_mut().poll(cx) {
                Poll::Ready(()) => self.work = None,
                Poll::Pending => {
                    let found = take(&mut lock(&self.held));
                    return found.map_or(Poll::Pending, |found| Poll::Ready(Some(found)));
                }
            }
        }
    }

    /// The head; `None` if the work has ended without one. Nothing is lost when it is dropped while it waits.
    pub(crate) async fn head(&mut self) -> Option<Head> {
        poll_fn(|cx| self.poll_for(cx, |held| held.head.take())).await
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let piece = self.poll_for(cx, |held| {
            let piece = held.pieces.pop_front()?;
            held.bytes -= piece.as_ref().map_or(0, Bytes::len);
            Some(piece)
        });
        // Whoever is told of a cut drops what was not written yet: the agent is to have it first.
        if let Poll::Ready(Some(Err(cut))) = piece
            && !std::mem::replace(&mut self.passed_on, true)
        {
            lock(&self.held).pieces.push_front(Err(cut));
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        piece
    }

    /// As [`Self::poll_piece`]. Nothing is lost when it is dropped while it waits.
    pub(crate) async fn piece(&mut self) -> Option<Result<Bytes, Cut>> {
        poll_fn(|cx| self.poll_piece(cx)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn head() -> Head {
        Head {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
        }
    }

    #[tokio::test]
    async fn what_is_made_comes_in_order_and_no_more_is_made_than_is_taken() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let mut flow = Flow::new(move |out| async move {
            out.head(head());
            for n in 0..100_u8 {
                out.piece(Ok(Bytes::copy_from_slice(&[n]))).await;
                count.fetch_add(1, Ordering::SeqCst);
            }
            out.piece(Err(Cut)).await;
        });
        assert_eq!(flow.head().await.unwrap().status, 200);
        assert_eq!(made.load(Ordering::SeqCst), PIECES);
        for n in 0..100_u8 {
            assert_eq!(flow.piece().await, Some(Ok(Bytes::copy_from_slice(&[n]))));
            assert!(made.load(Ordering::SeqCst) <= usize::from(n) + 1 + PIECES);
        }
        assert_eq!(flow.piece().await, Some(Err(Cut)));
        assert_eq!(flow.piece().await, None);
        assert_eq!(flow.piece().await, None);
    }

    #[tokio::test]
    async fn large_pieces_wait_sooner_and_one_is_never_too_large() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let mut flow = Flow::new(move |out| async move {
            for _ in 0..3 {
                out.piece(Ok(vec![0; 4 * AHEAD].into())).await;
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        for n in 1..=3 {
            assert_eq!(flow.piece().await.unwrap().unwrap().len(), 4 * AHEAD);
            assert_eq!(made.load(Ordering::SeqCst), n);
        }
        assert!(flow.piece().await.is_none());
    }

    #[tokio::test]
    async fn the_work_ends_with_the_one_who_wanted_it() {
        struct Told(Arc<AtomicUsize>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let ended = Arc::new(AtomicUsize::new(0));
        let told = Told(ended.clone());
        let mut flow = Flow::new(move |out| async move {
            out.head(head());
            std::future::pending::<()>().await;
            drop(told);
        });
        assert!(flow.head().await.is_some());
        assert_eq!(ended.load(Ordering::SeqCst), 0);
        drop(flow);
        assert_eq!(ended.load(Ordering::SeqCst), 1);
        let mut none = Flow::new(|_| async {});
        assert!(none.head().await.is_none());
    }
}
