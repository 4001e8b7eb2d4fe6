//! HTTP `CONNECT NAME:PORT` (RFC 9110 §9.3.6): a raw connection for whoever can use a proxy. The name says which
//! service is meant; the port is not looked at.

use super::carry::carry;
use super::line::Line;
use super::reach::Shown;
use crate::answer::{Refusal, Who};
use crate::defaults::MAX_FIELDS;
use crate::http::BadHead;
use crate::registry::Spelling;
use crate::routing::source::label;
use crate::visitor::http1;
use arp_common::protocol::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;

/// Does a head begin such a request?
pub(crate) fn is_connect(head: &[u8]) -> bool {
    head.starts_with(b"CONNECT ")
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    host: String,
    shown: Shown,
}

/// Serves a connection whose first request is this. Nothing else can follow on it.
pub(crate) async fn serve(mut line: Line, head: &[u8]) {
    let asked = match parse(head) {
        Ok(asked) => asked,
        Err(bad) => {
            let refusal = Refusal::new(Who::Visitor, bad.status, "bad_request", bad.text);
            return refuse(line, refusal).await;
        }
    };
    let domain = line.public.limits.domain.as_deref();
    let name = domain.and_then(|domain| label(&asked.host, domain));
    let name = name.unwrap_or(&asked.host).to_owned();
    let (ip, peer) = (line.visitor.ip, line.peer);
    line.deadline.clear();
    // Host names have no case, and programs that take one may change it.
    let reached = match line.public.reach(&name, Spelling::AnyCase, ip, peer).await {
        Ok(reached) => reached,
        Err(refusal) => return refuse(line, refusal).await,
    };
    match reached.open(&asked.shown).await {
        Ok(opened) => {
            let established = BytesMut::from(&b"HTTP/1.1 200 Connection established\r\n\r\n"[..]);
            carry(line, reached, opened, "connect", BytesMut::new(), established).await;
        }
        Err(refusal) => refuse(line, refusal).await,
    }
}

async fn refuse(line: Line, mut refusal: Refusal) {
    // A proxy asks by another status than a server.
    let asks = refusal.status == 401;
    if asks {
        refusal.status = 407;
    }
    let mut answer = line.public.own(&refusal, None, &line.visitor);
    answer.proxy_auth = asks;
    let mut out = BytesMut::new();
    http1::put_own(&mut out, &answer, false, false);
    line.farewell(&out).await;
}

fn parse(head: &[u8]) -> Result<Asked, BadHead> {
    const BAD: BadHead = BadHead {
        status: 400,
        text: "malformed CONNECT",
    };
    let mut headers = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        Err(httparse::Error::Version) => {
            return Err(BadHead {
                status: 505,
                text: "only HTTP/1.0, 1.1 and 2 are spoken here",
            });
        }
        _ => return Err(BAD),
    }
    // A body has no meaning here, and two parsers might not agree where it ends.
    let framed = |h: &&httparse::Header<'_>| {
        h.name.eq_ignore_ascii_case("content-length") || h.name.eq_ignore_ascii_case("transfer-encoding")
    };
    if request.headers.iter().any(|h| framed(&h)) {
        return Err(BadHead {
            status: 400,
            text: "CONNECT has no body",
        });
    }
    let host = request.path.and_then(|target| target.rsplit_once(':'));
    let host = host.filter(|(host, port)| is_name(host) && port.parse::<u16>().is_ok());
    let (host, _) = host.ok_or(BadHead {
        status: 405,
        text: "CONNECT is offered for NAME:PORT, where NAME is a token of an edge agent",
    })?;
    Ok(Asked {
        host: host.to_owned(),
        shown: Shown {
            key: request.headers.iter().find_map(key),
            e2e: request
                .headers
                .iter()
                .any(|h| h.name.eq_ignore_ascii_case("x-arp-e2e")),
            tls: None,
        },
    })
}

fn is_name(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 255
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-~".contains(&b))
}

/// What a field shows for the edge's gate.
fn key(field: &httparse::Header<'_>) -> Option<Secret> {
    let value = std::str::from_utf8(field.value).ok()?.trim();
    if field.name.eq_ignore_ascii_case("x-arp-key") {
        return Some(Secret::new(value));
    }
    if !field.name.eq_ignore_ascii_case("proxy-authorization") {
        return None;
    }
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Secret::new(rest.trim()));
    }
    let decoded = STANDARD.decode(rest.trim()).ok()?;
    let basic = scheme.eq_ignore_ascii_case("basic");
    String::from_utf8(decoded).ok().filter(|_| basic).map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(host: &str, key: Option<&str>) -> Result<Asked, u16> {
        Ok(Asked {
            host: host.to_owned(),
            shown: key.map(Secret::new).into(),
        })
    }

    #[test]
    fn names_keys_and_what_is_refused() {
        for (head, want) in [
            ("CONNECT demo:22 HTTP/1.0\r\n\r\n", asked("demo", None)),
            (
                "CONNECT demo:22 HTTP/1.1\r\nHost: demo:22\r\n\r\n",
                asked("demo", None),
            ),
            (
                "CONNECT a.b-c:1 HTTP/1.1\r\nX-ARP-Key: k\r\n\r\n",
                asked("a.b-c", Some("k")),
            ),
            (
                "CONNECT d:1 HTTP/1.1\r\nProxy-Authorization: Basic dTpw\r\n\r\n",
                asked("d", Some("u:p")),
            ),
            (
                "CONNECT d:1 HTTP/1.1\r\nproxy-authorization: bearer k\r\n\r\n",
                asked("d", Some("k")),
            ),
            ("CONNECT demo HTTP/1.1\r\n\r\n", Err(405)),
            ("CONNECT :22 HTTP/1.1\r\n\r\n", Err(405)),
            ("CONNECT demo:99999 HTTP/1.1\r\n\r\n", Err(405)),
            ("CONNECT /?token=demo HTTP/1.1\r\n\r\n", Err(405)),
            ("CONNECT [::1]:22 HTTP/1.1\r\n\r\n", Err(405)),
            ("CONNECT http://r/:1 HTTP/1.1\r\n\r\n", Err(405)),
            ("CONNECT demo:22 HTTP/1.1\r\nContent-Length: 0\r\n\r\n", Err(400)),
            (
                "CONNECT demo:22 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err(400),
            ),
            ("CONNECT demo:22 HTTP/2.0\r\n\r\n", Err(505)),
            ("CONNECT demo:22 HTTP/1.1\r\n", Err(400)),
        ] {
            assert_eq!(parse(head.as_bytes()).map_err(|e| e.status), want, "{head:?}");
        }
    }
}
