//! Claude's permission prompts: the questions that wait, and the lines that answer them.

use super::mode_name;
use super::tools::{questions, tool_card};
use crate::card::ApprovalIds;
use crate::driver::{Action, CommandError, Decision, PermissionMode};
use crate::event::{Approval, ApprovalOutcome, Edited, Grant, ToolKind};
use crate::text::{array_at, one_line, str_at, string_at};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Where a plan that is approved can lead: the modes to choose from, the one that asks least first.
const AFTER_A_PLAN: [PermissionMode; 2] = [PermissionMode::AcceptEdits, PermissionMode::Default];

/// The prompts that wait, by the approval's id, which is the request's id the first time that is used.
#[derive(Debug, Default)]
pub(super) struct Approvals {
    waiting: BTreeMap<String, Waiting>,
    ids: ApprovalIds,
}

#[derive(Debug)]
struct Waiting {
    request_id: String,
    tool_name: String,
    tool_call_id: Option<String>,
    input: Value,
    /// The rules that "for this session" stands for.
    session_rules: Vec<Value>,
    /// The modes that can be given with the permission.
    modes: Vec<PermissionMode>,
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
    pub(super) fn asked(&mut self, request_id: &str, request: &Value) -> Vec<Action> {
        // One that asks again under the same id can no longer be answered: nobody could tell whom the answer is for.
        let mut actions: Vec<Action> = self.cancelled(request_id).into_iter().collect();
        let id = self.ids.give(request_id.to_owned());
        let tool_name = string_at(request, "tool_name").unwrap_or_default();
        let input = request.get("input").cloned().unwrap_or_default();
        let card = tool_card(&tool_name, &input);
        let session_rules = session_rules(&tool_name, card.kind, request);
        let is_question = card.kind == ToolKind::Question;
        let modes = if tool_name == "ExitPlanMode" {
            AFTER_A_PLAN.to_vec()
        } else {
            Vec::new()
        };
        let approval = Approval {
            id: id.clone(),
            tool_call_id: string_at(request, "tool_use_id"),
            tool_name: tool_name.clone(),
            kind: card.kind,
            reason: reason(request, &card.title),
            title: card.title,
            changes: card.changes,
            can_allow_session: !session_rules.is_empty(),
            session_grants: grants(&session_rules),
            modes: modes.clone(),
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
            id,
            Waiting {
                request_id: request_id.to_owned(),
                tool_name,
                tool_call_id,
                input,
                session_rules,
                modes,
            },
        );
        actions.push(Action::Ask(approval));
        actions
    }

    /// The answer to send for a decision.
    pub(super) fn answer(&self, id: &str, decision: &Decision) -> Result<Value, CommandError> {
        let Some(waiting) = self.waiting.get(id) else {
            return Err(CommandError::UnknownApproval(id.to_owned()));
        };
        let response = match decision {
            Decision::Allow {
                for_session,
                updated_input,
                answers,
                permission_mode,
            } => {
                let mut input = updated_input.clone().unwrap_or_else(|| waiting.input.clone());
                if waiting.tool_name == "AskUserQuestion"
                    && let Value::Object(fields) = &mut input
                {
                    fields.insert("answers".to_owned(), json!(answers));
                }
                let mut response = json!({"behavior": "allow", "updatedInput": input});
                let mut updates = Vec::new();
                if *for_session {
                    updates.clone_from(&waiting.session_rules);
                }
                if let Some(mode) = permission_mode {
                    if !waiting.modes.contains(mode) {
                        return Err(CommandError::Unsupported(
                            "this approval does not offer that permission mode; its \"modes\" are those to choose from"
                                .to_owned(),
                        ));
                    }
                    updates
                        .push(json!({"type": "setMode", "mode": mode_name(*mode), "destination": "session"}));
                }
                if !updates.is_empty() {
                    response["updatedPermissions"] = json!(updates);
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
        Ok(json!({
            "type": "control_response",
            "response": {"subtype": "success", "request_id": waiting.request_id, "response": response},
        }))
    }

    /// An answer was sent (now, or in the log that is replayed): the prompt no longer waits.
    pub(super) fn answered(&mut self, line: &Value) -> Option<Answered> {
        let response = line.get("response")?;
        let (id, waiting) = self.take(str_at(response, "request_id")?)?;
        let answer = response.get("response")?;
        let outcome = match str_at(answer, "behavior") {
            // A mode that comes with a plan is no rule about what was asked.
            Some("allow") if waiting.modes.is_empty() && answer.get("updatedPermissions").is_some() => {
                ApprovalOutcome::AllowedForSession
            }
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
                approval_id: id,
                outcome,
                message,
                edited: edited.clone(),
            },
            edited,
        })
    }

    /// Claude took a prompt back.
    pub(super) fn cancelled(&mut self, request_id: &str) -> Option<Action> {
        self.take(request_id).map(|(id, _)| void(id))
    }

    /// Takes the prompt that waits under a request's id off the list.
    fn take(&mut self, request_id: &str) -> Option<(String, Waiting)> {
        let (id, _) = self
            .waiting
            .iter()
            .find(|(_, waiting)| waiting.request_id == request_id)?;
        let id = id.clone();
        self.waiting.remove_entry(&id)
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
            .filter(|rule| wanted != "addRules" || str_at(rule, "behavior") == Some("allow"))
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

/// The same rules in words that everybody has.
fn grants(rules: &[Value]) -> Vec<Grant> {
    rules
        .iter()
        .flat_map(|rule| match string_at(rule, "mode") {
            Some(mode) => vec![Grant::Mode { mode }],
            None => array_at(rule, "rules")
                .iter()
                .map(|rule| Grant::Tool {
                    tool: string_at(rule, "toolName").unwrap_or_default(),
                    pattern: string_at(rule, "ruleContent").filter(|pattern| !pattern.is_empty()),
                })
                .collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn ask(request: Value) -> (Approvals, Approval) {
        let mut approvals = Approvals::default();
        match approvals.asked("q1", &request).pop() {
            Some(Action::Ask(approval)) => (approvals, approval),
            other => unreachable!("{other:?}"),
        }
    }

    fn allow(updated_input: Option<Value>, permission_mode: Option<PermissionMode>) -> Decision {
        Decision::Allow {
            for_session: false,
            updated_input,
            answers: BTreeMap::new(),
            permission_mode,
        }
    }

    fn resolved(approvals: &mut Approvals, answer: &Value) -> (ApprovalOutcome, Option<Value>) {
        match approvals.answered(answer).map(|answered| answered.action) {
            Some(Action::Resolved { outcome, edited, .. }) => (outcome, edited.map(|edited| edited.ran)),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn what_is_granted_for_the_session_is_said_rule_by_rule() {
        let (_, approval) = ask(json!({
            "tool_name": "Bash", "input": {"command": "npm test && npm run build"},
            "permission_suggestions": [
                {"type": "addRules", "behavior": "allow", "destination": "localSettings",
                 "rules": [{"toolName": "Bash", "ruleContent": "npm test:*"}, {"toolName": "Bash", "ruleContent": "npm run build"}]},
                {"type": "setMode", "mode": "acceptEdits", "destination": "session"}],
        }));
        let rule = |pattern: &str| Grant::Tool {
            tool: "Bash".into(),
            pattern: Some(pattern.into()),
        };
        assert_eq!(
            approval.session_grants,
            [rule("npm test:*"), rule("npm run build")]
        );

        let (_, approval) = ask(json!({
            "tool_name": "Write", "input": {"file_path": "/p/a", "content": ""},
            "permission_suggestions": [{"type": "setMode", "mode": "acceptEdits", "destination": "session"}],
        }));
        let mode = "acceptEdits".to_owned();
        assert_eq!(approval.session_grants, [Grant::Mode { mode }]);

        let (_, approval) = ask(json!({"tool_name": "mcp__a__b", "input": {}}));
        let tool = "mcp__a__b".to_owned();
        assert_eq!(approval.session_grants, [Grant::Tool { tool, pattern: None }]);
    }

    #[test]
    fn changed_arguments_are_told_with_the_decision_and_unchanged_ones_are_not() {
        let request = json!({"tool_name": "Bash", "input": {"command": "rm -rf build"}});
        for (changed, told) in [
            (None, None),
            (Some(json!({"command": "rm -rf build"})), None),
            (Some(json!({"command": "ls"})), Some(json!({"command": "ls"}))),
        ] {
            let (mut approvals, _) = ask(request.clone());
            let answer = approvals.answer("q1", &allow(changed, None)).unwrap();
            assert_eq!(
                resolved(&mut approvals, &answer),
                (ApprovalOutcome::Allowed, told)
            );
        }
    }

    #[test]
    fn a_plan_leads_to_the_mode_that_was_chosen_and_to_no_other() {
        let request = json!({"tool_name": "ExitPlanMode", "input": {"plan": "# Plan"}});
        let (mut approvals, approval) = ask(request);
        assert_eq!(approval.modes, AFTER_A_PLAN);
        let refused = approvals.answer("q1", &allow(None, Some(PermissionMode::BypassPermissions)));
        assert!(
            matches!(refused, Err(CommandError::Unsupported(_))),
            "{refused:?}"
        );
        let answer = approvals
            .answer("q1", &allow(None, Some(PermissionMode::AcceptEdits)))
            .unwrap();
        assert_eq!(
            answer["response"]["response"]["updatedPermissions"],
            json!([{"type": "setMode", "mode": "acceptEdits", "destination": "session"}])
        );
        assert_eq!(
            resolved(&mut approvals, &answer),
            (ApprovalOutcome::Allowed, None)
        );

        let (approvals, approval) = ask(json!({"tool_name": "Bash", "input": {"command": "ls"}}));
        assert!(approval.modes.is_empty());
        let refused = approvals.answer("q1", &allow(None, Some(PermissionMode::AcceptEdits)));
        assert!(
            matches!(refused, Err(CommandError::Unsupported(_))),
            "{refused:?}"
        );
    }

    #[test]
    fn an_id_that_no_longer_asks_is_refused() {
        let (mut approvals, _) = ask(json!({"tool_name": "Bash", "input": {"command": "ls"}}));
        let answer = approvals.answer("q1", &allow(None, None)).unwrap();
        assert!(approvals.answered(&answer).is_some());
        let late = approvals.answer("q1", &allow(None, None));
        assert_eq!(late, Err(CommandError::UnknownApproval("q1".into())));
    }

    #[test]
    fn a_decision_about_one_question_is_never_taken_for_another_with_the_same_id() {
        let (mut approvals, first) = ask(json!({"tool_name": "Bash", "input": {"command": "ls"}}));
        let again = json!({"tool_name": "Bash", "input": {"command": "rm -rf ~"}});
        let actions = approvals.asked("q1", &again);
        let [
            Action::Resolved {
                approval_id,
                outcome: ApprovalOutcome::Void,
                ..
            },
            Action::Ask(second),
        ] = actions.as_slice()
        else {
            unreachable!("{actions:?}")
        };
        assert_eq!((approval_id.as_str(), second.id.as_str()), ("q1", "q1~2"));
        let late = approvals.answer(&first.id, &allow(None, None));
        assert_eq!(late, Err(CommandError::UnknownApproval("q1".into())));
        let answer = approvals.answer(&second.id, &allow(None, None)).unwrap();
        assert_eq!(answer["response"]["request_id"], "q1");
        assert_eq!(resolved(&mut approvals, &answer).0, ApprovalOutcome::Allowed);
    }
}
