//! A stand-in for Claude Code that does at once what its prompt says: for tests by force.
//!
//! It speaks `stream-json` on its standard input and output as far as `arpc` uses it. The first word of a prompt
//! decides: `say TEXT`; `burst N SIZE` (N lines of SIZE bytes); `ticks N MS` (a line every MS milliseconds);
//! `stream N SIZE` (one text in N fragments of SIZE bytes, and then as a whole);
//! `stamps N MS` (the same with the time in microseconds); `ask
//! COMMAND` (asks for permission, tells what was decided); `hold` (until it is interrupted); `orphan FILE` (leaves
//! a process of its own session behind, its number in FILE); `run COMMAND` (says what it prints); `exit CODE`.

use serde_json::{Value, json};
use std::io::{self, BufRead, Write};
use std::process::{Command, Stdio, exit};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

struct Claude {
    input: Receiver<Value>,
    session: String,
    mode: String,
    asked: u64,
    /// Input that came while something else was waited for.
    waiting: Vec<Value>,
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|arg| arg == "--version") {
        println!("2.1.329 (scripted)");
        return;
    }
    let after = |flag: &str| {
        args.iter()
            .position(|arg| arg == flag)
            .and_then(|at| args.get(at + 1))
            .cloned()
    };
    let session = after("--session-id")
        .or_else(|| after("--resume"))
        .unwrap_or_else(|| "scripted".into());
    let (sender, input) = channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if let Ok(message) = serde_json::from_str(&line)
                && sender.send(message).is_err()
            {
                return;
            }
        }
    });
    let mut claude = Claude {
        input,
        session,
        mode: after("--permission-mode").unwrap_or_else(|| "default".into()),
        asked: 0,
        waiting: Vec::new(),
    };
    while let Some(message) = claude.next() {
        match message["type"].as_str() {
            Some("control_request") => claude.control(&message),
            Some("user") => {
                let text = message["message"]["content"][0]["text"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                claude.turn(&text);
            }
            _ => {}
        }
    }
}

fn print(line: &Value) {
    let mut out = io::stdout().lock();
    // Nobody reads any more: the end is near.
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        exit(1);
    }
}

impl Claude {
    fn next(&mut self) -> Option<Value> {
        if self.waiting.is_empty() {
            self.input.recv().ok()
        } else {
            Some(self.waiting.remove(0))
        }
    }

    fn control(&mut self, message: &Value) {
        if let Some(mode) = message["request"]["mode"].as_str() {
            mode.clone_into(&mut self.mode);
        }
        print(&json!({"type": "control_response", "response":
            {"subtype": "success", "request_id": message["request_id"], "response": {}}}));
    }

    fn turn(&mut self, text: &str) {
        print(
            &json!({"type": "system", "subtype": "init", "session_id": self.session, "model": "scripted",
            "cwd": std::env::current_dir().unwrap_or_default(), "permissionMode": self.mode, "tools": []}),
        );
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let numbers: Vec<usize> = rest.split(' ').filter_map(|word| word.parse().ok()).collect();
        let number = |at: usize, default: usize| numbers.get(at).copied().unwrap_or(default);
        let mut aborted = false;
        match word {
            "say" => self.text(rest),
            "burst" => {
                let filling = "x".repeat(number(1, 100));
                for line in 0..number(0, 10) {
                    self.text(&format!("{line} {filling}"));
                }
            }
            "stream" => self.stream(number(0, 10), &"y".repeat(number(1, 100))),
            "ticks" => {
                for tick in 0..number(0, 10) {
                    self.text(&format!("tick {tick}"));
                    if self.interrupted(Some(Duration::from_millis(number(1, 10) as u64))) {
                        aborted = true;
                        break;
                    }
                }
            }
            "stamps" => {
                for _ in 0..number(0, 10) {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    self.text(&format!("at {}", now.as_micros()));
                    std::thread::sleep(Duration::from_millis(number(1, 10) as u64));
                }
            }
            "hold" => aborted = self.interrupted(None),
            "ask" => aborted = self.ask(rest),
            "orphan" => {
                let child = Command::new("setsid")
                    .args(["sh", "-c", "echo $$ > \"$0\"; exec sleep 1000", rest])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn();
                self.text(&format!("{}", child.is_ok()));
            }
            "run" => {
                let ran = Command::new("sh")
                    .args(["-c", rest])
                    .stdin(Stdio::null())
                    .output();
                self.text(&ran.map_or_else(
                    |error| error.to_string(),
                    |ran| String::from_utf8_lossy(&ran.stdout).into_owned(),
                ));
            }
            "exit" => {
                eprintln!("told to exit");
                exit(i32::try_from(number(0, 1)).unwrap_or(1));
            }
            _ => self.text(text),
        }
        let reason = if aborted { "aborted_tools" } else { "completed" };
        print(
            &json!({"type": "result", "subtype": if aborted { "error_during_execution" } else { "success" },
            "is_error": aborted, "result": "", "duration_ms": 1, "total_cost_usd": 0.1, "num_turns": 1,
            "usage": {}, "modelUsage": {}, "terminal_reason": reason, "session_id": self.session}),
        );
    }

    fn stream(&self, count: usize, fragment: &str) {
        let id = format!("msg_{}", self.asked);
        let event = |event: Value| {
            print(&json!({"type": "stream_event", "event": event, "session_id": self.session}))
        };
        event(json!({"type": "message_start", "message": {"id": id}}));
        event(
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        );
        for _ in 0..count {
            event(
                json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": fragment}}),
            );
        }
        self.text(&fragment.repeat(count));
        event(json!({"type": "message_stop"}));
    }

    fn text(&self, text: &str) {
        print(
            &json!({"type": "assistant", "session_id": self.session, "parent_tool_use_id": null,
            "message": {"id": format!("msg_{}", self.asked), "role": "assistant", "stop_reason": null,
                "content": [{"type": "text", "text": text}]}}),
        );
    }

    /// Waits; does an interrupt come meanwhile?
    fn interrupted(&mut self, patience: Option<Duration>) -> bool {
        loop {
            let message = match patience {
                Some(patience) => match self.input.recv_timeout(patience) {
                    Ok(message) => message,
                    Err(RecvTimeoutError::Timeout) => return false,
                    Err(RecvTimeoutError::Disconnected) => {
                        std::thread::sleep(patience);
                        return false;
                    }
                },
                None => match self.input.recv() {
                    Ok(message) => message,
                    Err(_) => exit(0),
                },
            };
            if message["request"]["subtype"] == "interrupt" {
                self.control(&message);
                return true;
            }
            if message["type"] == "control_request" {
                self.control(&message);
            } else {
                self.waiting.push(message);
            }
        }
    }

    /// Asks for permission, and tells what was decided. Was it interrupted?
    fn ask(&mut self, command: &str) -> bool {
        self.asked += 1;
        let id = format!("{}-{}", std::process::id(), self.asked);
        print(
            &json!({"type": "control_request", "request_id": id, "request": {"subtype": "can_use_tool",
            "tool_name": "Bash", "input": {"command": command}, "tool_use_id": format!("toolu_{id}")}}),
        );
        loop {
            let Some(message) = self.input.recv().ok() else {
                exit(0)
            };
            if message["type"] == "control_response" && message["response"]["request_id"] == id.as_str() {
                self.text(&message["response"]["response"].to_string());
                return false;
            }
            if message["request"]["subtype"] == "interrupt" {
                self.control(&message);
                print(&json!({"type": "control_cancel_request", "request_id": id}));
                return true;
            }
            self.waiting.push(message);
        }
    }
}
