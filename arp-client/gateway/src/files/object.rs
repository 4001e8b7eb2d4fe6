//! A JSON object that is written back as it was read: order, unknown fields and the text of each value stay.

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use std::fmt;

/// See the module. Where a name stands twice, the last one counts, as readers of JSON have it.
#[derive(Debug, Clone, Default)]
pub struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    /// Parses one.
    ///
    /// # Errors
    /// When the text is not one JSON object.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// The value of a name, as text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, v)| &**v)
    }

    /// The value of a name as a `T`; `None` when there is none or it is something else.
    #[must_use]
    pub fn get_as<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// Names and values, in order. Of a name that stands twice only the last.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0
            .iter()
            .enumerate()
            .filter(|(at, (name, _))| !self.0[at + 1..].iter().any(|(later, _)| later == name))
            .map(|(_, (name, value))| (name.as_str(), &**value))
    }

    /// Sets a value, in its place or at the end.
    ///
    /// # Errors
    /// When `value` cannot be JSON.
    pub fn set(&mut self, name: &str, value: &impl Serialize) -> serde_json::Result<()> {
        let raw = serde_json::value::to_raw_value(value)?;
        match self.0.iter_mut().rev().find(|(n, _)| n == name) {
            Some((_, old)) => *old = raw,
            None => self.0.push((name.to_owned(), raw)),
        }
        Ok(())
    }

    /// Takes a name out, wherever it stands. Was it there?
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(n, _)| n != name);
        self.0.len() < before
    }

    /// Gives a value another name, in its place.
    pub fn rename(&mut self, from: &str, to: &str) {
        for (name, _) in self.0.iter_mut().filter(|(name, _)| name == from) {
            to.clone_into(name);
        }
    }

    /// The whole as text: one line a name at this depth, each value as it was written.
    #[must_use]
    pub fn to_text(&self, depth: usize) -> String {
        if self.0.is_empty() {
            return "{}".to_owned();
        }
        let indent = "  ".repeat(depth + 1);
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| format!("{indent}{}: {}", serde_json::json!(name), value.get()))
            .collect();
        format!("{{\n{}\n{}}}", lines.join(",\n"), "  ".repeat(depth))
    }

    /// This object as a value of another one.
    ///
    /// # Errors
    /// Never for an object that was parsed; the signature follows `serde_json`.
    pub fn to_raw(&self, depth: usize) -> serde_json::Result<Box<RawValue>> {
        RawValue::from_string(self.to_text(depth))
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_stays_as_it_was_written() {
        let text = "{\n  \"b\": 1.50e3,\n  \"a\": {\"x\" :  [1,  2]},\n  \"\\u00e9\": \"\\u00e9\"\n}";
        let mut object = Object::parse(text).unwrap();
        assert_eq!(object.to_text(0), text.replace("\"\\u00e9\":", "\"é\":"));
        object.set("a", &7).unwrap();
        object.set("new", &"n").unwrap();
        assert!(object.remove("b") && !object.remove("b"));
        assert_eq!(
            object.to_text(0),
            "{\n  \"a\": 7,\n  \"é\": \"\\u00e9\",\n  \"new\": \"n\"\n}"
        );
        assert_eq!(Object::default().to_text(0), "{}");
    }

    #[test]
    fn the_last_of_two_equal_names_counts() {
        let object = Object::parse(r#"{"a":1,"b":2,"a":3}"#).unwrap();
        assert_eq!(object.get_as::<u8>("a"), Some(3));
        let names: Vec<_> = object.iter().map(|(n, v)| (n, v.get())).collect();
        assert_eq!(names, [("b", "2"), ("a", "3")]);
        assert!(Object::parse("[]").is_err() && Object::parse("").is_err());
    }
}
