//! A TOML table, read field by field: every spelling that is in use, every fault told, nothing passed over.

use arp_common::protocol::Secret;
use std::time::Duration;
use toml::{Table, Value};

/// Looks a variable of the environment up.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The fields of one table that were not asked for yet.
pub(super) struct Fields<'a> {
    path: &'static str,
    table: Table,
    known: Vec<&'static str>,
    variables: Variables<'a>,
    /// A missing variable is a fault only where the table is used.
    used: bool,
    faults: &'a mut Vec<String>,
}

impl<'a> Fields<'a> {
    /// The table at `path`; keys may be written with `-` or `_`.
    pub(super) fn new(
        path: &'static str,
        table: Option<Value>,
        used: bool,
        variables: Variables<'a>,
        faults: &'a mut Vec<String>,
    ) -> Self {
        let table = match table {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(_) => {
                faults.push(format!("[{path}] must be a table"));
                Table::new()
            }
        };
        let table = table
            .into_iter()
            .map(|(key, value)| (key.replace('-', "_"), value))
            .collect();
        Self {
            path,
            table,
            known: Vec::new(),
            variables,
            used,
            faults,
        }
    }

    /// A table inside.
    pub(super) fn table(&mut self, name: &'static str) -> Option<Value> {
        self.take(&[name])
    }

    /// A text in which `${NAME}` stands for a variable of the environment.
    pub(super) fn text(&mut self, names: &[&'static str]) -> Option<String> {
        let text = self.verbatim(names)?;
        match expand(&text, self.variables) {
            Ok(text) => Some(text).filter(|text| !text.is_empty()),
            Err(missing) => {
                if self.used {
                    let hint = "set it, or take the line away";
                    self.fault(
                        names[0],
                        &format!("the variable {missing} is not in the environment; {hint}"),
                    );
                }
                None
            }
        }
    }

    /// A text that is taken as it stands.
    pub(super) fn verbatim(&mut self, names: &[&'static str]) -> Option<String> {
        match self.take(names)? {
            Value::String(text) => Some(text).filter(|text| !text.trim().is_empty()),
            _ => {
                self.fault(names[0], "must be a text in quotes");
                None
            }
        }
    }

    /// A secret.
    pub(super) fn secret(&mut self, names: &[&'static str]) -> Option<Secret> {
        self.text(names).map(|text| Secret::new(text.trim()))
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, names: &[&'static str]) -> Vec<String> {
        let Some(value) = self.take(names) else {
            return Vec::new();
        };
        let texts = match value {
            Value::Array(values) => values
                .into_iter()
                .map(|value| match value {
                    Value::String(text) => Some(text),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        texts.unwrap_or_else(|| {
            self.fault(
                names[0],
                "must be a list of texts, such as [\"--port\", \"{port}\"]",
            );
            Vec::new()
        })
    }

    pub(super) fn flag(&mut self, names: &[&'static str]) -> Option<bool> {
        match self.take(names)? {
            Value::Boolean(flag) => Some(flag),
            _ => {
                self.fault(names[0], "must be true or false");
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn number(&mut self, names: &[&'static str], min: u64, max: u64) -> Option<u64> {
        let number = match self.take(names)? {
            Value::Integer(number) => u64::try_from(number)
                .ok()
                .filter(|number| (min..=max).contains(number)),
            _ => None,
        };
        if number.is_none() {
            self.fault(names[0], &format!("must be a whole number from {min} to {max}"));
        }
        number
    }

    pub(super) fn port(&mut self, names: &[&'static str]) -> Option<u16> {
        self.number(names, 1, u64::from(u16::MAX))
            .and_then(|port| u16::try_from(port).ok())
    }

    pub(super) fn seconds(&mut self, names: &[&'static str]) -> Option<Duration> {
        self.number(names, 1, 86_400).map(Duration::from_secs)
    }

    pub(super) fn millis(&mut self, names: &[&'static str]) -> Option<Duration> {
        self.number(names, 1, 86_400_000).map(Duration::from_millis)
    }

    /// Something is wrong with a field.
    pub(super) fn fault(&mut self, name: &str, what: &str) {
        self.faults.push(format!("[{}] {name}: {what}", self.path));
    }

    /// Nothing more is asked for: what is left is a mistake.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let known = self.known.join(", ");
            self.faults.push(format!(
                "[{}] {key}: no such setting; there are {known}",
                self.path
            ));
        }
    }

    fn take(&mut self, names: &[&'static str]) -> Option<Value> {
        self.known.extend(names.first());
        let mut found: Option<(&str, Value)> = None;
        for &name in names {
            let Some(value) = self.table.remove(name) else {
                continue;
            };
            match &found {
                None => found = Some((name, value)),
                Some((first, _)) => {
                    let what = format!("is given as {first} too; one of the two is enough");
                    self.fault(name, &what);
                }
            }
        }
        found.map(|(_, value)| value)
    }
}

/// Puts variables in. The error is the name of one that is missing.
pub(super) fn expand(text: &str, variables: Variables<'_>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let Some(end) = rest[at..].find('}') else { break };
        let name = &rest[at + 2..at + end];
        out.push_str(&rest[..at]);
        match variables(name).filter(|value| !value.is_empty()) {
            Some(value) => out.push_str(&value),
            None => return Err(name.to_owned()),
        }
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}
