//! Writing the head that goes to the edge, and the one that goes back to the visitor: framing afresh,
//! hop-by-hop fields ended, what was ours removed, what a proxy adds added.

use crate::exchange::origin::Origin;
use crate::http::{Field, Framing, Name, RequestHead, ResponseHead};
use crate::registry::Client;
use crate::routing::Route;
use crate::routing::source::COOKIE;
use crate::shared::Visitor;
use bytes::{BufMut, BytesMut};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

/// What we put into `Via`.
const VIA: &str = "1.1 arp";

fn put_field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    debug_assert!(
        memchr::memchr2(b'\r', b'\n', value).is_none(),
        "a value is one line"
    );
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Writes a field of an answer, on one line. Only answers can hold folded lines (see [`ResponseHead::parse`]).
fn put_answered(out: &mut BytesMut, head: &ResponseHead, field: &Field<'_>) {
    put_field(out, field.name, &on_one_line(head, field.value));
}

/// The value of an answer's field, unfolded.
pub fn on_one_line<'a>(head: &ResponseHead, value: &'a [u8]) -> Cow<'a, [u8]> {
    if !head.folded {
        return Cow::Borrowed(value);
    }
    let blank = |b: &u8| if matches!(b, b'\r' | b'\n') { b' ' } else { *b };
    Cow::Owned(value.iter().map(blank).collect())
}

fn put_ip(out: &mut BytesMut, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            for (at, octet) in ip.octets().into_iter().enumerate() {
                if at > 0 {
                    out.put_u8(b'.');
                }
                out.put_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        // Writing to a BytesMut cannot fail.
        IpAddr::V6(ip) => drop(write!(out, "{ip}")),
    }
}

fn put_framing(out: &mut BytesMut, framing: Framing) {
    match framing {
        Framing::Length(n) => put_length(out, n),
        Framing::Chunked => put_field(out, b"Transfer-Encoding", b"chunked"),
        Framing::None | Framing::UntilEof => {}
    }
}

fn put_length(out: &mut BytesMut, n: u64) {
    put_field(out, b"Content-Length", itoa::Buffer::new().format(n).as_bytes());
}

/// Is this field about the way that a request came? Only trusted proxies may say something of that. Many services
/// take `_` for `-`.
fn tells_the_way(name: &[u8]) -> bool {
    let is = |want: &[u8]| {
        let same = |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || (*a == b'_' && *b == b'-');
        name.len() == want.len() && name.iter().zip(want).all(same)
    };
    match name.first() {
        Some(b'x' | b'X') => {
            let family = b"x-forwarded-";
            let begins = name.len() > family.len() && {
                let same = |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || (*a == b'_' && *b == b'-');
                name.iter().zip(family).all(same)
            };
            begins || is(b"x-forwarded") || is(b"x-real-ip") || is(b"x-arp-token")
        }
        Some(b'f' | b'F') => is(b"forwarded"),
        _ => false,
    }
}

/// Writes the request head for the edge.
pub(crate) fn put_request(
    out: &mut BytesMut,
    head: &RequestHead,
    route: &Route<Arc<Client>>,
    visitor: &Visitor,
    origin: &Origin<'_>,
) {
    out.reserve(1024);
    out.put_slice(head.method().as_bytes());
    out.put_u8(b' ');
    out.put_slice(route.target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    let host = head.host().unwrap_or("localhost");
    put_field(out, b"Host", host.as_bytes());
    let fields = &head.fields;
    let named_hop_by_hop = |f: &Field<'_>| {
        f.known == Name::Other
            && fields
                .members(Name::Connection)
                .any(|m| m.eq_ignore_ascii_case(f.name))
    };
    let has_connection = fields.first(Name::Connection).is_some();
    let mut forwarded_for: Vec<&[u8]> = Vec::new();
    let mut host_told = false;
    for field in fields.iter() {
        match field.known {
            known if known.is_hop_by_hop() => {}
            Name::Host | Name::XArpToken | Name::XForwardedPrefix | Name::XForwardedProto => {}
            _ if tells_the_way(field.name) && (!visitor.trusted || field.name.contains(&b'_')) => {}
            Name::XForwardedFor => forwarded_for.push(field.value),
            Name::XForwardedHost => {
                host_told = true;
                put_field(out, field.name, field.value);
            }
            Name::Cookie => {
                if let Some(value) = origin.cookies(field.value) {
                    put_field(out, field.name, &value);
                }
            }
            Name::Referer => match &route.referer {
                Some(value) => put_field(out, field.name, value.as_bytes()),
                None => put_field(out, field.name, field.value),
            },
            Name::Expect if !head.expects_continue() => {}
            _ if has_connection && named_hop_by_hop(&field) => {}
            _ => put_field(out, field.name, field.value),
        }
    }
    out.put_slice(b"X-Forwarded-For: ");
    for earlier in forwarded_for {
        out.put_slice(earlier);
        out.put_slice(b", ");
    }
    put_ip(out, visitor.ip);
    out.put_slice(b"\r\n");
    put_field(out, b"X-Forwarded-Proto", visitor.scheme(head).as_bytes());
    if !host_told {
        put_field(out, b"X-Forwarded-Host", host.as_bytes());
    }
    if let Some(prefix) = &route.prefix {
        out.put_slice(b"X-Forwarded-Prefix: /t/");
        out.put_slice(prefix.as_str().as_bytes());
        out.put_slice(b"\r\n");
    }
    put_field(out, b"Via", VIA.as_bytes());
    match (head.upgrade(), fields.has_member(Name::Te, "trailers")) {
        (Some(protocol), _) => {
            put_field(out, b"Connection", b"Upgrade");
            put_field(out, b"Upgrade", protocol);
        }
        (None, true) => out.put_slice(b"Connection: TE\r\nTE: trailers\r\n"),
        (None, false) => {}
    }
    if head.framing == Framing::None && fields.first(Name::ContentLength).is_some() {
        put_length(out, 0);
    }
    put_framing(out, head.framing);
    out.put_slice(b"\r\n");
}

/// How an answer goes to an HTTP/1 visitor.
#[derive(Debug, Clone, Copy)]
pub struct AnswerForm {
    /// Length of the body on the visitor's side.
    pub framing: Framing,
    /// May the visitor send another request on the connection?
    pub keep_alive: bool,
    /// Does the visitor speak HTTP/1.1? Else 1.0, which closes unless told otherwise.
    pub http11: bool,
    /// Seconds for which a browser is to come by HTTPS only.
    pub hsts: Option<u64>,
}

/// Fields of an answer that are passed on, to any kind of visitor.
pub fn passed_on(head: &ResponseHead) -> impl Iterator<Item = Field<'_>> {
    let fields = &head.fields;
    let has_connection = fields.first(Name::Connection).is_some();
    fields.iter().filter(move |f| {
        !(f.known.is_hop_by_hop()
            || has_connection
                && f.known == Name::Other
                && fields
                    .members(Name::Connection)
                    .any(|m| m.eq_ignore_ascii_case(f.name)))
    })
}

/// The cookie that keeps a browser with its client, for [`COOKIE_LIFE`] from the last page on.
pub fn cookie(value: &str, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={value}; Path=/; Max-Age={COOKIE_LIFE}; HttpOnly; SameSite=Lax{secure}")
}

/// Seconds after which a browser that opened no page forgets its client: 90 days.
const COOKIE_LIFE: u32 = 90 * 24 * 60 * 60;

/// Value of `Strict-Transport-Security`. Subdomains are not ours to speak for.
pub fn hsts(secs: u64) -> String {
    format!("max-age={secs}")
}

/// Does the relay say this itself? Its own word counts, where it has one: it speaks for the whole host.
fn told_by_us(field: &Field<'_>, hsts: Option<u64>) -> bool {
    hsts.is_some() && field.name.eq_ignore_ascii_case(b"strict-transport-security")
}

/// What the relay adds to the head of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Added<'a> {
    /// The cookie that keeps a browser with its client.
    pub cookie: Option<&'a str>,
    /// The fields that name the client, where the URL does not: a cache must not give the answer of one
    /// client to who asks for another.
    pub vary: Option<&'static str>,
}

/// Writes the head of an answer for an HTTP/1 visitor.
pub fn put_answer(out: &mut BytesMut, head: &ResponseHead, form: AnswerForm, added: Added<'_>) {
    out.reserve(512);
    // Heads with a status of other than three digits were refused when they were read.
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(itoa::Buffer::new().format(head.status).as_bytes());
    out.put_u8(b' ');
    out.put_slice(head.reason());
    out.put_slice(b"\r\n");
    for field in passed_on(head).filter(|f| !told_by_us(f, form.hsts)) {
        put_answered(out, head, &field);
    }
    if let Some(cookie) = added.cookie {
        put_field(out, b"Set-Cookie", cookie.as_bytes());
    }
    if let Some(names) = added.vary {
        put_field(out, b"Vary", names.as_bytes());
    }
    if let Some(secs) = form.hsts.filter(|_| head.status >= 200) {
        put_field(out, b"Strict-Transport-Security", hsts(secs).as_bytes());
    }
    if head.status >= 200 {
        match (form.framing, head.content_length()) {
            // Of a body that does not come (HEAD, 304), or an empty one.
            (Framing::None, Ok(Some(n))) if head.status != 204 => put_length(out, n),
            (framing, _) => put_framing(out, framing),
        }
        match (form.keep_alive, form.http11) {
            (true, true) => {}
            (true, false) => put_field(out, b"Connection", b"keep-alive"),
            (false, _) => put_field(out, b"Connection", b"close"),
        }
    }
    out.put_slice(b"\r\n");
}

/// Writes a 101 answer for a visitor who asked for it.
pub fn put_switch(out: &mut BytesMut, head: &ResponseHead, set_cookie: Option<&str>, hsts_secs: Option<u64>) {
    out.put_slice(b"HTTP/1.1 101 ");
    out.put_slice(head.reason());
    out.put_slice(b"\r\nConnection: Upgrade\r\n");
    for value in head.fields.all(Name::Upgrade) {
        put_field(out, b"Upgrade", &on_one_line(head, value));
    }
    for field in passed_on(head).filter(|f| !told_by_us(f, hsts_secs)) {
        put_answered(out, head, &field);
    }
    if let Some(cookie) = set_cookie {
        put_field(out, b"Set-Cookie", cookie.as_bytes());
    }
    if let Some(secs) = hsts_secs {
        put_field(out, b"Strict-Transport-Security", hsts(secs).as_bytes());
    }
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod hostile;
