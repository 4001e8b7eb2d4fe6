//! Response heads: parsed with patience for old services, kept as the bytes they came in.

use super::fields::{Fields, Span};
use super::name::Name;
use super::{BadHead, Framing, bad, parse_length};
use crate::defaults::MAX_FIELDS;
use bytes::Bytes;
use std::mem::MaybeUninit;

/// A response head.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    reason: Span,
    /// Was it HTTP/1.1? Else 1.0.
    pub http11: bool,
    /// May a value go over several lines?
    pub(crate) folded: bool,
    /// Header fields.
    pub fields: Fields,
}

impl ResponseHead {
    /// Parses a whole head (empty line included).
    ///
    /// # Errors
    /// If it is not HTTP/1.
    pub fn parse(block: Bytes) -> Result<Self, BadHead> {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let mut config = httparse::ParserConfig::default();
        // Old local services write folded lines and spaces before colons; both are mended on the way out.
        config
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true);
        match config.parse_response_with_uninit_headers(&mut response, &block, &mut headers) {
            Ok(httparse::Status::Complete(n)) if n == block.len() => {}
            _ => return Err(bad("not an HTTP/1 answer")),
        }
        let status = response
            .code
            .filter(|c| (100..=999).contains(c))
            .ok_or(bad("not an HTTP status"))?;
        let reason = Span::of_text(&block, response.reason.unwrap_or_default());
        let http11 = response.version == Some(1);
        // A line for the status, one for each field, and the empty one.
        let lines = memchr::memchr_iter(b'\n', &block).count();
        let folded = lines != response.headers.len() + 2;
        let fields = Fields::new(&block, response.headers).in_block(block);
        Ok(Self {
            status,
            reason,
            http11,
            folded,
            fields,
        })
    }

    /// The reason phrase, perhaps empty.
    pub fn reason(&self) -> &[u8] {
        self.reason.get(self.fields.block())
    }

    /// Length of the body of this answer to a request of `method`.
    ///
    /// # Errors
    /// If the length is given in a way that cannot be trusted.
    pub fn framing(&self, method: &str) -> Result<Framing, BadHead> {
        if method == "HEAD" || matches!(self.status, 100..=199 | 204 | 304) {
            return Ok(Framing::None);
        }
        let mut codings = self.fields.members(Name::TransferEncoding);
        if let Some(coding) = codings.next() {
            if codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
                return Err(bad("an answer with a Transfer-Encoding other than chunked"));
            }
            return Ok(Framing::Chunked);
        }
        match self.content_length()? {
            Some(0) => Ok(Framing::None),
            Some(n) => Ok(Framing::Length(n)),
            None => Ok(Framing::UntilEof),
        }
    }

    /// The `Content-Length`, which for HEAD and 304 tells of a body that does not come.
    ///
    /// # Errors
    /// If it is not a number, or there are several that differ.
    pub fn content_length(&self) -> Result<Option<u64>, BadHead> {
        let mut length = None;
        for value in self
            .fields
            .all(Name::ContentLength)
            .flat_map(|v| v.split(|b| *b == b','))
        {
            let n =
                parse_length(value.trim_ascii()).ok_or(bad("an answer whose Content-Length is no number"))?;
            if length.is_some_and(|l| l != n) {
                return Err(bad("an answer with two different Content-Lengths"));
            }
            length = Some(n);
        }
        Ok(length)
    }

    /// Does a 101 change to something that is not HTTP once more?
    pub fn switches(&self) -> bool {
        !self
            .fields
            .members(Name::Upgrade)
            .any(super::request::hides_requests)
    }

    /// Does the other side keep the connection open after this answer?
    pub fn keep_alive(&self) -> bool {
        if self.http11 {
            !self.fields.has_member(Name::Connection, "close")
        } else {
            self.fields.has_member(Name::Connection, "keep-alive")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_framed_by_method_status_and_fields() {
        let framing = |fields: &str, method: &str| {
            let text = format!("HTTP/1.1 {fields}\r\n");
            ResponseHead::parse(Bytes::from(text)).unwrap().framing(method)
        };
        assert_eq!(
            framing("200 OK\r\nContent-Length: 3\r\n", "GET"),
            Ok(Framing::Length(3))
        );
        assert_eq!(
            framing("200 OK\r\nContent-Length: 3\r\n", "HEAD"),
            Ok(Framing::None)
        );
        assert_eq!(framing("304\r\nContent-Length: 3\r\n", "GET"), Ok(Framing::None));
        assert_eq!(framing("204 No\r\n", "GET"), Ok(Framing::None));
        assert_eq!(framing("200 OK\r\n", "GET"), Ok(Framing::UntilEof));
        assert_eq!(
            framing("200 OK\r\nTransfer-Encoding: Chunked\r\n", "GET"),
            Ok(Framing::Chunked)
        );
        assert_eq!(
            framing("200 OK\r\nContent-Length: 3, 3\r\n", "GET"),
            Ok(Framing::Length(3))
        );
        assert!(framing("200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n", "GET").is_err());
        assert!(framing("200 OK\r\nTransfer-Encoding: gzip\r\n", "GET").is_err());
    }
}
