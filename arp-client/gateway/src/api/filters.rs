//! What upstreams are not to see: the rules, and a dry run of them.

use super::{Answer, Api, ApiError, Call, ok};
use crate::files;
use crate::files::filters::{Entry, Filters};
use crate::redact::find::Preset;
use crate::redact::{self, Redaction};
use crate::service::Service;
use crate::settings;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn get(api: &Arc<Api>) -> Answer {
    let live = api.gateway.live();
    let snapshot = live.snapshot(Service::Claude);
    let rules: Vec<&Entry> = snapshot.filters.rules.iter().map(|rule| &rule.entry).collect();
    let presets: Vec<Value> = Preset::ALL
        .into_iter()
        .map(|preset| json!({"name": preset.name(), "what": preset.what()}))
        .collect();
    ok(&json!({
        "type": "gateway_filters", "rules": rules, "redaction": snapshot.settings.redaction, "presets": presets,
        "fault": live.filter_fault(),
    }))
}

pub(super) fn put(api: &Arc<Api>, call: &Call) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Given {
        rules: Option<Vec<Entry>>,
        redaction: Option<redact::Settings>,
    }
    let mut given: Value = call.json()?;
    if let Some(object) = given.as_object_mut() {
        object.retain(|name, _| matches!(name.as_str(), "rules" | "redaction"));
    }
    let given: Given =
        serde_json::from_value(given).map_err(|e| ApiError::invalid(format!("the body: {e}")))?;
    let home = api.gateway.live().home();
    // Both are looked at before either is written.
    let path = home.filters();
    let text = given
        .rules
        .map(|rules| Filters::to_text(&path, &rules))
        .transpose();
    let text = text.map_err(|e| ApiError::invalid(e.to_string()))?;
    if let Some(redaction) = &given.redaction {
        Redaction::new(redaction).map_err(ApiError::invalid)?;
        settings::change(&home.settings(), |file| {
            file.insert("redaction", toml_edit::Item::Table(settings::table(redaction)?));
            Ok(())
        })?;
    }
    if let Some(text) = text {
        files::write(&path, &text)?;
    }
    get(api)
}

pub(super) async fn dry_run(api: &Arc<Api>, call: &Call) -> Answer {
    #[derive(Deserialize)]
    struct Given {
        text: Option<String>,
        recorded: Option<u32>,
        rules: Option<Vec<Entry>>,
        redaction: Option<redact::Settings>,
    }
    let given: Given = call.json()?;
    let snapshot = api.gateway.snapshot(Service::Claude);
    // Rules that are being written can be tried before they count.
    let filters = match given.rules {
        Some(rules) => {
            let path = api.gateway.live().home().filters();
            let text = Filters::to_text(&path, &rules).map_err(|e| ApiError::invalid(e.to_string()))?;
            Arc::new(Filters::parse(&path, &text).map_err(|e| ApiError::invalid(e.to_string()))?)
        }
        None => snapshot.filters.clone(),
    };
    let redaction = match &given.redaction {
        Some(settings) => Redaction::new(settings).map_err(ApiError::invalid)?,
        None => snapshot.settings.redact.clone(),
    };
    if let Some(count) = given.recorded {
        return super::recording::dry_run(api, count, &snapshot, filters, redaction).await;
    }
    let Some(text) = given.text else {
        return Err(ApiError::invalid(
            "give the text to look at as \"text\", or \"recorded\": how many of the newest recorded requests",
        ));
    };
    let (text, found) = redact::dry_run(&filters, &redaction, api.gateway.redaction_key(), &text);
    ok(&json!({"type": "gateway_dry_run", "text": text, "found": found}))
}
