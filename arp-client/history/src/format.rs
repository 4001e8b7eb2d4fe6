//! What there is to know of an agent's way of keeping its history. Everything else in this crate is the same for all.

use crate::AgentKind;
use crate::events::Said;
use crate::homes::Files;
use crate::query::FileRow;
use crate::shapes::{LiveSession, Session};
use crate::summary::Summary;
use arp_agents::event::Event;
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// An agent's way of keeping its history.
pub(crate) trait Format: Send + Sync {
    /// Whose it is.
    fn agent(&self) -> AgentKind;

    /// Finds the session files below a home.
    fn find(&self, home: &Path, files: &mut Files);

    /// Takes one more line of a file. `dir` is the name of the project's directory, `number` the line's, from 0, and
    /// `offset` where it begins.
    fn add(&self, to: &mut Summary, dir: &str, number: u64, offset: u64, line: &[u8]);

    /// Everything new was added.
    fn finish(&self, _to: &mut Summary) {}

    /// Tell lines of this type a reader nothing?
    fn is_housekeeping(&self, _kind: &str) -> bool {
        false
    }

    /// How the lines of a file become events. What is read of other files is added to `counter`, in bytes.
    fn told<'c>(&self, file: &Path, counter: &'c AtomicU64) -> Told<'c>;

    /// The directory that a session worked in, as far as it is known.
    fn path(&self, _home: &Path, _dir: &str, summary: &Summary) -> Option<String> {
        summary.cwd.clone()
    }

    /// The id of its project. `dir` is the agent's name of it, `path` what [`Format::path`] gave.
    fn project(&self, dir: String, _path: &str) -> String {
        dir
    }

    /// Adds what is not in its file.
    fn complete(&self, _home: &Path, _session: &mut Session) {}

    /// May a session that goes on get a file of another name?
    fn moves(&self) -> bool {
        false
    }

    /// The sessions that a process of the agent has open, as far as they can be told.
    fn live(&self, home: &Path) -> Vec<LiveSession>;

    /// Was the file written to so recently that somebody may be at it? For agents that leave no other trace.
    fn is_recent(&self, _file: &Path) -> bool {
        false
    }

    /// Lets the agent's program remove a session. What it leaves is removed afterwards.
    fn delete_by_itself(&self, _program: Option<&Path>, _home: &Path, _id: &str) {}

    /// What lies beside a session's own files and goes with it, below the home.
    fn beside(&self, home: &Path, id: &str, files: &[FileRow]) -> Vec<String>;
}

/// How the lines of a file become events.
pub(crate) enum Told<'c> {
    /// Line by line; `lead`: the lines before a page have to be known.
    Lines {
        /// Who tells them.
        teller: Box<dyn Teller + 'c>,
        /// Must lines before a page be told to it too?
        lead: bool,
    },
    /// The messages that stand ([`Summary::journal`]), wherever their lines are: the events of a line's message at a
    /// place.
    Messages(fn(&Value, Option<usize>) -> Option<Said>),
}

/// Tells lines one after the other.
pub(crate) trait Teller {
    /// The events of the line of that number, each with its time.
    fn tell(&mut self, number: u64, line: &Value) -> Vec<(Option<String>, Event)>;
}
