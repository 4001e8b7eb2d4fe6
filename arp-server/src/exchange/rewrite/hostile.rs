//! What goes in comes out, minus what was ours: the head that the edge gets, for requests of all shapes. More
//! cases: `PROPTEST_CASES=1000000 cargo test --release hostile`.

use super::put_request;
use crate::exchange::origin::Origin;
use crate::http::{Name, RequestHead};
use crate::registry::{About, Entry, Registry};
use crate::routing::names::Inquiry;
use crate::routing::source::Source;
use crate::routing::{Decision, Site, route};
use crate::shared::Visitor;
use crate::tunnels::limits::PoolLimits;
use arp_common::ids::Token;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use std::sync::LazyLock;
use std::time::Duration;

/// Names that occur nowhere else, so that any trace of them can be found.
const NAMES: [&str; 3] = ["qqzzOne", "qqzzTwo", "qqzzThree"];

/// A relay's books with these clients.
static BOOKS: LazyLock<Registry> = LazyLock::new(|| {
    let limits = PoolLimits {
        target: 0,
        max_tunnels: 1,
        max_waiting: 1,
        wait: Duration::from_secs(1),
    };
    let books = Registry::new(limits, 10, (1, 2));
    // A pool looks after itself in a task.
    let runtime = Box::leak(Box::new(
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap(),
    ));
    let _in = runtime.enter();
    for name in NAMES {
        let (tx, _rx) = tokio::sync::mpsc::channel(8);
        let entry = Entry {
            id: name.parse().unwrap(),
            names: vec![name.parse::<Token>().unwrap()],
            key: None,
            services: Vec::new(),
            about: About {
                peer: "192.0.2.1:1".parse().unwrap(),
                agent: None,
                version: 2,
                mode: None,
            },
            tx,
        };
        books.register(entry).unwrap();
    }
    books
});

/// A field of the application's: it must come out as it went in.
fn field() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof![
        "X-[A-Za-z]{1,8}",
        Just("Accept".to_owned()),
        Just("Authorization".to_owned()),
        Just("Origin".to_owned()),
        Just("User-Agent".to_owned()),
        Just("Content-Type".to_owned()),
        Just("Range".to_owned()),
    ];
    let name = name.prop_filter("ours", |n| {
        Name::of(n.as_bytes()) != Name::XArpToken && !n.starts_with("X-F") && !n.eq_ignore_ascii_case("x-hop")
    });
    (name, "[!-~]([ -~]{0,20}[!-~])?")
}

/// Cookies of the application's: of any name but those that are kept for us.
fn cookie() -> impl Strategy<Value = String> {
    "[a-z_]{1,8}=[!#-+./0-9:<-Z^-~-]{0,10}".prop_filter("ours", |cookie| !cookie.starts_with("arp_"))
}

/// Our cookie, as a browser with several tabs has it: tokens, marks, and nonsense in place of marks.
fn our_cookie() -> impl Strategy<Value = String> {
    let mark = prop_oneof![
        (0usize..3).prop_map(|n| format!("{:032x}", BOOKS.hash(NAMES[n]))),
        "[0-9a-g]{0,33}",
    ];
    (0usize..3, proptest::collection::vec(mark, 0..6)).prop_map(|(n, marks)| {
        let mut value = format!("arp_token={}", NAMES[n]);
        for mark in marks {
            value = format!("{value}:{mark}");
        }
        value
    })
}

#[derive(Debug, Clone)]
struct Asked {
    /// Where the token is.
    by: Source,
    /// Which.
    token: usize,
    path: String,
    pairs: Vec<String>,
    at: usize,
    fields: Vec<(String, String)>,
    cookies: Vec<String>,
    ours: Option<String>,
    referer: Option<(String, usize)>,
    body: Option<u16>,
    trusted: bool,
}

fn asked() -> impl Strategy<Value = Asked> {
    let by = prop_oneof![
        Just(Source::Param),
        Just(Source::Query),
        Just(Source::Header),
        Just(Source::Prefix),
        Just(Source::Cookie),
        Just(Source::Referer),
    ];
    let pair = "[a-su-z][a-z]{0,3}(=[a-zA-Z0-9%/?:.]{0,6})?";
    let first = (
        by,
        0usize..3,
        "(/[a-z0-9.%_-]{0,6}){1,3}".prop_filter("in the place of a name", |path| !path.starts_with("/t/")),
        proptest::collection::vec(pair, 0..4),
        0usize..5,
    );
    let second = (
        proptest::collection::vec(field(), 0..5),
        proptest::collection::vec(cookie(), 0..3),
        proptest::option::of(our_cookie()),
        proptest::option::of(("(/[a-z]{0,4}){1,2}", 0usize..3)),
        proptest::option::of(any::<u16>()),
        any::<bool>(),
    );
    (first, second).prop_map(
        |((by, token, path, pairs, at), (fields, cookies, ours, referer, body, trusted))| Asked {
            by,
            token,
            path,
            pairs,
            at,
            fields,
            cookies,
            ours,
            referer,
            body,
            trusted,
        },
    )
}

impl Asked {
    /// The head as a visitor sends it.
    fn head(&self) -> String {
        let token = NAMES[self.token];
        let mut pairs = self.pairs.clone();
        if self.by == Source::Query {
            pairs.insert(self.at.min(pairs.len()), format!("token={token}"));
        }
        if self.by == Source::Param {
            pairs.insert(self.at.min(pairs.len()), format!("arp_token={token}"));
        }
        let prefix = if self.by == Source::Prefix {
            format!("/t/{token}")
        } else {
            String::new()
        };
        let query = if pairs.is_empty() {
            String::new()
        } else {
            format!("?{}", pairs.join("&"))
        };
        let mut text = format!("POST {prefix}{}{query} HTTP/1.1\r\nHost: r:17003\r\n", self.path);
        for (name, value) in &self.fields {
            text += &format!("{name}: {value}\r\n");
        }
        if self.by == Source::Header {
            text += &format!("x-arp-TOKEN: {token}\r\n");
        }
        let mut cookies = self.cookies.clone();
        match self.by {
            Source::Cookie => cookies.insert(self.at.min(cookies.len()), format!("arp_token={token}")),
            _ => cookies.extend(self.ours.clone()),
        }
        if !cookies.is_empty() {
            text += &format!("Cookie: {}\r\n", cookies.join("; "));
        }
        match (self.by, &self.referer) {
            (Source::Referer, _) => text += &format!("Referer: http://r:17003/p?a=1&token={token}\r\n"),
            (Source::Cookie, _) | (_, None) => {}
            (_, Some((path, n))) => {
                text += &format!("Referer: http://r:17003{path}?token={}&a=1\r\n", NAMES[*n])
            }
        }
        // What a visitor may not say of itself, and what ends here.
        text += "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: gopher\r\nX-Real-IP: 203.0.113.9\r\n";
        text += "X_Forwarded_For: 198.51.100.1\r\nx-forwarded_user: 198.51.100.1\r\nX_ARP-token: 198.51.100.1\r\n";
        text += "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\n";
        match self.body {
            Some(n) if n % 2 == 0 => text += &format!("Content-Length: {n}\r\n"),
            Some(_) => text += "Transfer-Encoding: chunked\r\n",
            None => {}
        }
        text + "\r\n"
    }
}

proptest! {
    #![proptest_config(match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(4096),
    })]

    #[test]
    fn what_goes_in_comes_out_minus_what_was_ours(asked in asked()) {
        let head = RequestHead::parse(Bytes::from(asked.head())).unwrap();
        let site = Site { scheme: "http", host: head.host(), domain: None, public: None };
        let decision = route(&head, &site, &mut Inquiry::new(&BOOKS));
        let Decision::Go(route) = decision else { panic!("{decision:?}") };
        prop_assert_eq!((route.token.as_str(), route.source), (NAMES[asked.token], asked.by));
        let visitor = Visitor { ip: "192.0.2.7".parse().unwrap(), trusted: asked.trusted, tls: false };
        let mut out = BytesMut::new();
        let origin = Origin { client: &route.client.id, own: false, host: None, domain: None };
        put_request(&mut out, &head, &route, &visitor, &origin);
        let text = String::from_utf8(out.to_vec()).unwrap();

        // Nothing of ours is left, but the prefix that the application needs for its links.
        let prefix = format!("X-Forwarded-Prefix: /t/{}\r\n", route.token.as_str());
        prop_assert_eq!(text.contains(&prefix), asked.by == Source::Prefix);
        let without = text.replace(&prefix, "");
        prop_assert!(!without.contains("198.51.100.1"), "{}", without);
        prop_assert!(!without.contains("qqzz") && !without.to_lowercase().contains("arp_token"), "{}", without);
        for name in NAMES {
            prop_assert!(!without.contains(&format!("{:032x}", BOOKS.hash(name))), "{}", without);
        }

        // Everything else is there, in its order; and only the edge's hop is added to it.
        let there = RequestHead::parse(out.freeze()).unwrap();
        let query = if asked.pairs.is_empty() { String::new() } else { format!("?{}", asked.pairs.join("&")) };
        prop_assert_eq!((there.method(), there.target().to_owned()), ("POST", format!("{}{query}", asked.path)));
        prop_assert_eq!((there.host(), there.framing), (Some("r:17003"), head.framing));
        let value = |v: &[u8]| String::from_utf8(v.to_vec()).unwrap();
        let own: Vec<_> = there.fields.iter()
            .filter(|f| matches!(f.known, Name::Other | Name::Accept | Name::Origin | Name::UserAgent))
            .map(|f| (value(f.name), value(f.value)))
            .collect();
        prop_assert_eq!(&own, &asked.fields);
        let cookies: Vec<_> = there.fields.all(Name::Cookie).map(value).collect();
        let kept = asked.cookies.join("; ");
        prop_assert_eq!(cookies, if kept.is_empty() { vec![] } else { vec![kept] });
        let told: Vec<_> = there.fields.all(Name::XForwardedFor).map(value).collect();
        let chain = if asked.trusted { "203.0.113.9, 192.0.2.7" } else { "192.0.2.7" };
        prop_assert_eq!(told, [chain]);
        let proto: Vec<_> = there.fields.all(Name::XForwardedProto).map(value).collect();
        prop_assert_eq!(proto, ["http"]);
        for ended in [Name::Connection, Name::KeepAlive, Name::ProxyAuthorization, Name::Te] {
            prop_assert!(there.fields.first(ended).is_none(), "{:?}", ended);
        }
        prop_assert_eq!(there.fields.first(Name::XRealIp).is_some(), asked.trusted);
    }
}
