//! Nothing is lost, whatever is cut or killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

#[path = "nothing_lost/host_program.rs"]
mod host_program;
mod support;

use arp_testkit::http::within;
use serde_json::json;
use std::time::{Duration, Instant};
use support::{Edge, Sse, SseReader, alive};

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_cut_a_hundred_times_gives_the_same_sequence_as_an_uncut_one() {
    let edge = Edge::start().await;
    let id = edge.session("ticks 1500 1").await;
    let path = format!("/api/sessions/{id}?until=turn");
    let uncut = tokio::spawn({
        let mut reader = SseReader::open(&edge, &path, None).await;
        async move { reader.rest().await }
    });

    // Cut after so many bytes of the body, wherever that is: in the middle of a line, of an id, of an event.
    let mut seen: Vec<Sse> = Vec::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut cuts = 0;
    loop {
        let last = seen.iter().rev().find_map(|event| event.id);
        let mut reader = SseReader::open(&edge, &path, last).await;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let most = usize::try_from(random % 6000).unwrap();
        while cuts >= 100 || reader.read < most {
            let Some(event) = reader.next().await else { break };
            if event.name.is_none() {
                seen.push(event);
            }
        }
        if seen.last().is_some_and(|event| event.id.is_none()) {
            break;
        }
        cuts += 1;
    }

    let uncut = uncut.await.unwrap();
    assert!(cuts >= 100, "only {cuts} cuts");
    assert_eq!(seen.len(), uncut.len());
    assert!(seen == uncut, "the sequences differ");
    let ids: Vec<u64> = seen.iter().filter_map(|event| event.id).collect();
    assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>());
    assert_eq!(seen.last().unwrap().json()["type"], "completion");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_arpc_finds_its_sessions_running_and_its_approvals_waiting() {
    let mut edge = Edge::start().await;
    let running = edge.session("ticks 400 5").await;
    let asking = edge.session("ask touch x").await;
    let asked = edge.until_asked(&asking).await;
    edge.say(&asking, "say after").await;
    edge.until(&running, "some ticks", |view| {
        view["total_lines"].as_u64() > Some(20)
    })
    .await;

    edge.kill_and_restart();

    let again = edge.until_asked(&asking).await;
    assert_eq!(again, asked, "the same approval waits");
    assert_eq!(edge.view(&asking).await["queue"][0]["text"], "say after");
    edge.post(
        &format!("/api/approvals/{}", asked["id"].as_str().unwrap()),
        json!({"decision": "deny", "message": "no"}),
    )
    .await;
    let view = edge.until_status(&asking, "idle").await;
    assert_eq!(
        (view["turns"].as_u64(), &view["activity"]),
        (Some(2), &json!("after"))
    );

    edge.until_status(&running, "idle").await;
    for id in [&running, &asking] {
        let events = edge.events(id).await;
        let seqs: Vec<u64> = events
            .iter()
            .map(|event| event["seq"].as_u64().unwrap())
            .collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    }
    let ticks: Vec<String> = edge
        .events(&running)
        .await
        .iter()
        .filter(|event| event["type"] == "text")
        .map(|event| event["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        ticks,
        (0..400).map(|tick| format!("tick {tick}")).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_in_one_turn_lose_and_repeat_nothing() {
    let mut edge = Edge::start().await;
    let id = edge.session("ticks 2000 2").await;
    for kill in 1..=20 {
        edge.until(&id, "progress", |view| {
            view["total_lines"].as_u64() > Some(kill * 20)
        })
        .await;
        edge.kill_and_restart();
    }
    edge.until_status(&id, "idle").await;
    let events = edge.events(&id).await;
    let seqs: Vec<u64> = events
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    let ticks = events.iter().filter(|event| event["type"] == "text").count();
    assert_eq!(ticks, 2000);
    assert_eq!(
        events
            .iter()
            .filter(|event| event["type"] == "user_message")
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_host_leaves_a_failed_session_with_all_that_was_printed_and_no_process() {
    let edge = Edge::start().await;
    let file = edge.root.path().join("orphan");
    let id = edge.session(&format!("orphan {}", file.display())).await;
    let idle = edge.until_status(&id, "idle").await;
    edge.say(&id, "hold").await;
    let lines = idle["total_lines"].as_u64();
    let before = edge
        .until(&id, "the second turn", |view| {
            view["total_lines"].as_u64() > lines
        })
        .await;
    let orphan = edge.until_file(&file).await;
    assert!(alive(&orphan));

    kill_host_of(&edge, &id);

    let failed = edge.until_status(&id, "failed").await;
    assert!(
        failed["error"]
            .as_str()
            .unwrap()
            .contains("host process was killed"),
        "{failed}"
    );
    assert!(failed["total_lines"].as_u64() >= before["total_lines"].as_u64());
    assert!(!alive(&orphan), "a tool of the killed session lives on");
    let events = edge.events(&id).await;
    assert_eq!(events.last().unwrap()["type"], "status");

    // And it can go on.
    edge.say(&id, "say back").await;
    let view = edge.until_status(&id, "idle").await;
    assert_eq!(view["activity"], "back");
}

/// SIGKILL for the process above the agent.
fn kill_host_of(edge: &Edge, id: &str) {
    let info = edge.root.path().join("data/sessions").join(id).join("host.json");
    let info: serde_json::Value = serde_json::from_slice(&std::fs::read(info).unwrap()).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", info["agent_pid"])).unwrap();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap()
        .trim()
        .to_owned();
    std::process::Command::new("kill")
        .args(["-9", &parent])
        .status()
        .unwrap();
}

/// The host's own process.
fn host_of(edge: &Edge, id: &str) -> String {
    let info = edge.root.path().join("data/sessions").join(id).join("host.json");
    let info: serde_json::Value = serde_json::from_slice(&std::fs::read(info).unwrap()).unwrap();
    info["host_pid"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_whose_socket_vanished_is_found_ended_and_reported() {
    let mut edge = Edge::start().await;
    let id = edge.session("ticks 3000 10").await;
    edge.until(&id, "some ticks", |view| view["total_lines"].as_u64() > Some(10))
        .await;
    let host = host_of(&edge, &id);
    let dir = edge.root.path().join("data/sessions").join(&id);
    std::fs::write(dir.join("host.where"), "garbage").unwrap();
    edge.kill_and_restart();
    // Meanwhile whoever asks gets answers.
    within("an answer to a message", edge.say(&id, "say after")).await;
    let view = edge
        .until(&id, "the report", |view| view["problem"]["kind"] == "turn_cut")
        .await;
    assert!(!alive(&host), "the host lives on");
    assert!(
        view["problem"]["message"].as_str().unwrap().contains("ended"),
        "{view}"
    );
    let seqs: Vec<u64> = edge
        .events(&id)
        .await
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    assert!(seqs.windows(2).all(|two| two[0] < two[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_told_to_end_parks_its_session() {
    let edge = Edge::start().await;
    let (idle, busy) = (edge.session("say one").await, edge.session("hold").await);
    edge.until_status(&idle, "idle").await;
    edge.until(&busy, "the turn", |view| view["status"] == "running")
        .await;
    for id in [&idle, &busy] {
        let host = host_of(&edge, id);
        std::process::Command::new("kill").arg(&host).status().unwrap();
        edge.until(id, "a parked session", |view| view["status"] == "parked")
            .await;
    }
    assert_eq!(edge.view(&idle).await["problem"], json!(null));
    let problem = edge.view(&busy).await["problem"].clone();
    assert_eq!(
        (&problem["kind"], &problem["can_retry"]),
        (&json!("turn_cut"), &json!(true))
    );
    assert!(
        problem["message"]
            .as_str()
            .unwrap()
            .contains("machine was shut down"),
        "{problem}"
    );
    edge.say(&idle, "say two").await;
    let view = edge.until_status(&idle, "idle").await;
    assert_eq!((&view["activity"], &view["turns"]), (&json!("two"), &json!(2)));
    let (status, retried) = edge.post(&format!("/api/sessions/{busy}/retry"), json!({})).await;
    assert!(status.is_success(), "{retried}");
    let view = edge.until_status(&busy, "idle").await;
    assert_eq!(view["problem"], json!(null));
}

/// A file system of 24 MB; gone when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let at = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(at.path())
            .output();
        if mounted.is_ok_and(|mount| mount.status.success()) {
            return Some(Self(at));
        }
        // Not all machines of CI have that.
        eprintln!("\n*** SKIPPED: a full disk; mounting a small file system needs root ***\n");
        None
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let mut filler = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.filler())
            .unwrap();
        for size in [1 << 20, 4096, 1] {
            while std::io::Write::write_all(&mut filler, &vec![0; size]).is_ok() {}
        }
    }

    fn filler(&self) -> std::path::PathBuf {
        self.0.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_stops_nothing_for_ever_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let edge = Edge::start_at(tempfile::tempdir_in(disk.0.path()).unwrap()).await;
    let id = edge.session("ticks 3000 5").await;
    edge.until(&id, "some ticks", |view| view["total_lines"].as_u64() > Some(10))
        .await;
    disk.fill();
    let view = edge
        .until(&id, "the full disk", |view| {
            view["problem"]["kind"] == "disk_full"
        })
        .await;
    assert!(
        view["problem"]["message"].as_str().unwrap().contains("disk"),
        "{view}"
    );
    // What needs room is refused, by name; what needs none is answered.
    let body = json!({"executor": "claude", "prompt": "say x", "project_path": edge.project()});
    let (status, refused) = edge.post("/api/sessions", body.clone()).await;
    assert_eq!(
        (status.as_u16(), &refused["code"]),
        (507, &json!("disk_full")),
        "{refused}"
    );
    // A message is kept where the database has room of its own left, and then it is not lost.
    let (status, said) = edge
        .post(
            &format!("/api/sessions/{id}/messages"),
            json!({"text": "say more"}),
        )
        .await;
    let kept = status.is_success();
    assert!(
        kept || (status.as_u16(), &said["code"]) == (507, &json!("disk_full")),
        "{said}"
    );
    assert!(edge.get("/api/sessions").await.0.is_success());

    std::fs::remove_file(disk.filler()).unwrap();
    edge.until_within(Duration::from_secs(120), &id, "the end of the turn", |view| {
        view["status"] == "idle" && view["queue"] == json!([])
    })
    .await;
    let events = edge.events(&id).await;
    let seqs: Vec<u64> = events
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    let ticks: Vec<&str> = events
        .iter()
        .filter(|event| event["type"] == "text")
        .map(|event| event["text"].as_str().unwrap())
        .collect();
    let mut expected: Vec<String> = (0..3000).map(|tick| format!("tick {tick}")).collect();
    expected.extend(kept.then(|| "more".to_owned()));
    assert_eq!(ticks, expected);
    assert_eq!(edge.view(&id).await["problem"], json!(null));
    let (status, started) = edge.post("/api/sessions", body).await;
    assert!(status.is_success(), "{started}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_host_is_ended_by_a_cancel() {
    let edge = Edge::start().await;
    let id = edge.session("hold").await;
    edge.until(&id, "the turn", |view| view["status"] == "running")
        .await;
    let host = host_of(&edge, &id);
    std::process::Command::new("kill")
        .args(["-STOP", &host])
        .status()
        .unwrap();
    let asked = Instant::now();
    let cancel = format!("/api/sessions/{id}/cancel");
    let (status, cancelled) = within("a cancel", edge.post(&cancel, json!({}))).await;
    println!("cancelled in {:?}", asked.elapsed());
    assert!(status.is_success(), "{cancelled}");
    assert_eq!(cancelled["session"]["status"], "cancelled", "{cancelled}");
    assert!(!alive(&host));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flooding_agent_is_held_back_and_cancelled() {
    let edge = Edge::start().await;
    let id = edge.session("burst 100000000 100").await;
    edge.until(&id, "a flood", |view| {
        view["total_lines"].as_u64() > Some(100_000)
    })
    .await;
    let log = edge.root.path().join("data/sessions").join(&id).join("raw.log");
    let seen = edge.view(&id).await["total_lines"].as_u64().unwrap();
    let written = std::fs::metadata(&log).unwrap().len();
    // A line takes about 300 bytes in the log.
    println!("{written} bytes written when {seen} lines were read");
    let asked = Instant::now();
    let cancel = format!("/api/sessions/{id}/cancel");
    let (status, cancelled) = within("a cancel", edge.post(&cancel, json!({}))).await;
    println!("cancelled in {:?}", asked.elapsed());
    assert!(status.is_success(), "{cancelled}");
    assert_eq!(cancelled["session"]["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_lines_are_exact_for_a_reader_that_comes_back_during_a_replay() {
    let mut edge = Edge::start().await;
    let id = edge.session("ticks 4000 1").await;
    let path = format!("/api/sessions/{id}?until=turn");
    let mut last = None;
    let mut ids = Vec::new();
    for _ in 0..6 {
        let mut reader = SseReader::open(&edge, &path, last).await;
        let from = ids.len();
        while ids.len() < from + 200 {
            let event = reader.next().await.expect("the stream goes on");
            if let Some(number) = event.id {
                ids.push(number);
            }
        }
        last = ids.last().copied();
        edge.kill_and_restart();
    }
    assert_eq!(ids, (1..=ids.len() as u64).collect::<Vec<_>>());
}

/// Kills, stops and starts `arpc` again and again; `ARP_LOOPS` says how often.
#[tokio::test(flavor = "multi_thread")]
async fn kills_and_stops_in_a_loop_change_nothing_that_was_seen() {
    let loops: usize = std::env::var("ARP_LOOPS").map_or(6, |loops| loops.parse().unwrap());
    let mut edge = Edge::start().await;
    let running = edge.session(&format!("ticks {} 20", loops * 30)).await;
    let asking = edge.session("ask touch x").await;
    let asked = edge.until_asked(&asking).await;
    let mut seen: [Vec<serde_json::Value>; 2] = [Vec::new(), Vec::new()];
    let mut lines = 0;
    for number in 0..loops {
        if number % 2 == 0 {
            edge.kill_and_restart();
        } else {
            edge.terminate();
            edge.restart();
        }
        assert_eq!(edge.until_asked(&asking).await, asked, "the same approval waits");
        for (before, id) in seen.iter_mut().zip([&running, &asking]) {
            let now = edge.events(id).await;
            assert!(
                now.len() >= before.len() && now[..before.len()] == before[..],
                "loop {number}"
            );
            *before = now;
        }
        let total = edge.view(&running).await["total_lines"].as_u64().unwrap();
        assert!(total >= lines, "loop {number}: lines were lost");
        lines = total;
    }
    edge.post(
        &format!("/api/approvals/{}", asked["id"].as_str().unwrap()),
        json!({"decision": "allow"}),
    )
    .await;
    edge.until_status(&asking, "idle").await;
    edge.until_within(
        Duration::from_secs(120),
        &running,
        "the end of the turn",
        |view| view["status"] == "idle",
    )
    .await;
    for id in [&running, &asking] {
        let events = edge.events(id).await;
        let seqs: Vec<u64> = events
            .iter()
            .map(|event| event["seq"].as_u64().unwrap())
            .collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    }
    let texts = edge.events(&running).await;
    let texts = texts.iter().filter(|event| event["type"] == "text").count();
    assert_eq!(texts, loops * 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_are_folded_into_whole_texts_once_a_turn_is_over() {
    let edge = Edge::start().await;
    let id = edge.session("stream 4000 1000").await;
    edge.until_status(&id, "idle").await;
    let dir = edge.root.path().join("data/sessions").join(&id);
    // In fragments and whole it was some ten megabytes in each log.
    let until = Instant::now() + Duration::from_secs(30);
    let size = |log: &str| std::fs::metadata(dir.join(log)).unwrap().len();
    while size("raw.log") > 5_000_000 || size("events.log") > 5_000_000 {
        let (raw, events) = (size("raw.log"), size("events.log"));
        assert!(Instant::now() < until, "raw log {raw}, events {events}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let events = edge.events(&id).await;
    let texts: Vec<&serde_json::Value> = events.iter().filter(|event| event["type"] == "text").collect();
    assert_eq!(texts.len(), 1);
    assert_eq!(texts[0]["text"].as_str().unwrap().len(), 4_000_000);
    // Numbers stay as they were, and the next turn goes on behind them.
    assert!(events.last().unwrap()["seq"].as_u64() > Some(4000));
    edge.say(&id, "say more").await;
    let view = edge.until_status(&id, "idle").await;
    assert_eq!(view["activity"], "more");
    let seqs: Vec<u64> = edge
        .events(&id)
        .await
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    assert!(seqs.windows(2).all(|two| two[0] < two[1]));
    assert_eq!(seqs.last().copied(), view["last_seq"].as_u64());
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_cost_a_bounded_buffer() {
    let edge = Edge::start().await;
    let id = edge.session("burst 2000 10000").await;
    edge.until_within(Duration::from_secs(60), &id, "the turn", |view| {
        view["status"] == "idle"
    })
    .await;
    let big = edge.session("burst 2 20000000").await;
    edge.until_within(Duration::from_secs(60), &big, "the turn", |view| {
        view["status"] == "idle"
    })
    .await;
    let mut readers = Vec::new();
    let many: u64 = std::env::var("ARP_READERS").map_or(100, |many| many.parse().unwrap());
    for (id, count, most) in [(&id, many, many * 4 / 10), (&big, many * 3 / 10, many * 6 / 10)] {
        let before = edge.memory();
        for number in 0..count {
            let format = if number % 2 == 0 { "raw" } else { "events" };
            let path = format!("/api/sessions/{id}?format={format}");
            let mut reader = SseReader::open(&edge, &path, None).await;
            reader.next().await.unwrap();
            readers.push(reader);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let grown = edge.memory().saturating_sub(before) >> 20;
        println!(
            "{count} readers that do not read: {} MiB before, {grown} MiB more",
            before >> 20
        );
        assert!(grown < most, "{count} readers that do not read cost {grown} MiB");
    }
    // One that reads gets a large line whole.
    let request = edge.request(reqwest::Method::GET, &format!("/api/sessions/{big}?until=turn"));
    let response = request
        .header("accept", "text/event-stream")
        .send()
        .await
        .unwrap();
    let stream = response.text().await.unwrap();
    let line = stream.lines().max_by_key(|line| line.len()).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
    let text = line["message"]["content"][0]["text"].as_str().unwrap().len();
    assert_eq!(text, 20_000_002);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_megabytes_and_a_reader_that_stops_leave_the_memory_flat() {
    const LINES: u64 = 20_000;
    let edge = Edge::start().await;
    let id = edge.session("say hi").await;
    edge.until_status(&id, "idle").await;
    // A reader that takes one event and then nothing more.
    let mut stalled = SseReader::open(&edge, &format!("/api/sessions/{id}?format=events"), None).await;
    stalled.next().await.unwrap();
    let before = edge.memory();

    let started = Instant::now();
    edge.say(&id, &format!("burst {LINES} 10000")).await;
    let mut most = before;
    loop {
        most = most.max(edge.memory());
        let view = edge.view(&id).await;
        if view["status"] == "idle" && view["turns"] == 2 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "{view:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = started.elapsed();
    let grown = most.saturating_sub(before) / (1024 * 1024);
    println!(
        "200 MB in {took:?}; memory {} MiB before, at most {} MiB",
        before >> 20,
        most >> 20
    );
    assert!(grown < 48, "memory grew by {grown} MiB");

    // The reader that stopped gets everything once it reads on.
    let mut texts = 0;
    loop {
        let event = stalled.next().await.expect("the stream goes on");
        if event.id.is_some() && event.data.contains("\"type\":\"text\"") {
            texts += 1;
        }
        if event.data.contains("\"turn_end\"") && texts > 1 {
            break;
        }
    }
    assert_eq!(texts, LINES + 1);
    // A page from the middle comes at once.
    let started = Instant::now();
    let (_, page) = edge
        .get(&format!("/api/sessions/{id}?from_line=15000&limit=3"))
        .await;
    assert_eq!(page["lines"][0]["line"], 15_000);
    println!("a page from the middle took {:?}", started.elapsed());
}
