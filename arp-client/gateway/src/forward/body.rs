//! The body of an answer: bytes as they come, or an end that is seen as a failure.

use super::flow::Flow;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// The connection is to be cut here, so that the agent sees a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off")]
pub struct Cut;

/// See the module.
#[derive(Debug)]
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// Piece by piece, as the upstream says it; the work on it ends when the agent leaves.
    Flow(Flow),
    /// Piece by piece, from a task of its own, which ends when the reader leaves.
    Stream(mpsc::Receiver<Result<Bytes, Cut>>, Owner),
}

/// Ends the task that it belongs to.
#[derive(Debug)]
pub struct Owner(pub AbortHandle);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Flow(flow) => flow.poll_piece(cx).map(|piece| piece.map(|p| p.map(Frame::data))),
            Self::Stream(pieces, _) => pieces
                .poll_recv(cx)
                .map(|piece| piece.map(|p| p.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Flow(_) | Self::Stream(..) => SizeHint::default(),
        }
    }
}
