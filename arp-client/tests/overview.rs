//! What a console begins with: whom it talks to, all sessions in one list, where a session may begin.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

mod support;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Edge, TOKEN, answer};

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_keeps_its_public_name_and_does_nothing_that_is_meant_for_another() {
    let mut edge = Edge::start().await;
    let (_, info) = edge.get("/api/info").await;
    let name = info["edge_id"].as_str().unwrap().to_owned();
    assert_ne!(name, TOKEN);
    let ask = |name: &str| {
        edge.request(Method::POST, "/api/sessions")
            .header("x-arp-edge", name)
    };
    let body = json!({"prompt": "say one", "project_path": edge.project()});
    let (status, refused) = answer(ask("another").json(&body)).await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::CONFLICT, &json!("other_edge"))
    );
    let (_, list) = edge.get("/api/sessions").await;
    assert_eq!(list["total"], 0, "nothing was started");
    let (status, _) = answer(ask(&name).json(&body)).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, _) = edge.get("/api/events/ws?edge_id=another").await;
    assert_eq!(status, StatusCode::CONFLICT);
    edge.kill_and_restart();
    assert_eq!(edge.get("/api/info").await.1["edge_id"], json!(name));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_token_that_is_not_known_is_refused_whatever_the_cookie_says() {
    let edge = Edge::start().await;
    let cookie = format!("arp_token={TOKEN}");
    let get = |path: &str| edge.client.get(edge.url(path)).header("cookie", cookie.clone());
    assert_eq!(answer(get("/api/info")).await.0, StatusCode::OK);
    assert_eq!(
        answer(get(&format!("/api/info?arp_token={TOKEN}"))).await.0,
        StatusCode::OK
    );
    for refused in [
        get("/api/info?arp_token=gone"),
        get("/api/info").header("x-arp-token", "gone"),
    ] {
        assert_eq!(answer(refused).await.0, StatusCode::UNAUTHORIZED);
    }
    let page = get("/").header("accept", "text/html").send().await.unwrap();
    let kept = page.headers()["set-cookie"].to_str().unwrap();
    assert!(kept.contains("Max-Age=7776000"), "its life begins anew: {kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_sessions_are_one_list_in_pages_and_the_search_is_the_edges() {
    let edge = Edge::start().await;
    for n in 0..5 {
        edge.session(&format!("say number{n} of the garden")).await;
    }
    let mut seen: Vec<String> = Vec::new();
    let mut path = "/api/overview?limit=2".to_owned();
    loop {
        let (status, page) = edge.get(&path).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(page["total"], 5);
        let entries = page["entries"].as_array().unwrap();
        assert!(entries.len() <= 2);
        seen.extend(
            entries
                .iter()
                .map(|entry| entry["session"]["id"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => path = format!("/api/overview?limit=2&before={next}"),
            None => break,
        }
    }
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!((seen.len(), once.len()), (5, 5));
    let found = |page: &Value| page["entries"].as_array().unwrap().len();
    assert_eq!(found(&edge.get("/api/overview?q=GARDEN%20number3").await.1), 1);
    assert_eq!(found(&edge.get("/api/overview?q=garden%20shed").await.1), 0);
    assert_eq!(found(&edge.get("/api/overview?executor=codex").await.1), 0);
    assert_eq!(
        edge.get("/api/overview?before=nonsense").await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_were_worked_in_are_offered() {
    let edge = Edge::start().await;
    edge.session("say hello").await;
    let (status, told) = edge.get("/api/directories").await;
    assert_eq!(status, StatusCode::OK);
    let project = edge.project();
    let places = told["directories"].as_array().unwrap();
    assert!(places.iter().any(|place| place["kind"] == "home"));
    let recent = places
        .iter()
        .find(|place| place["path"] == project.to_str().unwrap())
        .unwrap();
    assert_eq!(recent["kind"], "recent");
    assert!(recent["last_used"].as_u64().unwrap() > 0);
}
