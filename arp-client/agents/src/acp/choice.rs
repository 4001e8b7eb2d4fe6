//! What an ACP session offers to choose from: its models and its modes. Agents tell it in one of two ways,
//! as lists of their own or as configuration options.

use super::Habits;
use crate::driver::PermissionMode;
use crate::event::ModelChoice;
use crate::text::{array_at, str_at, string_at};
use serde_json::{Value, json};

/// What is to be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setting {
    Mode(String),
    Model(String),
}

/// One thing that can be chosen.
#[derive(Debug, Clone, Default)]
pub(super) struct Choice {
    /// The configuration option to set; without, the method made for it.
    option: Option<String>,
    pub(super) current: Option<String>,
    pub(super) offered: Vec<ModelChoice>,
}

/// Both of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Choices {
    pub(super) mode: Choice,
    pub(super) model: Choice,
}

impl Choices {
    /// From the answer to `session/new` or `session/load`.
    pub(super) fn read(answer: &Value) -> Self {
        let listed = |key: &str, list: &str, id: &str, current: &str| {
            let Some(group) = answer.get(key) else {
                return Choice::default();
            };
            Choice {
                option: None,
                current: string_at(group, current),
                offered: array_at(group, list)
                    .iter()
                    .filter_map(|item| choice(item, id))
                    .collect(),
            }
        };
        let mut choices = Self {
            mode: listed("modes", "availableModes", "id", "currentModeId"),
            model: listed("models", "availableModels", "modelId", "currentModelId"),
        };
        for option in array_at(answer, "configOptions") {
            let target = match str_at(option, "category") {
                Some("mode") => &mut choices.mode,
                Some("model") => &mut choices.model,
                _ => continue,
            };
            if target.offered.is_empty() {
                *target = Choice {
                    option: string_at(option, "id"),
                    current: string_at(option, "currentValue"),
                    offered: array_at(option, "options")
                        .iter()
                        .filter_map(|item| choice(item, "value"))
                        .collect(),
                };
            }
        }
        choices
    }

    /// The request that chooses the model: method and parameters.
    pub(super) fn set_model(&self, session: &str, model: &str) -> (&'static str, Value) {
        self.model.set(session, model, "session/set_model", "modelId")
    }

    /// The request that chooses the mode.
    pub(super) fn set_mode(&self, session: &str, mode: &str) -> (&'static str, Value) {
        self.mode.set(session, mode, "session/set_mode", "modeId")
    }

    /// Which of the two a `session/set_config_option` request set.
    pub(super) fn setting(&self, params: &Value, value: String) -> Setting {
        if self.mode.option.is_some() && self.mode.option.as_deref() == str_at(params, "configId") {
            Setting::Mode(value)
        } else {
            Setting::Model(value)
        }
    }

    /// The agent's own name of one of our modes, if it has such a one.
    pub(super) fn mode_named(&self, mode: PermissionMode, habits: &Habits) -> Option<String> {
        if let Some(own) = habits.modes.get(&mode) {
            return Some(own.clone());
        }
        let usual: &[&str] = match mode {
            PermissionMode::Default => &["default", "ask", "manual", "normal", "agent"],
            PermissionMode::AcceptEdits => &["autoedit", "acceptedits", "auto"],
            PermissionMode::Plan => &["plan", "architect", "readonly"],
            PermissionMode::BypassPermissions => &["yolo", "bypasspermissions", "bypass", "fullaccess"],
        };
        usual
            .iter()
            .find_map(|name| self.mode.offered.iter().find(|offer| plain(&offer.id) == *name))
            .map(|offer| offer.id.clone())
    }
}

impl Choice {
    /// The offered values in one line, for a message.
    pub(super) fn listed(&self) -> String {
        if self.offered.is_empty() {
            return "it offers none to choose from".to_owned();
        }
        let ids: Vec<&str> = self.offered.iter().map(|offer| offer.id.as_str()).collect();
        format!("it offers {}", ids.join(", "))
    }

    fn set(&self, session: &str, value: &str, method: &'static str, key: &str) -> (&'static str, Value) {
        match &self.option {
            Some(option) => (
                "session/set_config_option",
                json!({"sessionId": session, "configId": option, "value": value}),
            ),
            None => (method, json!({"sessionId": session, key: value})),
        }
    }
}

fn choice(item: &Value, id: &str) -> Option<ModelChoice> {
    let id = string_at(item, id)?;
    let name = string_at(item, "name").unwrap_or_else(|| id.clone());
    Some(ModelChoice { id, name })
}

/// A name without case and punctuation: `auto_edit`, `auto-edit` and `autoEdit` are one.
fn plain(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_found_under_their_usual_names() {
        let answer = json!({"modes": {"currentModeId": "default", "availableModes": [
            {"id": "default", "name": "Default"}, {"id": "auto_edit", "name": "Auto"}, {"id": "yolo", "name": "YOLO"}]}});
        let choices = Choices::read(&answer);
        let named = |mode| choices.mode_named(mode, &Habits::default());
        assert_eq!(named(PermissionMode::AcceptEdits).as_deref(), Some("auto_edit"));
        assert_eq!(named(PermissionMode::BypassPermissions).as_deref(), Some("yolo"));
        assert_eq!(named(PermissionMode::Plan), None);
    }

    #[test]
    fn a_configured_name_of_a_mode_goes_first() {
        let habits = Habits {
            modes: [(PermissionMode::Plan, "think".to_owned())].into(),
            ..Habits::default()
        };
        assert_eq!(
            Choices::default()
                .mode_named(PermissionMode::Plan, &habits)
                .as_deref(),
            Some("think")
        );
    }

    #[test]
    fn options_stand_in_for_lists() {
        let answer = json!({"configOptions": [{"id": "m", "category": "model", "type": "select", "currentValue": "a",
            "options": [{"value": "a", "name": "A"}, {"value": "b"}]}]});
        let choices = Choices::read(&answer);
        assert_eq!(choices.model.offered.len(), 2);
        let (method, params) = choices.set_model("s", "b");
        assert_eq!(method, "session/set_config_option");
        assert_eq!(params, json!({"sessionId": "s", "configId": "m", "value": "b"}));
    }
}
