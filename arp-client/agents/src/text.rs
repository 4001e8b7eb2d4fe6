//! Small helpers to read loosely typed JSON and to make one line of anything.

use serde_json::Value;

/// Longest title of a card, in characters.
const MAX_TITLE_CHARS: usize = 200;

/// The string under `key`.
pub(crate) fn str_at<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// The string under `key`, owned.
pub(crate) fn string_at(value: &Value, key: &str) -> Option<String> {
    str_at(value, key).map(str::to_owned)
}

/// The array under `key`; an empty one when there is none.
pub(crate) fn array_at<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The first line that is not blank, cut to what fits a card.
pub(crate) fn one_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let more = lines.next().is_some();
    let mut cut: String = first.chars().take(MAX_TITLE_CHARS).collect();
    if more || cut.len() < first.len() {
        cut.push('…');
    }
    cut
}

/// Text of a content field: a string, a block, or a list of blocks; other content is named in brackets.
pub(crate) fn content_text(content: &Value) -> String {
    match content {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let parts: Vec<String> = blocks
                .iter()
                .map(content_text)
                .filter(|part| !part.is_empty())
                .collect();
            parts.join("\n")
        }
        Value::Object(block) => match block.get("text").and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => match block.get("content") {
                Some(inner) => content_text(inner),
                None => format!(
                    "[{}]",
                    block.get("type").and_then(Value::as_str).unwrap_or("content")
                ),
            },
        },
        other => other.to_string(),
    }
}

/// The message inside an API's error body, or the body itself when it is not one.
pub(crate) fn api_error_text(text: &str) -> String {
    let Ok(body) = serde_json::from_str::<Value>(text) else {
        return text.to_owned();
    };
    body.pointer("/error/message")
        .and_then(Value::as_str)
        .map_or_else(|| text.to_owned(), str::to_owned)
}

/// The HTTP status that a message about a failed request names (`unexpected status 401 Unauthorized`).
pub(crate) fn status_in(message: &str) -> Option<u16> {
    let lower = message.to_ascii_lowercase();
    let (_, rest) = lower.rsplit_once("status")?;
    let digits: String = rest
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    // Far from the word it is a number of something else.
    let near = rest.find(|c: char| c.is_ascii_digit()).is_some_and(|at| at <= 8);
    digits
        .parse()
        .ok()
        .filter(|status| near && (400..600).contains(status))
}

/// The end of what a process said on standard error, as one short message.
pub(crate) fn last_words(stderr_tail: &str) -> Option<String> {
    let lines: Vec<&str> = stderr_tail
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.trim().is_empty())
        .collect();
    let tail = lines
        .iter()
        .rev()
        .take(5)
        .rev()
        .copied()
        .collect::<Vec<_>>()
        .join("\n");
    (!tail.is_empty()).then_some(tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_line_tells_that_there_was_more() {
        assert_eq!(one_line("\n  ls -l\n"), "ls -l");
        assert_eq!(one_line("a\nb"), "a…");
        assert_eq!(one_line(&"é".repeat(300)).chars().count(), MAX_TITLE_CHARS + 1);
        assert_eq!(one_line(""), "");
    }

    #[test]
    fn content_of_any_shape_has_a_text() {
        assert_eq!(content_text(&json!("a")), "a");
        assert_eq!(
            content_text(&json!([{"type":"text","text":"a"},{"type":"image","source":{}}])),
            "a\n[image]"
        );
        assert_eq!(
            content_text(&json!({"type":"content","content":{"type":"text","text":"x"}})),
            "x"
        );
    }

    #[test]
    fn an_api_error_is_its_message() {
        assert_eq!(
            api_error_text(r#"{"error":{"code":400,"message":"nope"}}"#),
            "nope"
        );
        assert_eq!(api_error_text("plain"), "plain");
    }

    #[test]
    fn the_status_of_a_failed_request_is_found_in_its_message() {
        for (message, status) in [
            (
                "exceeded retry limit, last status: 429 Too Many Requests",
                Some(429),
            ),
            ("unexpected status 401 Unauthorized: who are you", Some(401)),
            ("the status of line 500", None),
            ("status 200", None),
            ("stream disconnected before completion", None),
        ] {
            assert_eq!(status_in(message), status, "{message}");
        }
    }
}
