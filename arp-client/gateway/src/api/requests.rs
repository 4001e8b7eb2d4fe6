//! Overview, requests and sums.

use super::{Answer, Api, ApiError, Call, ok};
use crate::activity::{Live, now_ms};
use crate::health::Standing;
use crate::service::Service;
use crate::usage::budgets::day_of;
use crate::usage::query::{By, Sum, Wanted};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Instant;

const DAY_MS: i64 = 24 * 3600 * 1000;
/// Days of the overview's charts.
const DAYS: i64 = 30;

pub(super) async fn overview(api: &Arc<Api>) -> Answer {
    let now = now_ms();
    let since = day_of(now - (DAYS - 1) * DAY_MS);
    let days = api
        .counts(move |usage| usage.sums(None, Some(&since), By::Day))
        .await?;
    let today = day_of(now);
    let of_today = days
        .iter()
        .find(|day| day.key == today)
        .cloned()
        .unwrap_or_else(|| Sum {
            key: today,
            ..Sum::default()
        });
    let services: Map<String, Value> = Service::ALL
        .into_iter()
        .map(|service| {
            let snapshot = api.gateway.snapshot(service);
            let health = api.gateway.health(service);
            let rests = |name: &str| {
                matches!(
                    health.standing(name, snapshot.balance(), Instant::now()),
                    Standing::Resting(_)
                )
            };
            let resting = snapshot.upstreams.list.iter().filter(|u| rests(&u.name)).count();
            let active = snapshot.upstreams.active().map(|u| u.name.to_string());
            let view =
                json!({"active": active, "upstreams": snapshot.upstreams.list.len(), "resting": resting});
            (service.name().to_owned(), view)
        })
        .collect();
    let running = &api.running;
    let live: Vec<Value> = api.gateway.activity().live().iter().map(Live::to_json).collect();
    ok(&json!({
        "type": "gateway", "version": running.version, "pid": running.pid,
        "since": running.since.saturating_mul(1000),
        "listen": {"claude": running.claude, "codex": running.codex, "gemini": running.gemini, "ui": running.ui},
        "faults": api.gateway.live().faults(), "services": services, "live": live, "today": of_today, "days": days,
    }))
}

pub(super) async fn list(api: &Arc<Api>, call: &Call) -> Answer {
    let number = |name: &str| -> Result<Option<i64>, ApiError> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| ApiError::invalid(format!("{name} is a number")))
        };
        call.query(name).map(parse).transpose()
    };
    let limit = number("limit")?.unwrap_or(50).clamp(1, 500);
    let limit = u32::try_from(limit).unwrap_or(50);
    let text = |name: &str| call.query(name).map(str::to_owned);
    let wanted = Wanted {
        service: call.service_query()?.map(|service| service.name().to_owned()),
        upstream: text("upstream"),
        session: text("session"),
        model: text("model"),
        failed: call.query("failed") == Some("true"),
        text: text("q"),
        before: number("before")?,
        limit: limit + 1,
    };
    let mut requests = api.counts(move |usage| usage.requests(&wanted)).await?;
    let has_more = requests.len() > limit as usize;
    requests.truncate(limit as usize);
    ok(&json!({"type": "gateway_requests", "requests": requests, "has_more": has_more}))
}

pub(super) async fn clear(api: &Arc<Api>) -> Answer {
    api.counts(crate::usage::store::Usage::clear_requests).await?;
    ok(&json!({"type": "gateway_requests_cleared"}))
}

pub(super) async fn usage(api: &Arc<Api>, call: &Call) -> Answer {
    let name = call.query("by").unwrap_or("day").to_owned();
    let by = By::parse(&name)
        .ok_or_else(|| ApiError::invalid("by is one of day, upstream, model, session, service, project"))?;
    let days: i64 = match call.query("days").unwrap_or("30").parse() {
        Ok(days) if (1..=36_500).contains(&days) => days,
        _ => return Err(ApiError::invalid("days is a number from 1 up")),
    };
    let since = day_of(now_ms() - (days - 1) * DAY_MS);
    let service = call.service_query()?;
    let (sums, total) = api
        .counts(move |usage| {
            let sums = usage.sums(service, Some(&since), by)?;
            Ok((sums, usage.sums(service, Some(&since), By::All)?.pop()))
        })
        .await?;
    let total = total.unwrap_or_default();
    ok(&json!({"type": "gateway_usage", "by": name, "total": total, "sums": sums}))
}
