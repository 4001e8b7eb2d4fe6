//! Heads of requests and responses: parsed once, kept as the bytes they came in, fields by position.

use crate::defaults::MAX_FIELDS;
use bytes::Bytes;
use smallvec::SmallVec;
use std::mem::MaybeUninit;

/// Names that the relay has to know. Everything else is [`Name::Other`] and passes untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Name {
    Accept,
    Connection,
    ContentLength,
    Cookie,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    Origin,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Referer,
    SecFetchDest,
    SecFetchMode,
    SecFetchSite,
    SetCookie,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    XArpToken,
    XForwardedFor,
    XForwardedHost,
    XForwardedPort,
    XForwardedPrefix,
    XForwardedProto,
    XRealIp,
    Other,
}

impl Name {
    /// Recognises a field name, any case.
    pub fn of(name: &[u8]) -> Self {
        let table: &[(&str, Self)] = match name.len() {
            2 => &[("te", Self::Te)],
            3 => &[("via", Self::Via)],
            4 => &[("host", Self::Host)],
            6 => &[
                ("accept", Self::Accept),
                ("cookie", Self::Cookie),
                ("expect", Self::Expect),
                ("origin", Self::Origin),
            ],
            7 => &[
                ("referer", Self::Referer),
                ("trailer", Self::Trailer),
                ("upgrade", Self::Upgrade),
            ],
            9 => &[("forwarded", Self::Forwarded), ("x-real-ip", Self::XRealIp)],
            10 => &[
                ("connection", Self::Connection),
                ("keep-alive", Self::KeepAlive),
                ("user-agent", Self::UserAgent),
                ("set-cookie", Self::SetCookie),
            ],
            11 => &[("x-arp-token", Self::XArpToken)],
            14 => &[
                ("content-length", Self::ContentLength),
                ("sec-fetch-mode", Self::SecFetchMode),
                ("sec-fetch-site", Self::SecFetchSite),
                ("sec-fetch-dest", Self::SecFetchDest),
            ],
            15 => &[("x-forwarded-for", Self::XForwardedFor)],
            16 => &[
                ("x-forwarded-host", Self::XForwardedHost),
                ("x-forwarded-port", Self::XForwardedPort),
                ("proxy-connection", Self::ProxyConnection),
            ],
            17 => &[
                ("transfer-encoding", Self::TransferEncoding),
                ("x-forwarded-proto", Self::XForwardedProto),
            ],
            18 => &[
                ("proxy-authenticate", Self::ProxyAuthenticate),
                ("x-forwarded-prefix", Self::XForwardedPrefix),
            ],
            19 => &[("proxy-authorization", Self::ProxyAuthorization)],
            _ => &[],
        };
        table
            .iter()
            .find(|(n, _)| n.as_bytes().eq_ignore_ascii_case(name))
            .map_or(Self::Other, |(_, n)| *n)
    }

    /// Ends at each hop and is emitted afresh or not at all (RFC 9110 §7.6.1).
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::ContentLength
        )
    }
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// Where `part`, a slice of `whole`, lies in it.
    fn of(whole: &[u8], part: &[u8]) -> Self {
        Self {
            start: (part.as_ptr() as usize - whole.as_ptr() as usize) as u32,
            len: part.len() as u32,
        }
    }
    fn get(self, whole: &[u8]) -> &[u8] {
        &whole[self.start as usize..(self.start + self.len) as usize]
    }
}

/// One field of a head.
#[derive(Debug, Clone, Copy)]
struct FieldSpan {
    known: Name,
    name: Span,
    value: Span,
}

/// One field, as bytes of the head it stands in.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// Which, if the relay knows it.
    pub known: Name,
    /// Name as it came.
    pub name: &'a [u8],
    /// Value as it came, without the white space around it.
    pub value: &'a [u8],
}

/// The fields of a head, in order.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    block: Bytes,
    spans: SmallVec<[FieldSpan; 20]>,
}

impl Fields {
    fn new(block: Bytes, headers: &[httparse::Header<'_>]) -> Self {
        let spans = headers
            .iter()
            .map(|h| FieldSpan {
                known: Name::of(h.name.as_bytes()),
                name: Span::of(&block, h.name.as_bytes()),
                value: Span::of(&block, h.value),
            })
            .collect();
        Self { block, spans }
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.spans.iter().map(|s| Field {
            known: s.known,
            name: s.name.get(&self.block),
            value: s.value.get(&self.block),
        })
    }

    /// Takes out the fields that are not to be kept.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Field<'_>) -> bool) {
        let Self { block, spans } = self;
        spans.retain(|s| {
            keep(&Field {
                known: s.known,
                name: s.name.get(block),
                value: s.value.get(block),
            })
        });
    }

    /// The values of one known field, in order.
    pub fn all(&self, known: Name) -> impl Iterator<Item = &[u8]> {
        self.spans
            .iter()
            .filter(move |s| s.known == known)
            .map(|s| s.value.get(&self.block))
    }

    /// The first value of one known field.
    pub fn first(&self, known: Name) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// The comma-separated members of a known field, over all its lines.
    pub fn members(&self, known: Name) -> impl Iterator<Item = &[u8]> {
        self.all(known)
            .flat_map(|v| v.split(|b| *b == b','))
            .map(|m| m.trim_ascii())
            .filter(|m| !m.is_empty())
    }

    /// Does a list field hold this member, any case?
    pub fn has_member(&self, known: Name, member: &str) -> bool {
        self.members(known)
            .any(|m| m.eq_ignore_ascii_case(member.as_bytes()))
    }
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// In chunks, with trailers perhaps.
    Chunked,
    /// Until the connection ends (answers only).
    UntilEof,
}

/// Why a head was refused: what to tell the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct BadHead {
    /// HTTP status of the refusal.
    pub status: u16,
    /// In words.
    pub text: &'static str,
}

const fn bad(text: &'static str) -> BadHead {
    BadHead { status: 400, text }
}

/// A request head that was understood in full.
#[derive(Debug, Clone)]
pub struct RequestHead {
    block: Bytes,
    method: Span,
    target: Span,
    authority: Option<Span>,
    /// Was it HTTP/1.1 (or newer)? Else 1.0.
    pub http11: bool,
    /// Header fields.
    pub fields: Fields,
    /// Body length.
    pub framing: Framing,
}

impl RequestHead {
    /// Parses a whole head (empty line included). Everything two parsers could read in two ways is
    /// refused.
    ///
    /// # Errors
    /// [`BadHead`] says what is wrong.
    pub fn parse(block: Bytes) -> Result<Self, BadHead> {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(&block, &mut headers) {
            Ok(httparse::Status::Complete(n)) if n == block.len() => {}
            Err(httparse::Error::TooManyHeaders) => {
                return Err(BadHead {
                    status: 431,
                    text: "too many header fields",
                });
            }
            Err(httparse::Error::Version) => {
                return Err(BadHead {
                    status: 505,
                    text: "only HTTP/1.0, 1.1 and 2 are spoken here",
                });
            }
            _ => return Err(bad("malformed request head")),
        }
        let (method, target) = (
            request.method.unwrap_or_default(),
            request.path.unwrap_or_default(),
        );
        let method = Span::of(&block, method.as_bytes());
        let target = target.as_bytes();
        let http11 = request.version == Some(1);
        let fields = Fields::new(block.clone(), request.headers);
        let framing = request_framing(&fields, http11)?;
        let (authority, target) = split_target(target, method.get(&block))?;
        let host = single_host(&fields, http11)?;
        if let (Some(authority), Some(host)) = (authority, host)
            && !authority.eq_ignore_ascii_case(host)
        {
            return Err(bad("the request target names another host than the Host field"));
        }
        let (authority, target) = (authority.map(|a| Span::of(&block, a)), Span::of(&block, target));
        Ok(Self {
            method,
            target,
            authority,
            http11,
            fields,
            framing,
            block,
        })
    }

    /// The method.
    pub fn method(&self) -> &str {
        std::str::from_utf8(self.method.get(&self.block)).unwrap_or_default()
    }

    /// Path and query as they came; `""` or `?…` for an absolute target without a path; `*` for OPTIONS.
    pub fn target(&self) -> &str {
        std::str::from_utf8(self.target.get(&self.block)).unwrap_or_default()
    }

    /// Host and port that the visitor asked for.
    pub fn host(&self) -> Option<&str> {
        let host = match self.authority {
            Some(span) => Some(span.get(&self.block)),
            None => self.fields.first(Name::Host),
        };
        host.and_then(|h| std::str::from_utf8(h).ok())
    }

    /// The protocol that the visitor wants to change to, if it does.
    pub fn upgrade(&self) -> Option<&[u8]> {
        if self.http11 && self.fields.has_member(Name::Connection, "upgrade") {
            self.fields.first(Name::Upgrade)
        } else {
            None
        }
    }

    /// Does the visitor wait for `100 Continue` before it sends the body?
    pub fn expects_continue(&self) -> bool {
        self.http11 && self.fields.has_member(Name::Expect, "100-continue")
    }

    /// May another request follow on the connection?
    pub fn keep_alive(&self) -> bool {
        if self.http11 {
            !self.fields.has_member(Name::Connection, "close")
        } else {
            self.fields.has_member(Name::Connection, "keep-alive")
        }
    }

    /// Is a repetition without effect (RFC 9110 §9.2.2)?
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method(), "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
    }
}

fn request_framing(fields: &Fields, http11: bool) -> Result<Framing, BadHead> {
    let mut lengths = fields.all(Name::ContentLength);
    let mut codings = fields.all(Name::TransferEncoding);
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(Framing::None),
        (Some(_), Some(_)) => Err(bad("both Content-Length and Transfer-Encoding")),
        (Some(length), None) => {
            if lengths.next().is_some() {
                return Err(bad("more than one Content-Length"));
            }
            match parse_length(length) {
                Some(0) => Ok(Framing::None),
                Some(n) => Ok(Framing::Length(n)),
                None => Err(bad("Content-Length is not a plain number")),
            }
        }
        (None, Some(coding)) => {
            if !http11 {
                return Err(bad("Transfer-Encoding in an HTTP/1.0 request"));
            }
            if codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
                return Err(bad("the only Transfer-Encoding taken is chunked, once"));
            }
            Ok(Framing::Chunked)
        }
    }
}

/// Digits only: no sign, no space, no list; and no number that could overflow another parser.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Splits off the authority of an absolute-form target.
fn split_target<'a>(target: &'a [u8], method: &[u8]) -> Result<(Option<&'a [u8]>, &'a [u8]), BadHead> {
    if !target.iter().all(|b| (0x21..=0x7e).contains(b) && *b != b'#') {
        return Err(bad(
            "characters in the request target that must be percent-encoded",
        ));
    }
    match target.first() {
        Some(b'/') => return Ok((None, target)),
        Some(b'*') if target == b"*" && method == b"OPTIONS" => return Ok((None, target)),
        _ => {}
    }
    if method == b"CONNECT" {
        return Err(BadHead {
            status: 405,
            text: "CONNECT is not offered here",
        });
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|s| target.len() > s.len() && target[..s.len()].eq_ignore_ascii_case(s))
        .ok_or(bad("the request target is neither a path nor an http URL"))?;
    let rest = &target[scheme.len()..];
    let end = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?'))
        .unwrap_or(rest.len());
    if !valid_host(&rest[..end]) {
        return Err(bad("malformed host in the request target"));
    }
    Ok((Some(&rest[..end]), &rest[end..]))
}

fn single_host(fields: &Fields, http11: bool) -> Result<Option<&[u8]>, BadHead> {
    let mut hosts = fields.all(Name::Host);
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Err(bad("more than one Host")),
        (None, None) if http11 => Err(bad("no Host")),
        (Some(host), None) if !valid_host(host) => Err(bad("malformed Host")),
        (host, None) => Ok(host),
    }
}

/// Letters, digits and what addresses are written with; nothing that ends a host somewhere else.
pub(crate) fn valid_host(host: &[u8]) -> bool {
    !host.is_empty()
        && host.len() <= 255
        && host.iter().all(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']' | b'%' | b'~')
        })
}

/// A response head.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    block: Bytes,
    reason: Span,
    /// Was it HTTP/1.1? Else 1.0.
    pub http11: bool,
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
        let reason = Span::of(
            &block,
            response
                .reason
                .filter(|r| !r.is_empty())
                .map_or(&block[..0], str::as_bytes),
        );
        let http11 = response.version == Some(1);
        let fields = Fields::new(block.clone(), response.headers);
        Ok(Self {
            status,
            reason,
            http11,
            fields,
            block,
        })
    }

    /// The reason phrase, perhaps empty.
    pub fn reason(&self) -> &[u8] {
        self.reason.get(&self.block)
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

    fn parse(text: &str) -> Result<RequestHead, BadHead> {
        RequestHead::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn with(fields: &str) -> Result<RequestHead, BadHead> {
        parse(&format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
    }

    #[test]
    fn a_plain_request_is_understood() {
        let head =
            with("Content-Length: 5\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n").unwrap();
        assert_eq!(
            (head.method(), head.target(), head.host()),
            ("POST", "/x", Some("a"))
        );
        assert_eq!(head.framing, Framing::Length(5));
        assert_eq!(head.upgrade(), Some(&b"websocket"[..]));
        assert!(head.keep_alive() && !head.expects_continue() && !head.is_idempotent());
    }

    #[test]
    fn smuggling_shapes_are_refused() {
        let shapes = [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "X: a\r\n folded\r\n",
            "X: a\rb\r\n",
            "X: a\0b\r\n",
            " X: a\r\n",
            "Host: b\r\n",
            "X y: a\r\n",
            ": a\r\n",
        ];
        for shape in shapes {
            let refused = with(shape).expect_err(shape);
            assert_eq!(refused.status, 400, "{shape:?}");
        }
    }

    #[test]
    fn targets_and_hosts() {
        let ok = |text: &str| parse(text).unwrap();
        assert_eq!(
            ok("GET http://a?token=x HTTP/1.1\r\nHost: a\r\n\r\n").target(),
            "?token=x"
        );
        assert_eq!(ok("GET HTTP://A/p HTTP/1.1\r\nHost: a\r\n\r\n").target(), "/p");
        assert_eq!(ok("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target(), "*");
        assert_eq!(ok("GET / HTTP/1.0\r\n\r\n").host(), None);
        let refused = |text: &str, status| assert_eq!(parse(text).unwrap_err().status, status, "{text:?}");
        refused("GET http://b/p HTTP/1.1\r\nHost: a\r\n\r\n", 400);
        refused("GET / HTTP/1.1\r\n\r\n", 400);
        refused("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400);
        refused("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400);
        refused("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400);
        refused("GET foo HTTP/1.1\r\nHost: a\r\n\r\n", 400);
        refused("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400);
        refused("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", 400);
        refused("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400);
        refused("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 405);
        refused("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505);
        let many: String = (0..200).map(|i| format!("A{i}: b\r\n")).collect();
        assert_eq!(with(&many).unwrap_err().status, 431);
    }

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
