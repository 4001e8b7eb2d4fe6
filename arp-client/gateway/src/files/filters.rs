//! `filter.json`: CLP's rules, a list or one object of `{"source": S, "target": T, "op": "replace"|"remove"}`.
//!
//! `S` is a pattern in which `.` stands for line ends, too; what is no pattern at all is taken as it is written. In
//! `T`, `\1` and `\g<1>` stand for groups. Here the rules change the string values of a request, never its raw bytes.

use super::FileError;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Largest program that a pattern may become, in bytes.
const MAX_PATTERN: usize = 4 << 20;

/// A rule, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What is looked for.
    pub source: String,
    /// What stands in its place.
    #[serde(default)]
    pub target: String,
    /// What happens.
    pub op: Op,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Puts `target` in its place.
    Replace,
    /// Takes it out.
    Remove,
}

/// A rule, ready to be used.
#[derive(Debug, Clone)]
pub struct Rule {
    /// As the file has it.
    pub entry: Entry,
    pattern: Regex,
    target: String,
}

impl Rule {
    fn new(entry: Entry) -> Result<Self, String> {
        let compile = |source: &str| {
            RegexBuilder::new(source)
                .dot_matches_new_line(true)
                .size_limit(MAX_PATTERN)
                .build()
        };
        // Patterns that CLP understands and we do not would let through what they are to stop.
        let foreign = ["(?=", "(?!", "(?<=", "(?<!", "(?(", "(?>"]
            .iter()
            .any(|word| entry.source.contains(word))
            || has_reference(&entry.source);
        if entry.source.is_empty() {
            return Err("its source is empty".to_owned());
        }
        let pattern = match compile(&entry.source) {
            Ok(pattern) => pattern,
            Err(_) if foreign => {
                return Err(format!(
                    "its source {:?} looks around or back, which patterns here cannot; write it without",
                    entry.source
                ));
            }
            Err(regex::Error::CompiledTooBig(_)) => {
                return Err(format!("its source {:?} is too large a pattern", entry.source));
            }
            // As CLP does.
            Err(_) => compile(&regex::escape(&entry.source)).map_err(|e| e.to_string())?,
        };
        let target = match entry.op {
            Op::Replace => replacement(&entry.target),
            Op::Remove => String::new(),
        };
        Ok(Self {
            entry,
            pattern,
            target,
        })
    }

    /// `text` after this rule, and how often it held; `None` if it did not.
    #[must_use]
    pub fn apply(&self, text: &str) -> Option<(String, usize)> {
        let count = self.pattern.find_iter(text).count();
        (count > 0).then(|| {
            (
                self.pattern.replace_all(text, self.target.as_str()).into_owned(),
                count,
            )
        })
    }

    /// `text` with this mark in each place where it holds; `None` if it does not.
    #[must_use]
    pub fn marked(&self, text: &str, mark: &str) -> Option<String> {
        let found = self.pattern.is_match(text);
        found.then(|| self.pattern.replace_all(text, regex::NoExpand(mark)).into_owned())
    }

    /// The first place where it holds.
    #[must_use]
    pub fn example<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.pattern.find(text).map(|found| found.as_str())
    }
}

/// Does a pattern refer back to a group of its own?
fn has_reference(source: &str) -> bool {
    let mut escaped = false;
    for c in source.chars() {
        if escaped && matches!(c, '1'..='9') {
            return true;
        }
        escaped = c == '\\' && !escaped;
    }
    source.contains("(?P=")
}

/// Python's form of a replacement in ours.
fn replacement(target: &str) -> String {
    let mut out = String::new();
    let mut rest = target;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '$' => out.push_str("$$"),
            '\\' => {
                if let Some((name, after)) = rest.strip_prefix("g<").and_then(|r| r.split_once('>')) {
                    out.push_str(&format!("${{{name}}}"));
                    rest = after;
                    continue;
                }
                let digits = rest.bytes().take(2).take_while(u8::is_ascii_digit).count();
                if digits > 0 && !rest.starts_with('0') {
                    out.push_str(&format!("${{{}}}", &rest[..digits]));
                    rest = &rest[digits..];
                    continue;
                }
                let Some(next) = rest.chars().next() else {
                    out.push('\\');
                    break;
                };
                rest = &rest[next.len_utf8()..];
                match next {
                    'n' => out.push('\n'),
                    't' => out.push('\t'),
                    'r' => out.push('\r'),
                    '\\' => out.push('\\'),
                    '$' => out.push_str("\\$$"),
                    other => {
                        out.push('\\');
                        out.push(other);
                    }
                }
            }
            other => out.push(other),
        }
    }
    out
}

/// The file.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// In order.
    pub rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<serde_json::Value>),
    One(serde_json::Value),
}

impl Filters {
    /// Parses the file's text.
    ///
    /// # Errors
    /// When it is not JSON, or an entry is no rule: nothing may pass because of a typing error.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let file: OneOrMany = serde_json::from_str(text).map_err(|e| FileError::json(path, &e))?;
        let entries = match file {
            OneOrMany::Many(entries) => entries,
            // An empty object is what CLP writes where there is no rule.
            OneOrMany::One(serde_json::Value::Object(o)) if o.is_empty() => Vec::new(),
            OneOrMany::One(entry) => vec![entry],
        };
        let rules = entries.into_iter().enumerate().map(|(at, entry)| {
            let wrong = |message: String| FileError::Syntax {
                path: path.to_owned(),
                line: 1,
                column: 1,
                message: format!("rule {}: {message}", at + 1),
            };
            let entry: Entry = serde_json::from_value(entry).map_err(|e| {
                wrong(format!(
                    "{e}; a rule has \"source\", \"target\" and \"op\" (replace or remove)"
                ))
            })?;
            Rule::new(entry).map_err(wrong)
        });
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    /// The file's text for these rules.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn to_text(path: &Path, entries: &[Entry]) -> Result<String, FileError> {
        let text = serde_json::to_string_pretty(entries).map_err(|e| FileError::json(path, &e))?;
        Self::parse(path, &text)?;
        Ok(text + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(text: &str) -> Result<Filters, String> {
        Filters::parse(Path::new("filter.json"), text).map_err(|e| e.to_string())
    }

    fn applied(rule: &str, text: &str) -> String {
        let all = filters(rule).unwrap();
        all.rules.iter().fold(text.to_owned(), |text, rule| {
            rule.apply(&text).map_or(text.clone(), |(new, _)| new)
        })
    }

    #[test]
    fn rules_do_what_clp_does() {
        assert_eq!(
            applied(
                r#"[{"source":"sk-\\w+","target":"KEY","op":"replace"}]"#,
                "a sk-1 b sk-2"
            ),
            "a KEY b KEY"
        );
        assert_eq!(
            applied(
                r#"{"source":"<(.)>.<","target":"\\1$\\g<1>\\n","op":"replace"}"#,
                "<a>\n<"
            ),
            "a$a\n"
        );
        assert_eq!(
            applied(r#"{"source":"sk-[","target":"x","op":"remove"}"#, "1sk-[2"),
            "12"
        );
        assert_eq!(applied("{}", "x"), "x");
    }

    #[test]
    fn what_is_no_rule_is_told() {
        for (rule, said) in [
            ("[", "filter.json:1:1"),
            (r#"[{"source":"x","target":"y"}]"#, "rule 1: missing field `op`"),
            (r#"[{"source":"x","op":"drop"}]"#, "unknown variant `drop`"),
            (r#"[{"source":"(?<=a)b","op":"remove"}]"#, "looks around"),
            (r#"[{"source":"(a)\\1","op":"remove"}]"#, "looks around"),
            (r#"[{"source":"","op":"remove"}]"#, "empty"),
        ] {
            let error = filters(rule).unwrap_err();
            assert!(error.contains(said), "{rule}: {error}");
        }
    }
}
