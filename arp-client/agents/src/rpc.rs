//! JSON-RPC over lines, as Codex and the agents of the Agent Client Protocol speak it: telling requests,
//! answers and notifications apart, and keeping our own requests in order.

use crate::driver::Action;
use crate::event::Event;
use crate::text::{str_at, string_at};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Longest line that is shown when it is not JSON, in characters.
const MAX_NOISE_CHARS: usize = 2000;

/// A message from the agent.
#[derive(Debug)]
pub(crate) enum Message {
    /// It asks something; an answer with the same id must follow.
    Request {
        id: Value,
        method: String,
        params: Value,
    },
    /// It answers a request of ours.
    Answer {
        id: u64,
        outcome: Result<Value, RpcError>,
    },
    /// It tells something.
    Notification { method: String, params: Value },
}

/// An error in an answer.
#[derive(Debug)]
pub(crate) struct RpcError {
    pub(crate) message: String,
    pub(crate) code: i64,
}

impl RpcError {
    /// The HTTP status of the model API, which agents that speak ACP give as the code.
    pub(crate) fn api_status(&self) -> Option<u16> {
        u16::try_from(self.code)
            .ok()
            .filter(|code| (400..600).contains(code))
    }
}

/// Requests of ours that wait for their answers.
#[derive(Debug)]
pub(crate) struct Calls<K> {
    /// Is the `jsonrpc` member written? (Codex wants it left out.)
    versioned: bool,
    next: u64,
    waiting: BTreeMap<u64, K>,
}

impl Message {
    /// Reads a line; `None` when it is JSON of no shape that JSON-RPC has.
    pub(crate) fn read(mut message: Value) -> Option<Self> {
        let params = message.get_mut("params").map(Value::take).unwrap_or_default();
        match (message.get("id"), string_at(&message, "method")) {
            (Some(id), Some(method)) if !id.is_null() => Some(Self::Request {
                id: id.clone(),
                method,
                params,
            }),
            (_, Some(method)) => Some(Self::Notification { method, params }),
            (Some(id), None) => {
                let id = id.as_u64()?;
                let outcome = match message.get("error") {
                    Some(error) if !error.is_null() => Err(RpcError {
                        message: error_text(error),
                        code: error.get("code").and_then(Value::as_i64).unwrap_or_default(),
                    }),
                    _ => Ok(message.get_mut("result").map(Value::take).unwrap_or_default()),
                };
                Some(Self::Answer { id, outcome })
            }
            (None, None) => None,
        }
    }
}

impl<K> Calls<K> {
    pub(crate) fn new(versioned: bool) -> Self {
        Self {
            versioned,
            next: 1,
            waiting: BTreeMap::new(),
        }
    }

    /// A request to send; `kind` comes back with its answer.
    pub(crate) fn request(&mut self, kind: K, method: &str, params: Value) -> Action {
        let id = self.next;
        self.sent(id, kind);
        self.line(json!({"id": id, "method": method, "params": params}))
    }

    /// A request was sent with this id (now, or in the log that is replayed).
    pub(crate) fn sent(&mut self, id: u64, kind: K) {
        self.next = self.next.max(id + 1);
        self.waiting.insert(id, kind);
    }

    /// The request that an answer belongs to.
    pub(crate) fn answered(&mut self, id: u64) -> Option<K> {
        self.waiting.remove(&id)
    }

    /// A notification to send.
    pub(crate) fn notify(&self, method: &str, params: Option<Value>) -> Action {
        let mut message = json!({"method": method});
        if let Some(params) = params {
            message["params"] = params;
        }
        self.line(message)
    }

    /// An answer to the agent's request.
    pub(crate) fn answer(&self, id: &Value, result: Value) -> Action {
        self.line(json!({"id": id, "result": result}))
    }

    /// An error in answer to the agent's request.
    pub(crate) fn refuse(&self, id: &Value, code: i64, message: &str) -> Action {
        self.line(json!({"id": id, "error": {"code": code, "message": message}}))
    }

    fn line(&self, mut message: Value) -> Action {
        if self.versioned {
            message["jsonrpc"] = json!("2.0");
        }
        Action::Send(message.to_string())
    }
}

/// A line of output that is not JSON: shown as it is, cut.
pub(crate) fn not_json(line: &str) -> Vec<Action> {
    if line.trim().is_empty() {
        return Vec::new();
    }
    let cut: String = line.chars().take(MAX_NOISE_CHARS).collect();
    vec![Action::Emit(Event::Raw {
        data: Value::String(cut),
    })]
}

/// What an error says, with the details that some agents hide beside a message that says nothing.
fn error_text(error: &Value) -> String {
    let message = str_at(error, "message").unwrap_or("the agent answered with an error");
    let details = error
        .get("data")
        .and_then(|data| data.as_str().or_else(|| str_at(data, "details")));
    match details {
        Some(details) => format!("{message}: {details}"),
        None => crate::text::api_error_text(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let read = |text: &str| Message::read(serde_json::from_str(text).unwrap());
        assert!(matches!(
            read(r#"{"id":0,"method":"m","params":{}}"#),
            Some(Message::Request { .. })
        ));
        assert!(matches!(
            read(r#"{"method":"m"}"#),
            Some(Message::Notification { .. })
        ));
        assert!(matches!(
            read(r#"{"id":4,"result":{}}"#),
            Some(Message::Answer {
                id: 4,
                outcome: Ok(_)
            })
        ));
        assert!(matches!(
            read(r#"{"id":4,"error":{"message":"x"}}"#),
            Some(Message::Answer { outcome: Err(_), .. })
        ));
        assert!(read(r#"{"hello":1}"#).is_none());
    }

    #[test]
    fn ids_go_on_after_a_replay() {
        let mut calls: Calls<u8> = Calls::new(false);
        calls.sent(7, 1);
        assert_eq!(
            calls.request(2, "m", json!({})),
            Action::Send(r#"{"id":8,"method":"m","params":{}}"#.into())
        );
        assert_eq!((calls.answered(7), calls.answered(7)), (Some(1), None));
    }

    #[test]
    fn hidden_details_of_an_error_are_told() {
        let error =
            json!({"code": -32603, "message": "Internal error", "data": {"details": "no such session"}});
        assert_eq!(error_text(&error), "Internal error: no such session");
    }
}
