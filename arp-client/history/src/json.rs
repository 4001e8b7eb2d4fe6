//! JSON that somebody else wrote: checked for depth, mended where it is not UTF-8, cut to what a list shows.

use crate::defaults::{MAX_DEPTH, MAX_TITLE_CHARS};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A line as text. Bytes that are not UTF-8 become U+FFFD, which leaves the JSON around them what it was.
pub(crate) fn text(line: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(line)
}

/// Is the JSON in this line nested no deeper than any reader can follow? Only brackets are counted.
pub(crate) fn is_shallow(line: &[u8]) -> bool {
    let (mut depth, mut at) = (0usize, 0usize);
    while let Some(found) = next_of(&line[at..]) {
        at += found + 1;
        match line[at - 1] {
            b'"' => at += string_end(&line[at..]),
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return false;
                }
            }
            _ => depth = depth.saturating_sub(1),
        }
    }
    true
}

fn next_of(rest: &[u8]) -> Option<usize> {
    rest.iter()
        .position(|b| matches!(b, b'"' | b'{' | b'[' | b'}' | b']'))
}

/// Where a string that began before `rest` ends (one past its closing quote).
fn string_end(rest: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &rest[at..]) {
        at += found + 1;
        if rest[at - 1] == b'"' {
            return at;
        }
        at = (at + 1).min(rest.len());
    }
    rest.len()
}

/// The line as a JSON object to hand on, if it is one.
pub(crate) fn object(line: &[u8]) -> Option<Box<RawValue>> {
    if !is_shallow(line) {
        return None;
    }
    let text = text(line);
    let trimmed = text.trim();
    if !trimmed.starts_with('{') {
        return None;
    }
    RawValue::from_string(trimmed.to_owned()).ok()
}

/// The text's first [`MAX_TITLE_CHARS`] characters, white space folded.
pub(crate) fn short(text: &str) -> String {
    let mut out = String::new();
    let mut left = MAX_TITLE_CHARS;
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
            left = left.saturating_sub(1);
        }
        for c in word.chars() {
            if left == 0 {
                out.push('…');
                return out;
            }
            out.push(c);
            left -= 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn depth_is_counted_outside_of_strings_only() {
        assert!(is_shallow(br#"{"a":"[[[[","b":[1,{"c":"\"]\\"}]}"#));
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(is_shallow(deep(MAX_DEPTH).as_bytes()));
        assert!(!is_shallow(deep(MAX_DEPTH + 1).as_bytes()));
        assert!(is_shallow(
            format!("[{}]", vec![deep(20); 50].join(",")).as_bytes()
        ));
    }

    #[test]
    fn only_objects_are_handed_on() {
        assert_eq!(object(b" {\"a\":1} ").unwrap().get(), "{\"a\":1}");
        assert_eq!(object(b"{\"a\":\"\xff\"}").unwrap().get(), "{\"a\":\"\u{fffd}\"}");
        for bad in [&b"[1]"[..], b"{", b"", b"{\"a\":1}{", b"nonsense"] {
            assert!(object(bad).is_none());
        }
        assert!(object(format!("{{\"a\":{}}}", "[".repeat(100_000)).as_bytes()).is_none());
    }

    #[test]
    fn a_short_text_is_one_line_and_bounded() {
        assert_eq!(short("  a\n\nb\tc "), "a b c");
        let cut = short(&"wörd ".repeat(1_000));
        assert_eq!(cut.chars().count(), MAX_TITLE_CHARS + 1);
        assert!(cut.ends_with('…'));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (is_shallow(&line), object(&line), short(&text(&line)));
        }

        #[test]
        fn what_is_handed_on_can_be_parsed(depth in 1usize..200, tail in ".{0,20}") {
            let inner = serde_json::Value::String(tail);
            let json = format!("{{\"a\":{}{inner}{}}}", "[".repeat(depth), "]".repeat(depth));
            let handed_on = object(json.as_bytes());
            prop_assert_eq!(handed_on.is_some(), depth < MAX_DEPTH);
            if let Some(raw) = handed_on {
                prop_assert!(serde_json::from_str::<serde_json::Value>(raw.get()).is_ok());
            }
        }
    }
}
