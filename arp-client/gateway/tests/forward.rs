//! One request, seen by the agent and by the upstreams.

#[path = "forward/api.rs"]
mod api;
#[path = "forward/budget.rs"]
mod budget;
#[path = "forward/direct.rs"]
mod direct;
#[path = "forward/models.rs"]
mod models;
#[path = "forward/network.rs"]
mod network;
#[path = "forward/protect.rs"]
mod protect;
#[path = "forward/socket.rs"]
mod socket;
mod support;

use arp_gateway::files::upstreams::{Change, change};
use arp_gateway::service::Service;
use arp_gateway::usage::query::By;
use arp_gateway::usage::store::Choice;
use support::*;

const ASK: &str = r#"{"model":"claude-x","n": 1.50,"stream":true,"messages":[]}"#;
const PATH: &str = "/v1/messages?beta=true";

#[tokio::test]
async fn what_was_not_asked_for_passes_to_the_byte_and_keys_are_replaced() {
    let upstream = Upstream::start(|_| Say::Events(message("hello"))).await;
    let gateway = Running::start(
        Service::Claude,
        &file(&[("a", &format!("{}/base/", upstream.url()), 0)]),
    )
    .await;
    let response = client()
        .post(format!("{}{PATH}", gateway.url))
        .header("authorization", "Bearer of-the-agent")
        .header("x-api-key", "of-the-agent")
        .header("anthropic-beta", "one,two")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .body(ASK)
        .send()
        .await
        .unwrap();
    let got = got(response).await;
    assert_eq!((got.status, got.cut), (200, false));
    assert_eq!(got.body, message("hello").concat());
    let asked = &upstream.asked()[0];
    assert_eq!(asked.line, "POST /base/v1/messages?beta=true HTTP/1.1");
    assert_eq!(asked.text(), ASK);
    assert_eq!(asked.header("authorization"), Some("Bearer key-a"));
    assert_eq!(asked.header("anthropic-beta"), Some("one,two"));
    assert_eq!(asked.header("host"), Some(upstream.address.to_string().as_str()));
    for gone in ["x-api-key", "x-hop"] {
        assert_eq!(asked.header(gone), None, "{gone}");
    }
    gateway.gateway.usage().flush();
    let sums = gateway
        .gateway
        .usage()
        .sums(Some(Service::Claude), None, By::Upstream)
        .unwrap();
    assert_eq!(
        (sums[0].key.as_str(), sums[0].requests, sums[0].failures),
        ("a", 1, 0)
    );
    let tokens = sums[0].tokens;
    assert_eq!((tokens.input, tokens.cache_read, tokens.output), (11, 7, 5));
}

#[tokio::test]
async fn a_switch_counts_from_the_next_request() {
    let a = Upstream::start(|_| Say::Events(message("from a"))).await;
    let b = Upstream::start(|_| Say::Events(message("from b"))).await;
    let gateway = Running::start(Service::Claude, &file(&[("a", &a.url(), 0), ("b", &b.url(), 0)])).await;
    for n in 0..6 {
        let name = if n % 2 == 0 { "a" } else { "b" };
        change(&gateway.home.upstreams(Service::Claude), &Change::Activate(name)).unwrap();
        let got = gateway.post(PATH, ASK, Some("s")).await;
        assert!(got.body.contains(&format!("from {name}")), "{}", got.body);
    }
}

#[tokio::test]
async fn what_was_chosen_and_where_a_session_is_follows_a_name_that_another_program_gives() {
    let a = Upstream::start(|_| Say::Events(message("from a"))).await;
    let b = Upstream::start(|_| Say::Events(message("from b"))).await;
    let gateway = Running::start(Service::Claude, &file(&[("a", &a.url(), 1), ("b", &b.url(), 0)])).await;
    let chosen = Choice {
        upstream: Some("b".into()),
        model: None,
    };
    let (gateway, file) = (&gateway, gateway.home.upstreams(Service::Claude));
    gateway.gateway.choose("s", chosen);
    let from = |session: &'static str| async move {
        let got = gateway.post(PATH, ASK, Some(session)).await;
        got.body.contains("from b")
    };
    assert!(from("s").await && !from("t").await);
    for (from_name, to) in [("b", "new"), ("a", "old"), ("new", "newer")] {
        let rename = Change::Rename { from: from_name, to };
        change(&file, &rename).unwrap();
        assert!(from("s").await && !from("t").await, "{to}");
    }
    let choice = gateway.gateway.choices().of("s");
    assert_eq!(choice.upstream.as_deref(), Some("newer"));
    gateway.gateway.usage().flush();
    let kept = gateway.gateway.usage().choices().unwrap();
    assert_eq!(kept, [("s".to_owned(), choice)]);
    let sums = gateway
        .gateway
        .usage()
        .sums(Some(Service::Claude), None, By::Upstream)
        .unwrap();
    let mut counted: Vec<_> = sums.iter().map(|sum| (sum.key.as_str(), sum.requests)).collect();
    counted.sort_unstable();
    assert_eq!(counted, [("newer", 4), ("old", 4)]);
}

#[tokio::test]
async fn the_next_upstream_answers_when_one_cannot_and_the_agent_notices_nothing() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    type Failing = Box<dyn Fn() -> Say + Send + Sync>;
    let failures: Vec<(&str, Failing)> = vec![
        ("closed", Box::new(|| Say::Close)),
        ("401", Box::new(|| error(401, "no"))),
        ("402", Box::new(|| error(402, "no credit"))),
        ("403", Box::new(|| error(403, "no"))),
        ("408", Box::new(|| error(408, "slow"))),
        ("429", Box::new(|| error(429, "busy"))),
        ("500", Box::new(|| error(500, "broken"))),
        ("529", Box::new(|| error(529, "overloaded"))),
        (
            "empty",
            Box::new(|| Say::Whole(200, "application/json", vec![], String::new())),
        ),
        (
            "page",
            Box::new(|| Say::Whole(200, "text/html", vec![], "<html>".into())),
        ),
        (
            "error with 200",
            Box::new(|| {
                Say::Whole(
                    200,
                    "application/json",
                    vec![],
                    r#"{"error":{"message":"x"}}"#.into(),
                )
            }),
        ),
        ("no events", Box::new(|| Say::Events(vec![]))),
        ("cut", Box::new(|| Say::Broken(vec![]))),
        (
            "half an event",
            Box::new(|| Say::Broken(vec!["event: message_st".into()])),
        ),
        (
            "an error event",
            Box::new(|| {
                Say::Events(vec![
                    "event: error\ndata: {\"type\":\"error\",\"error\":{\"message\":\"Overloaded\"}}\n\n"
                        .into(),
                ])
            }),
        ),
    ];
    let good = Upstream::start(|_| Say::Events(message("good"))).await;
    for (name, say) in failures {
        let bad = Upstream::start(move |_| say()).await;
        let gateway = Running::start(
            Service::Claude,
            &file(&[("bad", &bad.url(), 2), ("good", &good.url(), 1)]),
        )
        .await;
        let got = gateway.post(PATH, ASK, None).await;
        assert_eq!(got.status, 200, "{name}: {}", got.body);
        assert_eq!(got.body, message("good").concat(), "{name}");
        assert!(bad.times() >= 1, "{name}");
        gateway.gateway.usage().flush();
        let row = &gateway.gateway.usage().newest(1).unwrap()[0];
        assert_eq!(row["upstream"], "good", "{name}");
        assert_eq!(row["failed"][0][0], "bad", "{name}: {row}");
        assert_eq!(row["output"], 5, "counted once");
    }
    let url = format!("http://{nobody}");
    let gateway = Running::start(
        Service::Claude,
        &file(&[("bad", &url, 2), ("good", &good.url(), 1)]),
    )
    .await;
    assert_eq!(gateway.post(PATH, ASK, None).await.body, message("good").concat());
}

#[tokio::test]
async fn a_fault_of_the_request_itself_is_nobody_elses() {
    for status in [400, 404, 413, 422] {
        let a = Upstream::start(move |_| error(status, "your fault")).await;
        let b = Upstream::start(|_| Say::Events(message("b"))).await;
        let gateway = Running::start(Service::Claude, &file(&[("a", &a.url(), 2), ("b", &b.url(), 1)])).await;
        for _ in 0..5 {
            let got = gateway.post(PATH, ASK, None).await;
            assert_eq!(got.status, status);
            assert_eq!(
                got.body,
                r#"{"type":"error","error":{"type":"x","message":"your fault"}}"#
            );
        }
        assert_eq!((a.times(), b.times()), (5, 0), "it counts against nobody");
    }
}

#[tokio::test]
async fn without_a_weight_nobody_else_is_asked_in_place_of_the_chosen_one() {
    let a = Upstream::start(|_| error(503, "down")).await;
    let b = Upstream::start(|_| Say::Events(message("b"))).await;
    let gateway = Running::start(Service::Claude, &file(&[("a", &a.url(), 0), ("b", &b.url(), 0)])).await;
    let got = gateway.post(PATH, ASK, None).await;
    assert_eq!((got.status, b.times()), (503, 0));
}

#[tokio::test]
async fn when_all_are_down_the_last_error_comes_in_a_form_that_claude_survives() {
    let a = Upstream::start(|_| {
        let body = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
        Say::Whole(
            529,
            "application/json",
            vec![("retry-after", "3600".into())],
            body.into(),
        )
    })
    .await;
    let gateway = Running::start(Service::Claude, &file(&[("a", &a.url(), 0)])).await;
    for _ in 0..2 {
        let got = gateway.post(PATH, ASK, None).await;
        assert_eq!(
            (got.status, got.headers["retry-after"].to_str().unwrap()),
            (503, "60")
        );
        assert!(got.body.contains("Overloaded"));
    }
    assert_eq!(
        a.times(),
        2,
        "there is nobody else, so it is asked although it rests"
    );
}

#[tokio::test]
async fn a_stream_that_breaks_is_ended_for_claude_and_the_retry_goes_elsewhere() {
    let whole = message("lost");
    for (parts, cut) in [(3, true), (4, false)] {
        let begin = whole[..parts].to_vec();
        let a =
            Upstream::start(move |_| Say::Broken([begin.clone(), vec!["event: content_bl".into()]].concat()))
                .await;
        let b = Upstream::start(|_| Say::Events(message("b"))).await;
        let gateway = Running::start(Service::Claude, &file(&[("a", &a.url(), 2), ("b", &b.url(), 1)])).await;
        std::fs::write(
            gateway.home.balance(),
            r#"{"mode":"weight-based","services":{"claude":{"failureThreshold":1}}}"#,
        )
        .unwrap();
        let got = gateway.post(PATH, ASK, Some("s")).await;
        assert_eq!(got.cut, cut, "{}", got.body);
        assert!(got.body.starts_with(&whole[..parts].concat()) && !got.body.contains("event: content_bl\n"));
        if !cut {
            assert!(
                got.body.contains("max_tokens") && got.body.ends_with("{\"type\":\"message_stop\"}\n\n"),
                "{}",
                got.body
            );
        }
        let again = gateway.post(PATH, ASK, Some("s")).await;
        assert_eq!(again.body, message("b").concat());
        gateway.gateway.usage().flush();
        let sums = gateway.gateway.usage().sums(None, None, By::Upstream).unwrap();
        let of = |name: &str| sums.iter().find(|s| s.key == name).unwrap();
        assert_eq!((of("a").failures, of("b").failures), (1, 0));
    }
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_never_reaches_claude() {
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"boom\"}}\n\n";
    let a = Upstream::start(move |_| Say::Events([message("x")[..4].to_vec(), vec![error.into()]].concat()))
        .await;
    let gateway = Running::start(Service::Claude, &file(&[("a", &a.url(), 0)])).await;
    let got = gateway.post(PATH, ASK, None).await;
    assert!(
        !got.body.contains("event: error") && got.body.contains("max_tokens"),
        "{}",
        got.body
    );
}

#[tokio::test]
async fn codex_and_gemini_get_endings_of_their_own() {
    let created =
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\"}}\n\n";
    let a = Upstream::start(move |_| Say::Broken(vec![created.into()])).await;
    let gateway = Running::start(Service::Codex, &file(&[("a", &format!("{}/v1", a.url()), 0)])).await;
    let got = gateway
        .post("/v1/responses", r#"{"model":"m","stream":true}"#, None)
        .await;
    assert!(
        !got.cut && got.body.contains("rate_limit_exceeded") && got.body.contains("try again in 1ms"),
        "{}",
        got.body
    );
    assert_eq!(a.asked()[0].line, "POST /v1/responses HTTP/1.1");

    let chunk = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"a\"}]}}]}\r\n\r\n";
    let a = Upstream::start(move |_| Say::Broken(vec![chunk.into()])).await;
    let gateway = Running::start(Service::Gemini, &file(&[("a", &a.url(), 0)])).await;
    let got = gateway
        .post("/v1beta/models/g:streamGenerateContent?alt=sse", "{}", None)
        .await;
    assert!(
        !got.cut && got.body.starts_with(chunk) && got.body.contains("\"code\":503"),
        "{}",
        got.body
    );
    assert_eq!(a.asked()[0].header("x-goog-api-key"), Some("key-a"));
}

#[tokio::test]
async fn what_another_account_has_sealed_is_taken_out_only_once_it_was_refused() {
    let strict = |asked: &Asked| {
        if asked.text().contains("signature") {
            error(400, "messages.1: `signature` in thinking block is not valid here")
        } else {
            Say::Events(message("ok"))
        }
    };
    let home = Upstream::start(|_| Say::Events(message("home"))).await;
    let other = Upstream::start(strict).await;
    let gateway = Running::start(
        Service::Claude,
        &file(&[("home", &home.url(), 0), ("other", &other.url(), 0)]),
    )
    .await;
    let history = r#"{"model":"m","stream":true,"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},{"type":"text","text":"a"}]}]}"#;
    gateway.post(PATH, history, Some("s")).await;
    assert!(home.asked()[0].text().contains("signature"));
    change(
        &gateway.home.upstreams(Service::Claude),
        &Change::Activate("other"),
    )
    .unwrap();
    assert_eq!(
        gateway.post(PATH, history, Some("s")).await.body,
        message("ok").concat()
    );
    assert_eq!(other.times(), 2, "refused, and once more without");
    assert_eq!(gateway.post(PATH, history, Some("s")).await.status, 200);
    assert_eq!(other.times(), 3, "known from now on");
}

#[tokio::test]
async fn models_are_routed_and_codex_is_not_told() {
    let a = Upstream::start(|_| {
        let body = r#"{"id":"r","model":"gpt-other","usage":{"input_tokens":3,"output_tokens":2}}"#;
        Say::Whole(
            200,
            "application/json",
            vec![("openai-model", "gpt-other".into())],
            body.into(),
        )
    })
    .await;
    let gateway = Running::start(Service::Codex, &file(&[("a", &a.url(), 0)])).await;
    let rules = r#"{"mode":"model-mapping","modelMappings":{"codex":[{"source":"gpt-5*","target":"gpt-other","source_type":"model"}]}}"#;
    std::fs::write(gateway.home.routes(), rules).unwrap();
    let got = gateway
        .post("/responses", r#"{ "model" : "gpt-5.2" , "x":1.0}"#, None)
        .await;
    assert_eq!(a.asked()[0].text(), r#"{ "model" : "gpt-other" , "x":1.0}"#);
    assert_eq!(got.headers["openai-model"], "gpt-5.2");
    gateway.gateway.usage().flush();
    let sums = gateway.gateway.usage().sums(None, None, By::Model).unwrap();
    assert_eq!((sums[0].key.as_str(), sums[0].tokens.total()), ("gpt-other", 5));
}

#[tokio::test]
async fn doors_are_shut_where_they_must_be() {
    let gateway = Running::start(Service::Codex, "{}").await;
    let get = |path: &str| client().get(format!("{}{path}", gateway.url));
    let upgrade = get("/v1/responses")
        .header("connection", "upgrade")
        .header("upgrade", "websocket");
    assert_eq!(got(upgrade.send().await.unwrap()).await.status, 426);
    assert_eq!(got(get("/").send().await.unwrap()).await.status, 200);
    let page = client()
        .post(format!("{}/responses", gateway.url))
        .header("origin", "https://evil.example");
    let refused = got(page.body("{}").send().await.unwrap()).await;
    assert!(refused.body.contains("origin_not_allowed"), "{}", refused.body);
    let nobody = gateway.post("/responses", "{}", None).await;
    assert_eq!(nobody.status, 400);
    assert!(
        nobody.body.contains("arpc gateway add codex NAME"),
        "{}",
        nobody.body
    );
    // An upstream that is the gateway itself.
    std::fs::write(
        gateway.home.upstreams(Service::Codex),
        file(&[("me", &gateway.url, 0)]),
    )
    .unwrap();
    let looped = gateway.post("/responses", "{}", None).await;
    assert!(
        looped.body.contains("leads back to the gateway"),
        "{}",
        looped.body
    );
}

#[tokio::test]
async fn a_file_that_does_not_parse_leaves_the_last_good_state() {
    let a = Upstream::start(|_| Say::Events(message("a"))).await;
    let gateway = Running::start(Service::Claude, &file(&[("a", &a.url(), 0)])).await;
    assert_eq!(gateway.post(PATH, ASK, None).await.status, 200);
    std::fs::write(gateway.home.upstreams(Service::Claude), "{\n\"a\": oops}").unwrap();
    assert_eq!(gateway.post(PATH, ASK, None).await.status, 200);
    let faults = gateway.gateway.live().faults();
    assert!(faults[0].contains("claude.json:2:6"), "{faults:?}");
}

#[tokio::test]
async fn no_key_is_written_anywhere() {
    let a = Upstream::start(|_| error(401, "bad key")).await;
    let gateway = Running::start(Service::Claude, &file(&[("a", &a.url(), 0)])).await;
    let got = gateway.post(PATH, ASK, Some("s")).await;
    gateway.gateway.usage().flush();
    let rows = format!("{:?}{}", gateway.gateway.usage().newest(9).unwrap(), got.body);
    assert!(!rows.contains("key-a"), "{rows}");
    assert!(!format!("{:?}", gateway.gateway).contains("key-a"));
}

#[tokio::test]
async fn a_route_goes_by_agent_and_on_to_the_next_model() {
    let upstream = Upstream::start(|asked| {
        if asked.text().contains("\"small\"") {
            return error(404, "no such model");
        }
        Say::Events(message("hello"))
    })
    .await;
    let gateway = Running::start(Service::Claude, &file(&[("a", &upstream.url(), 0)])).await;
    let route = "[[route]]\nagent = \"sub\"\nto = [\"small\", \"smaller\"]\n";
    std::fs::write(gateway.home.settings(), route).unwrap();
    assert_eq!(gateway.post(PATH, ASK, None).await.status, 200);
    let request = client()
        .post(format!("{}{PATH}", gateway.url))
        .header("x-claude-code-agent-id", "a1");
    assert_eq!(got(request.body(ASK).send().await.unwrap()).await.status, 200);
    let asked: Vec<String> = upstream.asked().iter().map(|asked| asked.text()).collect();
    assert!(
        asked[0].contains("claude-x") && asked[1].contains("\"small\"") && asked[2].contains("\"smaller\"")
    );
    assert_eq!(asked.len(), 3);
}
