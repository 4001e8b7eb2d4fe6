//! Claude Code's lines as events.

use super::fold::UserText;
use crate::events::{Said, list_at, str_at, string_at, text_of, time_of};
use arp_agents::claude::tool_card;
use arp_agents::event::{Event, PlanEntry, PlanStatus, TurnStatus, Usage};
use serde_json::Value;

/// A line's events. `parent` is the call that started the sub-agent, when the line is of a sub-agent's file.
pub(crate) fn events(line: &Value, parent: Option<&str>) -> Said {
    // Older versions kept a sub-agent's lines among the others, without saying whose they are.
    let side_chain = line.get("isSidechain").and_then(Value::as_bool) == Some(true);
    let parent = parent
        .or_else(|| str_at(line, "parentToolUseID"))
        .or(side_chain.then_some("sub-agent"));
    let events = match str_at(line, "type") {
        Some("user") => user(line, parent),
        Some("assistant") => assistant(line, parent),
        Some("system") => system(line),
        Some("cost-state") => vec![usage(line)],
        Some("summary" | "custom-title") | None => Vec::new(),
        // Housekeeping; new kinds are added often.
        Some(_) => Vec::new(),
    };
    (time_of(line), events)
}

fn user(line: &Value, parent: Option<&str>) -> Vec<Event> {
    let flag = |key: &str| line.get(key).and_then(Value::as_bool) == Some(true);
    let content = line.pointer("/message/content").unwrap_or(&Value::Null);
    let mut events = Vec::new();
    for block in content.as_array().into_iter().flatten() {
        if str_at(block, "type") == Some("tool_result") {
            events.push(result(block, parent));
        }
    }
    // What a sub-agent is told is in the call that started it.
    if !events.is_empty() || parent.is_some() || flag("isMeta") || flag("isCompactSummary") {
        return events;
    }
    match UserText::of(&text_of(content)) {
        UserText::Prompt(text) | UserText::Command(text) if !text.is_empty() => {
            events.push(Event::UserMessage {
                id: string_at(line, "uuid"),
                text,
            });
        }
        UserText::Interrupted => events.push(Event::TurnEnd {
            status: TurnStatus::Interrupted,
            message: None,
            duration_ms: None,
            api_status: None,
        }),
        _ => {}
    }
    events
}

fn result(block: &Value, parent: Option<&str>) -> Event {
    Event::ToolResult {
        id: string_at(block, "tool_use_id").unwrap_or_default(),
        output: text_of(block.get("content").unwrap_or(&Value::Null)),
        delta: false,
        is_error: block.get("is_error").and_then(Value::as_bool).unwrap_or(false),
        exit_code: None,
        parent: parent.map(str::to_owned),
    }
}

fn assistant(line: &Value, parent: Option<&str>) -> Vec<Event> {
    let said = line.get("message").unwrap_or(&Value::Null);
    if line.get("isApiErrorMessage").and_then(Value::as_bool) == Some(true) {
        let message = text_of(said.get("content").unwrap_or(&Value::Null));
        return vec![Event::Error {
            message,
            retrying: false,
        }];
    }
    // One line a block, so the line's own id is the block's; with several blocks each gets a place.
    let line_id = str_at(line, "uuid")
        .or_else(|| str_at(said, "id"))
        .unwrap_or_default();
    let parent = parent.map(str::to_owned);
    let mut events = Vec::new();
    for (place, block) in list_at(said, "content").iter().enumerate() {
        let id = if place == 0 {
            line_id.to_owned()
        } else {
            format!("{line_id}:{place}")
        };
        let text = |key: &str| string_at(block, key).filter(|text| !text.is_empty());
        match str_at(block, "type") {
            Some("text") => events.extend(text("text").map(|text| Event::Text {
                id,
                text,
                delta: false,
                parent: parent.clone(),
            })),
            Some("thinking") => events.extend(text("thinking").map(|text| Event::Thinking {
                id,
                text,
                delta: false,
                parent: parent.clone(),
            })),
            Some("tool_use") => call(block, parent.clone(), &mut events),
            // Nothing that could be shown.
            Some("redacted_thinking") | None => {}
            Some(_) => events.push(Event::Raw { data: block.clone() }),
        }
    }
    events
}

fn call(block: &Value, parent: Option<String>, events: &mut Vec<Event>) {
    let name = string_at(block, "name").unwrap_or_default();
    let input = block.get("input").cloned().unwrap_or_default();
    let card = tool_card(&name, &input);
    let plan = plan(&name, &input);
    events.push(Event::ToolCall {
        id: string_at(block, "id").unwrap_or_default(),
        name,
        kind: card.kind,
        title: card.title,
        input,
        changes: card.changes,
        parent,
    });
    events.extend(plan);
}

fn plan(name: &str, input: &Value) -> Option<Event> {
    if name != "TodoWrite" {
        return None;
    }
    let entry = |todo: &Value| PlanEntry {
        content: string_at(todo, "content").unwrap_or_default(),
        status: match str_at(todo, "status") {
            Some("completed") => PlanStatus::Completed,
            Some("in_progress") => PlanStatus::InProgress,
            _ => PlanStatus::Pending,
        },
    };
    Some(Event::Plan {
        entries: list_at(input, "todos").iter().map(entry).collect(),
    })
}

fn system(line: &Value) -> Vec<Event> {
    match str_at(line, "subtype") {
        Some("api_error") => {
            let error = line.get("error").unwrap_or(&Value::Null);
            let message = string_at(line, "content")
                .or_else(|| string_at(error, "message"))
                .or_else(|| error.as_str().map(str::to_owned))
                .or_else(|| {
                    error
                        .pointer("/error/message")
                        .and_then(Value::as_str)
                        .map(str::to_owned)
                })
                .unwrap_or_else(|| "The model API failed.".to_owned());
            let retrying = line.get("retryInMs").is_some_and(|ms| !ms.is_null());
            vec![Event::Error { message, retrying }]
        }
        Some("turn_duration") => vec![Event::TurnEnd {
            status: TurnStatus::Completed,
            message: None,
            duration_ms: line.get("durationMs").and_then(Value::as_u64),
            api_status: None,
        }],
        _ => Vec::new(),
    }
}

/// What the session has cost so far, all models together.
fn usage(line: &Value) -> Event {
    let models = line.get("modelUsage").and_then(Value::as_object);
    let sum = |keys: &[&str]| {
        let of = |model: &Value| {
            keys.iter()
                .filter_map(|key| model.get(key)?.as_u64())
                .sum::<u64>()
        };
        models.map(|models| models.values().map(of).sum())
    };
    Event::Usage(Usage {
        input_tokens: sum(&["inputTokens", "cacheReadInputTokens", "cacheCreationInputTokens"]),
        cached_input_tokens: sum(&["cacheReadInputTokens"]),
        output_tokens: sum(&["outputTokens"]),
        cost_usd: line.get("totalCostUSD").and_then(Value::as_f64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(line: Value) -> Vec<Event> {
        events(&line, None).1
    }

    #[test]
    fn a_todo_list_is_a_call_and_a_plan() {
        let events = of(
            json!({"type": "assistant", "uuid": "u", "message": {"content": [{"type": "tool_use", "id": "t",
            "name": "TodoWrite", "input": {"todos": [{"content": "a", "status": "in_progress"}]}}]}}),
        );
        let entry = PlanEntry {
            content: "a".into(),
            status: PlanStatus::InProgress,
        };
        assert!(matches!(&events[0], Event::ToolCall { id, .. } if id == "t"));
        assert_eq!(events[1], Event::Plan { entries: vec![entry] });
    }

    #[test]
    fn an_interruption_ends_the_turn_and_an_api_failure_is_an_error() {
        let events = of(
            json!({"type": "user", "message": {"content": [{"type": "text", "text": "[Request interrupted by user]"}]}}),
        );
        assert!(matches!(
            events[..],
            [Event::TurnEnd {
                status: TurnStatus::Interrupted,
                ..
            }]
        ));
        let events = of(json!({"type": "assistant", "isApiErrorMessage": true,
            "message": {"content": [{"type": "text", "text": "API Error: 400"}]}}));
        assert_eq!(
            events,
            [Event::Error {
                message: "API Error: 400".into(),
                retrying: false
            }]
        );
    }

    #[test]
    fn blocks_of_one_line_have_ids_of_their_own() {
        let events = of(json!({"type": "assistant", "uuid": "u", "message": {"content": [
            {"type": "text", "text": "a"}, {"type": "thinking", "thinking": "b"}, {"type": "server_tool", "x": 1}]}}));
        let text = Event::Text {
            id: "u".into(),
            text: "a".into(),
            delta: false,
            parent: None,
        };
        let thinking = Event::Thinking {
            id: "u:1".into(),
            text: "b".into(),
            delta: false,
            parent: None,
        };
        assert_eq!(
            events,
            [
                text,
                thinking,
                Event::Raw {
                    data: json!({"type": "server_tool", "x": 1})
                }
            ]
        );
    }
}
