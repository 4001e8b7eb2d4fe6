//! Upstreams: seen, changed, switched, tested; how they are shared, and which model goes where.

use super::{Answer, Api, ApiError, Call, ok, probe};
use crate::activity::now_ms;
use crate::files::balance::{self, Mode};
use crate::files::object::Object;
use crate::files::routes::Routes;
use crate::files::upstreams::{Change, Upstream, change};
use crate::files::{self, FileError};
use crate::health::Standing;
use crate::live::Snapshot;
use crate::names;
use crate::service::Service;
use crate::usage::budgets::day_of;
use crate::usage::query::{By, Sum};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

const MONTH_MS: i64 = 29 * 24 * 3600 * 1000;

fn view(api: &Api, service: Service, snapshot: &Snapshot, upstream: &Upstream, usage: Option<&Sum>) -> Value {
    let standing = api
        .gateway
        .health(service)
        .standing(&upstream.name, snapshot.balance(), Instant::now());
    let (word, failures, resting, until) = match standing {
        Standing::Good { failures } => ("good", failures, 0, None),
        Standing::Resting(time) => ("resting", 0, time.as_secs(), None),
        Standing::Disabled(until) => ("disabled", 0, 0, Some(until)),
    };
    let active = snapshot
        .upstreams
        .active()
        .is_some_and(|active| active.name == upstream.name);
    let network = snapshot.settings.network(service, &upstream.name);
    json!({
        "name": &*upstream.name, "base_url": upstream.base_url.as_str().trim_end_matches('/'),
        "has_token": upstream.auth_token.is_some(), "has_key": upstream.api_key.is_some(),
        "weight": upstream.weight, "active": active, "standing": word, "failures": failures,
        "resting_secs": resting, "disabled_until": until, "proxy": network.proxy.as_deref().map(without_login),
        "usage": usage.cloned().unwrap_or_else(|| Sum { key: upstream.name.to_string(), ..Sum::default() }),
    })
}

/// A proxy's address without the login that may stand in it.
fn without_login(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

async fn sums(api: &Arc<Api>, service: Service) -> Result<HashMap<String, Sum>, ApiError> {
    let since = day_of(now_ms() - MONTH_MS);
    let sums = api
        .counts(move |usage| usage.sums(Some(service), Some(&since), By::Upstream))
        .await?;
    Ok(sums.into_iter().map(|sum| (sum.key.clone(), sum)).collect())
}

pub(super) async fn list(api: &Arc<Api>) -> Answer {
    let mut services = Map::new();
    for service in Service::ALL {
        let sums = sums(api, service).await?;
        let snapshot = api.gateway.snapshot(service);
        let rules = snapshot.balance();
        let upstreams: Vec<Value> = snapshot
            .upstreams
            .list
            .iter()
            .map(|upstream| view(api, service, &snapshot, upstream, sums.get(&*upstream.name)))
            .collect();
        let view = json!({
            "mode": rules.mode.name(), "failure_threshold": rules.threshold,
            "auto_reset_minutes": rules.rest_secs / 60.0,
            "active": snapshot.upstreams.active().map(|u| u.name.to_string()),
            "file_fault": api.gateway.live().upstreams_fault(service), "upstreams": upstreams,
        });
        services.insert(service.name().to_owned(), view);
    }
    ok(&json!({"type": "gateway_upstreams", "services": services}))
}

async fn one(api: &Arc<Api>, service: Service, name: &str) -> Answer {
    let sums = sums(api, service).await?;
    let snapshot = api.gateway.snapshot(service);
    match snapshot.upstreams.get(name) {
        Some(upstream) => ok(&view(api, service, &snapshot, upstream, sums.get(name))),
        None => Err(unknown(service, name)),
    }
}

fn unknown(service: Service, name: &str) -> ApiError {
    ApiError::not_found(format!(
        "{service} has no upstream {name:?}; GET /api/gateway/upstreams lists them"
    ))
}

pub(super) async fn put(api: &Arc<Api>, service: Service, name: &str, call: &Call) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Given {
        base_url: Option<String>,
        auth_token: Option<String>,
        api_key: Option<String>,
        weight: Option<f64>,
    }
    let given: Given = call.json()?;
    let path = api.gateway.live().home().upstreams(service);
    // Who may change an address must not be able to send a key there that they have never seen.
    let no_keys = given.auth_token.is_none() && given.api_key.is_none();
    let snapshot = api.gateway.snapshot(service);
    if let (Some(known), Some(url), true) = (snapshot.upstreams.get(name), &given.base_url, no_keys) {
        let has_keys = known.auth_token.is_some() || known.api_key.is_some();
        let url = files::upstreams::base_url(url).map_err(ApiError::invalid)?;
        if has_keys && url.origin() != known.base_url.origin() {
            return Err(ApiError::new(
                http::StatusCode::CONFLICT,
                "key_needed",
                "another address needs its key again: give auth_token or api_key with it",
            ));
        }
    }
    let put = Change::Put {
        name,
        base_url: given.base_url.as_deref(),
        auth_token: given.auth_token.as_deref(),
        api_key: given.api_key.as_deref(),
        weight: given.weight,
    };
    change(&path, &put)?;
    api.upstreams_changed();
    one(api, service, name).await
}

pub(super) fn remove(api: &Arc<Api>, service: Service, name: &str) -> Answer {
    change(
        &api.gateway.live().home().upstreams(service),
        &Change::Remove(name),
    )?;
    forget(api, service, name)?;
    api.upstreams_changed();
    ok(&json!({"type": "gateway_upstream_removed", "service": service.name(), "name": name}))
}

/// What other files say of an upstream that is gone.
pub(super) fn forget(api: &Api, service: Service, name: &str) -> Result<(), ApiError> {
    api.gateway.health(service).reset(Some(name));
    Ok(names::carry(api.gateway.live().home(), service, name, None)?)
}

/// What other files, counts and choices say of an upstream that has another name now.
pub(super) fn follow(api: &Api, service: Service, from: &str, to: &str) -> Result<(), ApiError> {
    api.gateway.health(service).reset(Some(from));
    names::carry(api.gateway.live().home(), service, from, Some(to))?;
    api.gateway.choices().rename(service, from, to);
    api.gateway.usage().rename(service, from, to);
    Ok(())
}

pub(super) async fn act(api: &Arc<Api>, service: Service, name: &str, verb: &str, call: &Call) -> Answer {
    let home = api.gateway.live().home();
    let snapshot = api.gateway.snapshot(service);
    let upstream = snapshot
        .upstreams
        .get(name)
        .ok_or_else(|| unknown(service, name))?;
    match verb {
        "activate" => change(&home.upstreams(service), &Change::Activate(name))?,
        "reset" => api.gateway.health(service).reset(Some(name)),
        "disable" => {
            #[derive(Deserialize)]
            struct Given {
                until: Option<String>,
            }
            let given: Given = call.json()?;
            if given
                .until
                .as_deref()
                .is_some_and(|until| !balance::is_day(until))
            {
                return Err(ApiError::invalid("until is a day as YYYY-MM-DD, or null"));
            }
            let path = home.balance();
            let text = files::read(&path)?.unwrap_or_default();
            let text = balance::edited(&path, &text, service, |own| {
                balance::disable(own, name, given.until.as_deref())
            })?;
            files::write(&path, &text)?;
        }
        "rename" => {
            #[derive(Deserialize)]
            struct Given {
                to: String,
            }
            let given: Given = call.json()?;
            let to = given.to.trim();
            change(&home.upstreams(service), &Change::Rename { from: name, to })?;
            follow(api, service, name, to)?;
            api.upstreams_changed();
            return one(api, service, to).await;
        }
        "test" => {
            #[derive(Deserialize)]
            struct Given {
                model: Option<String>,
            }
            let given: Given = call.json()?;
            let network = snapshot.settings.network(service, name);
            let tested = probe::test(
                api.gateway.clients(),
                service,
                upstream,
                network,
                given.model.as_deref(),
            )
            .await;
            return ok(&json!({
                "type": "gateway_test", "ok": tested.ok, "status": tested.status, "millis": tested.millis,
                "model": tested.model, "message": tested.message,
            }));
        }
        _ => {
            return Err(ApiError::not_found(
                "an upstream can be told to: activate, disable, reset, rename, test",
            ));
        }
    }
    api.upstreams_changed();
    one(api, service, name).await
}

pub(super) fn balance(api: &Arc<Api>, service: Service, call: &Call) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Given {
        mode: Option<String>,
        failure_threshold: Option<u32>,
        auto_reset_minutes: Option<f64>,
    }
    let given: Given = call.json()?;
    if given
        .mode
        .as_deref()
        .is_some_and(|mode| Mode::parse(mode).is_none())
    {
        return Err(ApiError::invalid(
            "mode is active-first, weight-based or proportional",
        ));
    }
    if given.failure_threshold == Some(0)
        || given
            .auto_reset_minutes
            .is_some_and(|m| !(0.0..=1e6).contains(&m))
    {
        return Err(ApiError::invalid(
            "failure_threshold is 1 or more, auto_reset_minutes 0 or more",
        ));
    }
    let path = api.gateway.live().home().balance();
    let text = files::read(&path)?.unwrap_or_default();
    let text = balance::edited(&path, &text, service, |own| {
        if let Some(mode) = &given.mode {
            own.set("mode", mode)?;
        }
        if let Some(n) = given.failure_threshold {
            own.set(balance::spelled(own, "failureThreshold", "failover_count"), &n)?;
        }
        if let Some(minutes) = given.auto_reset_minutes {
            own.set(
                balance::spelled(own, "autoResetMinutes", "auto_reset_minutes"),
                &minutes,
            )?;
        }
        Ok(())
    })?;
    files::write(&path, &text)?;
    api.upstreams_changed();
    let snapshot = api.gateway.snapshot(service);
    let rules = snapshot.balance();
    ok(&json!({
        "type": "gateway_balance", "service": service.name(), "mode": rules.mode.name(),
        "failure_threshold": rules.threshold, "auto_reset_minutes": rules.rest_secs / 60.0,
    }))
}

/// A file as the API gives it; an empty one as `empty`.
pub(super) fn json_file(path: &std::path::Path, empty: &Value) -> Result<Value, ApiError> {
    let text = files::read(path)?.unwrap_or_default();
    if text.trim().is_empty() {
        return Ok(empty.clone());
    }
    serde_json::from_str(&text).map_err(|e| FileError::json(path, &e).into())
}

pub(super) fn empty_routes() -> Value {
    json!({
        "mode": "default", "modelMappings": {"claude": [], "codex": []}, "configMappings": {"claude": [], "codex": []},
    })
}

pub(super) fn routes(api: &Arc<Api>) -> Answer {
    let config = json_file(&api.gateway.live().home().routes(), &empty_routes())?;
    ok(&json!({"type": "gateway_routes", "config": config}))
}

pub(super) fn put_routes(api: &Arc<Api>, call: &Call) -> Answer {
    #[derive(Deserialize)]
    struct Given {
        config: Object,
    }
    let given: Given = call.json()?;
    write_routes(api, &given.config)?;
    routes(api)
}

pub(super) fn write_routes(api: &Api, config: &Object) -> Result<(), ApiError> {
    let path = api.gateway.live().home().routes();
    let text = config.to_text(0) + "\n";
    Routes::parse(&path, &text).map_err(|e| ApiError::invalid(e.to_string()))?;
    Ok(files::write(&path, &text)?)
}
