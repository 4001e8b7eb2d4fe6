//! The string values of a JSON text, looked at and changed one by one; every byte that is not part of a changed one
//! stays as it is.

use std::borrow::Cow;

/// Deepest nesting that is followed; nothing that an agent sends comes near it.
const MAX_DEPTH: usize = 256;

/// The text is no JSON, at this byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not JSON at byte {0}")]
pub struct NotJson(pub usize);

/// Where a string value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At<'a> {
    /// The name that it is the value of; for the items of an array, the array's.
    pub key: &'a str,
    /// The name that the object around it is the value of.
    pub parent: &'a str,
    /// Is it inside what a tool was given or gave? There names mean what the tool likes: an `id` may be a person's.
    pub free: bool,
}

/// Does what a tool was given or gave begin here?
fn is_free(key: &str, parent: &str) -> bool {
    matches!(
        (parent, key),
        ("content" | "content_block", "input")
            | ("functionCall" | "function_call", "args")
            | ("functionResponse" | "function_response", "response")
    )
}

/// Calls `change` for each string value (never for a name), unescaped, with the place where it stands; puts what it
/// returns in its place. `None` if nothing changes.
///
/// # Errors
/// When the text is not JSON, as far as strings, brackets and their order go.
pub fn rewrite(
    text: &[u8],
    mut change: impl FnMut(At<'_>, &str) -> Option<String>,
) -> Result<Option<Vec<u8>>, NotJson> {
    let mut scan = Scan {
        text,
        at: 0,
        out: None,
        copied: 0,
    };
    let top = At {
        key: "",
        parent: "",
        free: false,
    };
    scan.value(top, 0, &mut change)?;
    scan.space();
    if scan.at < text.len() {
        return Err(NotJson(scan.at));
    }
    let copied = scan.copied;
    Ok(scan.out.map(|mut out| {
        out.extend_from_slice(&text[copied..]);
        out
    }))
}

struct Scan<'t> {
    text: &'t [u8],
    at: usize,
    out: Option<Vec<u8>>,
    /// Of `text`, so much is in `out`.
    copied: usize,
}

impl<'t> Scan<'t> {
    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.text.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), NotJson> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(NotJson(self.at))
    }

    fn value(
        &mut self,
        place: At<'_>,
        depth: usize,
        change: &mut impl FnMut(At<'_>, &str) -> Option<String>,
    ) -> Result<(), NotJson> {
        if depth > MAX_DEPTH {
            return Err(NotJson(self.at));
        }
        match self.peek().ok_or(NotJson(self.at))? {
            b'"' => {
                let start = self.at;
                let text = self.string()?;
                if let Some(new) = change(place, &text) {
                    let copied = self.copied;
                    let out = self
                        .out
                        .get_or_insert_with(|| Vec::with_capacity(self.text.len()));
                    out.extend_from_slice(&self.text[copied..start]);
                    serde_json::to_writer(out, &new).map_err(|_| NotJson(start))?;
                    self.copied = self.at;
                }
                Ok(())
            }
            b'{' => {
                self.at += 1;
                if self.peek() == Some(b'}') {
                    self.at += 1;
                    return Ok(());
                }
                loop {
                    self.space();
                    let key = self.string()?;
                    self.expect(b':')?;
                    let inner = At {
                        key: &key,
                        parent: place.key,
                        free: place.free || is_free(&key, place.key),
                    };
                    self.value(inner, depth + 1, change)?;
                    match self.peek() {
                        Some(b',') => self.at += 1,
                        Some(b'}') => {
                            self.at += 1;
                            return Ok(());
                        }
                        _ => return Err(NotJson(self.at)),
                    }
                }
            }
            b'[' => {
                self.at += 1;
                if self.peek() == Some(b']') {
                    self.at += 1;
                    return Ok(());
                }
                loop {
                    self.value(place, depth + 1, change)?;
                    match self.peek() {
                        Some(b',') => self.at += 1,
                        Some(b']') => {
                            self.at += 1;
                            return Ok(());
                        }
                        _ => return Err(NotJson(self.at)),
                    }
                }
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                while matches!(
                    self.text.get(self.at),
                    Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E')
                ) {
                    self.at += 1;
                }
                Ok(())
            }
            _ => Err(NotJson(self.at)),
        }
    }

    /// The string that begins here, unescaped.
    fn string(&mut self) -> Result<Cow<'t, str>, NotJson> {
        let start = self.at;
        if self.text.get(start) != Some(&b'"') {
            return Err(NotJson(start));
        }
        let mut escaped = false;
        let mut at = start + 1;
        loop {
            let found = memchr::memchr2(b'"', b'\\', self.text.get(at..).unwrap_or_default());
            at += found.ok_or(NotJson(start))?;
            if self.text[at] == b'"' {
                break;
            }
            escaped = true;
            at += 2;
        }
        self.at = at + 1;
        let wrong = |_| NotJson(start);
        if escaped {
            let whole = std::str::from_utf8(&self.text[start..=at]).map_err(wrong)?;
            return serde_json::from_str(whole)
                .map(Cow::Owned)
                .map_err(|_| NotJson(start));
        }
        std::str::from_utf8(&self.text[start + 1..at])
            .map(Cow::Borrowed)
            .map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn upper(text: &str) -> Result<Option<String>, NotJson> {
        let new = rewrite(text.as_bytes(), |at, value| {
            (value.contains('x') && at.key != "keep").then(|| value.to_uppercase())
        })?;
        Ok(new.map(|new| String::from_utf8(new).unwrap()))
    }

    #[test]
    fn values_change_and_all_else_stays() {
        let text = r#" {"x": 1.50e3,"a" :[ "x\"y",{"x":"z"} , "ax"],"keep":["x"], "u":"\u0078\n" } "#;
        assert_eq!(
            upper(text).unwrap().unwrap(),
            r#" {"x": 1.50e3,"a" :[ "X\"Y",{"x":"z"} , "AX"],"keep":["x"], "u":"X\n" } "#
        );
        assert_eq!(
            upper(r#"{"a":[],"b":{},"c":null,"d":-1.0E+9,"e":true}"#),
            Ok(None)
        );
        let mut seen = Vec::new();
        let text = br#"{"source":{"data":"1"},"m":[{"n":["2"]}]}"#;
        rewrite(text, |at, value| {
            seen.push((at.parent.to_owned(), at.key.to_owned(), value.to_owned()));
            None
        })
        .unwrap();
        let text = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(seen, [text("source", "data", "1"), text("m", "n", "2")]);
    }

    #[test]
    fn what_is_no_json_is_told() {
        for text in [
            "",
            "{",
            "[1,]",
            r#"{"a" 1}"#,
            r#"{"a":"x}"#,
            r#"["x"] y"#,
            "\"\\",
            r#"["\q"]"#,
            "{1:2}",
        ] {
            assert!(upper(text).is_err(), "{text}");
        }
        assert!(upper(&"[".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_in_any_string_comes_out_changed(texts in proptest::collection::vec(".{0,12}", 0..6)) {
            let value = serde_json::json!({"list": texts});
            let new = rewrite(value.to_string().as_bytes(), |_, text| Some(format!("{text}!"))).unwrap();
            let wanted: Vec<String> = texts.iter().map(|t| format!("{t}!")).collect();
            match new {
                Some(new) => prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&new).unwrap(), serde_json::json!({"list": wanted})),
                None => prop_assert!(texts.is_empty()),
            }
        }
    }
}
