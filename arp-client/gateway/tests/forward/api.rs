//! The API: ours, and the one that CLP's scripts know.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::support::*;
use super::{ASK, PATH};
use arp_gateway::service::Service;
use futures_util::StreamExt;
use serde_json::{Value, json};

#[tokio::test]
async fn upstreams_are_seen_switched_and_changed_and_no_key_is_ever_told() {
    let a = Upstream::start(|_| Say::Events(message("from a"))).await;
    let b = Upstream::start(|_| Say::Events(message("from b"))).await;
    let gateway = Running::start(
        Service::Claude,
        &file(&[("a", &a.url(), 0), ("b/x", &b.url(), 0)]),
    )
    .await;
    let (status, all) = gateway.ask("GET", "/api/gateway/upstreams", "").await;
    assert_eq!(status, 200);
    let claude = &all["services"]["claude"];
    assert_eq!(
        (&claude["active"], &claude["upstreams"][0]["has_token"]),
        (&json!("a"), &json!(true))
    );
    let (status, view) = gateway
        .ask("POST", "/api/gateway/upstreams/claude/b%2Fx/activate", "")
        .await;
    assert_eq!((status, &view["active"]), (200, &json!(true)));
    assert!(gateway.post(PATH, ASK, Some("s")).await.body.contains("from b"));

    // Another address needs its key again: whoever may only write keys must not be able to read them.
    let evil = r#"{"base_url":"http://127.0.0.1:1"}"#;
    let (status, refused) = gateway.ask("PUT", "/api/gateway/upstreams/claude/a", evil).await;
    assert_eq!((status, &refused["code"]), (409, &json!("key_needed")));
    let (status, _) = gateway
        .ask("PUT", "/api/gateway/upstreams/claude/a", r#"{"weight":3}"#)
        .await;
    assert_eq!(status, 200);
    let new = r#"{"base_url":"http://127.0.0.1:1/x","auth_token":"sk-new","weight":2}"#;
    let (status, view) = gateway.ask("PUT", "/api/gateway/upstreams/claude/new", new).await;
    assert_eq!(
        (status, &view["base_url"], &view["standing"]),
        (200, &json!("http://127.0.0.1:1/x"), &json!("good"))
    );
    let (_, view) = gateway
        .ask(
            "POST",
            "/api/gateway/upstreams/claude/new/disable",
            r#"{"until":"2999-01-01"}"#,
        )
        .await;
    assert_eq!(
        (&view["standing"], &view["disabled_until"]),
        (&json!("disabled"), &json!("2999-01-01"))
    );
    let (status, _) = gateway
        .ask(
            "POST",
            "/api/gateway/upstreams/claude/new/disable",
            r#"{"until":"soon"}"#,
        )
        .await;
    assert_eq!(status, 400);
    let (status, tested) = gateway
        .ask("POST", "/api/gateway/upstreams/claude/new/test", "")
        .await;
    assert_eq!((status, &tested["ok"]), (200, &json!(false)));
    assert!(
        tested["message"].as_str().unwrap().contains("nothing listens"),
        "{tested}"
    );
    let (status, balance) = gateway
        .ask("PUT", "/api/gateway/balance/claude", r#"{"mode":"weight-based"}"#)
        .await;
    assert_eq!((status, &balance["mode"]), (200, &json!("weight-based")));
    let (status, _) = gateway
        .ask("DELETE", "/api/gateway/upstreams/claude/new", "")
        .await;
    assert_eq!(status, 200);
    for path in [
        "/api/gateway/upstreams/claude/new/test",
        "/api/gateway/nothing",
        "/api/nothing",
        "/x",
    ] {
        let method = if path.ends_with("test") { "POST" } else { "GET" };
        let (status, told) = gateway.ask(method, path, "").await;
        assert_eq!((status, &told["type"]), (404, &json!("error")), "{path}");
    }

    gateway.gateway.usage().flush();
    let mut seen = String::new();
    for path in [
        "/api/gateway",
        "/api/gateway/upstreams",
        "/api/gateway/requests",
        "/api/gateway/usage?by=upstream",
        "/api/gateway/budgets",
        "/api/gateway/prices",
        "/api/gateway/filters",
        "/api/gateway/routes",
        "/api/gateway/sessions/s",
        "/api/status",
        "/api/config/claude",
        "/api/logs",
        "/api/logs/all",
        "/api/usage/details",
        "/api/routing/config",
        "/api/loadbalance/config",
        "/api/system/config",
        "/api/filter",
        "/api/info",
        "/api/health",
        "/api/sessions",
    ] {
        let (status, told) = gateway.ask("GET", path, "").await;
        assert_eq!(status, 200, "{path}: {told}");
        seen.push_str(&told.to_string());
    }
    assert!(
        !seen.contains("key-a") && !seen.contains("sk-new") && seen.contains("********"),
        "{seen}"
    );
}

#[tokio::test]
async fn a_session_is_counted_told_and_sent_elsewhere_by_choice() {
    let a = Upstream::start(|_| error(503, "busy")).await;
    let b = Upstream::start(|_| Say::Events(message("from b"))).await;
    let c = Upstream::start(|_| Say::Events(message("from c"))).await;
    let urls = [a.url(), b.url(), c.url()];
    let list = [("a", &*urls[0], 3), ("b", &*urls[1], 2), ("c", &*urls[2], 1)];
    let gateway = Running::start(Service::Claude, &file(&list)).await;
    let events = client()
        .get(format!("{}/api/gateway/events", gateway.api))
        .send()
        .await
        .unwrap();
    let mut events = Box::pin(events.bytes_stream());
    gateway.post(PATH, ASK, Some("s")).await;
    let mut told = String::new();
    while !(told.contains("event: request") && told.ends_with("\n\n")) {
        told.push_str(std::str::from_utf8(&events.next().await.unwrap().unwrap()).unwrap());
    }
    assert!(
        told.contains("event: live") && told.contains("\"upstream\":\"b\""),
        "{told}"
    );
    assert!(
        told.contains("\"failed\":[[\"a\",\"it answered 503: busy\"]]"),
        "{told}"
    );

    let (status, session) = gateway
        .ask(
            "PUT",
            "/api/gateway/sessions/s",
            r#"{"upstream":"c","model":"other"}"#,
        )
        .await;
    assert_eq!((status, &session["choice"]["upstream"]), (200, &json!("c")));
    assert!(gateway.post(PATH, ASK, Some("s")).await.body.contains("from c"));
    assert!(
        c.asked()[0].text().contains(r#""model":"other""#) && c.asked()[0].text().contains(r#""n": 1.50"#)
    );
    assert!(
        gateway.post(PATH, ASK, Some("t")).await.body.contains("from b"),
        "another session is not meant"
    );
    let (status, _) = gateway
        .ask("PUT", "/api/gateway/sessions/s", r#"{"upstream":"nobody"}"#)
        .await;
    assert_eq!(status, 404);
    gateway.gateway.usage().flush();
    let (_, session) = gateway.ask("GET", "/api/gateway/sessions/s", "").await;
    assert_eq!(
        (
            &session["usage"]["requests"],
            &session["usage"]["output"],
            &session["failovers"],
            &session["upstream"]
        ),
        (&json!(2), &json!(10), &json!(1), &json!("c"))
    );
    let (_, session) = gateway
        .ask(
            "PUT",
            "/api/gateway/sessions/s",
            r#"{"upstream":null,"model":null}"#,
        )
        .await;
    assert_eq!(session["choice"], json!({"upstream": null, "model": null}));
    let (_, failed) = gateway
        .ask("GET", "/api/gateway/requests?failed=true&session=s", "")
        .await;
    assert_eq!(failed["requests"].as_array().unwrap().len(), 1, "{failed}");
}

#[tokio::test]
async fn clps_scripts_find_what_they_know() {
    let a = Upstream::start(|_| Say::Events(message("from a"))).await;
    let gateway = Running::start(
        Service::Claude,
        &file(&[("a", &a.url(), 0), ("b", "http://127.0.0.1:1", 0)]),
    )
    .await;
    let (mut socket, _) = tokio_tungstenite::client_async(
        format!("{}/ws/realtime", gateway.url.replace("http", "ws")),
        tokio::net::TcpStream::connect(gateway.url.trim_start_matches("http://"))
            .await
            .unwrap(),
    )
    .await
    .unwrap();
    let mut next = async || -> Value {
        let message = socket.next().await.unwrap().unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    };
    assert_eq!(next().await["type"], "snapshot");
    gateway.post(PATH, ASK, None).await;
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "completed") {
        kinds.push(next().await["type"].as_str().unwrap().to_owned());
    }
    assert_eq!(kinds[0], "started");

    gateway.gateway.usage().flush();
    let (_, status) = gateway.ask("GET", "/api/status", "").await;
    assert_eq!(
        (&status["services"]["claude"]["config"], &status["request_count"]),
        (&json!("a"), &json!(1))
    );
    let (_, usage) = gateway.ask("GET", "/api/usage/details", "").await;
    let metrics = &usage["services"]["claude"]["channels"]["a"]["metrics"];
    assert_eq!(
        (&metrics["input"], &metrics["cached_read"], &metrics["total"]),
        (&json!(11), &json!(7), &json!(16))
    );
    let (_, logs) = gateway.ask("GET", "/api/logs", "").await;
    assert_eq!(
        (&logs[0]["channel"], &logs[0]["status_code"], &logs[0]["method"]),
        (&json!("a"), &json!(200), &json!("POST"))
    );

    // A file that comes back as it was shown keeps its keys.
    let (_, config) = gateway.ask("GET", "/api/config/claude", "").await;
    let content = config["content"]
        .as_str()
        .unwrap()
        .replace("\"weight\":0", "\"weight\":5");
    let (status, told) = gateway
        .ask(
            "POST",
            "/api/config/claude",
            &json!({"content": content}).to_string(),
        )
        .await;
    assert_eq!((status, &told["success"]), (200, &json!(true)), "{told}");
    gateway.post(PATH, ASK, None).await;
    assert_eq!(a.asked()[1].header("authorization"), Some("Bearer key-a"));
    let moved = content.replace(&a.url(), "http://127.0.0.1:2");
    let (status, _) = gateway
        .ask(
            "POST",
            "/api/config/claude",
            &json!({"content": moved}).to_string(),
        )
        .await;
    assert_eq!(status, 400, "a hidden key does not go to another address");
    let (status, _) = gateway
        .ask(
            "POST",
            "/api/switch-config",
            r#"{"service":"claude","config":"b"}"#,
        )
        .await;
    assert_eq!(status, 200);
    let (status, _) = gateway
        .ask(
            "POST",
            "/api/loadbalance/config",
            r#"{"mode":"weight-based","services":{}}"#,
        )
        .await;
    assert_eq!(status, 200);
    let (status, _) = gateway
        .ask("POST", "/api/filter", r#"{"content":"[{\"source\":\"x\"}]"}"#)
        .await;
    assert_eq!(status, 400);
    let (status, _) = gateway.ask("DELETE", "/api/usage/clear", "").await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn pages_of_other_sites_get_nothing() {
    let gateway = Running::start(Service::Claude, "{}").await;
    let status = async |name: &str, value: &str| {
        let request = client()
            .post(format!("{}/api/switch-config", gateway.api))
            .header(name, value);
        request.body("{}").send().await.unwrap().status().as_u16()
    };
    assert_eq!(status("origin", "https://evil.example").await, 403);
    assert_eq!(
        status("origin", "http://localhost:5173").await,
        403,
        "nor those of other ports"
    );
    assert_eq!(status("sec-fetch-site", "cross-site").await, 403);
    assert_eq!(status("host", "evil.example").await, 403);
    assert_eq!(status("origin", &gateway.api).await, 400, "its own page is heard");
}

#[tokio::test]
async fn a_key_that_an_upstream_says_back_is_in_no_record_and_no_answer_of_the_api() {
    let a = Upstream::start(|_| error(401, "Incorrect API key provided: key-a")).await;
    let gateway = Running::start(Service::Claude, &file(&[("a", &a.url(), 0)])).await;
    gateway.post(PATH, ASK, Some("s")).await;
    gateway.gateway.usage().flush();
    let (status, tested) = gateway
        .ask("POST", "/api/gateway/upstreams/claude/a/test", "{}")
        .await;
    assert_eq!((status, &tested["ok"]), (200, &json!(false)));
    let (_, requests) = gateway.ask("GET", "/api/gateway/requests", "").await;
    let (_, overview) = gateway.ask("GET", "/api/gateway", "").await;
    let seen = format!("{tested}{requests}{overview}");
    assert!(
        seen.contains("Incorrect API key") && !seen.contains("key-a"),
        "{seen}"
    );
}
