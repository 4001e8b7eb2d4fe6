//! Lists of models, and the questions that agents ask at their start.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::support::*;
use arp_gateway::service::Service;
use serde_json::{Value, json};

fn list(ids: &'static [&'static str]) -> impl Fn(&Asked) -> Say + Send + Sync + 'static {
    move |asked| {
        assert!(
            asked.line.starts_with("GET /v1/models?limit=1000 "),
            "{}",
            asked.line
        );
        let data: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
        Say::Whole(200, "application/json", vec![], json!({"data": data}).to_string())
    }
}

#[tokio::test]
async fn lists_of_all_upstreams_are_one_list_that_is_kept_and_probes_are_answered_here() {
    let a = Upstream::start(list(&["claude-x", "claude-y"])).await;
    let b = Upstream::start(list(&["claude-y", "claude-z"])).await;
    let without = Upstream::start(|_| error(404, "no list here")).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gateway = Running::start(
        Service::Claude,
        &file(&[
            ("a", &a.url(), 4),
            ("b", &b.url(), 3),
            ("without", &without.url(), 2),
            ("dead", &format!("http://{nobody}"), 1),
        ]),
    )
    .await;
    for path in ["/v1/models?limit=1000", "/s/s1/v1/models?limit=1000"] {
        let got = got(client()
            .get(format!("{}{path}", gateway.url))
            .send()
            .await
            .unwrap())
        .await;
        let models: Value = serde_json::from_str(&got.body).unwrap();
        let ids: Vec<&str> = models["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|model| model["id"].as_str())
            .collect();
        assert_eq!(got.status, 200);
        assert_eq!(ids, ["claude-x", "claude-y", "claude-z"]);
    }
    assert_eq!(
        (a.times(), b.times(), without.times()),
        (1, 1, 1),
        "the second time from memory"
    );
    assert_eq!(a.asked()[0].header("authorization"), Some("Bearer key-a"));
    assert_eq!(a.asked()[0].header("x-arp-gateway"), Some("1"));

    for path in ["/", "/api/hello", "/s/s1/api/hello"] {
        let head = client()
            .head(format!("{}{path}", gateway.url))
            .send()
            .await
            .unwrap();
        assert_eq!(head.status().as_u16(), 200, "{path}");
    }
    assert_eq!(a.times(), 1, "nobody was asked for those");

    // Nobody has one: said at once, with the reasons.
    let gateway = Running::start(Service::Claude, &file(&[("without", &without.url(), 0)])).await;
    let none = got(client()
        .get(format!("{}/v1/models", gateway.url))
        .send()
        .await
        .unwrap())
    .await;
    assert_eq!(none.status, 404);
    assert!(
        none.body.contains("no_model_list") && none.body.contains("it answered 404"),
        "{}",
        none.body
    );
}
