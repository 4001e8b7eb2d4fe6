//! Figures of command mode, each beside what it is to be compared with; prints the tables of `docs/benchmarks.md`.
//!
//! `cargo build --release --workspace --bins --examples && target/release/examples/bench_sessions [ROUNDS|memory]`
//!
//! - Time from POST to the agent's first line, and to the first text of the answer, through relay and edge, beside the
//!   same agent run by hand (needs the real ones: in `PATH`, or where `ARP_TEST_AGENTS` says).
//! - Delay of each event from the moment the agent printed it, read from the edge and through the relay.
//! - Memory of `arpc` with 20 live sessions, and of their hosts. `memory` measures that alone; without
//!   `arpc-session-host` beside `arpc` it measures `arpc` as its own host.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a measurement for developers"
)]

use arp_testkit::cli::{self, Home};
use arp_testkit::daemon::{Edge, Relay};
use arp_testkit::model_api::ModelApi;
use futures_util::future::join_all;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

const TOKEN: &str = "bench";
const LIVE: usize = 20;

/// An agent: how it is run by hand, and how the first text of an answer is known in either output.
struct Agent {
    name: &'static str,
    by_hand: &'static [&'static str],
    text_by_hand: &'static str,
    text: &'static str,
    model: Option<&'static str>,
}

const AGENTS: [Agent; 3] = [
    Agent {
        name: "claude",
        by_hand: &[
            "-p",
            "say hello",
            "--output-format",
            "stream-json",
            "--verbose",
            "--include-partial-messages",
        ],
        text_by_hand: "text_delta",
        text: "text_delta",
        model: None,
    },
    Agent {
        name: "codex",
        by_hand: &["exec", "--json", "say hello"],
        text_by_hand: "agent_message",
        text: "item/agentMessage/delta",
        model: None,
    },
    Agent {
        name: "gemini",
        by_hand: &[
            "-p",
            "say hello",
            "--output-format",
            "stream-json",
            "--skip-trust",
            "-m",
            "gemini-2.5-flash",
        ],
        text_by_hand: "\"role\":\"assistant\"",
        text: "agent_message_chunk",
        model: Some("gemini-2.5-flash"),
    },
];

/// A relay and an edge, and the two ways to it.
struct Stage {
    relay: Relay,
    edge: Edge,
    direct: String,
    client: Client,
}

impl Stage {
    async fn new(arguments: &[String], vars: &[(String, String)]) -> Self {
        let relay = Relay::start().await;
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let listen = free.to_string();
        let mut builder = Edge::builder()
            .relay_at(relay.control, relay.proxy)
            .args([
                "--command-mode",
                "--client-id",
                TOKEN,
                "--max-sessions",
                "40",
                "--listen",
                &listen,
            ])
            .args(arguments.iter().map(String::as_str));
        for (key, value) in vars {
            builder = builder.var(key, value);
        }
        Self {
            edge: builder.start().await,
            direct: format!("http://{listen}"),
            client: arp_testkit::client::client(),
            relay,
        }
    }

    fn through_relay(&self) -> String {
        self.relay.url("")
    }

    async fn post(&self, path: &str, body: Value) -> Response {
        let url = format!("{}{path}", self.through_relay());
        let request = self.client.post(url).header("x-arp-token", TOKEN).json(&body);
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        answer
    }

    async fn lines(&self, base: &str, id: &str, from: u64) -> Events {
        let url = format!("{base}/api/sessions/{id}?from_line={from}");
        let request = self.client.get(url).header("x-arp-token", TOKEN);
        Events::of(
            request
                .header("accept", "text/event-stream")
                .send()
                .await
                .unwrap(),
        )
    }

    async fn session(&self, project: &Path) -> String {
        let body = json!({"executor": "claude", "prompt": "say x", "project_path": project});
        let started: Value = self.post("/api/sessions", body).await.json().await.unwrap();
        let id = started["session_id"].as_str().unwrap().to_owned();
        loop {
            let url = format!("{}/api/sessions/{id}?lines=none&token={TOKEN}", self.direct);
            let seen: Value = self.client.get(url).send().await.unwrap().json().await.unwrap();
            if seen["session"]["status"] == "idle" {
                return id;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The `data` of the unnamed events of a stream.
struct Events {
    response: Response,
    buffer: String,
}

impl Events {
    fn of(response: Response) -> Self {
        Self {
            response,
            buffer: String::new(),
        }
    }

    async fn next(&mut self) -> Option<String> {
        loop {
            while let Some(end) = self.buffer.find("\n\n") {
                let block: String = self.buffer.drain(..end + 2).collect();
                if !block.starts_with("event:")
                    && let Some(data) = block.split("data: ").nth(1)
                {
                    return Some(data.trim_end().to_owned());
                }
            }
            let chunk = self.response.chunk().await.unwrap()?;
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Delays, in microseconds, of this many lines that say when they were printed.
    async fn delays(mut self, wanted: usize) -> Vec<u64> {
        let mut delays = Vec::with_capacity(wanted);
        while delays.len() < wanted {
            let Some(data) = self.next().await else { break };
            delays.extend(delay(&data));
        }
        delays
    }
}

/// Microseconds since the moment that a line says it was printed at, if it says one.
fn delay(line: &str) -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let stamp = line
        .split("\"at ")
        .nth(1)?
        .split('"')
        .next()?
        .parse::<u128>()
        .ok()?;
    u64::try_from(now.saturating_sub(stamp)).ok()
}

/// The value below which this share of them lies, in milliseconds.
fn share(values: &mut [u64], share: f64) -> f64 {
    values.sort_unstable();
    let at = ((values.len() - 1) as f64 * share).round() as usize;
    values[at] as f64 / 1000.0
}

fn median(values: &mut [u64]) -> f64 {
    share(values, 0.5)
}

fn micros(from: Instant) -> u64 {
    u64::try_from(from.elapsed().as_micros()).unwrap()
}

#[tokio::main]
async fn main() {
    let what = std::env::args().nth(1);
    let all = what.as_deref() != Some("memory");
    if all {
        first_events(what.and_then(|n| n.parse().ok()).unwrap_or(5)).await;
    }
    let root = tempfile::tempdir().unwrap();
    let scripted = std::env::current_exe().unwrap().with_file_name("scripted_claude");
    let arguments = [format!("--agent-path=claude={}", scripted.display())];
    let stage = Stage::new(&arguments, &[]).await;
    let empty = stage.edge.daemon.rss_kib();
    if all {
        delays(&stage, root.path()).await;
    }
    memory(&stage, root.path(), empty).await;
}

async fn first_events(rounds: usize) {
    println!(
        "| agent | by hand: first line (ms) | POST: first line (ms) | by hand: first text (ms) | POST: first text (ms) |"
    );
    println!("|---|---:|---:|---:|---:|");
    for agent in AGENTS {
        let Some(program) = cli::find(agent.name) else {
            continue;
        };
        let api = ModelApi::bind(0).await.unwrap();
        let home = Home::new(&api);
        let vars: Vec<(String, String)> = home
            .env()
            .iter()
            .map(|(key, value)| {
                (
                    key.to_str().unwrap().to_owned(),
                    value.to_str().unwrap().to_owned(),
                )
            })
            .collect();
        let stage = Stage::new(
            &[format!("--agent-path={}={}", agent.name, program.display())],
            &vars,
        )
        .await;
        let mut seen: [Vec<u64>; 4] = Default::default();
        // The first round warms the caches and does not count.
        for round in 0..=rounds {
            let hand = by_hand(&agent, &program, &home).await;
            let post = by_post(&agent, &stage, &home).await;
            if round > 0 {
                for (all, one) in seen.iter_mut().zip([hand.0, post.0, hand.1, post.1]) {
                    all.push(one);
                }
            }
        }
        let cells = seen.iter_mut().map(|all| format!("{:.0}", median(all)));
        println!("| {} | {} |", agent.name, cells.collect::<Vec<_>>().join(" | "));
    }
    println!();
}

/// To the first line, and to the first text, in microseconds.
async fn by_hand(agent: &Agent, program: &PathBuf, home: &Home) -> (u64, u64) {
    let begun = Instant::now();
    let mut child = Command::new(program)
        .args(agent.by_hand)
        .current_dir(home.project())
        .envs(home.env().iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut first = None;
    let mut text = None;
    while let Some(line) = lines.next_line().await.unwrap() {
        first = first.or(Some(micros(begun)));
        if text.is_none() && line.contains(agent.text_by_hand) {
            text = Some(micros(begun));
        }
    }
    assert!(child.wait().await.unwrap().success());
    (first.unwrap(), text.unwrap())
}

async fn by_post(agent: &Agent, stage: &Stage, home: &Home) -> (u64, u64) {
    let begun = Instant::now();
    let body = json!({"executor": agent.name, "prompt": "say hello", "project_path": home.project(),
        "model": agent.model, "stream": true});
    let answer = stage.post("/api/sessions", body).await;
    let id = answer.headers()["x-session-id"].to_str().unwrap().to_owned();
    let mut events = Events::of(answer);
    let mut first = None;
    let mut text = None;
    while let Some(line) = events.next().await {
        first = first.or(Some(micros(begun)));
        if text.is_none() && line.contains(agent.text) {
            text = Some(micros(begun));
        }
    }
    stage.post(&format!("/api/sessions/{id}/cancel"), json!({})).await;
    (first.unwrap(), text.unwrap())
}

/// The agent's lines read from its pipe: what the load of the machine alone does to them.
async fn piped(wanted: usize, pause: u64) -> Vec<u64> {
    let scripted = std::env::current_exe().unwrap().with_file_name("scripted_claude");
    let mut child = Command::new(scripted)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let prompt =
        json!({"type": "user", "message": {"content": [{"text": format!("stamps {wanted} {pause}")}]}});
    let input = child.stdin.as_mut().unwrap();
    input.write_all(format!("{prompt}\n").as_bytes()).await.unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut delays = Vec::with_capacity(wanted);
    while delays.len() < wanted {
        delays.extend(delay(&lines.next_line().await.unwrap().unwrap()));
    }
    delays
}

async fn delays(stage: &Stage, project: &Path) {
    println!("| delay from the agent's output | p50 (ms) | p99 (ms) |\n|---|---:|---:|");
    for (wanted, pause) in [(1000, 10), (2000, 2)] {
        let id = stage.session(project).await;
        let direct = stage.lines(&stage.direct, &id, 1).await;
        let relayed = stage.lines(&stage.through_relay(), &id, 1).await;
        let text = format!("stamps {wanted} {pause}");
        stage
            .post(&format!("/api/sessions/{id}/messages"), json!({"text": text}))
            .await;
        let (mut direct, mut relayed) = tokio::join!(direct.delays(wanted), relayed.delays(wanted));
        let mut pipe = piped(wanted, pause).await;
        for (way, all) in [
            ("the agent's pipe, read by hand", &mut pipe),
            ("the edge, read directly", &mut direct),
            ("through the relay", &mut relayed),
        ] {
            assert_eq!(all.len(), wanted);
            let (p50, p99) = (median(all), share(all, 0.99));
            println!("| an event every {pause} ms: {way} | {p50:.2} | {p99:.2} |");
        }
    }
}

async fn memory(stage: &Stage, project: &Path, empty: u64) {
    let mut ids = Vec::new();
    for _ in 0..LIVE {
        ids.push(stage.session(project).await);
    }
    let idle = stage.edge.daemon.rss_kib();
    let hosts = children(stage.edge.daemon.pid());
    let quiet = Kept::of(&hosts);
    let wanted = 500;
    let reads = join_all(ids.iter().map(|id| async move {
        let lines = stage.lines(&stage.through_relay(), id, 1).await;
        stage
            .post(
                &format!("/api/sessions/{id}/messages"),
                json!({"text": format!("stamps {wanted} 20")}),
            )
            .await;
        lines.delays(wanted).await
    }));
    let sample = async {
        let mut most = 0;
        for _ in 0..40 {
            most = most.max(stage.edge.daemon.rss_kib());
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        most
    };
    let (delays, busy) = tokio::join!(reads, sample);
    let mut all = delays.concat();
    assert_eq!(all.len(), LIVE * wanted);
    let (p50, p99) = (median(&mut all), share(&mut all, 0.99));
    println!(
        "| {LIVE} sessions at once, each an event every 20 ms: through the relay | {p50:.2} | {p99:.2} |\n"
    );
    let printed = Kept::of(&hosts);
    let loud = chatty(stage, &ids[0]).await;
    let mb = |kib: u64| kib as f64 / 1024.0;
    println!("| memory | RSS (MB) |\n|---|---:|");
    println!("| arpc, no session | {:.1} |", mb(empty));
    println!("| arpc, {LIVE} live sessions | {:.1} |", mb(idle));
    println!(
        "| arpc, {LIVE} live sessions that print, with a reader each | {:.1} |",
        mb(busy)
    );
    println!("\n| session hosts | RSS (MB) | PSS (MB) | private and dirty (MB) |\n|---|---:|---:|---:|");
    let row = |what: &str, kept: &Kept| {
        let [rss, pss, own] = [kept.rss, kept.pss, kept.own].map(mb);
        println!("| {what} | {rss:.1} | {pss:.1} | {own:.1} |");
    };
    row(&format!("{} of idle sessions", hosts.len()), &quiet);
    row("the same after they printed 500 lines each", &printed);
    row("one whose agent prints a million lines, at most", &loud);
}

/// The most that a session's host takes while its agent prints a million lines.
async fn chatty(stage: &Stage, id: &str) -> Kept {
    // A host works in its session's directory.
    let works_there =
        |pid: &u32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|dir| dir.ends_with(id));
    let hosts = children(stage.edge.daemon.pid());
    let host = hosts.into_iter().find(works_there).unwrap();
    let lines = |seen: &Value| seen["session"]["total_lines"].as_u64().unwrap();
    let view = async || -> Value {
        let url = format!("{}/api/sessions/{id}?lines=none&token={TOKEN}", stage.direct);
        stage.client.get(url).send().await.unwrap().json().await.unwrap()
    };
    let before = lines(&view().await);
    let text = json!({"text": "burst 1000000 100"});
    stage.post(&format!("/api/sessions/{id}/messages"), text).await;
    let mut most = Kept::of(&[host]);
    while lines(&view().await) < before + 1_000_000 {
        let now = Kept::of(&[host]);
        most.rss = most.rss.max(now.rss);
        most.pss = most.pss.max(now.pss);
        most.own = most.own.max(now.own);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    most
}

/// Memory of processes together, in KiB.
#[derive(Default)]
struct Kept {
    rss: u64,
    pss: u64,
    own: u64,
}

impl Kept {
    fn of(processes: &[u32]) -> Self {
        let mut kept = Self::default();
        for pid in processes {
            let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
            let kib = |name: &str| -> u64 {
                let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                line.split_whitespace().next().unwrap().parse().unwrap()
            };
            kept.rss += kib("Rss:");
            kept.pss += kib("Pss:");
            kept.own += kib("Private_Dirty:");
        }
        kept
    }
}

/// Processes whose parent this is.
fn children(parent: u32) -> Vec<u32> {
    let wanted = format!("PPid:\t{parent}");
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line == wanted)
        })
        .collect()
}
