//! What looks like a secret: presets, each with the checks that keep it from taking what only resembles one.

use super::{keys, numbers};
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
}

/// Adds where `text` holds what any of these presets takes, and which one took it.
pub fn find(presets: &[Preset], text: &str, out: &mut Vec<(Range<usize>, Preset)>) {
    let mut ranges = Vec::new();
    for preset in presets {
        match preset {
            Preset::ApiKeys => keys::keys(text, &mut ranges),
            Preset::PrivateKeys => private_keys(text, &mut ranges),
            Preset::Tokens => keys::tokens(text, &mut ranges),
            Preset::Passwords => keys::passwords(text, &mut ranges),
            Preset::Mails => mails(text, &mut ranges),
            // All together below.
            Preset::Phones | Preset::IdCards | Preset::BankCards => {}
        }
        out.extend(ranges.drain(..).map(|range| (range, *preset)));
    }
    numbers::numbers(presets, text, out);
}

// `None` is never seen: the tests below use it. Were it, everything would be hidden rather than nothing.
static PRIVATE_KEYS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    // One whose end was cut off (a tool's output has a limit) is a secret still: its lines, as far as they go.
    Regex::new(concat!(
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----",
        r"(?:(?:[^-]|-{1,4}[^-])*-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----",
        r"|(?:(?:\s|\\n|\\r)*[A-Za-z0-9+/=]{16,})+)"
    ))
    .ok()
});

fn private_keys(text: &str, out: &mut Vec<Range<usize>>) {
    match PRIVATE_KEYS.as_ref() {
        Some(pattern) => out.extend(pattern.find_iter(text).map(|found| found.range())),
        None => out.push(0..text.len()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(preset: Preset, text: &str) -> Vec<&str> {
        let mut out = Vec::new();
        find(&[preset], text, &mut out);
        out.into_iter().map(|(range, _)| &text[range]).collect()
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
