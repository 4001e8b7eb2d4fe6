//! The session host: a small process (`arpc-session-host`, or `arpc session-host` where that is not installed) that
//! owns one agent process.
//!
//! It writes everything that goes to and comes from the agent into the session's raw log, passes input on,
//! and ends the agent with all its tools. It knows nothing of what the lines mean. `arpc` may crash, restart
//! or update itself meanwhile: the host goes on, and is found again by the files in the session's directory:
//!
//! - `raw.log`, `raw.idx`: the log ([`crate::log`]); the host is its only writer while it lives
//! - `host.lock`: locked as long as the host lives
//! - `host.where`: where its socket is ([`crate::ipc`])
//! - `host.json`: [`HostInfo`]
//! - `host.err`: errors of the host itself

mod accept;
mod agent;
mod lines;
mod run;
mod throttle;

pub use run::host_main;

use crate::log::Spans;
use crate::model::Status;
use crate::procs::Process;
use arp_agents::agent::LaunchOptions;
use arp_agents::driver::Exit;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a host and `arpc` say to each other: [`HostSpec`], [`StartReply`], [`ToHost`], [`FromHost`] and the log. Hosts
/// outlive updates of `arpc`, and a program beside `arpc` may be of another release, so a field that is new has a
/// default, and this number goes up only when an older or newer side would do something wrong.
pub const PROTOCOL: u32 = 1;

/// Exit code of a host program that was asked for a protocol that it does not speak; it has done nothing then.
pub const OTHER_PROTOCOL: u8 = 76;

/// What a host is to start; given on its standard input, because the environment may hold secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostSpec {
    /// The session's directory.
    pub dir: PathBuf,
    /// Our id of the session.
    pub session_id: String,
    /// The how-manieth process of the session this is, from 0.
    pub run: u32,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment variables to set.
    pub env: Vec<(String, String)>,
    /// Environment variables to take away.
    pub env_remove: Vec<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// What was wanted of the agent, for [`RunStart::options`].
    #[serde(default)]
    pub options: Option<LaunchOptions>,
    /// The log goes on with a higher `seq` than this …
    #[serde(default)]
    pub above_seq: u64,
    /// … and a higher line: after a power cut it may have lost records that somebody has seen.
    #[serde(default)]
    pub above_line: u64,
}

/// The host's one line on standard output.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartReply {
    /// The agent runs.
    Started,
    /// It could not be started; why.
    Failed(String),
}

/// Who is who, in `host.json`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct HostInfo {
    /// The how-manieth process of the session this is.
    pub run: u32,
    /// The agent's process.
    pub agent_pid: u32,
    /// When that started ([`Process::started`]).
    pub agent_started: u64,
    /// The host's own process.
    #[serde(default)]
    pub host_pid: u32,
    /// When that started.
    #[serde(default)]
    pub host_started: u64,
}

impl HostInfo {
    /// The agent's process.
    #[must_use]
    pub fn agent(&self) -> Process {
        Process {
            pid: self.agent_pid,
            started: self.agent_started,
        }
    }

    /// The host's own process, where it said so.
    #[must_use]
    pub fn host(&self) -> Option<Process> {
        (self.host_pid != 0).then_some(Process {
            pid: self.host_pid,
            started: self.host_started,
        })
    }
}

/// A note of `arpc` in the raw log, written with (before) the input that it explains, or by itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "mark", rename_all = "snake_case")]
pub enum Mark {
    /// The input is the queued message of this id.
    Message {
        /// Our id of the message.
        id: String,
    },
    /// The input denies this approval because nobody answered in time.
    TimedOut {
        /// The driver's id of the approval.
        approval: String,
    },
    /// The process is going to be ended, for this reason.
    Stop {
        /// Why.
        why: StopReason,
        /// In words, where there is more to say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// Something that happened before this session, in the one that it goes on with; written by `arpc`.
    Past {
        /// The event as JSON text.
        event: String,
    },
    /// What readers are told of the session while it has no process; written by `arpc`.
    Status {
        /// Where it stands.
        status: Status,
        /// In words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
}

/// Why a process is ended on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Somebody cancelled the session.
    Cancelled,
    /// It was idle for long, or `arpc` stops: it can go on later.
    Parked,
    /// It cannot go on.
    Failed,
}

/// First record of a process in the raw log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunStart {
    /// The how-manieth process of the session this is.
    pub run: u32,
    /// Its number.
    pub pid: u32,
    /// What it was started with, so that the log alone tells what its lines mean.
    #[serde(default)]
    pub options: Option<LaunchOptions>,
}

/// Last record of a process in the raw log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunEnd {
    /// How it ended.
    pub exit: Exit,
    /// Why the host ended it, where it did so by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What its tools left running on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<LeftRunning>,
    /// Approvals that readers know of and that the log lost, because the machine stopped: they are void.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub void: Vec<String>,
    /// Approvals that the log shows waiting and that readers know the end of: the log lost that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resolved: Vec<String>,
    /// Did the log lose the turn that ran?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut_turn: bool,
}

impl RunEnd {
    /// An end that nobody saw.
    #[must_use]
    pub fn unseen(reason: String) -> Self {
        Self {
            exit: NO_EXIT,
            reason: Some(reason),
            left: Vec::new(),
            void: Vec::new(),
            resolved: Vec::new(),
            cut_turn: false,
        }
    }
}

/// Of a process that has not ended, or whose end nobody saw.
pub const NO_EXIT: Exit = Exit {
    code: None,
    signal: None,
};

/// A process that a tool left running when the session was parked: a development server, a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftRunning {
    /// Its number.
    pub pid: u32,
    /// When it started ([`Process::started`]).
    pub started: u64,
    /// Its command line, shortened.
    pub command: String,
}

impl LeftRunning {
    /// Does it run still?
    #[must_use]
    pub fn runs(&self) -> bool {
        let (pid, started) = (self.pid, self.started);
        crate::procs::alive(Process { pid, started })
    }
}

/// From `arpc` to a host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum ToHost {
    /// Write these to the agent, the mark before them into the log.
    Input {
        /// What the input is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mark: Option<Mark>,
        /// Lines, without newlines.
        lines: Vec<String>,
        /// Must the log survive a power cut before the agent gets them?
        #[serde(default)]
        sync: bool,
    },
    /// End the agent: close its input, then SIGTERM, then SIGKILL, to all its processes.
    Stop {
        /// How long it may take after its input was closed.
        close_ms: u64,
        /// How long after SIGTERM.
        term_ms: u64,
        /// Leave running what its tools put into sessions of their own.
        #[serde(default)]
        keep_tools: bool,
    },
    /// `arpc` has read the log up to this record. A host whose reader is far behind makes the agent wait.
    Read {
        /// Newest record read.
        seq: u64,
    },
    /// See to it that the log survives a power cut.
    Sync,
    /// Drop these records from the log: later ones say the same.
    Fold {
        /// Which.
        drop: Spans,
    },
    /// End processes that the agent's tools left behind and that started in the last so many milliseconds.
    EndTools {
        /// How long ago the turn began.
        since_ms: u64,
    },
}

/// From a host to `arpc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum FromHost {
    /// The log reaches to here now.
    Tail {
        /// Newest record.
        seq: u64,
        /// Did the process end? Then this is the last frame.
        ended: bool,
        /// Is the disk full? Then the agent waits.
        #[serde(default)]
        full: bool,
    },
}

/// How the name of a session's directory ends that is being removed.
pub(crate) const ASIDE: &str = "removed";

/// The files of a session's directory.
#[derive(Debug, Clone)]
pub struct SessionDir(PathBuf);

impl SessionDir {
    /// The directory.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where it is put while it is being removed.
    #[must_use]
    pub fn aside(&self) -> PathBuf {
        self.0.with_extension(ASIDE)
    }

    /// The raw log.
    #[must_use]
    pub fn raw_log(&self) -> PathBuf {
        self.0.join("raw.log")
    }

    /// The event log.
    #[must_use]
    pub fn event_log(&self) -> PathBuf {
        self.0.join("events.log")
    }

    /// Where the host's socket is found.
    #[must_use]
    pub fn host_socket(&self) -> PathBuf {
        self.0.join("host")
    }

    /// Locked as long as a host lives.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("host.lock")
    }

    /// The host's [`HostInfo`].
    #[must_use]
    pub fn info(&self) -> PathBuf {
        self.0.join("host.json")
    }

    /// Errors of the host itself.
    #[must_use]
    pub fn host_errors(&self) -> PathBuf {
        self.0.join("host.err")
    }

    /// Bytes that the session takes on disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        let Ok(entries) = std::fs::read_dir(&self.0) else {
            return 0;
        };
        entries
            .flatten()
            .filter_map(|entry| entry.metadata().ok())
            .map(|meta| meta.len())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use serde_json::Value;

    /// Reads what a side of protocol 1 says, and says it again.
    fn again<T: Serialize + DeserializeOwned>(words: &str) -> Value {
        serde_json::to_value(serde_json::from_str::<T>(words).unwrap()).unwrap()
    }

    /// Hosts of protocol 1 run, and programs of it lie beside `arpc`s of other releases.
    #[test]
    fn protocol_1_stays_as_it_is() {
        assert_eq!((PROTOCOL, OTHER_PROTOCOL), (1, 76));
        let spec = r#"{"dir":"/d","session_id":"s","run":2,"program":"/p","args":["a"],"env":[["K","v"]],
            "env_remove":["X"],"cwd":"/c","options":null,"above_seq":3,"above_line":4}"#;
        let info = r#"{"run":2,"agent_pid":3,"agent_started":4,"host_pid":5,"host_started":6}"#;
        let said: [(Value, &str); 11] = [
            (again::<HostSpec>(spec), spec),
            (again::<StartReply>(r#""started""#), r#""started""#),
            (again::<StartReply>(r#"{"failed":"why"}"#), r#"{"failed":"why"}"#),
            (again::<HostInfo>(info), info),
            (
                again::<ToHost>(r#"{"t":"input","lines":["l"]}"#),
                r#"{"t":"input","lines":["l"],"sync":false}"#,
            ),
            (
                again::<ToHost>(r#"{"t":"stop","close_ms":1,"term_ms":2}"#),
                r#"{"t":"stop","close_ms":1,"term_ms":2,"keep_tools":false}"#,
            ),
            (
                again::<ToHost>(r#"{"t":"read","seq":1}"#),
                r#"{"t":"read","seq":1}"#,
            ),
            (again::<ToHost>(r#"{"t":"sync"}"#), r#"{"t":"sync"}"#),
            (
                again::<ToHost>(r#"{"t":"end_tools","since_ms":1}"#),
                r#"{"t":"end_tools","since_ms":1}"#,
            ),
            (
                again::<FromHost>(r#"{"t":"tail","seq":1,"ended":false}"#),
                r#"{"t":"tail","seq":1,"ended":false,"full":false}"#,
            ),
            (
                again::<RunStart>(r#"{"run":2,"pid":3}"#),
                r#"{"run":2,"pid":3,"options":null}"#,
            ),
        ];
        for (given, wanted) in said {
            assert_eq!(given, serde_json::from_str::<Value>(wanted).unwrap());
        }
    }
}
