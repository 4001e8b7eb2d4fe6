//! Who may use a port: programs of this machine, and whoever has the gateway's key. Never a web page: a browser on
//! this machine reaches the ports as well as an agent does.

use crate::secret::Secret;
use http::header::{AUTHORIZATION, FORWARDED, HOST, HeaderMap, HeaderName, ORIGIN};
use std::net::IpAddr;

/// What is asked of those who come.
#[derive(Debug, Clone, Default)]
pub struct Doors {
    /// What everybody must show who is not on this machine; nobody else may come when there is none.
    pub key: Option<Secret>,
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: &'static str,
}

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// May this request come in?
///
/// # Errors
/// Why not.
pub fn check(doors: &Doors, peer: IpAddr, headers: &HeaderMap) -> Result<(), Refused> {
    let text = |name: &http::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    if let Some(origin) = text(&ORIGIN)
        && !is_local_origin(origin)
    {
        return Err(Refused {
            code: "origin_not_allowed",
            message: "web pages may not use the gateway",
        });
    }
    if headers
        .get(FETCH_SITE)
        .is_some_and(|v| v == "cross-site" || v == "same-site")
    {
        return Err(Refused {
            code: "origin_not_allowed",
            message: "web pages may not use the gateway",
        });
    }
    // Behind a proxy of this machine everybody seems to be on it.
    let forwarded = headers.contains_key(FORWARDED_FOR) || headers.contains_key(FORWARDED);
    if peer.to_canonical().is_loopback() && !forwarded {
        // A page whose name was made to point here still says that name.
        let host = text(&HOST).unwrap_or_default();
        if !is_local_host(host) {
            return Err(Refused {
                code: "host_not_allowed",
                message: "on this machine the gateway is called 127.0.0.1 or localhost",
            });
        }
        return Ok(());
    }
    let Some(key) = &doors.key else {
        return Err(Refused {
            code: "key_required",
            message: "the gateway serves this machine only; to serve others it needs a key (CLP_PROXY_KEY)",
        });
    };
    let shown = [
        text(&AUTHORIZATION).and_then(|v| v.strip_prefix("Bearer ")),
        headers.get("x-api-key").and_then(|v| v.to_str().ok()),
        headers.get("x-goog-api-key").and_then(|v| v.to_str().ok()),
    ];
    if shown.into_iter().flatten().any(|shown| is_key(key, shown)) {
        return Ok(());
    }
    Err(Refused {
        code: "key_required",
        message: "give the gateway's key as ANTHROPIC_AUTH_TOKEN, as the provider's key, or as GEMINI_API_KEY",
    })
}

/// A page may only use the API that it was loaded from: the origin is the host that the request is for.
///
/// # Errors
/// When it is another one.
pub fn own_origin(headers: &HeaderMap) -> Result<(), Refused> {
    let text = |name: &http::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    let Some(origin) = text(&ORIGIN) else {
        return Ok(());
    };
    let host = text(&HOST).unwrap_or_default();
    let authority = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    if authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    Err(Refused {
        code: "origin_not_allowed",
        message: "pages of other sites may not use the gateway",
    })
}

const COOKIE_NAME: &str = "arp_gateway";

/// Is this the key?
#[must_use]
pub fn is_key(key: &Secret, shown: &str) -> bool {
    use subtle::ConstantTimeEq;
    bool::from(shown.as_bytes().ct_eq(key.expose().as_bytes()))
}

/// What a browser shows that has shown the key before: never the key itself.
fn pass(key: &Secret) -> String {
    use sha2::{Digest, Sha256};
    use std::fmt::Write as _;
    let hash = Sha256::digest(format!("arp gateway page\n{}", key.expose()));
    hash.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The cookie for a browser that has shown the key.
#[must_use]
pub fn cookie(key: &Secret) -> String {
    format!(
        "{COOKIE_NAME}={}; HttpOnly; SameSite=Strict; Path=/; Max-Age=2592000",
        pass(key)
    )
}

/// Does the browser show that cookie?
#[must_use]
pub fn has_cookie(key: &Secret, headers: &HeaderMap) -> bool {
    let pass = Secret::new(pass(key));
    headers
        .get_all(http::header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .any(|(name, value)| name == COOKIE_NAME && is_key(&pass, value))
}

/// `host` or `host:port`, of this machine.
fn is_local_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port))
            if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') =>
        {
            name
        }
        _ => host,
    };
    let name = name
        .strip_prefix('[')
        .and_then(|n| n.strip_suffix(']'))
        .unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn is_local_origin(origin: &str) -> bool {
    origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
        .is_some_and(is_local_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(
        peer: &str,
        fields: &[(&'static str, &'static str)],
        key: Option<&str>,
    ) -> Result<(), &'static str> {
        let headers: HeaderMap = fields
            .iter()
            .map(|(n, v)| {
                (
                    http::HeaderName::from_static(n),
                    http::HeaderValue::from_static(v),
                )
            })
            .collect();
        let doors = Doors {
            key: key.map(Secret::new),
        };
        check(&doors, peer.parse().unwrap(), &headers).map_err(|r| r.code)
    }

    #[test]
    fn this_machine_needs_no_key_and_a_page_gets_nothing() {
        assert_eq!(asked("127.0.0.1", &[("host", "127.0.0.1:3210")], None), Ok(()));
        assert_eq!(asked("::1", &[("host", "[::1]:3210")], None), Ok(()));
        assert_eq!(asked("::ffff:127.0.0.1", &[("host", "LOCALHOST")], None), Ok(()));
        for origin in [
            "https://evil.example",
            "null",
            "http://127.0.0.1.evil.example",
            "http://localhost@evil",
        ] {
            assert_eq!(
                asked("127.0.0.1", &[("host", "localhost"), ("origin", origin)], None),
                Err("origin_not_allowed")
            );
        }
        assert_eq!(
            asked(
                "127.0.0.1",
                &[("host", "localhost"), ("sec-fetch-site", "cross-site")],
                None
            ),
            Err("origin_not_allowed")
        );
        for host in [
            "evil.example:3210",
            "",
            "127.evil.com",
            "127.0.0.1.evil.com",
            "localhost:evil",
        ] {
            let host: &'static str = host;
            assert_eq!(
                asked("127.0.0.1", &[("host", host)], None),
                Err("host_not_allowed"),
                "{host}"
            );
        }
    }

    #[test]
    fn a_page_uses_its_own_origin_only_and_a_cookie_stands_for_the_key() {
        let headers = |fields: &[(&'static str, &str)]| -> HeaderMap {
            fields
                .iter()
                .map(|(n, v)| {
                    (
                        http::HeaderName::from_static(n),
                        http::HeaderValue::from_str(v).unwrap(),
                    )
                })
                .collect()
        };
        assert!(
            own_origin(&headers(&[
                ("host", "localhost:3300"),
                ("origin", "http://localhost:3300")
            ]))
            .is_ok()
        );
        assert!(own_origin(&headers(&[("host", "localhost:3300")])).is_ok());
        for origin in ["http://localhost:5173", "null", "http://evil.example"] {
            assert!(
                own_origin(&headers(&[("host", "localhost:3300"), ("origin", origin)])).is_err(),
                "{origin}"
            );
        }
        let key = Secret::new("k");
        let cookie = cookie(&key);
        let pair = cookie.split(';').next().unwrap();
        assert!(has_cookie(&key, &headers(&[("cookie", &format!("a=b; {pair}"))])));
        assert!(!has_cookie(&Secret::new("l"), &headers(&[("cookie", pair)])));
        assert!(!cookie.contains("=k;"));
    }

    #[test]
    fn others_need_the_key() {
        assert_eq!(asked("192.0.2.1", &[("host", "gw")], None), Err("key_required"));
        assert_eq!(
            asked("192.0.2.1", &[("host", "gw")], Some("k")),
            Err("key_required")
        );
        assert_eq!(
            asked("192.0.2.1", &[("authorization", "Bearer k")], Some("k")),
            Ok(())
        );
        assert_eq!(
            asked(
                "192.0.2.1",
                &[("x-api-key", "x"), ("x-goog-api-key", "k")],
                Some("k")
            ),
            Ok(())
        );
        assert_eq!(
            asked(
                "127.0.0.1",
                &[("host", "localhost"), ("x-forwarded-for", "192.0.2.1")],
                Some("k")
            ),
            Err("key_required"),
            "a proxy of this machine stands for others"
        );
    }
}
