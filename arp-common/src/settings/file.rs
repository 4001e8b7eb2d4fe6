//! A TOML file of settings, read key by key, so that what is wrong can be told in words and all at once.

use super::{ConfigError, key_of};
use crate::logging::LogFormat;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use toml::Value;

/// Below this likeness (0 to 1) a key is not taken for a misspelt one.
const ALIKE: f64 = 0.75;

/// What a setting has to be, for people.
pub trait Words {
    /// Such as "a whole number".
    const WORDS: &'static str;
    /// A value, as it stands in a file; nothing where it takes a table.
    const EXAMPLE: &'static str;
}

macro_rules! words {
    ($($ty:ty => $words:literal, $example:literal,)+) => {
        $(impl Words for $ty {
            const WORDS: &'static str = $words;
            const EXAMPLE: &'static str = $example;
        })+
    };
}

words! {
    bool => "true or false", "false",
    u16 => "a whole number from 0 to 65535", "17000",
    u64 => "a whole number, 0 or more", "30",
    usize => "a whole number, 0 or more", "5",
    LogFormat => "\"text\" or \"json\"", "\"json\"",
    String => "a text in quotes", "\"text\"",
    PathBuf => "a path in quotes", "\"/path/to/file\"",
    IpAddr => "an IP address in quotes, such as \"0.0.0.0\"", "\"0.0.0.0\"",
    SocketAddr => "an IP address and a port in quotes, such as \"127.0.0.1:9020\"", "\"127.0.0.1:9020\"",
    Vec<String> => "a list of texts in brackets, such as [\"one\", \"two\"]", "[\"one\", \"two\"]",
    Vec<PathBuf> => "a list of paths in brackets, such as [\"/one\", \"/two\"]", "[\"/one\", \"/two\"]",
    Vec<u16> => "a list of whole numbers from 0 to 65535 in brackets, such as [3000, 8080]", "[3000, 8080]",
}

impl<T> Words for BTreeMap<String, T> {
    const WORDS: &'static str = "a table of its own, such as [acp.NAME] with lines below it";
    const EXAMPLE: &'static str = "";
}

/// The keys of a file that have not been taken yet.
#[derive(Debug)]
pub struct Table<'a> {
    name: &'a str,
    text: &'a str,
    values: toml::Table,
    faults: Vec<String>,
}

impl<'a> Table<'a> {
    /// Reads a file's text; `name` is what it is called in messages.
    ///
    /// # Errors
    /// If it is not TOML.
    pub fn parse(text: &'a str, name: &'a str) -> Result<Self, ConfigError> {
        let values = text.parse::<toml::Table>().map_err(|e| {
            let line = e.span().map_or(1, |span| line_at(text, span.start));
            ConfigError(vec![format!(
                "{name} line {line}: {}; a line looks like `key = \"text\"` or `key = 7`",
                e.message().lines().next().unwrap_or("this is not TOML")
            )])
        })?;
        Ok(Self {
            name,
            text,
            values,
            faults: Vec::new(),
        })
    }

    /// Takes the value of a field's key, if it is there and is what it has to be.
    pub fn take<T: DeserializeOwned + Words>(&mut self, field: &str) -> Option<T> {
        let key = key_of(field);
        let value = self.values.remove(&key)?;
        let is = words_of(&value);
        match value.try_into() {
            Ok(value) => Some(value),
            Err(e) => {
                let at = self.at(&key);
                self.faults.push(if is == TABLE && T::WORDS.contains("table") {
                    // Inside of a table only the error knows what is wrong.
                    let what = e.message().replace("unknown field", "there is no key");
                    format!("{at}: in [{key}]: {what}")
                } else {
                    format!("{at}: {key} has to be {}, and is {is}", T::WORDS)
                });
                None
            }
        }
    }

    /// All that was wrong, with the keys that nobody took: those that there are, are `known`.
    ///
    /// # Errors
    /// If anything was.
    pub fn finish(mut self, known: &[String]) -> Result<(), ConfigError> {
        for key in self.values.keys() {
            let wanted = key.replace('_', "-").to_ascii_lowercase();
            let likeness = |other: &String| strsim::jaro_winkler(&wanted, other);
            let nearest = known
                .iter()
                .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
                .filter(|k| likeness(k) >= ALIKE);
            let hint = match nearest {
                Some(nearest) => format!("did you mean {nearest}?"),
                None => "--help lists them: they are called as the flags are".to_owned(),
            };
            self.faults.push(format!(
                "{}: there is no setting called {key}; {hint}",
                self.at(key)
            ));
        }
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(ConfigError(self.faults))
        }
    }

    /// The file, and the line where a key stands.
    fn at(&self, key: &str) -> String {
        let here = |line: &str| {
            let line = line.trim_start().trim_start_matches('[').trim_start_matches('"');
            line.strip_prefix(key)
                .is_some_and(|rest| rest.starts_with([' ', '\t', '=', '.', ']', '"']))
        };
        match self.text.lines().position(here) {
            Some(at) => format!("{} line {}", self.name, at + 1),
            None => self.name.to_owned(),
        }
    }
}

const TABLE: &str = "a table";

/// What a value is, without telling it: it may be a secret.
fn words_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a number",
        Value::Float(_) => "a number with a point",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => TABLE,
    }
}

fn line_at(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|b| *b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let mut table = match Table::parse(text, "f.toml") {
            Ok(table) => table,
            Err(e) => return e.0,
        };
        let _: Option<u16> = table.take("public_port");
        let _: Option<Vec<String>> = table.take("token");
        let _: Option<bool> = table.take("plaintext");
        let _: Option<IpAddr> = table.take("bind");
        let known = ["public-port", "token", "plaintext", "bind"].map(str::to_owned);
        table.finish(&known).map_or_else(|e| e.0, |()| Vec::new())
    }

    #[test]
    fn what_is_wrong_is_told_in_words_with_its_line_and_all_at_once() {
        assert!(faults("public-port = 80\ntoken = [\"a\"]\nbind = \"::1\"").is_empty());
        let told = faults(
            "\npublic-port = \"80\"\ntoken = \"hunter2\"\nplaintext = 1\nbind = \"x\"\npublic_prt = 1\nzzz = 1",
        );
        assert_eq!(
            told,
            [
                "f.toml line 2: public-port has to be a whole number from 0 to 65535, and is a text",
                "f.toml line 3: token has to be a list of texts in brackets, such as [\"one\", \"two\"], and is a text",
                "f.toml line 4: plaintext has to be true or false, and is a number",
                "f.toml line 5: bind has to be an IP address in quotes, such as \"0.0.0.0\", and is a text",
                "f.toml line 6: there is no setting called public_prt; did you mean public-port?",
                "f.toml line 7: there is no setting called zzz; --help lists them: they are called as the flags are",
            ]
        );
        assert_eq!(
            faults("public-port = 70000"),
            ["f.toml line 1: public-port has to be a whole number from 0 to 65535, and is a number"]
        );
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line() {
        let told = faults("public-port = 80\nplaintext\n");
        assert!(
            told.len() == 1 && told[0].starts_with("f.toml line 2: ") && !told[0].contains("u16"),
            "{told:?}"
        );
    }
}
