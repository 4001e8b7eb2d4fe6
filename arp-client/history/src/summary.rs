//! What a listing needs to know of a session file: it is folded, line by line, into a [`Summary`] that can be stored
//! and gone on with when the file grows.

use crate::format::Format;
use crate::formats::gemini;
use crate::json::short;
use crate::lines::Line;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What is known of a session file so far. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Summary {
    /// The agent's id of the session, where the file's lines tell it.
    pub(crate) id: Option<String>,
    /// The directory it was started in.
    pub(crate) cwd: Option<String>,
    /// The title that the user gave.
    pub(crate) name: Option<String>,
    /// The title that the agent wrote.
    pub(crate) headline: Option<String>,
    /// Beginning of the first prompt.
    pub(crate) first_prompt: Option<String>,
    /// When it was given.
    pub(crate) first_prompt_at: Option<i64>,
    /// Beginning of the last prompt, where the agent notes it apart.
    pub(crate) last_prompt: Option<String>,
    /// First and last time on any line.
    pub(crate) created_at: Option<i64>,
    pub(crate) updated_at: Option<i64>,
    /// Prompts and answers.
    pub(crate) messages: u64,
    /// Time spent in turns, in milliseconds.
    pub(crate) duration_ms: Option<u64>,
    /// The model of the last answer.
    pub(crate) model: Option<String>,
    pub(crate) git_branch: Option<String>,
    /// A sub-agent's own file: not a session to be listed.
    pub(crate) sub_agent: bool,
    /// Claude: id of the answer that was counted last (an answer has a line for each block).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_answer: Option<String>,
    /// Claude: summaries by the line they name, as long as it was not seen, and the line seen last.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headlines: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_uuid: Option<String>,
    /// Codex: the first `session_meta` was seen (a copy repeats that of its original).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) has_meta: bool,
    /// Gemini: the messages that stand, in order.
    #[serde(skip_serializing_if = "gemini::Journal::is_empty")]
    pub(crate) journal: gemini::Journal,
}

impl Summary {
    /// Takes one more line. `dir` is the name of the project's directory, `number` the line's, from 0.
    pub(crate) fn add(&mut self, format: &dyn Format, dir: &str, number: u64, line: &Line<'_>) {
        // A line that is too long to be held is too long to mean anything here, save for a Gemini session,
        // whose next `$set` makes up for it.
        let Some(bytes) = line.bytes else { return };
        format.add(self, dir, number, line.offset, bytes);
    }

    /// The title for a list: what the user called it, the first prompt, what the agent called it.
    pub(crate) fn title(&self) -> Option<&str> {
        let choices = [&self.name, &self.headline, &self.first_prompt, &self.last_prompt];
        choices.into_iter().find_map(Option::as_deref)
    }

    /// A line of this time, in milliseconds since 1970.
    pub(crate) fn seen_at(&mut self, ms: Option<i64>) {
        let Some(ms) = ms else { return };
        self.created_at = Some(self.created_at.map_or(ms, |at| at.min(ms)));
        self.updated_at = Some(self.updated_at.map_or(ms, |at| at.max(ms)));
    }

    /// Somebody said this.
    pub(crate) fn prompt(&mut self, text: &str, ms: Option<i64>) {
        self.messages += 1;
        if self.first_prompt.is_none() {
            self.first_prompt = Some(short(text)).filter(|t| !t.is_empty());
            self.first_prompt_at = ms;
        }
    }
}

/// Is a line the agent's housekeeping, which tells a reader nothing? Lines that do not say what they are are not.
pub(crate) fn is_housekeeping(format: &dyn Format, line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
    }
    let mut mended = String::new();
    parse::<Kind<'_>>(line, &mut mended).is_some_and(|line| format.is_housekeeping(&line.kind))
}

/// Parses a line into a type, mending what is not UTF-8; `None` for anything that does not fit.
pub(crate) fn parse<'a, T: Deserialize<'a>>(line: &'a [u8], mended: &'a mut String) -> Option<T> {
    match crate::json::text(line) {
        Cow::Borrowed(text) => serde_json::from_str(text).ok(),
        Cow::Owned(text) => {
            *mended = text;
            serde_json::from_str(mended).ok()
        }
    }
}
