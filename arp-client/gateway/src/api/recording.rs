//! Bodies of requests: whether they are kept, what is kept, and what rules would hide of it.

use super::{Answer, Api, ApiError, Call, ok};
use crate::live::Snapshot;
use crate::redact::recorded::{hidden_in, would_hide};
use crate::redact::{Found, Redaction};
use crate::service::Service;
use crate::settings;
use crate::usage::bodies::{Kept, Recording};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Recorded requests that a dry run looks at, at most.
const MAX_LOOKED_AT: u32 = 200;

pub(super) async fn get(api: &Arc<Api>) -> Answer {
    let recording = api.gateway.snapshot(Service::Claude).settings.recording;
    let (kept, bytes) = api.counts(crate::usage::store::Usage::kept).await?;
    ok(&json!({
        "type": "gateway_recording", "on": recording.on, "requests": recording.requests, "max_kb": recording.max_kb,
        "hours": recording.hours, "kept": kept, "bytes": bytes,
    }))
}

pub(super) async fn put(api: &Arc<Api>, call: &Call) -> Answer {
    #[derive(Deserialize)]
    struct Given {
        on: Option<bool>,
        requests: Option<u32>,
        max_kb: Option<u32>,
        hours: Option<u32>,
    }
    let given: Given = call.json()?;
    let now = api.gateway.snapshot(Service::Claude).settings.recording;
    let recording = Recording {
        on: given.on.unwrap_or(now.on),
        requests: given.requests.unwrap_or(now.requests),
        max_kb: given.max_kb.unwrap_or(now.max_kb),
        hours: given.hours.unwrap_or(now.hours),
    };
    if let Some(fault) = recording.fault() {
        return Err(ApiError::invalid(fault));
    }
    settings::set_recording(&api.gateway.live().home().settings(), recording)?;
    get(api).await
}

pub(super) async fn forget(api: &Arc<Api>) -> Answer {
    api.counts(crate::usage::store::Usage::forget_bodies).await?;
    get(api).await
}

pub(super) async fn body(api: &Arc<Api>, id: &str) -> Answer {
    let id: i64 = id
        .parse()
        .map_err(|_| ApiError::invalid("a request's id is a number"))?;
    let kept = api.counts(move |usage| usage.body(id)).await?;
    let Some(kept) = kept else {
        return Err(ApiError::not_found(
            "this request is not recorded: recording was off, or its time is over",
        ));
    };
    let hidden = |text: &str| -> Vec<Value> {
        let found = hidden_in(text).into_iter();
        found
            .map(|(by, count)| json!({"by": by, "count": count}))
            .collect()
    };
    ok(&json!({
        "type": "gateway_request_body", "id": kept.id, "at": kept.at, "until": kept.until, "body": kept.body,
        "cut": kept.cut, "hidden": hidden(&kept.body), "answer": kept.answer, "answer_cut": kept.answer_cut,
        "answer_hidden": hidden(kept.answer.as_deref().unwrap_or_default()),
    }))
}

/// What these rules would hide of the newest recorded requests, by request and all together.
pub(super) async fn dry_run(
    api: &Arc<Api>,
    count: u32,
    snapshot: &Snapshot,
    filters: Arc<crate::files::filters::Filters>,
    redaction: Redaction,
) -> Answer {
    let count = count.clamp(1, MAX_LOOKED_AT);
    let key = api.gateway.redaction_key().clone();
    let is_on = Service::ALL.map(|service| redaction.is_on(service));
    let looked = api
        .counts(move |usage| {
            let none = Redaction::default();
            let look = |kept: Kept| {
                let on = kept
                    .service
                    .parse::<Service>()
                    .is_ok_and(|service| is_on[service.index()]);
                let redaction = if on { &redaction } else { &none };
                let found = would_hide(&filters, redaction, &key, &kept.body);
                (kept, found)
            };
            Ok(usage.bodies(count)?.into_iter().map(look).collect::<Vec<_>>())
        })
        .await?;
    let mut sums: BTreeMap<&str, Found> = BTreeMap::new();
    for found in looked.iter().flat_map(|(_, found)| found) {
        let sum = sums.entry(&found.by).or_insert_with(|| Found {
            count: 0,
            ..found.clone()
        });
        sum.count += found.count;
    }
    let requests: Vec<Value> = looked
        .iter()
        .map(|(kept, found)| {
            json!({"id": kept.id, "at": kept.at, "service": kept.service, "model": kept.model, "found": found})
        })
        .collect();
    ok(&json!({
        "type": "gateway_dry_run", "recording": snapshot.settings.recording.on, "found": sums.into_values().collect::<Vec<_>>(),
        "requests": requests,
    }))
}
