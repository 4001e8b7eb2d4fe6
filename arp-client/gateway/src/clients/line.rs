//! One HTTP/1.1 connection to an upstream, driven by whoever waits for its answer: no task of its own stands between
//! the socket and the agent's connection, and when the one who waits goes, the connection ends with it.

use super::sent::Sent;
use atomic_waker::AtomicWaker;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use tokio::net::TcpStream;

/// A socket, perhaps with TLS on it.
pub(super) type Io = MaybeHttpsStream<TokioIo<TcpStream>>;

/// So often it is looked again at once what has become possible; then others have their turn.
const ROUNDS: usize = 8;

/// See the module.
pub(super) struct Line {
    sender: SendRequest<Sent>,
    /// None once it has ended.
    connection: Option<Connection<Io, Sent>>,
    relay: Arc<Relay>,
    waker: Waker,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Line {
    /// Over this socket.
    pub(super) async fn over(io: Io) -> Result<Self, hyper::Error> {
        let (sender, connection) = handshake(io).await?;
        let relay = Arc::<Relay>::default();
        Ok(Self {
            sender,
            connection: Some(connection),
            waker: relay.clone().into(),
            relay,
        })
    }

    /// Does `once` until it finds what it looks for, or nothing has happened meanwhile: then whoever waits is told of
    /// what happens next.
    fn rounds<T>(&mut self, cx: &mut Context<'_>, mut once: impl FnMut(&mut Self) -> Poll<T>) -> Poll<T> {
        self.relay.outer.register(cx.waker());
        for _ in 0..ROUNDS {
            self.relay.state.store(LOOKING, Ordering::SeqCst);
            if let Poll::Ready(found) = once(self) {
                return Poll::Ready(found);
            }
            let quiet =
                self.relay
                    .state
                    .compare_exchange(LOOKING, WAITING, Ordering::SeqCst, Ordering::SeqCst);
            if quiet.is_ok() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Lets the connection go on, and asks `look` for what that has brought about.
    fn drive<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut look: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.rounds(cx, |line| {
            let mut own = Context::from_waker(&line.waker);
            if let Poll::Ready(found) = look(&mut own) {
                return Poll::Ready(found);
            }
            if let Some(connection) = &mut line.connection
                && Pin::new(connection).poll(&mut own).is_ready()
            {
                line.connection = None;
            }
            look(&mut own)
        })
    }

    /// Lets the connection go on once, with nobody to be told when it could do more. Can it take a request now?
    pub(super) fn is_idle(&mut self) -> bool {
        self.relay.state.store(LOOKING, Ordering::SeqCst);
        let Some(connection) = &mut self.connection else {
            return false;
        };
        if Pin::new(connection)
            .poll(&mut Context::from_waker(&self.waker))
            .is_ready()
        {
            self.connection = None;
            return false;
        }
        self.sender.is_ready()
    }

    /// Has it not ended?
    pub(super) const fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// Sends a request, and waits for the head of its answer.
    ///
    /// # Errors
    /// What went wrong; with the request, where nothing of it has left.
    pub(super) async fn ask(
        &mut self,
        request: Request<Sent>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Sent>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| self.drive(cx, |cx| answer.as_mut().poll(cx))).await
    }

    /// The next bytes of this answer; `None` at the end.
    pub(super) fn poll_chunk(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Incoming,
    ) -> Poll<Result<Option<Bytes>, hyper::Error>> {
        self.drive(cx, |cx| super::answer::poll_data(body, cx))
    }

    /// Until the connection has nothing more to do for the request that it has taken, or has ended.
    pub(super) async fn rest(&mut self) {
        let over = |line: &mut Self| match line.connection.is_none() || line.is_idle() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        };
        poll_fn(|cx| self.rounds(cx, over)).await;
    }
}

/// Somebody is looking: what happens meanwhile is for them to find.
const LOOKING: u8 = 0;
/// They have to look once more before they wait.
const AGAIN: u8 = 1;
/// They wait, and are to be woken.
const WAITING: u8 = 2;

/// What the connection wakes. It and the one who waits for it are one task: what it tells while that task looks is
/// found without waking it another time; and of a connection that waits for its next request nobody is woken.
#[derive(Debug, Default)]
struct Relay {
    outer: AtomicWaker,
    state: AtomicU8,
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(AGAIN, Ordering::SeqCst) == WAITING {
            self.outer.wake();
        }
    }
}
