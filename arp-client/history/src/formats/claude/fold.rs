//! Claude Code's lines: `projects/SLUG/ID.jsonl`.

use crate::clock;
use crate::json::short;
use crate::summary::{Summary, parse};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Summaries that wait for the line they name.
const MAX_WAITING: usize = 64;

/// What a line says at its top. The order of keys is not stable, so it is parsed whole; what is not named here
/// is skipped without being stored.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    uuid: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    cwd: Option<&'a RawValue>,
    #[serde(rename = "gitBranch", borrow)]
    git_branch: Option<&'a RawValue>,
    #[serde(rename = "isSidechain", borrow)]
    side_chain: Option<&'a RawValue>,
    #[serde(rename = "isMeta", borrow)]
    meta: Option<&'a RawValue>,
    #[serde(rename = "isCompactSummary", borrow)]
    compact: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(rename = "customTitle", borrow)]
    custom_title: Option<&'a RawValue>,
    #[serde(rename = "aiTitle", borrow)]
    ai_title: Option<&'a RawValue>,
    #[serde(borrow)]
    summary: Option<&'a RawValue>,
    #[serde(rename = "leafUuid", borrow)]
    leaf: Option<&'a RawValue>,
    #[serde(rename = "lastPrompt", borrow)]
    last_prompt: Option<&'a RawValue>,
    #[serde(rename = "totalDuration", borrow)]
    total_duration: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Said<'a> {
    id: Option<String>,
    model: Option<String>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
}

pub(super) fn add(to: &mut Summary, dir: &str, line: &[u8]) {
    let mut mended = String::new();
    let Some(head) = parse::<Head<'_>>(line, &mut mended) else {
        return;
    };
    let at = string(head.timestamp).and_then(|t| clock::parse(&t));
    to.seen_at(at);
    if let Some(cwd) = string(head.cwd) {
        see_cwd(to, dir, cwd);
    }
    if is_true(head.side_chain) {
        return;
    }
    if let Some(uuid) = string(head.uuid) {
        set(&mut to.headline, to.headlines.remove(&uuid));
        to.last_uuid = Some(uuid);
    }
    match head.kind.as_ref() {
        "user" if !is_true(head.meta) && !is_true(head.compact) => {
            if let Some(text) = head.message.and_then(prompt_of) {
                to.prompt(&text, at);
                set(&mut to.git_branch, string(head.git_branch));
            }
        }
        "assistant" => add_answer(to, head.message),
        "custom-title" => set(&mut to.name, title(head.custom_title)),
        "ai-title" => set(&mut to.headline, title(head.ai_title)),
        "summary" => add_summary(to, string(head.leaf), title(head.summary)),
        "last-prompt" => set(&mut to.last_prompt, title(head.last_prompt)),
        "cost-state" => set(
            &mut to.duration_ms,
            head.total_duration.and_then(|v| number(v.get())),
        ),
        _ => {}
    }
}

/// The directory that a session belongs to: the first one it tells, unless a later one is what the project's
/// directory is named for (a copy of a session that was made elsewhere begins with the other's lines).
fn see_cwd(to: &mut Summary, dir: &str, cwd: String) {
    match &to.cwd {
        Some(known) if *known == cwd || slug(known) == dir => {}
        Some(_) if slug(&cwd) != dir => {}
        _ => to.cwd = Some(cwd),
    }
}

/// A summary names the last line of what it sums up. Older versions wrote those of other sessions into a new file
/// too: one counts only when its line is in this file.
fn add_summary(to: &mut Summary, leaf: Option<String>, text: Option<String>) {
    let (Some(leaf), Some(text)) = (leaf, text) else {
        return;
    };
    if to.last_uuid.as_ref() == Some(&leaf) {
        to.headline = Some(text);
    } else if to.headlines.len() < MAX_WAITING {
        to.headlines.insert(leaf, text);
    }
}

fn add_answer(to: &mut Summary, message: Option<&RawValue>) {
    let Some(said) = message.and_then(|m| serde_json::from_str::<Said<'_>>(m.get()).ok()) else {
        return;
    };
    if said.id.is_none() || said.id != to.last_answer {
        to.messages += 1;
        to.last_answer = said.id;
    }
    if said.model.as_deref() != Some("<synthetic>") {
        set(&mut to.model, said.model);
    }
}

/// The prompt in a `user` line's message; `None` for results of tools and what the agent put there itself.
fn prompt_of(message: &RawValue) -> Option<String> {
    let said: Said<'_> = serde_json::from_str(message.get()).ok()?;
    let content = said.content?.get();
    let text = if content.starts_with('"') {
        serde_json::from_str::<String>(content).ok()?
    } else {
        let blocks: Vec<Block> = serde_json::from_str(content).ok()?;
        if blocks.iter().any(|b| b.kind.as_deref() == Some("tool_result")) {
            return None;
        }
        let texts: Vec<_> = blocks.into_iter().filter_map(|b| b.text).collect();
        texts.join("\n")
    };
    match UserText::of(&text) {
        UserText::Prompt(text) | UserText::Command(text) => Some(text),
        UserText::Interrupted | UserText::Machine => None,
    }
}

/// What the text of a `user` line is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UserText {
    /// Somebody said it.
    Prompt(String),
    /// Somebody typed a slash command or a `!` command; as it was typed.
    Command(String),
    /// The note that a turn was interrupted.
    Interrupted,
    /// Put there by the agent: output of a command, a reminder.
    Machine,
}

impl UserText {
    pub(crate) fn of(text: &str) -> Self {
        let trimmed = text.trim();
        if trimmed.starts_with("[Request interrupted by user") {
            return Self::Interrupted;
        }
        if let Some(command) = tagged(trimmed, "command-name") {
            let args = tagged(trimmed, "command-args").unwrap_or_default();
            return Self::Command(format!("{command} {args}").trim().to_owned());
        }
        if let Some(command) = tagged(trimmed, "bash-input") {
            return Self::Command(format!("! {command}"));
        }
        let machine = [
            "<local-command-",
            "<bash-stdout>",
            "<bash-stderr>",
            "<system-reminder>",
            "<task-notification>",
            "Caveat: The messages below were generated by the user while running local commands",
        ];
        if machine.iter().any(|begin| trimmed.starts_with(begin)) {
            return Self::Machine;
        }
        Self::Prompt(text.to_owned())
    }
}

/// The text between `<tag>` and `</tag>`, if the whole begins with a command's tags.
fn tagged<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    if !text.starts_with("<command-") && !text.starts_with("<bash-input>") {
        return None;
    }
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    let (inside, _) = rest.split_once(&format!("</{tag}>"))?;
    Some(inside.trim())
}

/// The name of a project's directory: every character of the path outside of `[A-Za-z0-9]` is `-`.
pub(crate) fn slug(path: &str) -> String {
    path.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect()
}

fn string(value: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(value?.get()).ok()
}

fn title(value: Option<&RawValue>) -> Option<String> {
    string(value).map(|t| short(&t)).filter(|t| !t.is_empty())
}

fn number(text: &str) -> Option<u64> {
    // Written as a whole number, but JavaScript may as well write 454.0 or 4.5e2.
    let value: f64 = text.parse().ok()?;
    (value.is_finite() && (0.0..1e15).contains(&value)).then_some(value as u64)
}

fn is_true(value: Option<&RawValue>) -> bool {
    value.is_some_and(|v| v.get() == "true")
}

fn set<T>(to: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *to = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::claude::Claude;
    use crate::lines::Line;

    fn fold(dir: &str, lines: &[&str]) -> Summary {
        let mut summary = Summary::default();
        for (number, line) in lines.iter().enumerate() {
            let line = Line {
                offset: 0,
                len: line.len() as u64,
                bytes: Some(line.as_bytes()),
            };
            summary.add(&Claude, dir, number as u64, &line);
        }
        summary
    }

    #[test]
    fn prompts_and_answers_are_counted_once_each() {
        let summary = fold(
            "-p",
            &[
                r#"{"type":"user","message":{"role":"user","content":"do it"},"timestamp":"2026-11-20T10:00:00.000Z","cwd":"/p"}"#,
                r#"{"message":{"id":"m1","content":[{"type":"thinking"}],"model":"opus"},"type":"assistant"}"#,
                r#"{"type":"assistant","message":{"id":"m1","content":[{"type":"tool_use"}],"model":"opus"}}"#,
                r#"{"type":"user","message":{"content":[{"type":"tool_result","content":"x"}]}}"#,
                r#"{"type":"assistant","message":{"id":"m2","content":[{"type":"text"}],"model":"<synthetic>"}}"#,
                r#"{"type":"user","isMeta":true,"message":{"content":"not said"}}"#,
                r#"{"type":"user","isSidechain":true,"message":{"content":"to a sub-agent"}}"#,
                r#"{"type":"user","message":{"content":[{"type":"text","text":"and"},{"type":"image"},{"type":"text","text":"that"}]}}"#,
                r#"{"type":"cost-state","totalDuration":836}"#,
            ],
        );
        assert_eq!(
            (summary.messages, summary.first_prompt.as_deref()),
            (4, Some("do it"))
        );
        assert_eq!(
            (summary.model.as_deref(), summary.duration_ms),
            (Some("opus"), Some(836))
        );
        assert_eq!(
            (summary.cwd.as_deref(), summary.first_prompt_at),
            (Some("/p"), Some(1_795_168_800_000))
        );
    }

    #[test]
    fn the_title_is_what_the_user_called_it_last() {
        let first = r#"{"type":"user","message":{"content":"first words"}}"#;
        let last = r#"{"type":"last-prompt","lastPrompt":"last words"}"#;
        assert_eq!(fold("", &[first, last]).title(), Some("first words"));
        assert_eq!(fold("", &[last]).title(), Some("last words"));
        let written = r#"{"type":"ai-title","aiTitle":"Agent's words"}"#;
        let custom = |t: &str| format!(r#"{{"type":"custom-title","customTitle":"{t}"}}"#);
        let lines = [first, written, &custom("one"), &custom("two"), last];
        assert_eq!(fold("", &lines).title(), Some("two"));
        assert_eq!(fold("", &lines[..2]).title(), Some("Agent's words"));
    }

    #[test]
    fn a_summary_of_another_session_is_no_title() {
        let line = |uuid: &str| {
            format!(r#"{{"type":"user","uuid":"{uuid}","message":{{"content":"first words"}}}}"#)
        };
        let summary =
            |leaf: &str| format!(r#"{{"type":"summary","summary":"Sum of {leaf}","leafUuid":"{leaf}"}}"#);
        let (a, b) = (line("a"), line("b"));
        assert_eq!(fold("", &[&summary("x"), &a]).title(), Some("first words"));
        assert_eq!(
            fold("", &[&summary("x"), &summary("b"), &a, &b]).title(),
            Some("Sum of b")
        );
        assert_eq!(fold("", &[&a, &b, &summary("b")]).title(), Some("Sum of b"));
    }

    #[test]
    fn what_the_machine_wrote_is_no_prompt() {
        let prompt = |text: &str| UserText::of(text);
        assert_eq!(prompt("hi"), UserText::Prompt("hi".into()));
        let command = "<command-message>x</command-message>\n<command-name>/review</command-name>\n<command-args>12</command-args>";
        assert_eq!(prompt(command), UserText::Command("/review 12".into()));
        assert_eq!(
            prompt("<bash-input>ls</bash-input>"),
            UserText::Command("! ls".into())
        );
        assert_eq!(
            prompt("[Request interrupted by user for tool use]"),
            UserText::Interrupted
        );
        assert_eq!(
            prompt("<local-command-stdout>x</local-command-stdout>"),
            UserText::Machine
        );
        // Tags that somebody writes about are still a prompt.
        let about = "what is <command-name>x</command-name>?";
        assert_eq!(prompt(about), UserText::Prompt(about.into()));
    }

    #[test]
    fn a_session_belongs_to_the_directory_it_lies_in() {
        let user = |cwd: &str| format!(r#"{{"type":"user","message":{{"content":"x"}},"cwd":"{cwd}"}}"#);
        let cwd = |dir: &str, lines: &[&str]| fold(dir, lines).cwd;
        // Resumed elsewhere.
        assert_eq!(cwd("-a-b", &[&user("/a.b"), &user("/else")]), Some("/a.b".into()));
        // Copied from elsewhere.
        assert_eq!(
            cwd("-new", &[&user("/old"), &user("/new"), &user("/old")]),
            Some("/new".into())
        );
        assert_eq!(slug("/home/dev/projects/my.app_1"), "-home-dev-projects-my-app-1");
    }

    #[test]
    fn lines_that_do_not_fit_change_nothing() {
        let odd = [
            "",
            "null",
            "[]",
            "{",
            r#"{"type":5}"#,
            r#"{"type":"user"}"#,
            r#"{"type":"user","message":7}"#,
            r#"{"type":"assistant","message":[]}"#,
            r#"{"type":"custom-title","customTitle":{}}"#,
            r#"{"type":"cost-state","totalDuration":-1}"#,
            r#"{"type":"user","timestamp":{},"cwd":[]}"#,
            r#"{"type":"user","message":{"content":{"a":1}}}"#,
        ];
        assert_eq!(fold("", &odd), Summary::default());
    }
}
