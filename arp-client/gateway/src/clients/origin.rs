//! Where an upstream is: what of its URL every request needs, worked out once.

use http::HeaderValue;
use http::uri::{PathAndQuery, Uri};
use reqwest::Url;
use url::Position;

/// See the module.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Scheme, host and port.
    uri: Uri,
    /// As the `Host` field has it.
    host: HeaderValue,
    /// The base URL, whose path comes before each request's.
    base: Url,
    /// Does it lead to this machine, so that it may be the gateway itself?
    own: bool,
}

// All else is made of the base URL.
impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.base == other.base
    }
}

impl Eq for Origin {}

/// A base URL cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the base_url cannot be asked: {0}")]
pub struct OriginError(String);

impl Origin {
    /// Of this base URL.
    ///
    /// # Errors
    /// When no request could say where it goes.
    pub fn of(base: &Url) -> Result<Self, OriginError> {
        let wrong = |e: &dyn std::fmt::Display| OriginError(e.to_string());
        let authority = &base[Position::BeforeHost..Position::AfterPort];
        let uri = Uri::builder()
            .scheme(base.scheme())
            .authority(authority)
            .path_and_query("/")
            .build()
            .map_err(|e| wrong(&e))?;
        Ok(Self {
            uri,
            host: HeaderValue::from_str(authority).map_err(|e| wrong(&e))?,
            own: base.host_str().is_some_and(is_own),
            base: base.clone(),
        })
    }

    /// Scheme, host and port, with `/` as the path.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The `Host` field.
    #[must_use]
    pub const fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Does it lead to this machine?
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.own
    }

    /// Is it reached over TLS?
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.base.scheme() == "https"
    }

    /// The path and query there of a request for a path of ours. Where base and path both say `/v1`, it stands once.
    /// `None` for what no request can carry.
    #[must_use]
    pub fn at(&self, path: &str, query: Option<&str>) -> Option<PathAndQuery> {
        let own = self.base.path().trim_end_matches('/');
        let path = without_version(own, path);
        if !is_plain(path, query) {
            let url = self.url(path, query);
            return PathAndQuery::try_from(&url[Position::BeforePath..Position::AfterQuery]).ok();
        }
        let mut out = Vec::with_capacity(own.len() + path.len() + query.map_or(0, |q| q.len() + 1));
        out.extend_from_slice(own.as_bytes());
        out.extend_from_slice(path.as_bytes());
        if let Some(query) = query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
        PathAndQuery::from_maybe_shared(bytes::Bytes::from(out)).ok()
    }

    /// The same as a whole URL.
    #[must_use]
    pub fn url_at(&self, path: &str, query: Option<&str>) -> Url {
        let own = self.base.path().trim_end_matches('/');
        self.url(without_version(own, path), query)
    }

    /// The whole URL of a path and query there.
    #[must_use]
    pub(super) fn url_of(&self, there: &PathAndQuery) -> Url {
        let mut url = self.base.clone();
        url.set_path(there.path());
        url.set_query(there.query());
        url
    }

    fn url(&self, path: &str, query: Option<&str>) -> Url {
        // What is known of the base already (the host above all) is not parsed again at each request.
        let mut url = self.base.clone();
        let own = self.base.path().trim_end_matches('/');
        url.set_path(&[own, path].concat());
        url.set_query(query);
        url
    }
}

/// `path` without the version that the base's own path ends with already.
fn without_version<'p>(own: &str, path: &'p str) -> &'p str {
    let version = own
        .rsplit('/')
        .next()
        .filter(|last| matches!(*last, "v1" | "v1beta"));
    match version.and_then(|v| path.strip_prefix('/')?.strip_prefix(v)) {
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    }
}

/// Would a URL have them as they are? Nothing in them is encoded, and no part of the path leads upwards.
fn is_plain(path: &str, query: Option<&str>) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~:@!$&()*+,;=".contains(&byte);
    let mut before = 0;
    path.starts_with('/')
        && path.bytes().all(|byte| {
            // A part that begins with a dot may be one that leads to another folder.
            let good = plain(byte) || byte == b'/' || (byte == b'.' && before != b'/');
            before = byte;
            good
        })
        && query.is_none_or(|query| query.bytes().all(|byte| plain(byte) || b"/.%?".contains(&byte)))
}

/// Is it an address that leads to this machine?
fn is_own(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse()
            .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn origin(base: &str) -> Origin {
        Origin::of(&base.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_path_goes_behind_the_base_and_a_version_stands_once() {
        for (base, path, query, wanted) in [
            (
                "https://x/",
                "/v1/messages",
                Some("beta=true"),
                "https://x/v1/messages?beta=true",
            ),
            ("https://x/v1/", "/v1/responses", None, "https://x/v1/responses"),
            ("https://x/v1", "/responses", None, "https://x/v1/responses"),
            ("https://x/api/v1", "/v10/x", None, "https://x/api/v1/v10/x"),
            ("https://x/a", "/", None, "https://x/a/"),
            ("https://v1", "/v1/x", None, "https://v1/v1/x"),
            ("https://x", "/a/../b/./c", None, "https://x/b/c"),
            ("https://x", "/a.b/c..d", None, "https://x/a.b/c..d"),
            ("https://x", "/a/%2e%2E/b", None, "https://x/b"),
            ("https://x", "/a", Some(""), "https://x/a?"),
            (
                "https://x:8/a%20b/",
                "/c%2Fd/é?e",
                Some("f=g#h i"),
                "https://x:8/a%20b/c%2Fd/%C3%A9%3Fe?f=g%23h%20i",
            ),
        ] {
            let origin = origin(base);
            assert_eq!(origin.url_at(path, query).as_str(), wanted);
            let there = origin.at(path, query).unwrap();
            assert!(wanted.ends_with(there.as_str()), "{base} {path}: {there}");
        }
    }

    #[test]
    fn where_it_is_is_said_as_hosts_are() {
        for (base, host, uri, own) in [
            (
                "https://X.example:443/v1",
                "x.example",
                "https://x.example/",
                false,
            ),
            ("http://[::1]:8080", "[::1]:8080", "http://[::1]:8080/", true),
            ("http://127.0.0.9", "127.0.0.9", "http://127.0.0.9/", true),
            ("http://localhost:80/a", "localhost", "http://localhost/", true),
            ("http://0.0.0.0:1", "0.0.0.0:1", "http://0.0.0.0:1/", true),
            (
                "http://127.evil.com",
                "127.evil.com",
                "http://127.evil.com/",
                false,
            ),
        ] {
            let origin = origin(base);
            assert_eq!((origin.host().to_str().unwrap(), origin.is_own()), (host, own));
            assert_eq!(origin.uri().to_string(), uri);
        }
    }

    proptest! {
        #[test]
        fn the_short_way_leads_where_the_url_does(path in "/[a-zA-Z0-9._~:@!$&()*+,;='\"<>{}|%/?#\\\\^`-]{0,24}", query in proptest::option::of("[a-zA-Z0-9._~:@!$&()*+,;='\"<>{}|%/?#^`-]{0,16}")) {
            let origin = origin("https://x:8/base/v1");
            let url = origin.url_at(&path, query.as_deref());
            let there = origin.at(&path, query.as_deref());
            if let Some(there) = there {
                prop_assert_eq!(there.as_str(), &url[Position::BeforePath..Position::AfterQuery]);
                prop_assert_eq!(origin.url_of(&there), url);
            }
        }
    }
}
