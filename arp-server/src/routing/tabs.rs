//! Several clients in one browser, on one origin.
//!
//! A page names its client in its URL, and what it loads names the page as its Referer. What *that* loads in
//! turn names only the script or style sheet that asked, and a WebSocket names nobody. So the cookie, beside
//! the client that was opened last, keeps the others this browser has opened:
//!
//! `arp_token=<token>[:<mark of the owner>[:<mark>…]]`
//!
//! The *owner* was opened first, when nothing had to be told apart: its scripts were loaded from URLs without
//! a token. Those of all later clients are redirected to URLs with one (`redirect.rs`), so a script without is
//! the owner's. A mark is the keyed hash of a token that exists: nobody can guess tokens by making up marks.

use arp_common::ids::Token;

/// Clients beside the current one that a cookie holds.
const MAX_OTHERS: usize = 4;

/// What our cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tabs<'a> {
    /// The token that was opened last.
    pub(crate) current: &'a str,
    others: Option<&'a str>,
}

impl<'a> Tabs<'a> {
    /// Reads the value of a cookie.
    pub(crate) fn parse(value: &'a str) -> Self {
        match value.split_once(':') {
            Some((current, others)) => Self {
                current,
                others: Some(others),
            },
            None => Self {
                current: value,
                others: None,
            },
        }
    }

    /// The marks of the other clients, the owner's first.
    pub(crate) fn others(&self) -> impl Iterator<Item = u128> + 'a {
        let marks = self.others.into_iter().flat_map(|o| o.split(':'));
        marks
            .take(MAX_OTHERS)
            .filter_map(|m| u128::from_str_radix(m, 16).ok())
    }

    /// Whose the scripts without a token in their URL are, where more than one client was opened.
    pub(crate) fn owner(&self) -> Option<u128> {
        self.others().next()
    }
}

/// The cookie of a browser that opens `token`, given what it had and the mark of the token in that, if it is
/// still somebody's.
pub(crate) fn remembered(had: Option<Tabs<'_>>, last: Option<u128>, token: &Token, opened: u128) -> String {
    let mut value = token.as_str().to_owned();
    let Some(had) = had.filter(|had| had.others.is_some() || had.current != token.as_str()) else {
        return value;
    };
    let Some(owner) = had.owner().or(last) else {
        return value;
    };
    let rest = last.into_iter().chain(had.others().skip(1));
    let mut marks = vec![owner];
    for mark in rest {
        if marks.len() < MAX_OTHERS && mark != opened && !marks.contains(&mark) {
            marks.push(mark);
        }
    }
    for mark in marks {
        value.push_str(&format!(":{mark:032x}"));
    }
    value
}

/// Is this path (as a Referer has it) a script or a style sheet rather than a page?
pub(crate) fn is_part(target: &str) -> bool {
    const KINDS: [&str; 13] = [
        "js", "mjs", "cjs", "jsx", "ts", "mts", "tsx", "css", "scss", "sass", "less", "vue", "svelte",
    ];
    let path = target.split(['?', '#']).next().unwrap_or_default();
    // Vite's own modules, as "/@vite/client", have no ending.
    if path.starts_with("/@") {
        return true;
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.')
        .is_some_and(|(_, kind)| KINDS.iter().any(|k| kind.eq_ignore_ascii_case(k)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name's mark is its length.
    fn open(had: &str, token: &str) -> (String, Vec<u128>) {
        let had = (!had.is_empty()).then(|| Tabs::parse(had));
        let last = had.map(|had| had.current.len() as u128);
        let value = remembered(had, last, &token.parse().unwrap(), token.len() as u128);
        let tabs = Tabs::parse(&value);
        assert_eq!(tabs.current, token);
        let others = tabs.others().collect();
        (value, others)
    }

    #[test]
    fn a_cookie_of_nobody_leaves_no_mark() {
        let token = "a".parse().unwrap();
        assert_eq!(remembered(Some(Tabs::parse("guess")), None, &token, 1), "a");
        let had = Some(Tabs::parse("guess:7:8"));
        assert_eq!(
            remembered(had, None, &token, 1),
            format!("a:{:032x}:{:032x}", 7, 8)
        );
    }

    #[test]
    fn the_first_client_owns_what_has_no_token_whoever_is_opened_later() {
        let (value, others) = open("", "a");
        assert_eq!((value.as_str(), others), ("a", vec![]));
        assert_eq!(open("a", "a").0, "a");
        let (value, others) = open("a", "bb");
        assert_eq!(others, [1]);
        let (value, others) = open(&value, "ccc");
        assert_eq!(others, [1, 2]);
        let (value, others) = open(&value, "bb");
        assert_eq!(others, [1, 3]);
        // The owner stays the owner when it is the current one again.
        let (value, others) = open(&value, "a");
        assert_eq!(others, [1, 2, 3]);
        let (value, others) = open(&value, "a");
        assert_eq!(others, [1, 2, 3]);
        let (value, others) = open(&value, "dddd");
        assert_eq!(others, [1, 2, 3]);
        assert_eq!(open(&value, "eeeee").1, [1, 4, 2, 3]);
        let (value, _) = open(&value, "eeeee");
        assert_eq!(open(&value, "ffffff").1, [1, 5, 4, 2], "no longer than that");
    }

    #[test]
    fn a_made_up_cookie_does_no_harm() {
        assert_eq!(Tabs::parse("").current, "");
        assert_eq!(Tabs::parse("a:x:-1::zz").owner(), None);
        assert_eq!(
            Tabs::parse(&format!("a:{}", "f:".repeat(9_999))).others().count(),
            MAX_OTHERS
        );
    }

    #[test]
    fn scripts_and_style_sheets_are_told_from_pages() {
        for part in [
            "/src/main.tsx?t=1",
            "/assets/index-1a2b.JS",
            "/a.css",
            "/@vite/client",
            "/@react-refresh",
        ] {
            assert!(is_part(part), "{part}");
        }
        for page in [
            "/",
            "/settings",
            "/a.js/edit",
            "/index.html",
            "/report.pdf?x=.js",
            "",
        ] {
            assert!(!is_part(page), "{page}");
        }
    }
}
