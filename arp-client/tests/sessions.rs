//! What a session does over its life: started, asked, interrupted, parked, resumed, ended.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

mod support;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use support::{Edge, SseReader, answer};

async fn decide(edge: &Edge, approval: &Value, decision: Value) -> (StatusCode, Value) {
    edge.post(
        &format!("/api/approvals/{}", approval["id"].as_str().unwrap()),
        decision,
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_started_session_streams_its_lines_and_completes_with_the_turn() {
    let edge = Edge::start().await;
    let body = json!({"prompt": "burst 5 10", "projectPath": edge.project(), "stream": true});
    let response = edge
        .request(Method::POST, "/api/sessions")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let id = response.headers()["x-session-id"].to_str().unwrap().to_owned();
    let all = SseReader::of(response).rest().await;
    let lines = &all[..all.len() - 1];
    assert_eq!(
        lines.iter().map(|line| line.id.unwrap()).collect::<Vec<_>>(),
        (1..=8).collect::<Vec<_>>()
    );
    let end = all.last().unwrap().json();
    assert_eq!(
        (&end["type"], &end["success"], &end["total_lines"]),
        (&json!("completion"), &json!(true), &json!(8))
    );
    assert_eq!(edge.view(&id).await["status"], "idle");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_client_id_starts_and_says_a_thing_once() {
    let edge = Edge::start().await;
    let body = json!({"prompt": "say one", "project_path": edge.project(), "client_id": "a"});
    let (first, one) = edge.post("/api/sessions", body.clone()).await;
    let (second, two) = edge.post("/api/sessions", body).await;
    assert_eq!((first, second), (StatusCode::CREATED, StatusCode::OK));
    assert_eq!(one["session_id"], two["session_id"]);
    let id = one["session_id"].as_str().unwrap();
    let path = format!("/api/sessions/{id}/messages");
    let message = json!({"text": "say two", "clientId": "b"});
    let (status, accepted) = edge.post(&path, message.clone()).await;
    assert_eq!(
        (status, &accepted["duplicate"]),
        (StatusCode::ACCEPTED, &json!(false))
    );
    let (status, accepted) = edge.post(&path, message).await;
    assert_eq!((status, &accepted["duplicate"]), (StatusCode::OK, &json!(true)));
    let (status, refused) = edge.post(&path, json!({"text": "other", "client_id": "b"})).await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::CONFLICT, &json!("client_id_reused"))
    );
    let view = edge.until_status(id, "idle").await;
    assert_eq!(view["turns"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn follow_ups_wait_for_their_turn_and_can_be_taken_back() {
    let edge = Edge::start().await;
    let id = edge.session("hold").await;
    edge.until(&id, "a turn", |view| view["total_lines"].as_u64() > Some(1))
        .await;
    let first = edge.say(&id, "say first").await;
    let second = edge.say(&id, "say second").await;
    assert_eq!(first["message"]["status"], "queued");
    let path = format!(
        "/api/sessions/{id}/messages/{}",
        second["message"]["id"].as_str().unwrap()
    );
    assert_eq!(edge.delete(&path).await.0, StatusCode::OK);
    assert_eq!(edge.delete(&path).await.0, StatusCode::NOT_FOUND);
    let (status, interrupted) = edge
        .post(&format!("/api/sessions/{id}/interrupt"), json!({}))
        .await;
    assert_eq!(
        (status, &interrupted["was_running"]),
        (StatusCode::ACCEPTED, &json!(true))
    );
    let view = edge.until_status(&id, "idle").await;
    assert_eq!((&view["turns"], &view["activity"]), (&json!(2), &json!("first")));
    let ends: Vec<Value> = edge
        .events(&id)
        .await
        .into_iter()
        .filter(|event| event["type"] == "turn_end")
        .collect();
    assert_eq!(
        (&ends[0]["status"], &ends[1]["status"]),
        (&json!("interrupted"), &json!("completed"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn approvals_are_allowed_changed_and_denied_once() {
    let mut edge = Edge::start().await;
    let id = edge.session("ask touch a").await;
    let asked = edge.until_asked(&id).await;
    assert_eq!(
        (&asked["title"], &asked["tool_name"]),
        (&json!("touch a"), &json!("Bash"))
    );
    let (_, listed) = edge.get("/api/approvals").await;
    assert_eq!(listed["approvals"], json!([asked]));
    let (status, resolved) = decide(
        &edge,
        &asked,
        json!({"decision": "allow", "updatedInput": {"command": "ls"}}),
    )
    .await;
    assert_eq!(
        (status, &resolved["outcome"]),
        (StatusCode::OK, &json!("allowed"))
    );
    let view = edge.until_status(&id, "idle").await;
    assert!(
        view["activity"].as_str().unwrap().contains(r#""command":"ls""#),
        "{view}"
    );
    let (status, late) = decide(&edge, &asked, json!({"decision": "deny"})).await;
    assert_eq!(
        (status, &late["code"]),
        (StatusCode::CONFLICT, &json!("approval_resolved"))
    );

    edge.say(&id, "ask rm -rf /").await;
    let asked = edge.until_asked(&id).await;
    decide(&edge, &asked, json!({"decision": "deny", "message": "never"})).await;
    let view = edge.until_status(&id, "idle").await;
    assert!(view["activity"].as_str().unwrap().contains("never"), "{view}");
    // Decided ones are told apart from those that never were, also when the process is gone and after a restart.
    let decided = format!("/api/approvals/{}", asked["id"].as_str().unwrap());
    let never = format!("/api/approvals/{id}.0.nonsense");
    for round in 0..3 {
        for (path, status, code) in [
            (decided.as_str(), StatusCode::CONFLICT, "approval_resolved"),
            (never.as_str(), StatusCode::NOT_FOUND, "approval_not_found"),
            (
                "/api/approvals/nonsense",
                StatusCode::NOT_FOUND,
                "approval_not_found",
            ),
        ] {
            for (is, answer) in [
                edge.get(path).await,
                edge.post(path, json!({"decision": "allow"})).await,
            ] {
                assert_eq!((is, &answer["code"]), (status, &json!(code)), "{round}: {path}");
            }
        }
        match round {
            0 => drop(edge.post(&format!("/api/sessions/{id}/cancel"), json!({})).await),
            _ => edge.kill_and_restart(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_texts_are_compressed_for_who_takes_that_and_streams_are_not() {
    let edge = Edge::start().await;
    let other = edge.session("say x").await;
    edge.until_status(&other, "idle").await;
    let id = edge.session("burst 40 200").await;
    edge.until_status(&id, "idle").await;
    let ask = |path: &str| {
        edge.request(reqwest::Method::GET, path)
            .header("accept-encoding", "gzip, br")
    };
    let coding = |response: &reqwest::Response| response.headers().get("content-encoding").cloned();
    for path in [
        "/api/sessions",
        &format!("/api/sessions/{id}/events"),
        "/api/openapi.json",
    ] {
        let packed = ask(path).send().await.unwrap();
        assert_eq!(coding(&packed).unwrap(), "gzip", "{path}");
        let vary = packed.headers().get_all("vary");
        assert!(vary.iter().any(|vary| vary == "Accept-Encoding"), "{path}");
        let packed = packed.bytes().await.unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed[..]), &mut text).unwrap();
        let plain = edge.request(reqwest::Method::GET, path).send().await.unwrap();
        assert_eq!(
            (coding(&plain), plain.headers().get_all("vary").iter().count()),
            (None, 1),
            "{path}"
        );
        let plain = plain.text().await.unwrap();
        println!("{path}: {} bytes became {}", plain.len(), packed.len());
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            serde_json::from_str::<Value>(&plain).unwrap()
        );
        // A link on somebody else's page, which is followed with the visitor's cookies.
        let link = ask(path).header("sec-fetch-site", "cross-site");
        assert_eq!(coding(&link.send().await.unwrap()), None, "{path}");
    }
    for path in [
        "/api/info",
        "/api/health",
        &format!("/api/approvals?x={}", "x".repeat(2000)),
    ] {
        assert_eq!(coding(&ask(path).send().await.unwrap()), None, "{path}");
    }
    let stream = ask(&format!("/api/sessions/{id}?until=turn")).header("accept", "text/event-stream");
    let stream = stream.send().await.unwrap();
    assert_eq!(coding(&stream), None);
    assert!(stream.text().await.unwrap().ends_with("\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_makes_an_approval_void() {
    let edge = Edge::start().await;
    let id = edge.session("ask touch a").await;
    edge.until_asked(&id).await;
    edge.post(&format!("/api/sessions/{id}/interrupt"), json!({}))
        .await;
    edge.until_status(&id, "idle").await;
    let events = edge.events(&id).await;
    let resolved = events
        .iter()
        .find(|event| event["type"] == "approval_resolved")
        .unwrap();
    assert_eq!(resolved["outcome"], "void");
    assert_eq!(edge.get("/api/approvals").await.1["approvals"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_nobody_answers_is_denied_and_the_stream_says_so_even_after_a_restart() {
    let mut edge = Edge::start_with(&["--approval-timeout=2"]).await;
    let id = edge.session("ask touch a").await;
    edge.until_asked(&id).await;
    edge.kill_and_restart();
    edge.until_status(&id, "idle").await;
    let events = edge.events(&id).await;
    let resolved = events
        .iter()
        .find(|event| event["type"] == "approval_resolved")
        .unwrap();
    assert_eq!(resolved["outcome"], "timed_out");
    assert_eq!(edge.view(&id).await["last_turn"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn skipping_permissions_needs_the_owner() {
    let edge = Edge::start().await;
    for mode in [
        json!({"permission_mode": "bypassPermissions"}),
        json!({"approvalMode": "yolo"}),
    ] {
        let mut body = json!({"prompt": "say x", "project_path": edge.project()});
        body.as_object_mut()
            .unwrap()
            .extend(mode.as_object().unwrap().clone());
        let (status, refused) = edge.post("/api/sessions", body).await;
        assert_eq!(
            (status, &refused["code"]),
            (StatusCode::FORBIDDEN, &json!("bypass_not_allowed"))
        );
    }
    let id = edge.session("say x").await;
    let patch = edge.request(Method::PATCH, &format!("/api/sessions/{id}"));
    let (status, _) = answer(patch.json(&json!({"permissionMode": "bypassPermissions"}))).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let patch = edge.request(Method::PATCH, &format!("/api/sessions/{id}"));
    let (status, changed) = answer(patch.json(&json!({"permissionMode": "acceptEdits", "title": "T"}))).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (
            &changed["session"]["permission_mode"],
            &changed["session"]["title"]
        ),
        (&json!("acceptEdits"), &json!("T"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_ends_every_process_and_a_message_resumes() {
    let edge = Edge::start().await;
    let file = edge.root.path().join("orphan");
    let id = edge.session(&format!("orphan {}", file.display())).await;
    edge.until_status(&id, "idle").await;
    let orphan = edge.until_file(&file).await;
    assert!(support::alive(&orphan));
    let (status, cancelled) = edge.post(&format!("/api/sessions/{id}/cancel"), json!({})).await;
    assert_eq!(
        (status, &cancelled["session"]["status"]),
        (StatusCode::OK, &json!("cancelled"))
    );
    assert!(!support::alive(&orphan), "a tool lives on");
    edge.say(&id, "say again").await;
    let view = edge.until_status(&id, "idle").await;
    assert_eq!(
        (&view["turns"], &view["activity"], &view["id"]),
        (&json!(2), &json!("again"), &json!(id))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_arpc_leaves_turns_running_and_approvals_waiting() {
    let mut edge = Edge::start().await;
    let running = edge.session("ticks 300 10").await;
    let asking = edge.session("ask touch x").await;
    let asked = edge.until_asked(&asking).await;
    edge.terminate();
    edge.restart();
    assert_eq!(edge.until_asked(&asking).await, asked, "the same approval waits");
    let (status, _) = decide(&edge, &asked, json!({"decision": "allow"})).await;
    assert_eq!(status, StatusCode::OK);
    for id in [&running, &asking] {
        let view = edge.until_status(id, "idle").await;
        assert_eq!(
            (&view["turns"], &view["last_turn"]),
            (&json!(1), &json!("completed")),
            "{view}"
        );
        assert_eq!(view["problem"], Value::Null);
    }
    let ticks = edge.events(&running).await;
    assert_eq!(ticks.iter().filter(|event| event["type"] == "text").count(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_and_park_says_so_spares_what_runs_on_purpose_and_sends_what_waits_after_the_restart() {
    let mut edge = Edge::start().await;
    let file = edge.root.path().join("orphan");
    let id = edge.session(&format!("orphan {}", file.display())).await;
    edge.until_status(&id, "idle").await;
    let server = edge.until_file(&file).await;
    edge.say(&id, "hold").await;
    edge.until(&id, "the turn", |view| view["status"] == "running")
        .await;
    edge.say(&id, "say later").await;
    let quiet = edge.session("hold").await;
    edge.until(&quiet, "the turn", |view| view["status"] == "running")
        .await;

    // Whoever holds a token may use the sessions, not end the daemon.
    let (status, refused) = edge.post("/api/stop", json!({"park": true})).await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::FORBIDDEN, &json!("local_only"))
    );
    let said = edge.stop(&["--park"]).await;
    assert!(said.contains("parked"), "{said}");
    assert!(
        support::alive(&server),
        "a server that the agent left running was killed"
    );
    let host =
        std::fs::read_to_string(edge.root.path().join("data/sessions").join(&id).join("host.json")).unwrap();
    let host: Value = serde_json::from_str(&host).unwrap();
    assert!(
        !support::alive(&host["agent_pid"].to_string()),
        "the agent lives on"
    );

    edge.restart();
    let view = edge.until_status(&id, "idle").await;
    assert_eq!((&view["activity"], &view["turns"]), (&json!("later"), &json!(3)));
    let view = edge.view(&quiet).await;
    assert_eq!(
        (
            &view["status"],
            &view["problem"]["kind"],
            &view["problem"]["can_retry"]
        ),
        (&json!("parked"), &json!("turn_cut"), &json!(true))
    );
    let parked = edge.events(&quiet).await.pop().unwrap();
    assert!(
        parked["message"].as_str().unwrap().contains("arpc was stopped"),
        "{parked}"
    );

    // Gone on with by one touch.
    let (status, accepted) = edge
        .post(&format!("/api/sessions/{quiet}/retry"), json!({}))
        .await;
    assert_eq!(status, StatusCode::ACCEPTED, "{accepted}");
    let view = edge.until_status(&quiet, "idle").await;
    assert_eq!((&view["problem"], &view["turns"]), (&Value::Null, &json!(2)));
    let (status, refused) = edge
        .post(&format!("/api/sessions/{quiet}/retry"), json!({}))
        .await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::CONFLICT, &json!("wrong_state"))
    );
    // Who ends the session ends its server.
    edge.post(&format!("/api/sessions/{id}/cancel"), json!({})).await;
    assert!(!support::alive(&server), "a tool lives on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_while_a_session_is_being_ended_starts_it_again() {
    let edge = Edge::start().await;
    let id = edge.session("hold").await;
    edge.until(&id, "the turn", |view| view["status"] == "running")
        .await;
    // An agent that is stopped takes its time to end.
    let dir = edge.root.path().join("data/sessions").join(&id);
    let host: Value = serde_json::from_slice(&std::fs::read(dir.join("host.json")).unwrap()).unwrap();
    let agent = host["agent_pid"].to_string();
    std::process::Command::new("kill")
        .args(["-STOP", &agent])
        .status()
        .unwrap();
    let path = format!("/api/sessions/{id}/cancel");
    let cancel = edge.post(&path, json!({}));
    let say = async {
        let log = dir.join("raw.log");
        while !String::from_utf8_lossy(&std::fs::read(&log).unwrap()).contains(r#""mark":"stop""#) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        edge.say(&id, "say on").await
    };
    let ((status, _), _) = tokio::join!(cancel, say);
    assert_eq!(status, StatusCode::OK);
    let view = edge.until_status(&id, "idle").await;
    assert_eq!(view["activity"], "on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_session_says_what_still_runs_and_cancelling_ends_it() {
    let edge = Edge::start_with(&["--park-after=1"]).await;
    let file = edge.root.path().join("orphan");
    let id = edge.session(&format!("orphan {}", file.display())).await;
    let server = edge.until_file(&file).await;
    let view = edge.until_status(&id, "parked").await;
    let left = &view["left_running"][0];
    assert_eq!(left["pid"].to_string(), server, "{view}");
    assert!(left["command"].as_str().unwrap().contains("sleep 1000"), "{view}");
    let (status, cancelled) = edge.post(&format!("/api/sessions/{id}/cancel"), json!({})).await;
    assert_eq!(
        (status, &cancelled["session"]["status"]),
        (StatusCode::OK, &json!("cancelled"))
    );
    assert_eq!(cancelled["session"]["left_running"], json!([]));
    assert!(!support::alive(&server));
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_at_the_same_moment_with_one_client_id_give_one_session() {
    let edge = Edge::start().await;
    let body = json!({"prompt": "say one", "project_path": edge.project(), "client_id": "a"});
    let starts = (0..8).map(|_| edge.post("/api/sessions", body.clone()));
    let mut ids = Vec::new();
    for (status, started) in futures_util::future::join_all(starts).await {
        assert!(status.is_success(), "{started}");
        ids.push(started["session_id"].as_str().unwrap().to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let view = edge.until_status(&ids[0], "idle").await;
    assert_eq!(view["turns"], 1);
    // And resumes of one session from elsewhere open it once.
    let body = json!({"prompt": "say two", "resume": "11111111-2222-3333-4444-555555555555",
        "project_path": edge.project()});
    let resumes = (0..4).map(|_| edge.post("/api/sessions", body.clone()));
    let mut ids = Vec::new();
    for (status, started) in futures_util::future::join_all(resumes).await {
        assert!(status.is_success(), "{started}");
        ids.push(started["session_id"].as_str().unwrap().to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_a_terminal_holds_is_neither_opened_twice_nor_deleted_by_halves() {
    let edge = Edge::start_with(&["--park-after=1"]).await;
    let id = edge.session("say one").await;
    edge.until_status(&id, "parked").await;
    // Claude's own note of a running process; this test's stands in for the terminal's.
    let notes = edge.root.path().join("home/.claude/sessions");
    std::fs::create_dir_all(&notes).unwrap();
    let pid = std::process::id();
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let started = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .nth(19)
        .unwrap()
        .to_owned();
    let note =
        json!({"pid": pid, "sessionId": id, "cwd": edge.project(), "status": "idle", "procStart": started});
    std::fs::write(notes.join(format!("{pid}.json")), note.to_string()).unwrap();

    let path = format!("/api/sessions/{id}");
    let (status, refused) = edge
        .post(&format!("{path}/messages"), json!({"text": "say two"}))
        .await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::CONFLICT, &json!("session_in_use"))
    );
    assert!(refused["message"].as_str().unwrap().contains("fork"), "{refused}");
    let (status, refused) = edge.delete(&path).await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::CONFLICT, &json!("session_in_use"))
    );
    assert_eq!(edge.view(&id).await["turns"], 1, "the record is still there");
    assert!(!edge.events(&id).await.is_empty());
    // Our record alone may go.
    let (status, removed) = edge.delete(&format!("{path}?history=keep")).await;
    assert_eq!(
        (status, &removed["type"], &removed["history"]),
        (StatusCode::OK, &json!("session_removed"), &json!("kept"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_shows_what_came_before_and_keeps_it_when_our_record_goes() {
    let edge = Edge::start().await;
    let id = "11111111-2222-3333-4444-555555555555";
    let slug: String = edge
        .project()
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let folder = edge.root.path().join("home/.claude/projects").join(slug);
    std::fs::create_dir_all(&folder).unwrap();
    let at = "2026-01-02T03:04:05.000Z";
    let lines = [
        json!({"type": "user", "uuid": "u", "sessionId": id, "cwd": edge.project(), "timestamp": at,
            "message": {"role": "user", "content": "what was before"}}),
        json!({"type": "assistant", "uuid": "v", "sessionId": id, "cwd": edge.project(), "timestamp": at,
            "message": {"id": "m", "role": "assistant", "content": [{"type": "text", "text": "an answer"}]}}),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let file = folder.join(format!("{id}.jsonl"));
    std::fs::write(&file, text).unwrap();

    let (status, started) = edge
        .post(
            "/api/sessions",
            json!({"resume": id, "prompt": "say more", "executor": "claude"}),
        )
        .await;
    assert_eq!(status, StatusCode::CREATED, "{started}");
    let ours = started["session_id"].as_str().unwrap();
    edge.until_status(ours, "idle").await;
    let events = edge.events(ours).await;
    assert_eq!(
        (&events[0]["type"], &events[0]["text"], &events[0]["at"]),
        (&json!("user_message"), &json!("what was before"), &json!(at)),
    );
    assert_eq!(events[1]["text"], "an answer");
    assert!(events.iter().any(|event| event["text"] == "more"));
    // A copy of ours shows it too.
    let (status, forked) = edge
        .post(
            &format!("/api/sessions/{ours}/fork"),
            json!({"prompt": "say other"}),
        )
        .await;
    assert_eq!(status, StatusCode::CREATED, "{forked}");
    let fork = edge.events(forked["session_id"].as_str().unwrap()).await;
    assert_eq!(fork[0]["text"], "what was before");

    // A word that is not understood, or a second one, removes nothing.
    for query in [
        "histroy=keep",
        "history=",
        "history=keep&history=delete",
        "history=delete&keep_history",
        "force=perhaps",
    ] {
        let (status, refused) = edge.delete(&format!("/api/sessions/{ours}?{query}")).await;
        assert_eq!(
            (status, &refused["code"]),
            (StatusCode::BAD_REQUEST, &json!("bad_query")),
            "{query}"
        );
        let (status, _) = edge.delete(&format!("/api/claude/sessions/{id}?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
    }
    // Nor does the name of another agent, by either number.
    for number in [ours, id] {
        let (status, refused) = edge.delete(&format!("/api/gemini/sessions/{number}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{refused}");
    }
    assert!(file.exists() && !edge.events(ours).await.is_empty());
    // Two that delete the fork at once: one does, the other is told that there is none, and nothing is left.
    let path = format!(
        "/api/sessions/{}?force=true",
        forked["session_id"].as_str().unwrap()
    );
    let (one, other) = tokio::join!(edge.delete(&path), edge.delete(&path));
    let mut both = [one.0, other.0];
    both.sort();
    assert!(
        both == [StatusCode::OK; 2] || both == [StatusCode::OK, StatusCode::NOT_FOUND],
        "{one:?} {other:?}"
    );
    assert_eq!(edge.get(&path).await.0, StatusCode::NOT_FOUND);

    // The transcript was made elsewhere: it does not go without a word.
    let (_, removed) = edge.delete(&format!("/api/sessions/{ours}")).await;
    assert_eq!(
        (&removed["type"], &removed["history"]),
        (&json!("session_removed"), &json!("kept"))
    );
    assert!(file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_is_parked_and_comes_back_with_the_next_message() {
    let edge = Edge::start_with(&["--park-after=1"]).await;
    let id = edge.session("say one").await;
    let parked = edge.until_status(&id, "parked").await;
    assert_eq!(
        (&parked["parked"], &parked["exit_code"]),
        (&json!(true), &json!(0))
    );
    edge.say(&id, "say two").await;
    assert_eq!(
        edge.until(&id, "the answer", |view| view["activity"] == "two")
            .await["turns"],
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_sessions_are_refused_but_an_idle_one_makes_room() {
    let edge = Edge::start_with(&["--max-sessions=2"]).await;
    let busy = edge.session("hold").await;
    let idle = edge.session("say x").await;
    edge.until_status(&idle, "idle").await;
    let third = edge.session("hold").await;
    assert_eq!(edge.view(&idle).await["status"], "parked");
    let (status, refused) = edge
        .post(
            "/api/sessions",
            json!({"prompt": "say x", "project_path": edge.project()}),
        )
        .await;
    assert_eq!(
        (status, &refused["code"]),
        (StatusCode::TOO_MANY_REQUESTS, &json!("too_many_sessions"))
    );
    for id in [busy, third] {
        edge.post(&format!("/api/sessions/{id}/cancel"), json!({})).await;
    }
}

/// An agent that keeps nothing on disk: its process is all there is of a session.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_can_never_go_on_says_so_at_once_and_its_process_is_spared() {
    let own = tempfile::tempdir().unwrap();
    let config = own.path().join("arpc.toml");
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/agents/tests/programs/acp_agent.py");
    let acp = format!("[acp.forgetful]\ncommand = \"python3\"\nargs = [{program:?}, \"1\", \"no-load\"]\n");
    std::fs::write(&config, acp).unwrap();
    let config = format!("--config={}", config.display());
    let edge = Edge::start_with(&[&config, "--max-sessions=1", "--park-after=1"]).await;
    let body = json!({"executor": "forgetful", "prompt": "hello", "project_path": edge.project()});
    let (status, started) = edge.post("/api/sessions", body.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{started}");
    let id = started["session_id"].as_str().unwrap().to_owned();
    let view = edge.until_status(&id, "idle").await;
    assert_eq!(
        (&view["can_resume"], &view["problem"]),
        (&json!(false), &json!(null))
    );
    // It makes no room for another, and a turn that failed can be said again as long as it runs.
    let (_, refused) = edge.post("/api/sessions", body).await;
    assert_eq!(refused["code"], "too_many_sessions");
    edge.say(&id, "hello again").await;
    let view = edge.until_status(&id, "idle").await;
    assert_eq!(view["turns"], 2);

    edge.post(&format!("/api/sessions/{id}/cancel"), json!({})).await;
    for path in ["messages", "retry"] {
        let (status, refused) = edge
            .post(&format!("/api/sessions/{id}/{path}"), json!({"text": "and now?"}))
            .await;
        assert_eq!(status, StatusCode::CONFLICT, "{path}: {refused}");
        if path == "messages" {
            assert_eq!(refused["code"], "cannot_resume");
            let words = refused["message"].as_str().unwrap();
            assert!(words.contains("start a new one"), "{words}");
        }
    }
    let view = edge.view(&id).await;
    assert_eq!((&view["queue"], &view["can_resume"]), (&json!([]), &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_cancels_what_runs_and_deletes_what_does_not() {
    let edge = Edge::start().await;
    let id = edge.session("hold").await;
    edge.until(&id, "the turn", |view| view["status"] == "running")
        .await;
    let path = format!("/api/sessions/{id}");
    assert_eq!(edge.delete(&path).await.1["type"], "session_cancelled");
    assert_eq!(edge.delete(&path).await.1["type"], "session_deleted");
    assert_eq!(edge.delete(&path).await.0, StatusCode::NOT_FOUND);
    assert!(!edge.root.path().join("data/sessions").join(&id).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_is_told_with_its_last_words() {
    let edge = Edge::start().await;
    let id = edge.session("exit 3").await;
    let view = edge
        .until(&id, "the failure", |view| view["status"] == "failed")
        .await;
    assert_eq!(view["exit_code"], 3);
    assert!(view["error"].as_str().unwrap().contains("told to exit"), "{view}");
    let mut reader = SseReader::open(&edge, &format!("/api/sessions/{id}"), None).await;
    let end = reader.rest().await.pop().unwrap().json();
    assert_eq!((&end["success"], &end["exit_code"]), (&json!(false), &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_is_a_400_that_says_what_is_wrong() {
    let edge = Edge::start().await;
    for (body, code) in [
        (json!({}), "bad_request"),
        (json!({"prompt": "  "}), "bad_request"),
        (json!({"prompt": 3}), "bad_request"),
        (json!({"prompt": "x", "executor": "nobody"}), "unknown_agent"),
        (
            json!({"prompt": "x", "project_path": "/does/not/exist"}),
            "project_path_not_found",
        ),
        (
            json!({"prompt": "x", "permission_mode": "sometimes"}),
            "bad_request",
        ),
        (json!({"prompt": "x", "fork": true}), "bad_request"),
        (
            json!({"prompt": "x", "executor": "codex", "allowed_tools": ["Bash"]}),
            "unsupported",
        ),
    ] {
        let (status, refused) = edge.post("/api/sessions", body.clone()).await;
        // An agent that is not installed here says so first.
        let missing = refused["code"] == "agent_not_found";
        assert!(
            missing || (status == StatusCode::BAD_REQUEST && refused["code"] == code),
            "{body}: {status} {refused}"
        );
        assert!(refused["message"].as_str().unwrap().len() > 10);
    }
    assert_eq!(edge.get("/api/sessions").await.1["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_newest_first_in_pages() {
    let edge = Edge::start().await;
    let mut ids = Vec::new();
    for prompt in ["say a", "say b", "say c"] {
        let id = edge.session(prompt).await;
        edge.until_status(&id, "idle").await;
        ids.insert(0, id);
    }
    let (_, page) = edge.get("/api/sessions?limit=2&status=live").await;
    let listed: Vec<&str> = page["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|session| session["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        (listed, &page["total"]),
        (vec![ids[0].as_str(), &ids[1]], &json!(3))
    );
    let (_, page) = edge.get("/sessions?offset=2").await;
    assert_eq!(page["sessions"][0]["id"], json!(ids[2]));
    assert_eq!(edge.get("/api/sessions?q=say%20b").await.1["total"], 1);
    assert_eq!(edge.get("/api/sessions?executor=codex").await.1["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_hears_of_sessions_and_approvals() {
    let edge = Edge::start().await;
    let mut inbox = SseReader::open(&edge, "/api/events", None).await;
    let snapshot = inbox.next().await.unwrap();
    assert_eq!(snapshot.name.as_deref(), Some("snapshot"));
    let id = edge.session("ask touch a").await;
    let approval = loop {
        let event = inbox.next().await.unwrap();
        if event.name.as_deref() == Some("approval") {
            break event.json()["approval"].clone();
        }
    };
    assert_eq!(approval["session_id"], json!(id));
    decide(&edge, &approval, json!({"decision": "allow"})).await;
    loop {
        let event = inbox.next().await.unwrap();
        if event.name.as_deref() == Some("approval_resolved") {
            assert_eq!(event.json()["id"], approval["id"]);
            break;
        }
    }
    let mut late = SseReader::open(&edge, "/api/events", None).await;
    assert_eq!(late.next().await.unwrap().json()["sessions"][0]["id"], json!(id));
}
