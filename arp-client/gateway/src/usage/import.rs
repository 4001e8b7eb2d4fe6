//! What CLP has counted, taken over once: `data/proxy_requests.jsonl` (older: `traffic_statistics.jsonl`) and
//! `data/history_usage.json`.
//!
//! CLP folds the rows that its log no longer holds into the history, so the two never speak of the same request.

use super::Tokens;
use super::writer::Sums;
use crate::home::Home;
use crate::service::Service;
use rusqlite::Connection;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

/// A row of CLP's log holds bodies; longer ones are no rows.
const MAX_LINE: u64 = 16 << 20;
/// The day of what has none.
const NO_DAY: &str = "1970-01-01";

/// Sums to be added, by day, service and upstream, and the files that they come from.
#[derive(Debug, Default, PartialEq)]
pub struct Imported {
    /// Which files were read.
    pub files: Vec<String>,
    /// What they say.
    pub sums: BTreeMap<(String, String, String), Counted>,
    /// Rows that could not be understood.
    pub skipped: u64,
}

/// One sum.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Requests; the history has none.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
    /// Tokens.
    pub tokens: Tokens,
}

#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    timestamp: String,
    service: String,
    channel: Option<String>,
    #[serde(default)]
    status_code: u16,
    usage: Option<RowUsage>,
}

#[derive(Deserialize)]
struct RowUsage {
    metrics: Option<Metrics>,
}

/// CLP's names. Codex' `input` has the cached tokens in it, as its API says it.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct Metrics {
    input: u64,
    cached_create: u64,
    cached_read: u64,
    output: u64,
    reasoning: u64,
}

impl Metrics {
    const fn tokens(self, codex: bool) -> Tokens {
        Tokens {
            input: if codex {
                self.input.saturating_sub(self.cached_read)
            } else {
                self.input
            },
            cache_write: self.cached_create,
            cache_read: self.cached_read,
            output: self.output,
            reasoning: self.reasoning,
        }
    }
}

/// Reads what CLP has left in a home. Files that are not there say nothing.
///
/// # Errors
/// As the operating system says.
pub fn read(home: &Home) -> io::Result<Imported> {
    let mut all = Imported::default();
    for name in ["proxy_requests.jsonl", "traffic_statistics.jsonl"] {
        let path = home.data().join(name);
        match File::open(&path) {
            Ok(file) => {
                rows(BufReader::new(file), &mut all)?;
                all.files.push(name.to_owned());
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    let name = "history_usage.json";
    match crate::files::read(&home.data().join(name)) {
        Ok(Some(text)) => {
            let history: HashMap<String, HashMap<String, Metrics>> = serde_json::from_str(&text)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{name}: {e}")))?;
            for (service, channels) in history {
                for (channel, metrics) in channels {
                    let tokens = metrics.tokens(service == Service::Codex.name());
                    all.sums
                        .entry((NO_DAY.to_owned(), service.clone(), channel))
                        .or_default()
                        .tokens
                        .add(&tokens);
                }
            }
            all.files.push(name.to_owned());
        }
        Ok(None) => {}
        Err(e) => return Err(io::Error::other(e.to_string())),
    }
    Ok(all)
}

fn rows(mut file: impl BufRead, all: &mut Imported) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if file.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let Ok(row) = serde_json::from_slice::<Row>(&line) else {
            all.skipped += 1;
            continue;
        };
        // Local time without a zone, as the file has it: the day is what it says.
        let day = row
            .timestamp
            .get(..10)
            .filter(|day| is_day(day))
            .unwrap_or(NO_DAY)
            .to_owned();
        let codex = row.service == Service::Codex.name();
        let key = (day, row.service, row.channel.unwrap_or_default());
        let sum = all.sums.entry(key).or_default();
        sum.requests += 1;
        sum.failures += u64::from(!(200..400).contains(&row.status_code));
        if let Some(metrics) = row.usage.and_then(|usage| usage.metrics) {
            sum.tokens.add(&metrics.tokens(codex));
        }
    }
}

fn is_day(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, b)| {
        if at == 4 || at == 7 {
            b == b'-'
        } else {
            b.is_ascii_digit()
        }
    })
}

/// Adds the sums, unless one of the files was taken over before.
pub(super) fn store(db: &Connection, imported: &Imported) -> rusqlite::Result<bool> {
    let transaction = db.unchecked_transaction()?;
    for file in &imported.files {
        let new = transaction.execute("INSERT OR IGNORE INTO imports VALUES (?1, unixepoch())", [file])?;
        if new == 0 {
            return Ok(false);
        }
    }
    for ((day, service, upstream), sum) in &imported.sums {
        let n = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let sums = Sums {
            requests: n(sum.requests),
            failures: n(sum.failures),
            tokens: sum.tokens,
            cost: 0.0,
            unpriced: n(sum.requests),
        };
        // The file says nothing of models.
        sums.store(&transaction, day, service, upstream, "")?;
    }
    transaction.commit()?;
    Ok(!imported.files.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::query::By;
    use crate::usage::store::Usage;

    #[test]
    fn what_clp_has_counted_is_taken_over_once() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        std::fs::write(
            home.data().join("proxy_requests.jsonl"),
            r#"{"timestamp":"2025-03-04T05:06:07","service":"codex","status_code":200,"channel":"a","usage":{"metrics":{"input":10,"cached_read":4,"output":3,"reasoning":1,"total":13}}}
{"timestamp":"2025-03-04T05:06:08","service":"claude","status_code":500,"channel":"b","usage":null}
not a row
"#,
        )
        .unwrap();
        std::fs::write(
            home.data().join("history_usage.json"),
            r#"{"claude":{"b":{"input":1,"cached_create":2,"cached_read":3,"output":4,"reasoning":0,"total":5}}}"#,
        )
        .unwrap();
        let (usage, thread) = Usage::open(&home.usage()).unwrap();
        let imported = read(&home).unwrap();
        assert_eq!(imported.skipped, 1);
        assert!(usage.import(imported).unwrap());
        assert!(
            !usage.import(read(&home).unwrap()).unwrap(),
            "a second time changes nothing"
        );
        let codex = &usage.sums(Some(Service::Codex), None, By::Day).unwrap()[0];
        assert_eq!(
            (codex.key.as_str(), codex.tokens.input, codex.tokens.cache_read),
            ("2025-03-04", 6, 4)
        );
        let claude = &usage.sums(Some(Service::Claude), None, By::Upstream).unwrap()[0];
        assert_eq!(
            (
                claude.key.as_str(),
                claude.requests,
                claude.failures,
                claude.tokens.output
            ),
            ("b", 1, 1, 4)
        );
        drop(usage);
        thread.join().unwrap();
    }
}
