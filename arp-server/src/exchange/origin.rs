//! What a client may say of the origin that its answers are shown on, and which of arp's cookies it sees. Several
//! clients may share an origin, and those of one domain are siblings: none of them speaks for another.

use crate::http::{Field, Name, ResponseHead};
use crate::routing::source;
use arp_common::cookies::{is_own, is_reserved};
use arp_common::ids::ClientId;
use std::borrow::Cow;

/// Where a client's answers are shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// Whose answers.
    pub(crate) client: &'a ClientId,
    /// Is the origin this client's alone?
    pub(crate) own: bool,
    /// Host and port, as the visitor sees them.
    pub(crate) host: Option<&'a str>,
    /// The domain under which each client has a host name.
    pub(crate) domain: Option<&'a str>,
}

impl Origin<'_> {
    /// Takes out of an answer's head what its client has no right to say. For every head of an answer, whatever
    /// the visitor speaks.
    pub(crate) fn confine(&self, head: &mut ResponseHead) {
        let mut clears = false;
        head.fields.retain(|field| match field.known {
            Name::SetCookie => self.may_set(field.value),
            Name::Other if !self.own => !is_for_whole_origin(field),
            Name::Other if field.name.eq_ignore_ascii_case(CLEAR_SITE_DATA) => {
                clears = true;
                !of_this_origin(field.value).is_empty()
            }
            _ => true,
        });
        if clears {
            head.fields.rewrite(|field| {
                let is_it = field.name.eq_ignore_ascii_case(CLEAR_SITE_DATA);
                is_it.then(|| of_this_origin(field.value))
            });
        }
    }

    /// May this client set this cookie?
    fn may_set(&self, cookie: &[u8]) -> bool {
        let mut parts = cookie.split(|b| *b == b';');
        let pair = parts.next().unwrap_or_default();
        // A cookie without a name comes back as its bare value, which may look like a name and a value.
        let blank = |b: &u8| b.is_ascii_whitespace() || *b == b'=';
        let start = pair.iter().position(|b| !blank(b)).unwrap_or(pair.len());
        let name = pair[start..].split(|b| *b == b'=').next().unwrap_or_default();
        let name = name.trim_ascii_end();
        if is_reserved(name) && !is_own(name, self.client) && !is_farewell(cookie) {
            return false;
        }
        parts.all(|attribute| {
            let mut halves = attribute.splitn(2, |b| *b == b'=');
            let key = halves.next().unwrap_or_default().trim_ascii();
            let value = halves.next().unwrap_or_default().trim_ascii();
            !key.eq_ignore_ascii_case(b"domain") || self.is_here(value)
        })
    }

    /// Is this `Domain` of a cookie no wider than the client's own host?
    fn is_here(&self, domain: &[u8]) -> bool {
        let domain = domain.strip_prefix(b".").unwrap_or(domain);
        let Some(host) = self.host else { return false };
        // What is set for the domain itself is seen by every client under it.
        let bare = self.domain.is_some_and(|domain| source::is_domain(host, domain));
        domain.is_empty() || !bare && source::host_name(host).as_bytes().eq_ignore_ascii_case(domain)
    }

    /// The value of a Cookie field as this client may see it, or `None` if nothing is left.
    pub(crate) fn cookies<'c>(&self, value: &'c [u8]) -> Option<Cow<'c, [u8]>> {
        if memchr::memmem::find(value, b"arp_").is_none() {
            return Some(Cow::Borrowed(value));
        }
        let kept: Vec<&[u8]> = value
            .split(|b| *b == b';')
            .map(<[u8]>::trim_ascii)
            .filter(|pair| {
                let start = pair.iter().position(|b| *b != b'=').unwrap_or(pair.len());
                let name = pair[start..].split(|b| *b == b'=').next().unwrap_or_default();
                let name = name.trim_ascii();
                !is_reserved(name) || is_own(name, self.client)
            })
            .collect();
        (!kept.is_empty()).then(|| Cow::Owned(kept.join(&b"; "[..])))
    }
}

const CLEAR_SITE_DATA: &[u8] = b"clear-site-data";

/// What of a `Clear-Site-Data` concerns one origin alone. Cookies are cleared for the whole registered domain, so for
/// every client under it.
fn of_this_origin(value: &[u8]) -> Vec<u8> {
    const ALONE: [&[u8]; 6] = [
        b"\"cache\"",
        b"\"storage\"",
        b"\"executionContexts\"",
        b"\"clientHints\"",
        b"\"prefetchCache\"",
        b"\"prerenderCache\"",
    ];
    let told: Vec<&[u8]> = value.split(|b| *b == b',').map(<[u8]>::trim_ascii).collect();
    let all = told.contains(&&b"\"*\""[..]);
    let kept: Vec<&[u8]> = ALONE
        .into_iter()
        .filter(|kind| all || told.contains(kind))
        .collect();
    kept.join(&b", "[..])
}

/// Does this only take away the cookie that once held an edge key for everybody on the origin?
fn is_farewell(cookie: &[u8]) -> bool {
    cookie.trim_ascii_start().starts_with(b"arp_edge=;")
}

/// Does this speak for everybody on the origin?
fn is_for_whole_origin(field: &Field<'_>) -> bool {
    const NAMES: [&[u8]; 6] = [
        CLEAR_SITE_DATA,
        b"strict-transport-security",
        b"alt-svc",
        b"service-worker-allowed",
        // Where browsers report failed requests of the whole origin to: their URLs may hold tokens.
        b"nel",
        b"report-to",
    ];
    NAMES.iter().any(|name| field.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arp_common::cookies::{edge_login, edge_origin};
    use bytes::Bytes;

    fn origin<'a>(client: &'a ClientId, own: bool, host: &'a str) -> Origin<'a> {
        Origin {
            client,
            own,
            host: Some(host),
            domain: Some("arp.test"),
        }
    }

    #[test]
    fn cookies_of_ours_and_of_other_hosts_are_not_set() {
        let good: ClientId = "good".parse().unwrap();
        let here = origin(&good, true, "good.arp.test:17003");
        for fine in [
            "a=b",
            "a=b; Path=/; HttpOnly",
            "a=b; Domain=good.arp.test",
            "a=b; domain=.GOOD.arp.test; Secure",
            "a=b; Domain=",
            "a=arp_token=x",
            "arp_edge=; Path=/; Max-Age=0",
            &format!("{}=x; Path=/", edge_login(&good)),
            &format!("{}=x; Path=/; Secure", edge_origin(&good)),
            "",
        ] {
            assert!(here.may_set(fine.as_bytes()), "{fine}");
        }
        let evil: ClientId = "evil".parse().unwrap();
        for bad in [
            "a=b; Domain=arp.test",
            "a=b; Domain=.arp.test",
            "a=b;dOMAIN = arp.test",
            "a=b; Domain=test",
            "a=b; Domain=evil.arp.test",
            "a=b; Domain=good.arp.test; Domain=arp.test",
            "a=b; Domain=arp.test; Domain=good.arp.test",
            "a=b; Domain=\"arp.test\"",
            "a=b;\r\n Domain=arp.test",
            "arp_token=evil",
            " arp_token=evil",
            "=arp_token=evil",
            " = =arp_token=evil",
            "arp_token",
            "arp_token =evil",
            "arp_edge=key",
            "__Host-arp_origin_x=1",
            "__host-arp_token=1",
            &format!("{}=x", edge_login(&evil)),
        ] {
            assert!(!here.may_set(bad.as_bytes()), "{bad}");
        }
        let bare = origin(&good, false, "arp.test");
        assert!(
            !bare.may_set(b"a=b; Domain=arp.test"),
            "every client would see it"
        );
    }

    #[test]
    fn what_speaks_for_a_shared_origin_is_not_passed_on() {
        let good: ClientId = "good".parse().unwrap();
        let text = "HTTP/1.1 200 OK\r\nclear-site-data: \"*\"\r\nStrict-Transport-Security: max-age=9\r\n\
                    Alt-Svc: h3=\":1\"\r\nService-Worker-Allowed: /\r\nNEL: {}\r\nReport-To: {}\r\nX: y\r\n\r\n";
        for (own, left) in [(true, 7), (false, 1)] {
            let mut head = ResponseHead::parse(Bytes::from_static(text.as_bytes())).unwrap();
            origin(&good, own, "good.arp.test").confine(&mut head);
            assert_eq!(head.fields.iter().count(), left);
        }
    }

    #[test]
    fn on_its_own_host_a_client_clears_what_is_its_own() {
        let good: ClientId = "good".parse().unwrap();
        for (said, passed) in [
            ("\"cookies\"", None),
            ("", None),
            ("cookies, what", None),
            (
                "\"storage\" , \"cookies\",\"cache\"",
                Some("\"cache\", \"storage\""),
            ),
            ("\"cookies\", \"*\"", Some(ALL)),
        ] {
            let text = format!("HTTP/1.1 200 OK\r\nA: b\r\nCLEAR-Site-Data: {said}\r\nC: d\r\n\r\n");
            let mut head = ResponseHead::parse(Bytes::from(text)).unwrap();
            origin(&good, true, "good.arp.test").confine(&mut head);
            let told: Vec<_> = head
                .fields
                .iter()
                .map(|f| (String::from_utf8_lossy(f.name), String::from_utf8_lossy(f.value)))
                .collect();
            let mut want = vec![("A".into(), "b".into())];
            want.extend(passed.map(|value| ("CLEAR-Site-Data".into(), value.into())));
            want.push(("C".into(), "d".into()));
            assert_eq!(told, want, "{said}");
        }
        const ALL: &str = "\"cache\", \"storage\", \"executionContexts\", \"clientHints\", \"prefetchCache\", \
                           \"prerenderCache\"";
    }

    #[test]
    fn a_client_sees_no_cookies_of_ours_but_its_own() {
        let good: ClientId = "good".parse().unwrap();
        let here = origin(&good, false, "r");
        let seen = |value: &str| {
            here.cookies(value.as_bytes())
                .map(|v| String::from_utf8(v.into_owned()).unwrap())
        };
        assert_eq!(seen("a=b;c=d").as_deref(), Some("a=b;c=d"));
        assert_eq!(seen("a=b; arp_token=x; c=d").as_deref(), Some("a=b; c=d"));
        assert_eq!(seen("arp_token=x"), None);
        assert_eq!(
            seen("arp_edge=KEY; =arp_x=1; __Host-arp_y=1; arp_token = z"),
            None
        );
        let mine = format!("{}=1", edge_login(&good));
        let theirs = format!("{}=1", edge_login(&"evil".parse().unwrap()));
        assert_eq!(seen(&format!("{theirs}; {mine}")), Some(mine));
        assert_eq!(seen("x=arp_token").as_deref(), Some("x=arp_token"));
    }

    proptest::proptest! {
        /// Our cookie never goes on, whatever stands around it.
        #[test]
        fn our_cookie_never_goes_on(before in "[ -~]{0,20}", after in "[ -~]{0,20}") {
            let good: ClientId = "good".parse().unwrap();
            let cookie = format!("{before}; arp_token=demo; {after}");
            let left = origin(&good, false, "r").cookies(cookie.as_bytes()).unwrap_or_default().into_owned();
            let left = String::from_utf8(left).unwrap();
            proptest::prop_assert!(left.split(';').all(|p| !p.trim().starts_with("arp_token=")), "{left}");
        }
    }
}
