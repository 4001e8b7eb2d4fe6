//! Every source of a token, what is taken out of a request, and where browsers are sent.

use super::*;
use bytes::Bytes;
use proptest::prelude::*;

/// A relay with these clients, and what it was asked in vain.
struct Table {
    names: &'static [&'static str],
    missed: Vec<String>,
}
impl Names for Table {
    type Client = &'static str;
    fn find(&mut self, name: &str, spelling: Spelling) -> Named<&'static str> {
        if name == "gone" {
            return Named::GivenUp;
        }
        let is = |t: &&'static str| match spelling {
            Spelling::Exact => *t == name,
            Spelling::AnyCase => t.eq_ignore_ascii_case(name),
        };
        match self.names.iter().position(is) {
            Some(at) => Named::Client(self.at(at)),
            None => {
                self.missed.push(name.to_owned());
                Named::Nobody
            }
        }
    }
    fn find_marked(&mut self, mark: u128) -> Option<Found<&'static str>> {
        let at = mark.checked_sub(0xa0)? as usize;
        (at < self.names.len()).then(|| self.at(at))
    }
    fn is_mark_of(&self, mark: u128, name: &str) -> bool {
        mark == 0xb0 && name == "before"
    }
    fn same(a: &&'static str, b: &&'static str) -> bool {
        a == b
    }
}
impl Table {
    fn at(&self, at: usize) -> Found<&'static str> {
        Found {
            token: self.names[at].parse().unwrap(),
            client: self.names[at],
            mark: 0xa0 + at as u128,
        }
    }
}
fn names() -> Table {
    Table {
        names: &["demo", "ci-test", "Alice"],
        missed: Vec::new(),
    }
}

/// Which site a test's requests come to.
#[derive(Clone, Copy)]
enum At {
    Shared,
    Domain,
}
use At::{Domain as DOMAIN, Shared as SITE};

fn decide_at(head: &RequestHead, at: At, names: &mut Table) -> Decision<&'static str> {
    let site = Site {
        scheme: if matches!(at, SITE) { "http" } else { "https" },
        host: head.host(),
        domain: matches!(at, DOMAIN).then_some("arp.example"),
        public: Some("relay.example"),
    };
    route(head, &site, names)
}

fn decided(head: &RequestHead, at: At) -> Decision<&'static str> {
    decide_at(head, at, &mut names())
}

fn asked(target: &str, fields: &str) -> Decision<&'static str> {
    decided(&head("GET", target, fields), SITE)
}

fn is_unknown(decision: &Decision<&'static str>) -> bool {
    matches!(decision, Decision::Unknown(_))
}

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
    match asked(target, fields) {
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
        go("/x?token=vite-own", foreign),
        ("Alice", Source::Cookie, "/x?token=vite-own".into())
    );
    assert!(matches!(
        asked("/?token=demo", "X-ARP-Token: Alice\r\n"),
        Decision::Conflict
    ));
    let site = |host: &str| decided(&head("GET", "/x", &format!("Host: {host}\r\n")), DOMAIN);
    assert!(matches!(site("alice.ARP.example:443"), Decision::Go(r) if r.client == "Alice"));
    assert!(matches!(site("arp.example"), Decision::NoToken));
    assert!(is_unknown(&site("nobody.arp.example")));
    assert!(matches!(site("evilarp.example"), Decision::NoToken));
}

#[test]
fn what_names_nobody_is_told_apart() {
    assert!(matches!(asked("/", ""), Decision::NoToken));
    assert!(matches!(asked("/?token=", ""), Decision::NoToken));
    for (target, fields) in [
        ("/?token=nobody", ""),
        ("/?token=alice", ""),
        ("/t/nobody/", ""),
        ("/", "X-ARP-Token: nobody\r\n"),
        ("/", "Cookie: arp_token=nobody\r\n"),
    ] {
        assert!(is_unknown(&asked(target, fields)), "{target} {fields}");
    }
}

#[test]
fn browsers_are_told_to_remember_and_where_to_go() {
    let html = "Accept: text/html,*/*;q=0.8\r\n";
    let set = |target: &str, fields: &str| match asked(target, fields) {
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
    // Its life begins anew with each page, and with nothing else.
    assert!(set("/", "Cookie: arp_token=demo\r\nAccept: text/html\r\n"));
    assert!(!set("/", "Cookie: arp_token=demo\r\nAccept: */*\r\n"));

    let page = head("GET", "/t/demo?x=1", html);
    assert!(matches!(decided(&page, SITE), Decision::Redirect(l) if l.as_str() == "/t/demo/?x=1"));

    let bare = head(
        "GET",
        "/x?token=demo&y=1",
        "Host: arp.example:8443\r\nAccept: text/html\r\n",
    );
    let there = "https://demo.arp.example:8443/x?y=1";
    assert!(matches!(decided(&bare, DOMAIN), Decision::Redirect(l) if l.as_str() == there));

    // Two tabs, two clients: a real browser's sub-requests are given the token of their own page.
    let tabs = "Referer: http://r:17003/?token=demo\r\nCookie: arp_token=Alice\r\nSec-Fetch-Mode: cors\r\n";
    let l = match asked("/m.js?v=1", tabs) {
        Decision::Redirect(l) => l,
        other => panic!("{other:?}"),
    };
    assert_eq!(l.as_str(), "/m.js?v=1&arp_token=demo");
    let plain = tabs.replace(
        "Sec-Fetch-Mode: cors",
        "User-Agent: Mozilla/5.0 (X11) Firefox/140.0",
    );
    assert!(matches!(asked("/m.js", &plain), Decision::Redirect(..)));
    let one = tabs.replace("Alice", "demo");
    assert!(matches!(asked("/m.js", &one), Decision::Go(_)));
}

/// A browser that opened Alice (mark a2), and then demo (mark a0).
#[test]
fn scripts_without_a_token_are_of_the_client_that_was_opened_first() {
    let asked = |target: &str, referer: &str, more: &str| {
        let fields = format!("Referer: http://r:17003{referer}\r\nSec-Fetch-Mode: cors\r\n{more}\r\n");
        decided(&head("GET", target, &fields), SITE)
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
    let opened = decided(&head("GET", "/?token=ci-test", &fields), SITE);
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
fn what_is_in_the_place_of_a_name_is_taken_out_of_the_referer_whoever_has_it() {
    let clean = |referer: &str| {
        let fields = format!("Referer: {referer}\r\nX-ARP-Token: demo\r\n");
        match asked("/", &fields) {
            Decision::Go(route) => route.referer,
            other => panic!("{other:?}"),
        }
    };
    for (given, seen) in [
        ("http://r:17003/p?token=demo&a=1", Some("http://r:17003/p?a=1")),
        (
            "http://r:17003/p?token=guess&a=1&token=Alice",
            Some("http://r:17003/p?a=1"),
        ),
        ("http://r:17003/p?arp_token=x", Some("http://r:17003/p")),
        ("http://r:17003/t/demo/p", Some("http://r:17003/p")),
        ("http://r:17003/t/guess", Some("http://r:17003/")),
        ("http://r:17003?token=demo/a?b", Some("http://r:17003/a?b")),
        ("https://relay.example/p?token=x", Some("https://relay.example/p")),
        ("http://r:17003/p?a=1", None),
        ("http://evil/p?token=demo", None),
        ("http://r:17003@evil/p?token=demo", None),
        ("http://r:17003.evil/p?token=demo", None),
    ] {
        assert_eq!(clean(given).as_deref(), seen, "{given}");
    }
}

/// A header, a path prefix, a host name and `arp_token=` are ours: what names nobody there is nobody's, whatever
/// the page or the cookie say.
#[test]
fn what_is_unmistakably_ours_is_strict() {
    let browser = "Referer: http://r:17003/?token=demo\r\nCookie: arp_token=Alice\r\n";
    for name in ["nobody", "gone", "DEMO", "", "demo%00", "demo,Alice", "*x"] {
        for (target, field) in [
            (format!("/x?arp_token={name}"), String::new()),
            (format!("/x?token=demo&arp_token={name}"), String::new()),
            (format!("/x?arp_token=demo&arp_token={name}"), String::new()),
            (format!("/t/{name}/x"), String::new()),
            ("/x?token=demo".into(), format!("X-ARP-Token: {name}\r\n")),
            (
                "/x".into(),
                format!("X-ARP-Token: demo\r\nX-ARP-Token: {name}\r\n"),
            ),
        ] {
            if name.is_empty() && target.starts_with("/t/") {
                continue;
            }
            let decision = asked(&target, &format!("{field}{browser}"));
            assert!(is_unknown(&decision), "{target} {field}: {decision:?}");
        }
    }
    let fields = "Host: nobody.arp.example\r\nCookie: arp_token=demo\r\nX-ARP-Token: demo\r\n";
    assert!(is_unknown(&decided(&head("GET", "/?token=demo", fields), DOMAIN)));
    // And what names somebody is taken out, wherever it stands.
    assert_eq!(
        go("/x?a&arp_token=demo&b", browser),
        ("demo", Source::Param, "/x?a&b".into())
    );
    assert_eq!(
        go("/x?arp_token=%64emo", ""),
        ("demo", Source::Param, "/x".into())
    );
    assert_eq!(go("http://r:17003?arp_token=demo&arp_token=demo", "").2, "/");
    let all = "X-ARP-Token: demo\r\nX-ARP-Token: demo\r\nCookie: arp_token=Alice\r\n";
    assert_eq!(
        go("/t/demo/x?arp_token=demo&token=demo&token=own", all).2,
        "/x?token=own"
    );
    // An application's own parameter stays where something of ours says who is meant.
    assert_eq!(go("/t/demo/lab?token=secret", browser).2, "/lab?token=secret");
    assert_eq!(go("/t/demo/lab?token=gone", browser).2, "/lab?token=gone");
}

#[test]
fn two_names_for_two_clients_are_none() {
    for (target, field) in [
        ("/x?arp_token=demo&arp_token=Alice", ""),
        ("/x?arp_token=demo&token=Alice", ""),
        ("/t/demo/x?arp_token=Alice", ""),
        ("/t/demo/x?token=Alice", ""),
        ("/t/demo/x", "X-ARP-Token: Alice\r\n"),
        ("/x?arp_token=demo", "X-ARP-Token: Alice\r\n"),
        ("/x", "X-ARP-Token: demo\r\nX-ARP-Token: Alice\r\n"),
        ("/x?arp_token=demo&arp_token=*", ""),
    ] {
        let decision = asked(target, field);
        assert!(
            matches!(decision, Decision::Conflict),
            "{target} {field}: {decision:?}"
        );
    }
}

/// A machine that is gone does not become the one that was opened after it.
#[test]
fn what_was_given_up_is_not_taken_for_an_applications_own() {
    // b0 is the mark of "before", which the relay does not know any more.
    let cookie = "Cookie: arp_token=demo:b0\r\n";
    for (target, fields) in [
        ("/x?token=gone", cookie),
        ("/x?token=before", cookie),
        (
            "/x",
            "Referer: http://r:17003/?token=gone\r\nCookie: arp_token=demo\r\n",
        ),
        (
            "/x",
            "Referer: http://r:17003/?token=before\r\nCookie: arp_token=demo:b0\r\n",
        ),
        (
            "/x",
            "Referer: http://r:17003/t/nobody/\r\nCookie: arp_token=demo\r\n",
        ),
        (
            "/x",
            "Referer: http://r:17003/?arp_token=nobody\r\nCookie: arp_token=demo\r\n",
        ),
        ("/x", "Cookie: arp_token=gone; arp_token=demo\r\n"),
        ("/x", "Cookie: arp_token=nobody\r\nCookie: arp_token=demo\r\n"),
    ] {
        let decision = asked(target, fields);
        assert!(is_unknown(&decision), "{target} {fields}: {decision:?}");
    }
    // But a notebook's own token is.
    let own = "Referer: http://r:17003/lab?token=secret\r\nCookie: arp_token=demo:b0\r\n";
    assert_eq!(
        go("/x?token=secret", own),
        ("demo", Source::Cookie, "/x?token=secret".into())
    );
}

#[test]
fn an_address_that_names_nobody_is_not_answered_by_the_machine_of_the_cookie() {
    let html = "Accept: text/html\r\n";
    let with = format!("{html}Cookie: arp_token=demo\r\n");
    for target in [
        "/?token=nobody",
        "http://r:17003?token=nobody",
        "/?a=1&token=nobody/x",
    ] {
        let Decision::Unknown(unknown) = asked(target, &with) else {
            panic!("{target}")
        };
        let there = unknown.go_on.expect("a link");
        assert!(there.as_str().ends_with("&arp_token=*") && !there.as_str().contains("demo"));
        // Who follows the link is served, with what the application is to have.
        let (client, source, path) = go(there.as_str(), &with);
        assert_eq!((client, source), ("demo", Source::Cookie));
        assert_eq!(path, target.replace("http://r:17003", "/"));
    }
    let Decision::Unknown(alone) = asked("/?token=nobody", html) else {
        panic!()
    };
    assert_eq!(alone.go_on, None);
    assert_eq!(
        go("/?token=nobody", "Cookie: arp_token=demo\r\n").0,
        "demo",
        "a program is served"
    );
    assert_eq!(
        go("/lab?token=nobody", &with).0,
        "demo",
        "and who goes to a page of the application"
    );
    assert!(is_unknown(&asked("/?arp_token=*", "")));
    assert!(is_unknown(&asked(
        "/?arp_token=*",
        "Referer: http://r:17003/?token=demo\r\n"
    )));
}

#[test]
fn on_a_clients_own_host_name_only_that_client_answers() {
    let at = |host: &str, target: &str, fields: &str| {
        decided(&head("GET", target, &format!("Host: {host}\r\n{fields}")), DOMAIN)
    };
    let page = "Sec-Fetch-Mode: navigate\r\n";
    for (target, fields, there) in [
        ("/a?token=Alice&b=1", "", "/a?b=1"),
        ("/a?arp_token=Alice&b=1", "", "/a?b=1"),
        ("/t/Alice/a?b=1", "", "/a?b=1"),
        ("//evil.example/?token=Alice", "", "//evil.example/"),
        ("/a", "X-ARP-Token: Alice\r\n", "/a"),
    ] {
        let there = format!("https://Alice.arp.example:8443{there}");
        let host = "demo.arp.example:8443";
        match at(host, target, &format!("{page}{fields}")) {
            Decision::Redirect(location) => assert_eq!(location.as_str(), there),
            other => panic!("{target}: {other:?}"),
        }
        for mode in [
            "",
            "Sec-Fetch-Mode: no-cors\r\n",
            "Sec-Fetch-Mode: cors\r\nAccept: text/html\r\n",
        ] {
            for host in [
                host,
                "DEMO.arp.example",
                "demo.arp.example.",
                "demo.arp.example.:80",
            ] {
                let decision = at(host, target, &format!("{mode}{fields}"));
                assert!(
                    matches!(decision, Decision::OtherHost),
                    "{host} {target} {mode}: {decision:?}"
                );
            }
        }
    }
    let own = |target: &str, fields: &str| match at("demo.arp.example", target, fields) {
        Decision::Go(route) => (route.client, route.target, route.set_cookie, route.own_origin),
        other => panic!("{target}: {other:?}"),
    };
    // Page and cookie name nobody there.
    let browser = "Referer: https://demo.arp.example/?token=Alice\r\nCookie: arp_token=Alice:a1\r\n";
    assert_eq!(own("/a", browser), ("demo", "/a".into(), None, true));
    assert_eq!(own("/a?token=secret", browser).1, "/a?token=secret");
    assert_eq!(
        own("/?token=secret", &format!("{browser}{page}")).1,
        "/?token=secret"
    );
    assert_eq!(own("/a?token=demo", page), ("demo", "/a".into(), None, true));
    assert_eq!(own("/t/demo/a?arp_token=demo", "X-ARP-Token: demo\r\n").1, "/a");
    assert!(is_unknown(&at("demo.arp.example", "/t/nobody/", "")));
    assert!(is_unknown(&at("gone.arp.example", "/", "")));
    // A WebSocket is no page.
    let socket = "Connection: Upgrade\r\nUpgrade: websocket\r\nAccept: text/html\r\n";
    assert!(matches!(
        at("demo.arp.example", "/?token=Alice", socket),
        Decision::OtherHost
    ));
}

#[test]
fn the_bare_domain_shows_nobodys_pages() {
    let page = |method: &str, target: &str, fields: &str| {
        let fields = format!("Host: arp.example\r\nSec-Fetch-Mode: navigate\r\n{fields}");
        match decided(&head(method, target, &fields), DOMAIN) {
            Decision::Redirect(location) => location.as_str().to_owned(),
            other => panic!("{method} {target}: {other:?}"),
        }
    };
    for method in ["GET", "POST"] {
        for (target, fields) in [
            ("/a?token=demo", ""),
            ("/a?arp_token=demo", ""),
            ("/t/demo/a", ""),
            ("/a", "X-ARP-Token: demo\r\n"),
            ("/a", "Cookie: arp_token=demo\r\n"),
            ("/a", "Referer: https://arp.example/?token=demo\r\n"),
        ] {
            assert_eq!(page(method, target, fields), "https://demo.arp.example/a");
        }
    }
}

#[test]
fn no_redirect_leaves_this_host() {
    let tabs =
        "Referer: http://r:17003/?token=demo\r\nCookie: arp_token=Alice\r\nSec-Fetch-Mode: navigate\r\n";
    for (target, there) in [
        ("//evil.example/x", "/.//evil.example/x?arp_token=demo"),
        ("/\\evil.example/x", "/./\\evil.example/x?arp_token=demo"),
        ("///evil.example", "/.///evil.example?arp_token=demo"),
    ] {
        match asked(target, tabs) {
            Decision::Redirect(location) => assert_eq!(location.as_str(), there),
            other => panic!("{target}: {other:?}"),
        }
    }
}

/// A proxy that does not pass Host hides our own name, but a browser says what is of our origin.
#[test]
fn a_page_is_told_from_a_foreign_one_behind_a_proxy_that_hides_the_host() {
    let at = |more: &str| {
        let fields = format!(
            "Host: 127.0.0.1:17003\r\nReferer: https://other.example/?token=demo\r\nCookie: arp_token=Alice\r\n{more}"
        );
        match asked("/x", &fields) {
            Decision::Go(route) => (route.client, route.referer),
            other => panic!("{other:?}"),
        }
    };
    let ours = ("demo", Some("https://other.example/".to_owned()));
    assert_eq!(at("Sec-Fetch-Site: same-origin\r\n"), ours);
    for foreign in [
        "",
        "Sec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
    ] {
        assert_eq!(at(foreign), ("Alice", None), "{foreign}");
    }
}

#[test]
fn every_name_that_is_looked_up_is_counted() {
    let asked = |target: &str, fields: &str, at: At| {
        let mut names = names();
        let _ = decide_at(&head("GET", target, fields), at, &mut names);
        names.missed
    };
    assert_eq!(
        asked("/?token=a&token=b&token=demo&token=c", "", SITE),
        ["a", "b"]
    );
    assert_eq!(asked("/?arp_token=a", "Cookie: arp_token=demo\r\n", SITE), ["a"]);
    let host = "Host: guess.arp.example\r\nCookie: arp_token=demo\r\n";
    assert_eq!(asked("/", host, DOMAIN), ["guess"]);
    let referer = "Referer: http://r:17003/?token=a&token=b\r\nCookie: arp_token=c\r\n";
    assert_eq!(asked("/", referer, SITE), ["a", "b", "c"]);
    // Where it is not needed, nothing is looked up.
    assert!(asked("/?arp_token=demo", referer, SITE).is_empty());
    // A mark is made of what is there, and of nothing else.
    let open = "Accept: text/html\r\nCookie: arp_token=guess\r\n";
    assert_eq!(asked("/?token=demo", open, SITE), ["guess"]);
    let Decision::Go(route) = self::asked("/?token=demo", open) else {
        panic!()
    };
    assert_eq!(route.set_cookie.as_deref(), Some("demo"));
}

proptest! {
    /// Whatever else stands in the query comes out as it went in, in the same order.
    #[test]
    fn the_rest_of_the_query_is_untouched(
        path in "(/[a-z%0-9.]{0,6}){1,3}".prop_filter("in the place of a name", |path| !path.starts_with("/t/")),
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
                && let Decision::Go(r) = decided(&head, SITE) {
                prop_assert!(r.target.starts_with('/'), "{}", r.target);
                prop_assert!(r.target.bytes().all(|b| (0x21..0x7f).contains(&b)), "{}", r.target);
            }
        }
    }

    /// Whatever a head says of names, what follows is sound: a target that is one, a redirect that stays here or
    /// goes to a host that we wrote.
    #[test]
    fn any_names_anywhere_give_a_sound_decision(
        target in "(/|//|/t/|/t/demo|/t/gone/)?([a-z/.%]{0,6})([?](arp_token|token|a)=(demo|Alice|gone|[*]|[!-\"$-~]{0,9}))?(&(arp_token|token)=[!-\"$-~]{0,9})?",
        host in "(demo[.]|alice[.]|x[.])?arp[.]example[.]?(:80)?",
        fields in proptest::collection::vec(
            "(Referer: https?://(demo[.])?arp[.]example[ -~]{0,12}|Cookie: arp_token=(demo|gone|x)(:[0-9a-f]{1,3}){0,2}\
             |X-ARP-Token: (demo|Alice|x)|Accept: text/html|Sec-Fetch-Mode: (navigate|cors)|Upgrade: websocket\
             |Connection: upgrade|Sec-Fetch-Site: same-origin)", 0..5),
    ) {
        let mut text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n");
        for field in fields {
            text += &format!("{field}\r\n");
        }
        let Ok(head) = RequestHead::parse(Bytes::from(text + "\r\n")) else { return Ok(()) };
        let fine = |text: &str| !text.bytes().any(|b| b <= b' ' || b >= 0x7f);
        let own = source::label(head.host().unwrap(), "arp.example").map(str::to_ascii_lowercase);
        match decided(&head, DOMAIN) {
            Decision::Go(r) => {
                prop_assert!(r.target.starts_with('/') && fine(&r.target), "{}", r.target);
                prop_assert!(own.is_none_or(|own| own == r.client.to_ascii_lowercase()), "{}", r.client);
            }
            Decision::Redirect(to) => {
                let to = to.as_str();
                prop_assert!(fine(to), "{to:?}");
                let here = to.starts_with('/') && !to.starts_with("//") && !to.starts_with("/\\");
                let theirs = ["demo", "Alice", "ci-test"]
                    .iter()
                    .any(|t| to.starts_with(&format!("https://{t}.arp.example/"))
                        || to.starts_with(&format!("https://{t}.arp.example:80/")));
                prop_assert!(here || theirs, "{to:?}");
            }
            _ => {}
        }
    }
}
