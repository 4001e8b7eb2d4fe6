//! CLP's HTTP API, for scripts that know it. What it says of itself is what CLP's page reads; keys are shown as
//! [`MASK`], and a file that comes back with it keeps the key that it had.

use super::upstreams::{empty_routes, follow, forget, json_file, write_routes};
use super::{Answer, Api, ApiError, Call, ok, probe};
use crate::activity::now_ms;
use crate::clients::Origin;
use crate::files::balance::Balance;
use crate::files::filters::Filters;
use crate::files::object::Object;
use crate::files::upstreams::{Change, Upstreams, change, check};
use crate::files::{self, FileError};
use crate::names;
use crate::secret::Secret;
use crate::service::Service;
use crate::usage::query::{By, Sum};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use time::OffsetDateTime;
use time::macros::format_description;

/// Stands for a key.
const MASK: &str = "********";
/// Rows that CLP shows where nobody has said otherwise.
const LOG_LIMIT: u64 = 50;
/// Rows of its short list.
const SHORT: u32 = 10;
/// The services that CLP knows.
const SERVICES: [Service; 2] = [Service::Claude, Service::Codex];

pub(super) async fn answer(api: &Arc<Api>, call: &Call) -> Answer {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    match (call.method.as_str(), path.as_slice()) {
        ("GET", ["status"]) => status(api).await,
        ("GET", ["config", service]) => config(api, Call::service(service)?),
        ("POST", ["config", service]) => put_config(api, Call::service(service)?, call),
        ("GET", ["filter"]) => {
            let text = files::read(&api.gateway.live().home().filters())?;
            ok(&json!({"content": text.unwrap_or_else(|| "[]".to_owned())}))
        }
        ("POST", ["filter"]) => put_filter(api, call),
        ("GET", ["logs"]) => logs(api, SHORT).await,
        ("GET", ["logs", "all"]) => {
            let limit = u32::try_from(log_limit(api)?).unwrap_or(SHORT);
            logs(api, limit).await
        }
        ("DELETE", ["logs"]) => {
            api.counts(crate::usage::store::Usage::clear_requests).await?;
            done("the log is empty")
        }
        ("GET", ["usage", "details"]) => ok(&usage(api).await?),
        ("DELETE", ["usage", "clear"]) => {
            api.counts(crate::usage::store::Usage::clear_totals).await?;
            done("the counts are cleared")
        }
        ("POST", ["switch-config"]) => switch(api, call),
        ("GET", ["routing", "config"]) => {
            ok(&json!({"config": json_file(&api.gateway.live().home().routes(), &empty_routes())?}))
        }
        ("POST", ["routing", "config"]) => {
            write_routes(api, &object_of(call)?)?;
            done("the routes are written")
        }
        ("GET", ["loadbalance", "config"]) => {
            let empty = json!({"mode": "active-first", "services": {}});
            ok(&json!({"config": json_file(&api.gateway.live().home().balance(), &empty)?}))
        }
        ("POST", ["loadbalance", "config"]) => put_balance(api, call),
        ("POST", ["loadbalance", "reset-failures"]) => reset(api, call),
        ("GET", ["system", "config"]) => ok(&json!({"config": {"logLimit": log_limit(api)?}})),
        ("POST", ["system", "config"]) => put_system(api, call),
        ("POST", ["test-connection"]) => test(api, call).await,
        _ => Err(ApiError::not_found(
            "neither CLP nor the gateway has such an endpoint; docs/gateway.md lists them",
        )),
    }
}

fn done(message: &str) -> Answer {
    ok(&json!({"success": true, "message": message}))
}

/// The object that a body holds as `config`, or is.
fn object_of(call: &Call) -> Result<Object, ApiError> {
    let body: Object = call.json()?;
    Ok(body.get_as("config").unwrap_or(body))
}

fn now_text() -> String {
    let now = OffsetDateTime::now_local().unwrap_or_else(|_| OffsetDateTime::now_utc());
    local(now)
}

/// CLP's times: local, without a zone.
fn local(at: OffsetDateTime) -> String {
    at.format(format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second]"
    ))
    .unwrap_or_default()
}

/// CLP's figures. Codex' own `input` has the cached tokens in it, as its API says it.
fn metrics(service: Option<Service>, sum: &Sum) -> Value {
    let t = &sum.tokens;
    let input = if service == Some(Service::Codex) {
        t.input + t.cache_read
    } else {
        t.input
    };
    json!({
        "input": input, "cached_create": t.cache_write, "cached_read": t.cache_read, "output": t.output,
        "reasoning": t.reasoning, "total": input + t.output,
    })
}

fn formatted(metrics: &Value) -> Value {
    let short = |n: u64| match n {
        #[allow(clippy::cast_precision_loss)] // Three digits are shown.
        1_000_000.. => format!("{:.2}M", n as f64 / 1e6),
        #[allow(clippy::cast_precision_loss)]
        1_000.. => format!("{:.1}K", n as f64 / 1e3),
        _ => n.to_string(),
    };
    let all = metrics.as_object().into_iter().flatten();
    Value::Object(
        all.map(|(name, n)| (name.clone(), short(n.as_u64().unwrap_or(0)).into()))
            .collect(),
    )
}

fn with_format(metrics: Value) -> Value {
    let formatted = formatted(&metrics);
    json!({"metrics": metrics, "formatted": formatted})
}

async fn usage(api: &Arc<Api>) -> Result<Value, ApiError> {
    let mut services = Map::new();
    let mut totals = Map::new();
    for service in SERVICES {
        let channels = api.counts(move |usage| usage.by_upstream(service)).await?;
        let mut overall = Sum::default();
        let mut each = Map::new();
        for channel in &channels {
            overall.tokens.add(&channel.tokens);
            each.insert(channel.key.clone(), with_format(metrics(Some(service), channel)));
        }
        let overall = metrics(Some(service), &overall);
        for (name, n) in overall.as_object().into_iter().flatten() {
            let sum = totals.get(name).and_then(Value::as_u64).unwrap_or(0) + n.as_u64().unwrap_or(0);
            totals.insert(name.clone(), sum.into());
        }
        services.insert(
            service.name().to_owned(),
            json!({"overall": with_format(overall), "channels": each}),
        );
    }
    Ok(json!({"totals": with_format(Value::Object(totals)), "services": services}))
}

async fn status(api: &Arc<Api>) -> Answer {
    let mut services = Map::new();
    let mut configs = 0;
    for service in SERVICES {
        let upstreams = api.gateway.snapshot(service).upstreams;
        configs += upstreams.list.len();
        let active = upstreams.active().map(|u| u.name.to_string());
        let view = json!({"running": true, "pid": api.running.pid, "config": active});
        services.insert(service.name().to_owned(), view);
    }
    let all = api.counts(|usage| usage.sums(None, None, By::All)).await?;
    let filters = api.gateway.snapshot(Service::Claude).filters.rules.len();
    let now = now_text();
    ok(&json!({
        "services": services, "request_count": all.first().map_or(0, |sum| sum.requests), "config_count": configs,
        "filter_count": filters, "last_updated": now, "usage_summary": usage(api).await?, "summary_timestamp": now,
    }))
}

fn config(api: &Arc<Api>, service: Service) -> Answer {
    let path = api.gateway.live().home().upstreams(service);
    let text = files::read(&path)?.unwrap_or_else(|| "{}".to_owned());
    let mut file = Object::parse(&text).map_err(|e| FileError::json(&path, &e))?;
    let names: Vec<String> = file.iter().map(|(name, _)| name.to_owned()).collect();
    let wrong = |e: serde_json::Error| ApiError::internal(e);
    for name in names {
        let Some(mut entry) = file.get_as::<Object>(&name) else {
            continue;
        };
        for key in ["auth_token", "api_key"] {
            if entry.get_as::<String>(key).is_some_and(|key| !key.is_empty()) {
                entry.set(key, &MASK).map_err(wrong)?;
            }
        }
        file.set(&name, &entry.to_raw(1).map_err(wrong)?).map_err(wrong)?;
    }
    ok(&json!({"content": file.to_text(0)}))
}

#[derive(Deserialize)]
struct Content {
    content: String,
}

fn put_config(api: &Arc<Api>, service: Service, call: &Call) -> Answer {
    let given: Content = call.json()?;
    let path = api.gateway.live().home().upstreams(service);
    let invalid = |e: serde_json::Error| ApiError::invalid(FileError::json(&path, &e).to_string());
    let old_text = files::read(&path)?.unwrap_or_default();
    let old = if old_text.trim().is_empty() {
        Object::default()
    } else {
        Object::parse(&old_text).map_err(|e| FileError::json(&path, &e))?
    };
    let mut new = Object::parse(&given.content).map_err(invalid)?;
    let names: Vec<String> = new.iter().map(|(name, _)| name.to_owned()).collect();
    for name in &names {
        let Some(mut entry) = new.get_as::<Object>(name) else {
            continue;
        };
        let before: Object = old.get_as(name).unwrap_or_default();
        let mut kept = false;
        for key in ["auth_token", "api_key"] {
            if entry.get_as::<String>(key).as_deref() != Some(MASK) {
                continue;
            }
            kept = true;
            let url = |entry: &Object| {
                let url = entry.get_as::<String>("base_url").unwrap_or_default();
                files::upstreams::base_url(&url).map(|url| url.origin()).ok()
            };
            if url(&entry) != url(&before) {
                return Err(ApiError::invalid(format!(
                    "{name:?}: another address needs its key again, {MASK} does not go there"
                )));
            }
            match before.get(key) {
                Some(value) => entry.set(key, &value).map_err(invalid)?,
                None => {
                    return Err(ApiError::invalid(format!(
                        "{name:?}: {MASK} stands for a key that was there; a new or renamed upstream needs the key \
                         itself"
                    )));
                }
            }
        }
        if kept {
            new.set(name, &entry.to_raw(1).map_err(invalid)?)
                .map_err(invalid)?;
        }
    }
    let text = new.to_text(0) + "\n";
    let after = check(&path, &text).map_err(|e| ApiError::invalid(e.to_string()))?;
    if let Some(fault) = after.faults.first() {
        return Err(ApiError::invalid(fault.clone()));
    }
    files::write(&path, &text)?;
    let before = Upstreams::parse(&path, &old_text)?;
    let renamed = names::renamed(&old, &new);
    if let Some((from, to)) = &renamed {
        follow(api, service, from, to)?;
    }
    for gone in before.list.iter().filter(|u| after.get(&u.name).is_none()) {
        if renamed.as_ref().is_none_or(|(from, _)| *from != *gone.name) {
            forget(api, service, &gone.name)?;
        }
    }
    api.upstreams_changed();
    done("the configuration is written")
}

fn put_filter(api: &Arc<Api>, call: &Call) -> Answer {
    let given: Content = call.json()?;
    let path = api.gateway.live().home().filters();
    Filters::parse(&path, &given.content).map_err(|e| ApiError::invalid(e.to_string()))?;
    files::write(&path, &given.content)?;
    done("the filters are written")
}

fn log_limit(api: &Api) -> Result<u64, ApiError> {
    let system = json_file(&api.gateway.live().home().system(), &json!({}))?;
    Ok(system
        .get("logLimit")
        .and_then(Value::as_u64)
        .unwrap_or(LOG_LIMIT))
}

fn put_system(api: &Arc<Api>, call: &Call) -> Answer {
    let given = object_of(call)?;
    let limit = given.get_as::<u64>("logLimit");
    let Some(limit) = limit.filter(|limit| [10, 30, 50, 100].contains(limit)) else {
        return Err(ApiError::invalid("logLimit is 10, 30, 50 or 100"));
    };
    let path = api.gateway.live().home().system();
    let text = files::read(&path)?
        .filter(|text| !text.trim().is_empty())
        .unwrap_or_else(|| "{}".to_owned());
    let mut file = Object::parse(&text).map_err(|e| FileError::json(&path, &e))?;
    file.set("logLimit", &limit).map_err(ApiError::internal)?;
    files::write(&path, &(file.to_text(0) + "\n"))?;
    done("written")
}

async fn logs(api: &Arc<Api>, limit: u32) -> Answer {
    let rows = api.counts(move |usage| usage.newest(limit)).await?;
    let offset = OffsetDateTime::now_local().map_or(time::UtcOffset::UTC, OffsetDateTime::offset);
    let rows: Vec<Value> = rows.iter().map(|row| log_row(row, offset)).collect();
    ok(&Value::Array(rows))
}

fn log_row(row: &Value, offset: time::UtcOffset) -> Value {
    let n = |name: &str| row[name].as_u64().unwrap_or(0);
    let at = row["at"].as_i64().unwrap_or(0).div_euclid(1000);
    let at = OffsetDateTime::from_unix_timestamp(at)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .to_offset(offset);
    let codex = row["service"] == Service::Codex.name();
    let input = if codex {
        n("input") + n("cache_read")
    } else {
        n("input")
    };
    let (method, path) = row["path"]
        .as_str()
        .and_then(|p| p.split_once(' '))
        .unwrap_or(("", ""));
    json!({
        "id": row["id"], "timestamp": local(at), "service": row["service"], "method": method, "path": path,
        "status_code": row["status"], "duration_ms": row["millis"], "channel": row["upstream"],
        "usage": {"service": row["service"], "metrics": {
            "input": input, "cached_create": n("cache_write"), "cached_read": n("cache_read"), "output": n("output"),
            "reasoning": n("reasoning"), "total": input + n("output"),
        }, "raw": null},
    })
}

fn switch(api: &Arc<Api>, call: &Call) -> Answer {
    #[derive(Deserialize)]
    struct Given {
        service: String,
        config: String,
    }
    let given: Given = call.json()?;
    let service = Call::service(&given.service)?;
    change(
        &api.gateway.live().home().upstreams(service),
        &Change::Activate(&given.config),
    )?;
    api.upstreams_changed();
    done(&format!(
        "{service} uses {} from the next request on",
        given.config
    ))
}

fn put_balance(api: &Arc<Api>, call: &Call) -> Answer {
    let path = api.gateway.live().home().balance();
    let text = object_of(call)?.to_text(0) + "\n";
    Balance::parse(&path, &text).map_err(|e| ApiError::invalid(e.to_string()))?;
    files::write(&path, &text)?;
    api.upstreams_changed();
    done("written")
}

fn reset(api: &Arc<Api>, call: &Call) -> Answer {
    #[derive(Deserialize)]
    struct Given {
        service: String,
        config_name: Option<String>,
    }
    let given: Given = call.json()?;
    let service = Call::service(&given.service)?;
    api.gateway.health(service).reset(given.config_name.as_deref());
    api.upstreams_changed();
    done("failures are forgotten")
}

async fn test(api: &Arc<Api>, call: &Call) -> Answer {
    #[derive(Deserialize)]
    struct Given {
        service: String,
        model: Option<String>,
        base_url: String,
        auth_token: Option<String>,
        api_key: Option<String>,
    }
    let given: Given = call.json()?;
    let service = Call::service(&given.service)?;
    let key = |key: Option<String>| key.filter(|key| !key.is_empty()).map(Secret::new);
    let base_url = files::upstreams::base_url(&given.base_url).map_err(ApiError::invalid)?;
    // A key that is only shown as hidden is that of the upstream with this address.
    let snapshot = api.gateway.snapshot(service);
    let masked = [&given.auth_token, &given.api_key]
        .into_iter()
        .any(|key| key.as_deref() == Some(MASK));
    let known = snapshot.upstreams.list.iter().find(|u| u.base_url == base_url);
    let upstream = match known {
        Some(known) if masked => crate::files::upstreams::Upstream::clone(known),
        None if masked => {
            return Err(ApiError::invalid(
                "there is no upstream with this address whose key could be used",
            ));
        }
        _ => crate::files::upstreams::Upstream {
            name: "test".into(),
            origin: Origin::of(&base_url).map_err(|e| ApiError::invalid(e.to_string()))?,
            base_url,
            auth_token: key(given.auth_token),
            api_key: key(given.api_key),
            weight: 0.0,
        },
    };
    let network = snapshot.settings.network(service, &upstream.name);
    let model = given.model.as_deref().filter(|model| !model.is_empty());
    let tested = probe::test(api.gateway.clients(), service, &upstream, network, model).await;
    ok(&json!({
        "success": tested.ok, "status_code": tested.status, "response_text": tested.text,
        "target_url": tested.url, "error_message": if tested.ok { None } else { Some(tested.message) },
        "timestamp": now_ms(),
    }))
}
