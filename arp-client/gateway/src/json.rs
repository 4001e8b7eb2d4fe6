//! Small changes to JSON texts that leave every other byte as it is.

use bytes::Bytes;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::ops::Range;

/// Where the value of a member of the top object lies in `text`; of a name that stands twice, the first.
///
/// Reads no further than that member, so that a name in front costs nothing in a long text.
#[must_use]
pub fn member(text: &[u8], name: &str) -> Option<Range<usize>> {
    let mut scan = Scan { text, at: 0 };
    let mut found = None;
    scan.members(|written, value| {
        if written == name.as_bytes() || is_escaped(written, name) {
            found = Some(value);
        }
        found.is_none()
    });
    found.filter(|range| std::str::from_utf8(&text[range.clone()]).is_ok())
}

/// The values of these members of a JSON object, as they are written; of a name that stands twice, the last. `None` if
/// the text is no JSON object, to its end, as far as strings, brackets and their order go.
///
/// Nothing is unescaped or kept, so that it costs a fraction of parsing the whole.
#[must_use]
pub fn members<'t, const N: usize>(text: &'t [u8], names: [&str; N]) -> Option<[Option<&'t str>; N]> {
    let mut scan = Scan { text, at: 0 };
    let mut found: [Option<Range<usize>>; N] = [const { None }; N];
    scan.members(|written, value| {
        let at = names.iter().position(|name| name.as_bytes() == written);
        let at = at.or_else(|| {
            // Seldom: names are written as they are.
            let escaped = written.contains(&b'\\');
            names.iter().position(|name| escaped && is_escaped(written, name))
        });
        if let Some(at) = at {
            found[at] = Some(value);
        }
        true
    })?;
    scan.space();
    if scan.at < text.len() {
        return None;
    }
    let mut all = [None; N];
    for (value, range) in all.iter_mut().zip(found) {
        if let Some(range) = range {
            *value = Some(std::str::from_utf8(text.get(range)?).ok()?);
        }
    }
    Some(all)
}

/// Is this the name, written between its quotes with escapes?
fn is_escaped(written: &[u8], name: &str) -> bool {
    written.contains(&b'\\')
        && std::str::from_utf8(written)
            .ok()
            .and_then(|written| serde_json::from_str::<String>(&format!("\"{written}\"")).ok())
            .is_some_and(|plain| plain == name)
}

/// Deepest nesting that is followed.
const MAX_DEPTH: u32 = 128;

/// Goes over a JSON text from value to value, without looking at more than where each ends.
struct Scan<'t> {
    text: &'t [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    /// Gives the name (as it is written, without its quotes) and the place of each member of the object that begins
    /// here, until `each` says that it has enough.
    fn members(&mut self, mut each: impl FnMut(&[u8], Range<usize>) -> bool) -> Option<()> {
        self.space();
        self.take(b'{')?;
        self.space();
        if self.take(b'}').is_some() {
            return Some(());
        }
        loop {
            let name = self.string()?;
            self.space();
            self.take(b':')?;
            self.space();
            let value = self.value()?;
            if !each(&self.text[name], value) {
                return Some(());
            }
            self.space();
            if self.take(b'}').is_some() {
                return Some(());
            }
            self.take(b',')?;
            self.space();
        }
    }

    /// Behind the string that begins here; where it lies between its quotes.
    fn string(&mut self) -> Option<Range<usize>> {
        self.take(b'"')?;
        let begin = self.at;
        loop {
            self.at += memchr::memchr2(b'"', b'\\', self.text.get(self.at..)?)?;
            if self.peek() == Some(b'"') {
                self.at += 1;
                return Some(begin..self.at - 1);
            }
            self.at += 2;
        }
    }

    /// Behind the value that begins here; where it lies.
    fn value(&mut self) -> Option<Range<usize>> {
        let begin = self.at;
        match self.peek()? {
            b'"' => {
                self.string()?;
            }
            b'{' | b'[' => self.nested()?,
            _ => {
                while matches!(
                    self.peek(),
                    Some(b'0'..=b'9' | b'a'..=b'z' | b'-' | b'+' | b'.' | b'E')
                ) {
                    self.at += 1;
                }
                let word = &self.text[begin..self.at];
                let is_number = matches!(word.first(), Some(b'0'..=b'9' | b'-'));
                if !is_number && !matches!(word, b"true" | b"false" | b"null") {
                    return None;
                }
            }
        }
        Some(begin..self.at)
    }

    /// Behind the object or array that begins here.
    fn nested(&mut self) -> Option<()> {
        // A bit for each that is open: is it an object?
        let (mut objects, mut depth) = (0_u128, 0_u32);
        loop {
            let byte = self.peek()?;
            match byte {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => {
                    if depth == MAX_DEPTH {
                        return None;
                    }
                    objects = (objects << 1) | u128::from(byte == b'{');
                    depth += 1;
                }
                b'}' | b']' => {
                    if (objects & 1 == 1) != (byte == b'}') {
                        return None;
                    }
                    objects >>= 1;
                    depth -= 1;
                    if depth == 0 {
                        self.at += 1;
                        return Some(());
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
    }
}

/// A name, which is not copied unless it has escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The text of a JSON value, where it is a string.
#[must_use]
pub fn text_of(value: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Name<'_>>(value).ok().map(|name| name.0)
}

/// The text of a member of the top object, where it is a string.
#[must_use]
pub fn text_member(text: &[u8], name: &str) -> Option<String> {
    serde_json::from_slice(text.get(member(text, name)?)?).ok()
}

/// `text` with the bytes of `range` in place of others.
#[must_use]
pub fn spliced(text: &[u8], range: Range<usize>, new: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + new.len());
    out.extend_from_slice(text.get(..range.start).unwrap_or_default());
    out.extend_from_slice(new);
    out.extend_from_slice(text.get(range.end..).unwrap_or_default());
    out.into()
}

/// `text` with another string as the value of a member of the top object, if it has that member.
#[must_use]
pub fn with_text_member(text: &[u8], name: &str, value: &str) -> Option<Bytes> {
    let range = member(text, name)?;
    Some(spliced(
        text,
        range,
        serde_json::json!(value).to_string().as_bytes(),
    ))
}

/// `text` with the array of a member of the top object changed: each item is kept, replaced or left out. `None` if
/// nothing changes.
#[must_use]
pub fn with_items(text: &[u8], name: &str, mut change: impl FnMut(&RawValue) -> Item) -> Option<Bytes> {
    let range = member(text, name)?;
    let items: Vec<&RawValue> = serde_json::from_slice(&text[range.clone()]).ok()?;
    let mut out = String::from("[");
    let mut changed = false;
    for item in items {
        let new = change(item);
        let kept = match &new {
            Item::Keep => item.get(),
            Item::Replace(text) => text,
            Item::Drop => "",
        };
        changed |= !matches!(new, Item::Keep);
        if kept.is_empty() {
            continue;
        }
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(kept);
    }
    out.push(']');
    changed.then(|| spliced(text, range, out.as_bytes()))
}

/// What becomes of an item of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// It stays, to the byte.
    Keep,
    /// This JSON text stands in its place.
    Replace(String),
    /// It is left out.
    Drop,
}

/// `text` with this value (JSON text) for a member of the top object; where it is not there it becomes the first one,
/// indented for an object at `depth`. `None` if the text is no object.
#[must_use]
pub fn with_member(text: &str, name: &str, value: &str, depth: usize) -> Option<String> {
    if let Some(range) = member(text.as_bytes(), name) {
        return Some(format!("{}{value}{}", &text[..range.start], &text[range.end..]));
    }
    let open = text
        .find(|c: char| !c.is_whitespace())
        .filter(|at| text[*at..].starts_with('{'))?;
    let (before, after) = text.split_at(open + 1);
    let indent = "  ".repeat(depth + 1);
    let name = serde_json::Value::from(name);
    if after.trim_start().starts_with('}') {
        let close = after.trim_start();
        return Some(format!(
            "{before}\n{indent}{name}: {value}\n{}{close}",
            "  ".repeat(depth)
        ));
    }
    // What stands in one line stays in it, so that nothing of ours is left once the member is taken out.
    if !after.starts_with(['\n', '\r']) {
        return Some(format!("{before}{name}:{value},{after}"));
    }
    Some(format!("{before}\n{indent}{name}: {value},{after}"))
}

/// `text` without a member of the top object; as it is where that is not there.
#[must_use]
pub fn without_member(text: &str, name: &str) -> String {
    let Some(range) = member(text.as_bytes(), name) else {
        return text.to_owned();
    };
    let before = text[..range.start].trim_end();
    let key = before.strip_suffix(':').map(str::trim_end).and_then(|before| {
        // The name may be written with escapes: back to the quote that begins it.
        let inner = before.strip_suffix('"')?;
        let at = inner
            .char_indices()
            .rev()
            .find(|(at, c)| *c == '"' && !inner[..*at].ends_with('\\'))?
            .0;
        Some(&inner[..at])
    });
    let Some(before) = key else { return text.to_owned() };
    let after = &text[range.end..];
    let (trimmed, rest) = (before.trim_end(), after.trim_start());
    if let Some(before) = trimmed.strip_suffix(',') {
        return format!("{before}{after}");
    }
    match rest.strip_prefix(',') {
        Some(rest) => format!("{trimmed}{rest}"),
        None => format!("{trimmed}{}", if rest.starts_with('}') { rest } else { after }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_member_is_found_and_changed_in_place() {
        let text = br#" {"a" : {"model":"no"}, "model"  :  "mod\u0065l-1" , "n":1.50, "model":"later"}"#;
        assert_eq!(text_member(text, "model").as_deref(), Some("model-1"));
        let new = with_text_member(text, "model", "x\"y").unwrap();
        assert_eq!(
            &new[..],
            &br#" {"a" : {"model":"no"}, "model"  :  "x\"y" , "n":1.50, "model":"later"}"#[..]
        );
        for text in [&b"[]"[..], b"", b"{", b"\xff", br#"{"n":{"model":"x"}}"#] {
            assert_eq!(member(text, "model"), None);
        }
        // What comes behind the member is not looked at.
        assert_eq!(
            text_member(br#"{"model":"m", broken"#, "model").as_deref(),
            Some("m")
        );
    }

    #[test]
    fn several_members_are_found_in_one_go() {
        let text = br#" {"a" : {"b":[1,"}"]}, "n\u0065w": "x\"y" , "n":1.50, "a":2} "#;
        assert_eq!(
            members(text, ["a", "new", "none", "n"]),
            Some([Some("2"), Some(r#""x\"y""#), None, Some("1.50")])
        );
        assert_eq!(text_of(r#""x\"y""#).as_deref(), Some("x\"y"));
        assert_eq!(text_of("1"), None);
        for text in [&b"[]"[..], b"", b"{", b"{\"a\":\"\xff\"}", b"{\"a\":1} x", b"1"] {
            assert_eq!(members(text, ["a"]), None);
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "[a-c\"\\\\{}\\[\\]:,\n\u{e9}]{0,6}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map("[a-c\"\\\\]{0,2}", inner, 0..4)
                    .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn members_are_those_that_a_parser_finds(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let names = ["a", "b", "\"", "\\", "ab", ""];
            let found = members(text.as_bytes(), names);
            let parsed = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            // Of a number, writing and reading may change the last digit.
            let value = parsed(&text);
            match value.as_object() {
                None => prop_assert_eq!(found, None),
                Some(object) => {
                    for (name, found) in names.iter().zip(found.unwrap()) {
                        prop_assert_eq!(found.map(parsed), object.get(*name).cloned());
                        let range = member(text.as_bytes(), name);
                        prop_assert_eq!(range.map(|range| &text[range]), found);
                    }
                }
            }
            // What is cut off is no object any more.
            if !text.is_empty() && value.is_object() {
                let end = text.trim_end().len() - 1;
                prop_assert_eq!(members(&text.as_bytes()[..end], names), None);
            }
        }

        #[test]
        fn no_text_leads_outside_of_it(text in "[{}\\[\\]\"\\\\:,a-b0-9 ]{0,40}") {
            let _ = members(text.as_bytes(), ["a", "b"]);
            if let Some(range) = member(text.as_bytes(), "a") {
                prop_assert!(range.end <= text.len());
            }
        }
    }

    #[test]
    fn members_come_and_go_and_all_else_stays() {
        let set = |text: &str| with_member(text, "env", "1", 0).unwrap();
        assert_eq!(set("{}"), "{\n  \"env\": 1\n}");
        assert_eq!(set("{\n  \"a\": 1.0\n}\n"), "{\n  \"env\": 1,\n  \"a\": 1.0\n}\n");
        assert_eq!(set("{\"env\" : 2 , \"a\":1}"), "{\"env\" : 1 , \"a\":1}");
        assert_eq!(with_member("[]", "env", "1", 0), None);
        for (text, left) in [
            ("{\n  \"env\": 1,\n  \"a\": 1.0\n}\n", "{\n  \"a\": 1.0\n}\n"),
            ("{\"a\":1,\"env\":{\"x\":[1]}}", "{\"a\":1}"),
            ("{\"env\":1}", "{}"),
            ("{\"a\":1}", "{\"a\":1}"),
            ("{\"a\":1, \"env\": 2, \"b\":3}", "{\"a\":1, \"b\":3}"),
        ] {
            assert_eq!(without_member(text, "env"), left, "{text}");
        }
    }

    #[test]
    fn items_of_an_array_go_or_stay() {
        let text = br#"{"x":1.0,"input":[ {"type":"a"} , {"type":"b","n":2.0}]}"#;
        let without = |name: &'static str| {
            with_items(text, "input", move |item| {
                if text_member(item.get().as_bytes(), "type").as_deref() == Some(name) {
                    Item::Drop
                } else {
                    Item::Keep
                }
            })
        };
        assert_eq!(
            &without("a").unwrap()[..],
            &br#"{"x":1.0,"input":[{"type":"b","n":2.0}]}"#[..]
        );
        assert_eq!(without("z"), None);
    }
}
