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

#[tokio::test]
async fn an_answer_is_kept_beside_its_request_without_secrets_and_forgotten_with_it() {
    const KEPT: &str = "[recording]\non = true\n";
    // The first says a secret in pieces, which nobody had hidden; the second repeats its own key in an error.
    let upstream = Upstream::start(|asked| {
        if asked.text().contains("fail") {
            return error(400, "the key key-a may not do that for someone@corp.example");
        }
        let mut events = message("mail some");
        let delta = events[2].clone();
        for (n, piece) in ["one@cor", "p.example with key", "-a now"].iter().enumerate() {
            events.insert(3 + n, delta.replace("mail some", piece));
        }
        Say::Events(events)
    })
    .await;
    let gateway = Running::start(Service::Claude, &file(&[("a", &upstream.url(), 0)])).await;
    gateway.post(PATH, &ask("off"), None).await;
    std::fs::write(gateway.home.settings(), KEPT).unwrap();
    let got = gateway.post(PATH, &ask("on"), None).await;
    assert!(
        got.body.contains("one@cor"),
        "the agent gets it as it comes: {}",
        got.body
    );
    let refused = gateway.post(PATH, &ask("fail"), None).await;
    assert_eq!(refused.status, 400);
    gateway.gateway.usage().flush();
    let newest = gateway.gateway.usage().newest(3).unwrap();
    let recorded: Vec<&Value> = newest.iter().map(|request| &request["recorded"]).collect();
    assert_eq!(recorded, [true, true, false]);
    let body = async |n: usize| {
        let path = format!("/api/gateway/requests/{}/body", newest[n]["id"]);
        gateway.ask("GET", &path, "").await
    };
    let (status, kept) = body(1).await;
    assert_eq!(status, 200, "{kept}");
    let events: Value = serde_json::from_str(kept["answer"].as_str().unwrap()).unwrap();
    let texts: Vec<&str> = events
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["delta"]["text"].as_str())
        .collect();
    assert_eq!(texts, ["mail ‹hidden:mails› with … now"], "{kept}");
    assert_eq!(
        (&kept["answer_cut"], &kept["answer_hidden"]),
        (&json!(false), &json!([{"by": "mails", "count": 1}]))
    );
    assert!(kept["body"].as_str().unwrap().contains("\"on\""));
    let (_, kept) = body(0).await;
    let answer = kept["answer"].as_str().unwrap();
    assert!(
        answer.contains("the key … may not") && answer.contains("‹hidden:mails›"),
        "{answer}"
    );

    // What was hidden from the upstream is not in what it said either: placeholders are kept.
    let settings = format!("{KEPT}[redaction]\npresets = [\"mails\"]\n");
    std::fs::write(gateway.home.settings(), settings).unwrap();
    let echo = Upstream::start(|asked| Say::Events(message(&placeholder(&asked.text())))).await;
    std::fs::write(
        gateway.home.upstreams(Service::Claude),
        file(&[("b", &echo.url(), 0)]),
    )
    .unwrap();
    let got = gateway.post(PATH, &ask(&format!("to {SECRET}")), Some("s")).await;
    assert!(got.body.contains(SECRET));
    // One that leaves while its answer comes: what had come is kept.
    let stalled = Upstream::start(|_| Say::Stalled(message("half of it")[..3].to_vec())).await;
    std::fs::write(
        gateway.home.upstreams(Service::Claude),
        file(&[("c", &stalled.url(), 0)]),
    )
    .unwrap();
    let request = client().post(format!("{}{PATH}", gateway.url)).body(ask("leave"));
    let mut leaving = request.send().await.unwrap();
    let mut come = Vec::new();
    while !String::from_utf8_lossy(&come).contains("half of it") {
        come.extend_from_slice(&leaving.chunk().await.unwrap().unwrap());
    }
    drop(leaving);
    let noted = async {
        while gateway.gateway.usage().newest(1).unwrap()[0]["upstream"] != "c" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), noted)
        .await
        .unwrap();
    // The record is there; what is kept with it comes right behind.
    gateway.gateway.usage().flush();
    let newest = gateway.gateway.usage().newest(2).unwrap();
    let kept = |n: usize| {
        gateway
            .gateway
            .usage()
            .body(newest[n]["id"].as_i64().unwrap())
            .unwrap()
    };
    assert!(kept(0).unwrap().answer.unwrap().contains("half of it"));
    let echoed = kept(1).unwrap().answer.unwrap();
    assert!(echoed.contains("ARPX") && !echoed.contains(SECRET), "{echoed}");

    // Nobody asked for a compressed answer; what came of one is passed on, and not kept.
    let coded = Upstream::start(|_| {
        let headers = vec![("content-encoding", "br".to_owned())];
        Say::Whole(400, "application/json", headers, "{\"coded\":1}".to_owned())
    })
    .await;
    std::fs::write(
        gateway.home.upstreams(Service::Claude),
        file(&[("d", &coded.url(), 0)]),
    )
    .unwrap();
    let got = gateway.post(PATH, &ask("coded"), None).await;
    assert!(got.body.contains("coded"), "{got:?}");
    gateway.gateway.usage().flush();
    let last = gateway.gateway.usage().newest(1).unwrap();
    let coded = gateway.gateway.usage().body(last[0]["id"].as_i64().unwrap());
    let coded = coded.unwrap().unwrap();
    assert!(
        coded.body.contains("coded") && coded.answer.is_none(),
        "{coded:?}"
    );
    std::fs::write(
        gateway.home.upstreams(Service::Claude),
        file(&[("c", &stalled.url(), 0)]),
    )
    .unwrap();

    // Switched off while an answer comes: of that one nothing is kept.
    let request = client()
        .post(format!("{}{PATH}", gateway.url))
        .body(ask("switched off"));
    let mut coming = request.send().await.unwrap();
    coming.chunk().await.unwrap();
    let (_, off) = gateway
        .ask("PUT", "/api/gateway/recording", r#"{"on":false}"#)
        .await;
    assert_eq!(off["on"], false, "{off}");
    let before = last[0]["id"].clone();
    drop(coming);
    let noted = async {
        while gateway.gateway.usage().newest(1).unwrap()[0]["id"] == before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), noted)
        .await
        .unwrap();
    gateway.gateway.usage().flush();
    assert_eq!(gateway.gateway.usage().newest(1).unwrap()[0]["recorded"], false);

    let (_, forgotten) = gateway.ask("DELETE", "/api/gateway/recording", "").await;
    assert_eq!((&forgotten["kept"], &forgotten["bytes"]), (&json!(0), &json!(0)));
    assert!(kept(0).is_none());
    let (status, _) = body(1).await;
    assert_eq!(status, 404);
    for entry in std::fs::read_dir(gateway.home.usage().parent().unwrap()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for word in ["half of it", "with … now", "key-a"] {
            assert!(!bytes.windows(word.len()).any(|w| w == word.as_bytes()), "{word}");
        }
    }
}
