//! What is known of a request once it is over.

use super::Tokens;
use serde::Serialize;

/// What is known of a request once it is over.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// Its number; 0 where it is to get one.
    pub id: i64,
    /// When it came, in Unix milliseconds.
    pub at: i64,
    /// Whose API.
    pub service: &'static str,
    /// The agent's session, where it says.
    pub session: Option<String>,
    /// Its sub-agent, where it says.
    pub agent: Option<String>,
    /// Who answered, or was asked last.
    pub upstream: Option<String>,
    /// Those that were asked before and failed, with what they said.
    pub failed: Vec<(String, String)>,
    /// The model that was asked for.
    pub model: Option<String>,
    /// The model that the upstream was asked for, where it is another one.
    pub routed: Option<String>,
    /// Method and path, without the query.
    pub path: String,
    /// Status that the agent got; 0 when it left before.
    pub status: u16,
    /// Milliseconds to the end.
    pub millis: u64,
    /// Milliseconds to the first byte of the answer.
    pub first_millis: Option<u64>,
    /// Tokens.
    pub tokens: Tokens,
    /// Dollars, where the model has a price.
    pub cost: Option<f64>,
    /// Secrets that were hidden from the upstream.
    pub redacted: u64,
    /// Where the agent works, where it says.
    pub project: Option<String>,
    /// What went wrong, if anything did.
    pub error: Option<String>,
}

impl Record {
    /// As the API shows it.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let t = &self.tokens;
        serde_json::json!({
            "id": self.id, "at": self.at, "service": self.service, "session": self.session, "agent": self.agent,
            "project": self.project, "upstream": self.upstream, "failed": self.failed, "model": self.model,
            "routed": self.routed, "path": self.path, "status": self.status, "millis": self.millis,
            "first_millis": self.first_millis, "input": t.input, "cache_write": t.cache_write,
            "cache_read": t.cache_read, "output": t.output, "reasoning": t.reasoning, "cost": self.cost,
            "redacted": self.redacted, "error": self.error, "recorded": false,
        })
    }
}
