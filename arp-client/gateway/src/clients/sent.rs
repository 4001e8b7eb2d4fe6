//! The body of a request to an upstream.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};

/// See the module.
#[derive(Debug)]
pub enum Sent {
    /// None.
    Empty,
    /// All of it.
    Whole(Bytes),
    /// What has come of an agent's body, and the rest as it comes.
    Through(Bytes, Incoming),
}

impl Body for Sent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) | Self::Through(bytes, _) if !bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Self::Whole(_) => Poll::Ready(None),
            Self::Through(_, rest) => Pin::new(rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Through(bytes, rest) => bytes.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Through(bytes, rest) => {
                let (begun, rest) = (bytes.len() as u64, rest.size_hint());
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(begun));
                // What the agent has announced is announced to the upstream.
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper.saturating_add(begun));
                }
                hint
            }
        }
    }
}

impl From<Sent> for reqwest::Body {
    fn from(sent: Sent) -> Self {
        match sent {
            Sent::Empty => Self::from(Bytes::new()),
            Sent::Whole(bytes) => Self::from(bytes),
            Sent::Through(..) => Self::wrap(sent),
        }
    }
}
