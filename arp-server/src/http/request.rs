//! Request heads: parsed strictly, kept as the bytes they came in.

use super::fields::{Fields, Span};
use super::name::Name;
use super::{BadHead, Framing, bad, parse_length};
use crate::defaults::MAX_FIELDS;
use bytes::Bytes;
use std::mem::MaybeUninit;

/// A request head that was understood in full.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// Method, target and host, one behind the other: they are asked for often, and as text.
    words: String,
    /// Where the method ends.
    method: usize,
    /// Where the target ends.
    target: usize,
    has_host: bool,
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
        let (method, target) = (request.method, request.path);
        let [method, target] = [method, target].map(|word| Span::of_text(&block, word.unwrap_or_default()));
        let http11 = request.version == Some(1);
        let fields = Fields::new(&block, request.headers).in_block(block);
        let text = |word: Span| {
            std::str::from_utf8(word.get(fields.block())).map_err(|_| bad("malformed request head"))
        };
        let (method, target) = (text(method)?, text(target)?);
        let framing = request_framing(&fields, http11)?;
        let (authority, target) = split_target(target, method)?;
        let host = single_host(&fields, http11)?;
        if let (Some(authority), Some(host)) = (authority, host)
            && !authority.as_bytes().eq_ignore_ascii_case(host)
        {
            return Err(bad("the request target names another host than the Host field"));
        }
        // What is valid is ASCII.
        let host = authority.or_else(|| std::str::from_utf8(host?).ok());
        let mut words = String::with_capacity(method.len() + target.len() + host.map_or(0, str::len));
        words.push_str(method);
        words.push_str(target);
        words.push_str(host.unwrap_or_default());
        Ok(Self {
            words,
            method: method.len(),
            target: method.len() + target.len(),
            has_host: host.is_some(),
            http11,
            fields,
            framing,
        })
    }

    /// The method.
    pub fn method(&self) -> &str {
        self.words.get(..self.method).unwrap_or_default()
    }

    /// Path and query as they came; `""` or `?…` for an absolute target without a path; `*` for OPTIONS.
    pub fn target(&self) -> &str {
        self.words.get(self.method..self.target).unwrap_or_default()
    }

    /// Host and port that the visitor asked for.
    pub fn host(&self) -> Option<&str> {
        self.words.get(self.target..).filter(|_| self.has_host)
    }

    /// The protocol that the visitor wants to change to, if it does: the first one it names that is not HTTP in
    /// another form.
    pub fn upgrade(&self) -> Option<&[u8]> {
        if !self.http11 || !self.fields.has_member(Name::Connection, "upgrade") {
            return None;
        }
        self.fields.members(Name::Upgrade).find(|p| !hides_requests(p))
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

/// Is a protocol HTTP once more? Its requests would pass unseen behind the change: unrouted, and with whatever
/// they say of their sender.
pub(super) fn hides_requests(protocol: &[u8]) -> bool {
    let name = protocol
        .split(|b| *b == b'/')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    ["h2c", "h2", "h3", "http", "https", "tls", "ssl", "spdy"]
        .iter()
        .any(|n| name.eq_ignore_ascii_case(n.as_bytes()))
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

/// Splits off the authority of an absolute-form target.
fn split_target<'a>(text: &'a str, method: &str) -> Result<(Option<&'a str>, &'a str), BadHead> {
    let target = text.as_bytes();
    if !target.iter().all(|b| (0x21..=0x7e).contains(b) && *b != b'#') {
        return Err(bad(
            "characters in the request target that must be percent-encoded",
        ));
    }
    if method == "CONNECT" {
        return Err(BadHead {
            status: 405,
            text: "CONNECT is not offered here",
        });
    }
    match target.first() {
        Some(b'/') => return Ok((None, text)),
        Some(b'*') if target == b"*" && method == "OPTIONS" => return Ok((None, text)),
        _ => {}
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|s| target.len() > s.len() && target[..s.len()].eq_ignore_ascii_case(s))
        .ok_or(bad("the request target is neither a path nor an http URL"))?;
    let rest = &text[scheme.len()..];
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    if !valid_host(&rest.as_bytes()[..end]) {
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
    fn http_in_another_form_is_no_change_of_protocol() {
        let upgrade = |value: &str| {
            let head = with(&format!(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {value}\r\n"
            ))
            .unwrap();
            head.upgrade().map(|p| String::from_utf8_lossy(p).into_owned())
        };
        for hidden in [
            "h2c",
            "H2C",
            "h2c, h2",
            "HTTP/2.0",
            "TLS/1.0",
            "http/1.1,tls/1.2",
            " h2c ,",
            "",
        ] {
            assert_eq!(upgrade(hidden), None, "{hidden:?}");
        }
        for (value, passed) in [
            ("websocket", "websocket"),
            ("h2c, WebSocket", "WebSocket"),
            ("foo/2, h2c", "foo/2"),
        ] {
            assert_eq!(upgrade(value).as_deref(), Some(passed));
        }
        let head = with("Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n").unwrap();
        assert_eq!(head.upgrade(), Some(&b"websocket"[..]));
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
        for target in ["a:443", "/", "/a:443", "*", "http://a/", "HTTP://a:443"] {
            refused(&format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n"), 405);
        }
        refused("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505);
        let many: String = (0..200).map(|i| format!("A{i}: b\r\n")).collect();
        assert_eq!(with(&many).unwrap_err().status, 431);
    }
}
