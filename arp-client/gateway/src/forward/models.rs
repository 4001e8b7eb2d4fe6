//! Lists of models: what all upstreams that may be asked offer, asked at once and kept for a while. Agents ask at
//! their start and wait only a moment.

use super::attempt::extra;
use super::body::Body;
use super::headers::{self, HOP_MARK};
use super::request::session_prefix;
use super::{Gateway, own, whole};
use crate::clients::Sent;
use crate::files::upstreams::Upstream;
use crate::live::Snapshot;
use crate::service::Service;
use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use http::header::{HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode, request};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Claude Code waits 3 s for the list, Codex 5 s.
const ASKING: Duration = Duration::from_millis(2_500);
/// A list is good for so long.
const FRESH: Duration = Duration::from_secs(600);
/// An upstream without a list is not asked again for so long.
const NONE_FOR: Duration = Duration::from_secs(60);
/// Longest list.
const MAX_LIST: usize = 4 << 20;
/// Lists that are kept; a person has a handful of upstreams.
const MAX_KEPT: usize = 256;

/// What upstreams have said, by service, upstream, address and what was asked for.
#[derive(Debug, Default)]
pub(super) struct Models(Mutex<HashMap<String, Kept>>);

#[derive(Debug, Clone)]
struct Kept {
    at: Instant,
    list: Result<Bytes, String>,
}

impl Kept {
    fn is_good(&self) -> bool {
        let limit = if self.list.is_ok() { FRESH } else { NONE_FOR };
        self.at.elapsed() < limit
    }
}

/// Is this the list of all models, and not a part of one that an upstream has begun?
pub(super) fn is_list(service: Service, head: &request::Parts) -> bool {
    let (_, path) = session_prefix(head.uri.path());
    let named = match service {
        Service::Claude | Service::Codex => matches!(path, "/v1/models" | "/models"),
        Service::Gemini => matches!(path, "/v1beta/models" | "/v1/models"),
    };
    let query = head.uri.query().unwrap_or_default();
    let paged = ["after_id=", "before_id=", "pageToken="]
        .iter()
        .any(|word| query.contains(word));
    head.method == Method::GET && named && !paged
}

impl Gateway {
    /// Answers with the models of all upstreams that may be asked.
    pub(super) async fn models(&self, service: Service, head: &request::Parts) -> Response<Body> {
        let now = self.snapshot(service);
        let order = self
            .health(service)
            .order(&now.upstreams, now.balance(), None, None, Instant::now());
        if order.is_empty() {
            return own(service, "no_upstream", &self.nobody(service, &now), true);
        }
        let asked = order
            .iter()
            .map(|upstream| self.list_of(service, &now, upstream, head));
        let answers = join_all(asked).await;
        let lists: Vec<&Bytes> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        match lists.as_slice() {
            [] => {
                let why: Vec<String> = order
                    .iter()
                    .zip(&answers)
                    .filter_map(|(upstream, answer)| {
                        Some(format!("{}: {}", upstream.name, answer.as_ref().err()?))
                    })
                    .collect();
                let message = format!("no upstream gives a list of models ({})", why.join("; "));
                let (_, body) = service.own_error("no_model_list", &message, true);
                whole(StatusCode::NOT_FOUND, body)
            }
            [one] => whole(StatusCode::OK, (*one).clone()),
            several => whole(StatusCode::OK, merged(several)),
        }
    }

    async fn list_of(
        &self,
        service: Service,
        now: &Snapshot,
        upstream: &Upstream,
        head: &request::Parts,
    ) -> Result<Bytes, String> {
        let query = head.uri.query().unwrap_or_default();
        let (_, path) = session_prefix(head.uri.path());
        let key = format!("{service} {} {} {path}?{query}", upstream.name, upstream.base_url);
        let kept = self.models.lock().get(&key).cloned();
        if let Some(kept) = kept.as_ref().filter(|kept| kept.is_good()) {
            return kept.list.clone();
        }
        let asking = self.ask_list(service, now, upstream, head, path);
        let list = match timeout(ASKING, asking).await {
            Ok(list) => list.map_err(|why| upstream.without_keys(&why)),
            Err(_) => Err("it did not answer in time".to_owned()),
        };
        // An old list is better than none.
        let list = list.or_else(|why| kept.and_then(|kept| kept.list.ok()).ok_or(why));
        let mut all = self.models.lock();
        if all.len() >= MAX_KEPT {
            all.clear();
        }
        let kept = Kept {
            at: Instant::now(),
            list: list.clone(),
        };
        all.insert(key, kept);
        list
    }

    async fn ask_list(
        &self,
        service: Service,
        now: &Snapshot,
        upstream: &Upstream,
        head: &request::Parts,
        path: &str,
    ) -> Result<Bytes, String> {
        let network = now.settings.network(service, &upstream.name);
        let origin = &upstream.origin;
        let client = self.clients.get(network, origin).map_err(|e| e.to_string())?;
        let there = origin
            .at(path, head.uri.query())
            .ok_or("no request can carry this path")?;
        let mut headers: HeaderMap = headers::to_upstream(head.headers.clone());
        service.credentials(&mut headers, upstream);
        extra(&mut headers, network);
        if origin.is_own() {
            headers.insert(HOP_MARK, HeaderValue::from_static("1"));
        }
        let mut response = client
            .send(origin, Method::GET, there, headers, Sent::Empty)
            .await
            .map_err(|e| e.to_string())?;
        if response.status != StatusCode::OK {
            return Err(format!("it answered {}", response.status.as_u16()));
        }
        let mut body = BytesMut::new();
        while let Some(bytes) = response.chunk().await.map_err(|e| e.to_string())? {
            body.extend_from_slice(&bytes);
            if body.len() > MAX_LIST {
                return Err("its list is too long".to_owned());
            }
        }
        match serde_json::from_slice::<Value>(&body) {
            Ok(list) if ARRAYS.iter().any(|name| list[*name].is_array()) => Ok(body.freeze()),
            _ => Err("it answered 200 with something that is no list".to_owned()),
        }
    }
}

impl Models {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the models stand: `data` (Anthropic, OpenAI), `models` (Codex, Google).
const ARRAYS: [&str; 2] = ["data", "models"];

/// One list of all, each model once, as the first upstream that has it describes it.
fn merged(lists: &[&Bytes]) -> Bytes {
    let mut lists = lists
        .iter()
        .filter_map(|list| serde_json::from_slice::<Value>(list).ok());
    let mut out = lists.next().unwrap_or_default();
    let more: Vec<Value> = lists.collect();
    for name in ARRAYS {
        let first = out[name].as_array().cloned();
        let others = more.iter().filter_map(|list| list[name].as_array());
        let mut all: Vec<Value> = Vec::new();
        let mut known = HashSet::new();
        let mut any = first.is_some();
        for models in first.iter().chain(others) {
            any = true;
            for model in models {
                let id = ["id", "slug", "name"].iter().find_map(|key| model[*key].as_str());
                if id.is_none_or(|id| known.insert(id.to_owned())) {
                    all.push(model.clone());
                }
            }
        }
        if any && let Some(object) = out.as_object_mut() {
            object.insert(name.to_owned(), Value::from(all));
        }
    }
    // Where Anthropic's API says what part of the list this is: it is all of it.
    if let Some(object) = out.as_object_mut() {
        let id = |model: Option<&Value>| model.map_or(Value::Null, |model| model["id"].clone());
        let data = object.get("data").and_then(Value::as_array);
        let ends = [
            ("first_id", id(data.and_then(|d| d.first()))),
            ("last_id", id(data.and_then(|d| d.last()))),
        ];
        for (name, value) in ends.into_iter().chain([("has_more", json!(false))]) {
            if object.contains_key(name) {
                object.insert(name.to_owned(), value);
            }
        }
        object.remove("nextPageToken");
    }
    out.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_stands_once_and_the_list_is_whole() {
        let a = Bytes::from_static(br#"{"data":[{"id":"x","display_name":"X"},{"id":"y"}],"has_more":true,"first_id":"x","last_id":"y"}"#);
        let b = Bytes::from_static(br#"{"object":"list","data":[{"id":"y"},{"id":"z"}]}"#);
        let all: Value = serde_json::from_slice(&merged(&[&a, &b])).unwrap();
        assert_eq!(
            all,
            json!({"data": [{"id": "x", "display_name": "X"}, {"id": "y"}, {"id": "z"}], "has_more": false,
                "first_id": "x", "last_id": "z"})
        );
        let google =
            |name: &str| Bytes::from(json!({"models": [{"name": name}], "nextPageToken": "p"}).to_string());
        let all: Value =
            serde_json::from_slice(&merged(&[&google("models/a"), &google("models/b")])).unwrap();
        assert_eq!(
            all,
            json!({"models": [{"name": "models/a"}, {"name": "models/b"}]})
        );
    }
}
