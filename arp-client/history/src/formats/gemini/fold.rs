//! Gemini's lines: `tmp/SLUG/chats/session-….jsonl`, a journal to be replayed: lines replace and take back what
//! earlier ones said.

use crate::clock;
use crate::defaults::MAX_MESSAGES;
use crate::json::short;
use crate::summary::{Summary, parse};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::HashMap;

/// The messages that stand, in order. Stored as their list alone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Journal {
    list: Vec<Message>,
    /// Where each id is in the list; made again when the journal was stored in between.
    #[serde(skip)]
    places: HashMap<String, usize>,
}

impl PartialEq for Journal {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Journal {
    pub(crate) fn list(&self) -> &[Message] {
        &self.list
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// A message again replaces the one of the same id, in its place.
    fn put(&mut self, message: Message) {
        self.know_places();
        match self.places.get(&message.id) {
            Some(at) => self.list[*at] = message,
            None if self.list.len() < MAX_MESSAGES => {
                self.places.insert(message.id.clone(), self.list.len());
                self.list.push(message);
            }
            None => {}
        }
    }

    /// Takes back a message and all after it. As the CLI does it: an id that is not there takes everything back.
    fn rewind(&mut self, id: &str) {
        self.know_places();
        let keep = self.places.get(id).copied().unwrap_or(0);
        for message in self.list.drain(keep..) {
            self.places.remove(&message.id);
        }
    }

    fn know_places(&mut self) {
        if self.places.len() != self.list.len() {
            let place = |(at, message): (usize, &Message)| (message.id.clone(), at);
            self.places = self.list.iter().enumerate().map(place).collect();
        }
    }
}

/// A message that stands, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) id: String,
    /// The line that holds it: number and offset.
    pub(crate) line: u64,
    pub(crate) offset: u64,
    /// Its place in the line's `$set.messages`; `None` when it is the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) place: Option<usize>,
    /// When, in milliseconds since 1970.
    pub(crate) at: Option<i64>,
    pub(crate) role: Role,
    /// The beginning of the first prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt: Option<String>,
}

/// Who a message is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// The user said it.
    Prompt,
    /// The model said it.
    Answer,
    /// Results of tools, context that the CLI put in, notes.
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(rename = "$set", borrow)]
    set: Option<&'a RawValue>,
    #[serde(rename = "$rewindTo")]
    rewind_to: Option<String>,
    session_id: Option<String>,
    start_time: Option<String>,
    last_updated: Option<String>,
    kind: Option<String>,
    summary: Option<String>,
    #[serde(borrow)]
    messages: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    timestamp: Option<String>,
    model: Option<String>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

pub(super) fn add(to: &mut Summary, number: u64, offset: u64, line: &[u8]) {
    let mut mended = String::new();
    let Some(record) = parse::<Record<'_>>(line, &mut mended) else {
        return;
    };
    if let Some(id) = &record.rewind_to {
        to.journal.rewind(id);
        return;
    }
    let inner = record
        .set
        .and_then(|set| serde_json::from_str::<Record<'_>>(set.get()).ok());
    if let Some(set) = inner {
        return add_set(to, set, number, offset);
    }
    let mut mended = String::new();
    if let Some(entry) = parse::<Entry<'_>>(line, &mut mended)
        && let Some(message) = message(to, entry, number, offset, None)
    {
        return to.journal.put(message);
    }
    add_set(to, record, number, offset);
}

/// Metadata, and a list of messages that takes the place of all before it.
fn add_set(to: &mut Summary, set: Record<'_>, number: u64, offset: u64) {
    to.id = set.session_id.or(to.id.take());
    to.headline = set
        .summary
        .map(|s| short(&s))
        .filter(|s| !s.is_empty())
        .or(to.headline.take());
    to.sub_agent = set.kind.map_or(to.sub_agent, |kind| kind == "subagent");
    for time in [set.start_time, set.last_updated].into_iter().flatten() {
        to.seen_at(clock::parse(&time));
    }
    if let Some(messages) = set.messages {
        let mut journal = Journal::default();
        for (place, raw) in messages.into_iter().enumerate() {
            if let Ok(entry) = serde_json::from_str::<Entry<'_>>(raw.get())
                && let Some(message) = message(to, entry, number, offset, Some(place))
            {
                journal.put(message);
            }
        }
        to.journal = journal;
    }
}

fn message(
    to: &mut Summary,
    entry: Entry<'_>,
    line: u64,
    offset: u64,
    place: Option<usize>,
) -> Option<Message> {
    let (id, kind) = (entry.id?, entry.kind?);
    let at = entry.timestamp.as_deref().and_then(clock::parse);
    to.seen_at(at);
    let prompt = if kind == "user" {
        entry.content.and_then(prompt_of)
    } else {
        None
    };
    let role = match (kind.as_str(), &prompt) {
        ("user", Some(_)) => Role::Prompt,
        ("gemini", _) => Role::Answer,
        _ => Role::Other,
    };
    if entry.model.is_some() {
        to.model = entry.model;
    }
    Some(Message {
        id,
        line,
        offset,
        place,
        at,
        role,
        prompt: prompt.map(|p| short(&p)),
    })
}

/// The prompt in a `user` message; `None` for results of tools and the context that the CLI puts first.
pub(crate) fn prompt_of(content: &RawValue) -> Option<String> {
    let text = if content.get().starts_with('"') {
        serde_json::from_str::<String>(content.get()).ok()?
    } else {
        let parts: Vec<Part> = serde_json::from_str(content.get()).ok()?;
        let texts: Vec<_> = parts.into_iter().filter_map(|p| p.text).collect();
        texts.concat()
    };
    (!text.trim().is_empty() && !text.trim_start().starts_with("<session_context>")).then_some(text)
}

/// The message in a line: the line itself, or the one at a place of its `$set.messages`.
pub(crate) fn message_in(line: &serde_json::Value, place: Option<usize>) -> Option<&serde_json::Value> {
    match place {
        None => Some(line),
        Some(place) => line
            .pointer("/$set/messages")
            .or_else(|| line.get("messages"))?
            .get(place),
    }
}

/// Sums up the messages that stand.
pub(super) fn finish(to: &mut Summary) {
    let list = &mut to.journal.list;
    to.messages = list.iter().filter(|m| m.role != Role::Other).count() as u64;
    let mut prompts = list.iter_mut().filter(|m| m.role == Role::Prompt);
    let first = prompts.next();
    to.first_prompt_at = first.as_ref().and_then(|m| m.at);
    to.first_prompt = first.and_then(|m| m.prompt.clone());
    // Only the first is shown; the others' texts are not kept.
    prompts.for_each(|m| m.prompt = None);
    to.duration_ms = duration(list);
}

/// Time from each prompt to the last message before the next one. The CLI does not write it down.
fn duration(list: &[Message]) -> Option<u64> {
    let (mut total, mut begun, mut last) = (None, None, None);
    for message in list {
        if message.role == Role::Prompt {
            total = add_turn(total, begun, last);
            (begun, last) = (message.at, None);
        } else if message.at.is_some() {
            last = message.at;
        }
    }
    add_turn(total, begun, last)
}

fn add_turn(total: Option<u64>, begun: Option<i64>, last: Option<i64>) -> Option<u64> {
    match (begun, last) {
        (Some(begun), Some(last)) => Some(
            total
                .unwrap_or(0)
                .saturating_add(u64::try_from(last.saturating_sub(begun)).unwrap_or(0)),
        ),
        _ => total,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::gemini::Gemini;
    use crate::lines::Line;

    fn fold(lines: &[&str]) -> Summary {
        let mut summary = Summary::default();
        for (number, line) in lines.iter().enumerate() {
            let line = Line {
                offset: number as u64 * 100,
                len: line.len() as u64,
                bytes: Some(line.as_bytes()),
            };
            summary.add(&Gemini, "", number as u64, &line);
        }
        finish(&mut summary);
        summary
    }

    fn ids(summary: &Summary) -> Vec<&str> {
        summary.journal.list.iter().map(|m| m.id.as_str()).collect()
    }

    const HEADER: &str =
        r#"{"sessionId":"s","projectHash":"h","startTime":"2026-11-20T18:04:43.684Z","kind":"main"}"#;
    const CONTEXT: &str =
        r#"{"$set":{"messages":[{"id":"c","type":"user","content":[{"text":"<session_context>\nx"}]}]}}"#;
    const A: &str =
        r#"{"id":"a","timestamp":"2026-11-20T18:04:45.000Z","type":"user","content":[{"text":"first"}]}"#;
    const B: &str =
        r#"{"id":"b","timestamp":"2026-11-20T18:04:46.500Z","type":"gemini","content":"hi","model":"m"}"#;

    #[test]
    fn messages_are_replayed() {
        let summary = fold(&[HEADER, CONTEXT, A, B]);
        assert_eq!((ids(&summary), summary.messages), (vec!["c", "a", "b"], 2));
        assert_eq!(
            (summary.title(), summary.duration_ms),
            (Some("first"), Some(1_500))
        );
        assert_eq!(
            (summary.id.as_deref(), summary.model.as_deref()),
            (Some("s"), Some("m"))
        );
    }

    #[test]
    fn the_same_id_replaces_in_place() {
        let again = r#"{"id":"a","type":"user","content":"second thought"}"#;
        let summary = fold(&[HEADER, CONTEXT, A, B, again]);
        assert_eq!(
            (ids(&summary), summary.title()),
            (vec!["c", "a", "b"], Some("second thought"))
        );
        assert_eq!(summary.journal.list[1].line, 4);
    }

    #[test]
    fn a_list_replaces_everything_and_a_rewind_takes_back() {
        let list = r#"{"$set":{"messages":[{"id":"a","type":"user","content":[{"text":"kept"}]},{"id":"n","type":"gemini","content":""}],"summary":"Title"}}"#;
        let summary = fold(&[HEADER, CONTEXT, A, B, list]);
        assert_eq!((ids(&summary), summary.title()), (vec!["a", "n"], Some("Title")));
        assert_eq!(
            (
                summary.journal.list[1].line,
                summary.journal.list[1].offset,
                summary.journal.list[1].place
            ),
            (4, 400, Some(1))
        );
        let summary = fold(&[HEADER, CONTEXT, A, B, r#"{"$rewindTo":"a"}"#]);
        assert_eq!(
            (ids(&summary), summary.messages, summary.title()),
            (vec!["c"], 0, None)
        );
        assert_eq!(
            ids(&fold(&[HEADER, A, B, r#"{"$rewindTo":"unknown"}"#])),
            Vec::<&str>::new()
        );
    }

    #[test]
    fn results_of_tools_and_a_stub_are_no_messages() {
        let result = r#"{"id":"r","type":"user","content":[{"functionResponse":{"id":"x"}}]}"#;
        assert_eq!(fold(&[HEADER, CONTEXT, A, result]).messages, 1);
        let stub = fold(&[HEADER, CONTEXT]);
        assert_eq!(
            (stub.messages, stub.title(), stub.id.as_deref()),
            (0, None, Some("s"))
        );
    }

    #[test]
    fn lines_that_do_not_fit_change_nothing() {
        let odd = [
            "",
            "7",
            "[]",
            "{",
            r#"{"$set":5}"#,
            r#"{"$set":{"messages":7}}"#,
            r#"{"$rewindTo":{}}"#,
            r#"{"id":1}"#,
        ];
        assert_eq!(fold(&odd), Summary::default());
    }
}
