//! An upstream's answer: its head, and its body as it comes.

use super::AskError;
use super::direct::Pool;
use super::line::Line;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll, ready};

/// See the module.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    body: Coming,
}

#[derive(Debug)]
enum Coming {
    /// Over a connection that is ours alone meanwhile.
    Own(Own),
    /// Over one with several streams, which has a task of its own.
    Shared(Incoming),
    /// Through a proxy.
    Library(reqwest::Response),
}

impl Reply {
    pub(super) fn own(response: http::Response<Incoming>, line: Box<Line>, home: Weak<Pool>) -> Self {
        Self::with(response, |body| {
            Coming::Own(Own {
                body,
                line: Some(line),
                home,
                ended: false,
            })
        })
    }

    pub(super) fn shared(response: http::Response<Incoming>) -> Self {
        Self::with(response, Coming::Shared)
    }

    fn with(response: http::Response<Incoming>, body: impl FnOnce(Incoming) -> Coming) -> Self {
        let (head, incoming) = response.into_parts();
        Self {
            status: head.status,
            headers: head.headers,
            body: body(incoming),
        }
    }

    /// The next bytes of its body; `None` at the end. Nothing is lost when it is dropped while it waits.
    ///
    /// # Errors
    /// In words, when it broke off.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, AskError> {
        match &mut self.body {
            Coming::Own(own) => poll_fn(|cx| own.poll_chunk(cx))
                .await
                .map_err(|e| AskError::of(&e)),
            Coming::Shared(body) => poll_fn(|cx| poll_data(body, cx))
                .await
                .map_err(|e| AskError::of(&e)),
            Coming::Library(response) => response.chunk().await.map_err(AskError::from),
        }
    }
}

impl From<reqwest::Response> for Reply {
    fn from(mut response: reqwest::Response) -> Self {
        Self {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body: Coming::Library(response),
        }
    }
}

/// The next bytes of a body; trailers are passed over.
pub(super) fn poll_data(
    body: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Bytes>, hyper::Error>> {
    loop {
        match ready!(Pin::new(&mut *body).poll_frame(cx)?) {
            None => return Poll::Ready(Ok(None)),
            Some(frame) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Poll::Ready(Ok(Some(data)));
                }
            }
        }
    }
}

/// A body and the connection that it comes over, which goes back to the others when the body has come.
#[derive(Debug)]
struct Own {
    body: Incoming,
    line: Option<Box<Line>>,
    home: Weak<Pool>,
    ended: bool,
}

impl Own {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, hyper::Error>> {
        let Some(line) = &mut self.line else {
            return Poll::Ready(Ok(None));
        };
        let came = ready!(line.poll_chunk(cx, &mut self.body));
        if matches!(came, Ok(Some(_))) {
            return Poll::Ready(came);
        }
        self.ended = came.is_ok();
        self.let_go();
        Poll::Ready(came)
    }

    fn let_go(&mut self) {
        if let Some(line) = self.line.take()
            && (self.ended || self.body.is_end_stream())
            && let Some(home) = self.home.upgrade()
        {
            home.put_back(line);
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Whoever has all that was announced may have asked for no more.
        self.let_go();
    }
}
