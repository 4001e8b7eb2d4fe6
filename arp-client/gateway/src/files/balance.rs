//! `data/lb_config.json`: how requests are shared between upstreams, and who rests.
//!
//! CLP's format: `{"mode": …, "services": {"claude": {"failureThreshold": 3, "autoResetMinutes": 10,
//! "currentFailures": {NAME: n}, "excludedConfigs": [NAME], "excludedTimestamps": {NAME: epoch seconds},
//! "manualDisabledUntil": {NAME: "YYYY-MM-DD"}}}}`, with the older snake_case spellings of the same fields.

use super::FileError;
use super::object::Object;
use crate::service::Service;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

/// Failures in a row after which an upstream rests, where the file says nothing.
const FAILURE_THRESHOLD: u32 = 3;
/// Minutes that it rests.
const AUTO_RESET_MINUTES: f64 = 10.0;

/// Who is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The active one; after it, those that have a weight.
    #[default]
    ActiveFirst,
    /// The highest weight, then the next.
    WeightBased,
    /// In proportion to the weights (a word of ours; CLP has none for it).
    Proportional,
}

impl Mode {
    /// As the file has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ActiveFirst => "active-first",
            Self::WeightBased => "weight-based",
            Self::Proportional => "proportional",
        }
    }

    /// By that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::ActiveFirst, Self::WeightBased, Self::Proportional]
            .into_iter()
            .find(|mode| mode.name() == name)
    }
}

/// What the file says of one service.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Who is asked first.
    pub mode: Mode,
    /// Failures in a row after which an upstream rests.
    pub threshold: u32,
    /// Seconds that it rests.
    pub rest_secs: f64,
    /// Names that rest, and since when (Unix seconds).
    pub excluded: HashMap<String, f64>,
    /// Names that a person has switched off, until the end of that day (`YYYY-MM-DD`).
    pub disabled_until: HashMap<String, String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            threshold: FAILURE_THRESHOLD,
            rest_secs: AUTO_RESET_MINUTES * 60.0,
            excluded: HashMap::new(),
            disabled_until: HashMap::new(),
        }
    }
}

/// The file.
#[derive(Debug, Clone, Default)]
pub struct Balance([Rules; 3]);

impl Balance {
    /// What it says of a service.
    #[must_use]
    pub fn of(&self, service: Service) -> &Rules {
        &self.0[service.index()]
    }

    /// Parses the file's text.
    ///
    /// # Errors
    /// When it is not a JSON object, or names a mode that does not exist.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let file = Object::parse(text).map_err(|e| FileError::json(path, &e))?;
        let wrong = |message: String| FileError::Syntax {
            path: path.to_owned(),
            line: 1,
            column: 1,
            message,
        };
        let mode_of = |object: &Object| match object.get_as::<String>("mode") {
            Some(name) => Mode::parse(&name).map(Some).ok_or_else(|| {
                wrong(format!(
                    "\"mode\" is {name:?}: it is one of active-first, weight-based, proportional"
                ))
            }),
            None => Ok(None),
        };
        let mode = mode_of(&file)?.unwrap_or_default();
        let services: Object = file.get_as("services").unwrap_or_default();
        let mut all = Self::default();
        for service in Service::ALL {
            let rules = &mut all.0[service.index()];
            rules.mode = mode;
            let Some(object) = services.get_as::<Object>(service.name()) else {
                continue;
            };
            if let Some(own) = mode_of(&object)? {
                rules.mode = own;
            }
            rules.read(&object);
        }
        Ok(all)
    }
}

/// A field by its new or its old name.
fn field<T: for<'de> Deserialize<'de>>(object: &Object, names: [&str; 2]) -> Option<T> {
    names.into_iter().find_map(|name| object.get_as(name))
}

impl Rules {
    fn read(&mut self, object: &Object) {
        if let Some(n) = field::<u32>(object, ["failureThreshold", "failover_count"]) {
            self.threshold = n.max(1);
        }
        if let Some(minutes) = field::<f64>(object, ["autoResetMinutes", "auto_reset_minutes"])
            && minutes.is_finite()
            && minutes >= 0.0
        {
            self.rest_secs = minutes * 60.0;
        }
        let since: HashMap<String, f64> =
            field(object, ["excludedTimestamps", "excluded_timestamps"]).unwrap_or_default();
        let names: Vec<String> = field(object, ["excludedConfigs", "excluded_configs"]).unwrap_or_default();
        self.excluded = names
            .into_iter()
            .map(|name| {
                let at = since.get(&name).copied().unwrap_or(0.0);
                (name, at)
            })
            .collect();
        self.disabled_until =
            field(object, ["manualDisabledUntil", "manual_disabled_until"]).unwrap_or_default();
    }
}

/// The name under which a service's object has a field: the old one where only that is there.
#[must_use]
pub fn spelled(own: &Object, new: &'static str, old: &'static str) -> &'static str {
    if own.get(new).is_none() && own.get(old).is_some() {
        old
    } else {
        new
    }
}

/// The file with a change to the object of one service. All else stays.
///
/// # Errors
/// When the text is not a JSON object.
pub fn edited(
    path: &Path,
    text: &str,
    service: Service,
    edit: impl FnOnce(&mut Object) -> serde_json::Result<()>,
) -> Result<String, FileError> {
    let json = |e: serde_json::Error| FileError::json(path, &e);
    let mut file = if text.trim().is_empty() {
        let mut new = Object::default();
        new.set("mode", &Mode::default().name()).map_err(json)?;
        new
    } else {
        Object::parse(text).map_err(json)?
    };
    let mut services: Object = file.get_as("services").unwrap_or_default();
    let mut own: Object = services.get_as(service.name()).unwrap_or_default();
    edit(&mut own).map_err(json)?;
    services
        .set(service.name(), &own.to_raw(2).map_err(json)?)
        .map_err(json)?;
    file.set("services", &services.to_raw(1).map_err(json)?)
        .map_err(json)?;
    Ok(file.to_text(0) + "\n")
}

/// Switches an upstream off until the end of a day, or on again.
///
/// # Errors
/// Never for names and days that are texts; the signature follows `serde_json`.
pub fn disable(own: &mut Object, name: &str, until: Option<&str>) -> serde_json::Result<()> {
    let field = spelled(own, "manualDisabledUntil", "manual_disabled_until");
    let mut all: Object = own.get_as(field).unwrap_or_default();
    match until {
        Some(until) => all.set(name, &until)?,
        None => drop(all.remove(name)),
    }
    own.set(field, &all)
}

/// Is this a day as `YYYY-MM-DD`?
#[must_use]
pub fn is_day(text: &str) -> bool {
    let format = time::macros::format_description!("[year]-[month]-[day]");
    text.len() == 10 && time::Date::parse(text, format).is_ok()
}

/// What the gateway notes in the file: failures in a row and who rests since when, of one service. All else stays.
///
/// # Errors
/// When the text is not a JSON object.
pub fn noted(
    path: &Path,
    text: &str,
    service: Service,
    failures: &[(String, u32)],
    excluded: &[(String, f64)],
) -> Result<String, FileError> {
    edited(path, text, service, |own| {
        for (name, old, value) in [
            ("failureThreshold", "failover_count", 3),
            ("autoResetMinutes", "auto_reset_minutes", 10),
        ] {
            if own.get(name).is_none() && own.get(old).is_none() {
                own.set(name, &value)?;
            }
        }
        let counts: serde_json::Map<_, _> = failures.iter().map(|(n, c)| (n.clone(), (*c).into())).collect();
        own.set(spelled(own, "currentFailures", "current_failures"), &counts)?;
        let names: Vec<&String> = excluded.iter().map(|(n, _)| n).collect();
        own.set(spelled(own, "excludedConfigs", "excluded_configs"), &names)?;
        let since: serde_json::Map<_, _> = excluded.iter().map(|(n, at)| (n.clone(), (*at).into())).collect();
        own.set(spelled(own, "excludedTimestamps", "excluded_timestamps"), &since)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read_and_kept() {
        let path = Path::new("lb_config.json");
        let text = r#"{"mode":"weight-based","mine":1.0,"services":{
            "claude":{"failover_count":2,"auto_reset_minutes":1,"excluded_configs":["a","b"],
                      "excluded_timestamps":{"a":5.5},"manual_disabled_until":{"c":"2026-12-01"}},
            "codex":{"mode":"proportional","failureThreshold":0}}}"#;
        let all = Balance::parse(path, text).unwrap();
        let claude = all.of(Service::Claude);
        assert_eq!(
            (claude.mode, claude.threshold, claude.rest_secs),
            (Mode::WeightBased, 2, 60.0)
        );
        assert_eq!((claude.excluded["a"], claude.excluded["b"]), (5.5, 0.0));
        assert_eq!(claude.disabled_until["c"], "2026-12-01");
        let codex = all.of(Service::Codex);
        assert_eq!((codex.mode, codex.threshold), (Mode::Proportional, 1));
        assert_eq!(all.of(Service::Gemini).threshold, 3);

        let after = noted(
            path,
            text,
            Service::Claude,
            &[("a".into(), 2)],
            &[("a".into(), 9.0)],
        )
        .unwrap();
        assert!(after.contains("\"mine\": 1.0"), "{after}");
        let again = Balance::parse(path, &after).unwrap();
        assert_eq!(
            again.of(Service::Claude).excluded,
            HashMap::from([("a".to_owned(), 9.0)])
        );
        assert_eq!(again.of(Service::Claude).disabled_until["c"], "2026-12-01");
        assert_eq!(again.of(Service::Codex).mode, Mode::Proportional);
        let off = edited(path, &after, Service::Claude, |own| {
            disable(own, "a", Some("2999-01-01"))
        })
        .unwrap();
        let off = Balance::parse(
            path,
            &edited(path, &off, Service::Claude, |own| disable(own, "c", None)).unwrap(),
        );
        let off = off.unwrap();
        let until = &off.of(Service::Claude).disabled_until;
        assert_eq!(until, &HashMap::from([("a".to_owned(), "2999-01-01".to_owned())]));
        assert!(is_day("2026-02-28") && !is_day("2026-02-30") && !is_day("26-02-28"));
    }

    #[test]
    fn a_mode_that_does_not_exist_is_told() {
        let path = Path::new("lb_config.json");
        let error = Balance::parse(path, r#"{"mode":"random"}"#)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("active-first, weight-based, proportional"),
            "{error}"
        );
        assert_eq!(
            Balance::parse(path, "").unwrap().of(Service::Claude).mode,
            Mode::ActiveFirst
        );
    }
}
