//! `approval_prompt`: the tool that Claude's `--permission-prompt-tool` calls, in the form that it speaks.

use super::caller::Caller;
use crate::command::State;
use arp_agents::claude::{questions, tool_card};
use arp_agents::driver::Decision;
use arp_agents::event::{Approval, ToolKind};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The question as Claude asks it.
#[derive(Debug, Deserialize)]
pub(super) struct Prompt {
    tool_name: String,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    tool_use_id: Option<String>,
}

/// Puts the question before whoever decides, and gives the answer as Claude wants it.
pub(super) async fn ask(state: &Arc<State>, caller: Caller, prompt: Prompt) -> Value {
    let card = tool_card(&prompt.tool_name, &prompt.input);
    let reason = prompt
        .input
        .get("description")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let approval = Approval {
        id: String::new(),
        tool_call_id: prompt.tool_use_id,
        tool_name: prompt.tool_name,
        kind: card.kind,
        title: card.title,
        reason,
        questions: questions(&prompt.input),
        input: prompt.input.clone(),
        changes: card.changes,
        can_allow_session: false,
        session_grants: Vec::new(),
        modes: Vec::new(),
        can_edit: card.kind != ToolKind::Question,
    };
    let executor = caller.executor.as_deref().unwrap_or("claude");
    let waiting =
        state
            .sessions
            .ask_external(approval, executor, caller.session, caller.project.map(Into::into));
    answer(waiting.wait().await, prompt.input)
}

fn answer(decision: Decision, input: Value) -> Value {
    match decision {
        Decision::Allow {
            updated_input,
            answers,
            ..
        } => {
            let mut input = updated_input.unwrap_or(input);
            if !answers.is_empty()
                && let Some(input) = input.as_object_mut()
            {
                input.insert("answers".to_owned(), json!(answers));
            }
            json!({"behavior": "allow", "updatedInput": input})
        }
        Decision::Deny { message, interrupt } => {
            let message = message.unwrap_or_else(|| "The user denied this.".to_owned());
            let mut answer = json!({"behavior": "deny", "message": message});
            if interrupt {
                answer["interrupt"] = json!(true);
            }
            answer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_the_form_that_claude_takes() {
        let allow = Decision::Allow {
            for_session: false,
            updated_input: None,
            answers: [].into(),
            permission_mode: None,
        };
        assert_eq!(
            answer(allow, json!({"command": "ls"})),
            json!({"behavior": "allow", "updatedInput": {"command": "ls"}})
        );
        let deny = Decision::Deny {
            message: Some("no".into()),
            interrupt: true,
        };
        assert_eq!(
            answer(deny, json!({})),
            json!({"behavior": "deny", "message": "no", "interrupt": true})
        );
        let answers = [("Which?".to_owned(), "a".to_owned())].into();
        let chosen = Decision::Allow {
            for_session: false,
            updated_input: None,
            answers,
            permission_mode: None,
        };
        assert_eq!(
            answer(chosen, json!({"questions": []}))["updatedInput"]["answers"]["Which?"],
            "a"
        );
    }
}
