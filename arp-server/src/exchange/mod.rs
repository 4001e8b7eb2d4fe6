//! One request and its answer, through one tunnel (or a second one, if the first was dead).
//!
//! The same code serves HTTP/1 and HTTP/2 visitors: they differ in where a body comes from
//! ([`RequestBody`]) and where an answer goes ([`Responder`]).

pub(crate) mod deadline;
mod download;
mod failure;
pub(crate) mod origin;
pub(crate) mod poll_io;
mod retry;
pub mod rewrite;
mod splice;
mod trace;
mod upload;

use self::origin::Origin;
use self::rewrite::Added;
use crate::answer::Refusal;
use crate::http::body::{BadBody, Piece, Trailers};
use crate::http::{Framing, RequestHead, ResponseHead};
use crate::registry::Client;
use crate::routing::Route;
use crate::shared::{Public, Visitor};
use crate::tunnels::lease::Leased;
use bytes::Bytes;
pub(crate) use retry::run;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// Why no more of a request body comes.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The visitor has gone.
    Gone,
    /// Its framing is broken.
    Bad(BadBody),
    /// It paused for too long.
    Slow,
}

/// Where a visitor's request body comes from.
pub(crate) trait RequestBody {
    /// The next piece.
    fn next(&mut self) -> impl Future<Output = Result<Piece, BodyError>> + Send;
    /// After the body: waits until the visitor closes its side (`true`) or is gone (`false`).
    fn closed(&mut self) -> impl Future<Output = bool> + Send;
    /// Has the visitor closed its side, or gone, where that can be known here, and whatever it sent before?
    fn has_ended(&self) -> bool;
    /// The socket that the rest of the body can be taken from directly, and how much that is.
    fn direct(&self) -> Option<(&TcpStream, u64)>;
    /// So much was taken directly.
    fn skip(&mut self, n: u64);
}

/// Where an answer goes.
pub(crate) trait Responder {
    /// An interim answer (1xx).
    fn interim(&mut self, head: &ResponseHead) -> impl Future<Output = io::Result<()>> + Send;
    /// The head of the final answer.
    fn head(
        &mut self,
        head: &ResponseHead,
        framing: Framing,
        added: Added<'_>,
    ) -> impl Future<Output = io::Result<()>> + Send;
    /// Bytes of the body. They may be kept back until [`Responder::flush`].
    fn data(&mut self, data: Bytes) -> impl Future<Output = io::Result<()>> + Send;
    /// Sends what was kept back.
    fn flush(&mut self) -> impl Future<Output = io::Result<()>> + Send;
    /// The end of the body.
    fn end(&mut self, trailers: Option<Trailers>) -> impl Future<Output = io::Result<()>> + Send;
    /// Ready when the visitor no longer wants the answer, where that can be known here.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// The socket that body bytes can be given to directly.
    fn direct(&self) -> Option<&TcpStream>;
    /// So many bytes of the body were given directly.
    fn skip(&mut self, n: u64);
    /// Can it change to another protocol?
    fn can_switch(&self) -> bool;
}

/// A request on its way.
pub(crate) struct Request<'a> {
    /// As the visitor sent it.
    pub(crate) head: &'a RequestHead,
    /// Whom it is for.
    pub(crate) route: &'a Route<Arc<Client>>,
    /// Who sent it.
    pub(crate) visitor: Visitor,
    /// Address for the edge's logs.
    pub(crate) peer: SocketAddr,
    /// Is only a change of protocol wanted? Any other answer is [`Outcome::Declined`].
    pub(crate) trial: bool,
}

impl Request<'_> {
    /// Where the answer will be shown.
    fn origin<'a>(&'a self, public: &'a Public) -> Origin<'a> {
        Origin {
            client: &self.route.client.id,
            own: self.route.own_origin,
            host: self.visitor.host(self.head),
            domain: public.limits.domain.as_deref(),
        }
    }
}

/// How an exchange ended.
pub(crate) enum Outcome {
    /// The answer is complete. `body_read` tells whether the request body was, too.
    Done {
        /// Was the request body read to its end?
        body_read: bool,
    },
    /// Both sides change to another protocol: the head of the 101 answer, not yet sent.
    Switch(Box<ResponseHead>, Box<Leased>),
    /// The client gave another answer than the change of protocol it was tried for.
    Declined,
    /// No answer has begun: this one is to be given.
    Refused {
        /// What to say.
        refusal: Refusal,
        /// Was the request body read to its end?
        body_read: bool,
    },
    /// The answer broke off, or the visitor has gone: the connection (or stream) ends as a failure.
    Broken,
}

/// What both directions of an exchange tell each other. One task runs both, so no order between the
/// fields is needed; they are atomic only because tasks move between threads.
#[derive(Default)]
struct Progress {
    /// The request body has been sent in full.
    body_sent: AtomicBool,
    /// Anything came back.
    heard: AtomicBool,
    /// The head of the final answer has been given to the visitor.
    answered: AtomicBool,
}
