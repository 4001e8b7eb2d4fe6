//! `data/model_router_config.json`: which model is asked for in place of which, and of whom.
//!
//! CLP's format: `{"mode": "default"|"model-mapping"|"config-mapping", "modelMappings": {"claude": [{"source",
//! "target", "source_type": "model"|"config"}]}, "configMappings": {"claude": [{"model", "config"}]}}`. The first rule
//! that fits counts. Beside exact names, `*` and `?` stand for any text and any character.

use super::FileError;
use super::object::Object;
use crate::service::Service;
use serde::Deserialize;
use std::path::Path;

/// One rule for the model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Mapping {
    /// A model's name (or pattern), or an upstream's.
    pub source: String,
    /// The model that is asked for instead.
    pub target: String,
    /// What `source` names.
    #[serde(default)]
    pub source_type: SourceType,
}

/// What a mapping goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceType {
    /// The model that was asked for.
    #[default]
    Model,
    /// The upstream that is asked.
    Config,
}

/// One rule for the upstream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Assignment {
    /// A model's name or pattern.
    pub model: String,
    /// The upstream that serves it.
    pub config: String,
}

/// The rules of one service that are in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Other models.
    pub mappings: Vec<Mapping>,
    /// Other upstreams.
    pub assignments: Vec<Assignment>,
}

/// The file.
#[derive(Debug, Clone, Default)]
pub struct Routes([Rules; 3]);

impl Routes {
    /// The rules of a service.
    #[must_use]
    pub fn of(&self, service: Service) -> &Rules {
        &self.0[service.index()]
    }

    /// Parses the file's text.
    ///
    /// # Errors
    /// When it is not JSON of this form.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let json = |e: &serde_json::Error| FileError::json(path, e);
        let file = Object::parse(text).map_err(|e| json(&e))?;
        let mode: String = file.get_as("mode").unwrap_or_default();
        let mut all = Self::default();
        for service in Service::ALL {
            let rules = &mut all.0[service.index()];
            match mode.as_str() {
                "model-mapping" => rules.mappings = list(path, &file, "modelMappings", service)?,
                "config-mapping" => rules.assignments = list(path, &file, "configMappings", service)?,
                _ => {}
            }
        }
        Ok(all)
    }
}

fn list<T: for<'de> Deserialize<'de>>(
    path: &Path,
    file: &Object,
    name: &str,
    service: Service,
) -> Result<Vec<T>, FileError> {
    let lists: Object = file.get_as(name).unwrap_or_default();
    let Some(value) = lists.get(service.name()) else {
        return Ok(Vec::new());
    };
    serde_json::from_str(value.get()).map_err(|e| FileError::Syntax {
        path: path.to_owned(),
        line: 1,
        column: 1,
        message: format!(
            "{name}.{service}: {}",
            e.to_string().split(" at line ").next().unwrap_or_default()
        ),
    })
}

impl Rules {
    /// The upstream that a model is for, if a rule says so.
    #[must_use]
    pub fn upstream_for(&self, model: &str) -> Option<&str> {
        let rule = self.assignments.iter().find(|rule| fits(&rule.model, model))?;
        Some(&rule.config)
    }

    /// The model to ask `upstream` for in place of `model`, if a rule says so.
    #[must_use]
    pub fn model_for(&self, upstream: &str, model: &str) -> Option<&str> {
        let rule = self.mappings.iter().find(|rule| match rule.source_type {
            SourceType::Model => fits(&rule.source, model),
            SourceType::Config => rule.source == upstream,
        })?;
        Some(&rule.target)
    }
}

/// Does `text` fit a pattern with `*` and `?`? In time that grows with the product of the lengths at most.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    // Most patterns do not fit at their first letters already. Both are UTF-8 and alike up to there, so that the rest
    // of neither begins in the middle of a character.
    let same = pattern
        .bytes()
        .zip(text.bytes())
        .take_while(|(p, t)| p == t && !matches!(p, b'*' | b'?'))
        .count();
    if !matches!(pattern.as_bytes().get(same), None | Some(b'*' | b'?')) {
        return false;
    }
    let (Some(pattern), Some(text)) = (pattern.get(same..), text.get(same..)) else {
        return false;
    };
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_counts() {
        let path = Path::new("r.json");
        let text = r#"{"mode":"model-mapping","modelMappings":{"claude":[
            {"source":"claude-opus-5","target":"glm-5","source_type":"model"},
            {"source":"relay","target":"kimi","source_type":"config"},
            {"source":"claude-*-haiku*","target":"small"}]},
            "configMappings":{"claude":[{"model":"m","config":"c"}]}}"#;
        let routes = Routes::parse(path, text).unwrap();
        let rules = routes.of(Service::Claude);
        assert_eq!(rules.model_for("x", "claude-opus-5"), Some("glm-5"));
        assert_eq!(rules.model_for("relay", "claude-4-haiku"), Some("kimi"));
        assert_eq!(rules.model_for("x", "claude-4-haiku-2026"), Some("small"));
        assert_eq!(rules.model_for("x", "other"), None);
        assert_eq!(rules.upstream_for("m"), None, "the other mode is on");
        let routes = Routes::parse(path, &text.replace("model-mapping", "config-mapping")).unwrap();
        assert_eq!(routes.of(Service::Claude).upstream_for("m"), Some("c"));
        assert!(Routes::parse(path, &text.replace("\"target\":\"glm-5\",", "")).is_err());
    }

    #[test]
    fn patterns_end_in_time() {
        assert!(fits("*", "") && fits("a*b*c", "a-b-b-c") && fits("a?c", "aéc") && !fits("a?c", "ac"));
        assert!(!fits(&"a*".repeat(2_000), &("a".repeat(1_000) + "b")));
    }
}
