//! A session with a real CLI: spawns what a launch says, pumps lines through the driver, and proves at the end
//! that the log of both directions brings a fresh driver to the same events.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub
)]

use arp_agents::agent::{Agent, LaunchOptions};
use arp_agents::driver::{Action, Command, CommandError, Decision, Driver, Exit, PermissionMode};
use arp_agents::event::{Approval, ApprovalOutcome, Event, TurnStatus};
use arp_testkit::cli::{self, Home};
use arp_testkit::model_api::ModelApi;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;

/// Longest wait for the next line of a CLI on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A model API, a home that talks to it, and a binary: what a test needs. `None` when the CLI is not there.
pub struct Stage {
    pub api: ModelApi,
    pub home: Home,
    pub program: PathBuf,
}

impl Stage {
    pub async fn set(binary: &str) -> Option<Self> {
        let program = cli::find(binary)?;
        let api = ModelApi::start().await;
        let home = Home::new(&api);
        Some(Self { api, home, program })
    }

    pub fn options(&self) -> LaunchOptions {
        LaunchOptions {
            project_path: self.home.project(),
            ..LaunchOptions::default()
        }
    }

    pub async fn start(&self, agent: &dyn Agent, options: LaunchOptions) -> Session {
        let mut session = Session::spawn(agent, &self.program, self.home.env(), options);
        session.command(Command::Start).unwrap();
        session.until(|action| matches!(action, Action::Ready)).await;
        session
    }
}

/// A line of the log.
enum Line {
    Sent(String),
    Printed(String),
}

pub struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: JoinHandle<String>,
    driver: Box<dyn Driver>,
    fresh: Box<dyn Driver>,
    log: Vec<Line>,
    /// All actions but `Send`, in order.
    pub seen: Vec<Action>,
    /// How many of them the test has looked at.
    read: usize,
    outbox: Vec<String>,
}

impl Session {
    pub fn spawn(
        agent: &dyn Agent,
        program: &Path,
        env: &[(OsString, OsString)],
        options: LaunchOptions,
    ) -> Self {
        let launch = agent.launch(program, &options).unwrap();
        let mut child = tokio::process::Command::new(&launch.program)
            .args(&launch.args)
            .current_dir(&launch.cwd)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(env.iter().cloned())
            .envs(launch.env.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: BufReader::new(child.stdout.take().unwrap()).lines(),
            stderr: tokio::spawn(async move {
                let mut text = Vec::new();
                let _ = stderr.read_to_end(&mut text).await;
                String::from_utf8_lossy(&text).into_owned()
            }),
            child,
            driver: agent.driver(&options),
            // The replay is given other options than the launch: what was wanted then is in the log.
            fresh: agent.driver(&LaunchOptions {
                permission_mode: PermissionMode::AcceptEdits,
                model: Some("another".into()),
                ..options.clone()
            }),
            log: Vec::new(),
            seen: Vec::new(),
            read: 0,
            outbox: Vec::new(),
        }
    }

    pub fn command(&mut self, command: Command) -> Result<(), CommandError> {
        let actions = self.driver.command(command)?;
        self.take(actions);
        Ok(())
    }

    pub fn prompt(&mut self, text: &str) {
        self.command(Command::Prompt {
            id: Some(format!("id of {text}")),
            text: text.to_owned(),
        })
        .unwrap();
    }

    pub fn decide(&mut self, approval: &Approval, decision: Decision) {
        self.command(Command::Decide {
            approval_id: approval.id.clone(),
            decision,
        })
        .unwrap();
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(line) => {
                    self.log.push(Line::Sent(line.clone()));
                    self.outbox.push(line);
                }
                other => self.seen.push(other),
            }
        }
    }

    /// Goes on until an action not looked at yet satisfies `wanted`, and gives that.
    pub async fn until(&mut self, wanted: impl Fn(&Action) -> bool) -> Action {
        loop {
            while self.read < self.seen.len() {
                self.read += 1;
                if wanted(&self.seen[self.read - 1]) {
                    return self.seen[self.read - 1].clone();
                }
                if let Action::Fatal(why) = &self.seen[self.read - 1] {
                    panic!("the session ended: {why}\n{}", self.story());
                }
            }
            self.read_line().await;
        }
    }

    /// Goes on until the CLI prints a line that holds `text`.
    pub async fn until_printed(&mut self, text: &str) {
        while !self.read_line().await.contains(text) {}
    }

    async fn read_line(&mut self) -> String {
        self.flush().await;
        let line = tokio::time::timeout(PATIENCE, self.stdout.next_line()).await;
        let line = line
            .unwrap_or_else(|_| panic!("nothing comes any more\n{}", self.story()))
            .unwrap();
        let line = line.unwrap_or_else(|| panic!("the output ended\n{}", self.story()));
        self.log.push(Line::Printed(line.clone()));
        let actions = self.driver.on_line(&line);
        self.take(actions);
        line
    }

    async fn flush(&mut self) {
        for line in std::mem::take(&mut self.outbox) {
            let stdin = self.stdin.as_mut().unwrap();
            // A CLI that is gone shows at the end of its output.
            let _ = stdin.write_all(format!("{line}\n").as_bytes()).await;
            let _ = stdin.flush().await;
        }
    }

    /// The next approval that is asked for.
    pub async fn asked(&mut self) -> Approval {
        match self.until(|action| matches!(action, Action::Ask(_))).await {
            Action::Ask(approval) => approval,
            _ => unreachable!(),
        }
    }

    /// The end of the turn: how, and what it said.
    pub async fn turn_end(&mut self) -> (TurnStatus, Option<String>) {
        let action = self
            .until(|action| matches!(action, Action::Emit(Event::TurnEnd { .. })))
            .await;
        self.until(|action| matches!(action, Action::TurnEnded)).await;
        match action {
            Action::Emit(Event::TurnEnd { status, message, .. }) => (status, message),
            _ => unreachable!(),
        }
    }

    /// Runs a turn that asks nothing.
    pub async fn turn(&mut self, text: &str) -> (TurnStatus, Option<String>) {
        self.prompt(text);
        self.turn_end().await
    }

    pub fn events(&self) -> Vec<&Event> {
        self.seen
            .iter()
            .filter_map(|action| {
                if let Action::Emit(event) = action {
                    Some(event)
                } else {
                    None
                }
            })
            .collect()
    }

    /// What the agent said, whole blocks in place of their fragments, in order.
    pub fn said(&self) -> Vec<String> {
        texts(&self.events(), false)
    }

    pub fn thought(&self) -> Vec<String> {
        texts(&self.events(), true)
    }

    pub fn agent_session_id(&self) -> String {
        let id = self.seen.iter().rev().find_map(|action| match action {
            Action::SessionId(id) => Some(id.clone()),
            _ => None,
        });
        id.expect("the agent told its session id")
    }

    /// The newest that was told of the session.
    pub fn about(&self) -> (Option<String>, Option<String>) {
        let init = self.events().into_iter().rev().find_map(|event| match event {
            Event::Init {
                model,
                permission_mode,
                ..
            } => Some((model.clone(), permission_mode.clone())),
            _ => None,
        });
        init.expect("the agent told about itself")
    }

    /// The mode that the agent says it has, as one of ours.
    pub fn mode(&self) -> Option<PermissionMode> {
        self.driver.mode()
    }

    /// What became of an approval.
    pub fn outcome(&self, approval: &Approval) -> Option<(ApprovalOutcome, Option<String>)> {
        self.seen.iter().find_map(|action| match action {
            Action::Resolved {
                approval_id,
                outcome,
                message,
                ..
            } if *approval_id == approval.id => Some((*outcome, message.clone())),
            _ => None,
        })
    }

    /// The result of the tool call that an approval was about: output, and whether it is an error.
    pub fn result_of(&self, approval: &Approval) -> Option<(String, bool)> {
        self.events().into_iter().rev().find_map(|event| match event {
            Event::ToolResult {
                id,
                output,
                is_error,
                delta: false,
                ..
            } if Some(id) == approval.tool_call_id.as_ref() => Some((output.clone(), *is_error)),
            _ => None,
        })
    }

    /// Ends the process as one ends it cleanly, and proves that the log tells the same story again.
    pub async fn finish(mut self) {
        self.flush().await;
        drop(self.stdin.take());
        let rest = async {
            while let Some(line) = self.stdout.next_line().await.unwrap() {
                self.log.push(Line::Printed(line.clone()));
                let actions = self.driver.on_line(&line);
                for action in actions {
                    if !matches!(action, Action::Send(_)) {
                        self.seen.push(action);
                    }
                }
            }
            self.child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(PATIENCE, rest)
            .await
            .expect("the CLI ends when its input does");
        let exit = Exit {
            code: status.code(),
            signal: None,
        };
        self.seen.extend(self.driver.on_exit(exit, ""));

        let mut again = Vec::new();
        for line in &self.log {
            let actions = match line {
                Line::Sent(line) => self.fresh.replay_sent(line),
                Line::Printed(line) => self.fresh.on_line(line),
            };
            again.extend(
                actions
                    .into_iter()
                    .filter(|action| !matches!(action, Action::Send(_))),
            );
        }
        again.extend(self.fresh.on_exit(exit, ""));
        assert_eq!(
            again.len(),
            self.seen.len(),
            "a replay tells as much as the live session"
        );
        for (again, live) in again.iter().zip(&self.seen) {
            assert_eq!(again, live, "a replay tells what the live session told");
        }
    }

    fn story(&self) -> String {
        let lines: Vec<String> = self
            .log
            .iter()
            .map(|line| match line {
                Line::Sent(line) => format!("> {}", line.chars().take(400).collect::<String>()),
                Line::Printed(line) => format!("< {}", line.chars().take(400).collect::<String>()),
            })
            .collect();
        let from = lines.len().saturating_sub(30);
        lines[from..].join("\n")
    }
}

/// The blocks of text (or of thought) in order, each with its fragments put together.
pub fn texts(events: &[&Event], thought: bool) -> Vec<String> {
    let mut order = Vec::new();
    let mut blocks: BTreeMap<String, String> = BTreeMap::new();
    for event in events {
        let (id, text, delta) = match event {
            Event::Text { id, text, delta, .. } if !thought => (id, text, *delta),
            Event::Thinking { id, text, delta, .. } if thought => (id, text, *delta),
            _ => continue,
        };
        if !blocks.contains_key(id) {
            order.push(id.clone());
        }
        let block = blocks.entry(id.clone()).or_default();
        if !delta {
            block.clear();
        }
        block.push_str(text);
    }
    order.iter().filter_map(|id| blocks.remove(id)).collect()
}

pub fn allow() -> Decision {
    Decision::Allow {
        for_session: false,
        updated_input: None,
        answers: BTreeMap::new(),
        permission_mode: None,
    }
}

pub fn allow_for_session() -> Decision {
    Decision::Allow {
        for_session: true,
        updated_input: None,
        answers: BTreeMap::new(),
        permission_mode: None,
    }
}

pub fn deny(message: &str) -> Decision {
    Decision::Deny {
        message: Some(message.to_owned()),
        interrupt: false,
    }
}

/// Is this a fragment of text?
pub fn is_fragment(action: &Action) -> bool {
    matches!(action, Action::Emit(Event::Text { delta: true, .. }))
}

/// The contents of a file that another process is about to write.
pub async fn contents_when_there(path: &Path) -> String {
    let written = async {
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) if !text.is_empty() => return text,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, written)
        .await
        .expect("the file is written")
}

/// Waits until a process has ended.
pub async fn gone(pid: &str) {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let ended = async {
        // An ended process that nobody has fetched yet still has an entry, as a zombie.
        while std::fs::read_to_string(proc.join("stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended)
        .await
        .expect("the process ends");
}

/// All files below a directory.
pub fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path))
        } else {
            files.push(path)
        }
    }
    files
}
