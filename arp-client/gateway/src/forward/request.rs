//! A request of an agent, as it is kept for one or several tries.

use super::headers;
use super::socket::Turn;
use crate::clients::Sent;
use crate::dialect::Identity;
use crate::json;
use crate::service::Service;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, HeaderMap};
use http::{Method, request};
use http_body::Body as _;
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
    /// What it is over a socket, where it came over one.
    pub(crate) turn: Option<Turn>,
    /// The body as it came, where that was compressed: it goes on like that as long as nothing in it changes.
    coded: Option<Bytes>,
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
        let mut kept = Pieces::default();
        let mut whole = true;
        while let Some(frame) = timeout(BODY_PAUSE, body.frame()).await.map_err(|_| NoBody)? {
            if let Ok(data) = frame.map_err(|_| NoBody)?.into_data() {
                let more = body.size_hint().lower();
                kept.add(data, usize::try_from(more).unwrap_or(usize::MAX));
            }
            if kept.len() > MAX_KEPT {
                whole = false;
                break;
            }
        }
        let mut kept = kept.whole();
        let mut coded = None;
        if whole && coding(&head.headers) == Some("zstd") {
            let packed = kept.clone();
            let plain = tokio::task::spawn_blocking(move || unpacked(&packed)).await;
            if let Ok(Some(plain)) = plain {
                coded = Some(std::mem::replace(&mut kept, plain));
            }
        }
        let (prefix, path) = session_prefix(head.uri.path());
        let path = path.to_owned();
        let mut identity = service.identity(&head.method, &path, &head.headers, &kept);
        if let Some(session) = prefix {
            identity.session = Some(session.to_owned());
            identity.joined = true;
        }
        Ok(Self {
            query: head.uri.query().map(str::to_owned),
            headers: headers::to_upstream(head.headers),
            method: head.method,
            path,
            identity,
            turn: None,
            coded,
            body: if whole {
                Payload::Kept(kept)
            } else {
                Payload::Through(Some((kept, body)))
            },
        })
    }

    /// A turn of a socket, whose handshake had this head, as a request over HTTP.
    #[must_use]
    pub(crate) fn of_frame(service: Service, head: &request::Parts, body: Bytes, turn: Turn) -> Self {
        let (prefix, path) = session_prefix(head.uri.path());
        let path = path.to_owned();
        let mut identity = service.identity(&head.method, &path, &head.headers, &body);
        if let Some(session) = prefix {
            identity.session = Some(session.to_owned());
            identity.joined = true;
        }
        Self {
            query: head.uri.query().map(str::to_owned),
            headers: headers::to_upstream(head.headers.clone()),
            method: head.method.clone(),
            path,
            identity,
            turn: Some(turn),
            coded: None,
            body: Payload::Kept(body),
        }
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

    /// Its body as the agent sent it, where it is kept and can be read.
    #[must_use]
    pub(crate) fn readable(&self) -> Option<Bytes> {
        match &self.body {
            Payload::Kept(bytes) if !self.is_coded() => Some(bytes.clone()),
            _ => None,
        }
    }

    /// Is the kept body compressed in a way that nobody can see what is in it?
    #[must_use]
    pub(crate) fn is_coded(&self) -> bool {
        self.coded.is_none() && coding(&self.headers).is_some()
    }

    /// Puts another body in the place of a kept one.
    pub(crate) fn replace(&mut self, body: Bytes) {
        if self.is_kept() {
            self.body = Payload::Kept(body);
            if self.coded.take().is_some() {
                self.headers.remove(CONTENT_ENCODING);
            }
        }
    }

    /// The kept body, asking for `model` if that is given.
    #[must_use]
    pub(crate) fn kept_for(&self, model: Option<&str>) -> Bytes {
        let Payload::Kept(bytes) = &self.body else {
            return Bytes::new();
        };
        let changed = model.and_then(|model| json::with_text_member(bytes, "model", model));
        changed.unwrap_or_else(|| bytes.clone())
    }

    /// The body for a try, asking for `model` if that is given. `headers` are those that
    /// go with it.
    pub(crate) fn body_for(&mut self, model: Option<&str>, headers: &mut HeaderMap) -> Sent {
        match &mut self.body {
            Payload::Kept(bytes) if bytes.is_empty() => Sent::Empty,
            Payload::Kept(bytes) => {
                let changed = model.and_then(|model| json::with_text_member(bytes, "model", model));
                if let Some(changed) = changed {
                    if self.coded.is_some() {
                        headers.remove(CONTENT_ENCODING);
                    }
                    return Sent::Whole(changed);
                }
                Sent::Whole(self.coded.as_ref().unwrap_or(bytes).clone())
            }
            Payload::Through(rest) => rest
                .take()
                .map_or(Sent::Empty, |(first, rest)| Sent::Through(first, rest)),
        }
    }
}

/// Most memory that is set aside because a request says how long it is.
const MAX_AHEAD: usize = 1 << 20;

/// A body that comes in pieces. One that comes in one is not copied.
#[derive(Debug, Default)]
struct Pieces {
    first: Bytes,
    all: BytesMut,
}

impl Pieces {
    /// Takes a piece, behind which at least so many bytes come.
    fn add(&mut self, piece: Bytes, more: usize) {
        if self.len() == 0 {
            self.first = piece;
            return;
        }
        if self.all.is_empty() {
            let first = std::mem::take(&mut self.first);
            self.all.reserve(first.len() + piece.len() + more.min(MAX_AHEAD));
            self.all.extend_from_slice(&first);
        }
        self.all.extend_from_slice(&piece);
    }

    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    fn whole(self) -> Bytes {
        if self.all.is_empty() {
            self.first
        } else {
            self.all.freeze()
        }
    }
}

/// How a body is compressed, if it is.
fn coding(headers: &HeaderMap) -> Option<&str> {
    let coding = headers
        .get(CONTENT_ENCODING)?
        .to_str()
        .unwrap_or("unknown")
        .trim();
    (!coding.is_empty() && !coding.eq_ignore_ascii_case("identity")).then_some(coding)
}

/// What is in a body that was compressed with zstd; `None` if it is broken, or longer than what is kept.
fn unpacked(packed: &[u8]) -> Option<Bytes> {
    use std::io::Read;
    let decoder = ruzstd::decoding::StreamingDecoder::new(packed).ok()?;
    let mut plain = Vec::new();
    decoder.take(MAX_KEPT as u64 + 1).read_to_end(&mut plain).ok()?;
    (plain.len() <= MAX_KEPT).then(|| plain.into())
}

/// `/s/ID/rest` as `ID` and `/rest`: a base URL that names a session, for agents that cannot say it otherwise.
pub(super) fn session_prefix(path: &str) -> (Option<&str>, &str) {
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
    fn what_was_compressed_can_be_seen_and_a_bomb_cannot() {
        // "zstd" as a frame with one raw block, and 64 MiB of zeros as runs.
        let frame = |blocks: &[u8]| [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58], blocks].concat();
        let raw = frame(&[&[(4 << 3) | 1, 0, 0][..], b"zstd"].concat());
        assert_eq!(unpacked(&raw).as_deref(), Some(&b"zstd"[..]));
        let mut runs = Vec::new();
        for n in 0..512_u32 {
            let head = ((128 << 10) << 3) | (1 << 1) | u32::from(n == 511);
            runs.extend_from_slice(&head.to_le_bytes()[..3]);
            runs.push(0);
        }
        assert_eq!(unpacked(&frame(&runs)), None);
        assert_eq!(unpacked(b"no frame"), None);
    }

    #[test]
    fn a_body_is_what_its_pieces_are() {
        for pieces in [&[][..], &["ab"], &["", "ab"], &["a", "", "b"], &["a", "b", "cd"]] {
            let mut all = Pieces::default();
            for piece in pieces {
                all.add(Bytes::from_static(piece.as_bytes()), 1);
            }
            let whole = pieces.concat();
            assert_eq!(all.len(), whole.len());
            assert_eq!(all.whole(), whole);
        }
    }

    #[test]
    fn a_base_url_may_name_a_session() {
        assert_eq!(session_prefix("/s/a1/v1/messages"), (Some("a1"), "/v1/messages"));
        assert_eq!(session_prefix("/s/a1"), (Some("a1"), "/"));
        assert_eq!(session_prefix("/s//x"), (None, "/s//x"));
        assert_eq!(session_prefix("/v1/s/x"), (None, "/v1/s/x"));
    }
}
