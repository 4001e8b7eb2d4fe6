//! What passes between a visitor and a local service, and what does not: our own secrets go no further, and a page of
//! the service gets no hold of the origin that it shares with the console.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CONNECTION,
    CONTENT_SECURITY_POLICY, COOKIE, HeaderMap, HeaderName, HeaderValue, REFERER, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

/// Headers that end at each hop (RFC 9110 §7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 4] = [CONNECTION, TE, TRAILER, TRANSFER_ENCODING];
/// The same, without names of constants.
const HOP_BY_HOP_TEXT: [&str; 3] = ["keep-alive", "proxy-connection", "proxy-authorization"];

/// A page of a service has an origin of its own that nobody shares: it reads neither the console's storage nor its
/// cookies, registers no service worker, and its requests carry no cookies of ours.
const SANDBOX: &str = "sandbox allow-scripts allow-forms allow-modals allow-popups \
                       allow-popups-to-escape-sandbox allow-downloads allow-pointer-lock \
                       allow-orientation-lock allow-presentation";

/// Headers that speak for the whole origin.
const OF_THE_ORIGIN: [&str; 7] = [
    "service-worker-allowed",
    "clear-site-data",
    "alt-svc",
    "nel",
    "report-to",
    "reporting-endpoints",
    "origin-agent-cluster",
];

/// Takes away what ends at this hop.
pub(super) fn clean(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in named {
        headers.remove(name.as_str());
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    for name in HOP_BY_HOP_TEXT {
        headers.remove(name);
    }
    headers.remove(UPGRADE);
}

/// Our own secrets are none of the service's business.
pub(super) fn drop_secrets(edge_key: Option<&str>, headers: &mut HeaderMap) {
    drop_ours(headers);
    let is_key = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(super::super::guard::bearer_of)
        .is_some_and(|given| edge_key.is_some_and(|key| super::super::same_secret(given, key)));
    if is_key {
        headers.remove(AUTHORIZATION);
    }
    let with_token = headers.get(REFERER).is_some_and(|referer| {
        let text = String::from_utf8_lossy(referer.as_bytes()).into_owned();
        text.contains("token=") || text.contains("/t/")
    });
    if with_token {
        headers.remove(REFERER);
    }
    let cookies: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for cookie in cookies {
        let Ok(text) = cookie.to_str() else { continue };
        let kept: Vec<&str> = text
            .split(';')
            .map(str::trim)
            .filter(|pair| !is_ours(pair))
            .collect();
        if let Ok(value) = HeaderValue::from_str(&kept.join("; "))
            && !kept.is_empty()
        {
            headers.append(COOKIE, value);
        }
    }
}

/// Puts an answer of the service into its sandbox. `opaque`: it was asked for by a page that is in one.
pub(super) fn confine(headers: &mut HeaderMap, opaque: bool) {
    drop_ours(headers);
    for name in OF_THE_ORIGIN {
        headers.remove(name);
    }
    headers.remove(STRICT_TRANSPORT_SECURITY);
    let cookies: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    for cookie in cookies {
        if let Some(cookie) = own_cookie(&cookie) {
            headers.append(SET_COOKIE, cookie);
        }
    }
    // Beside the service's own policy, if it has one: what either forbids is forbidden.
    headers.append(CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    if opaque {
        // To its own page every answer is one from elsewhere. Nobody's cookies are with such a request.
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
    }
}

/// A cookie of the service, for this host alone; none that looks like one of ours.
fn own_cookie(cookie: &HeaderValue) -> Option<HeaderValue> {
    let text = cookie.to_str().ok()?;
    if is_ours(text) {
        return None;
    }
    let has_name = |part: &&str| {
        let name = part.split('=').next().unwrap_or_default();
        !name.trim().eq_ignore_ascii_case("domain")
    };
    let (pair, attributes) = text.split_once(';').unwrap_or((text, ""));
    let attributes = attributes
        .split(';')
        .filter(|part| !part.trim().is_empty())
        .filter(has_name);
    let parts: Vec<&str> = std::iter::once(pair).chain(attributes).map(str::trim).collect();
    HeaderValue::from_str(&parts.join("; ")).ok()
}

/// Is this cookie (`name=value…`) one of ours by its name? Browsers take `=arp_x` for a cookie without a name, and
/// send it as `arp_x`.
fn is_ours(cookie: &str) -> bool {
    let name = cookie.trim_start_matches(['=', ' ', '\t']).to_ascii_lowercase();
    let name = ["__host-", "__secure-", "__http-", "__host-http-"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))
        .unwrap_or(&name);
    name.starts_with("arp_")
}

fn drop_ours(headers: &mut HeaderMap) {
    let ours: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-arp-"))
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_of_ours_are_neither_set_nor_shown_and_others_stay_on_this_host() {
        let set = |text: &'static str| {
            own_cookie(&HeaderValue::from_static(text)).map(|cookie| cookie.to_str().unwrap().to_owned())
        };
        for ours in [
            "arp_token=x",
            " ARP_edge=x; Path=/",
            "__Host-arp_edge=1; Secure",
            "=arp_token=x",
            "arp_new",
        ] {
            assert_eq!(set(ours), None, "{ours}");
        }
        assert_eq!(
            set("id=1; Path=/; domain=.relay.example; HttpOnly").as_deref(),
            Some("id=1; Path=/; HttpOnly")
        );
        let mut headers = HeaderMap::new();
        headers.insert(
            COOKIE,
            HeaderValue::from_static("a=1; arp_edge_2f=x; b=2; __Host-arp_token=y"),
        );
        headers.insert(REFERER, HeaderValue::from_static("http://relay/?token=x"));
        headers.insert("x-arp-token", HeaderValue::from_static("x"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer the-edge-key"));
        drop_secrets(Some("the-edge-key"), &mut headers);
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[COOKIE], "a=1; b=2");
    }

    #[test]
    fn the_sandbox_stands_beside_the_policy_of_the_service() {
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("sandbox allow-same-origin allow-scripts"),
        );
        headers.insert("service-worker-allowed", HeaderValue::from_static("/"));
        headers.insert("clear-site-data", HeaderValue::from_static("\"*\""));
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        confine(&mut headers, true);
        assert_eq!(headers.get_all(CONTENT_SECURITY_POLICY).iter().count(), 2);
        assert!(
            headers
                .get_all(CONTENT_SECURITY_POLICY)
                .iter()
                .any(|policy| policy == SANDBOX)
        );
        assert!(!SANDBOX.contains("allow-same-origin"));
        assert_eq!(headers.len(), 3, "{headers:?}");
    }
}
