//! `arpc gateway recording` and `dry-run`: bodies of requests that are kept, and what would be hidden.

use super::Output;
use crate::cli::Failure;
use arp_gateway::home::Home;
use arp_gateway::live::Live;
use arp_gateway::redact::placeholder::Key;
use arp_gateway::redact::recorded::would_hide;
use arp_gateway::redact::{self, Found, Redaction};
use arp_gateway::service::Service;
use arp_gateway::settings;
use arp_gateway::usage::store::Usage;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// Longest text that is looked at.
const MAX_TEXT: u64 = 32 << 20;
/// Recorded requests that are looked at.
const REQUESTS: u32 = 200;

/// What to do with recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Keep bodies from the next request on, without what looks like a secret.
    On,
    /// Keep no more; what is there stays until its time is over.
    Off,
    /// Delete all that were kept.
    Forget,
}

fn told(e: impl std::fmt::Display) -> Failure {
    Failure(e.to_string())
}

fn counts(home: &Home) -> Result<Usage, Failure> {
    home.create()?;
    Usage::open(&home.usage()).map(|(usage, _)| usage).map_err(told)
}

pub(super) fn recording(home: &Home, switch: Option<Switch>, output: Output) -> Result<(), Failure> {
    let live = Live::new(home.clone());
    let now = live.snapshot(Service::Claude).settings.recording;
    if let Some(on) = switch.filter(|s| *s != Switch::Forget).map(|s| s == Switch::On) {
        let new = arp_gateway::usage::bodies::Recording { on, ..now };
        home.create()?;
        settings::set_recording(&home.settings(), new).map_err(told)?;
    }
    let usage = counts(home)?;
    if switch == Some(Switch::Forget) {
        usage.forget_bodies().map_err(told)?;
    }
    let recording = Live::new(home.clone())
        .snapshot(Service::Claude)
        .settings
        .recording;
    let (kept, bytes) = usage.kept().map_err(told)?;
    let words = format!(
        "recording of requests and answers is {}; {kept} kept ({} kB), of the newest {} requests at most, {} kB of each, for {} hours",
        if recording.on { "on" } else { "off" },
        bytes / 1024,
        recording.requests,
        recording.max_kb,
        recording.hours,
    );
    output.say(words, || {
        json!({
            "on": recording.on, "requests": recording.requests, "max_kb": recording.max_kb, "hours": recording.hours,
            "kept": kept, "bytes": bytes,
        })
    });
    Ok(())
}

/// What the rules in force would hide: of a file (`-` is standard input), or else of the recorded requests.
pub(super) fn dry_run(home: &Home, file: Option<&Path>, output: Output) -> Result<(), Failure> {
    let live = Live::new(home.clone());
    if let Some(fault) = live.filter_fault() {
        return Err(Failure(format!("the rules cannot be used: {fault}")));
    }
    let snapshot = live.snapshot(Service::Claude);
    let redaction = &snapshot.settings.redact;
    let key = Key::open(&home.redaction_key()).unwrap_or_else(|_| Key::random());
    let Some(file) = file else {
        return of_recorded(home, &snapshot, redaction, &key, output);
    };
    let mut text = String::new();
    let reader: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(|e| Failure(format!("{}: {e}", file.display())))?)
    };
    reader
        .take(MAX_TEXT)
        .read_to_string(&mut text)
        .map_err(|e| Failure(format!("{}: {e}", file.display())))?;
    let (seen, found) = redact::dry_run(&snapshot.filters, redaction, &key, &text);
    if output.json {
        println!("{}", json!({"text": seen, "found": found}));
        return Ok(());
    }
    println!("{}", seen.trim_end_matches('\n'));
    eprintln!("{}", list(&found));
    Ok(())
}

fn of_recorded(
    home: &Home,
    snapshot: &arp_gateway::live::Snapshot,
    redaction: &Redaction,
    key: &Key,
    output: Output,
) -> Result<(), Failure> {
    let none = Redaction::default();
    let bodies = counts(home)?.bodies(REQUESTS).map_err(told)?;
    let mut sums: BTreeMap<String, Found> = BTreeMap::new();
    let mut requests: Vec<Value> = Vec::new();
    for kept in &bodies {
        let on = kept
            .service
            .parse::<Service>()
            .is_ok_and(|service| redaction.is_on(service));
        let rules = if on { redaction } else { &none };
        let found = would_hide(&snapshot.filters, rules, key, &kept.body);
        for found in &found {
            let empty = Found {
                count: 0,
                ..found.clone()
            };
            sums.entry(found.by.clone()).or_insert(empty).count += found.count;
        }
        requests.push(json!({"id": kept.id, "at": kept.at, "service": kept.service, "model": kept.model, "found": found}));
    }
    let found: Vec<Found> = sums.into_values().collect();
    if output.json {
        println!("{}", json!({"found": found, "requests": requests}));
        return Ok(());
    }
    if bodies.is_empty() {
        println!("no request is recorded; arpc gateway recording on keeps the next ones");
        return Ok(());
    }
    println!("of {} recorded requests: {}", bodies.len(), list(&found));
    Ok(())
}

fn list(found: &[Found]) -> String {
    if found.is_empty() {
        return "nothing would be hidden".to_owned();
    }
    let all: Vec<String> = found
        .iter()
        .map(|found| format!("{} {} ×, such as {}", found.by, found.count, found.example))
        .collect();
    format!("would be hidden: {}", all.join("; "))
}
