//! The one form of an error in JSON, whoever tells it.

use serde::Serialize;

/// `{"type":"error","code":…,"message":…}`
#[derive(Debug, Clone, Serialize)]
pub struct ErrorBody<'a> {
    r#type: &'static str,
    code: &'a str,
    message: &'a str,
}

impl<'a> ErrorBody<'a> {
    /// `code` is for programs and stable; `message` is for people and says what to do.
    pub fn new(code: &'a str, message: &'a str) -> Self {
        Self {
            r#type: "error",
            code,
            message,
        }
    }

    /// As one line of JSON.
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}
