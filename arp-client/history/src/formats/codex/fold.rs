//! Codex's lines: `sessions/Y/M/D/rollout-….jsonl`, and older versions of them.

use crate::clock;
use crate::summary::{Summary, parse};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Meta {
    id: Option<String>,
    cwd: Option<String>,
    source: Option<Value>,
    git: Option<Git>,
    timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Git {
    branch: Option<String>,
}

#[derive(Deserialize)]
struct Turn {
    model: Option<String>,
    cwd: Option<String>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    duration_ms: Option<u64>,
    #[serde(borrow)]
    item: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

pub(super) fn add(to: &mut Summary, line: &[u8]) {
    let mut mended = String::new();
    let Some(head) = parse::<Head<'_>>(line, &mut mended) else {
        return;
    };
    let at = head.timestamp.as_deref().and_then(clock::parse);
    to.seen_at(at);
    let Some(payload) = head.payload.map(RawValue::get) else {
        return;
    };
    match head.kind.as_ref() {
        "session_meta" if !to.has_meta => add_meta(to, payload),
        "turn_context" => {
            if let Ok(turn) = serde_json::from_str::<Turn>(payload) {
                to.model = turn.model.or(to.model.take());
                to.cwd = to.cwd.take().or(turn.cwd);
            }
        }
        "event_msg" => add_event(to, payload, at),
        _ => {}
    }
}

fn add_meta(to: &mut Summary, payload: &str) {
    let Ok(meta) = serde_json::from_str::<Meta>(payload) else {
        return;
    };
    to.has_meta = true;
    to.id = meta.id;
    to.cwd = meta.cwd;
    to.git_branch = meta.git.and_then(|g| g.branch);
    // A plain word names where a user started it; an object says which agent did.
    to.sub_agent = meta.source.is_some_and(|s| s.get("subagent").is_some());
    to.seen_at(meta.timestamp.as_deref().and_then(clock::parse));
}

fn add_event(to: &mut Summary, payload: &str, at: Option<i64>) {
    let Ok(event) = serde_json::from_str::<Message<'_>>(payload) else {
        return;
    };
    match event.kind.as_deref() {
        Some("item_completed") => {
            let Some(item) = event
                .item
                .and_then(|i| serde_json::from_str::<Item<'_>>(i.get()).ok())
            else {
                return;
            };
            match item.kind.as_str() {
                "UserMessage" => to.prompt(&text_of(item.content), at),
                "AgentMessage" => to.messages += 1,
                _ => {}
            }
        }
        // Before item_completed there were these.
        Some("user_message") => {
            let text = event
                .message
                .and_then(|m| serde_json::from_str::<String>(m.get()).ok());
            to.prompt(&text.unwrap_or_default(), at);
        }
        Some("agent_message") => to.messages += 1,
        Some("task_complete" | "turn_aborted") => {
            if let Some(ms) = event.duration_ms {
                to.duration_ms = Some(to.duration_ms.unwrap_or(0).saturating_add(ms));
            }
        }
        _ => {}
    }
}

fn text_of(content: Option<&RawValue>) -> String {
    let parts: Vec<Part> = content
        .and_then(|c| serde_json::from_str(c.get()).ok())
        .unwrap_or_default();
    let texts: Vec<_> = parts.into_iter().filter_map(|p| p.text).collect();
    texts.join("\n")
}

/// The id in a file's name: `rollout-2026-11-20T18-04-40-<uuid>.jsonl`.
pub(crate) fn id_of_file(name: &str) -> Option<&str> {
    let stem = name.strip_prefix("rollout-")?.strip_suffix(".jsonl")?;
    let id = stem.get(stem.len().checked_sub(36)?..)?;
    let is_uuid = id.bytes().enumerate().all(|(at, b)| match at {
        8 | 13 | 18 | 23 => b == b'-',
        _ => b.is_ascii_hexdigit(),
    });
    is_uuid.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::codex::Codex;
    use crate::lines::Line;

    fn fold(lines: &[&str]) -> Summary {
        let mut summary = Summary::default();
        for (number, line) in lines.iter().enumerate() {
            let line = Line {
                offset: 0,
                len: line.len() as u64,
                bytes: Some(line.as_bytes()),
            };
            summary.add(&Codex::default(), "", number as u64, &line);
        }
        summary
    }

    #[test]
    fn a_rollout_is_summed_up() {
        let summary = fold(&[
            r#"{"timestamp":"2026-11-20T18:04:40.833Z","type":"session_meta","payload":{"id":"a","cwd":"/p","source":"exec","git":{"branch":"main"}}}"#,
            r#"{"type":"session_meta","payload":{"id":"original","cwd":"/other"}}"#,
            r#"{"type":"turn_context","payload":{"model":"gpt-5.5","cwd":"/later"}}"#,
            r#"{"type":"response_item","payload":{"type":"message","role":"user","content":[{"text":"<environment_context>"}]}}"#,
            r#"{"type":"event_msg","payload":{"type":"item_completed","item":{"type":"UserMessage","content":[{"type":"text","text":"hello"}]}}}"#,
            r#"{"type":"event_msg","payload":{"type":"item_completed","item":{"type":"AgentMessage","content":[{"type":"Text","text":"hi"}]}}}"#,
            r#"{"type":"event_msg","payload":{"type":"task_complete","duration_ms":100}}"#,
            r#"{"type":"event_msg","payload":{"type":"turn_aborted","duration_ms":11}}"#,
        ]);
        assert_eq!(
            (summary.id.as_deref(), summary.cwd.as_deref()),
            (Some("a"), Some("/p"))
        );
        assert_eq!((summary.messages, summary.title()), (2, Some("hello")));
        assert_eq!(
            (summary.duration_ms, summary.model.as_deref()),
            (Some(111), Some("gpt-5.5"))
        );
        assert_eq!(
            (summary.git_branch.as_deref(), summary.sub_agent),
            (Some("main"), false)
        );
    }

    #[test]
    fn older_rollouts_are_understood_and_sub_agents_known() {
        let summary = fold(&[
            r#"{"type":"session_meta","payload":{"id":"a","source":{"subagent":{"thread_spawn":{}}}}}"#,
            r#"{"type":"event_msg","payload":{"type":"user_message","message":"hello"}}"#,
            r#"{"type":"event_msg","payload":{"type":"agent_message","message":"hi"}}"#,
        ]);
        assert_eq!(
            (summary.messages, summary.title(), summary.sub_agent),
            (2, Some("hello"), true)
        );
    }

    #[test]
    fn the_id_is_read_from_the_file_name() {
        let id = "01a1fa21-c7a6-7af1-96d7-fbce3238070c";
        assert_eq!(
            id_of_file(&format!("rollout-2026-11-20T18-04-40-{id}.jsonl")),
            Some(id)
        );
        for bad in [
            "rollout-x.jsonl",
            "x.jsonl",
            "rollout-2026-11-20T18-04-40-01a1fa21.jsonl",
            "rollout-é.jsonl",
        ] {
            assert_eq!(id_of_file(bad), None);
        }
        let climbing = format!("rollout-{}.jsonl", "../".repeat(12));
        assert_eq!(id_of_file(&climbing), None);
    }
}
