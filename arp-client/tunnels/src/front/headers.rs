//! Which headers of a request can be believed, by the tunnel that carried it. What a visitor could have written
//! himself to pose as somebody is taken out.

use super::{Carrier, VisitorAddress};
use crate::Backend;
use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, VIA};
use std::net::{IpAddr, SocketAddr};

/// Headers by which proxies tell services who somebody is. None of ours says so, and no visitor may.
const IDENTITY: [&str; 24] = [
    "cf-access-authenticated-user-email",
    "cf-access-client-id",
    "cf-access-client-secret",
    "remote-user",
    "x-remote-user",
    "x-remote-groups",
    "x-remote-email",
    "x-remote-name",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-access-token",
    "x-forwarded-client-cert",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-request-groups",
    "x-auth-request-access-token",
    "x-authenticated-user",
    "x-authentik-username",
    "x-webauth-user",
    "x-goog-authenticated-user-email",
    "x-ms-client-principal",
    "ssl-client-cert",
];
/// Written by Tailscale itself for members of the tailnet.
const TAILNET: [&str; 5] = [
    "tailscale-user-login",
    "tailscale-user-name",
    "tailscale-user-profile-pic",
    "tailscale-headers-info",
    "tailscale-app-capabilities",
];
/// Addresses of visitors, in the spellings of many proxies; one of them is written afresh.
const ADDRESS: [&str; 9] = [
    "x-forwarded-for",
    "x-real-ip",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "x-original-forwarded-for",
    "fastly-client-ip",
];
/// What our own relay and agent tell each other.
const INTERNAL: [&str; 2] = ["x-arp-origin", "x-arp-probe"];

/// Takes out what cannot be believed, and tells the local service where the visitor comes from.
pub(super) fn cleanse(headers: &mut HeaderMap, carrier: Carrier) -> Option<VisitorAddress> {
    let visitor = visitor(headers, carrier.backend);
    for name in ADDRESS.iter().chain(&IDENTITY).chain(&INTERNAL) {
        headers.remove(*name);
    }
    if !carrier.tailnet {
        for name in TAILNET {
            headers.remove(name);
        }
    }
    headers.remove(FORWARDED);
    let set = |headers: &mut HeaderMap, name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    if let Some(VisitorAddress(ip)) = &visitor {
        set(headers, "x-forwarded-for", &ip.to_string());
    }
    set(
        headers,
        "x-forwarded-proto",
        if carrier.https { "https" } else { "http" },
    );
    headers.remove("x-forwarded-port");
    match headers.get(HOST).cloned() {
        Some(host) => {
            headers.insert("x-forwarded-host", host);
        }
        None => {
            headers.remove("x-forwarded-host");
        }
    }
    headers.append(VIA, HeaderValue::from_static("1.1 arpc-tunnel"));
    visitor
}

/// The visitor's address, where the tunnel's service tells it so that no visitor can change it.
fn visitor(headers: &HeaderMap, backend: Backend) -> Option<VisitorAddress> {
    let value = match backend {
        // Cloudflare writes this one itself, whatever came in.
        Backend::Cloudflare => headers.get("cf-connecting-ip")?.to_str().ok()?,
        // These add the address they see at the end of the list.
        Backend::Tailscale | Backend::Ngrok | Backend::Arp => headers
            .get_all("x-forwarded-for")
            .iter()
            .next_back()?
            .to_str()
            .ok()?
            .rsplit(',')
            .next()?,
        // Plain bytes: nobody on the way has written anything.
        Backend::Bore | Backend::Custom | Backend::Auto | Backend::None => return None,
    };
    address(value.trim()).map(VisitorAddress)
}

fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(backend: Backend, tailnet: bool, fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        let carrier = Carrier {
            backend,
            tailnet,
            https: true,
        };
        cleanse(&mut headers, carrier);
        headers
    }

    fn told(headers: &HeaderMap) -> Option<&str> {
        headers
            .get("x-forwarded-for")
            .map(|value| value.to_str().unwrap())
    }

    #[test]
    fn the_address_is_the_one_that_the_service_wrote() {
        let forged = ("x-forwarded-for", "10.0.0.1");
        let cloudflare = [
            forged,
            ("cf-connecting-ip", "203.0.113.9"),
            ("x-real-ip", "10.0.0.2"),
        ];
        let headers = through(Backend::Cloudflare, false, &cloudflare);
        assert_eq!(told(&headers), Some("203.0.113.9"));
        assert!(!headers.contains_key("x-real-ip") && !headers.contains_key("cf-connecting-ip"));
        for list in ["10.0.0.1, 203.0.113.9", "203.0.113.9", "x,[2001:db8::1]:443"] {
            let headers = through(Backend::Ngrok, false, &[("x-forwarded-for", list)]);
            assert!(
                matches!(told(&headers), Some("203.0.113.9" | "2001:db8::1")),
                "{list}"
            );
        }
        let two = [forged, ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(told(&through(Backend::Arp, false, &two)), Some("203.0.113.9"));
        // Through plain TCP everything is the visitor's own word.
        for backend in [Backend::Bore, Backend::Custom] {
            assert_eq!(
                told(&through(
                    backend,
                    false,
                    &[forged, ("cf-connecting-ip", "1.2.3.4")]
                )),
                None
            );
        }
    }

    #[test]
    fn nobody_can_pose_as_somebody() {
        let forged = [
            ("tailscale-user-login", "boss@example.com"),
            ("x-forwarded-user", "boss"),
            ("cf-access-authenticated-user-email", "boss@example.com"),
            ("x-auth-request-email", "boss@example.com"),
            ("x-arp-origin", "cli"),
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-proto", "gopher"),
            ("x-forwarded-host", "elsewhere"),
            ("host", "a.example"),
        ];
        for backend in Backend::ALL {
            let headers = through(backend, false, &forged);
            for (name, _) in &forged[..6] {
                assert!(!headers.contains_key(*name), "{name} through {backend}");
            }
            assert_eq!(headers["x-forwarded-proto"], "https");
            assert_eq!(headers["x-forwarded-host"], "a.example");
        }
        // Tailscale Serve writes it itself, in place of what came in.
        let headers = through(Backend::Tailscale, true, &forged);
        assert_eq!(headers["tailscale-user-login"], "boss@example.com");
    }
}
