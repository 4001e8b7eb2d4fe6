//! The web console: the bundle that is built into the binary, and how it is served.
//!
//! Pure: a path and request headers in, a response out. The bundle comes from `arp-client/console` (`npm run
//! build` there); its table `dist/assets.rs` and all files are committed, so that building needs no Node.
//!
//! The console uses relative URLs only, so it works under any prefix as long as the document's path ends with
//! a slash. A navigation to an unknown path is therefore sent to the root by a relative `Location`.

use crate::encoding::accepts;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    LOCATION, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

/// One file of the bundle.
struct Asset {
    /// Relative to the root, without a leading slash.
    path: &'static str,
    content_type: &'static str,
    /// Beginning of the SHA-256 of the content, in hex.
    tag: &'static str,
    /// Does the name change with the content?
    immutable: bool,
    identity: &'static [u8],
    /// As gzip and as brotli, where that is smaller.
    compressed: Option<(&'static [u8], &'static [u8])>,
}

/// The bundle, in the order of paths.
static ASSETS: &[Asset] = include!("../console/dist/assets.rs");

/// No inline script or style, no frames, no plugins, nothing from elsewhere; requests go to this origin and, for
/// machines that are reached through other relays, to origins with TLS. HTML enters the page through DOMPurify only.
const POLICY: &str = include_str!("../console/csp.txt");

/// The document.
const INDEX: &str = "index.html";

/// Says to the service worker that an answer is the console and not another page of the same origin.
const MARK: HeaderName = HeaderName::from_static("x-arp-console");

/// The console's answer to a `GET` or `HEAD` of `path` (as the edge sees it, beginning with a slash), or `None`
/// if there is nothing of the console there. The body of a `HEAD` is to be dropped by the caller.
///
/// The answer is 200 with the best encoding the visitor takes, 304 if they have it already, or, for a browser's
/// navigation to an unknown path, 302 to the root.
#[must_use]
pub fn respond(path: &str, headers: &HeaderMap) -> Option<Response<&'static [u8]>> {
    let name = match path.strip_prefix('/')? {
        "" => INDEX,
        name => name,
    };
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == name) else {
        return is_navigation(name, headers).then(|| to_root(path));
    };
    let (encoding, body) = encode(asset, headers);
    let tag = format!("\"{}-{}\"", asset.tag, encoding.unwrap_or("id"));
    let known = has_tag(headers, &tag);

    let mut response = Response::new(if known { &[][..] } else { body });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let out = response.headers_mut();
    if !known {
        out.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
        if let Some(encoding) = encoding {
            out.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
    }
    if let Ok(tag) = HeaderValue::try_from(tag) {
        out.insert(ETAG, tag);
    }
    out.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    let keep = if asset.immutable {
        "private, max-age=31536000, immutable"
    } else {
        "private, no-cache"
    };
    out.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    protect(out);
    Some(response)
}

/// Headers that every answer of the console carries.
fn protect(out: &mut HeaderMap) {
    out.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(POLICY.trim_ascii()),
    );
    // A token in the address never leaves this origin; within it the relay needs it to route by.
    out.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    out.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    out.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    out.insert(
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(self), microphone=(), geolocation=()"),
    );
    out.insert(MARK, HeaderValue::from_static("1"));
}

/// Does a browser want a page here? Then it asks for HTML, and the last part has no extension.
fn is_navigation(name: &str, headers: &HeaderMap) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    !last.contains('.')
        && headers
            .get_all(ACCEPT)
            .iter()
            .any(|value| contains_token(value, "text/html"))
}

/// Sends the visitor to the root by a relative way, so that a prefix that the relay took away stays in place.
fn to_root(path: &str) -> Response<&'static [u8]> {
    let depth = path
        .bytes()
        .filter(|byte| *byte == b'/')
        .count()
        .saturating_sub(1);
    let way = if depth == 0 {
        "./".to_owned()
    } else {
        "../".repeat(depth)
    };
    let mut response = Response::new(&[][..]);
    *response.status_mut() = StatusCode::FOUND;
    let out = response.headers_mut();
    if let Ok(way) = HeaderValue::try_from(way) {
        out.insert(LOCATION, way);
    }
    out.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    protect(out);
    response
}

/// The smallest form that the visitor takes.
fn encode(asset: &'static Asset, headers: &HeaderMap) -> (Option<&'static str>, &'static [u8]) {
    let Some((gzip, brotli)) = asset.compressed else {
        return (None, asset.identity);
    };
    if accepts(headers, "br") {
        (Some("br"), brotli)
    } else if accepts(headers, "gzip") {
        (Some("gzip"), gzip)
    } else {
        (None, asset.identity)
    }
}

/// Does a list header hold this item, parameters aside?
fn contains_token(value: &HeaderValue, token: &str) -> bool {
    value.to_str().unwrap_or_default().split(',').any(|part| {
        let name = part.split(';').next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case(token)
    })
}

/// Does the visitor have this version already?
fn has_tag(headers: &HeaderMap, tag: &str) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|value| {
        value
            .to_str()
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::ACCEPT_ENCODING;

    fn headers(list: &[(HeaderName, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    fn header(response: &Response<&[u8]>, name: HeaderName) -> String {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    }

    #[test]
    fn the_document_comes_with_a_strict_policy_and_is_asked_for_again() {
        let response = respond("/", &HeaderMap::new()).unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(header(&response, CONTENT_TYPE).starts_with("text/html"));
        assert_eq!(header(&response, CACHE_CONTROL), "private, no-cache");
        assert_eq!(header(&response, REFERRER_POLICY), "same-origin");
        let policy = header(&response, CONTENT_SECURITY_POLICY);
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert!(!policy.contains("unsafe") && !policy.contains('\n'));
        assert!(!std::str::from_utf8(response.body()).unwrap().contains("src=\"/"));
    }

    #[test]
    fn the_best_encoding_that_is_taken_is_sent() {
        let coded = |accept: &'static str| {
            let response = respond("/", &headers(&[(ACCEPT_ENCODING, accept)])).unwrap();
            header(&response, CONTENT_ENCODING)
        };
        assert_eq!(coded("gzip, deflate, br"), "br");
        assert_eq!(coded("gzip, deflate"), "gzip");
        assert_eq!(coded("br;q=0, gzip;q=0.5"), "gzip");
        assert_eq!(coded("*"), "br");
        assert_eq!(coded("identity"), "");
        assert_eq!(coded(""), "");
    }

    #[test]
    fn what_the_visitor_has_is_not_sent_again_and_each_encoding_has_its_own_tag() {
        let first = respond("/", &headers(&[(ACCEPT_ENCODING, "gzip")])).unwrap();
        let tag: &'static str = Box::leak(header(&first, ETAG).into_boxed_str());
        let again = respond("/", &headers(&[(ACCEPT_ENCODING, "gzip"), (IF_NONE_MATCH, tag)])).unwrap();
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(again.body().is_empty());
        let other = respond("/", &headers(&[(ACCEPT_ENCODING, "br"), (IF_NONE_MATCH, tag)])).unwrap();
        assert_eq!(other.status(), StatusCode::OK);
    }

    #[test]
    fn hashed_files_are_kept_for_ever_and_all_files_of_the_document_exist() {
        let page = respond("/", &HeaderMap::new()).unwrap();
        let html = std::str::from_utf8(page.body()).unwrap();
        let mut found = 0;
        for part in html.split("=\"./").skip(1) {
            let name = part.split('"').next().unwrap();
            let response = respond(&format!("/{name}"), &HeaderMap::new()).unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{name}");
            found += usize::from(header(&response, CACHE_CONTROL).contains("immutable"));
        }
        assert!(found >= 2, "script and style");
    }

    #[test]
    fn a_navigation_elsewhere_goes_to_the_root_by_a_relative_way_and_anything_else_is_not_ours() {
        let html = headers(&[(ACCEPT, "text/html,application/xhtml+xml;q=0.9")]);
        assert_eq!(header(&respond("/sessions-old", &html).unwrap(), LOCATION), "./");
        assert_eq!(header(&respond("/a/b/c", &html).unwrap(), LOCATION), "../../");
        assert_eq!(header(&respond("/a/b/", &html).unwrap(), LOCATION), "../../");
        assert!(respond("/a/b", &headers(&[(ACCEPT, "application/json")])).is_none());
        assert!(respond("/assets/missing.js", &html).is_none());
        assert!(respond("/../Cargo.toml", &html).is_none());
        assert!(respond("", &html).is_none());
    }
}
