//! What Codex asks for: commands, edits, wider permissions, questions, tools and forms of MCP servers.

use super::items::{bare_command, changes};
use crate::card::descriptions;
use crate::driver::{CommandError, Decision};
use crate::event::{Approval, ApprovalOutcome, FileChange, Grant, Question, ToolKind};
use crate::text::{array_at, one_line, str_at, string_at};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a request says of itself, of its place in the thread, and of how Codex reads it. All else is part of what
/// would be allowed, whatever a later version may add.
const NOT_ASKED_FOR: [&str; 10] = [
    "approvalId",
    "availableDecisions",
    "commandActions",
    "itemId",
    "kind",
    "proposedExecpolicyAmendment",
    "reason",
    "startedAtMs",
    "threadId",
    "turnId",
];

/// A request that waits for a decision.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The request's own id, to answer with.
    pub(super) rpc_id: Value,
    sort: Sort,
    params: Value,
}

/// What sort of request, which is what sort of answer it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// `{"decision": …}`
    Command,
    /// `{"decision": …}`
    Edit,
    /// `{"permissions": …, "scope": …}`
    Permissions,
    /// `{"answers": …}`
    Questions,
    /// `{"action": …}`: may a server's tool run?
    McpTool,
    /// `{"action": …, "content": …}`: a server's form.
    Form,
}

/// Reads a server request that is an approval: what waits, and what to ask. `None` for any other request.
/// `item` is the item it is about, when that is known.
pub(super) fn asked(
    id: String,
    rpc_id: Value,
    method: &str,
    params: Value,
    item: Option<&Value>,
) -> Option<(Waiting, Approval)> {
    let sort = match method {
        "item/commandExecution/requestApproval" => Sort::Command,
        "item/fileChange/requestApproval" => Sort::Edit,
        "item/permissions/requestApproval" => Sort::Permissions,
        "item/tool/requestUserInput" => Sort::Questions,
        "mcpServer/elicitation/request" => {
            let about_tool = params
                .pointer("/_meta/codex_approval_kind")
                .and_then(Value::as_str);
            if about_tool == Some("mcp_tool_call") {
                Sort::McpTool
            } else {
                Sort::Form
            }
        }
        _ => return None,
    };
    let mut approval = Approval {
        id,
        tool_call_id: string_at(&params, "itemId"),
        tool_name: String::new(),
        kind: ToolKind::Other,
        title: String::new(),
        reason: string_at(&params, "reason").filter(|reason| !reason.is_empty()),
        input: Value::Null,
        changes: Vec::new(),
        can_allow_session: false,
        session_grants: Vec::new(),
        modes: Vec::new(),
        can_edit: false,
        questions: Vec::new(),
    };
    match sort {
        Sort::Command => command(&mut approval, &params),
        Sort::Edit => edit(&mut approval, &params, item),
        Sort::Permissions => {
            "permissions".clone_into(&mut approval.tool_name);
            "Wider permissions".clone_into(&mut approval.title);
            approval.input = asked_for(&params);
            approval.session_grants = vec![Grant::SameAccess];
        }
        Sort::Questions => {
            "requestUserInput".clone_into(&mut approval.tool_name);
            approval.kind = ToolKind::Question;
            approval.input = json!({"questions": params.get("questions")});
            approval.questions = array_at(&params, "questions").iter().map(question).collect();
            approval.title = approval
                .questions
                .first()
                .map(|first| one_line(&first.text))
                .unwrap_or_default();
        }
        Sort::McpTool => mcp_tool(&mut approval, &params),
        Sort::Form => form(&mut approval, &params),
    }
    approval.can_allow_session = !approval.session_grants.is_empty();
    Some((Waiting { rpc_id, sort, params }, approval))
}

impl Waiting {
    /// The result to answer with.
    pub(super) fn answer(&self, decision: &Decision) -> Result<Value, CommandError> {
        let allowed = matches!(decision, Decision::Allow { .. });
        if let Decision::Allow {
            updated_input: Some(_),
            ..
        } = decision
        {
            return Err(CommandError::Unsupported(
                "Codex cannot run a tool with changed arguments; deny it and say what to do instead"
                    .to_owned(),
            ));
        }
        if let Decision::Allow {
            permission_mode: Some(_),
            ..
        } = decision
        {
            return Err(CommandError::Unsupported(
                "Codex does not change its permission mode with an approval; change it on the session"
                    .to_owned(),
            ));
        }
        let for_session = matches!(
            decision,
            Decision::Allow {
                for_session: true,
                ..
            }
        );
        let stop = matches!(decision, Decision::Deny { interrupt: true, .. });
        let result = match self.sort {
            Sort::Command | Sort::Edit => {
                let word = match () {
                    () if for_session => "acceptForSession",
                    () if allowed => "accept",
                    () if stop => "cancel",
                    () => "decline",
                };
                json!({"decision": word})
            }
            Sort::Permissions => json!({
                "permissions": if allowed { self.granted() } else { json!({}) },
                "scope": if for_session { "session" } else { "turn" },
            }),
            Sort::Questions => json!({"answers": self.answers(decision)}),
            Sort::McpTool | Sort::Form => {
                let action = match () {
                    () if allowed => "accept",
                    () if stop => "cancel",
                    () => "decline",
                };
                let content = if allowed {
                    self.content(decision)
                } else {
                    Value::Null
                };
                let remember = if for_session {
                    json!({"persist": "session"})
                } else {
                    Value::Null
                };
                json!({"action": action, "content": content, "_meta": remember})
            }
        };
        Ok(result)
    }

    /// What an answer that was sent meant.
    pub(super) fn outcome(&self, result: &Value) -> ApprovalOutcome {
        let allowed = match self.sort {
            Sort::Command | Sort::Edit => match str_at(result, "decision") {
                Some("acceptForSession") => return ApprovalOutcome::AllowedForSession,
                decision => decision == Some("accept"),
            },
            Sort::Permissions => result
                .get("permissions")
                .and_then(Value::as_object)
                .is_some_and(|p| !p.is_empty()),
            Sort::Questions => result
                .get("answers")
                .and_then(Value::as_object)
                .is_some_and(|a| !a.is_empty()),
            Sort::McpTool | Sort::Form => str_at(result, "action") == Some("accept"),
        };
        let session = str_at(result, "scope") == Some("session")
            || result.pointer("/_meta/persist").and_then(Value::as_str) == Some("session");
        match (allowed, session) {
            (false, _) => ApprovalOutcome::Denied,
            (true, true) => ApprovalOutcome::AllowedForSession,
            (true, false) => ApprovalOutcome::Allowed,
        }
    }

    /// The permissions asked for, in the form in which they are granted (without the parts that are null).
    fn granted(&self) -> Value {
        let asked = self
            .params
            .get("permissions")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        Value::Object(asked.into_iter().filter(|(_, value)| !value.is_null()).collect())
    }

    /// Answers by the id of the question.
    fn answers(&self, decision: &Decision) -> Value {
        let Decision::Allow { answers, .. } = decision else {
            return json!({});
        };
        let mut by_id = Map::new();
        for question in array_at(&self.params, "questions") {
            let text = str_at(question, "question").unwrap_or_default();
            if let (Some(id), Some(answer)) = (str_at(question, "id"), answers.get(text)) {
                by_id.insert(id.to_owned(), json!({"answers": [answer]}));
            }
        }
        Value::Object(by_id)
    }

    /// The fields of a form, filled in and of the types that its schema wants.
    fn content(&self, decision: &Decision) -> Value {
        let Decision::Allow { answers, .. } = decision else {
            return Value::Null;
        };
        let mut content = Map::new();
        for (name, schema) in fields(&self.params) {
            if let Some(answer) = answers.get(&field_text(name, schema)) {
                content.insert(name.clone(), typed(schema, answer));
            }
        }
        Value::Object(content)
    }
}

fn command(approval: &mut Approval, params: &Value) {
    let command = str_at(params, "command").unwrap_or_default();
    "commandExecution".clone_into(&mut approval.tool_name);
    approval.kind = ToolKind::Command;
    approval.title = one_line(bare_command(command));
    let mut input = asked_for(params);
    let network = input
        .as_object_mut()
        .and_then(|fields| fields.remove("networkApprovalContext"));
    approval.session_grants = vec![match network {
        Some(_) => Grant::SameAccess,
        None => Grant::SameCommand,
    }];
    if let Some(network) = network {
        if approval.title.is_empty() {
            approval.title = format!(
                "Network access to {}",
                str_at(&network, "host").unwrap_or("a host")
            );
        }
        input["network"] = network;
    }
    approval.input = input;
}

/// All that a request asks for.
fn asked_for(params: &Value) -> Value {
    let fields = params.as_object().into_iter().flatten();
    let asked = fields.filter(|(name, value)| {
        let here = name.as_str() == "environmentId" && value.as_str() == Some("local");
        !value.is_null() && !here && !NOT_ASKED_FOR.contains(&name.as_str())
    });
    Value::Object(asked.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// The request has no diff; the item that it is about has.
fn edit(approval: &mut Approval, params: &Value, item: Option<&Value>) {
    let edits: Vec<FileChange> = item.map(changes).unwrap_or_default();
    "fileChange".clone_into(&mut approval.tool_name);
    approval.kind = ToolKind::Edit;
    approval.title = match edits.as_slice() {
        [] => string_at(params, "grantRoot").unwrap_or_else(|| "Edit files".to_owned()),
        [one] => one.path.clone(),
        [first, rest @ ..] => format!("{} and {} more", first.path, rest.len()),
    };
    let mut input = asked_for(params);
    if let Some(changes) = item.and_then(|item| item.get("changes")) {
        input["changes"] = changes.clone();
    }
    approval.input = input;
    approval.changes = edits;
    approval.session_grants = vec![Grant::SameFiles];
}

fn mcp_tool(approval: &mut Approval, params: &Value) {
    let server = str_at(params, "serverName").unwrap_or_default();
    let meta = params.get("_meta").unwrap_or(&Value::Null);
    approval.kind = ToolKind::Mcp;
    match str_at(meta, "tool_name") {
        Some(tool) => {
            approval.tool_name = format!("mcp__{server}__{tool}");
            approval.title = format!("{tool} ({server})");
        }
        // Older versions only name it in the message.
        None => {
            approval.tool_name = format!("mcp__{server}");
            approval.title = str_at(params, "message").map(one_line).unwrap_or_default();
        }
    }
    approval.reason = string_at(params, "message");
    approval.input = meta.get("tool_params").cloned().unwrap_or_default();
    let persist = meta.get("persist").unwrap_or(&Value::Null);
    let once_more = persist.as_str() == Some("session")
        || persist
            .as_array()
            .is_some_and(|ways| ways.iter().any(|way| way.as_str() == Some("session")));
    if once_more {
        approval.session_grants = vec![Grant::Tool {
            tool: approval.tool_name.clone(),
            pattern: None,
        }];
    }
}

fn form(approval: &mut Approval, params: &Value) {
    let server = str_at(params, "serverName").unwrap_or_default();
    let message = string_at(params, "message").unwrap_or_default();
    approval.tool_name = format!("mcp__{server}");
    approval.kind = ToolKind::Question;
    approval.title = one_line(&message);
    approval.reason = Some(message);
    approval.input =
        json!({"server": server, "url": params.get("url"), "schema": params.get("requestedSchema")});
    approval.questions = fields(params)
        .map(|(name, schema)| Question {
            text: field_text(name, schema),
            header: Some(name.clone()),
            options: match str_at(schema, "type") {
                Some("boolean") => vec!["true".to_owned(), "false".to_owned()],
                _ => array_at(schema, "enum")
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
            },
            descriptions: Vec::new(),
            multiple: false,
        })
        .collect();
}

fn question(question: &Value) -> Question {
    let offered: Vec<&Value> = array_at(question, "options")
        .iter()
        .filter(|option| str_at(option, "label").is_some())
        .collect();
    Question {
        text: string_at(question, "question").unwrap_or_default(),
        header: string_at(question, "header"),
        options: offered
            .iter()
            .filter_map(|option| string_at(option, "label"))
            .collect(),
        descriptions: descriptions(&offered),
        multiple: false,
    }
}

fn fields(params: &Value) -> impl Iterator<Item = (&String, &Value)> {
    params
        .pointer("/requestedSchema/properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn field_text(name: &str, schema: &Value) -> String {
    ["description", "title"]
        .iter()
        .find_map(|key| string_at(schema, key))
        .unwrap_or_else(|| name.to_owned())
}

fn typed(schema: &Value, answer: &str) -> Value {
    let parsed = match str_at(schema, "type") {
        Some("boolean") => answer.parse::<bool>().ok().map(Value::from),
        Some("integer") => answer.parse::<i64>().ok().map(Value::from),
        Some("number") => answer.parse::<f64>().ok().map(Value::from),
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::from(answer))
}

/// Approvals that wait, by their id.
pub(super) type Approvals = BTreeMap<String, Waiting>;

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, params: Value) -> (Waiting, Approval) {
        asked("r0-7".into(), json!(7), method, params, None).unwrap()
    }

    fn allow(for_session: bool, answers: &[(&str, &str)]) -> Decision {
        let answers = answers
            .iter()
            .map(|(question, answer)| ((*question).into(), (*answer).into()))
            .collect();
        Decision::Allow {
            for_session,
            updated_input: None,
            answers,
            permission_mode: None,
        }
    }

    const DENY: Decision = Decision::Deny {
        message: None,
        interrupt: false,
    };

    #[test]
    fn questions_are_answered_by_their_ids() {
        let questions = json!([{"id": "q1", "header": "H", "question": "Which?", "isOther": true, "isSecret": false,
            "options": [{"label": "A", "description": "first"}, {"label": "B", "description": ""}]}]);
        let (waiting, approval) = ask(
            "item/tool/requestUserInput",
            json!({"itemId": "i", "questions": questions}),
        );
        assert_eq!(
            (approval.kind, approval.title.as_str()),
            (ToolKind::Question, "Which?")
        );
        assert_eq!(approval.questions[0].options, ["A", "B"]);
        assert_eq!(approval.questions[0].descriptions, ["first", ""]);
        let answer = waiting.answer(&allow(false, &[("Which?", "B")])).unwrap();
        assert_eq!(answer, json!({"answers": {"q1": {"answers": ["B"]}}}));
        assert_eq!(waiting.outcome(&answer), ApprovalOutcome::Allowed);
        let denied = waiting.answer(&DENY).unwrap();
        assert_eq!(
            (denied.clone(), waiting.outcome(&denied)),
            (json!({"answers": {}}), ApprovalOutcome::Denied)
        );
    }

    #[test]
    fn permissions_are_granted_as_asked_for_a_turn_or_the_session() {
        let wanted = json!({"network": {"enabled": true}, "fileSystem": null});
        let (waiting, approval) = ask(
            "item/permissions/requestApproval",
            json!({"itemId": "i", "reason": "to fetch", "permissions": wanted}),
        );
        assert_eq!(approval.reason.as_deref(), Some("to fetch"));
        let answer = waiting.answer(&allow(true, &[])).unwrap();
        assert_eq!(
            answer,
            json!({"permissions": {"network": {"enabled": true}}, "scope": "session"})
        );
        assert_eq!(waiting.outcome(&answer), ApprovalOutcome::AllowedForSession);
        let denied = waiting.answer(&DENY).unwrap();
        assert_eq!(denied, json!({"permissions": {}, "scope": "turn"}));
        assert_eq!(waiting.outcome(&denied), ApprovalOutcome::Denied);
    }

    #[test]
    fn all_that_is_asked_for_is_shown_and_nothing_of_the_protocol() {
        let (_, approval) = ask(
            "item/commandExecution/requestApproval",
            json!({"threadId": "t", "turnId": "u", "itemId": "i", "startedAtMs": 1, "environmentId": "local", "reason": null,
                "command": "bash -lc ls", "cwd": "/srv", "availableDecisions": ["accept"], "commandActions": [],
                "additionalPermissions": {"network": {"enabled": true}}, "somethingNew": 7, "networkApprovalContext": null}),
        );
        assert_eq!(
            approval.input,
            json!({"command": "bash -lc ls", "cwd": "/srv", "additionalPermissions": {"network": {"enabled": true}}, "somethingNew": 7})
        );
        assert_eq!(approval.session_grants, [Grant::SameCommand]);

        let (_, approval) = ask(
            "item/commandExecution/requestApproval",
            json!({"command": "", "environmentId": "sandbox-2", "networkApprovalContext": {"host": "example.org", "protocol": "https"}}),
        );
        assert_eq!(approval.title, "Network access to example.org");
        assert_eq!(
            approval.input,
            json!({"command": "", "environmentId": "sandbox-2", "network": {"host": "example.org", "protocol": "https"}})
        );
        assert_eq!(approval.session_grants, [Grant::SameAccess]);
    }

    #[test]
    fn an_edit_of_which_nothing_is_known_can_still_be_decided() {
        let (waiting, approval) = ask(
            "item/fileChange/requestApproval",
            json!({"itemId": "gone", "grantRoot": "/srv"}),
        );
        assert_eq!((approval.title.as_str(), approval.changes.len()), ("/srv", 0));
        assert_eq!(waiting.answer(&DENY).unwrap(), json!({"decision": "decline"}));
        let stop = Decision::Deny {
            message: None,
            interrupt: true,
        };
        assert_eq!(waiting.answer(&stop).unwrap(), json!({"decision": "cancel"}));
    }
}
