//! Small changes to JSON texts that leave every other byte as it is.

use bytes::Bytes;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// Where the value of a member of the top object lies in `text`; of a name that stands twice, the first.
///
/// Reads no further than that member, so that a name in front costs nothing in a long text.
#[must_use]
pub fn member(text: &[u8], name: &str) -> Option<Range<usize>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut found = None;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // The error that ends the reading early says nothing; what counts is what was found until then.
    let _ = deserializer.deserialize_map(Find {
        name,
        found: &mut found,
    });
    let value: &str = found?;
    let start = (value.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    Some(start..start + value.len())
}

struct Find<'a, 'de> {
    name: &'a str,
    found: &'a mut Option<&'de str>,
}

impl<'de> Visitor<'de> for Find<'_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Name<'de>>()? {
            if name.0 == self.name {
                *self.found = Some(map.next_value::<&'de RawValue>()?.get());
                return Err(A::Error::custom("found"));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// The values of these members of a JSON object, as they are written; of a name that stands twice, the last. `None` if
/// the text is no JSON object, to its end.
///
/// Nothing but the names is unescaped or kept, so that it costs a fraction of parsing the whole.
#[must_use]
pub fn members<'t, const N: usize>(text: &'t [u8], names: [&str; N]) -> Option<[Option<&'t str>; N]> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let found = deserializer.deserialize_map(Members(names)).ok()?;
    deserializer.end().ok()?;
    Some(found)
}

struct Members<'a, const N: usize>([&'a str; N]);

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<&'de str>; N];
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(name) = map.next_key::<Name<'de>>()? {
            match self.0.iter().position(|wanted| *wanted == name.0) {
                Some(at) => found[at] = Some(map.next_value::<&'de RawValue>()?.get()),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
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
