//! Claude's permission prompts: the questions that wait, and the lines that answer them.

use super::tools::{questions, tool_card};
use crate::driver::{Action, Decision};
use crate::event::{Approval, ApprovalOutcome, Edited, ToolKind};
use crate::text::{array_at, one_line, str_at, string_at};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The prompts that wait, by request id (which is the approval's id: it is unique over all processes).
#[derive(Debug, Default)]
pub(super) struct Approvals {
    waiting: BTreeMap<String, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    tool_name: String,
    tool_call_id: Option<String>,
    input: Value,
    /// The rules that "for this session" stands for.
    session_rules: Vec<Value>,
}

/// A prompt that was answered.
pub(super) struct Answered {
    pub(super) tool_call_id: Option<String>,
    pub(super) action: Action,
    /// What was asked and what runs, where that differs.
    pub(super) edited: Option<Edited>,
}

impl Approvals {
    /// A `can_use_tool` request.
    pub(super) fn asked(&mut self, request_id: &str, request: &Value) -> Action {
        let tool_name = string_at(request, "tool_name").unwrap_or_default();
        let input = request.get("input").cloned().unwrap_or_default();
        let card = tool_card(&tool_name, &input);
        let session_rules = session_rules(&tool_name, card.kind, request);
        let is_question = card.kind == ToolKind::Question;
        let approval = Approval {
            id: request_id.to_owned(),
            tool_call_id: string_at(request, "tool_use_id"),
            tool_name: tool_name.clone(),
            kind: card.kind,
            reason: reason(request, &card.title),
            title: card.title,
            changes: card.changes,
            can_allow_session: !session_rules.is_empty(),
            can_edit: !is_question,
            questions: if is_question {
                questions(&input)
            } else {
                Vec::new()
            },
            input: input.clone(),
        };
        let tool_call_id = approval.tool_call_id.clone();
        self.waiting.insert(
            request_id.to_owned(),
            Waiting {
                tool_name,
                tool_call_id,
                input,
                session_rules,
            },
        );
        Action::Ask(approval)
    }

    /// The answer to send for a decision; `None` when no such prompt waits.
    pub(super) fn answer(&self, request_id: &str, decision: &Decision) -> Option<Value> {
        let waiting = self.waiting.get(request_id)?;
        let response = match decision {
            Decision::Allow {
                for_session,
                updated_input,
                answers,
            } => {
                let mut input = updated_input.clone().unwrap_or_else(|| waiting.input.clone());
                if waiting.tool_name == "AskUserQuestion"
                    && let Value::Object(fields) = &mut input
                {
                    fields.insert("answers".to_owned(), json!(answers));
                }
                let mut response = json!({"behavior": "allow", "updatedInput": input});
                if *for_session && !waiting.session_rules.is_empty() {
                    response["updatedPermissions"] = json!(waiting.session_rules);
                }
                response
            }
            Decision::Deny { message, interrupt } => {
                let reason = message.as_deref().filter(|reason| !reason.trim().is_empty());
                let mut response = json!({
                    "behavior": "deny",
                    "message": reason.unwrap_or("The user denied this. Ask what to do instead, or go on without it."),
                });
                if *interrupt {
                    response["interrupt"] = json!(true);
                }
                response
            }
        };
        Some(json!({
            "type": "control_response",
            "response": {"subtype": "success", "request_id": request_id, "response": response},
        }))
    }

    /// An answer was sent (now, or in the log that is replayed): the prompt no longer waits.
    pub(super) fn answered(&mut self, line: &Value) -> Option<Answered> {
        let response = line.get("response")?;
        let id = str_at(response, "request_id")?;
        let waiting = self.waiting.remove(id)?;
        let answer = response.get("response")?;
        let outcome = match str_at(answer, "behavior") {
            Some("allow") if answer.get("updatedPermissions").is_some() => ApprovalOutcome::AllowedForSession,
            Some("allow") => ApprovalOutcome::Allowed,
            _ => ApprovalOutcome::Denied,
        };
        let message = string_at(answer, "message").filter(|_| outcome == ApprovalOutcome::Denied);
        let edited = answer
            .get("updatedInput")
            .filter(|ran| outcome != ApprovalOutcome::Denied && **ran != waiting.input)
            // Answers to questions go into the arguments too; nobody edited those.
            .filter(|_| waiting.tool_name != "AskUserQuestion")
            .map(|ran| Edited {
                asked: waiting.input.clone(),
                ran: ran.clone(),
            });
        Some(Answered {
            tool_call_id: waiting.tool_call_id,
            action: Action::Resolved {
                approval_id: id.to_owned(),
                outcome,
                message,
                edited: edited.clone(),
            },
            edited,
        })
    }

    /// Claude took a prompt back.
    pub(super) fn cancelled(&mut self, request_id: &str) -> Option<Action> {
        self.waiting
            .remove(request_id)
            .map(|_| void(request_id.to_owned()))
    }

    /// A tool has its result: a prompt about it was answered by somebody, and the line may tell how.
    pub(super) fn results_came(&mut self, line: &Value) -> Vec<Action> {
        let content = line
            .pointer("/message/content")
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        let done: Vec<&str> = content
            .iter()
            .filter_map(|block| str_at(block, "tool_use_id"))
            .collect();
        let over: Vec<String> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| {
                waiting
                    .tool_call_id
                    .as_deref()
                    .is_some_and(|id| done.contains(&id))
            })
            .map(|(id, _)| id.clone())
            .collect();
        over.into_iter()
            .map(|approval_id| {
                let call = self
                    .waiting
                    .remove(&approval_id)
                    .and_then(|waiting| waiting.tool_call_id);
                let outcome = match decided(line, call.as_deref()) {
                    Some("accept") => ApprovalOutcome::Allowed,
                    Some("reject") => ApprovalOutcome::Denied,
                    _ => ApprovalOutcome::Void,
                };
                Action::Resolved {
                    approval_id,
                    outcome,
                    message: None,
                    edited: None,
                }
            })
            .collect()
    }

    /// Nobody will take an answer any more.
    pub(super) fn void_all(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.waiting).into_keys().map(void).collect()
    }
}

fn void(approval_id: String) -> Action {
    Action::Resolved {
        approval_id,
        outcome: ApprovalOutcome::Void,
        message: None,
        edited: None,
    }
}

fn decided<'a>(line: &'a Value, call: Option<&str>) -> Option<&'a str> {
    let meta = array_at(line, "tool_result_meta")
        .iter()
        .find(|meta| str_at(meta, "id") == call)?;
    meta.pointer("/permission_decision/decision")
        .and_then(Value::as_str)
}

/// Why Claude wants it: the rule that made it ask, or what the model said about the command.
fn reason(request: &Value, title: &str) -> Option<String> {
    let said = request.pointer("/input/description").and_then(Value::as_str);
    let rule = str_at(request, "decision_reason");
    said.or(rule)
        .map(one_line)
        .filter(|reason| !reason.is_empty() && reason != title)
}

/// What to remember for "allow for this session": the rules that Claude suggests, kept out of the settings on
/// disk. Its suggestion to accept all edits is only taken where it suggests nothing narrower.
fn session_rules(tool_name: &str, kind: ToolKind, request: &Value) -> Vec<Value> {
    if matches!(kind, ToolKind::Question | ToolKind::Plan) {
        return Vec::new();
    }
    let suggested = array_at(request, "permission_suggestions");
    let of_type = |wanted: &str| -> Vec<Value> {
        suggested
            .iter()
            .filter(|rule| str_at(rule, "type") == Some(wanted))
            .map(|rule| {
                let mut rule = rule.clone();
                rule["destination"] = json!("session");
                rule
            })
            .collect()
    };
    let rules = of_type("addRules");
    if !rules.is_empty() {
        return rules;
    }
    let mut modes = of_type("setMode");
    modes.retain(|rule| str_at(rule, "mode") == Some("acceptEdits"));
    if !modes.is_empty() {
        return modes;
    }
    if kind == ToolKind::Command {
        // All that is left would be a rule for every command there is, while the user looks at one.
        return Vec::new();
    }
    vec![json!({
        "type": "addRules",
        "rules": [{"toolName": tool_name}],
        "behavior": "allow",
        "destination": "session",
    })]
}
