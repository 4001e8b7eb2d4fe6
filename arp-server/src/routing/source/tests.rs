//! Every source of a token, what is taken out of a request, and where browsers are sent.

use super::*;
use bytes::Bytes;
use proptest::prelude::*;

struct Table(&'static [&'static str]);
impl Names for Table {
    type Client = &'static str;
    fn by_token(&self, token: &str) -> Option<&'static str> {
        self.0.iter().find(|t| **t == token).copied()
    }
    fn by_label(&self, label: &str) -> Option<(Token, &'static str)> {
        let t = self.0.iter().find(|t| t.eq_ignore_ascii_case(label))?;
        Some((t.parse().ok()?, t))
    }
    fn mark(&self, token: &str) -> u128 {
        0xa0 + self.0.iter().position(|t| *t == token).unwrap_or(99) as u128
    }
    fn by_mark(&self, mark: u128) -> Option<(Token, &'static str)> {
        let t = self.0.get(mark.checked_sub(0xa0)? as usize)?;
        Some((t.parse().ok()?, t))
    }
}
const NAMES: Table = Table(&["demo", "ci-test", "Alice"]);
const SITE: Site<'static> = Site {
    scheme: "http",
    domain: None,
};
const DOMAIN: Site<'static> = Site {
    scheme: "https",
    domain: Some("arp.example"),
};

fn head(method: &str, target: &str, fields: &str) -> RequestHead {
    let host = if fields.contains("Host:") {
        ""
    } else {
        "Host: r:17003\r\n"
    };
    RequestHead::parse(Bytes::from(format!(
        "{method} {target} HTTP/1.1\r\n{host}{fields}\r\n"
    )))
    .unwrap()
}

fn go(target: &str, fields: &str) -> (&'static str, Source, String) {
    match route(&head("GET", target, fields), SITE, &NAMES) {
        Decision::Go(r) => (r.client, r.source, r.target),
        other => panic!("{target} {fields}: {other:?}"),
    }
}

#[test]
fn the_query_forms_of_the_readme() {
    for (asked, given) in [
        ("/api/x?token=demo", "/api/x"),
        ("/?token=demo", "/"),
        ("http://r:17003?token=demo", "/"),
        ("/?token=demo/api/deploy", "/api/deploy"),
        ("/?token=demo%2Fapi%2fdeploy%20now", "/api/deploy%20now"),
        ("/base/?token=demo/api", "/base/api"),
        ("/?token=demo/api?x=1&y=2", "/api?x=1&y=2"),
        ("/?a=1&token=demo/api?x=1&y=2", "/api?a=1&x=1&y=2"),
        ("/?token=demo?x=1", "/?x=1"),
        ("/?token=demo/", "/"),
        ("/x?a=1&token=demo", "/x?a=1"),
        ("/x?a=1&token=demo&b=2", "/x?a=1&b=2"),
        ("/x?token=demo&b=2", "/x?b=2"),
        ("/x?token=other&token=demo", "/x?token=other"),
        ("/x?token=demo&token=Alice", "/x?token=Alice"),
        ("/x?%74oken=q&token=%64emo", "/x?%74oken=q"),
        ("/x?y=a%26b&token=demo&z=%2F", "/x?y=a%26b&z=%2F"),
    ] {
        assert_eq!(go(asked, ""), ("demo", Source::Query, given.into()), "{asked}");
    }
}

#[test]
fn the_other_sources_in_their_order() {
    assert_eq!(
        go("/a?b=c", "X-ARP-Token: demo\r\n"),
        ("demo", Source::Header, "/a?b=c".into())
    );
    assert_eq!(
        go("/t/demo/v1/models?x", ""),
        ("demo", Source::Prefix, "/v1/models?x".into())
    );
    assert_eq!(go("/t/demo", ""), ("demo", Source::Prefix, "/".into()));
    assert_eq!(go("/t/demo?x=1", ""), ("demo", Source::Prefix, "/?x=1".into()));
    let referer = "Referer: http://r:17003/p?token=demo\r\nCookie: arp_token=Alice\r\n";
    assert_eq!(go("/s.css", referer), ("demo", Source::Referer, "/s.css".into()));
    assert_eq!(
        go("/s.css", "Referer: http://r:17003/t/demo/p\r\n"),
        ("demo", Source::Referer, "/s.css".into())
    );
    let foreign = "Referer: http://evil/p?token=demo\r\nCookie: a=b; arp_token=Alice; c=d\r\n";
    assert_eq!(go("/s.css", foreign), ("Alice", Source::Cookie, "/s.css".into()));
    assert_eq!(
        go("/?token=vite-own", foreign),
        ("Alice", Source::Cookie, "/?token=vite-own".into())
    );
    assert_eq!(go("/?token=demo", "X-ARP-Token: Alice\r\n").0, "demo");
    let site = |host: &str| route(&head("GET", "/x", &format!("Host: {host}\r\n")), DOMAIN, &NAMES);
    assert!(matches!(site("alice.ARP.example:443"), Decision::Go(r) if r.client == "Alice"));
    assert!(matches!(site("arp.example"), Decision::NoToken));
    assert!(matches!(site("nobody.arp.example"), Decision::Unknown));
    assert!(matches!(site("evilarp.example"), Decision::NoToken));
}

#[test]
fn what_names_nobody_is_told_apart() {
    let decide = |target: &str, fields: &str| route(&head("GET", target, fields), SITE, &NAMES);
    assert!(matches!(decide("/", ""), Decision::NoToken));
    assert!(matches!(decide("/?token=", ""), Decision::NoToken));
    assert!(matches!(decide("/?token=nobody", ""), Decision::Unknown));
    assert!(matches!(decide("/?token=alice", ""), Decision::Unknown));
    assert!(matches!(decide("/t/nobody/", ""), Decision::Unknown));
    assert!(matches!(
        decide("/", "X-ARP-Token: nobody\r\n"),
        Decision::Unknown
    ));
    assert!(matches!(
        decide("/", "Cookie: arp_token=nobody\r\n"),
        Decision::Unknown
    ));
}

#[test]
fn browsers_are_told_to_remember_and_where_to_go() {
    let html = "Accept: text/html,*/*;q=0.8\r\n";
    let set = |target: &str, fields: &str| match route(&head("GET", target, fields), SITE, &NAMES) {
        Decision::Go(r) => r.set_cookie.is_some(),
        other => panic!("{other:?}"),
    };
    assert!(set("/?token=demo", html));
    assert!(set("/t/demo/", "Sec-Fetch-Mode: navigate\r\n"));
    assert!(!set("/?token=demo", "Accept: */*\r\n"));
    assert!(!set(
        "/?token=demo",
        "Sec-Fetch-Mode: cors\r\nAccept: text/html\r\n"
    ));
    assert!(!set("/", "Cookie: arp_token=demo\r\nAccept: text/html\r\n"));

    let page = head("GET", "/t/demo?x=1", html);
    assert!(matches!(route(&page, SITE, &NAMES), Decision::Redirect(l, _) if l == "/t/demo/?x=1"));

    let bare = head(
        "GET",
        "/x?token=demo&y=1",
        "Host: arp.example:8443\r\nAccept: text/html\r\n",
    );
    let there = "https://demo.arp.example:8443/x?y=1";
    assert!(matches!(route(&bare, DOMAIN, &NAMES), Decision::Redirect(l, _) if l == there));

    // Two tabs, two clients: a real browser's sub-requests are given the token of their own page.
    let tabs = "Referer: http://r:17003/?token=demo\r\nCookie: arp_token=Alice\r\nSec-Fetch-Mode: cors\r\n";
    let l = match route(&head("GET", "/m.js?v=1", tabs), SITE, &NAMES) {
        Decision::Redirect(l, _) => l,
        other => panic!("{other:?}"),
    };
    assert_eq!(l, "/m.js?v=1&token=demo");
    let plain = tabs.replace(
        "Sec-Fetch-Mode: cors",
        "User-Agent: Mozilla/5.0 (X11) Firefox/140.0",
    );
    assert!(matches!(
        route(&head("GET", "/m.js", &plain), SITE, &NAMES),
        Decision::Redirect(..)
    ));
    let one = tabs.replace("Alice", "demo");
    assert!(matches!(
        route(&head("GET", "/m.js", &one), SITE, &NAMES),
        Decision::Go(_)
    ));
}

/// A browser that opened Alice (mark a2), and then demo (mark a0).
#[test]
fn scripts_without_a_token_are_of_the_client_that_was_opened_first() {
    let asked = |target: &str, referer: &str, more: &str| {
        let fields = format!("Referer: http://r:17003{referer}\r\nSec-Fetch-Mode: cors\r\n{more}\r\n");
        route(&head("GET", target, &fields), SITE, &NAMES)
    };
    let both = "Cookie: arp_token=demo:a2";
    let late = |referer: &str| match asked("/late.js", referer, both) {
        Decision::Go(r) => (r.client, r.source),
        other => panic!("{other:?}"),
    };
    assert_eq!(late("/main.js"), ("Alice", Source::Cookie));
    assert_eq!(
        late("/settings"),
        ("demo", Source::Cookie),
        "a page that changed its address"
    );
    // So the scripts of the later one are given its token, though the cookie agrees.
    for (dest, goes) in [
        ("script", false),
        ("style", false),
        ("image", true),
        ("serviceworker", true),
    ] {
        let fields = format!("{both}\r\nSec-Fetch-Dest: {dest}");
        let decision = asked("/x", "/?token=demo", &fields);
        assert_eq!(matches!(decision, Decision::Go(_)), goes, "{dest}: {decision:?}");
    }
    let mut first = asked("/x", "/?token=Alice", "Cookie: arp_token=Alice:a2:a0");
    assert!(
        matches!(&first, Decision::Go(r) if r.client == "Alice"),
        "{first:?}"
    );
    first = asked("/x.js", "/main.js", "Cookie: arp_token=demo:ffff");
    assert!(
        matches!(&first, Decision::Go(r) if r.client == "demo"),
        "{first:?}"
    );

    // Opening another client keeps the first.
    let fields = format!("{both}\r\nAccept: text/html\r\n").replace("Sec-Fetch-Mode: cors\r\n", "");
    let opened = route(&head("GET", "/?token=ci-test", &fields), SITE, &NAMES);
    let Decision::Go(opened) = opened else { panic!() };
    let want = format!("ci-test:{:032x}:{:032x}", 0xa2, 0xa0);
    assert_eq!(opened.set_cookie, Some(want));

    // A WebSocket names nobody: all may be meant.
    let socket = "Connection: Upgrade\r\nUpgrade: websocket\r\nCookie: arp_token=demo:a2:a0:a1";
    let Decision::Go(socket) = asked("/ws", "", socket) else {
        panic!()
    };
    assert_eq!(socket.client, "demo");
    let others: Vec<_> = socket.others.iter().map(|(_, c)| *c).collect();
    assert_eq!(others, ["Alice", "ci-test"]);
}

#[test]
fn what_was_ours_is_taken_out_of_cookie_and_referer() {
    assert_eq!(
        cleaned_cookie(b"a=b; arp_token=x; c=d").as_deref(),
        Some(&b"a=b; c=d"[..])
    );
    assert_eq!(cleaned_cookie(b"arp_token=x"), None);
    let clean = |r: &str| cleaned_referer(&head("GET", "/", &format!("Referer: {r}\r\n")), &NAMES);
    assert_eq!(
        clean("http://r:17003/p?token=demo&a=1").as_deref(),
        Some("http://r:17003/p?a=1")
    );
    assert_eq!(
        clean("http://r:17003/t/demo/p").as_deref(),
        Some("http://r:17003/p")
    );
    assert_eq!(clean("http://r:17003/p?a=1"), None);
    assert_eq!(clean("http://evil/p?token=demo"), None);
}

proptest! {
    /// Whatever else stands in the query comes out as it went in, in the same order.
    #[test]
    fn the_rest_of_the_query_is_untouched(
        path in "(/[a-z%0-9.]{0,6}){1,3}",
        pairs in proptest::collection::vec("[a-su-z][a-z]{0,3}(=[a-zA-Z0-9%/?:.]{0,6})?", 0..5),
        at in 0usize..6,
    ) {
        let mut all: Vec<&str> = pairs.iter().map(String::as_str).collect();
        all.insert(at.min(all.len()), "token=demo");
        let asked = format!("{path}?{}", all.join("&"));
        let want = if pairs.is_empty() { path.clone() } else { format!("{path}?{}", pairs.join("&")) };
        prop_assert_eq!(go(&asked, ""), ("demo", Source::Query, want));
    }

    /// No target, however odd, makes routing panic or give a target that is not one.
    #[test]
    fn any_target_gives_a_sound_one(tail in "[!-\"$-~]{0,40}") {
        for target in [format!("/{tail}"), format!("/?token=demo{tail}"), format!("/t/demo{tail}")] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: r\r\n\r\n");
            if let Ok(head) = RequestHead::parse(Bytes::from(text))
                && let Decision::Go(r) = route(&head, SITE, &NAMES) {
                prop_assert!(r.target.starts_with('/'), "{}", r.target);
                prop_assert!(r.target.bytes().all(|b| (0x21..0x7f).contains(&b)), "{}", r.target);
            }
        }
    }
}
