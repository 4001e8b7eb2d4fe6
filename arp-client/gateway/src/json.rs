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
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == self.name {
                *self.found = Some(map.next_value::<&'de RawValue>()?.get());
                return Err(A::Error::custom("found"));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
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
