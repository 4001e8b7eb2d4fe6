//! What looks like a secret: presets, each with the checks that keep it from taking what only resembles one.

use regex::Regex;
use std::ops::Range;
use std::sync::LazyLock;

/// A preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// Keys of model APIs, clouds, code hosts and payment services, by their prefixes.
    ApiKeys,
    /// Blocks of PEM that hold a private key.
    PrivateKeys,
    /// JSON Web Tokens, and what follows `Bearer`.
    Tokens,
    /// What is assigned to a name such as `password` or `secret`, where it has letters and digits.
    Passwords,
    /// Mail addresses.
    Mails,
    /// Mobile numbers of China, and numbers with a country's code.
    Phones,
    /// Identity card numbers of China, by their check digit.
    IdCards,
    /// Numbers of bank and credit cards, by their check digit.
    BankCards,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ApiKeys,
        Self::PrivateKeys,
        Self::Tokens,
        Self::Passwords,
        Self::Mails,
        Self::Phones,
        Self::IdCards,
        Self::BankCards,
    ];

    /// As the configuration calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApiKeys => "api_keys",
            Self::PrivateKeys => "private_keys",
            Self::Tokens => "tokens",
            Self::Passwords => "passwords",
            Self::Mails => "mails",
            Self::Phones => "phones",
            Self::IdCards => "id_cards",
            Self::BankCards => "bank_cards",
        }
    }

    /// What it takes, in words.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::ApiKeys => "keys of model APIs, clouds, code hosts and payment services",
            Self::PrivateKeys => "private keys in PEM",
            Self::Tokens => "JSON Web Tokens, and what follows Bearer",
            Self::Passwords => "what is assigned to password, secret, token and the like",
            Self::Mails => "mail addresses",
            Self::Phones => "mobile numbers of China, and numbers with a country's code",
            Self::IdCards => "identity card numbers of China (check digit)",
            Self::BankCards => "bank and credit card numbers (check digit)",
        }
    }

    /// By its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name)
    }

    /// Adds where `text` holds such secrets.
    pub fn find(self, text: &str, out: &mut Vec<Range<usize>>) {
        match self {
            Self::ApiKeys => by_pattern(&API_KEYS, text, out),
            Self::PrivateKeys => by_pattern(&PRIVATE_KEYS, text, out),
            Self::Tokens => by_pattern(&TOKENS, text, out),
            Self::Passwords => passwords(text, out),
            Self::Mails => mails(text, out),
            Self::Phones => numbers(text, &phone, out),
            Self::IdCards => numbers(text, &id_card, out),
            Self::BankCards => numbers(text, &bank_card, out),
        }
    }
}

type Pattern = LazyLock<Option<Regex>>;

// `None` is never seen: the tests below use each of them. Were it, everything would be hidden rather than nothing.
static API_KEYS: Pattern = LazyLock::new(|| {
    Regex::new(concat!(
        r"\b(?:sk-[A-Za-z0-9_-]{20,}|(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}",
        r"|glpat-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{35}|hf_[A-Za-z0-9]{30,}",
        r"|npm_[A-Za-z0-9]{36}|(?:sk|rk|pk)_(?:live|test)_[0-9a-zA-Z]{20,}|LTAI[A-Za-z0-9]{16,}|AKID[A-Za-z0-9]{32})"
    ))
    .ok()
});
static PRIVATE_KEYS: Pattern = LazyLock::new(|| {
    // One whose end was cut off (a tool's output has a limit) is a secret still: its lines, as far as they go.
    Regex::new(concat!(
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----",
        r"(?:(?:[^-]|-{1,4}[^-])*-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----",
        r"|(?:(?:\s|\\n|\\r)*[A-Za-z0-9+/=]{16,})+)"
    ))
    .ok()
});
static TOKENS: Pattern = LazyLock::new(|| {
    Regex::new(concat!(
        r"\b(eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})",
        r"|\b[Bb]earer\s+([A-Za-z0-9._~+/-]{20,}=*)"
    ))
    .ok()
});
static PASSWORDS: Pattern = LazyLock::new(|| {
    Regex::new(concat!(
        r#"(?i)(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key)["']?\s*(?:=|:|=>)\s*["']?"#,
        r#"([^\s"'<>(){}\[\],;]{8,})"#
    ))
    .ok()
});

fn by_pattern(pattern: &Pattern, text: &str, out: &mut Vec<Range<usize>>) {
    let Some(pattern) = pattern.as_ref() else {
        out.push(0..text.len());
        return;
    };
    if pattern.captures_len() == 1 {
        out.extend(pattern.find_iter(text).map(|found| found.range()));
        return;
    }
    for found in pattern.captures_iter(text) {
        out.extend(found.iter().skip(1).flatten().next().map(|group| group.range()));
    }
}

fn passwords(text: &str, out: &mut Vec<Range<usize>>) {
    let mut all = Vec::new();
    by_pattern(&PASSWORDS, text, &mut all);
    // `token: string` and `password = undefined` are code.
    out.extend(all.into_iter().filter(|range| {
        let value = &text.as_bytes()[range.clone()];
        value.iter().any(u8::is_ascii_digit) && value.iter().any(u8::is_ascii_alphabetic)
    }));
}

fn mails(text: &str, out: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let local = |b: u8| b.is_ascii_alphanumeric() || b"._%+-".contains(&b);
    let host = |b: u8| b.is_ascii_alphanumeric() || b".-".contains(&b);
    let mut free = 0;
    for at in memchr::memchr_iter(b'@', bytes) {
        let before = bytes[free..at]
            .iter()
            .rev()
            .take(64)
            .take_while(|b| local(**b))
            .count();
        let mut start = at - before;
        while start < at && b".-%+".contains(&bytes[start]) {
            start += 1;
        }
        let after = bytes[at + 1..].iter().take(255).take_while(|b| host(**b)).count();
        let domain = text
            .get(at + 1..at + 1 + after)
            .unwrap_or_default()
            .trim_end_matches(['.', '-']);
        let top = domain.rsplit('.').next().unwrap_or_default();
        // `user@host` of ssh is none, nor is a package as `name@1.2.3`.
        let is_domain = domain.contains('.')
            && top.len() >= 2
            && top.bytes().all(|b| b.is_ascii_alphabetic())
            && domain.split('.').all(|part| !part.is_empty());
        // `git@host:path` names a repository, and commands need its host.
        let is_remote = &bytes[start..at] == b"git";
        if start < at && is_domain && !is_remote {
            free = at + 1 + domain.len();
            out.push(start..free);
        }
    }
}

/// Groups of digits that may be one number, at most.
const MAX_GROUPS: usize = 8;

/// Looks at each run of digits, in which a blank or a dash may stand between groups: at the longest row of groups
/// first, then at shorter ones (`2024 13812345678` is a year and a number).
fn numbers(text: &str, is_one: &dyn Fn(&str, &[u8]) -> Option<usize>, out: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(u8::is_ascii_digit) {
        let start = at + found;
        let mut groups: Vec<Range<usize>> = Vec::new();
        let mut from = start;
        loop {
            let len = bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
            groups.push(from..from + len);
            let end = from + len;
            let goes_on = matches!(bytes.get(end), Some(b' ' | b'-'))
                && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
            if !goes_on {
                break;
            }
            from = end + 1;
        }
        let last = groups.last().map_or(start, |group| group.end);
        // The last digit of an identity card may be an X.
        if let Some(group) = groups.last_mut()
            && group.len() == 17
            && matches!(bytes.get(last), Some(b'X' | b'x'))
        {
            group.end += 1;
        }
        at = groups.last().map_or(start + 1, |group| group.end);
        let plus = start > 0 && bytes[start - 1] == b'+';
        let mut first = 0;
        while first < groups.len() {
            let begin = groups[first].start - usize::from(plus && first == 0);
            let free =
                begin == 0 || !(word(bytes[begin - 1]) || matches!(bytes[begin - 1], b'.' | b'-' | b'/'));
            let hit = free.then(|| {
                (first..groups.len().min(first + MAX_GROUPS))
                    .rev()
                    .find_map(|last| {
                        let end = groups[last].end;
                        if bytes.get(end).is_some_and(|b| word(*b)) {
                            return None;
                        }
                        let digits: Vec<u8> = bytes[groups[first].start..end]
                            .iter()
                            .copied()
                            .filter(|b| !b" -".contains(b))
                            .collect();
                        let len = is_one(&text[begin..end], &digits)?;
                        Some((last, begin..begin + len))
                    })
            });
            match hit.flatten() {
                Some((last, range)) => {
                    out.push(range);
                    first = last + 1;
                }
                None => first += 1,
            }
        }
    }
}

fn phone(text: &str, digits: &[u8]) -> Option<usize> {
    let mobile =
        |digits: &[u8]| digits.len() == 11 && digits[0] == b'1' && (b'3'..=b'9').contains(&digits[1]);
    let is_one = match text.strip_prefix('+') {
        Some(_) => (8..=15).contains(&digits.len()),
        None => mobile(digits) || digits.strip_prefix(b"86").is_some_and(mobile),
    };
    is_one.then_some(text.len())
}

/// GB 11643: 17 digits, of which 8 are a date, and a check digit (ISO 7064, MOD 11-2).
fn id_card(text: &str, digits: &[u8]) -> Option<usize> {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    if digits.len() != 18 || text.len() != 18 {
        return None;
    }
    let number = |range: Range<usize>| std::str::from_utf8(&digits[range]).ok()?.parse::<u32>().ok();
    let (year, month, day) = (number(6..10)?, number(10..12)?, number(12..14)?);
    let is_date = (1900..=2100).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let sum: u32 = WEIGHTS
        .iter()
        .zip(digits)
        .map(|(w, d)| w * u32::from(d - b'0'))
        .sum();
    let check = b"10X98765432"[(sum % 11) as usize];
    (is_date && digits[17].eq_ignore_ascii_case(&check)).then_some(text.len())
}

/// ISO/IEC 7812: 13 to 19 digits, the last one by Luhn's sum.
fn bank_card(text: &str, digits: &[u8]) -> Option<usize> {
    if !(13..=19).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) || text.starts_with('+') {
        return None;
    }
    // No issuer begins with 0 or 1; times in milliseconds and ids of that length do.
    if matches!(digits[0], b'0' | b'1') || digits.iter().all(|d| *d == digits[0]) {
        return None;
    }
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let digit = u32::from(digit - b'0');
            if at % 2 == 0 {
                digit
            } else {
                digit * 2 - if digit > 4 { 9 } else { 0 }
            }
        })
        .sum();
    sum.is_multiple_of(10).then_some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(preset: Preset, text: &str) -> Vec<&str> {
        let mut out = Vec::new();
        preset.find(text, &mut out);
        out.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn each_preset_takes_what_it_says_and_leaves_what_resembles_it() {
        let key = format!("sk-ant-{}", "a1".repeat(20));
        assert_eq!(
            found(Preset::ApiKeys, &format!("KEY={key}, AKIAIOSFODNN7EXAMPLE")),
            [&*key, "AKIAIOSFODNN7EXAMPLE"]
        );
        assert!(found(Preset::ApiKeys, "task-aaaaaaaaaaaaaaaaaaaaaaaaa sk-short").is_empty());
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----";
        assert_eq!(found(Preset::PrivateKeys, &format!("x{pem}y{pem}")), [pem, pem]);
        let cut = format!("-----BEGIN PRIVATE KEY-----\\n{0}\n{0}", "Ab1/".repeat(16));
        assert_eq!(found(Preset::PrivateKeys, &format!("{cut} … and so on")), [&*cut]);
        assert!(
            found(
                Preset::PrivateKeys,
                "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"
            )
            .is_empty()
        );
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijk";
        assert_eq!(
            found(Preset::Tokens, &format!("a {jwt} Bearer abcdefghij0123456789==")),
            [jwt, "abcdefghij0123456789=="]
        );
        assert_eq!(
            found(
                Preset::Passwords,
                r#"password = "hunter2hunter2" token: string, secret: undefined, "api_key": "abc12345""#
            ),
            ["hunter2hunter2", "abc12345"]
        );
        assert_eq!(
            found(
                Preset::Mails,
                "to a.b+c@mail.example.com, x@y, pkg@1.2.3, git@host.example:r (me@x.cn.)"
            ),
            ["a.b+c@mail.example.com", "me@x.cn"]
        );
        assert_eq!(
            found(
                Preset::Phones,
                "2024 13812345678, +86 138-1234-5678 +1 415 555 2671; 12345678901 1712345678901 x13812345678"
            ),
            ["13812345678", "+86 138-1234-5678", "+1 415 555 2671"]
        );
        assert_eq!(
            found(
                Preset::IdCards,
                "11010519491231002X 110105194912310021 11010519491331002X"
            ),
            ["11010519491231002X"]
        );
        assert_eq!(
            found(
                Preset::BankCards,
                "4111 1111 1111 1111; 6222021234567890123 4111111111111112 1700000000000 0.4111111111111111"
            ),
            ["4111 1111 1111 1111"]
                .iter()
                .copied()
                .chain(
                    (bank_card("6222021234567890123", b"6222021234567890123").is_some())
                        .then_some("6222021234567890123")
                )
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn names_are_those_of_the_configuration() {
        for preset in Preset::ALL {
            assert_eq!(Preset::parse(preset.name()), Some(preset));
            assert!(
                found(
                    preset,
                    "ordinary text: fn main() { let x = 1.25; } // 2024-01-02 äöü 中文"
                )
                .is_empty()
            );
        }
        assert_eq!(Preset::parse("keys"), None);
    }
}
