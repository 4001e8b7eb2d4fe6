//! Tunnels as text for a terminal, from the JSON that the running one tells.

use crate::banner;
use arp_tunnels::Availability;
use serde_json::Value;

/// Lines of the program's output that are shown without being asked for.
const FEW: usize = 10;

/// How a start is shown.
pub(super) struct Show {
    pub(super) json: bool,
    qr: bool,
    /// In the words that users of `prx` know.
    prefix: &'static str,
}

/// What was shown already.
pub(super) struct Shown<'a> {
    show: &'a Show,
    last: String,
    url: Option<String>,
    up: bool,
}

impl Show {
    pub(super) fn new(json: bool, qr: bool) -> Self {
        let prx = std::env::var("ARPC_SHIM").is_ok_and(|shim| shim == "prx");
        Self {
            json,
            qr,
            prefix: if prx { "[INFO] " } else { "" },
        }
    }

    pub(super) fn begin(&self) -> Shown<'_> {
        Shown {
            show: self,
            last: String::new(),
            url: None,
            up: false,
        }
    }
}

impl Shown<'_> {
    /// Shows what is new.
    pub(super) fn show(&mut self, report: &Value) {
        if self.show.json {
            let mut report = report.clone();
            if let Some(report) = report.as_object_mut() {
                report.remove("log");
                report.remove("requests");
            }
            self.once(report.to_string());
            return;
        }
        let prefix = self.show.prefix;
        match text(report, "state") {
            "connected" => {
                let url = text(report, "public_url");
                if std::mem::replace(&mut self.up, true) && self.url.as_deref() == Some(url) {
                    return;
                }
                if let Some(before) = self.url.replace(url.to_owned()).filter(|before| before != url) {
                    banner::say(&format!("{prefix}Your address changed: {url} (it was {before})"));
                }
                banner::say(&format!(
                    "{prefix}Tunnel connected: {url} -> {}",
                    text(report, "local")
                ));
                self.last.clear();
                let visitors = report["visitors_url"].as_str().unwrap_or(url);
                if visitors != url {
                    banner::say(&format!("Open it with its token: {visitors}"));
                }
                banner::say(&format!("  {}", text(&report["health"]["public"], "detail")));
                if let Some(note) = report["note"].as_str() {
                    banner::say(&format!("  note: {note}"));
                }
                if self.show.qr {
                    banner::qr(visitors);
                }
            }
            "reconnecting" => {
                self.up = false;
                let why = text(report, "last_error").replace('\n', " ");
                let next = report["progress"].as_str().unwrap_or_default();
                self.once(format!("{prefix}Tunnel lost, or not up yet: {why}\n  {next}"));
            }
            "connecting" => {
                if let Some(progress) = report["progress"].as_str() {
                    self.once(format!("  {progress}"));
                }
            }
            "stopped" => self.once("Tunnel stopped.".into()),
            _ => {}
        }
    }

    fn once(&mut self, line: String) {
        if self.last != line {
            banner::say(&line);
            self.last = line;
        }
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// How a tunnel stands.
pub(super) fn status(report: &Value, all_lines: bool) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!("{name:<11} {value}\n"));
        }
    };
    let state = text(report, "state");
    line("state", state);
    line("url", text(report, "public_url"));
    line(
        "with token",
        report["visitors_url"]
            .as_str()
            .filter(|url| *url != text(report, "public_url"))
            .unwrap_or_default(),
    );
    line("backend", text(report, "backend"));
    line("exposes", text(report, "local"));
    line("since", text(report, "started_at"));
    line("progress", text(report, "progress"));
    line("health", &verdict(report));
    line("note", text(report, "note"));
    line("was before", text(report, "previous_url"));
    let requests = &report["requests"];
    let counted = format!(
        "{} ({} under way, {} refused, {} not reaching the service)",
        requests["total"], requests["in_flight"], requests["refused"], requests["unreachable"]
    );
    line("requests", &counted);
    line("restarts", &report["restarts"].to_string());
    line(
        "last error",
        &text(report, "last_error").replace('\n', "\n            "),
    );
    line("process", &report["pid"].to_string());
    let lines = report["log"].as_array().cloned().unwrap_or_default();
    let wanted = match (all_lines, state) {
        (true, _) => lines.len(),
        (false, "connected") => 0,
        (false, _) => FEW,
    };
    for said in &lines[lines.len().saturating_sub(wanted)..] {
        out.push_str(&format!("  | {}\n", said.as_str().unwrap_or_default()));
    }
    out
}

fn verdict(report: &Value) -> String {
    let health = &report["health"];
    if health.is_null() {
        return String::new();
    }
    let word = if health["healthy"] == true {
        "healthy"
    } else {
        "unhealthy"
    };
    let proof = if health["proven"] == true {
        "proven"
    } else {
        "not proven"
    };
    format!(
        "{word}, {proof} from outside: {}",
        text(&health["public"], "detail")
    )
}

/// What the last look told.
pub(super) fn health(report: &Value) -> String {
    let health = &report["health"];
    if health.is_null() {
        return format!("not connected ({})\n", text(report, "state"));
    }
    let word = if health["healthy"] == true {
        "healthy"
    } else {
        "unhealthy"
    };
    let mut out = format!("{word}\n");
    for (name, check) in [
        ("process", "process"),
        ("backend", "backend"),
        ("public URL", "public"),
    ] {
        let check = &health[check];
        out.push_str(&format!(
            "{name:<11} {:<8} {}\n",
            text(check, "result"),
            text(check, "detail")
        ));
    }
    out
}

/// What runs, and what could.
pub(super) fn list(running: &[Value], backends: &[Availability]) -> String {
    let mut out = String::new();
    if running.is_empty() {
        out.push_str("No tunnel runs.\n");
    }
    for report in running {
        out.push_str(&format!(
            "{:<12} {:<13} {:<11} {} -> {}\n",
            text(report, "name"),
            text(report, "state"),
            text(report, "backend"),
            report["public_url"].as_str().unwrap_or("-"),
            text(report, "local")
        ));
    }
    out.push_str("\nBackends:\n");
    for backend in backends {
        let mark = if backend.available { "yes" } else { "no" };
        let detail = backend.detail.replace('\n', "\n                  ");
        out.push_str(&format!("  {:<11} {mark:<3} {detail}\n", backend.backend.name()));
    }
    out
}
