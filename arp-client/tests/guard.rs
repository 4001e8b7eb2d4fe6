//! A machine that runs commands is protected: token, host, origin, content type, edge key, limits.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

mod support;

use reqwest::{Method, StatusCode, header};
use serde_json::json;
use support::{Edge, TOKEN, answer};

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_the_token_is_taken_and_nothing_passes_without() {
    let edge = Edge::start().await;
    let get = |path: &str| edge.client.get(edge.url(path));
    for path in [
        "/api/info",
        "/",
        "/proxy/80/",
        "/api/sessions?token=wrong",
        "/t/wrong/api/info",
    ] {
        let (status, refused) = answer(get(path)).await;
        assert_eq!(
            (status, &refused["code"]),
            (StatusCode::UNAUTHORIZED, &json!("token_required")),
            "{path}"
        );
    }
    assert_eq!(
        answer(get(&format!("/api/health?token={TOKEN}"))).await.0,
        StatusCode::OK
    );
    assert_eq!(
        answer(get(&format!("/t/{TOKEN}/api/health"))).await.0,
        StatusCode::OK
    );
    assert_eq!(
        answer(get("/api/health").header("x-arp-token", TOKEN)).await.0,
        StatusCode::OK
    );
    let cookie = format!("other=1; arp_token={TOKEN}");
    assert_eq!(
        answer(get("/api/health").header("cookie", &cookie)).await.0,
        StatusCode::OK
    );
    assert_eq!(
        answer(get(&format!("/api/sessions?arp_token={TOKEN}&limit=1")))
            .await
            .0,
        StatusCode::OK
    );
    // A wrong name where only names of ours stand is not made good by another.
    let with = |path: &str| get(path).header("cookie", &cookie);
    for request in [
        with("/api/health?arp_token=wrong"),
        with("/api/health?arp_token="),
        with(&format!("/api/health?token={TOKEN}&arp_token=wrong")),
        with("/t/wrong/api/health"),
        with("/api/health").header("x-arp-token", "wrong"),
        with("/api/health")
            .header("x-arp-token", TOKEN)
            .header("x-arp-token", "wrong"),
    ] {
        assert_eq!(answer(request).await.0, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(answer(with("/api/health?token=own")).await.0, StatusCode::OK);
    let page = get(&format!("/?token={TOKEN}"))
        .header("accept", "text/html")
        .send()
        .await
        .unwrap();
    assert!(
        page.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .contains("HttpOnly; SameSite=Lax")
    );
    assert_eq!(
        page.headers()["content-type"].to_str().unwrap().split(';').next(),
        Some("text/html")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_name_is_refused() {
    let edge = Edge::start().await;
    for host in [
        "evil.example",
        "127.evil.example",
        "127.0.0.1.evil.example:80",
        "127.0.0.1@evil.example",
        "localhost@evil.example:80",
    ] {
        let (status, refused) = answer(edge.request(Method::GET, "/api/info").header("host", host)).await;
        assert_eq!(
            (status, &refused["code"]),
            (StatusCode::FORBIDDEN, &json!("host_not_allowed")),
            "{host}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_the_edge_key_is_slow_whichever_way_it_is_tried() {
    const KEY: &str = "a-key-of-some-length";
    let edge = Edge::start_with(&["--edge-key", KEY]).await;
    // The cookie of a login holds no key, and no guess at one.
    for way in ["bearer", "login"] {
        let guess = |key: String| {
            let request = match way {
                "bearer" => edge.request(Method::GET, "/api/sessions").bearer_auth(key),
                _ => edge
                    .request(Method::POST, "/api/login")
                    .json(&json!({"edge_key": key})),
            };
            answer(request)
        };
        let begun = std::time::Instant::now();
        let told =
            futures_util::future::join_all((0..20).map(|n| guess(format!("wrong-key-number-{n}")))).await;
        let took = begun.elapsed();
        let compared = told
            .iter()
            .filter(|(status, _)| *status == StatusCode::UNAUTHORIZED)
            .count();
        // Five within five seconds, however long this machine took for all of them.
        let most = 5 * (1 + usize::try_from(took.as_secs() / 5).unwrap());
        assert!(
            compared <= most && took >= std::time::Duration::from_millis(500),
            "{way}: {compared} in {took:?}"
        );
        let (status, refused) = guess(KEY.to_owned()).await;
        if begun.elapsed() < std::time::Duration::from_secs(5) {
            assert_eq!(
                (status, &refused["code"]),
                (StatusCode::TOO_MANY_REQUESTS, &json!("too_many_guesses")),
                "{way}"
            );
        }
        // It is over soon.
        let until = begun + support::PATIENCE;
        while guess(KEY.to_owned()).await.0 != StatusCode::OK {
            assert!(std::time::Instant::now() < until, "{way}");
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_change_nothing_and_are_told_nothing() {
    let edge = Edge::start_with(&["--allowed-origin=https://good.example"]).await;
    let body = json!({"prompt": "say x", "project_path": edge.project()});
    let post = |origin: &str| {
        edge.request(Method::POST, "/api/sessions")
            .json(&body)
            .header("origin", origin)
    };
    let (status, refused) = answer(post("https://evil.example")).await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::FORBIDDEN, &json!("origin_not_allowed"))
    );
    assert_eq!(answer(post("null")).await.0, StatusCode::FORBIDDEN);
    assert_eq!(answer(post("https://good.example")).await.0, StatusCode::CREATED);
    assert_eq!(answer(post(&edge.base)).await.0, StatusCode::CREATED);

    let get = |origin: &str| {
        edge.request(Method::GET, "/api/info")
            .header("origin", origin)
            .send()
    };
    let evil = get("https://evil.example").await.unwrap();
    assert!(!evil.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    let good = get("https://good.example").await.unwrap();
    assert_eq!(
        good.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        "https://good.example"
    );
    let preflight = edge
        .client
        .request(Method::OPTIONS, edge.url("/api/sessions"))
        .header("origin", "https://good.example")
        .header("access-control-request-method", "POST")
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    assert!(
        preflight.headers()[header::ACCESS_CONTROL_ALLOW_METHODS]
            .to_str()
            .unwrap()
            .contains("POST")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_json_changes_anything() {
    let edge = Edge::start().await;
    let body = format!(r#"{{"prompt":"say x","project_path":{:?}}}"#, edge.project());
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ] {
        let post = edge
            .request(Method::POST, "/api/sessions")
            .header("content-type", kind)
            .body(body.clone());
        let (status, refused) = answer(post).await;
        assert_eq!(
            (status, &refused["code"]),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, &json!("json_required"))
        );
    }
    let (status, _) = answer(edge.request(Method::POST, "/api/sessions").body(body)).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(edge.get("/api/sessions").await.1["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_limit_is_refused() {
    let edge = Edge::start().await;
    let body = json!({"prompt": "x".repeat(9 * 1024 * 1024)});
    let (status, refused) = edge.post("/api/sessions", body).await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("body_too_large"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_key_is_asked_for_where_there_is_one() {
    const KEY: &str = "a-key-of-some-length";
    let edge = Edge::start_with(&["--edge-key", KEY]).await;
    let (status, refused) = edge.get("/api/sessions").await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::UNAUTHORIZED, &json!("edge_key_required"))
    );
    assert_eq!(edge.get("/api/health").await.0, StatusCode::OK);
    assert_eq!(
        edge.post("/api/login", json!({"edge_key": "wrong"})).await.0,
        StatusCode::UNAUTHORIZED
    );
    let bearer = edge.request(Method::GET, "/api/sessions").bearer_auth(KEY);
    assert_eq!(answer(bearer).await.0, StatusCode::OK);
    let login = edge
        .request(Method::POST, "/api/login")
        .json(&json!({"edgeKey": KEY}))
        .send()
        .await
        .unwrap();
    let cookie = login.headers()["set-cookie"]
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    let with_cookie = edge
        .request(Method::GET, "/api/sessions")
        .header("cookie", cookie);
    assert_eq!(answer(with_cookie).await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_say_so() {
    let edge = Edge::start().await;
    assert_eq!(edge.get("/api/nothing").await.1["code"], "not_found");
    assert_eq!(
        edge.get("/api/sessions/none").await.1["code"],
        "session_not_found"
    );
    let put = edge.request(Method::PUT, "/api/sessions").send().await.unwrap();
    assert_eq!(put.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(put.headers()["allow"], "GET, HEAD, POST, OPTIONS");
    let head = edge.request(Method::HEAD, "/api/health").send().await.unwrap();
    assert_eq!(
        (head.status(), head.text().await.unwrap().len()),
        (StatusCode::OK, 0)
    );
    assert_eq!(edge.get("/api/fs").await.1["code"], "fs_disabled");
    assert_eq!(edge.get("/proxy/1/").await.1["code"], "port_not_allowed");
}

/// What somebody may try who can reach the machine through the relay, or from a page in its owner's browser.
#[tokio::test(flavor = "multi_thread")]
async fn the_relay_and_loopback_are_guarded_alike_and_no_answer_shows_a_secret() {
    const KEY: &str = "edge-key-of-the-test-0123456789";
    let secrets = [
        ("ARPC_EDGE_KEY", KEY),
        ("ANTHROPIC_API_KEY", "secret-of-the-agent"),
        ("OTHER", "secret-of-the-shell"),
    ];
    let environment: Vec<_> = secrets.map(|(name, value)| (name.into(), value.into())).into();
    let claude = format!(
        "--agent-path=claude={}",
        support::example("scripted_claude").display()
    );
    let root = tempfile::tempdir().unwrap();
    let arguments = vec![
        claude,
        "--enable-fs".to_owned(),
        format!("--fs-root={}", root.path().display()),
    ];
    let mut alone = arguments.clone();
    alone.push(format!("--edge-key={KEY}"));
    let relayed = Edge::launch_through_relay(arguments, environment.clone()).await;
    for edge in [relayed, Edge::launch(alone, environment).await] {
        let ask = |method: Method, path: &str| edge.request(method, path).bearer_auth(KEY);
        let evil = |method: Method, path: &str| ask(method, path).header("origin", "https://evil.example");
        let post = |kind: &str| {
            ask(Method::POST, "/api/sessions")
                .header("content-type", kind)
                .body(r#"{"prompt":"say x"}"#)
        };
        let socket = |request: reqwest::RequestBuilder| {
            request
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        };
        let deep = ask(Method::POST, "/api/sessions").header("content-type", "application/json");
        for (request, status, code) in [
            (edge.request(Method::GET, "/api/info"), 401, "edge_key_required"),
            (
                edge.request(Method::GET, "/api/info").bearer_auth("wrong"),
                401,
                "edge_key_required",
            ),
            (
                edge.client.get(edge.url("/api/info")).bearer_auth(KEY),
                401,
                "token_required",
            ),
            (
                socket(edge.request(Method::GET, "/api/ws")),
                401,
                "edge_key_required",
            ),
            (socket(evil(Method::GET, "/api/ws")), 403, "origin_not_allowed"),
            (
                evil(Method::POST, "/api/sessions/x/cancel"),
                403,
                "origin_not_allowed",
            ),
            (
                evil(Method::DELETE, "/api/claude/sessions/x"),
                403,
                "origin_not_allowed",
            ),
            (post("text/plain; a=application/json"), 415, "json_required"),
            (post("application/jsonp"), 415, "json_required"),
            (deep.body("[".repeat(200_000)), 400, "bad_request"),
            (
                ask(Method::GET, "/api/fs/..%2f..%2fetc/passwd"),
                403,
                "outside_root",
            ),
            (ask(Method::GET, "/api/fs/etc/passwd"), 403, "outside_root"),
            (ask(Method::GET, "/proxy/22/"), 403, "port_not_allowed"),
        ] {
            let shown = format!("{request:?}");
            let (is, refused) = answer(request).await;
            assert_eq!((is.as_u16(), &refused["code"]), (status, &json!(code)), "{shown}");
        }

        let body = json!({"prompt": "say x", "project_path": edge.project()});
        let (status, started) = answer(ask(Method::POST, "/api/sessions").json(&body)).await;
        assert_eq!(status, StatusCode::CREATED, "{started}");
        let session = format!("/api/sessions/{}", started["session_id"].as_str().unwrap());
        for path in [
            "/api/info",
            "/api/health",
            "/api/openapi.json",
            "/api/sessions",
            &session,
            "/api/approvals",
            "/api/claude/projects",
            "/api/claude/sessions",
            "/api/fs",
        ] {
            let said = ask(Method::GET, path).send().await.unwrap().text().await.unwrap();
            for (_, secret) in secrets {
                assert!(!said.contains(secret), "{path}: {said}");
            }
        }
    }
}

/// `arpc tokens …` of the user who runs `edge`.
fn tokens(edge: &Edge, args: &[&str]) -> String {
    let output = std::process::Command::new(support::ARPC)
        .arg("--data-dir")
        .arg(edge.root.path().join("data"))
        .args(["--client-id", TOKEN, "tokens"])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_come_and_go_count_on_the_loopback_listener_too() {
    let edge = Edge::start_with(&["--no-id-token", "--token=configured"]).await;
    let ask = |token: &str| {
        let request = edge.client.get(edge.url("/api/info"));
        answer(request.header("x-arp-token", token.to_owned()))
    };
    assert_eq!(ask(TOKEN).await.0, StatusCode::UNAUTHORIZED, "the id is no token");
    assert_eq!(ask("configured").await.0, StatusCode::OK);
    assert_eq!(ask("brief").await.0, StatusCode::UNAUTHORIZED);
    tokens(&edge, &["add", "brief", "--expires", "3s"]);
    tokens(&edge, &["add", "revoked"]);
    assert_eq!(ask("brief").await.0, StatusCode::OK);
    assert_eq!(ask("revoked").await.0, StatusCode::OK);
    tokens(&edge, &["revoke", "revoked"]);
    assert_eq!(ask("revoked").await.0, StatusCode::UNAUTHORIZED);
    let until = std::time::Instant::now() + support::PATIENCE;
    while ask("brief").await.0 != StatusCode::UNAUTHORIZED {
        assert!(std::time::Instant::now() < until, "it does not expire");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_whose_token_ends_is_told_none_that_lasts() {
    let edge = Edge::start_with(&["--token=configured", "--enable-fs", "--fs-root=/"]).await;
    let brief = tokens(&edge, &["add", "brief", "--expires", "1h"]);
    let body = json!({"executor": "claude", "prompt": "say x", "project_path": edge.project()});
    let (_, started) = edge.post("/api/sessions", body).await;
    let session = format!("/api/sessions/{}", started["session_id"].as_str().unwrap());
    let data = edge.root.path().join("data").display().to_string();
    for base in [edge.url(""), edge.relay_url("")] {
        for path in [
            "/",
            "/api/info",
            "/api/health",
            "/api/openapi.json",
            "/api/sessions",
            &session,
            &format!("{session}/events"),
            "/api/approvals",
            "/api/nothing",
            &format!("/api/fs{data}"),
            &format!("/api/fs{data}/client-id.secret"),
        ] {
            let request = edge.client.get(format!("{base}{path}"));
            let answered = request.header("x-arp-token", &brief).send().await.unwrap();
            let head = format!("{:?}", answered.headers());
            let said = head + &answered.text().await.unwrap();
            for lasting in [TOKEN, "configured"] {
                assert!(!said.contains(lasting), "{base}{path}: {said}");
            }
        }
    }
}
