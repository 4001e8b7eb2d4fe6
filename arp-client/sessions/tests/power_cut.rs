//! Damage of the logs. A power cut leaves the raw log, the event log or both without their ends, wherever that is. Nothing that was
//! seen changes, no number is given twice, no approval is left without an end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

use arp_agents::agent::Agent;
use arp_agents::claude::Claude;
use arp_sessions::error::SessionError;
use arp_sessions::host::{Mark, RunStart};
use arp_sessions::log::{Kind, LogReader, LogWriter};
use arp_sessions::model::{Meta, Status};
use arp_sessions::read::Sequence;
use arp_sessions::store::Store;
use arp_sessions::{AgentSource, Finding, HostProgram, NoPast, Sessions, SessionsConfig};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ID: &str = "s";

struct OnlyClaude;

impl AgentSource for OnlyClaude {
    fn find<'a>(&'a self, executor: &'a str) -> Finding<'a> {
        Box::pin(async move { Err(SessionError::UnknownAgent(executor.to_owned())) })
    }

    fn known(&self, _executor: &str) -> Option<Arc<dyn Agent>> {
        Some(Arc::new(Claude::new()))
    }

    fn default_executor(&self) -> Option<String> {
        None
    }
}

/// What a session with four turns wrote: an approval that was allowed, one that waits, texts in fragments.
fn records() -> Vec<(Kind, Value)> {
    let mut all = vec![
        (
            Kind::RunStart,
            json!(RunStart {
                run: 0,
                pid: 1,
                options: None
            }),
        ),
        (
            Kind::In,
            json!({"type": "control_request", "request_id": "arp-0-0", "request": {"subtype": "initialize"}}),
        ),
        (
            Kind::Out,
            json!({"type": "control_response", "response": {"subtype": "success", "request_id": "arp-0-0", "response": {}}}),
        ),
    ];
    for turn in 0..4 {
        let ask = json!({"type": "control_request", "request_id": format!("q{turn}"), "request":
            {"subtype": "can_use_tool", "tool_name": "Bash", "input": {"command": "ls"}, "tool_use_id": format!("t{turn}")}});
        let fragment = |text: &str| {
            json!({"type": "stream_event", "event": {"type": "content_block_delta", "index": 0,
                "delta": {"type": "text_delta", "text": text}}})
        };
        all.extend([
            (Kind::Mark, json!(Mark::Message { id: format!("m{turn}") })),
            (
                Kind::In,
                json!({"type": "user", "uuid": format!("u{turn}"), "message": {"content": [{"type": "text", "text": "do"}]}}),
            ),
            (
                Kind::Out,
                json!({"type": "system", "subtype": "init", "session_id": "agent", "permissionMode": "default"}),
            ),
            (Kind::Err, json!("a warning")),
            (
                Kind::Out,
                json!({"type": "stream_event", "event": {"type": "message_start", "message": {"id": format!("a{turn}")}}}),
            ),
            (Kind::Out, fragment("he")),
            (Kind::Out, fragment("llo")),
            (Kind::Out, ask),
        ]);
        if turn == 3 {
            break;
        }
        all.extend([
            (
                Kind::In,
                json!({"type": "control_response", "response": {"subtype": "success", "request_id": format!("q{turn}"),
                    "response": {"behavior": "allow", "updatedInput": {"command": "ls"}}}}),
            ),
            (
                Kind::Out,
                json!({"type": "result", "subtype": "success", "is_error": false, "modelUsage": {}, "total_cost_usd": 0.1}),
            ),
        ]);
    }
    all
}

fn write_logs(dir: &Path) {
    let session = dir.join("sessions").join(ID);
    std::fs::create_dir_all(&session).unwrap();
    let mut raw = LogWriter::open(&session.join("raw.log"), false).unwrap();
    let mut lines = 0;
    for (number, (kind, payload)) in records().into_iter().enumerate() {
        lines += u64::from(kind == Kind::Out);
        let time = 1_000_000 + number as u64;
        raw.append(kind, lines, true, time, payload.to_string().as_bytes())
            .unwrap();
    }
    raw.flush().unwrap();
}

fn meta() -> Meta {
    let defaults = json!({"id": ID, "executor": "claude", "agent_session_id": null, "title": null, "first_message": null,
        "project_path": "/", "model": null, "permission_mode": "default", "allowed_tools": [], "status": "running",
        "turn": null, "turns": 4, "activity": null, "usage": null, "error": null, "exit_code": null, "exit_signal": null,
        "parent_id": null, "origin": "api", "beginning": {"from": "new"}, "runs": 1, "run_after": 0, "last_seq": 0,
        "total_lines": 0, "created_ms": 1, "updated_ms": 1, "ended_ms": null, "client_id": null});
    serde_json::from_value(defaults).unwrap()
}

/// Events and lines by their numbers.
#[derive(Debug, Clone, PartialEq, Default)]
struct Seen {
    events: BTreeMap<u64, String>,
    lines: BTreeMap<u64, String>,
}

/// Opens the sessions of a directory, waits until the one is at rest, and reads it.
async fn open(dir: &Path) -> (Seen, Arc<arp_sessions::model::SessionView>) {
    let host = HostProgram::only("/bin/false".into(), Vec::new());
    let config = SessionsConfig::new(dir.to_owned(), host);
    let sessions = Sessions::open(config, Arc::new(OnlyClaude), Arc::new(NoPast)).unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    let view = loop {
        let view = sessions.get(ID).unwrap();
        if !view.status.is_live() {
            break view;
        }
        assert!(Instant::now() < until, "{view:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let mut seen = Seen::default();
    for (sequence, all) in [
        (Sequence::Events, &mut seen.events),
        (Sequence::Lines, &mut seen.lines),
    ] {
        let cursor = sessions.read(ID, sequence, 1).unwrap();
        let (_, entries) = cursor.page(usize::MAX, usize::MAX).await;
        for entry in entries.unwrap() {
            let text = format!("{} {}", entry.time_ms, entry.text);
            assert!(all.insert(entry.number, text).is_none(), "a number twice");
        }
    }
    sessions.shutdown(arp_sessions::Leaving::RunOn).await;
    (seen, view)
}

/// Where each record of a log ends.
fn ends(log: &Path) -> Vec<u64> {
    let mut reader = LogReader::open(log).unwrap();
    let mut ends = vec![0];
    while reader.next_record().unwrap().is_some() {
        ends.push(reader.offset());
    }
    ends
}

fn approvals_without_an_end(seen: &Seen) -> Vec<String> {
    let mut open = Vec::new();
    for event in seen.events.values() {
        let event: Value = serde_json::from_str(event.split_once(' ').unwrap().1).unwrap();
        let id = event["id"].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str().unwrap() {
            "approval" => open.push(id),
            "approval_resolved" => {
                let at = open.iter().position(|open| *open == id);
                open.remove(at.expect("resolved once, after it was asked"));
            }
            _ => {}
        }
    }
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_at_any_record_of_either_log_changes_nothing_that_was_seen() {
    let base = tempfile::tempdir().unwrap();
    write_logs(base.path());
    Store::open(&base.path().join("sessions.sqlite"))
        .unwrap()
        .save(&meta())
        .unwrap();
    let (before, view) = open(base.path()).await;
    assert_eq!(view.status, Status::Failed);
    assert!(approvals_without_an_end(&before).is_empty(), "{before:#?}");
    let (newest_event, newest_line) = (
        *before.events.last_key_value().unwrap().0,
        *before.lines.last_key_value().unwrap().0,
    );

    let session = base.path().join("sessions").join(ID);
    let (raw_ends, event_ends) = (ends(&session.join("raw.log")), ends(&session.join("events.log")));
    let mut cuts = Vec::new();
    for (at, raw) in raw_ends.iter().enumerate() {
        // Also in the middle of a record.
        cuts.extend([0, 1, 30].map(|torn| (Some(raw.saturating_sub(torn)), None)));
        let event = event_ends[at * (event_ends.len() - 1) / (raw_ends.len() - 1)];
        cuts.push((Some(*raw), Some(event)));
    }
    for event in &event_ends {
        cuts.extend([0, 30].map(|torn| (None, Some(event.saturating_sub(torn)))));
    }
    println!("{} power cuts", cuts.len());
    assert!(cuts.len() >= 200);
    for (raw_cut, event_cut) in cuts {
        let what = format!("raw log cut at {raw_cut:?}, events at {event_cut:?}");
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("sessions").join(ID);
        std::fs::create_dir_all(&copy).unwrap();
        for name in ["raw.log", "raw.idx", "events.log", "events.idx"] {
            std::fs::copy(session.join(name), copy.join(name)).unwrap();
        }
        for (name, cut) in [("raw.log", raw_cut), ("events.log", event_cut)] {
            if let Some(cut) = cut {
                let file = std::fs::File::options()
                    .write(true)
                    .open(copy.join(name))
                    .unwrap();
                file.set_len(cut).unwrap();
            }
        }
        let known = Meta {
            last_seq: newest_event,
            total_lines: newest_line,
            ..meta()
        };
        Store::open(&dir.path().join("sessions.sqlite"))
            .unwrap()
            .save(&known)
            .unwrap();

        let (after, view) = open(dir.path()).await;
        assert!(!view.status.is_live(), "{what}");
        assert!(approvals_without_an_end(&after).is_empty(), "{what}: {after:#?}");
        for (number, event) in &after.events {
            if *number <= newest_event {
                assert_eq!(before.events.get(number), Some(event), "{what}: event {number}");
            }
        }
        for (number, line) in &after.lines {
            assert_eq!(before.lines.get(number), Some(line), "{what}: line {number}");
        }
        if raw_cut.is_none() {
            assert_eq!(after, before, "{what}: all is made again from the lines");
        }
        if event_cut.is_none() {
            let kept = after.events.range(..=newest_event).count();
            assert_eq!(kept, before.events.len(), "{what}: no event is lost");
        }
    }
}

/// Copies the session, damages one of its logs, and opens it.
async fn damaged(base: &Path, log: &str, newest: (u64, u64), damage: impl Fn(&mut Vec<u8>)) -> Seen {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("sessions").join(ID);
    std::fs::create_dir_all(&copy).unwrap();
    for name in ["raw.log", "raw.idx", "events.log", "events.idx"] {
        std::fs::copy(base.join("sessions").join(ID).join(name), copy.join(name)).unwrap();
    }
    let path = copy.join(log);
    let mut bytes = std::fs::read(&path).unwrap();
    damage(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let known = Meta {
        last_seq: newest.0,
        total_lines: newest.1,
        ..meta()
    };
    Store::open(&dir.path().join("sessions.sqlite"))
        .unwrap()
        .save(&known)
        .unwrap();
    open(dir.path()).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_at_any_record_costs_what_is_damaged_and_events_are_made_again() {
    let base = tempfile::tempdir().unwrap();
    write_logs(base.path());
    Store::open(&base.path().join("sessions.sqlite"))
        .unwrap()
        .save(&meta())
        .unwrap();
    let (before, _) = open(base.path()).await;
    let newest = (
        *before.events.last_key_value().unwrap().0,
        *before.lines.last_key_value().unwrap().0,
    );
    let session = base.path().join("sessions").join(ID);
    type Damage = fn(&mut Vec<u8>, std::ops::Range<usize>);
    let damages: [(&str, Damage); 4] = [
        ("a wrong byte in the content", |bytes, at| bytes[at.end - 3] ^= 1),
        ("a wrong length", |bytes, at| bytes[at.start] ^= 0x10),
        ("zeros", |bytes, at| bytes[at].fill(0)),
        ("a piece that is missing", |bytes, at| {
            drop(bytes.drain(at.start + 5..at.end - 2))
        }),
    ];
    for log in ["events.log", "raw.log"] {
        let ends = ends(&session.join(log));
        let records: Vec<_> = ends
            .windows(2)
            .map(|two| two[0] as usize..two[1] as usize)
            .collect();
        for (number, record) in records.iter().enumerate() {
            let (what, damage) = damages[number % damages.len()];
            let what = format!("{what} in record {number} of {log}");
            let after = damaged(base.path(), log, newest, |bytes| damage(bytes, record.clone())).await;
            if log == "events.log" {
                assert_eq!(after, before, "{what}");
                continue;
            }
            // Events are there already; of the lines only the damaged one may be missing.
            for (number, event) in &before.events {
                assert_eq!(after.events.get(number), Some(event), "{what}: event {number}");
            }
            let missing = before
                .lines
                .keys()
                .filter(|number| !after.lines.contains_key(number));
            // Where even the newline is gone behind which the next record begins, that one is not found.
            let most = if what.starts_with("zeros") { 2 } else { 1 };
            assert!(missing.count() <= most, "{what}");
            for (number, line) in &after.lines {
                assert_eq!(before.lines.get(number), Some(line), "{what}: line {number}");
            }
        }
        // Several at once, neighbours among them.
        if log == "events.log" {
            let after = damaged(base.path(), log, newest, |bytes| {
                for record in records[..records.len() - 1].iter().step_by(3) {
                    bytes[record.end - 3] ^= 1;
                }
                bytes[records[1].end - 3] ^= 1;
            })
            .await;
            assert_eq!(after, before, "every third event");
        }
    }
}
