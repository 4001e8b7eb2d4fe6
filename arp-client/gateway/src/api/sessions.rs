//! One session: how it stands, and what a person chooses for it.

use super::{Answer, Api, ApiError, Call, ok};
use crate::service::Service;
use crate::usage::query::Wanted;
use crate::usage::store::Choice;
use serde_json::{Value, json};
use std::sync::Arc;

/// Requests that are told with a session.
const REQUESTS: u32 = 50;

pub(super) async fn get(api: &Arc<Api>, id: &str) -> Answer {
    let standing = api.gateway.choices().standing(id);
    let choice = api.gateway.choices().of(id);
    let name = id.to_owned();
    let (usage, requests) = api
        .counts(move |usage| {
            let wanted = Wanted {
                session: Some(name.clone()),
                limit: REQUESTS,
                ..Wanted::default()
            };
            Ok((usage.session(&name)?, usage.requests(&wanted)?))
        })
        .await?;
    // After a restart the records know what is not remembered.
    let newest = requests.first();
    let of_newest = |field: &str| {
        newest
            .and_then(|request| request.get(field))
            .cloned()
            .unwrap_or(Value::Null)
    };
    let known = standing.unwrap_or_default();
    let failovers = requests
        .iter()
        .filter(|request| {
            request["failed"]
                .as_array()
                .is_some_and(|failed| !failed.is_empty())
        })
        .count() as u64;
    let redacted: u64 = requests
        .iter()
        .filter_map(|request| request["redacted"].as_u64())
        .sum();
    ok(&json!({
        "type": "gateway_session", "session": id,
        "service": known.service.map_or_else(|| of_newest("service"), Value::from),
        "upstream": known.upstream.map_or_else(|| of_newest("upstream"), Value::from),
        "model": known.model.map_or_else(|| of_newest("model"), Value::from),
        "choice": choice, "usage": usage,
        "failovers": known.failovers.max(failovers), "redacted": known.redacted.max(redacted),
        "waits_until": known.waits_until, "requests": requests,
    }))
}

pub(super) async fn put(api: &Arc<Api>, id: &str, call: &Call) -> Answer {
    let given: serde_json::Map<String, Value> = call.json()?;
    if !(1..=128).contains(&id.len()) {
        return Err(ApiError::invalid("a session's id has 1 to 128 characters"));
    }
    let mut choice = api.gateway.choices().of(id);
    for (name, value) in &given {
        let value = match value {
            Value::Null => None,
            Value::String(text) if text.is_empty() => None,
            Value::String(text) if text.len() <= 256 => Some(text.clone()),
            _ => return Err(ApiError::invalid(format!("{name} is a text or null"))),
        };
        match name.as_str() {
            "upstream" => choice.upstream = value,
            "model" => choice.model = value,
            _ => {
                return Err(ApiError::invalid(format!(
                    "there is nothing called {name:?} to choose: upstream, model"
                )));
            }
        }
    }
    if let Some(name) = &choice.upstream {
        known(api, id, name)?;
    }
    api.gateway.choose(id, Choice { ..choice });
    get(api, id).await
}

/// Is there such an upstream, of the session's service where that is known?
fn known(api: &Api, id: &str, name: &str) -> Result<(), ApiError> {
    let service = api
        .gateway
        .choices()
        .standing(id)
        .and_then(|standing| standing.service);
    let services = Service::ALL
        .into_iter()
        .filter(|s| service.is_none_or(|known| known == s.name()));
    let mut names = Vec::new();
    for service in services {
        let upstreams = api.gateway.snapshot(service).upstreams;
        if upstreams.get(name).is_some() {
            return Ok(());
        }
        names.extend(upstreams.list.iter().map(|u| u.name.to_string()));
    }
    Err(ApiError::not_found(format!(
        "there is no upstream {name:?} for this session; there are: {}",
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    )))
}
