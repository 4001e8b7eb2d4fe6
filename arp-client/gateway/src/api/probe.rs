//! Is an upstream there, does it know the key, does it answer? Asked with the smallest request that there is.

use crate::clients::{Clients, Sent};
use crate::files::upstreams::Upstream;
use crate::service::Service;
use crate::settings::Network;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Time for the whole test.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest answer that is looked at.
const MAX_ANSWER: usize = 64 << 10;

/// What came of it.
#[derive(Debug, Clone)]
pub struct Tested {
    /// It answered as it should.
    pub ok: bool,
    /// Its status, if it answered at all.
    pub status: Option<u16>,
    /// How long it took.
    pub millis: u64,
    /// The model that was asked.
    pub model: String,
    /// What it said, or what went wrong, in words.
    pub message: String,
    /// The begin of its answer.
    pub text: String,
    /// Where it was asked.
    pub url: String,
}

fn request(service: Service, model: &str) -> (String, Value) {
    match service {
        Service::Claude => (
            "/v1/messages".to_owned(),
            json!({"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}),
        ),
        Service::Codex => (
            "/v1/responses".to_owned(),
            json!({
                "model": model, "store": false, "stream": false,
                "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
            }),
        ),
        Service::Gemini => (
            format!("/v1beta/models/{model}:generateContent"),
            json!({
                "contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 8},
            }),
        ),
    }
}

const fn usual_model(service: Service) -> &'static str {
    match service {
        Service::Claude => "claude-haiku-4-5",
        Service::Codex => "gpt-5-mini",
        Service::Gemini => "gemini-2.5-flash",
    }
}

/// Asks `upstream` for a word of `model` (a small one without).
pub async fn test(
    clients: &Clients,
    service: Service,
    upstream: &Upstream,
    network: &Network,
    model: Option<&str>,
) -> Tested {
    let model = model.unwrap_or(usual_model(service));
    let (path, body) = request(service, model);
    let started = Instant::now();
    let mut tested = Tested {
        ok: false,
        status: None,
        millis: 0,
        model: model.to_owned(),
        message: String::new(),
        text: String::new(),
        url: String::new(),
    };
    match tokio::time::timeout(PATIENCE, ask(clients, service, upstream, network, &path, &body)).await {
        Ok(Ok((status, text, url))) => {
            tested.status = Some(status);
            tested.url = url;
            let answer: Value = serde_json::from_str(&text).unwrap_or_default();
            let said = ["/error/message", "/message", "/error", "/detail"]
                .iter()
                .find_map(|at| answer.pointer(at)?.as_str());
            let is_error = answer.get("error").is_some_and(|e| !e.is_null());
            tested.ok = (200..300).contains(&status) && answer.is_object() && !is_error;
            tested.message = match (tested.ok, status, said) {
                (true, ..) => "it answers".to_owned(),
                (_, 401 | 403, _) => format!("it refuses the key (status {status})"),
                (_, 404, _) => format!(
                    "it does not know this path or model (status 404): is the base_url right, and the model {model:?} one of its own?"
                ),
                (_, _, Some(said)) => {
                    format!("status {status}: {}", said.chars().take(300).collect::<String>())
                }
                (_, 200..300, None) => {
                    "it answered 200 with something that is no answer of the API: is the base_url right?"
                        .to_owned()
                }
                _ => format!("status {status}"),
            };
            tested.text = text;
        }
        Ok(Err(message)) => tested.message = message,
        Err(_) => tested.message = format!("it did not answer within {} s", PATIENCE.as_secs()),
    }
    // Some say back what they were given.
    tested.message = upstream.without_keys(&tested.message);
    tested.text = upstream.without_keys(&tested.text);
    tested.millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tested
}

async fn ask(
    clients: &Clients,
    service: Service,
    upstream: &Upstream,
    network: &Network,
    path: &str,
    body: &Value,
) -> Result<(u16, String, String), String> {
    let origin = &upstream.origin;
    let client = clients.get(network, origin).map_err(|e| e.to_string())?;
    let there = origin
        .at(path, None)
        .ok_or("no request can carry this model's name")?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if service == Service::Claude {
        headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    }
    service.credentials(&mut headers, upstream);
    crate::forward::extra(&mut headers, network);
    let shown = origin.url_at(path, None).to_string();
    let body = Sent::Whole(body.to_string().into());
    let sent = client.send(origin, Method::POST, there, headers, body).await;
    let mut response = sent.map_err(|e| e.to_string())?;
    let status = response.status.as_u16();
    let mut text = Vec::new();
    while let Ok(Some(bytes)) = response.chunk().await {
        text.extend_from_slice(&bytes);
        if text.len() > MAX_ANSWER {
            text.truncate(MAX_ANSWER);
            break;
        }
    }
    Ok((status, String::from_utf8_lossy(&text).into_owned(), shown))
}
