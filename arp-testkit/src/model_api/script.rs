//! What to answer, independent of the API spoken.

use serde_json::{Map, Value, json};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Names of the CLIs' shell tools.
const SHELL_TOOLS: [&str; 5] = [
    "Bash",
    "exec_command",
    "shell_command",
    "shell",
    "run_shell_command",
];

/// What `run tool` runs when it is not told.
const DEFAULT_COMMAND: &str = "echo hello-from-tool";

/// How long `slow` takes when it is not told, in seconds.
const DEFAULT_SLOW_SECS: f64 = 20.0;

/// Longest echo of a prompt or a tool's result, in characters.
const MAX_ECHO_CHARS: usize = 200;

/// One answer of the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reply {
    /// Its text.
    pub text: String,
    /// Reasoning that goes before it.
    pub thinking: String,
    /// Tools that it calls: name and arguments.
    pub calls: Vec<(String, Value)>,
    /// An HTTP status in place of an answer, with `text` as the message.
    pub error: Option<u16>,
    /// The time over which the text is spread.
    pub spread: Duration,
    /// Stop halfway until released.
    pub hold: bool,
    /// Cut the connection halfway.
    pub cut: bool,
}

impl Reply {
    /// A text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// A call of one tool.
    #[must_use]
    pub fn call(tool: impl Into<String>, arguments: Value) -> Self {
        Self {
            text: "Calling a tool.".into(),
            calls: vec![(tool.into(), arguments)],
            ..Self::default()
        }
    }

    /// An error of the API.
    #[must_use]
    pub fn error(status: u16, message: impl Into<String>) -> Self {
        Self {
            error: Some(status),
            text: message.into(),
            ..Self::default()
        }
    }

    /// From the body of `/__fake/queue`: `{"text"}`, `{"tool", "args"}` or `{"status", "message"}`, each with
    /// `"thinking"` and `"delay"` in seconds where wanted.
    pub(super) fn from_json(spec: &Value) -> Self {
        let part = |key: &str| {
            spec.get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let mut reply = match (spec.get("status").and_then(Value::as_u64), spec.get("tool")) {
            (Some(status), _) if status != 200 => {
                Self::error(u16::try_from(status).unwrap_or(500), part("message"))
            }
            (_, Some(_)) => Self::call(
                part("tool"),
                spec.get("args").cloned().unwrap_or_else(|| json!({})),
            ),
            _ => Self::text(part("text")),
        };
        reply.thinking = part("thinking");
        reply.spread = seconds(spec.get("delay").and_then(Value::as_f64).unwrap_or(0.0));
        reply
    }

    /// The text as a model streams it, a word at a time.
    pub(super) fn words(&self) -> Vec<&str> {
        self.text.split_inclusive(char::is_whitespace).collect()
    }

    /// The tokens that it is said to have cost.
    pub(super) fn tokens(&self) -> usize {
        self.words().len().max(1)
    }
}

/// What a request asks for, whatever API it came by.
#[derive(Debug, Default)]
pub(super) struct Ask {
    /// The newest text of the user.
    pub(super) prompt: String,
    /// The result of a tool, where that is the newest item.
    pub(super) tool_result: Option<String>,
    /// Names of the tools on offer.
    pub(super) tools: Vec<String>,
    /// The schema that the answer must fit (a CLI's own side call).
    pub(super) schema: Option<Value>,
}

/// Chooses answers; holds what outlives a request.
#[derive(Debug, Default)]
pub(super) struct Script {
    queue: VecDeque<Reply>,
    /// How often each prompt that asks for errors was seen.
    failures: HashMap<String, u64>,
}

impl Script {
    pub(super) fn push(&mut self, reply: Reply) {
        self.queue.push_back(reply);
    }

    pub(super) fn reply(&mut self, ask: &Ask) -> Reply {
        if let Some(schema) = &ask.schema {
            return Reply::text(example(schema).to_string());
        }
        if let Some(queued) = self.queue.pop_front() {
            return queued;
        }
        if let Some(result) = &ask.tool_result {
            return Reply::text(format!("Tool result: {}", cut(result.trim())));
        }
        let prompt = plain(&ask.prompt);
        self.failure(&prompt)
            .unwrap_or_else(|| by_prompt(&prompt, &ask.tools))
    }

    /// The rule `fake error STATUS [once|twice|N times] [MESSAGE]`.
    fn failure(&mut self, prompt: &str) -> Option<Reply> {
        let line = line_after(prompt, "fake error ")?;
        let (status, rest) = line.split_at_checked(3)?;
        let status: u16 = status.parse().ok()?;
        let (limit, message) = limit_of(rest.trim());
        let seen = self.failures.entry(prompt.to_owned()).or_insert(0);
        *seen += 1;
        match limit {
            Some(limit) if *seen > limit => Some(Reply::text(format!("recovered after {limit} errors"))),
            _ if message.is_empty() => Some(Reply::error(status, format!("fake error {status}"))),
            _ => Some(Reply::error(status, message)),
        }
    }
}

fn by_prompt(prompt: &str, tools: &[String]) -> Reply {
    if line_after(prompt, "fake drop").is_some() {
        return Reply {
            cut: true,
            ..Reply::text("this answer will be cut off in the middle of it")
        };
    }
    if line_after(prompt, "fake hold").is_some() {
        return Reply {
            hold: true,
            ..Reply::text("first half then second half")
        };
    }
    if let Some(reply) = line_after(prompt, "slow").and_then(slow) {
        return reply;
    }
    if let Some(text) = rest_after(prompt, "think ") {
        return Reply {
            thinking: "Let me think about that.".into(),
            ..Reply::text(text)
        };
    }
    let calls: Vec<(String, Value)> = prompt.lines().filter_map(call).collect();
    if !calls.is_empty() {
        return Reply {
            calls,
            ..Reply::text("Calling a tool.")
        };
    }
    if let Some(rest) = line_after(prompt, "run tool") {
        let command = rest
            .trim_start()
            .strip_prefix(':')
            .map(str::trim)
            .filter(|command| !command.is_empty());
        return Reply {
            calls: vec![shell(tools, command.unwrap_or(DEFAULT_COMMAND))],
            ..Reply::text("Running it.")
        };
    }
    match rest_after(prompt, "say ") {
        Some(text) => Reply::text(text),
        None => Reply::text(format!("You said: {}", cut(prompt))),
    }
}

/// The user's text without the `<tag>…</tag>` blocks that CLIs put around it.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        match tagged_len(from) {
            Some(length) => rest = &from[length..],
            None => {
                out.push('<');
                rest = &from[1..];
            }
        }
    }
    out.push_str(rest);
    out.trim().to_owned()
}

/// The length of the `<tag>…</tag>` that the text begins with.
fn tagged_len(text: &str) -> Option<usize> {
    let name_end = text.find('>')?;
    let name = &text[1..name_end];
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !is_name {
        return None;
    }
    let close = format!("</{name}>");
    let at = text.find(&close)?;
    Some(at + close.len())
}

/// The rest of the first line that begins with `word`.
fn line_after<'a>(prompt: &'a str, word: &str) -> Option<&'a str> {
    prompt.lines().find_map(|line| line.strip_prefix(word))
}

/// Everything after the first line's beginning `word`, further lines included.
fn rest_after<'a>(prompt: &'a str, word: &str) -> Option<&'a str> {
    let mut from = prompt;
    loop {
        if let Some(rest) = from.strip_prefix(word) {
            return Some(rest);
        }
        from = &from[from.find('\n')? + 1..];
    }
}

fn slow(rest: &str) -> Option<Reply> {
    let rest = rest.trim();
    let secs = if rest.is_empty() {
        DEFAULT_SLOW_SECS
    } else {
        rest.parse().ok()?
    };
    let count = ((secs * 2.0) as usize).max(2);
    let words: Vec<String> = (1..=count).map(|number| format!("word{number}")).collect();
    Some(Reply {
        spread: seconds(secs),
        ..Reply::text(words.join(" "))
    })
}

fn call(line: &str) -> Option<(String, Value)> {
    let (name, arguments) = line.strip_prefix("call ")?.split_once(' ')?;
    Some((name.to_owned(), serde_json::from_str(arguments).ok()?))
}

fn shell(tools: &[String], command: &str) -> (String, Value) {
    let name = SHELL_TOOLS
        .iter()
        .find(|name| tools.iter().any(|tool| tool == *name))
        .unwrap_or(&SHELL_TOOLS[0]);
    let arguments = match *name {
        "exec_command" => json!({"cmd": command}),
        "shell" => json!({"command": ["bash", "-lc", command]}),
        "shell_command" => json!({"command": command}),
        _ => json!({"command": command, "description": "Run a command for the test"}),
    };
    ((*name).to_owned(), arguments)
}

/// How often an error comes, and the message after that.
fn limit_of(rest: &str) -> (Option<u64>, &str) {
    for (word, count) in [("once", 1), ("twice", 2)] {
        if let Some(message) = rest.strip_prefix(word) {
            return (Some(count), message.trim());
        }
    }
    if let Some((number, message)) = rest.split_once(" times")
        && let Ok(count) = number.parse()
    {
        return (Some(count), message.trim());
    }
    (None, rest)
}

/// A small value that fits a JSON schema, well enough for side calls.
fn example(schema: &Value) -> Value {
    if let Some(first) = schema
        .get("enum")
        .and_then(Value::as_array)
        .and_then(|values| values.first())
    {
        return first.clone();
    }
    let kind = schema.get("type").map(|kind| kind.get(0).unwrap_or(kind));
    match kind
        .and_then(Value::as_str)
        .unwrap_or("object")
        .to_lowercase()
        .as_str()
    {
        "object" => {
            let fields = schema
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten();
            Value::Object(
                fields
                    .map(|(name, field)| (name.clone(), example(field)))
                    .collect::<Map<_, _>>(),
            )
        }
        "array" => json!([]),
        "string" => json!("fake"),
        "boolean" => json!(false),
        _ => json!(1),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_ECHO_CHARS).collect()
}

fn seconds(secs: f64) -> Duration {
    Duration::try_from_secs_f64(secs).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(prompt: &str) -> Reply {
        Script::default().reply(&Ask {
            prompt: prompt.into(),
            tools: vec!["exec_command".into()],
            ..Ask::default()
        })
    }

    #[test]
    fn the_prompt_decides() {
        assert_eq!(reply("say hello\nthere"), Reply::text("hello\nthere"));
        assert_eq!(reply("hi"), Reply::text("You said: hi"));
        assert_eq!(reply("think twice").thinking, "Let me think about that.");
        assert_eq!(
            reply("run tool: ls -l").calls,
            [("exec_command".into(), json!({"cmd": "ls -l"}))]
        );
        assert_eq!(
            reply("run tool").calls,
            [("exec_command".into(), json!({"cmd": DEFAULT_COMMAND}))]
        );
        assert_eq!(
            reply("call A {\"x\":1}\ncall B {}").calls,
            [("A".into(), json!({"x":1})), ("B".into(), json!({}))]
        );
        assert_eq!(
            reply("slow 2"),
            Reply {
                spread: Duration::from_secs(2),
                ..Reply::text("word1 word2 word3 word4")
            }
        );
        assert_eq!(reply("slow down"), Reply::text("You said: slow down"));
    }

    #[test]
    fn tags_that_a_cli_adds_are_not_the_users_words() {
        assert_eq!(
            plain("<system-reminder>\nsay no\n</system-reminder>\nsay yes"),
            "say yes"
        );
        assert_eq!(plain("a < b and <c> d"), "a < b and <c> d");
    }

    #[test]
    fn errors_come_as_often_as_asked() {
        let mut script = Script::default();
        let ask = Ask {
            prompt: "fake error 429 twice slow down".into(),
            ..Ask::default()
        };
        assert_eq!(script.reply(&ask), Reply::error(429, "slow down"));
        assert_eq!(script.reply(&ask), Reply::error(429, "slow down"));
        assert_eq!(script.reply(&ask), Reply::text("recovered after 2 errors"));
        assert_eq!(reply("fake error 400 nope"), Reply::error(400, "nope"));
        assert_eq!(reply("fake error 500"), Reply::error(500, "fake error 500"));
    }

    #[test]
    fn a_tool_result_ends_the_turn_and_the_queue_goes_first() {
        let mut script = Script::default();
        let ask = Ask {
            tool_result: Some(" ok\n".into()),
            ..Ask::default()
        };
        assert_eq!(script.reply(&ask), Reply::text("Tool result: ok"));
        script.push(Reply::text("queued"));
        assert_eq!(script.reply(&ask), Reply::text("queued"));
    }

    #[test]
    fn a_schema_gets_an_object_that_fits() {
        let schema = json!({"type":"object","properties":{"a":{"type":"STRING"},"b":{"enum":["x","y"]},"c":{"type":["integer"]}}});
        let ask = Ask {
            schema: Some(schema),
            ..Ask::default()
        };
        assert_eq!(
            Script::default().reply(&ask).text,
            r#"{"a":"fake","b":"x","c":1}"#
        );
    }
}
