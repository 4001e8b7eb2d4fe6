//! What upstreams do not see, and what is spent.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::support::*;
use super::{ASK, PATH};
use arp_gateway::service::Service;
use serde_json::{Value, json};

const SECRET: &str = "someone@corp.example";

fn ask(content: &str) -> String {
    json!({"model": "claude-haiku-4-5", "stream": true, "messages": [{"role": "user", "content": content}]})
        .to_string()
}

/// What stands in the place of the secret in what an upstream was asked.
fn placeholder(text: &str) -> String {
    let at = text
        .find("ARPX")
        .unwrap_or_else(|| panic!("nothing is hidden in {text}"));
    text[at..at + 20].to_owned()
}

#[tokio::test]
async fn a_secret_never_reaches_the_upstream_and_comes_back_even_in_pieces() {
    // The upstream says back what stands for the secret, cut in the middle, as text and as a tool's argument.
    let upstream = Upstream::start(|asked| {
        let word = placeholder(&asked.text());
        let (head, tail) = word.split_at(7);
        let delta = |index: u32, kind: &str, field: &str, text: &str| {
            let delta = json!({"type": "content_block_delta", "index": index, "delta": {"type": kind, field: text}});
            format!("event: content_block_delta\ndata: {delta}\n\n")
        };
        let mut events = message("x");
        let end = events.split_off(2);
        events.push(delta(0, "text_delta", "text", &format!("mail {head}")));
        events.push(delta(0, "text_delta", "text", &format!("{tail}!")));
        events.push("event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n".to_owned());
        let start = json!({"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "Bash", "input": {}}});
        events.push(format!("event: content_block_start\ndata: {start}\n\n"));
        events.push(delta(1, "input_json_delta", "partial_json", &format!("{{\"command\":\"mail {head}")));
        events.push(delta(1, "input_json_delta", "partial_json", &format!("{tail}\"}}")));
        events.push("event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\n".to_owned());
        events.extend(end.into_iter().skip(2));
        Say::Events(events)
    })
    .await;
    let gateway = Running::start(Service::Claude, &file(&[("a", &upstream.url(), 0)])).await;
    std::fs::write(gateway.home.settings(), "[redaction]\npresets = [\"mails\"]\n").unwrap();
    let first = gateway
        .post(PATH, &ask(&format!("write to {SECRET}")), Some("s"))
        .await;
    let texts = |body: &str, field: &str| -> String {
        body.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
            .filter_map(|event| event["delta"][field].as_str().map(str::to_owned))
            .collect()
    };
    assert_eq!(
        texts(&first.body, "text"),
        format!("mail {SECRET}!"),
        "{}",
        first.body
    );
    let command: Value = serde_json::from_str(&texts(&first.body, "partial_json")).unwrap();
    assert_eq!(command["command"], format!("mail {SECRET}"));
    gateway
        .post(PATH, &ask(&format!("again to {SECRET}")), Some("s"))
        .await;
    gateway
        .post(PATH, &ask(&format!("again to {SECRET}")), Some("t"))
        .await;
    let asked = upstream.asked();
    assert!(asked.iter().all(|asked| !asked.text().contains(SECRET)));
    let words: Vec<String> = asked.iter().map(|asked| placeholder(&asked.text())).collect();
    assert_eq!(
        words[0], words[1],
        "the same in one session, or prompt caches would miss"
    );
    assert_ne!(words[0], words[2]);
    gateway.gateway.usage().flush();
    let newest = gateway.gateway.usage().newest(1).unwrap();
    assert_eq!(newest[0]["redacted"], 1);
    assert!(!newest[0].to_string().contains(SECRET));
}

#[tokio::test]
async fn rules_that_cannot_be_used_stop_requests_and_say_so() {
    let upstream = Upstream::start(|_| Say::Events(message("hello"))).await;
    let gateway = Running::start(Service::Claude, &file(&[("a", &upstream.url(), 0)])).await;
    std::fs::write(
        gateway.home.filters(),
        r#"[{"source":"foo","target":"bar","op":"replace"}]"#,
    )
    .unwrap();
    gateway.post(PATH, &ask("foo"), None).await;
    assert!(upstream.asked()[0].text().contains("bar"));
    let compressed = client()
        .post(format!("{}{PATH}", gateway.url))
        .header("content-encoding", "zstd");
    let got = got(compressed.body("x").send().await.unwrap()).await;
    assert!(
        got.status == 403 && got.body.contains("cannot_be_filtered"),
        "{}",
        got.body
    );
    for (path, text) in [
        (gateway.home.filters(), r#"[{"source":"(?<=a)b","op":"remove"}]"#),
        (gateway.home.settings(), "[redaction]\npresets = [\"nothing\"]\n"),
    ] {
        let before = std::fs::read_to_string(&path).ok();
        std::fs::write(&path, text).unwrap();
        let got = gateway.post(PATH, &ask("secret"), None).await;
        assert_eq!(got.status, 403, "{}", got.body);
        assert!(
            got.body.contains("filters_unusable") && got.body.contains("nothing is sent"),
            "{}",
            got.body
        );
        std::fs::write(&path, before.unwrap_or_default()).unwrap();
    }
    assert_eq!(upstream.times(), 1);
    std::fs::write(gateway.home.settings(), "[redaction]\nfail_open = true\n").unwrap();
    gateway.post(PATH, ASK, None).await;
    std::fs::write(gateway.home.filters(), "[").unwrap();
    let got = gateway.post(PATH, ASK, None).await;
    assert_eq!(got.status, 200, "a person's own choice: {}", got.body);

    let run = r#"{"text":"to a@b.example","redaction":{"presets":["mails"]}}"#;
    let (status, told) = gateway.ask("POST", "/api/gateway/filters/dry-run", run).await;
    assert_eq!(
        (status, &told["found"][0]["by"], &told["found"][0]["count"]),
        (200, &json!("mails"), &json!(1))
    );
    let put = r#"{"redaction":{"presets":["mails"],"words":["corp.example"]}}"#;
    std::fs::write(gateway.home.filters(), "[]").unwrap();
    let (status, told) = gateway.ask("PUT", "/api/gateway/filters", put).await;
    assert_eq!(
        (status, &told["redaction"]["words"][0]),
        (200, &json!("corp.example")),
        "{told}"
    );
    let (status, _) = gateway
        .ask(
            "PUT",
            "/api/gateway/filters",
            r#"{"redaction":{"presets":["x"]}}"#,
        )
        .await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_budget_that_is_used_up_refuses_and_says_so() {
    let upstream = Upstream::start(|_| Say::Events(message("hello"))).await;
    let gateway = Running::start(Service::Claude, &file(&[("a", &upstream.url(), 0)])).await;
    let put = r#"{"budgets":[{"name":"mine","per":"session","usd":0.00001,"then":"refuse"}]}"#;
    let (status, told) = gateway.ask("PUT", "/api/gateway/budgets", put).await;
    assert_eq!(
        (status, &told["budgets"][0]["reached"]),
        (200, &json!(false)),
        "{told}"
    );
    assert_eq!(gateway.post(PATH, &ask("x"), Some("s")).await.status, 200);
    let refused = gateway.post(PATH, &ask("x"), Some("s")).await;
    assert_eq!(refused.status, 403);
    assert!(
        refused.body.contains("budget_reached") && refused.body.contains("mine"),
        "{}",
        refused.body
    );
    assert_eq!(
        gateway.post(PATH, &ask("x"), Some("t")).await.status,
        200,
        "another session has its own"
    );
    gateway.gateway.usage().flush();
    let (_, usage) = gateway.ask("GET", "/api/gateway/usage?by=session", "").await;
    let cost = usage["total"]["cost"].as_f64().unwrap();
    // 11 read, 7 from the cache, 5 written, twice, at the price of the table.
    assert!((cost - 2.0 * (11.0 + 0.7 + 25.0) / 1e6).abs() < 1e-9, "{usage}");
}
