//! What Claude's lines about itself say: errors, retries, tokens and cost.

use crate::event::Usage;
use crate::text::{array_at, str_at};
use serde_json::Value;

pub(super) fn errors_of(result: &Value) -> Option<String> {
    let errors: Vec<&str> = array_at(result, "errors")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    (!errors.is_empty()).then(|| errors.join("\n"))
}

pub(super) fn retry_text(line: &Value) -> String {
    let number = |key: &str| line.get(key).and_then(Value::as_u64);
    let mut text = "The model API failed".to_owned();
    if let Some(status) = number("error_status") {
        text.push_str(&format!(" with status {status}"));
    }
    if let Some(error) = str_at(line, "error") {
        text.push_str(&format!(" ({error})"));
    }
    if let (Some(attempt), Some(most)) = (number("attempt"), number("max_retries")) {
        text.push_str(&format!("; retry {attempt} of {most}"));
    }
    if let Some(delay) = line.get("retry_delay_ms").and_then(Value::as_f64) {
        text.push_str(&format!(" in {:.1} s", delay / 1000.0));
    }
    text
}

/// Sums over the models of this process; a result line's own `usage` is only its turn's.
pub(super) fn usage_of(result: &Value) -> Usage {
    let models = result.get("modelUsage").and_then(Value::as_object);
    let sum = |keys: &[&str]| {
        models.map(|models| {
            models
                .values()
                .flat_map(|usage| {
                    keys.iter()
                        .map(|key| usage.get(key).and_then(Value::as_u64).unwrap_or(0))
                })
                .fold(0u64, u64::saturating_add)
        })
    };
    Usage {
        input_tokens: sum(&["inputTokens", "cacheReadInputTokens", "cacheCreationInputTokens"]),
        cached_input_tokens: sum(&["cacheReadInputTokens"]),
        output_tokens: sum(&["outputTokens"]),
        cost_usd: result.get("total_cost_usd").and_then(Value::as_f64),
    }
}
