//! A browser whose cookies fill its requests beyond what is taken: any client on a shared origin, or any sibling
//! under a domain, can do that to it. It gets a page that takes the cookies away, or it could never come back.

use super::{Refusal, Who};
use crate::defaults::MAX_HEAD;
use crate::routing::redirect::Location;
use crate::routing::source::host_name;
use std::collections::HashSet;
use std::fmt::Write as _;

/// Bytes of cookies from which on they are what fills a head.
const FLOOD: usize = MAX_HEAD / 4;
/// Bytes of `Set-Cookie` that take cookies away; browsers take answers of 256 KiB.
const MOST: usize = 128 * 1024;
/// Directories of the path that cookies may have been set for.
const DIRECTORIES: usize = 3;

/// The start of a head that is too long, as far as it matters here.
#[derive(Debug, Default)]
struct Start<'a> {
    target: &'a str,
    host: &'a str,
    page: bool,
    cookies: Vec<&'a str>,
}

impl<'a> Start<'a> {
    /// Reads as much as is there; the last line may be cut. Nothing but our own answer depends on it.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut lines = bytes.split(|b| *b == b'\n').map(<[u8]>::trim_ascii_end);
        let first = std::str::from_utf8(lines.next()?).ok()?;
        let mut start = Self {
            target: first.strip_prefix("GET ")?.split(' ').next()?,
            ..Self::default()
        };
        for line in lines {
            let Some((name, value)) = std::str::from_utf8(line)
                .ok()
                .and_then(|line| line.split_once(':'))
            else {
                continue;
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "host" => start.host = value,
                "accept" => start.page |= value.contains("text/html"),
                "cookie" => start.cookies.push(value),
                _ => {}
            }
        }
        Some(start)
    }
}

impl Refusal {
    /// The answer to a browser that opens a page, if cookies are what makes its head too long. `start` is the head as
    /// far as it was read; `domain` that of the clients.
    pub(crate) fn flood(start: &[u8], domain: Option<&str>) -> Option<Self> {
        let start = Start::read(start)?;
        let size: usize = start.cookies.iter().map(|c| c.len()).sum();
        if !start.page || size < FLOOD {
            return None;
        }
        let message = "this browser sends more cookies for this address than can be taken: some page has filled it up. \
                       Those that were sent have been taken away";
        let mut answer = Self::new(Who::Visitor, 431, "too_many_cookies", message);
        answer.go_on = Some((Location::here(start.target), "Try again"));
        answer.farewells = farewells(&start, domain);
        Some(answer)
    }
}

/// Takes each cookie away, wherever it may have been set: a cookie is only taken away by who knows its domain and path.
fn farewells(start: &Start<'_>, domain: Option<&str>) -> Vec<String> {
    let names: HashSet<&str> = start
        .cookies
        .iter()
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split('=').next())
        .filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()))
        .collect();
    let host = host_name(start.host);
    let host = Some(host).filter(|host| {
        host.bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
    });
    let wider = domain.filter(|domain| host.is_some_and(|host| host.to_ascii_lowercase().ends_with(domain)));
    let path = start.target.split('?').next().unwrap_or_default();
    let safe = path.bytes().all(|b| b.is_ascii_graphic() && b != b';');
    let ends = path.match_indices('/').skip(1).filter(|_| safe).take(DIRECTORIES);
    let paths: Vec<&str> = std::iter::once("/")
        .chain(ends.map(|(end, _)| &path[..end]))
        .collect();
    let mut all = Vec::new();
    let mut size = 0;
    // First what is likeliest: for the whole host.
    for path in paths {
        for domain in [None, wider, host] {
            for name in &names {
                let mut farewell = format!("{name}=; Path={path}; Max-Age=0");
                if let Some(domain) = domain {
                    // Writing to a String cannot fail.
                    let _ = write!(farewell, "; Domain={domain}");
                } else if name.starts_with("__") {
                    farewell.push_str("; Secure");
                }
                size += farewell.len();
                if size > MOST {
                    return all;
                }
                all.push(farewell);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(first: &str, accept: &str, cookie: &str) -> String {
        format!("{first} HTTP/1.1\r\nHost: good.arp.test:1\r\nAccept: {accept}\r\nCookie: {cookie}\r\nX: ")
    }

    #[test]
    fn a_browser_that_is_flooded_is_freed() {
        let flood: String = (0..20).map(|n| format!("c{n}={}; ", "x".repeat(4000))).collect();
        let text = head("GET /a/b/c?token=x", "text/html", &flood);
        let answer = Refusal::flood(text.as_bytes(), Some("arp.test")).unwrap();
        for want in [
            "c7=; Path=/; Max-Age=0",
            "c7=; Path=/; Max-Age=0; Domain=arp.test",
            "c7=; Path=/; Max-Age=0; Domain=good.arp.test",
            "c7=; Path=/a/b; Max-Age=0",
        ] {
            assert!(answer.farewells.iter().any(|f| f == want), "{want}");
        }
        let page = answer.render(true);
        assert!(String::from_utf8_lossy(&page.body).contains("href=\"/a/b/c?token=x\""));
        // Nobody else's cookies are touched: not by a head that is long by itself, nor where no person looks.
        let long = head(&format!("GET /{}", "x".repeat(70_000)), "text/html", "a=b");
        assert!(Refusal::flood(long.as_bytes(), None).is_none());
        assert!(Refusal::flood(head("GET /", "image/png", &flood).as_bytes(), None).is_none());
        assert!(Refusal::flood(head("POST /", "text/html", &flood).as_bytes(), None).is_none());
        assert!(Refusal::flood(b"", None).is_none());
    }

    #[test]
    fn taking_away_has_an_end_and_adds_no_fields() {
        let many: String = (0..20_000).map(|n| format!("c{n}=; ")).collect();
        let text = head("GET /a;b/\rc/", "text/html", &format!("{many}x\ry=1; \0=1"));
        let answer = Refusal::flood(text.as_bytes(), None).unwrap();
        let size: usize = answer.farewells.iter().map(String::len).sum();
        assert!(size <= MOST);
        assert!(answer.farewells.iter().all(|f| !f.bytes().any(|b| b < b' ')));
    }
}
