//! A request of an agent, as it is kept for one or several tries.

use super::headers;
use crate::dialect::Identity;
use crate::json;
use crate::service::Service;
use bytes::{Bytes, BytesMut};
use http::header::HeaderMap;
use http::{Method, request};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::time::Duration;
use tokio::time::timeout;

/// Longest body that is kept, so that the request can be made again elsewhere. What is longer is handed through.
const MAX_KEPT: usize = 32 << 20;
/// Longest pause of an agent in the middle of its body.
const BODY_PAUSE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Work {
    /// Its method.
    pub(crate) method: Method,
    /// Its path, without what was ours.
    pub(crate) path: String,
    /// Its query.
    pub(crate) query: Option<String>,
    /// Its fields, without those of one hop.
    pub(crate) headers: HeaderMap,
    /// Who it is for.
    pub(crate) identity: Identity,
    body: Payload,
}

#[derive(Debug)]
enum Payload {
    Kept(Bytes),
    /// Too long to be kept: what has come, and the rest. Good for one try.
    Through(Option<(Bytes, Incoming)>),
}

/// The agent's body did not come.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the request's body did not come")]
pub(crate) struct NoBody;

impl Work {
    /// Reads a request.
    ///
    /// # Errors
    /// When its body breaks off or pauses for too long.
    pub(crate) async fn read(
        service: Service,
        head: request::Parts,
        mut body: Incoming,
    ) -> Result<Self, NoBody> {
        let mut kept = BytesMut::new();
        let mut whole = true;
        while let Some(frame) = timeout(BODY_PAUSE, body.frame()).await.map_err(|_| NoBody)? {
            if let Ok(data) = frame.map_err(|_| NoBody)?.into_data() {
                kept.extend_from_slice(&data);
            }
            if kept.len() > MAX_KEPT {
                whole = false;
                break;
            }
        }
        let kept = kept.freeze();
        let (prefix, path) = session_prefix(head.uri.path());
        let path = path.to_owned();
        let mut identity = service.identity(&head.method, &path, &head.headers, &kept);
        if let Some(session) = prefix {
            identity.session = Some(session.to_owned());
        }
        Ok(Self {
            query: head.uri.query().map(str::to_owned),
            headers: headers::to_upstream(&head.headers),
            method: head.method,
            path,
            identity,
            body: if whole {
                Payload::Kept(kept)
            } else {
                Payload::Through(Some((kept, body)))
            },
        })
    }

    /// Can it be made again?
    #[must_use]
    pub(crate) const fn is_kept(&self) -> bool {
        matches!(self.body, Payload::Kept(_))
    }

    /// Its body, as far as it is kept.
    #[must_use]
    pub(crate) fn kept(&self) -> &[u8] {
        match &self.body {
            Payload::Kept(bytes) => bytes,
            Payload::Through(_) => &[],
        }
    }

    /// Puts another body in the place of a kept one.
    pub(crate) fn replace(&mut self, body: Bytes) {
        if self.is_kept() {
            self.body = Payload::Kept(body);
        }
    }

    /// The body for a try, asking for `model` if that is given; `None` where there is none.
    pub(crate) fn body_for(&mut self, model: Option<&str>) -> Option<reqwest::Body> {
        match &mut self.body {
            Payload::Kept(bytes) if bytes.is_empty() => None,
            Payload::Kept(bytes) => {
                let changed = model.and_then(|model| json::with_text_member(bytes, "model", model));
                Some(changed.unwrap_or_else(|| bytes.clone()).into())
            }
            Payload::Through(rest) => {
                use futures_util::StreamExt;
                let (first, body) = rest.take()?;
                let rest = http_body_util::BodyDataStream::new(body);
                let first = futures_util::stream::iter([Ok(first)]);
                Some(reqwest::Body::wrap_stream(first.chain(rest)))
            }
        }
    }
}

/// `/s/ID/rest` as `ID` and `/rest`: a base URL that names a session, for agents that cannot say it otherwise.
fn session_prefix(path: &str) -> (Option<&str>, &str) {
    let Some(rest) = path.strip_prefix("/s/") else {
        return (None, path);
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest.split_at(end) {
        ("", _) => (None, path),
        (id, "") => (Some(id), "/"),
        (id, rest) => (Some(id), rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_may_name_a_session() {
        assert_eq!(session_prefix("/s/a1/v1/messages"), (Some("a1"), "/v1/messages"));
        assert_eq!(session_prefix("/s/a1"), (Some("a1"), "/"));
        assert_eq!(session_prefix("/s//x"), (None, "/s//x"));
        assert_eq!(session_prefix("/v1/s/x"), (None, "/v1/s/x"));
    }
}
