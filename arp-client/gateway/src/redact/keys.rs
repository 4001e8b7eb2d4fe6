//! Keys and tokens: long words of letters, digits, `_` and `-`, told apart by how they begin.
//!
//! Most of a text is made of short words. Those are skipped without looking at each of their letters.

use std::ops::Range;

/// A kind of key, which is a word of its own.
struct Key {
    start: &'static [u8],
    /// What may follow.
    body: fn(u8) -> bool,
    least: usize,
    /// Of what is longer, so much counts.
    most: usize,
}

impl Key {
    const fn new(start: &'static str, body: fn(u8) -> bool, least: usize) -> Self {
        Self::up_to(start, body, least, usize::MAX)
    }

    const fn exactly(start: &'static str, body: fn(u8) -> bool, len: usize) -> Self {
        Self::up_to(start, body, len, len)
    }

    const fn up_to(start: &'static str, body: fn(u8) -> bool, least: usize, most: usize) -> Self {
        Self {
            start: start.as_bytes(),
            body,
            least,
            most,
        }
    }

    /// How long it is, if `text` begins with one.
    fn len(&self, text: &[u8]) -> Option<usize> {
        let rest = text.strip_prefix(self.start)?;
        let len = rest
            .iter()
            .take(self.most)
            .take_while(|b| (self.body)(**b))
            .count();
        (len >= self.least).then(|| self.start.len() + len)
    }
}

const fn plain(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

const fn upper(b: u8) -> bool {
    b.is_ascii_uppercase() || b.is_ascii_digit()
}

const fn dashed(b: u8) -> bool {
    plain(b) || b == b'-'
}

const fn word(b: u8) -> bool {
    plain(b) || b == b'_'
}

/// What keys and the parts of tokens are made of.
const fn long(b: u8) -> bool {
    word(b) || b == b'-'
}

const KEYS: &[Key] = &[
    Key::new("sk-", long, 20),
    Key::exactly("AKIA", upper, 16),
    Key::exactly("ASIA", upper, 16),
    Key::new("ghp_", plain, 36),
    Key::new("gho_", plain, 36),
    Key::new("ghu_", plain, 36),
    Key::new("ghs_", plain, 36),
    Key::new("ghr_", plain, 36),
    Key::new("github_pat_", word, 40),
    Key::new("glpat-", long, 20),
    Key::new("xoxa-", dashed, 10),
    Key::new("xoxb-", dashed, 10),
    Key::new("xoxp-", dashed, 10),
    Key::new("xoxr-", dashed, 10),
    Key::new("xoxs-", dashed, 10),
    Key::exactly("AIza", long, 35),
    Key::new("hf_", plain, 30),
    Key::exactly("npm_", plain, 36),
    Key::new("sk_live_", plain, 20),
    Key::new("sk_test_", plain, 20),
    Key::new("rk_live_", plain, 20),
    Key::new("rk_test_", plain, 20),
    Key::new("pk_live_", plain, 20),
    Key::new("pk_test_", plain, 20),
    Key::new("LTAI", plain, 16),
    Key::exactly("AKID", plain, 32),
];

/// The shortest key: `xoxb-` and ten more.
const LEAST_KEY: usize = 15;
/// The shortest first part of a JSON Web Token: `eyJ` and ten more.
const LEAST_PART: usize = 13;

/// The runs of at least `least` bytes of which `is_of` holds, in order. At most every byte is looked at once; of short
/// runs most are not.
fn runs(bytes: &[u8], least: usize, is_of: fn(u8) -> bool) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            // From its last byte backwards: one that is none leaves no room for a run that begins before it.
            let window = bytes.get(at..at + least)?;
            if let Some(other) = window.iter().rposition(|b| !is_of(*b)) {
                at += other + 1;
                continue;
            }
            let more = bytes[at + least..].iter().take_while(|b| is_of(**b)).count();
            let run = at..at + least + more;
            at = run.end;
            return Some(run);
        }
    })
}

/// Where in a run a word begins: at its begin, and behind each dash. What is around a run is part of no word of ASCII.
fn begins(bytes: &[u8], run: Range<usize>) -> impl Iterator<Item = usize> {
    let dashes = memchr::memchr_iter(b'-', &bytes[run.clone()]).map(move |at| run.start + at + 1);
    std::iter::once(run.start).chain(dashes)
}

/// Adds where `text` holds keys.
pub(super) fn keys(text: &str, out: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    for run in runs(bytes, LEAST_KEY, long) {
        let mut free = run.start;
        for begin in begins(bytes, run.clone()) {
            let word = &bytes[begin..run.end];
            let Some(first) = word.first().filter(|_| begin >= free) else {
                continue;
            };
            let mut fitting = KEYS.iter().filter(|key| key.start[0] == *first);
            if let Some(len) = fitting.find_map(|key| key.len(word)) {
                free = begin + len;
                out.push(begin..free);
            }
        }
    }
}

/// Adds where `text` holds JSON Web Tokens, and what follows `Bearer`.
pub(super) fn tokens(text: &str, out: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    // With the place where what is found begins, `Bearer` included.
    let mut all = Vec::new();
    for run in runs(bytes, LEAST_PART, long) {
        // What comes behind the first part is looked at once, however many words the run has.
        if let Some(end) = behind_first_part(bytes, run.end) {
            let first = begins(bytes, run.clone()).filter(|begin| is_part(&bytes[*begin..run.end]));
            all.extend(first.map(|begin| (begin, begin..end)));
        }
    }
    for at in memchr::memmem::find_iter(bytes, b"earer") {
        all.extend(bearer(text, at));
    }
    all.sort_by_key(|(begin, _)| *begin);
    let mut free = 0;
    for (begin, range) in all {
        if begin >= free {
            free = range.end;
            out.push(range);
        }
    }
}

/// Is this the first or the second part of a JSON Web Token, which are JSON in base 64?
fn is_part(word: &[u8]) -> bool {
    word.len() >= LEAST_PART && word.starts_with(b"eyJ")
}

/// The end of the JSON Web Token whose first part ends here, if the two other parts follow.
fn behind_first_part(bytes: &[u8], end: usize) -> Option<usize> {
    let part_behind = |dot: usize| {
        let part = bytes.get(dot..)?.strip_prefix(b".")?;
        let len = part.iter().take_while(|b| long(**b)).count();
        Some((&part[..len], dot + 1 + len))
    };
    let (second, end) = part_behind(end)?;
    let (third, end) = is_part(second).then(|| part_behind(end))??;
    (third.len() >= 10).then_some(end)
}

/// The value behind `Bearer` whose `earer` stands at `at`, and where that word begins.
fn bearer(text: &str, at: usize) -> Option<(usize, Range<usize>)> {
    let bytes = text.as_bytes();
    let begin = at
        .checked_sub(1)
        .filter(|begin| matches!(bytes[*begin], b'B' | b'b'))?;
    if begin > 0 && word(bytes[begin - 1]) {
        return None;
    }
    let rest = &text[at + "earer".len()..];
    let value = rest.trim_start();
    let start = text.len() - value.len();
    let is_of = |b: &u8| plain(*b) || b"._~+/-".contains(b);
    let len = value.bytes().take_while(|b| is_of(b)).count();
    if value.len() == rest.len() || len < 20 {
        return None;
    }
    let padding = value[len..].bytes().take_while(|b| *b == b'=').count();
    Some((begin, start..start + len + padding))
}

/// Names whose values are taken for passwords, in small letters.
const NAMES: [&str; 11] = [
    "password",
    "passwd",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "accesskey",
    "access_key",
    "access-key",
];

/// Adds where `text` holds what is assigned to a name such as `password`, with `=`, `:` or `=>`.
pub(super) fn passwords(text: &str, out: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut free = 0;
    // There are fewer of these than of letters that a name may begin with.
    for at in memchr::memchr2_iter(b'=', b':', bytes) {
        let before = &bytes[..at];
        // Nearly always the byte before tells that there is no such name.
        let may_be = |b: &u8| b"dtnyDTNY\"' \t\n\r\x0b\x0c".contains(b) || !b.is_ascii();
        if !before.last().is_some_and(may_be) {
            continue;
        }
        let name = text[..at].trim_end();
        let name = name.strip_suffix(['"', '\'']).unwrap_or(name).as_bytes();
        let found = NAMES.iter().find(|known| {
            let end = name.len().checked_sub(known.len());
            end.is_some_and(|end| name[end..].eq_ignore_ascii_case(known.as_bytes()))
        });
        if found.is_none_or(|known| name.len() - known.len() < free) {
            continue;
        }
        let behind = at + 1;
        let mut value = value_at(text, behind);
        if value.is_none() && bytes[at] == b'=' && bytes.get(behind) == Some(&b'>') {
            value = value_at(text, behind + 1);
        }
        if let Some(value) = value {
            free = value.end;
            // `token: string` and `password = undefined` are code.
            let all = &bytes[value.clone()];
            if all.iter().any(u8::is_ascii_digit) && all.iter().any(u8::is_ascii_alphabetic) {
                out.push(value);
            }
        }
    }
}

/// The value that is assigned here: eight characters at least.
fn value_at(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = text[at..].trim_start();
    let rest = rest.strip_prefix(['"', '\'']).unwrap_or(rest);
    let ends = |c: char| c.is_whitespace() || "\"'<>(){}[],;".contains(c);
    let value = &rest[..rest.find(ends).unwrap_or(rest.len())];
    let start = text.len() - rest.len();
    (value.chars().take(8).count() == 8).then(|| start..start + value.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regex::Regex;

    /// What is looked for, as patterns: slower, and easier to read.
    const PATTERNS: [&str; 3] = [
        concat!(
            r"(?-u:\b)(?:sk-[A-Za-z0-9_-]{20,}|(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}",
            r"|github_pat_[A-Za-z0-9_]{40,}|glpat-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{35}",
            r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|(?:sk|rk|pk)_(?:live|test)_[0-9a-zA-Z]{20,}|LTAI[A-Za-z0-9]{16,}",
            r"|AKID[A-Za-z0-9]{32})"
        ),
        concat!(
            r"(?-u:\b)(eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})",
            r"|(?-u:\b)[Bb]earer\s+([A-Za-z0-9._~+/-]{20,}=*)"
        ),
        concat!(
            r#"(?i)(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key)["']?\s*(?:=|:|=>)\s*["']?"#,
            r#"([^\s"'<>(){}\[\],;]{8,})"#
        ),
    ];

    fn by_pattern(number: usize, text: &str) -> Vec<Range<usize>> {
        static ALL: std::sync::LazyLock<Vec<Regex>> =
            std::sync::LazyLock::new(|| PATTERNS.iter().map(|p| Regex::new(p).unwrap()).collect());
        let found = ALL[number].captures_iter(text).filter_map(|found| {
            let group = found.iter().skip(1).flatten().next().or_else(|| found.get(0));
            group.map(|group| group.range())
        });
        if number < 2 {
            return found.collect();
        }
        let is_one = |range: &Range<usize>| {
            let value = &text.as_bytes()[range.clone()];
            value.iter().any(u8::is_ascii_digit) && value.iter().any(u8::is_ascii_alphabetic)
        };
        found.filter(is_one).collect()
    }

    fn assert_same(text: &str) -> Result<(), TestCaseError> {
        for (number, find) in [keys, tokens, passwords].into_iter().enumerate() {
            let mut out = Vec::new();
            find(text, &mut out);
            prop_assert_eq!(out, by_pattern(number, text), "{} of {:?}", number, text);
        }
        Ok(())
    }

    #[test]
    fn runs_are_found_wherever_they_are() {
        let of = |text: &'static str, least| {
            runs(text.as_bytes(), least, word)
                .map(|run| &text[run])
                .collect::<Vec<_>>()
        };
        assert_eq!(of("abc de fghi", 3), ["abc", "fghi"]);
        assert_eq!(of("..abcd.efg", 4), ["abcd"]);
        assert_eq!(of("abc", 3), ["abc"]);
        assert!(of("ab cd", 3).is_empty() && of("", 3).is_empty() && of("ab", 3).is_empty());
    }

    #[test]
    fn every_kind_of_key_is_found_at_its_shortest_and_not_below() {
        for key in KEYS {
            let fill = if (key.body)(b'a') { "a" } else { "A" };
            let start = std::str::from_utf8(key.start).unwrap();
            let whole = format!("{start}{}", fill.repeat(key.least));
            let mut out = Vec::new();
            keys(&format!("中{whole} {}", &whole[..whole.len() - 1]), &mut out);
            let there = 3..3 + whole.len();
            assert_eq!(out, std::slice::from_ref(&there), "{whole}");
            assert!(whole.len() >= LEAST_KEY, "{whole}");
        }
    }

    proptest! {
        #[test]
        fn the_same_is_found_as_by_patterns(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "sk-", "sk_live_", "AKIA", "ghp_", "github_pat_", "glpat-", "xoxb-", "AIza", "hf_", "npm_", "LTAI", "AKID",
                "eyJ", ".", ".eyJ", "Bearer", "bearer ", "Bearer\u{a0}", "\n", " ", "=", ":", "=>", "\"", "'", ",", "-", "_", "/",
                "password", "PassWd", "pwd", "secret", "Token", "api_key", "api-key", "apikey", "ACCESS_KEY", "token=", "pwd: ",
                "abcdefghij", "0123456789", "ABCDEFGHIJKLMNOPQRST", "a1B2c3D4e5", "x", "9", "中", "é1234567", "\u{3000}", "(", "[",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "A1B2C3D4E5F6G7H8",
            ]), 0..14)
        ) {
            assert_same(&parts.concat())?;
        }
    }

    #[test]
    fn long_texts_take_no_longer_for_what_they_are_made_of() {
        for part in [
            "eyJaaaaaaaaaa-",
            "Bearer ",
            "token=",
            "token: ",
            "sk-",
            "-",
            "a",
            "=",
            " =",
            "\"token\" \n: \"",
        ] {
            let text = part.repeat(200_000 / part.len());
            let mut out = Vec::new();
            keys(&text, &mut out);
            tokens(&text, &mut out);
            passwords(&text, &mut out);
        }
    }
}
