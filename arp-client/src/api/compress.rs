//! Answers in gzip, where that saves something and gives nothing away.
//!
//! Compressed are whole answers in JSON of the endpoints that [`Packing::wanted`] names. Never streams, whose events
//! would wait for one another. Never answers that hold a token or a key, and never one that another site's page asked
//! for: who chooses a part of an answer and sees its length would learn what else is in it (the attack called BREACH).

use super::body::{self, Body};
use super::request::header;
use super::router::Op;
use crate::encoding::accepts;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, VARY};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use std::io::Write;

/// Smaller answers fit into one packet anyway.
const SMALLEST: u64 = 1024;
/// Larger ones are compressed off the thread that serves others.
const INLINE: usize = 64 * 1024;
/// Between speed and size.
const LEVEL: u32 = 5;

/// How an answer may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// As it is, whatever the visitor takes.
    Never,
    /// As it is for this visitor.
    Plain,
    /// In gzip.
    Gzip,
}

impl Packing {
    /// What is right for the answer to this request.
    pub(super) fn wanted(op: Op, head: &Parts) -> Self {
        if !may_be_compressed(op) {
            return Self::Never;
        }
        if head.method == Method::GET && accepts(&head.headers, "gzip") && is_asked_by_ourselves(head) {
            Self::Gzip
        } else {
            Self::Plain
        }
    }

    /// Sends an answer so.
    pub(super) async fn apply(self, mut response: Response<Body>) -> Response<Body> {
        if self == Self::Never || !is_json(&response) {
            return response;
        }
        response
            .headers_mut()
            .append(VARY, HeaderValue::from_static("Accept-Encoding"));
        let is_whole = response
            .body()
            .size_hint()
            .exact()
            .is_some_and(|size| size >= SMALLEST);
        if self == Self::Plain || response.status() != StatusCode::OK || !is_whole {
            return response;
        }
        let (mut head, body) = response.into_parts();
        let Ok(plain) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
            // Of a body that is there this cannot be.
            return super::ApiError::internal("an answer could not be read").response();
        };
        let packed = if plain.len() <= INLINE {
            gzip(&plain)
        } else {
            let plain = plain.clone();
            tokio::task::spawn_blocking(move || gzip(&plain))
                .await
                .unwrap_or(None)
        };
        let body = match packed {
            Some(packed) => {
                head.headers
                    .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                head.headers.remove(CONTENT_LENGTH);
                packed
            }
            None => plain,
        };
        Response::from_parts(head, body::full(body))
    }
}

/// What people read lists and texts with. Not: what tells addresses with tokens in them ([`Op::Info`]), what takes keys,
/// streams, and what changes something.
fn may_be_compressed(op: Op) -> bool {
    match op {
        Op::OpenApi
        | Op::SessionList
        | Op::SessionGet
        | Op::SessionEvents
        | Op::SessionFs
        | Op::ApprovalList
        | Op::ApprovalGet
        | Op::Fs
        | Op::Directories
        | Op::Overview
        | Op::Projects
        | Op::WorkingDirectories
        | Op::ProjectSessions
        | Op::HistoryList
        | Op::HistoryGet => true,
        Op::Health
        | Op::Info
        | Op::Login
        | Op::Logout
        | Op::Events
        | Op::EventsWs
        | Op::SessionCreate
        | Op::SessionPatch
        | Op::SessionDelete
        | Op::SessionWs
        | Op::MessageCreate
        | Op::MessageDelete
        | Op::Interrupt
        | Op::Cancel
        | Op::Fork
        | Op::Retry
        | Op::Stop
        | Op::ApprovalDecide
        | Op::SessionGateway
        | Op::SessionGatewayChoose
        | Op::ProxyTunnel
        | Op::HistoryDelete => false,
    }
}

/// Not a page of another site, as far as browsers say so, and nobody's navigation, which any site can cause with the
/// visitor's cookies.
fn is_asked_by_ourselves(head: &Parts) -> bool {
    let site = header(&head.headers, "sec-fetch-site");
    let navigates = header(&head.headers, ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/html"));
    !navigates && site.is_none_or(|site| site == "same-origin")
}

fn is_json(response: &Response<Body>) -> bool {
    let headers = response.headers();
    let json = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    json && !headers.contains_key(CONTENT_ENCODING)
}

/// `None` if that would save nothing.
fn gzip(plain: &Bytes) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::new(LEVEL));
    encoder.write_all(plain).ok()?;
    let packed = encoder.finish().ok()?;
    (packed.len() < plain.len()).then(|| packed.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn packing(op: Op, method: &str, headers: &[(&str, &str)]) -> Packing {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Packing::wanted(op, &request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn another_sites_page_a_secret_and_who_does_not_ask_get_no_compressed_answer() {
        let gzip = ("accept-encoding", "gzip, br");
        assert_eq!(packing(Op::SessionList, "GET", &[gzip]), Packing::Gzip);
        assert_eq!(
            packing(Op::SessionList, "GET", &[gzip, ("sec-fetch-site", "same-origin")]),
            Packing::Gzip
        );
        for other in [
            packing(Op::SessionList, "GET", &[]),
            packing(Op::SessionList, "GET", &[("accept-encoding", "gzip;q=0")]),
            packing(Op::SessionList, "HEAD", &[gzip]),
            packing(Op::SessionList, "GET", &[gzip, ("sec-fetch-site", "cross-site")]),
            packing(Op::SessionList, "GET", &[gzip, ("sec-fetch-site", "same-site")]),
            // A link that somebody follows; also one of ours, which costs nothing.
            packing(Op::SessionList, "GET", &[gzip, ("accept", "text/html,*/*")]),
        ] {
            assert_eq!(other, Packing::Plain);
        }
        for op in [Op::Info, Op::Login, Op::Events, Op::SessionCreate] {
            assert_eq!(packing(op, "GET", &[gzip]), Packing::Never);
        }
    }

    fn answer(kind: &'static str, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    #[tokio::test]
    async fn large_json_is_packed_and_small_or_other_answers_are_not() {
        let text = "{\"a\":\"some words\"}".repeat(10_000);
        let packed = Packing::Gzip
            .apply(answer("application/json", body::full(text.clone())))
            .await;
        assert_eq!(
            (&packed.headers()[CONTENT_ENCODING], &packed.headers()[VARY]),
            (
                &HeaderValue::from_static("gzip"),
                &HeaderValue::from_static("Accept-Encoding")
            )
        );
        let bytes = packed.into_body().collect().await.unwrap().to_bytes();
        assert!(bytes.len() * 10 < text.len());
        let mut plain = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut plain).unwrap();
        assert_eq!(plain, text);

        let (_sender, stream) = body::stream();
        let mut refused = answer("application/json", body::full(text.clone()));
        *refused.status_mut() = StatusCode::NOT_FOUND;
        for (packing, other) in [
            (Packing::Gzip, answer("application/json", body::full("{}"))),
            (Packing::Gzip, answer("text/event-stream", stream)),
            (
                Packing::Gzip,
                answer("application/octet-stream", body::full(text.clone())),
            ),
            (Packing::Gzip, refused),
            (
                Packing::Plain,
                answer("application/json", body::full(text.clone())),
            ),
            (
                Packing::Never,
                answer("application/json", body::full(text.clone())),
            ),
        ] {
            assert!(
                !packing
                    .apply(other)
                    .await
                    .headers()
                    .contains_key(CONTENT_ENCODING)
            );
        }
    }
}
